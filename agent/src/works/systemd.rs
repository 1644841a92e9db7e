//! Speaks with systemd, over the host's D-Bus.
//!
//! Connects when there is something to ask and lets go of everything afterwards: the agent has no connection to the bus while
//! nothing is asked. Whatever is asked has a limit: a bus that hangs hangs nobody. Deliberately missing: systemd's private
//! socket (its messages have a sender that the D-Bus library takes for damage), and every method that no fact or step needs.

mod unit; // what systemd says of one unit

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use fettle_runbooks::unit::UnitName;
use futures_util::StreamExt as _;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use zbus::connection::Builder;
use zbus::message::Type;
use zbus::{Connection, DBusError as _, MatchRule, Message, MessageStream, OwnedObjectPath};

pub(crate) use unit::{Last, Unit};

/// Where the bus of every Linux host listens.
pub(crate) const SOCKET: &str = "/run/dbus/system_bus_socket";

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// How long to wait before the bus is tried again that has too many waiting.
const AGAIN: Duration = Duration::from_millis(20);

/// Ends of jobs that may wait to be looked at. Others' jobs end too.
const QUEUE: std::num::NonZeroUsize = std::num::NonZeroUsize::new(4096).expect("not zero");

const SYSTEMD: &str = "org.freedesktop.systemd1";
const ROOT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const JOB: &str = "org.freedesktop.systemd1.Job";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Why systemd did not answer, or not with what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum No {
    /// Nothing listens where the bus should.
    #[error("there is no D-Bus at {socket}: {why}")]
    Bus { socket: String, why: String },
    /// The bus is there, and systemd is not on it.
    #[error("no systemd answers on this host's D-Bus: {0}")]
    Systemd(String),
    /// Too long.
    #[error("this host's D-Bus did not answer within {0:?}")]
    Silent(Duration),
    /// This user may not.
    #[error("systemd does not let this agent's user do it: {0}")]
    NotAllowed(String),
    /// systemd has a reason of its own.
    #[error("{message}")]
    Refused {
        /// The last part of its D-Bus name: `NoSuchUnit`, `UnitMasked` …
        name: String,
        /// In systemd's words.
        message: String,
    },
    /// The connection ended, or what came over it makes no sense.
    #[error("the connection to this host's D-Bus broke: {0}")]
    Broken(String),
}

impl From<zbus::Error> for No {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what the library calls its other failures is its own affair"
    )]
    fn from(error: zbus::Error) -> No {
        let (name, message) = match &error {
            zbus::Error::MethodError(name, message, _) => {
                (name.to_string(), message.clone().unwrap_or_else(|| name.to_string()))
            }
            zbus::Error::FDO(error) => {
                let name = error.name().to_string();
                (name.clone(), error.description().map_or(name, str::to_owned))
            }
            zbus::Error::InputOutput(io) if io.kind() == std::io::ErrorKind::TimedOut => {
                return No::Silent(ANSWER);
            }
            other => return No::Broken(other.to_string()),
        };
        let name = name.rsplit('.').next().unwrap_or_default();
        match name {
            "ServiceUnknown" | "NameHasNoOwner" | "SpawnChildExited" | "SpawnExecFailed" => {
                No::Systemd(message)
            }
            "AccessDenied" | "InteractiveAuthorizationRequired" | "AuthFailed" => No::NotAllowed(message),
            "NoReply" | "Timeout" | "TimedOut" => No::Silent(ANSWER),
            "Disconnected" => No::Broken(message),
            other => No::Refused { name: other.to_owned(), message },
        }
    }
}

/// Waits for an answer on the calling thread, no longer than `patience`.
pub(crate) fn wait<T>(patience: Duration, ask: impl Future<Output = Result<T, No>>) -> Result<T, No> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| No::Broken(error.to_string()))?;
    // On the heap: threads that read facts have small stacks.
    let ask = Box::pin(ask);
    runtime.block_on(async {
        match tokio::time::timeout(patience, ask).await {
            Ok(answer) => answer,
            Err(_) => Err(No::Silent(patience)),
        }
    })
}

/// Connects to a socket without ever blocking the thread: where too many wait to be let in, it is tried again.
async fn reach(socket: &Path) -> std::io::Result<std::os::unix::net::UnixStream> {
    let address = SocketAddrUnix::new(socket)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let stream = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match rustix::net::connect(&stream, &address) {
            Ok(()) => return Ok(stream.into()),
            Err(Errno::AGAIN) => tokio::time::sleep(AGAIN).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// A connection to systemd.
#[derive(Clone, Debug)]
pub(crate) struct Systemd(Connection);

/// The number of a job of systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JobId(pub(crate) u32);

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "job {}", self.0)
    }
}

/// Ends of jobs, as they come.
pub(crate) struct Ends(MessageStream);

