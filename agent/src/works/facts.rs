//! Facts: what the agent itself reads on its host.
//!
//! Only what is asked for is read. Each fact is read on a thread of its own, within a time: a mount that hangs makes one
//! fact an error, not the agent a corpse. Such a thread stays behind, because nothing can end it; so there are never
//! more than a few, and a question that is still stuck is not asked again. A fact that cannot be read is an error with
//! its reason, never a zero, and what does not exist (the size of a file that is not there) is null.

mod disk; // disk(mount)
mod file; // file(path)
mod log; // log(target)
mod machine; // memory, cpu, load
mod open_files; // open_files(path)
pub(super) mod owner; // the unit a process belongs to
mod processes; // processes(name)
mod tcp; // tcp(address)
mod unit; // unit(name)

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fettle_runbooks::expr::facts::{FactCall, FactKind, Facts};
use fettle_runbooks::value::Value;

/// Threads that may be reading facts at once, stuck ones included.
const THREADS: usize = 32;
/// Steps that may wait for facts at once, with a thread each.
const TURNS: usize = 64;

/// One reading: the fields of a fact, or why it cannot be read.
type Reading = Result<Value, String>;

/// Reads these facts, all at once, and waits no longer than `timeout`. Blocks. No fact tells anything of `state`, the agent's own.
pub fn read(calls: &[FactCall], timeout: Duration, state: &Path) -> Facts {
    let state = state.to_owned();
    read_with(calls, timeout, move |call, patience| answer(call, patience, &state))
}

fn read_with(
    calls: &[FactCall],
    timeout: Duration,
    answer: impl Fn(&FactCall, Duration) -> Reading + Clone + Send + 'static,
) -> Facts {
    let deadline = Instant::now() + timeout;
    let mut facts = Facts::new();
    let (answers, inbox) = channel();
    let mut open = 0;
    for call in calls {
        let text = call.to_string();
        if facts.contains_key(&text) {
            continue;
        }
        let (call, answers, answer) = (call.clone(), answers.clone(), answer.clone());
        let begun = begin(&text, deadline).and_then(|asked| {
            let thread = std::thread::Builder::new().name("fact".into()).stack_size(512 * 1024);
            let read = move || {
                let text = asked.text.clone();
                let reading = answer(&call, timeout);
                drop(asked);
                let _ = answers.send((text, reading));
            };
            thread.spawn(read).map(drop).map_err(|error| format!("no thread for it: {error}"))
        });
        let until_then = match begun {
            Ok(()) => {
                open += 1;
                Err(format!("did not answer within {timeout:?}"))
            }
            Err(why) => Err(why),
        };
        facts.insert(text, until_then);
    }
    while open > 0 {
        match inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((text, reading)) => {
                facts.insert(text, reading);
                open -= 1;
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    facts
}

/// Reads one fact, however long it takes.
fn answer(call: &FactCall, patience: Duration, state: &Path) -> Reading {
    let arg = || match call.args.first() {
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) | None => Err(format!("{} takes a text", call.fact.name())),
    };
    match call.fact {
        FactKind::Disk => disk::read(arg()?),
        FactKind::Memory => machine::memory(),
        FactKind::Cpu => machine::cpu(),
        FactKind::Load => machine::load(),
        FactKind::Processes => processes::read(arg()?),
        FactKind::OpenFiles => open_files::read(arg()?, patience),
        FactKind::Unit => unit::read(arg()?, patience),
        FactKind::Tcp => tcp::read(arg()?, patience),
        FactKind::File => file::read(arg()?),
        FactKind::Log(question) => log::read(question, &call.args, patience, state),
    }
}

/// A path is told from the root: an agent has no directory that people would mean.
fn absolute(path: &str) -> Result<(), String> {
    if path.starts_with('/') {
        Ok(())
    } else {
        Err("not an absolute path: write one that begins with `/`".into())
    }
}

/// What a host says on which the kernel's list of processes is empty: whoever asks is one.
const NO_PROCESSES: &str = "the kernel shows no processes: /proc must be mounted where the agent runs";

/// A fact's fields.
fn record<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A count as the language has it.
fn int(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// A part of a whole, in percent; of nothing there is no part.
fn percent(part: u64, whole: u64) -> Value {
    if whole == 0 { Value::Null } else { Value::Number(part as f64 * 100.0 / whole as f64) }
}

/// Questions that have no answer yet, by a number of their own: what was asked, and until when an answer is due.
static OPEN: Mutex<BTreeMap<u64, (String, Instant)>> = Mutex::new(BTreeMap::new());

/// A question that is being asked, until it is dropped.
struct Asked {
    number: u64,
    text: String,
}

/// Registers a question, unless it is stuck already or too many are.
fn begin(text: &str, deadline: Instant) -> Result<Asked, String> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    if open.values().any(|(asked, due)| asked == text && *due < now) {
        return Err("did not answer when it was asked before, and still has not".into());
    }
    if open.len() >= THREADS {
        return Err(format!("{THREADS} other facts are being read or stuck"));
    }
    let number = open.last_key_value().map_or(0, |(last, _)| last + 1);
    open.insert(number, (text.to_owned(), deadline));
    Ok(Asked { number, text: text.to_owned() })
}

impl Drop for Asked {
    fn drop(&mut self) {
        OPEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// Leave to wait for facts, until it is dropped: whoever sends orders fills no host with threads.
#[derive(Debug)]
pub(super) struct Turn(());

static TAKEN: AtomicUsize = AtomicUsize::new(0);

impl Turn {
    pub(super) fn take() -> Result<Turn, String> {
        let more = |taken: usize| (taken < TURNS).then_some(taken + 1);
        let took = TAKEN.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        took.map(|_| Turn(())).map_err(|_| format!("{TURNS} other steps are waiting for facts"))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TAKEN.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
