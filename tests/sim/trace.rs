//! What happened, line by line: its end is printed when something is wrong, its hash says whether a seed repeats itself.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Lines that are kept for the end of a failure's report.
const TAIL: usize = 150;

thread_local! {
    static TALLY: RefCell<Tally> = const { RefCell::new(Tally::new()) };
    static STEP: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The virtual time: of the host that runs, or of the last step.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_else(|| STEP.get())
}

/// How often what happened in a story: faults by what they did, rules by what they were held against.
pub(crate) type Tally = BTreeMap<Cow<'static, str>, usize>;

/// It happened once more.
pub(crate) fn count(what: impl Into<Cow<'static, str>>) {
    TALLY.with_borrow_mut(|tally| *tally.entry(what.into()).or_default() += 1);
}

/// Everything so far.
pub(crate) fn tally() -> Tally {
    TALLY.with_borrow(Clone::clone)
}

/// So much virtual time has passed; said between steps.
pub(crate) fn step(elapsed: Duration) {
    STEP.set(elapsed);
}

/// The lines. Clones share them.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Mutex<Lines>>);

struct Lines {
    tail: VecDeque<String>,
    hash: u64,
    count: usize,
    aloud: bool,
}

impl Trace {
    /// None yet. `aloud`: every line is printed at once.
    pub(crate) fn new(aloud: bool) -> Trace {
        let lines = Lines { tail: VecDeque::new(), hash: 0xcbf2_9ce4_8422_2325, count: 0, aloud };
        Trace(Arc::new(Mutex::new(lines)))
    }

    /// One more.
    pub(crate) fn say(&self, what: impl fmt::Display) {
        let line = format!("{:>10.3} {what}", now().as_secs_f64());
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in line.bytes() {
            lines.hash = (lines.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        lines.count += 1;
        if lines.aloud {
            println!("{line}");
        }
        lines.tail.push_back(line);
        if lines.tail.len() > TAIL {
            lines.tail.pop_front();
        }
    }

    /// How many lines, and their hash.
    pub(crate) fn sum(&self) -> (usize, u64) {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (lines.count, lines.hash)
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).tail.iter().cloned().collect()
    }

    /// The same for another thread, while it is told; nothing if its teller stands still in the midst of a line.
    pub(crate) fn tail_so_far(&self) -> Vec<String> {
        self.0.try_lock().map(|lines| lines.tail.iter().cloned().collect()).unwrap_or_default()
    }
}
