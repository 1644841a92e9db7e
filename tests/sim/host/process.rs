//! Simulated processes: what they are told to do, and what the seed adds.

use std::ops::Range;
use std::time::Duration;

use fettle_agent::works::attempt::{self, Ended, Observer, Outcome, Spec, StartBy, Work};
use fettle_agent::works::output::Kept;
use fettle_agent::works::record::AttemptKey;
use fettle_runbooks::id::{Digest, RunId};

use super::ledger;
use crate::chance::Chance;

/// How processes behave where their words do not say.
#[derive(Clone, Debug)]
pub(crate) struct Nature {
    /// How long they take.
    pub(crate) takes: Range<Duration>,
    /// How many of them exit with 1.
    pub(crate) fails: f64,
    /// How many of them never end by themselves.
    pub(crate) hangs: f64,
}

/// What a process will do.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) takes: Duration,
    pub(super) code: i32,
    hangs: bool,
    /// Disk use that changes, half of it at once and the rest at the end.
    pub(super) moves: Vec<(String, f64)>,
    prints: Vec<u8>,
}

impl Script {
    pub(super) fn of(words: &[String], nature: &Nature, chance: &mut Chance) -> Script {
        let ms = |time: Duration| time.as_millis() as u64;
        let mut script = Script {
            takes: chance.ms(ms(nature.takes.start)..ms(nature.takes.end).max(ms(nature.takes.start) + 1)),
            code: i32::from(chance.happens(nature.fails)),
            hangs: chance.happens(nature.hangs),
            moves: Vec::new(),
            prints: Vec::new(),
        };
        for word in words.iter().flat_map(|word| word.split_ascii_whitespace()) {
            match word.split_once('=') {
                Some(("take", time)) => (script.takes, script.hangs) = (duration(time), false),
                Some(("exit", code)) => (script.code, script.hangs) = (code.parse().unwrap_or(1), false),
                Some(("lower", what)) => script.moves.extend(moved(what, -1.0)),
                Some(("raise", what)) => script.moves.extend(moved(what, 1.0)),
                Some(("print", text)) => script.prints = text.as_bytes().to_vec(),
                None if word == "hang" => script.hangs = true,
                Some(_) | None => {}
            }
        }
        script
    }
}

fn duration(text: &str) -> Duration {
    let number = |digits: &str| digits.parse().unwrap_or(0);
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(ms), _) => Duration::from_millis(number(ms)),
        (None, Some(s)) => Duration::from_secs(number(s)),
        (None, None) => Duration::ZERO,
    }
}

fn moved(what: &str, sign: f64) -> Option<(String, f64)> {
    let (mount, by) = what.split_once(':')?;
    Some((mount.to_owned(), sign * by.parse::<f64>().ok()?))
}

/// How far a process, or the shim above it, has come; what comes next happens at its time.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// The shim is born and has its lock.
    Born,
    /// `started` is there, and not durable yet.
    Starting,
    /// The step's process is about to begin.
    Beginning,
    /// It runs.
    Running,
    /// It is over; its result is to be written.
    Leaving(Box<Ended>),
    /// The result has its name, not durably yet.
    Named,
}

impl Stage {
    /// Which.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Stage::Born => "born",
            Stage::Starting => "starting",
            Stage::Beginning => "beginning",
            Stage::Running => "running",
            Stage::Leaving(_) => "leaving",
            Stage::Named => "named",
        }
    }
}

/// A process with the shim above it, if it has one.
pub(super) struct Process {
    pub(super) key: AttemptKey,
    /// A child of this agent, which only reads; absent: it acts.
    pub(super) child_of: Option<u64>,
    pub(super) spec: Spec,
    pub(super) start_by: StartBy,
    pub(super) script: Script,
    pub(super) stage: Stage,
    /// When the next thing happens.
    pub(super) at: Duration,
    pub(super) begun_at: Duration,
    /// Why it will not end by itself.
    pub(super) ended_by: Option<Outcome>,
    pub(super) observer: Option<Observer>,
    /// The shim lives.
    pub(super) watched: bool,
}

impl Process {
    pub(super) fn is(&self, key: &AttemptKey) -> bool {
        self.key == *key
    }

    pub(super) fn of_run(&self, run: RunId) -> bool {
        self.key.run == run
    }

    pub(super) fn acts(&self) -> bool {
        self.child_of.is_none()
    }

    /// It exists.
    pub(super) fn lives(&self) -> bool {
        matches!(self.stage, Stage::Running)
    }

    pub(super) fn words(&self) -> Vec<String> {
        words(&self.spec)
    }

    pub(super) fn digest(&self) -> Digest {
        ledger::digest(&self.words(), &self.spec.env)
    }

    /// Its process begins: when it will end, and whether by itself.
    pub(super) fn begin(&mut self, now: Duration) {
        (self.stage, self.begun_at) = (Stage::Running, now);
        let late = self.script.hangs || self.script.takes > self.spec.timeout;
        self.at = now + if late { self.spec.timeout } else { self.script.takes };
        self.ended_by = late.then_some(Outcome::TimedOut);
    }

    /// Its end.
    pub(super) fn ended(&self, now: Duration) -> Ended {
        let killed = self.ended_by.clone();
        let mut stdout = Kept::default();
        stdout.push(&self.script.prints);
        stdout.finish();
        Ended {
            exit_code: killed.is_none().then_some(self.script.code),
            signal: killed.is_some().then_some(15),
            outcome: killed.unwrap_or(Outcome::Exited),
            stdout,
            stderr: Kept::default(),
            took: now.saturating_sub(self.begun_at),
            hint: String::new(),
        }
    }

    pub(super) fn tell(&mut self, happening: attempt::Happening<'_>) {
        if let Some(observer) = &mut self.observer {
            observer(happening);
        }
    }
}

pub(super) fn words(spec: &Spec) -> Vec<String> {
    match &spec.work {
        Work::Argv(words) => words.clone(),
        Work::Script { source, .. } => vec!["script".to_owned(), source.clone()],
        Work::Service { deed, unit, tried_in: _ } => {
            vec!["service".to_owned(), format!("{deed:?}"), unit.to_string()]
        }
    }
}

/// The result of an attempt without a process.
pub(super) fn not_started(code: &str, message: &str) -> Ended {
    Ended {
        outcome: Outcome::NotStarted { code: code.to_owned(), message: message.to_owned() },
        exit_code: None,
        signal: None,
        stdout: Kept::default(),
        stderr: Kept::default(),
        took: Duration::ZERO,
        hint: String::new(),
    }
}

/// What a process is started with.
pub(super) struct New {
    pub(super) spec: Spec,
    pub(super) start_by: StartBy,
    pub(super) observer: Observer,
    pub(super) child_of: Option<u64>,
}
