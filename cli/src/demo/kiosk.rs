//! The kiosk: the small service that the demonstration breaks, a process of its own with a port of its own.
//!
//! `fettle __demo kiosk DIR PORT` answers every connection on its port with a line. A SIGUSR1 breaks it the way
//! services break at night: the process lives on and its port is closed. A SIGHUP makes it read its settings again, which
//! does not help. Whoever ends the process gets a fresh one, because the keeper starts it again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// Where its process id is.
pub(super) fn pid_file(directory: &Path) -> PathBuf {
    directory.join("kiosk.pid")
}

/// Runs the kiosk until it is ended.
pub(super) async fn run(directory: &Path, port: u16) -> io::Result<()> {
    let mut wedge = signal(SignalKind::user_defined1())?;
    let mut reload = signal(SignalKind::hangup())?;
    // Whole before it answers: whoever has heard it may read this.
    fs::write(pid_file(directory), format!("{}\n", std::process::id()))?;
    let mut listener = Some(TcpListener::bind(("127.0.0.1", port)).await?);
    say(&format!("INFO  answers on 127.0.0.1:{port}"));

    loop {
        tokio::select! {
            _ = wedge.recv() => {
                listener = None;
                say("ERROR all 4 workers wait for a lock that none of them holds; no longer accepting");
            }
            _ = reload.recv() => match listener {
                Some(_) => say("INFO  settings read again"),
                None => say("ERROR settings not read again: no worker is free"),
            },
            accepted = accept(listener.as_ref()) => answer(accepted?).await,
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => std::future::pending().await,
    }
}

async fn answer(mut caller: TcpStream) {
    // A caller that has gone already is no trouble of ours.
    let _ = caller.write_all(b"HTTP/1.0 200 OK\r\n\r\nopen for business\n").await;
}

#[expect(clippy::print_stdout, reason = "its standard output is its log")]
fn say(line: &str) {
    println!("{line}");
}

/// Breaks it: the process stays, the port closes.
pub(super) fn wedge(directory: &Path) -> io::Result<()> {
    let text = fs::read_to_string(pid_file(directory))?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    Ok(kill_process(pid, Signal::USR1)?)
}

/// Whether it answers.
pub(super) async fn answers(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).await.is_ok()
}
