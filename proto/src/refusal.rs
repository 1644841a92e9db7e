//! A "no" and its reason.
//!
//! Every refusal of a host, and every refusal of something signed, has a [`Code`] that scripts and tests may rely on
//! and a text for people. `docs/security.md` lists each code with what it stops; a test compares the two.

use std::fmt;

/// Something that will not be done, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Refusal {
    /// Stable.
    pub code: Code,
    /// For people: what was wrong, with the values that were compared.
    pub message: String,
}

impl Refusal {
    /// A refusal with its reason.
    pub fn new(code: Code, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// Why something was refused. The texts are stable; a code that is no longer used is never used for something else.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $doc])* $name,)*
        }

        impl Code {
            /// All codes, in the order of `docs/security.md`.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The stable text.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// One line that says what was refused.
            pub const fn meaning(self) -> &'static str {
                match self { $(Code::$name => concat!($($doc),*),)* }
            }
        }

        impl std::str::FromStr for Code {
            type Err = NotACode;

            fn from_str(given: &str) -> Result<Code, NotACode> {
                match given {
                    $($text => Ok(Code::$name),)*
                    other => Err(NotACode(other.chars().take(80).collect())),
                }
            }
        }
    };
}

/// Text that is no code of this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a refusal code of this version")]
pub struct NotACode(String);

codes! {
    /// The bytes are not the format they should be: not strict JSON, a member missing, unknown or twice, or too large.
    Malformed = "malformed",
    /// The signature does not belong to these bytes, this namespace or this key.
    SignatureInvalid = "signature-invalid",
    /// The kind of signature is not accepted (WebAuthn, today).
    SignatureKind = "signature-kind",
    /// The key's algorithm is not accepted.
    KeyNotAllowed = "key-not-allowed",
    /// The key is too weak: DSA, or RSA below 3072 bits.
    KeyWeak = "key-weak",
    /// The key belongs to nobody in the roster.
    KeyUnknown = "key-unknown",
    /// The person named in the signed bytes is not the person whose key signed them.
    PersonMismatch = "person-mismatch",
    /// The person lacks the scope for this.
    ScopeMissing = "scope-missing",

    /// The roster is signed by no root key that this host trusts.
    RosterUntrusted = "roster-untrusted",
    /// The roster is older than the one this host already has.
    RosterOld = "roster-old",
    /// The roster has expired.
    RosterExpired = "roster-expired",
    /// This host has no roster.
    RosterMissing = "roster-missing",

    /// The runbook carries no certificate.
    CertificateMissing = "certificate-missing",
    /// The certificate is for other runbook bytes.
    CertificateMismatch = "certificate-mismatch",
    /// The reviewer is the author.
    CertificateSelfReviewed = "certificate-self-reviewed",
    /// Fewer reviewers than the roster asks for.
    CertificateQuorum = "certificate-quorum",
    /// The certificates name different authors.
    CertificateAuthors = "certificate-authors",
    /// The runbook runs programs to diagnose or to verify, or reads logs, no reviewers certified it, and no person started this run of it.
    ReadUncertified = "read-uncertified",

    /// The person's start is for another run, runbook, inputs or host than the order.
    StartMismatch = "start-mismatch",
    /// The person started the run until its plan only, and the order goes further.
    StartUntilPlan = "start-until-plan",
    /// The person signed the start too long ago for it to begin a run.
    StartExpired = "start-expired",

    /// The run that this one goes on from, or another that goes on from it, is not over on this host.
    EarlierOpen = "earlier-open",
    /// This host does not remember the run that is to be undone.
    EarlierForgotten = "earlier-forgotten",
    /// The run that this one goes on from is an undo itself, is of another runbook, or has been gone on from or undone meanwhile.
    EarlierMismatch = "earlier-mismatch",
    /// Nothing of the run is left that could be undone.
    NothingToUndo = "nothing-to-undo",

    /// The order is for another host.
    OrderHost = "order-host",
    /// The order's bytes do not have the digest it names, or cannot be read.
    OrderMalformed = "order-malformed",
    /// The order came too late.
    OrderExpired = "order-expired",
    /// The same segment came before with other content, another one of the run still goes on, or the run was diagnosed before.
    SegmentConflict = "segment-conflict",
    /// The run has been cancelled on this host.
    RunCancelled = "run-cancelled",
    /// The runbook cannot be read, or breaks a rule of the language.
    RunbookInvalid = "runbook-invalid",
    /// The inputs do not fit the runbook.
    InputsInvalid = "inputs-invalid",
    /// This host has no such plan, or the order names another than the host's own.
    PlanMismatch = "plan-mismatch",
    /// The order names a step that the plan does not have.
    StepUnknown = "step-unknown",
    /// The order begins at another step than the one this host stopped at.
    StepOrder = "step-order",
    /// It cannot be told whether a step that the order reaches took effect; a person must look.
    OutcomeUnknown = "outcome-unknown",
    /// The host-local policy forbids it, whoever approved.
    Vetoed = "vetoed",
    /// The host cannot do it as it must be done (no isolation, no such user).
    HostUnable = "host-unable",
    /// The host's journal cannot be relied upon; a person must look.
    JournalDamaged = "journal-damaged",

    /// The step needs an approval and the order has no grant.
    ApprovalNeeded = "approval-needed",
    /// The grant is for another run.
    RequestRun = "request-run",
    /// The grant is for another runbook, or other bytes of it.
    RequestRunbook = "request-runbook",
    /// The grant names another start, or another requester, than the run has on this host.
    RequestStart = "request-start",
    /// The request shows a lower risk than the plan has.
    RequestRisk = "request-risk",
    /// The plan of this host is not among those that were approved.
    LeafMismatch = "leaf-mismatch",
    /// The plan has another nonce than the one this host journaled for it.
    NonceMismatch = "nonce-mismatch",
    /// The nonce has been used: a grant starts a plan once.
    NonceConsumed = "nonce-consumed",
    /// The grant lets another attempt run again than the one whose outcome is unknown on this host.
    AgainMismatch = "again-mismatch",
    /// The host was rebooted after it made the plan, or after people were asked to let a step run again.
    Rebooted = "rebooted",
    /// The time to start has passed.
    GrantExpired = "grant-expired",
    /// An approval is of another request.
    ApprovalMismatch = "approval-mismatch",
    /// A deny was presented as an approval.
    ApprovalDenied = "approval-denied",
    /// An approval was signed after the time to decide.
    ApprovalLate = "approval-late",
    /// The approver is who asked for the run.
    ApproverIsRequester = "approver-is-requester",
    /// The approver is the author of the runbook.
    ApproverIsAuthor = "approver-is-author",
    /// One person's approval came twice.
    ApproverTwice = "approver-twice",
    /// Not enough persons of the right groups approved.
    Quorum = "quorum",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_read_back_and_no_two_share_a_text() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert!(seen.insert(code.as_str()), "{code} twice");
        }
    }

    #[test]
    fn the_security_page_lists_every_code_and_no_other() {
        let page = include_str!("../../docs/security.md");
        let (_, refusals) = page.split_once("\n## Refusals\n").expect("the page has a section of them");
        let listed: Vec<&str> =
            refusals.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(listed, codes, "docs/security.md must list the codes, in order");
    }
}
