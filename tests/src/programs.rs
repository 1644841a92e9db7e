//! The programs under test: the real binaries, built once, started as processes.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually;

/// Where a binary of the workspace is, freshly built.
///
/// Cargo builds binaries for the tests of their own package only, so the first caller builds them, unless `tests/all` has
/// said that it did. `FETTLE_TESTS_BINARIES` names a folder with others: those that are shipped, for instance.
pub fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        if let Some(folder) = std::env::var_os("FETTLE_TESTS_BINARIES") {
            return std::fs::canonicalize(folder).expect("FETTLE_TESTS_BINARIES names a folder");
        }
        let test = std::env::current_exe().expect("a test knows where it is");
        // target/debug/deps/it-0123456789abcdef
        let folder = test.parent().and_then(Path::parent).expect("tests are two folders deep").to_owned();
        if std::env::var_os("FETTLE_TESTS_BUILT").is_none() {
            build(&folder);
        }
        folder
    });
    folder.join(name)
}

fn build(folder: &Path) {
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--workspace", "--bins", "--profile", profile])
        .arg("--target-dir")
        .arg(folder.parent().expect("a profile's folder is in the target folder"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo can be run");
    assert!(status.success(), "the programs under test are not built");
}

/// A program that runs until it is told, or made, to end.
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it; what it says is appended to a log file. It gets no environment but `PATH`.
    pub fn start(argv: &[String], log: &Path) -> Program {
        Program::start_with(argv, &[], log)
    }

    /// The same with more in its environment.
    pub fn start_with(argv: &[String], env: &[(&str, &str)], log: &Path) -> Program {
        let (program, arguments) = argv.split_first().expect("a program has a name");
        let said: File =
            OpenOptions::new().append(true).create(true).open(log).expect("a log can be written");
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("a file can be shared"))
            .stderr(said)
            .spawn()
            .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
        Program { child, log: log.to_owned() }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended; none while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits until it is gone.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        eventually("the program ends after a SIGTERM", Duration::from_secs(10), || {
            self.child.try_wait().ok().flatten().ok_or_else(|| self.said())
        })
    }

    /// The end of what it said.
    pub fn said(&self) -> String {
        let text = tail(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        format!("{}:\n{}", self.log.display(), lines[lines.len().saturating_sub(40)..].join("\n"))
    }
}

/// The last bytes of a file, for it may be long and asked for often.
fn tail(file: &Path) -> std::io::Result<Vec<u8>> {
    const BYTES: u64 = 16 * 1024;
    let mut file = File::open(file)?;
    let from = file.metadata()?.len().saturating_sub(BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text)
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
