//! What the agent needs to know before it opens a single socket. Checked whole; unknown keys are errors.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};

/// Read when no `--config` is given and it is there.
pub const DEFAULT_PATH: &str = "/etc/fettle/agent.yaml";

/// Where the state is unless said otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/fettle-agent";

/// The agent's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The state folder: identity, journal, attempts.
    pub state: PathBuf,
    /// This host's labels, beside those its token was bound to (which win).
    pub labels: BTreeMap<String, String>,
    /// What is logged.
    pub log: Log,
    /// How long a stop may take. Steps in shims go on; this is for the connection and the journal.
    pub stop_within: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            state: PathBuf::from(DEFAULT_STATE),
            labels: BTreeMap::new(),
            log: Log::default(),
            stop_within: Duration::from_secs(10),
        }
    }
}

/// What is logged: a level, or `target=level` parts with commas between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log(String);

impl Default for Log {
    fn default() -> Self {
        Log("info".to_owned())
    }
}

impl Log {
    /// As a filter.
    pub fn targets(&self) -> Targets {
        self.0.parse().unwrap_or_else(|_| Targets::new().with_default(Level::INFO))
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("understand {}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: serde_yaml::Error,
    },
    /// A value cannot be.
    #[error("use {}: {problem}", path.display())]
    Value {
        /// Which.
        path: PathBuf,
        /// Which value, and what it may be.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    state: PathBuf,
    labels: BTreeMap<String, String>,
    log: String,
    stop_within: String,
}

impl Default for File {
    fn default() -> Self {
        let config = Config::default();
        File { state: config.state, labels: config.labels, log: config.log.0, stop_within: "10s".to_owned() }
    }
}

impl Config {
    /// Reads a file. Without a path, the default one if it is there, else the defaults. `state` overrides the file.
    pub fn load(path: Option<&Path>, state: Option<&Path>) -> Result<Config, ConfigError> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        let mut config = match std::fs::read_to_string(file) {
            Ok(text) => Config::read(file, &text)?,
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => Config::default(),
            Err(source) => return Err(ConfigError::Read { path: file.to_owned(), source }),
        };
        if let Some(state) = state {
            config.state = state.to_owned();
        }
        Ok(config)
    }

    fn read(path: &Path, text: &str) -> Result<Config, ConfigError> {
        // An empty file, or one of comments alone, is a file of defaults.
        let file: Option<File> = serde_yaml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source })?;
        let file = file.unwrap_or_default();
        let wrong = |problem: String| ConfigError::Value { path: path.to_owned(), problem };
        if !is_filter(&file.log) {
            return Err(wrong(format!("`log: {}` is neither a level nor `target=level,…`", file.log)));
        }
        if !file.state.is_absolute() {
            return Err(wrong(format!("`state: {}` is not an absolute path", file.state.display())));
        }
        let stop_within = seconds(&file.stop_within).ok_or_else(|| {
            wrong(format!("`stop-within: {}` is not a duration such as `10s`", file.stop_within))
        })?;
        Ok(Config { state: file.state, labels: file.labels, log: Log(file.log), stop_within })
    }
}

/// Every part is a level or ends with one. Alone, `Targets` would take any word for a target that is to tell everything.
fn is_filter(text: &str) -> bool {
    let level =
        |part: &str| part.rsplit('=').next().is_some_and(|last| last.trim().parse::<LevelFilter>().is_ok());
    text.split(',').all(level) && text.parse::<Targets>().is_ok()
}

/// `10s`, `500ms`, `2m`.
fn seconds(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u32 = digits.parse().ok()?;
    let unit = match &text[digits.len()..] {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        _ => return None,
    };
    Some(unit * number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Chain;

    fn read(text: &str) -> Result<Config, String> {
        Config::read(Path::new("agent.yaml"), text).map_err(|error| Chain(&error).to_string())
    }

    #[test]
    fn an_empty_file_is_a_file_of_defaults() {
        assert_eq!(read(""), Ok(Config::default()));
        assert_eq!(read("# nothing yet\n"), Ok(Config::default()));
    }

    #[test]
    fn every_key_is_read() {
        let config = read("state: /srv/f\nlabels: { role: db }\nlog: warn\nstop-within: 2m\n").expect("good");
        assert_eq!(config.state, Path::new("/srv/f"));
        assert_eq!(config.labels["role"], "db");
        assert_eq!(config.log, Log("warn".into()));
        assert_eq!(config.stop_within, Duration::from_secs(120));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("statte: /x\n", "statte"),
            ("state: x\n", "not an absolute path"),
            ("log: loudly please\n", "neither a level"),
            ("stop-within: soon\n", "not a duration"),
            ("labels: [a]\n", "labels"),
        ] {
            let problem = read(text).expect_err(text);
            assert!(problem.contains(named), "{text}: {problem}");
        }
    }
}
