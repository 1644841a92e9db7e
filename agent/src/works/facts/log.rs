//! `log(target).matches(pattern, since)`, `.count(…)`, `.last(…)`: what was written to a file or to the journal of a unit
//! not longer ago than `since`.
//!
//! Both are read from their newest line backwards, so that most questions are answered by little of it. What may be read at
//! once is bounded; where a bound or the time cuts something off that could decide, the answer is an error and never a "no".
//!
//! A line of a log is data that strangers wrote: it is matched and told, and nothing else. What a runbook may read here is
//! narrower than what its agent can: see [`allowed`].

mod allowed; // which files are logs that may be read
mod file; // a file, from its end
mod journal; // the journal, as journalctl tells it
mod pattern; // what is looked for
mod stamps; // when a line was written

use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fettle_runbooks::expr::facts::Question;
use fettle_runbooks::value::Value;
use pattern::Pattern;

use super::{Reading, int};
use crate::works::clock::wall_ms;

/// What is read at once, at most.
const MOST_BYTES: u64 = 16 * 1024 * 1024;
/// A longer line is kept and matched up to here, and told up to there.
const MOST_OF_A_LINE: usize = 64 * 1024;
const MOST_TOLD: usize = 1024;
/// Logs that are read at the same time; who asks for more waits.
const TURNS: usize = 2;

/// What is asked, of which lines, and for how long.
struct Ask {
    question: Question,
    pattern: Pattern,
    /// Lines of this time, in milliseconds of the wall clock, and later ones.
    from_ms: i64,
    now_ms: i64,
    deadline: Instant,
}

pub(super) fn read(question: Question, args: &[Value], patience: Duration, state: &Path) -> Reading {
    let [Value::String(target), Value::String(pattern), Value::Duration(since)] = args else {
        return Err("a log is asked for a pattern and a length of time".into());
    };
    let now_ms = wall_ms();
    let ask = Ask {
        question,
        pattern: Pattern::new(pattern)?,
        from_ms: now_ms.saturating_sub(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
        now_ms,
        // Before whoever asked stops waiting, so that the reason is told.
        deadline: Instant::now() + patience.mul_f64(0.8),
    };
    let _turn = Turn::take(ask.deadline)?;
    if target.starts_with('/') {
        let hits = file::read(Path::new(target), &ask, state)?;
        return Ok(hits.answer(question));
    }
    Ok(journal::read(target, &ask)?.answer(question))
}

/// Leave to go through a log, until it is dropped. It takes a processor's whole time.
struct Turn(());

static TAKEN: Mutex<usize> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

impl Turn {
    fn take(deadline: Instant) -> Result<Turn, String> {
        let left = deadline.saturating_duration_since(Instant::now());
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, _) = GIVEN_BACK
            .wait_timeout_while(taken, left, |taken| *taken >= TURNS)
            .unwrap_or_else(PoisonError::into_inner);
        if *taken >= TURNS {
            return Err(format!(
                "{TURNS} other logs are being read, and its time is over: ask about fewer at once, or for a shorter time"
            ));
        }
        *taken += 1;
        Ok(Turn(()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        GIVEN_BACK.notify_one();
    }
}

/// Lines that match, counted from the newest on.
#[derive(Debug, Default, PartialEq)]
struct Hits {
    count: u64,
    newest: Option<String>,
}

impl Hits {
    /// Takes the next older line.
    fn take(&mut self, line: &str, ask: &Ask) {
        let line = &line[..line.floor_char_boundary(MOST_OF_A_LINE)];
        if ask.pattern.is_in(line) {
            self.count += 1;
            self.newest.get_or_insert_with(|| line[..line.floor_char_boundary(MOST_TOLD)].to_owned());
        }
    }

    /// Takes what older lines gave.
    fn older(&mut self, older: Hits) {
        self.count += older.count;
        self.newest = self.newest.take().or(older.newest);
    }

    /// Whether nothing older changes the answer.
    fn decide(&self, question: Question) -> bool {
        match question {
            Question::Matches | Question::Last => self.count > 0,
            Question::Count => false,
        }
    }

    fn answer(self, question: Question) -> Value {
        match question {
            Question::Matches => Value::Bool(self.count > 0),
            Question::Count => int(self.count),
            Question::Last => Value::String(self.newest.unwrap_or_default()),
        }
    }
}

/// Why a log is not read to its beginning.
fn too_much(what: &str) -> String {
    format!("only its newest {} MiB were read, {what}: ask for a shorter time", MOST_BYTES / 1024 / 1024)
}

const TOO_SLOW: &str = "it is too large to be read in time: ask for a shorter time, or for a simpler pattern";

#[cfg(test)]
mod tests;
