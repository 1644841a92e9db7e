//! What people sign: logins, starts, decisions, certificates, rosters.

use std::path::Path;

use fettle_proto::v1;

use crate::args;
use crate::config::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;

/// What a start says, before it is signed (format `start/1`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartWanted {
    /// The run's id, minted here.
    pub run: fettle_runbooks::id::RunId,
    /// The runbook's name.
    pub runbook: String,
    /// Digest of the runbook's exact bytes.
    pub runbook_digest: fettle_runbooks::id::Digest,
    /// Inputs as given.
    pub inputs: std::collections::BTreeMap<String, String>,
    /// Where.
    pub hosts: Vec<String>,
    /// Whether to stop at the plan.
    pub until: Until,
}

/// How far a start goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Diagnose and plan.
    Plan,
    /// All of it.
    End,
}

/// Signs a start with the caller's key.
pub async fn sign_start(_context: &Context, _wanted: &StartWanted) -> Result<v1::Signed> {
    Err(unbuilt())
}

/// `fettle login`
pub async fn login(_context: &Context, _args: &args::Login) -> Result<Exit> {
    Err(unbuilt())
}

/// `fettle approve`
pub async fn approve(_context: &Context, _args: &args::Approve) -> Result<Exit> {
    Err(unbuilt())
}

/// `fettle reject`
pub async fn reject(_context: &Context, _args: &args::Reject) -> Result<Exit> {
    Err(unbuilt())
}

/// `fettle roster sign`
pub async fn roster_sign(_context: &Context, _file: &Path, _out: Option<&Path>) -> Result<Exit> {
    Err(unbuilt())
}

/// `fettle roster show`
pub async fn roster_show(_context: &Context, _file: Option<&Path>) -> Result<Exit> {
    Err(unbuilt())
}

/// `fettle runbook certify`
pub async fn certify(_context: &Context, _file: &Path, _author: &str) -> Result<Exit> {
    Err(unbuilt())
}

/// `fettle runbook verify`
pub async fn verify(_context: &Context, _file: &Path, _roster: Option<&Path>) -> Result<Exit> {
    Err(unbuilt())
}

fn unbuilt() -> Error {
    Error::new(Exit::Failed, "signing is not built in")
}
