//! The words of the table: how a story ends.

/// How a story must end after a death at a point. What a power failure does to approvals is the same everywhere, and not
/// in the words: see [`Word::GoesOn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It ends verified, and each step has acted once. After a reboot between the plan and the step that people
    /// approved, that step does not act, and the run says why.
    GoesOn,
    /// Nobody can know whether the step acted. One with a check is gone on with; for one without, a person is asked,
    /// and what they say ends the run.
    Asks,
    /// The run is cancelled. A step that was running has acted once or not at all.
    Cancelled,
    /// The host is joined when the same command is given again, with the same token.
    SameToken,
    /// The host is joined when the command is given again, with a new token: the old one is spent.
    NewToken,
    /// The host is joined.
    Joined,
    /// The program starts again, and has the identity that it had.
    Starts,
    /// The step failed, and the unit is as it was before.
    Undone,
    /// There is no copy of the store: the same command makes one.
    NoCopy,
    /// There is a copy of the store, whole.
    Copy,
    /// The database in place is the one before, whole; the same command puts the copy in its place.
    Before,
    /// The database in place is the copy.
    Restored,
    /// The damaged journal is put aside and named; the host goes on with a new one.
    PutAside,
}

impl Word {
    pub(super) fn of(cell: &str) -> Result<Word, String> {
        Ok(match cell {
            "goes on" => Word::GoesOn,
            "asks" => Word::Asks,
            "cancelled" => Word::Cancelled,
            "same token" => Word::SameToken,
            "new token" => Word::NewToken,
            "joined" => Word::Joined,
            "starts" => Word::Starts,
            "undone" => Word::Undone,
            "no copy" => Word::NoCopy,
            "a copy" => Word::Copy,
            "the one before" => Word::Before,
            "the restored one" => Word::Restored,
            "put aside" => Word::PutAside,
            other => return Err(format!("`{other}` is none of the words of the table")),
        })
    }
}
