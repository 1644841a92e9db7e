//! The place of a demonstration: one directory that holds everything it writes, readable by nobody else.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use fettle_proto::signed::{PrivateKey, Tag, certificate, digest};
use jiff::Timestamp;
use serde_json::json;

use super::cast::{self, Cast};

/// The runbook that is demonstrated, as the library ships it.
const RUNBOOK: &str = include_str!("../../../runbooks/library/demo/service-down.yaml");
/// Its name in the library.
pub(super) const RUNBOOK_NAME: &str = "demo/service-down";
/// The host's name.
pub(super) const HOST: &str = "demo-host";

/// Ports of this machine that were free a moment ago.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    /// The controller, for agents and people.
    pub grpc: u16,
    /// The controller, for signals.
    pub http: u16,
    /// The kiosk.
    pub kiosk: u16,
}

impl Ports {
    /// Three different ones: each is held until the last is found.
    pub(super) fn find() -> io::Result<Ports> {
        let held = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let mut ports = held.into_iter().map(|listener| {
            let listener = listener?;
            Ok::<_, io::Error>((listener.local_addr()?.port(), listener))
        });
        let mut next = || ports.next().unwrap_or_else(|| Err(io::ErrorKind::AddrNotAvailable.into()));
        let (grpc, http, kiosk) = (next()?, next()?, next()?);
        Ok(Ports { grpc: grpc.0, http: http.0, kiosk: kiosk.0 })
    }
}

/// The directory, and where things are in it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    directory: PathBuf,
}

impl Place {
    /// Makes a directory of its own below the system's temporary one.
    pub(super) fn new() -> io::Result<Place> {
        let below = std::env::temp_dir();
        let mut random = [0; 5];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let directory = below.canonicalize()?.join(format!("fettle-demo-{name}"));
        DirBuilder::new().mode(0o700).create(&directory)?;
        Ok(Place { directory })
    }

    /// The directory itself.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Something in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Configuration of the command line for the person on call.
    pub(super) fn config(&self) -> PathBuf {
        self.path("config.yaml")
    }

    /// What hosts and people believe; the controller writes it when it first starts.
    pub(super) fn trust(&self) -> PathBuf {
        self.path("controller/trust.json")
    }

    /// Writes everything that is there before anything starts: keys, roster, library, policy, configuration.
    pub(super) fn furnish(&self, cast: &Cast, ports: Ports, token: &str, now: Timestamp) -> io::Result<()> {
        self.write("ana.key", &openssh(&cast.approver)?)?;
        let signed = cast.signed_roster(now).map_err(io::Error::other)?;
        let roster = certificate::encode_signed_file(&signed).ok_or(io::ErrorKind::InvalidData)?;
        self.write("roster.json", &roster)?;
        self.write("root.pub", format!("{}\n", cast.root_key().line()).as_bytes())?;
        self.library(cast, now)?;
        self.policy(token)?;

        let config = json!({
            "controller": format!("https://localhost:{}", ports.grpc),
            "trust": self.trust(),
            "person": cast::APPROVER,
            "key": self.path("ana.key"),
        });
        self.write_yaml("config.yaml", &config)?;
        let controller = json!({
            "state": self.path("controller"),
            "grpc": format!("127.0.0.1:{}", ports.grpc),
            "http": format!("127.0.0.1:{}", ports.http),
            "names": ["localhost", "127.0.0.1"],
            "library": self.path("library"),
            "policy": self.path("policy"),
            "roster": self.path("roster.json"),
            "roots": self.path("root.pub"),
        });
        self.write_yaml("controller.yaml", &controller)
    }

    fn library(&self, cast: &Cast, now: Timestamp) -> io::Result<()> {
        let digest = digest(Tag::Runbook, RUNBOOK.as_bytes());
        let signed = cast.certify(RUNBOOK_NAME, digest, now).map_err(io::Error::other)?;
        self.write(&format!("library/{RUNBOOK_NAME}.yaml"), RUNBOOK.as_bytes())?;
        self.write(&format!("library/{RUNBOOK_NAME}.cert"), &certificate::encode_file(&[signed]))
    }

    fn policy(&self, token: &str) -> io::Result<()> {
        self.write("policy/alertmanager.token", token.as_bytes())?;
        let policy = json!({
            "fettle-policy": 1,
            "sources": {
                "alertmanager": { "token_file": "alertmanager.token", "onset": { "for": "0s", "interval": "1s" } },
            },
            "modes": [{ "runbook": "demo/*", "mode": "auto" }],
        });
        self.write_yaml("policy/demo.yaml", &policy)
    }

    fn write_yaml(&self, name: &str, value: &serde_json::Value) -> io::Result<()> {
        self.write(name, serde_yaml::to_string(value).map_err(io::Error::other)?.as_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            DirBuilder::new().mode(0o700).recursive(true).create(folder)?;
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
    }

    /// The end of every log there is, for when something went wrong.
    pub(super) fn logs(&self, lines: usize) -> String {
        let mut told = String::new();
        for name in ["controller", "agent", "kiosk"] {
            let Ok(text) = fs::read_to_string(super::keeper::log_file(&self.directory, name)) else {
                continue;
            };
            let all: Vec<&str> = text.lines().collect();
            let last = all[all.len().saturating_sub(lines)..].join("\n  ");
            told.push_str(&format!("\n{name}.log:\n  {last}\n"));
        }
        told
    }
}

fn openssh(key: &PrivateKey) -> io::Result<Vec<u8>> {
    Ok(key.to_openssh().map_err(io::Error::other)?.into_bytes())
}
