//! The connection to the controller: dialled from here, proven both ways, kept up, and never trusted further than that.
//!
//! It speaks TLS and gRPC and starts no process; what to do with what it hears is decided by the works, through
//! [`crate::message`]. Whatever waits for several things looks at them in a fixed order, so that a simulation goes the same
//! way twice. Nothing is lost when it breaks: accepted work goes on, and reports wait with the works until the
//! controller has acknowledged them.

pub mod backoff;
pub mod connect;
mod once; // … of which there is one
mod output;
mod renew;
mod session;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub(crate) use renew::{is_for_key, request};

use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use fettle_proto::v1;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::chain::Chain;
use crate::identity::{Identity, IdentityError};
use crate::message::{FromWorks, ToWorks};
use backoff::Backoff;
use connect::{ConnectError, Controller};
use once::Why;

/// The version of the conversation between agent and controller.
pub const PROTOCOL: u32 = 1;

/// After a refusal that time alone does not mend, tries are this far apart, and up to twice.
const REFUSED: Duration = Duration::from_secs(30);

/// The link's ends of the channels to the works.
pub struct Wires {
    /// To the works. Must not wait.
    pub to_works: Box<dyn Fn(ToWorks) + Send + Sync>,
    /// From the works. Always read, connected or not; what arrives while disconnected is dropped, since the works send
    /// it again.
    pub from_works: mpsc::UnboundedReceiver<FromWorks>,
    /// Live output of running steps, dropped when it cannot be sent at once.
    pub output: mpsc::Receiver<v1::OutputChunk>,
}

/// What the link of a host that has joined needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The state folder.
    pub state: PathBuf,
    /// The time that certificates are renewed by.
    pub now: fn() -> SystemTime,
}

/// How the link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was asked to.
    Stopped,
    /// The works are gone; without them there is nothing to connect.
    WorksGone,
}

/// How one connection ended.
#[derive(Debug)]
enum Ended {
    /// We were asked to stop, and said goodbye.
    Stopped,
    WorksGone,
    /// The connection broke, or never was.
    Lost(String),
    /// The controller asked us to come back after a while.
    Drained(Duration),
    /// The certificate was renewed; the next connection uses it.
    Renewed,
    /// The controller does not want us, for a reason that time alone does not mend.
    Refused(String),
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// This host does not know who it is.
    #[error("read the identity")]
    Identity {
        /// Why.
        source: IdentityError,
    },
    /// There is no connection.
    #[error("reach the controller")]
    Connect {
        /// Why.
        source: ConnectError,
    },
}

/// How a connection comes about. A host's is made with TLS and its certificate ([`Settings`]); a simulation has another.
pub trait Dial {
    /// Makes one connection.
    fn dial(&self) -> impl Future<Output = Result<Dialled, DialError>>;
    /// Returns when the connection is to be made anew, as somebody else's certificate would have it.
    fn renewed(&self, dialled: &Dialled) -> impl Future<Output = ()>;
    /// A number in `0.0..1.0`, each as likely as the others: when to try again.
    fn chance(&self) -> f64;
}

/// A connection that was made.
#[derive(Debug)]
pub struct Dialled {
    channel: Channel,
    /// Why TLS ended it, if it did.
    why: Why,
    /// Whose certificate is to be renewed.
    identity: Option<Identity>,
}

impl Dialled {
    /// A connection over a stream that proves nobody's identity: there is no certificate to renew.
    ///
    /// # Errors
    /// When the other side does not speak gRPC.
    pub async fn over<S>(controller: &Controller, stream: S) -> Result<Dialled, DialError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let made = connect::channel(controller, stream).await;
        let (channel, why) = made.map_err(|source| DialError::Connect { source })?;
        Ok(Dialled { channel, why, identity: None })
    }
}

impl Dial for Settings {
    async fn dial(&self) -> Result<Dialled, DialError> {
        let identity = Identity::load(&self.state).map_err(|source| DialError::Identity { source })?;
        let connected = async {
            let tls = connect::mutual_tls(
                &identity.trust.ca_der,
                identity.certificate.clone(),
                identity.key.clone_key(),
            )?;
            let stream = connect::dial(&identity.controller, tls).await?;
            connect::channel(&identity.controller, stream).await
        };
        let (channel, why) = connected.await.map_err(|source| DialError::Connect { source })?;
        Ok(Dialled { channel, why, identity: Some(identity) })
    }

