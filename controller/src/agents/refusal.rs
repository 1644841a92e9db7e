//! What an agent is told when something is not done: a gRPC status for programs, with a stable word in the metadata.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::ca::CaError;
use crate::problem::Problem;

/// The metadata key of the stable word.
pub const CODE: &str = "fettle-code";

fn coded(code: Code, word: &'static str, message: impl Into<String>) -> Status {
    let mut status = Status::new(code, message);
    status.metadata_mut().insert(CODE, MetadataValue::from_static(word));
    status
}

pub(super) fn status(problem: &Problem) -> Status {
    let code = match problem {
        Problem::NotFound { .. } => Code::NotFound,
        Problem::Invalid { .. } => Code::InvalidArgument,
        Problem::SignIn { .. } => Code::Unauthenticated,
        Problem::NotAllowed { .. } => Code::PermissionDenied,
        Problem::Conflict { .. } => Code::Aborted,
        Problem::Guard { .. } => Code::FailedPrecondition,
        Problem::Unavailable { .. } => Code::Unavailable,
    };
    coded(code, problem.code(), problem.to_string())
}

pub(super) fn unauthenticated() -> Status {
    coded(
        Code::Unauthenticated,
        "no-certificate",
        "this call needs an agent's certificate; join the host first",
    )
}

pub(super) fn certificate_ended() -> Status {
    coded(
        Code::PermissionDenied,
        "certificate-ended",
        "the certificate of this host was revoked or has expired; join the host again",
    )
}

pub(super) fn certificate(error: &CaError) -> Status {
    match error {
        CaError::Request { .. } => coded(
            Code::InvalidArgument,
            "bad-request",
            "the certificate request cannot be read or its signature is wrong",
        ),
        CaError::Read { .. }
        | CaError::Incomplete { .. }
        | CaError::Write { .. }
        | CaError::Damaged { .. }
        | CaError::Name { .. }
        | CaError::Make { .. }
        | CaError::Random(_) => {
            tracing::error!(%error, "Certificate not issued.");
            coded(
                Code::Internal,
                "no-certificate",
                "the controller could not make a certificate; its log says why",
            )
        }
    }
}

pub(super) fn protocol(theirs: u32) -> Status {
    coded(
        Code::FailedPrecondition,
        "protocol",
        format!(
            "protocol {theirs} is not spoken here, only {}; use an agent of this controller's version",
            super::PROTOCOL
        ),
    )
}

pub(super) fn out_of_order(expected: &str) -> Status {
    coded(Code::InvalidArgument, "out-of-order", format!("expected {expected}"))
}

pub(super) fn too_slow(what: &str) -> Status {
    coded(Code::DeadlineExceeded, "too-slow", format!("{what} took too long"))
}

pub(super) fn busy() -> Status {
    coded(Code::ResourceExhausted, "busy", "too many hosts are joining; try again in a moment")
}

pub(super) fn over_credit() -> Status {
    coded(Code::ResourceExhausted, "over-credit", "more reports were sent than credits allow")
}

pub(super) fn superseded() -> Status {
    coded(
        Code::Aborted,
        "superseded",
        "another connection of this host took over; if that was not this agent, two machines use one identity",
    )
}

pub(super) fn silent() -> Status {
    coded(Code::DeadlineExceeded, "silent", "three heartbeats were missed")
}

pub(super) fn stopping() -> Status {
    coded(Code::Unavailable, "stopping", "the controller is stopping")
}
