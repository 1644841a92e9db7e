//! How the command line says that something went wrong: what, where, why, fix, next.

use std::fmt;

use crate::exit::Exit;
use crate::output::visible;

/// Something a person should read. Made with [`Error::new`] and the words that help; every part but `what` may be
/// absent. Values from outside are made visible when it is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    exit: Exit,
    what: String,
    at: Option<String>,
    why: Vec<String>,
    fix: Option<String>,
    next: Option<String>,
}

/// What commands answer with.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What went wrong, in one sentence without a full stop: `failed to read the runbook`.
    pub fn new(exit: Exit, what: impl Into<String>) -> Error {
        Error { exit, what: what.into(), at: None, why: Vec::new(), fix: None, next: None }
    }

    /// An end that needs no words: the reader of stdout has gone, or everything has been said already.
    pub fn silent(exit: Exit) -> Error {
        Error::new(exit, "")
    }

    /// Whether there is nothing to print.
    pub fn is_silent(&self) -> bool {
        self.what.is_empty()
    }

    /// The command line, a file or a value is wrong.
    pub fn usage(what: impl Into<String>) -> Error {
        Error::new(Exit::Usage, what)
    }

    /// Where: a file, an address, a line.
    #[must_use]
    pub fn at(mut self, at: impl fmt::Display) -> Error {
        self.at = Some(at.to_string());
        self
    }

    /// Why; may be said several times, each a line of its own.
    #[must_use]
    pub fn why(mut self, why: impl fmt::Display) -> Error {
        self.why.push(why.to_string());
        self
    }

    /// Why, from an error and everything beneath it.
    #[must_use]
    pub fn because(mut self, error: &(dyn std::error::Error + 'static)) -> Error {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let text = error.to_string();
            if self.why.last() != Some(&text) {
                self.why.push(text);
            }
            cause = error.source();
        }
        self
    }

    /// What to change.
    #[must_use]
    pub fn fix(mut self, fix: impl fmt::Display) -> Error {
        self.fix = Some(fix.to_string());
        self
    }

    /// The command to type next.
    #[must_use]
    pub fn next(mut self, next: impl fmt::Display) -> Error {
        self.next = Some(next.to_string());
        self
    }

    /// How the process ends.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What went wrong.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The same as JSON, one object, for `-o json`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "error": {
            "what": self.what, "where": self.at, "why": self.why, "fix": self.fix, "next": self.next,
            "exit": self.exit.code(), "meaning": self.exit.meaning(),
        }})
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", visible(&self.what))?;
        let mut line = |name: &str, text: &str| {
            let text = text.lines().map(|line| visible(line).into_owned()).collect::<Vec<_>>();
            write!(f, "\n{name:>6}: {}", text.join("\n        "))
        };
        self.at.iter().try_for_each(|at| line("where", at))?;
        self.why.iter().try_for_each(|why| line("why", why))?;
        self.fix.iter().try_for_each(|fix| line("fix", fix))?;
        self.next.iter().try_for_each(|next| line("next", next))
    }
}

impl std::error::Error for Error {}

/// What a call answered, in our words. The controller's own message is the reason; the code chooses the exit.
impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Error {
        use tonic::Code;
        let said = status.message();
        let (first, rest) = said.split_once('\n').unwrap_or((said, ""));
        let make = |exit, fallback: &str| {
            let mut error = Error::new(exit, if first.is_empty() { fallback } else { first });
            for line in rest.lines() {
                error = match line.split_once(": ") {
                    Some(("fix", fix)) => error.fix(fix),
                    Some(("next", next)) => error.next(next),
                    Some(("why", why)) => error.why(why),
                    Some(("where", at)) => error.at(at),
                    Some(_) | None => error.why(line),
                };
            }
            error
        };
        match status.code() {
            Code::Unauthenticated => {
                let error = make(Exit::SignIn, "you are not signed in");
                if error.next.is_some() { error } else { error.next("fettle login") }
            }
            Code::PermissionDenied => make(Exit::NotAllowed, "you may not do this"),
            Code::NotFound => make(Exit::NotFound, "there is no such thing"),
            Code::InvalidArgument | Code::OutOfRange => {
                make(Exit::Usage, "the controller refused the request")
            }
            Code::FailedPrecondition => make(Exit::Guard, "this cannot be done now"),
            Code::Unavailable => make(Exit::Unreachable, "the controller is not available"),
            Code::DeadlineExceeded | Code::Cancelled => {
                make(Exit::Unreachable, "the controller did not answer in time")
            }
            Code::Unimplemented => make(Exit::Failed, "the controller does not know this call")
                .why("it is older than this fettle, or something else answers at this address")
                .fix("use the fettle of its version, or upgrade the controller"),
            Code::AlreadyExists | Code::Aborted => make(Exit::Failed, "something else was there first"),
            Code::Ok | Code::Unknown | Code::ResourceExhausted | Code::Internal | Code::DataLoss => {
                make(Exit::Failed, "the controller failed to do this")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_why_fix_and_next() {
        let error = Error::usage("failed to read the runbook")
            .at("restart.yaml")
            .why("it has 2 problems")
            .fix("see the lines above")
            .next("fettle runbook lint restart.yaml");
        insta::assert_snapshot!(error, @r"
        error: failed to read the runbook
         where: restart.yaml
           why: it has 2 problems
           fix: see the lines above
          next: fettle runbook lint restart.yaml
        ");
    }

    #[test]
    fn control_characters_from_outside_are_made_visible() {
        let error = Error::usage("no host `web\u{1b}[2J`");
        assert_eq!(error.to_string(), "error: no host `web\\u{1b}[2J`");
    }

    #[test]
    fn a_status_keeps_the_words_of_the_controller_and_chooses_the_exit() {
        let error = Error::from(tonic::Status::unauthenticated("the session has ended"));
        assert_eq!(error.exit(), Exit::SignIn);
        insta::assert_snapshot!(error, @r"
        error: the session has ended
          next: fettle login
        ");
        let error = Error::from(tonic::Status::not_found(
            "no run `run_1`\nwhy: it was never started\nnext: fettle run list",
        ));
        assert_eq!(error.exit(), Exit::NotFound);
        insta::assert_snapshot!(error, @r"
        error: no run `run_1`
           why: it was never started
          next: fettle run list
        ");
    }
}
