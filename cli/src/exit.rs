//! What the exit code says. One table; scripts rely on it.

use std::process::ExitCode;

/// How a command ended, by meaning. The numbers never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Verified, or succeeded with nothing to verify; the command did what it was asked.
    Done,
    /// A step, or the command itself, failed; or the run was cancelled.
    Failed,
    /// The command line, a file or a value is wrong, or the controller says that the request is.
    Usage,
    /// There is no such run, gate, signal, incident, agent or runbook.
    NotFound,
    /// Not signed in, or the session has ended.
    SignIn,
    /// Signed in, and not allowed.
    NotAllowed,
    /// What had been done is undone: because a step failed, or because a person wanted it.
    Undone,
    /// Not ended yet: it waits, or goes on without being watched.
    Pending,
    /// People rejected it, or nobody decided in time.
    Rejected,
    /// It ran, and the symptom is still there.
    NotVerified,
    /// Hosts ended differently.
    Partial,
    /// A guard or the host refuses it.
    Guard,
    /// The controller cannot be reached.
    Unreachable,
    /// It cannot be told whether a step took effect; a person must look.
    Resolve,
}

impl Exit {
    /// Every exit, in the order of its code.
    pub const ALL: &'static [Exit] = &[
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::NotFound,
        Exit::SignIn,
        Exit::NotAllowed,
        Exit::Undone,
        Exit::Pending,
        Exit::Rejected,
        Exit::NotVerified,
        Exit::Partial,
        Exit::Guard,
        Exit::Unreachable,
        Exit::Resolve,
    ];

    /// The number a shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::SignIn => 4,
            Exit::NotAllowed => 5,
            Exit::Undone => 7,
            Exit::Pending => 8,
            Exit::Rejected => 9,
            Exit::NotVerified => 10,
            Exit::Partial => 11,
            Exit::Guard => 13,
            Exit::Unreachable => 14,
            Exit::Resolve => 15,
        }
    }

    /// What the number means, in words.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "verified, or succeeded with nothing to verify",
            Exit::Failed => "failed or cancelled",
            Exit::Usage => "usage",
            Exit::NotFound => "not found",
            Exit::SignIn => "sign-in needed",
            Exit::NotAllowed => "not allowed",
            Exit::Undone => "undone",
            Exit::Pending => "pending",
            Exit::Rejected => "rejected or expired",
            Exit::NotVerified => "not verified",
            Exit::Partial => "partial",
            Exit::Guard => "refused by a guard or the host",
            Exit::Unreachable => "controller unreachable",
            Exit::Resolve => "waits for a person to resolve",
        }
    }

    /// The exit of a host run, from the words of `fettle.v1.HostRun`: its state, what it waits for, its ending.
    pub fn of_host(state: &str, waiting_for: &str, ending: &str) -> Exit {
        if state != "ended" {
            return if waiting_for == "resolve" { Exit::Resolve } else { Exit::Pending };
        }
        match ending {
            "verified" | "succeeded" => Exit::Done,
            "unverified" => Exit::NotVerified,
            "undone" => Exit::Undone,
            "rejected" | "expired" => Exit::Rejected,
            "refused" => Exit::Guard,
            // `failed`, `cancelled`, and any word of a newer controller: never success.
            _ => Exit::Failed,
        }
    }

    /// The exit of a whole run: that of its hosts when they agree, otherwise `Resolve`, `Pending` or `Partial`.
    pub fn of_run<'a>(hosts: impl IntoIterator<Item = &'a fettle_proto::v1::HostRun>) -> Exit {
        let mut exits =
            hosts.into_iter().map(|host| Exit::of_host(&host.state, &host.waiting_for, &host.ending));
        let Some(first) = exits.next() else { return Exit::Pending };
        let mut all = vec![first];
        all.extend(exits);
        match () {
            () if all.iter().all(|exit| *exit == first) => first,
            () if all.contains(&Exit::Resolve) => Exit::Resolve,
            () if all.contains(&Exit::Pending) => Exit::Pending,
            () => Exit::Partial,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_exit_codes_is_the_published_one() {
        let table: Vec<String> =
            Exit::ALL.iter().map(|exit| format!("{} {}", exit.code(), exit.meaning())).collect();
        insta::assert_snapshot!(table.join("\n"), @r"
        0 verified, or succeeded with nothing to verify
        1 failed or cancelled
        2 usage
        3 not found
        4 sign-in needed
        5 not allowed
        7 undone
        8 pending
        9 rejected or expired
        10 not verified
        11 partial
        13 refused by a guard or the host
        14 controller unreachable
        15 waits for a person to resolve
        ");
    }

    #[test]
    fn a_host_that_ended_in_an_unknown_word_is_never_a_success() {
        assert_eq!(Exit::of_host("ended", "", "splendid"), Exit::Failed);
        assert_eq!(Exit::of_host("ended", "", ""), Exit::Failed);
    }

    #[test]
    fn hosts_that_ended_differently_are_partial_unless_one_still_waits() {
        let host = |state: &str, waiting: &str, ending: &str| fettle_proto::v1::HostRun {
            state: state.into(),
            waiting_for: waiting.into(),
            ending: ending.into(),
            ..Default::default()
        };
        let verified = host("ended", "", "verified");
        let failed = host("ended", "", "failed");
        let gated = host("waiting", "gate", "");
        let unknown = host("waiting", "resolve", "");
        assert_eq!(Exit::of_run([&verified, &verified]), Exit::Done);
        assert_eq!(Exit::of_run([&verified, &failed]), Exit::Partial);
        assert_eq!(Exit::of_run([&verified, &gated]), Exit::Pending);
        assert_eq!(Exit::of_run([&gated, &unknown]), Exit::Resolve);
        assert_eq!(Exit::of_run([]), Exit::Pending);
    }
}
