//! Works that do nothing: they take orders on, say that every step went well, and keep what they said until the controller has
//! acknowledged it. There is no journal and no process; numbers, credits and what is sent again are as on a real host.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fettle_agent::message::{FromWorks, Greeting, ToWorks};
use fettle_proto::signed::{Roster, Tag, digest, plan};
use fettle_proto::v1;
use fettle_runbooks::expr::Scope;
use fettle_runbooks::id::{Digest, Host};
use fettle_runbooks::plan::{Plan, Rendering};
use fettle_runbooks::runbook::{Phase, Runbook};
use fettle_runbooks::value::Value;
use jiff::Timestamp;
use prost::Message as _;
use tokio::sync::mpsc;

use v1::order_content::Work;
use v1::report::What;

/// How long the steps of a host take.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// Everything is over at once.
    AtOnce,
    /// Each step of a diagnosis is tried this many times, so long apart.
    Trickle {
        /// Attempts.
        attempts: u32,
        /// From one to the next.
        every: Duration,
    },
}

/// Runbooks that were read and rendered, by digest: all hosts of a fleet share them.
#[derive(Default)]
pub(super) struct Readings(Mutex<HashMap<Digest, Arc<Reading>>>);

struct Reading {
    runbook: Runbook,
    rendering: Rendering,
}

impl Readings {
    fn of(&self, order: &v1::OrderContent) -> Arc<Reading> {
        let key = digest(Tag::Runbook, &order.runbook);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = || {
            let runbook =
                fettle_runbooks::read(&order.runbook).expect("the controller sends good runbooks").runbook;
            let given = order.inputs.clone().into_iter().collect();
            let inputs = fettle_runbooks::input::bind(runbook.inputs(), &given).expect("inputs that fit");
            let scope = Scope(BTreeMap::from([("inputs".to_owned(), Value::Map(inputs))]));
            let rendering = fettle_runbooks::plan::render(&runbook, &scope, &BTreeMap::new());
            Arc::new(Reading { runbook, rendering: rendering.expect("a small plan") })
        };
        Arc::clone(known.entry(key).or_insert_with(read))
    }
}

/// The works of one host. Clones are the same.
#[derive(Clone)]
pub struct Works(Arc<Shared>);

struct Shared {
    host: Host,
    pace: Pace,
    readings: Arc<Readings>,
    /// Where a trickle waits.
    runtime: tokio::runtime::Handle,
    to_link: mpsc::UnboundedSender<FromWorks>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    epoch: u64,
    roster_version: u64,
    /// Reports by number, until they are acknowledged.
    kept: BTreeMap<u64, v1::Report>,
    last: u64,
    acked: u64,
    sent: u64,
    /// Absent: not connected.
    credits: Option<u32>,
    orders: BTreeMap<(String, u32), Digest>,
    /// Attempts of remediate steps, by run and path.
    acts: BTreeMap<(String, String), u32>,
    welcomed: Vec<Instant>,
    /// When everything said was last known to be durable with the controller.
    settled: Option<Timestamp>,
}

impl Works {
    pub(super) fn new(
        host: Host,
        pace: Pace,
        readings: Arc<Readings>,
        runtime: tokio::runtime::Handle,
        to_link: mpsc::UnboundedSender<FromWorks>,
    ) -> Works {
        let state = Mutex::default();
        Works(Arc::new(Shared { host, pace, readings, runtime, to_link, state }))
    }

    /// Whose they are.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// Whether they are connected.
    pub fn connected(&self) -> bool {
        self.state().credits.is_some()
    }

    /// When they were welcomed, each time.
    pub fn welcomed(&self) -> Vec<Instant> {
        self.state().welcomed.clone()
    }

    /// Reports that the controller has not acknowledged.
    pub fn owed(&self) -> usize {
        self.state().kept.len()
    }

    /// The last report there is.
    pub fn reported(&self) -> u64 {
        self.state().last
    }

    /// When the last acknowledgement came that left nothing owed.
    pub fn settled(&self) -> Option<Timestamp> {
        self.state().settled
    }

