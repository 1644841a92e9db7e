//! A receiver of webhooks that remembers what it was sent.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// One request.
#[derive(Clone, Debug)]
pub struct Received {
    /// `POST /hook HTTP/1.1`
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its bytes.
    pub body: Vec<u8>,
    /// What it was answered; 0 if the connection was closed without an answer.
    pub answered: u16,
}

impl Received {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

/// Listens on a port of its own until the test ends.
#[derive(Clone)]
pub struct Receiver {
    /// Where.
    pub port: u16,
    state: Arc<Mutex<State>>,
}

struct State {
    answer: u16,
    received: Vec<Received>,
}

impl Receiver {
    /// Answers everything with this status; 0 closes connections without an answer.
    pub fn start(answer: u16) -> Receiver {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let state = Arc::new(Mutex::new(State { answer, received: Vec::new() }));
        let receiver = Receiver { port, state };
        let served = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let receiver = served.clone();
                std::thread::spawn(move || receiver.serve(stream));
            }
        });
        receiver
    }

    /// Answers with another status from now on.
    pub fn answer(&self, status: u16) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).answer = status;
    }

    /// Everything so far.
    pub fn received(&self) -> Vec<Received> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).received.clone()
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        // One request after the other, until the sender closes.
        while let Some(mut received) = read(&mut reader) {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let answer = state.answer;
            received.answered = answer;
            state.received.push(received);
            drop(state);
            if answer == 0 {
                return;
            }
            let said = format!("HTTP/1.1 {answer} Answered\r\nContent-Length: 0\r\n\r\n");
            if reader.get_mut().write_all(said.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut next = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        Some(line.trim_end().to_owned())
    };
    let line = next()?;
    let mut headers = Vec::new();
    loop {
        let header = next()?;
        let Some((name, value)) = header.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Received { line, headers, body, answered: 0 })
}
