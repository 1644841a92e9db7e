//! What people sign: logins, starts, decisions, certificates, rosters.
//!
//! A person's key is their identity ([`keys`]): a file, or one that ssh-agent holds ([`ssh_agent`]). Before a decision is
//! signed, everything it covers is recomputed from the bytes themselves ([`gate`]) and laid out for people ([`brief`]);
//! what the controller says besides is shown apart.

pub mod keys; // who is signing
pub mod ssh_agent; // … with a key that never leaves its agent
pub mod terminal; // … asked on a terminal
pub mod gate; // what exactly would be signed
pub mod brief; // … so that people can read it
mod decide; // yes or no
mod login; // it is me
mod roster; // who is who
mod certify; // this runbook is fit
mod files;
#[cfg(test)]
mod sample;
#[cfg(test)]
pub(crate) use sample::sample_plan;

use std::path::Path;

use fettle_proto::signed::{self, Namespace, Start};
use fettle_proto::v1;
use fettle_runbooks::id::Host;
use jiff::Timestamp;

pub use certify::beside;
pub(crate) use decide::is_not_theirs;

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
    /// The run that it goes on from.
    pub of: Option<signed::start::Of>,
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
pub async fn sign_start(context: &Context, wanted: &StartWanted) -> Result<v1::Signed> {
    let hosts = wanted
        .hosts
        .iter()
        .map(|host| {
            host.parse::<Host>().map_err(|error| Error::usage("this cannot be a host's name").because(&error))
        })
        .collect::<Result<_>>()?;
    let start = Start {
        run: wanted.run,
        runbook: wanted.runbook.clone(),
        runbook_digest: wanted.runbook_digest,
        inputs: wanted.inputs.clone(),
        hosts,
        person: context.person()?.to_owned(),
        at: now(),
        until: match wanted.until {
            Until::Plan => signed::Until::Plan,
            Until::End => signed::Until::End,
        },
        of: wanted.of.clone(),
    };
    Ok(keys::signer(context, keys::Wanted::Any)?.sign(Namespace::Start, &start.encode())?.into())
}

/// `fettle login`
pub async fn login(context: &Context, _args: &args::Login) -> Result<Exit> {
    login::login(context).await
}

/// `fettle approve`
pub async fn approve(context: &Context, args: &args::Approve) -> Result<Exit> {
    decide::approve(context, args).await
}

/// `fettle reject`
pub async fn reject(context: &Context, args: &args::Reject) -> Result<Exit> {
    decide::reject(context, args).await
}

/// `fettle roster sign`
pub async fn roster_sign(context: &Context, file: &Path, out: Option<&Path>) -> Result<Exit> {
    roster::sign(context, file, out)
}

/// `fettle roster show`
pub async fn roster_show(context: &Context, file: Option<&Path>) -> Result<Exit> {
    roster::show(context, file).await
}

/// `fettle runbook certify`
pub async fn certify(context: &Context, file: &Path, author: &str) -> Result<Exit> {
    certify::certify(context, file, author)
}

/// `fettle runbook verify`
pub async fn verify(context: &Context, file: &Path, roster: Option<&Path>) -> Result<Exit> {
    certify::verify(context, file, roster).await
}

/// The time, to the second: what people sign need not be more exact.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