    async fn renewed(&self, dialled: &Dialled) {
        match &dialled.identity {
            Some(identity) => renew::at_its_time(self, identity, dialled.channel.clone()).await,
            None => std::future::pending().await,
        }
    }

    fn chance(&self) -> f64 {
        backoff::chance()
    }
}

/// Keeps a connection up until `stop` is cancelled.
pub async fn run(by: impl Dial, mut wires: Wires, stop: CancellationToken) -> Outcome {
    let mut backoff = Backoff::default();
    loop {
        let mut worked = false;
        let ended = one_connection(&by, &mut wires, &stop, &mut worked).await;
        (wires.to_works)(ToWorks::Disconnected);
        if worked {
            backoff.worked();
        }
        let wait = match ended {
            Ended::Stopped => return Outcome::Stopped,
            Ended::WorksGone => return Outcome::WorksGone,
            Ended::Renewed => Duration::ZERO,
            Ended::Drained(wait) => wait.mul_f64(by.chance()),
            Ended::Lost(why) => {
                let wait = backoff.next(by.chance());
                tracing::warn!(why, ?wait, "Not connected.");
                wait
            }
            Ended::Refused(why) => {
                let wait = REFUSED.mul_f64(1.0 + by.chance());
                tracing::error!(why, ?wait, "The controller refuses this host.");
                wait
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return Outcome::Stopped,
            gone = wires.discarding(tokio::time::sleep(wait)) => if gone.is_none() {
                return Outcome::WorksGone;
            },
        }
    }
}

async fn one_connection(
    by: &impl Dial,
    wires: &mut Wires,
    stop: &CancellationToken,
    worked: &mut bool,
) -> Ended {
    let dialled = tokio::select! {
        biased;
        () = stop.cancelled() => return Ended::Stopped,
        dialled = wires.discarding(by.dial()) => dialled,
    };
    let dialled = match dialled {
        None => return Ended::WorksGone,
        Some(Ok(connected)) => connected,
        Some(Err(error)) => return refused_or_lost(&error),
    };
    let Wires { to_works, from_works, output } = wires;
    let renewing = by.renewed(&dialled);
    let talking = output::forward(dialled.channel.clone(), output);
    let session = session::run(dialled.channel.clone(), to_works, from_works, stop, worked);
    let (mut renewing, mut talking) = (pin!(renewing), pin!(talking));
    tokio::select! {
        biased;
        // A refused certificate shows itself inside whatever came of it.
        ended = session => match (ended, dialled.why.get().as_ref().and_then(refusal)) {
            (Ended::Lost(_), Some(why)) => Ended::Refused(why.to_owned()),
            (ended, _) => ended,
        },
        () = &mut renewing => Ended::Renewed,
        () = &mut talking => Ended::WorksGone,
    }
}

fn refused_or_lost(error: &(dyn std::error::Error + 'static)) -> Ended {
    refused_by(error).map_or_else(|| Ended::Lost(Chain(error).to_string()), Ended::Refused)
}

/// A refusal by certificate, on either side: not mended by trying soon again.
fn refused_by(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = error
            .downcast_ref::<rustls::Error>()
            .or_else(|| inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()));
        if let Some(alert) = tls.and_then(refusal) {
            return Some(alert.to_owned());
        }
        cause = error.source();
    }
    None
}

fn refusal(error: &rustls::Error) -> Option<&'static str> {
    use rustls::AlertDescription as Alert;
    if let rustls::Error::InvalidCertificate(_) = error {
        return Some("the controller's certificate is not one that this host trusts");
    }
    let rustls::Error::AlertReceived(alert) = error else {
        return None;
    };
    let words = [
        (
            Alert::CertificateRevoked,
            "this host's certificate was revoked; join it again if that was a mistake",
        ),
        (Alert::CertificateExpired, "this host's certificate has expired; check the clock, or join it again"),
        (Alert::UnknownCA, "this host's certificate is of another controller; join it again"),
        (Alert::BadCertificate, "this host's certificate is of another controller; join it again"),
        (Alert::DecryptError, "this host's certificate is of another controller; join it again"),
    ];
    words.into_iter().find_map(|(known, says)| (known == *alert).then_some(says))
}

impl Wires {
    /// Waits for something while reading and dropping what the works send; `None` when they are gone.
    async fn discarding<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                report = self.from_works.recv() => drop(report?),
                Some(_) = self.output.recv() => {}
            }
        }
    }
}