impl Systemd {
    /// Connects to the bus at a socket.
    pub(crate) async fn connect(socket: &Path) -> Result<Systemd, No> {
        let building = Box::pin(async {
            // Not by its address: what may stand in a path has another meaning there.
            let stream = reach(socket).await.map_err(|error| {
                let socket = socket.display().to_string();
                No::Bus { socket, why: error.to_string() }
            })?;
            Ok(Systemd(Builder::unix_stream(stream).method_timeout(ANSWER).build().await?))
        });
        match tokio::time::timeout(ANSWER, building).await {
            Ok(connected) => connected,
            Err(_) => Err(No::Silent(ANSWER)),
        }
    }

    async fn call<B>(&self, path: &str, interface: &str, method: &str, body: &B) -> Result<Message, No>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        Ok(self.0.call_method(Some(SYSTEMD), path, Some(interface), method, body).await?)
    }

    /// What systemd knows of a unit. One that does not exist is an answer too.
    pub(crate) async fn unit(&self, name: &UnitName) -> Result<Unit, No> {
        let path = self.call(ROOT, MANAGER, "LoadUnit", &(name.as_str(),)).await?;
        let path: OwnedObjectPath = path.body().deserialize()?;
        let general = self.properties(path.as_str(), &format!("{SYSTEMD}.Unit")).await?;
        let own = match unit::interface(name.kind()) {
            Some(interface) => self.properties(path.as_str(), &format!("{SYSTEMD}.{interface}")).await?,
            None => unit::Properties::default(),
        };
        unit::read(&general, &own)
    }

    async fn properties(&self, path: &str, interface: &str) -> Result<unit::Properties, No> {
        let all = self.call(path, PROPERTIES, "GetAll", &(interface,)).await?;
        Ok(unit::Properties(all.body().deserialize()?))
    }

    /// From here on, the ends of jobs are heard. To be called before one is ordered.
    pub(crate) async fn listen(&self) -> Result<Ends, No> {
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(SYSTEMD)
            .path(ROOT)
            .interface(MANAGER)
            .member("JobRemoved")
            .build()?;
        let ends = MessageStream::for_match_rule(rule, &self.0, Some(QUEUE)).await?;
        match self.call(ROOT, MANAGER, "Subscribe", &()).await {
            // Subscribed before, on this connection.
            Ok(_) | Err(No::Refused { .. }) => Ok(Ends(ends)),
            Err(no) => Err(no),
        }
    }

    /// Has systemd remember how a unit's start went for as long as this connection lives: of one that has ended well and that
    /// nothing refers to, it forgets everything at once. Whoever may not act on units may not ask for that either.
    pub(crate) async fn hold(&self, unit: &UnitName) -> Result<(), No> {
        self.call(ROOT, MANAGER, "RefUnit", &(unit.as_str(),)).await.map(drop)
    }

    /// Has something done with a unit. `method` is `StartUnit`, `StopUnit` …, `mode` what is to become of jobs that
    /// are in its way: `replace` them, or `fail`.
    pub(crate) async fn order(&self, method: &str, unit: &UnitName, mode: &str) -> Result<JobId, No> {
        let answer = self.call(ROOT, MANAGER, method, &(unit.as_str(), mode)).await?;
        let path: OwnedObjectPath = answer.body().deserialize()?;
        let number = path.as_str().rsplit('/').next().and_then(|number| number.parse().ok());
        number.map(JobId).ok_or_else(|| No::Broken(format!("`{}` is not the path of a job", path.as_str())))
    }

    /// Whether a job is `waiting` or `running`; none when there is no such job any more.
    pub(crate) async fn job(&self, job: JobId) -> Result<Option<String>, No> {
        self.of_job(job, "State").await
    }

    /// What a job is: `start`, `stop`, `restart` …; none when there is no such job any more.
    pub(crate) async fn job_type(&self, job: JobId) -> Result<Option<String>, No> {
        self.of_job(job, "JobType").await
    }

    async fn of_job(&self, job: JobId, property: &str) -> Result<Option<String>, No> {
        let path: OwnedObjectPath = match self.call(ROOT, MANAGER, "GetJob", &(job.0,)).await {
            Ok(path) => path.body().deserialize()?,
            Err(No::Refused { name, .. }) if name == "NoSuchJob" => return Ok(None),
            Err(no) => return Err(no),
        };
        match self.call(path.as_str(), PROPERTIES, "GetAll", &(JOB,)).await {
            Ok(all) => Ok(unit::Properties(all.body().deserialize()?).text(property)),
            // It ended in between.
            Err(No::Refused { .. }) => Ok(None),
            Err(no) => Err(no),
        }
    }

    /// Takes a job back that systemd has not begun.
    pub(crate) async fn withdraw(&self, job: JobId) -> Result<(), No> {
        self.call(ROOT, MANAGER, "CancelJob", &(job.0,)).await.map(drop)
    }
}

impl Ends {
    /// Waits for the end of a job, and gives back systemd's word for it: `done`, `failed` …
    pub(crate) async fn of(&mut self, job: JobId) -> Result<String, No> {
        while let Some(message) = self.0.next().await {
            let message = message?;
            let (number, _path, _unit, result): (u32, OwnedObjectPath, String, String) =
                message.body().deserialize()?;
            if number == job.0 {
                return Ok(result);
            }
        }
        Err(No::Broken("it was closed".to_owned()))
    }
}
