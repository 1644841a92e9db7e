//! What the controller needs to know before it opens a single socket: one YAML file, checked whole.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use fettle_proto::signed::PublicKey;
use serde::{Deserialize, Serialize};

/// The file as written. Paths are relative to its folder. Unknown keys are errors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Where the controller keeps everything of its own: the store, its authority, `trust.json`, `ca.pem`.
    pub state: PathBuf,
    /// Where hosts and people connect (gRPC, always TLS).
    #[serde(default = "default_grpc")]
    pub grpc: SocketAddr,
    /// Where signals arrive, and `/metrics`, `/healthz`, `/readyz`.
    #[serde(default = "default_http")]
    pub http: SocketAddr,
    /// Whether that port speaks TLS. Say `false` only behind something that does.
    #[serde(default = "default_true")]
    pub tls: bool,
    /// Names and addresses by which others reach this controller; they stand in its certificate.
    #[serde(default)]
    pub names: Vec<String>,
    /// The folder of runbooks, each `NAME.yaml` with its `NAME.cert` beside it. Reloaded when it changes.
    pub library: PathBuf,
    /// The folder of policy files, `*.yaml`. Reloaded when it changes.
    pub policy: PathBuf,
    /// The signed roster, as `fettle roster sign` wrote it. Reloaded when it changes.
    pub roster: PathBuf,
    /// Public keys that sign rosters, one OpenSSH line each.
    pub roots: PathBuf,
    /// What to log: a level, or `target=level` pairs, as in `info,fettle_controller::api=debug`.
    #[serde(default = "default_log")]
    pub log: String,
    /// How.
    #[serde(default)]
    pub log_format: LogFormat,
    /// How long work may go on after SIGTERM, in seconds.
    #[serde(default = "default_drain")]
    pub drain_seconds: u64,
}

/// `log-format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

fn default_grpc() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 7443))
}

fn default_http() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 7480))
}

fn default_true() -> bool {
    true
}

fn default_log() -> String {
    "info".to_owned()
}

fn default_drain() -> u64 {
    10
}

/// Everything wrong with a configuration, one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.file, .problems))]
pub struct Problems {
    /// The file.
    pub file: PathBuf,
    /// What is wrong, each with how to fix it.
    pub problems: Vec<String>,
}

fn lines(file: &Path, problems: &[String]) -> String {
    let mut text = format!("the configuration {} cannot be used", file.display());
    for problem in problems {
        let _ = write!(text, "\n  {problem}");
    }
    text
}

impl Config {
    /// Reads and checks a file, and what it names.
    pub fn read(file: &Path) -> Result<Config, Problems> {
        let wrong = |problems| Problems { file: file.to_path_buf(), problems };
        let text = std::fs::read_to_string(file)
            .map_err(|error| wrong(vec![format!("it cannot be read: {error}")]))?;
        let mut config = Config::parse(&text).map_err(|problem| wrong(vec![problem]))?;
        config.anchor(file.parent().unwrap_or(Path::new("")));
        let problems = config.problems();
        if problems.is_empty() { Ok(config) } else { Err(wrong(problems)) }
    }

    /// The text as a configuration; nothing it names is looked at.
    pub fn parse(text: &str) -> Result<Config, String> {
        if text.trim().is_empty() {
            return Err(
                "it is empty; at least `state`, `library`, `policy`, `roster` and `roots` are needed".into(),
            );
        }
        serde_yaml::from_str(text).map_err(|error| match error.location() {
            Some(at) => format!("line {}, column {}: {error}", at.line(), at.column()),
            None => error.to_string(),
        })
    }

    /// As YAML, defaults included.
    pub fn print(&self) -> String {
        serde_yaml::to_string(self).unwrap_or_default()
    }