    /// How often each remediate step was carried out, by run and path.
    pub fn acts(&self) -> BTreeMap<(String, String), u32> {
        self.state().acts.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the connection tells them.
    pub(super) fn told(&self, message: ToWorks) {
        match message {
            ToWorks::Greet => {
                let greeting = self.greeting();
                // Without a link nobody waits for it.
                let _ = self.0.to_link.send(FromWorks::Greeting(greeting));
            }
            ToWorks::Connected { epoch, credits, acked } => {
                let mut state = self.state();
                assert!(epoch > state.epoch, "{}: epoch {epoch} after {}", self.0.host, state.epoch);
                state.epoch = epoch;
                state.acknowledged(acked);
                (state.credits, state.sent) = (Some(credits), state.acked);
                state.welcomed.push(Instant::now());
                self.send(&mut state);
            }
            ToWorks::Disconnected => self.state().credits = None,
            ToWorks::Acked { upto } => {
                let mut state = self.state();
                state.acknowledged(upto);
                self.send(&mut state);
            }
            ToWorks::Order { content, digest: claimed } => {
                assert_eq!(
                    digest(Tag::Order, &content),
                    claimed,
                    "{}: an order of another digest",
                    self.0.host
                );
                let order = v1::OrderContent::decode(content.as_slice()).expect("an order");
                let key = (order.run.clone(), order.segment);
                if let Some(known) = self.state().orders.insert(key, claimed) {
                    assert_eq!(known, claimed, "{}: another order of the same number", self.0.host);
                    return;
                }
                self.take_on(order);
            }
            ToWorks::Cancel { run, .. } => {
                self.say(&run.to_string(), 1, What::Cancelled(v1::Cancelled::default()))
            }
            ToWorks::Pause { run, on, count } => {
                self.say(&run.to_string(), 1, What::Paused(v1::Paused { on, count }))
            }
            ToWorks::Roster(signed) => {
                let roster = Roster::decode(&signed.bytes).expect("a roster");
                self.state().roster_version = roster.version;
            }
            ToWorks::Stop => {}
        }
    }

    fn greeting(&self) -> Greeting {
        let state = self.state();
        Greeting {
            epoch_seen: state.epoch,
            boot_id: "00000000-0000-4000-8000-000000000000".to_owned(),
            journal: format!("journal-of-{}", self.0.host),
            roster_version: state.roster_version,
            paused: Vec::new(),
            missing: Vec::new(),
            labels: BTreeMap::new(),
        }
    }

    fn take_on(&self, order: v1::OrderContent) {
        let reading = self.0.readings.of(&order);
        self.of(&order, What::Accepted(v1::Accepted::default()));
        match (order.work.as_ref().expect("an order has work"), self.0.pace) {
            (Work::Diagnose(_), Pace::AtOnce) => {
                for step in reading.runbook.steps(Phase::Diagnose) {
                    self.step(&order, &format!("diagnose/{}", step.id), 1);
                }
                self.diagnosed(&order, &reading);
            }
            (Work::Diagnose(_), Pace::Trickle { attempts, every }) => {
                let works = self.clone();
                self.0.runtime.spawn(async move {
                    let mut ticks = tokio::time::interval(every);
                    for attempt in 1..=attempts {
                        ticks.tick().await;
                        for step in reading.runbook.steps(Phase::Diagnose) {
                            works.step(&order, &format!("diagnose/{}", step.id), attempt);
                        }
                    }
                    works.diagnosed(&order, &reading);
                });
            }
            (Work::Remediate(_), _) => {
                for step in &reading.rendering.steps {
                    let key = (order.run.clone(), step.path.clone());
                    *self.state().acts.entry(key).or_default() += 1;
                    self.step(&order, &step.path, 1);
                }
                self.verified(&order, &reading, true);
            }
            (Work::Verify(_), _) => self.verified(&order, &reading, false),
        }
    }

    fn diagnosed(&self, order: &v1::OrderContent, reading: &Reading) {
        let rendering = &reading.rendering;
        let plan = Plan {
            agent: self.0.host.clone(),
            run: order.run.parse().expect("a run"),
            nonce: "ab".repeat(32),
            boot: "00000000-0000-4000-8000-000000000000".to_owned(),
            runbook: reading.runbook.name().to_owned(),
            runbook_digest: reading.runbook.digest(),
            inputs: order.inputs.clone().into_iter().collect(),
            evidence: rendering.evidence.clone(),
            steps: rendering.steps.clone(),
            verify: rendering.verify.clone(),
            of: None,
        };
        let bytes = if plan.steps.is_empty() { Vec::new() } else { plan::encode(&plan) };
        self.of(order, What::Planned(v1::Planned { plan: bytes.into(), ..v1::Planned::default() }));
        self.ended(order, v1::Verification::NotRun, false);
    }

    fn verified(&self, order: &v1::OrderContent, reading: &Reading, effects: bool) {
        for step in &reading.rendering.verify {
            self.step(order, &step.path, 1);
        }
        self.ended(order, v1::Verification::Passed, effects);
    }

    fn step(&self, order: &v1::OrderContent, path: &str, attempt: u32) {
        self.of(order, What::StepStarted(v1::StepStarted { path: path.to_owned(), attempt }));
        let ended = v1::StepEnded {
            path: path.to_owned(),
            attempt,
            outcome: "succeeded".to_owned(),
            exit_code: Some(0),
            stdout: Some(v1::Kept::default()),
            stderr: Some(v1::Kept::default()),
            ..v1::StepEnded::default()
        };
        self.of(order, What::StepEnded(ended));
    }

    fn ended(&self, order: &v1::OrderContent, verification: v1::Verification, effects: bool) {
        let ended = v1::SegmentEnded {
            how: Some(v1::segment_ended::How::Done(v1::SegmentDone {})),
            verification: verification.into(),
            effects,
            undoing: v1::Undoing::None.into(),
        };
        self.of(order, What::SegmentEnded(ended));
    }

    fn of(&self, order: &v1::OrderContent, what: What) {
        self.say(&order.run, order.segment, what);
    }

    fn say(&self, run: &str, segment: u32, what: What) {
        let mut state = self.state();
        state.last += 1;
        let at_ms = Timestamp::now().as_millisecond();
        let report = v1::Report { seq: state.last, run: run.to_owned(), segment, at_ms, what: Some(what) };
        let last = state.last;
        state.kept.insert(last, report);
        self.send(&mut state);
    }

    /// Sends what there is credit for.
    fn send(&self, state: &mut State) {
        let Some(credits) = state.credits else { return };
        while state.sent - state.acked < u64::from(credits) && state.sent < state.last {
            state.sent += 1;
            let report = state.kept[&state.sent].clone();
            // Without a link nobody is there to hear it.
            let _ = self.0.to_link.send(FromWorks::Report(report));
        }
    }
}

impl State {
    fn acknowledged(&mut self, upto: u64) {
        assert!(upto <= self.last, "report {upto} was acknowledged, and {} is the last", self.last);
        if upto > self.acked {
            self.acked = upto;
            self.sent = self.sent.max(upto);
            self.kept = self.kept.split_off(&(upto + 1));
            if self.kept.is_empty() {
                self.settled = Some(Timestamp::now());
            }
        }
    }
}
