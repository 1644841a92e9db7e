//! Which controller, which trust bundle, which person: the file, the environment and the flags, in rising order.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::args::Global;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::Output;

/// The configuration file, `~/.config/fettle/config.yaml`. Paths in it are relative to its folder.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    /// `https://host:port`
    controller: Option<String>,
    /// The trust bundle.
    trust: Option<PathBuf>,
    /// Name in the roster.
    person: Option<String>,
    /// Private key file.
    key: Option<PathBuf>,
}

/// What every command works with.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where results go.
    pub output: Output,
    /// How long to wait for an answer.
    pub timeout: Duration,
    /// Where the configuration came from, or would come from; absent without a home directory.
    file: Option<PathBuf>,
    controller: Option<String>,
    trust: Option<PathBuf>,
    person: Option<String>,
    key: Option<PathBuf>,
}

impl Context {
    /// Reads the file, if there is one, and lays the flags over it.
    pub fn new(global: &Global) -> Result<Context> {
        let file = global.config.clone().or_else(default_file);
        let mut read = match &file {
            Some(path) => read(path, global.config.is_some())?,
            None => File::default(),
        };
        let folder = file.as_deref().and_then(Path::parent).map(Path::to_path_buf).unwrap_or_default();
        for path in [&mut read.trust, &mut read.key].into_iter().flatten() {
            *path = folder.join(in_home(path));
        }
        Ok(Context {
            output: Output::new(global.output),
            timeout: global.timeout.unwrap_or(Duration::from_secs(10)),
            file,
            controller: global.controller.clone().or(read.controller),
            trust: global.trust.clone().or(read.trust),
            person: global.person.clone().or(read.person),
            key: global.key.clone().or(read.key),
        })
    }

    /// The same, with lines that are talk beside the data.
    pub fn aside(&self) -> Context {
        Context { output: Output::aside(), ..self.clone() }
    }

    /// The controller's address.
    pub fn controller(&self) -> Result<&str> {
        self.controller.as_deref().ok_or_else(|| {
            self.missing(
                "no controller is configured",
                "controller: https://controller.example:7443",
                "--controller URL",
            )
        })
    }

    /// The trust bundle's file.
    pub fn trust(&self) -> Result<&Path> {
        self.trust
            .as_deref()
            .ok_or_else(|| self.missing("no trust bundle is configured", "trust: trust.json", "--trust FILE"))
    }

    /// Who the caller is in the roster.
    pub fn person(&self) -> Result<&str> {
        self.person
            .as_deref()
            .ok_or_else(|| self.missing("it is not known who you are", "person: ana", "--person NAME"))
    }

    /// The private key file; absent: ask ssh-agent.
    pub fn key(&self) -> Option<&Path> {
        self.key.as_deref()
    }

    /// Where the session of this controller and person is kept.
    pub fn session_file(&self) -> Result<PathBuf> {
        if let Some(path) = std::env::var_os("FETTLE_SESSION").filter(|path| !path.is_empty()) {
            return Ok(PathBuf::from(path));
        }
        let folder = self.file.as_deref().and_then(Path::parent);
        folder.map(|folder| folder.join("session.json")).ok_or_else(|| {
            Error::new(Exit::Usage, "there is no place to keep the session")
                .why("neither HOME nor XDG_CONFIG_HOME is set")
                .fix("set FETTLE_CONFIG or FETTLE_SESSION to a file")
        })
    }

    fn missing(&self, what: &str, line: &str, flag: &str) -> Error {
        let error = Error::usage(what);
        match &self.file {
            Some(file) if file.exists() => {
                error.at(file.display()).fix(format!("add the line `{line}`, or give {flag}"))
            }
            Some(file) => error
                .why(format!("{} does not exist", file.display()))
                .fix(format!("create it with the line `{line}`, or give {flag}")),
            None => error
                .why("there is no home directory to find the configuration in")
                .fix(format!("set FETTLE_CONFIG to a file with the line `{line}`, or give {flag}")),
        }
    }
}

fn default_file() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CONFIG_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".config")))
        .map(|it| it.join("fettle/config.yaml"))
}

/// `~/x` in the home directory; anything else as it is.
fn in_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => PathBuf::from(home).join(rest),
        (Ok(_) | Err(_), _) => path.to_path_buf(),
    }
}

fn read(path: &Path, named: bool) -> Result<File> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => return Ok(File::default()),
        Err(error) => {
            return Err(Error::usage("failed to read the configuration").at(path.display()).because(&error));
        }
    };
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    serde_yaml::from_str(&text).map_err(|error| {
        let at = error
            .location()
            .map_or(path.display().to_string(), |at| format!("{}:{}", path.display(), at.line()));
        Error::usage("failed to read the configuration")
            .at(at)
            .because(&error)
            .fix("the keys are `controller`, `trust`, `person` and `key`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(text: &str, global: Global) -> (tempfile::TempDir, Result<Context>) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, text).expect("the file is written");
        let context = Context::new(&Global { config: Some(file), ..global });
        (dir, context)
    }

    #[test]
    fn paths_are_relative_to_the_file_and_flags_win() {
        let (dir, context) = context(
            "controller: https://a:1\ntrust: trust.json\nperson: ana\n",
            Global { person: Some("ben".to_owned()), ..Global::default() },
        );
        let context = context.expect("it is read");
        assert_eq!(context.trust().expect("set"), dir.path().join("trust.json"));
        assert_eq!(context.person(), Ok("ben"));
        assert_eq!(context.controller(), Ok("https://a:1"));
        assert_eq!(context.session_file().expect("a place"), dir.path().join("session.json"));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        let (_dir, context) = context("controller: https://a:1\ncontroler: x\n", Global::default());
        let error = context.expect_err("an unknown key").to_string();
        assert!(error.contains("config.yaml:2"), "{error}");
        assert!(error.contains("unknown field `controler`"), "{error}");
    }

    #[test]
    fn what_is_missing_is_said_with_the_line_to_add() {
        let (_dir, context) = context("person: ana\n", Global::default());
        let error = context.expect("it is read").controller().expect_err("none is set").to_string();
        assert!(error.contains("add the line `controller: https://controller.example:7443`"), "{error}");
    }
}
