//! What a client is told when it does not get what it asked for.
//!
//! A gRPC code for programs, a stable word in the metadata, and a message whose first line says what; further lines
//! begin with `why:`, `fix:` or `next:`.

use std::fmt::Display;
use std::str::FromStr;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::agents::CODE;
use crate::problem::Problem;
use crate::trigger::Library;

/// The coordinator's "no" as a status.
pub(super) fn no(problem: &Problem) -> Status {
    let (code, message) = match problem {
        Problem::NotFound { what } => (Code::NotFound, format!("failed to find {what}")),
        Problem::Invalid { message, .. } => (Code::InvalidArgument, message.clone()),
        Problem::SignIn { message } => (Code::Unauthenticated, format!("{message}\nnext: fettle login")),
        Problem::NotAllowed { message, .. } => (Code::PermissionDenied, message.clone()),
        Problem::Conflict { message, .. } => (Code::Aborted, message.clone()),
        Problem::Guard { message } => (Code::FailedPrecondition, message.clone()),
        Problem::Unavailable { message } => {
            (Code::Unavailable, format!("{message}\nnext: ask again; every request is safe to repeat"))
        }
    };
    coded(code, problem.code(), message)
}

/// The request itself is wrong.
pub(super) fn invalid(what: &str, why: &str, fix: &str) -> Status {
    let mut message = what.to_owned();
    for (name, text) in [("why", why), ("fix", fix)] {
        if !text.is_empty() {
            message.push_str(&format!("\n{name}: {text}"));
        }
    }
    coded(Code::InvalidArgument, "invalid", message)
}

/// An id or a name out of a request.
pub(super) fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, Status> {
    text.parse().map_err(|error: T::Err| coded(Code::InvalidArgument, "invalid", error.to_string()))
}

/// The session's token.
pub(super) fn bearer(metadata: &MetadataMap) -> Result<String, Status> {
    let none = |why: &str| {
        coded(
            Code::Unauthenticated,
            "sign-in",
            format!("you are not signed in\nwhy: {why}\nnext: fettle login"),
        )
    };
    let value = metadata.get("authorization").ok_or_else(|| none("the call carries no session"))?;
    let value = value.to_str().map_err(|_| none("the session is not text"))?;
    match value.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer ") && !token.trim().is_empty() => {
            Ok(token.trim().to_owned())
        }
        Some(_) | None => Err(none("the call's authorization is not a bearer token")),
    }
}

/// Signed in, but without the scope.
pub(super) fn scope(person: &str, needed: &str, scopes: &[String]) -> Status {
    let has = if scopes.is_empty() { "none".to_owned() } else { scopes.join(", ") };
    coded(
        Code::PermissionDenied,
        "scope-missing",
        format!(
            "{person} may not do this\nwhy: it needs the scope `{needed}`; the roster gives: {has}\nfix: have the scope added to the roster, or ask someone who has it"
        ),
    )
}

/// No such runbook, and what may have been meant.
pub(super) fn no_runbook(name: &str, library: &Library) -> Status {
    let shown: String = name.chars().take(120).collect();
    let mut message = format!("failed to find the runbook `{}`", shown.escape_debug());
    let refused = library.refused.keys().find(|file| file.trim_end_matches(".yaml") == name);
    let near = library
        .entries
        .keys()
        .map(|other| (distance(name, other), other))
        .filter(|(distance, other)| *distance <= 3 || other.ends_with(&format!("/{name}")))
        .min();
    match (refused, near) {
        (Some(file), _) => {
            message.push_str(&format!("\nwhy: {file} is refused; `fettle runbook list` says why"))
        }
        (None, Some((_, near))) => message.push_str(&format!("\nfix: did you mean `{near}`?")),
        (None, None) => message.push_str("\nnext: fettle runbook list"),
    }
    coded(Code::NotFound, "not-found", message)
}

/// How many characters must change (Levenshtein), for names of ordinary length.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) =
        (one.chars().take(120).collect(), other.chars().take(120).collect());
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (above + 1).min(row[j] + 1).min(corner + usize::from(a != b));
            corner = above;
        }
    }
    row[other.len()]
}

fn coded(code: Code, word: &'static str, message: impl Into<String>) -> Status {
    let mut status = Status::new(code, message);
    status.metadata_mut().insert(CODE, MetadataValue::from_static(word));
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_taken_from_the_metadata_alone() {
        let with = |value: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("authorization", value.parse().expect("ascii"));
            bearer(&metadata).map_err(|status| status.code())
        };
        assert_eq!(with("Bearer abc"), Ok("abc".to_owned()));
        assert_eq!(with("bearer abc"), Ok("abc".to_owned()));
        assert_eq!(with("Basic abc"), Err(Code::Unauthenticated));
        assert_eq!(with("Bearer "), Err(Code::Unauthenticated));
        assert_eq!(bearer(&MetadataMap::new()).map_err(|it| it.code()), Err(Code::Unauthenticated));
    }

    #[test]
    fn each_kind_of_problem_has_its_code_and_word() {
        let problem = Problem::NotFound { what: "run `run_1`".to_owned() };
        let status = no(&problem);
        assert_eq!((status.code(), status.message()), (Code::NotFound, "failed to find run `run_1`"));
        assert_eq!(status.metadata().get(CODE).and_then(|it| it.to_str().ok()), Some("not-found"));
    }

    #[test]
    fn a_runbook_that_is_not_there_is_answered_with_a_near_one() {
        assert_eq!(distance("host/disk-ful", "host/disk-full"), 1);
        assert_eq!(distance("", "abc"), 3);
        let status = no_runbook("x\u{1b}", &Library::default());
        assert_eq!(status.message(), "failed to find the runbook `x\\u{1b}`\nnext: fettle runbook list");
    }
}
