//! What lies between an agent and the controller: it may deliver a message twice, and what an agent said on one connection
//! only after that agent has another one.
//!
//! Within one connection TCP keeps the order and drops what comes twice, and nothing here breaks that promise for the bytes:
//! it is whole gRPC messages that come twice, as if a proxy had repeated them, and whole connections that come late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::Notify;
use tokio::time::timeout;
use turmoil::net::TcpStream;
use turmoil::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::hands::{Shared, current};
use crate::trace::count;

/// What an agent and its side of the connection may be apart, bytes.
const BUFFER: usize = 64 * 1024;
/// With which an HTTP/2 client begins.
const PREFACE: usize = 24;
/// Of an HTTP/2 frame.
const HEAD: usize = 9;

/// How the wire of one machine is.
#[derive(Clone, Default)]
pub(super) struct Wire {
    /// How often a message comes twice.
    pub(super) twice: f64,
    /// Until when what the agent says is held back; so long after that it arrives, and the connection is gone meanwhile.
    pub(super) held: Option<(Duration, Duration)>,
    /// Rung when that changes.
    pub(super) bell: Arc<Notify>,
}

/// The agent's end of a connection.
pub(super) fn over(machine: &Shared, stream: TcpStream) -> DuplexStream {
    let (near, far) = duplex(BUFFER);
    let (said, tell) = split(far);
    let (heard, say) = stream.into_split();
    let cut = Arc::new(Notify::new());
    tokio::spawn(up(Arc::clone(machine), said, say, Arc::clone(&cut)));
    tokio::spawn(down(Arc::clone(machine), heard, tell, cut));
    near
}

/// From the agent to the controller.
async fn up(machine: Shared, mut said: ReadHalf<DuplexStream>, mut say: OwnedWriteHalf, cut: Arc<Notify>) {
    let (mut frames, mut bytes) = (Frames::new(PREFACE), vec![0; 16 * 1024]);
    let bell = Arc::clone(&current(&machine).wire.bell);
    loop {
        let (now, held) = {
            let machine = current(&machine);
            (machine.now, machine.wire.held)
        };
        if let Some((until, after)) = held.filter(|(until, _)| *until > now) {
            let mut late = Vec::new();
            let _ = timeout(until - now, said.read_to_end(&mut late)).await;
            cut.notify_one();
            drop(said);
            tokio::time::sleep(after).await;
            if !late.is_empty() {
                count("what was said on a connection that is gone arrives");
            }
            let _ = say.write_all(&late).await;
            let _ = say.shutdown().await;
            return;
        }
        let read = tokio::select! {
            biased;
            () = bell.notified() => continue,
            read = said.read(&mut bytes) => read,
        };
        // A process that is gone leaves what it wrote to its kernel, which ends the connection after it.
        let Ok(read @ 1..) = read else {
            let _ = say.shutdown().await;
            return;
        };
        if say.write_all(&frames.pass(&machine, &bytes[..read])).await.is_err() {
            return;
        }
    }
}

/// From the controller to the agent.
async fn down(
    machine: Shared,
    mut heard: OwnedReadHalf,
    mut tell: WriteHalf<DuplexStream>,
    cut: Arc<Notify>,
) {
    let (mut frames, mut bytes) = (Frames::new(0), vec![0; 16 * 1024]);
    loop {
        let read = tokio::select! {
            biased;
            () = cut.notified() => break,
            read = heard.read(&mut bytes) => read,
        };
        let Ok(read @ 1..) = read else { break };
        if tell.write_all(&frames.pass(&machine, &bytes[..read])).await.is_err() {
            return;
        }
    }
    let _ = tell.shutdown().await;
}

/// One direction of HTTP/2.
struct Frames {
    preface: usize,
    rest: Vec<u8>,
    /// Bytes that miss of the message that a stream is in the midst of; none: it cannot be told.
    missing: BTreeMap<u32, Option<usize>>,
}

impl Frames {
    fn new(preface: usize) -> Frames {
        Frames { preface, rest: Vec::new(), missing: BTreeMap::new() }
    }

    /// The bytes that are passed on for these.
    fn pass(&mut self, machine: &Shared, bytes: &[u8]) -> Vec<u8> {
        let begins = self.preface.min(bytes.len());
        self.preface -= begins;
        let mut passed = bytes[..begins].to_vec();
        self.rest.extend_from_slice(&bytes[begins..]);
        while let Some(frame) = self.next() {
            passed.extend_from_slice(&frame);
            if self.is_whole(&frame) {
                let mut machine = current(machine);
                let twice = machine.wire.twice;
                if twice > 0.0 && machine.chance.happens(twice) {
                    count("a message comes twice");
                    passed.extend_from_slice(&frame);
                }
            }
        }
        passed
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let length = match self.rest.get(..3)? {
            [a, b, c] => u32::from_be_bytes([0, *a, *b, *c]) as usize,
            _ => return None,
        };
        if self.rest.len() < HEAD + length {
            return None;
        }
        let after = self.rest.split_off(HEAD + length);
        Some(std::mem::replace(&mut self.rest, after))
    }

    /// Whether it is nothing but whole messages, and not a stream's last word.
    fn is_whole(&mut self, frame: &[u8]) -> bool {
        let (kind, flags) = (frame[3], frame[4]);
        let stream = u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]]);
        if kind != 0 || flags != 0 || frame.len() == HEAD {
            return false;
        }
        let missing = self.missing.entry(stream).or_insert(Some(0));
        let Some(midst) = *missing else { return false };
        let mut left = &frame[HEAD..];
        if midst > left.len() {
            *missing = Some(midst - left.len());
            return false;
        }
        left = &left[midst..];
        while !left.is_empty() {
            let Some((head, body)) = left.split_at_checked(5) else {
                *missing = None;
                return false;
            };
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            if length > body.len() {
                *missing = Some(length - body.len());
                return false;
            }
            left = &body[length..];
        }
        *missing = Some(0);
        midst == 0
    }
}
