//! Why a caller does not get what it asked for, in the few kinds that lead to different next steps.

use crate::store::Unavailable;

/// What went wrong, by what the caller can do about it. Exit codes and gRPC codes follow from the kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No such thing.
    #[error("find {what}")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The request itself is wrong.
    #[error("{message}")]
    Invalid {
        /// A stable word: `bad-signature`, `unknown-input`.
        code: &'static str,
        /// For people: what, where and how to fix it.
        message: String,
    },
    /// Not signed in, or no longer.
    #[error("{message}")]
    SignIn {
        /// For people.
        message: String,
    },
    /// Signed in, and not allowed.
    #[error("{message}")]
    NotAllowed {
        /// A stable word: `scope-missing`, `requester`, `author`, `revoked`.
        code: &'static str,
        /// For people.
        message: String,
    },
    /// Right in itself, but not now: the gate is closed, the id is taken by something else.
    #[error("{message}")]
    Conflict {
        /// A stable word: `gate-closed`, `run-exists`.
        code: &'static str,
        /// For people.
        message: String,
    },
    /// A guard says no.
    #[error("{message}")]
    Guard {
        /// For people, with every guard that says no.
        message: String,
    },
    /// The store did not answer: whether it happened is not known. Ask again; every request is safe to repeat.
    #[error("{message}")]
    Unavailable {
        /// For people.
        message: String,
    },
}

impl Problem {
    /// The stable word for this problem, beside its kind.
    pub fn code(&self) -> &'static str {
        match self {
            Problem::NotFound { .. } => "not-found",
            Problem::Invalid { code, .. }
            | Problem::NotAllowed { code, .. }
            | Problem::Conflict { code, .. } => code,
            Problem::SignIn { .. } => "sign-in",
            Problem::Guard { .. } => "guard",
            Problem::Unavailable { .. } => "unavailable",
        }
    }

    pub(crate) fn not_found(what: impl Into<String>) -> Problem {
        Problem::NotFound { what: what.into() }
    }

    pub(crate) fn invalid(code: &'static str, message: impl Into<String>) -> Problem {
        Problem::Invalid { code, message: message.into() }
    }

    pub(crate) fn not_allowed(code: &'static str, message: impl Into<String>) -> Problem {
        Problem::NotAllowed { code, message: message.into() }
    }

    pub(crate) fn conflict(code: &'static str, message: impl Into<String>) -> Problem {
        Problem::Conflict { code, message: message.into() }
    }

    /// The same, with the command to type next.
    pub(crate) fn next(self, command: &str) -> Problem {
        self.with("next", command)
    }

    /// The same, with what to change.
    pub(crate) fn fix(self, what: &str) -> Problem {
        self.with("fix", what)
    }

    /// Further lines are read by name: see the refusals of the operators' API.
    fn with(mut self, name: &str, text: &str) -> Problem {
        let (Problem::NotFound { what: message }
        | Problem::Invalid { message, .. }
        | Problem::SignIn { message }
        | Problem::NotAllowed { message, .. }
        | Problem::Conflict { message, .. }
        | Problem::Guard { message }
        | Problem::Unavailable { message }) = &mut self;
        message.push_str(&format!("\n{name}: {text}"));
        self
    }

    /// It was decided, and the store did not say that it has it.
    pub(crate) fn unknown(error: &Unavailable) -> Problem {
        Problem::Unavailable { message: format!("{}; whether it happened is not known", error.sentence()) }
    }

    pub(crate) fn unavailable() -> Problem {
        Problem::Unavailable { message: "the store did not answer; whether it happened is not known".into() }
    }
}
