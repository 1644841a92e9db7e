//! The formats that people sign, or that bind what they sign.
//!
//! Each is a JSON object whose scalars are all strings and whose first member names it (`"fettle":"roster/1"`). It is
//! encoded once, by whoever makes it; from then on its bytes are what is stored, carried, verified and shown. A type of
//! this module is therefore what such bytes *say*, and never the source of them a second time.
//!
//! | format | digest tag | namespace | signed by |
//! | --- | --- | --- | --- |
//! | [`trust`] | `trust` | | nobody: its digest is handed over out of band |
//! | [`roster`] | `roster` | `roster@fettle` | an offline root key |
//! | [`certificate`] | `certificate` | `runbook@fettle` | a reviewer who is not the author |
//! | [`login`] | | `login@fettle` | a person |
//! | [`start`] | `start` | `start@fettle` | a person |
//! | [`plan`] | `plan` | | nobody: made by the host that will run it |
//! | [`leaf`] | `leaf` | | nobody: it is a Merkle leaf |
//! | [`request`] | `request` | | nobody: approvals name its digest |
//! | [`approval`] | `approval` | `approval@fettle` | a person |

pub mod json; // how they are written
pub mod keys; // who can sign
pub mod envelope; // bytes and their signature
pub mod words; // small things that several formats share
pub mod trust; // what a host believes from the day it joined
pub mod roster; // who is who
pub mod certificate; // this runbook is fit for production
pub mod login; // it is me
pub mod start; // I want this to run
pub mod plan; // this is what will run
pub mod leaf; // … on that host
pub mod request; // may all of it run?
pub mod approval; // yes, or no

pub use approval::{Approval, Decision};
pub use certificate::{Certificate, Certified, certified};
pub use envelope::{Envelope, Namespace, SignError, Signed, sign, signer, verify};
pub use json::Malformed;
pub use keys::{KeyError, PrivateKey, PublicKey};
pub use leaf::Leaf;
pub use login::Login;
pub use request::{Again, Factor, Request};
pub use roster::{Person, Roster, Rule, Scope};
pub use start::{Start, Started, Until};
pub use trust::Trust;

use fettle_runbooks::id::{Beginning, Digest};

/// What a digest is of. One kind of object can never stand in for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are the formats by their names")]
pub enum Tag {
    Runbook,
    Plan,
    Start,
    Request,
    Approval,
    Roster,
    Certificate,
    Order,
    Trust,
    Leaf,
    Again,
}

impl Tag {
    /// The tag's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Tag::Runbook => "runbook",
            Tag::Plan => "plan",
            Tag::Start => "start",
            Tag::Request => "request",
            Tag::Approval => "approval",
            Tag::Roster => "roster",
            Tag::Certificate => "certificate",
            Tag::Order => "order",
            Tag::Trust => "trust",
            Tag::Leaf => "leaf",
            Tag::Again => "again",
        }
    }
}

/// The digest of an object's exact bytes.
pub fn digest(tag: Tag, bytes: &[u8]) -> Digest {
    Digest::of(tag.as_str(), 1, bytes)
}

/// The same of several objects that begin alike.
pub fn beginning<B: AsRef<[u8]>>(tag: Tag, bytes: B) -> Beginning<B> {
    Beginning::new(tag.as_str(), 1, bytes)
}

impl From<Malformed> for crate::Refusal {
    fn from(malformed: Malformed) -> crate::Refusal {
        crate::Refusal::new(crate::Code::Malformed, malformed.to_string())
    }
}