    /// How long work may go on after SIGTERM.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// The root keys.
    pub fn root_keys(&self) -> Result<Vec<PublicKey>, String> {
        let text = std::fs::read_to_string(&self.roots)
            .map_err(|error| format!("roots: {} cannot be read: {error}", self.roots.display()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<PublicKey> = lines
            .map(|line| {
                let key = PublicKey::parse(line)
                    .map_err(|error| format!("roots: {}: {error}", self.roots.display()))?;
                key.allowed().map_err(|refusal| format!("roots: {}: {refusal}", self.roots.display()))?;
                Ok(key)
            })
            .collect::<Result<_, String>>()?;
        if keys.is_empty() {
            return Err(format!(
                "roots: {} holds no key; put the public key in it that signs your rosters",
                self.roots.display()
            ));
        }
        Ok(keys)
    }

    /// Relative paths begin at the file's folder.
    fn anchor(&mut self, folder: &Path) {
        for path in [&mut self.state, &mut self.library, &mut self.policy, &mut self.roster, &mut self.roots]
        {
            *path = folder.join(&*path);
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, folder) in [("library", &self.library), ("policy", &self.policy)] {
            if !folder.is_dir() {
                problems.push(format!("{key}: {} is not a folder; create it", folder.display()));
            }
        }
        if !self.roster.is_file() {
            problems.push(format!(
                "roster: {} is not a file; write one and sign it with `fettle roster sign`",
                self.roster.display()
            ));
        }
        if self.state.exists() && !self.state.is_dir() {
            problems.push(format!("state: {} is not a folder", self.state.display()));
        }
        problems.extend(self.root_keys().err());
        if self.grpc == self.http && self.grpc.port() != 0 {
            problems.push(format!("grpc and http are both {}; give each a port of its own", self.grpc));
        }
        for name in &self.names {
            let good = !name.is_empty()
                && name.len() <= 253
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':'));
            if !good {
                problems
                    .push(format!("names: `{}` is neither a host name nor an address", name.escape_debug()));
            }
        }
        if tracing_subscriber::filter::Targets::from_str(&self.log).is_err() {
            problems.push(format!(
                "log: `{}` is not a level nor a list of target=level; write `info` for instance",
                self.log.escape_debug()
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "state: s\nlibrary: l\npolicy: p\nroster: r.json\nroots: root.pub\n";

    #[test]
    fn the_least_configuration_has_these_defaults() {
        insta::assert_snapshot!(Config::parse(LEAST).expect("it is enough").print(), @r"
        state: s
        grpc: 0.0.0.0:7443
        http: 0.0.0.0:7480
        tls: true
        names: []
        library: l
        policy: p
        roster: r.json
        roots: root.pub
        log: info
        log-format: text
        drain-seconds: 10
        ");
    }

    #[test]
    fn what_is_printed_is_read_back_the_same() {
        let config = Config::parse(LEAST).expect("it is enough");
        assert_eq!(Config::parse(&config.print()), Ok(config));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        let error = Config::parse(&format!("{LEAST}listen: 1\n")).expect_err("unknown");
        assert!(error.starts_with("line 6, column 1: unknown field `listen`, expected one of"), "{error}");
        let error = Config::parse(&format!("{LEAST}grpc: nowhere\n")).expect_err("no address");
        assert!(error.contains("line 6"), "{error}");
        assert!(Config::parse("").is_err());
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("controller.yaml");
        let text = format!("{LEAST}grpc: 127.0.0.1:1\nhttp: 127.0.0.1:1\nnames: ['a b']\nlog: 'x=y=z'\n");
        std::fs::write(&file, text).expect("written");
        let told = Config::read(&file).expect_err("much is wrong").to_string();
        let told = told.replace(&dir.path().display().to_string(), "DIR");
        insta::assert_snapshot!(told, @r"
        the configuration DIR/controller.yaml cannot be used
          library: DIR/l is not a folder; create it
          policy: DIR/p is not a folder; create it
          roster: DIR/r.json is not a file; write one and sign it with `fettle roster sign`
          roots: DIR/root.pub cannot be read: No such file or directory (os error 2)
          grpc and http are both 127.0.0.1:1; give each a port of its own
          names: `a b` is neither a host name nor an address
          log: `x=y=z` is not a level nor a list of target=level; write `info` for instance
        ");
    }
}
