//! Hosts join, come, report and go.

use std::collections::BTreeMap;
use std::time::Duration;

use fettle_proto::hello::MOST_TEXTS;
use fettle_proto::signed::{Scope, words};
use fettle_proto::v1;
use fettle_runbooks::id::{Host, RunId};
use fettle_runbooks::run::{Event, State, Wait};
use fettle_runbooks::segment::StepResult;
use tokio::sync::mpsc;

use super::desk::{Desk, Effect};
use super::gates::parse;
use super::handle::{AgentCertificate, Enrolment, Gone, RosterInForce, Session};
use super::lately::Over;
use super::moves::cancel;
use super::people::hash;
use super::timers::of_order;
use crate::dispatch::{self, Message};
use crate::model::Change;
use crate::model::row::{AgentRow, Ahead, KeptRow, StepRow, TokenRow};
use crate::outcome::{About, hear};
use crate::problem::Problem;
use crate::world::At;

/// A token may be spent for so long where nothing else is asked for.
const TOKEN_FOR: Duration = Duration::from_secs(60 * 60);

/// A token may not be asked for longer than that.
const TOKEN_LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often either side of a stream says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Reports an agent may have under way: enough to keep a commit busy, few enough to hold in memory for a whole fleet.
const CREDITS: u32 = 256;

/// Journals of a host of which it is remembered how far they were read. A host has one, and another when that is lost.
const MOST_JOURNALS: usize = 16;

/// No run ever gets so far: a few segments are what one has.
pub(super) const SEGMENT_HIGHEST: u32 = 1 << 20;

/// Attempts of steps that are kept of a run on one host, and their bytes: far more than a runbook has, few enough to hold in
/// memory.
const MOST_STEPS: usize = 2000;
const MOST_STEP_BYTES: usize = 32 * 1024 * 1024;

/// An attempt of which no process was born.
const NOT_STARTED: &str = StepResult::NotStarted.word();

/// Bytes of a text that a host may tell of itself.
const HELLO_LONGEST: usize = 1024;

/// Refuses what no agent says of itself, before any of it is kept.
fn sensible(hello: &v1::Hello) -> Result<(), Problem> {
    let labels = hello.labels.iter().flat_map(|(name, value)| [name, value]);
    let texts = [&hello.version, &hello.boot_id, &hello.journal].into_iter().chain(labels);
    let long = texts.chain(&hello.missing).any(|text| text.len() > HELLO_LONGEST);
    let many = hello.labels.len() > MOST_TEXTS || hello.missing.len() > MOST_TEXTS;
    match long || many {
        true => Err(Problem::invalid("hello-malformed", "the hello says more than an agent has to say")),
        false => Ok(()),
    }
}

/// The message that carries a roster.
pub(super) fn roster_update(roster: &RosterInForce) -> Message {
    let update = v1::RosterUpdate { roster: Some(roster.signed.clone()) };
    v1::ToAgent { what: Some(v1::to_agent::What::Roster(update)) }.into()
}

impl Desk<'_> {
    pub(super) fn create_token(
        &mut self,
        session: Option<&Session>,
        request: v1::CreateTokenRequest,
    ) -> Result<(String, At), Problem> {
        session.map_or(Ok(()), |session| session.may(Scope::Operate))?;
        let host: Host = parse(&request.host)?;
        let valid = match request.valid_ms {
            0 => TOKEN_FOR,
            ms => Duration::from_millis(ms),
        };
        if valid > TOKEN_LONGEST {
            return Err(Problem::invalid("token-too-long", "a token may be spent for at most seven days"));
        }
        let token = format!("fet_{}", words::hex(&self.world.secret()));
        let expires_at = self.now.plus(valid);
        self.change(Change::TokenCreated(Box::new(TokenRow {
            hash: hash(&token),
            host,
            labels: request.labels.into_iter().collect(),
            expires_at,
            by: session
                .map_or_else(|| "the controller's own machine".to_owned(), |session| session.person.clone()),
            spent_at: None,
        })));
        Ok((token, expires_at))
    }

    pub(super) fn spend_token(&mut self, token: &str) -> Result<Enrolment, Problem> {
        let hash = hash(token);
        let Some(row) = self.model.tokens.get(&hash) else {
            return Err(Problem::not_allowed("token-unknown", "the token is not known here"));
        };
        if row.spent_at.is_some() {
            return Err(Problem::not_allowed(
                "token-spent",
                "the token was spent, or voided by a revocation: make another",
            ));
        }
        if row.expires_at <= self.now {
            let message = format!("the token expired at {}: make another", row.expires_at);
            return Err(Problem::not_allowed("token-expired", message));
        }
        let (host, labels) = (row.host.clone(), row.labels.clone());
        self.change(Change::TokenSpent { hash });
        self.change(Change::AgentCertified {
            host: host.clone(),
            labels: Some(labels.clone()),
            serial: String::new(),
            not_after: At(0),
        });
        Ok(Enrolment { host, labels })
    }

    pub(super) fn certified(&mut self, host: Host, certificate: AgentCertificate) -> Result<(), Problem> {
        self.not_revoked(&host)?;
        let AgentCertificate { serial, not_after } = certificate;
        self.change(Change::AgentCertified { host, labels: None, serial, not_after });
        Ok(())
    }

    fn not_revoked(&self, host: &Host) -> Result<(), Problem> {
        match self.model.agents.get(host).and_then(|row| row.revoked.as_ref()) {
            Some((_, reason)) => Err(Problem::not_allowed("revoked", format!("{host} is revoked: {reason}"))),
            None => Ok(()),
        }
    }

    pub(super) fn connected(
        &mut self,
        host: &Host,
        hello: v1::Hello,
        certificate: AgentCertificate,
    ) -> Result<v1::Welcome, Problem> {
        self.not_revoked(host)?;
        sensible(&hello)?;
        let known = self.model.agents.get(host);
        let seen = known.map_or(0, |row| row.epoch).max(hello.epoch_seen);
        // Counting reaches no such number in the life of a fleet: somebody made it up.
        let epoch = seen.checked_add(1).filter(|epoch| i64::try_from(*epoch).is_ok()).ok_or_else(|| {
            Problem::invalid(
                "epoch-invalid",
                format!("{host} says that it has seen epoch {}", hello.epoch_seen),
            )
        })?;
        let mut acked = known.map(|row| row.acked.clone()).unwrap_or_default();
        // What the token was bound to stands; the host's own configuration adds.
        let mut labels: BTreeMap<String, String> = hello.labels.into_iter().collect();
        let bound = known.map(|row| row.bound.clone()).unwrap_or_default();
        labels.extend(bound.clone());
        let tallies = known.map(|row| row.tallies.clone()).unwrap_or_default();
        let paused = hello.paused;
        let mut ahead = known.and_then(|row| row.ahead);
        if let Some(ahead) = ahead.as_mut().filter(|ahead| ahead.missed > 0)
            && self.may_adopt(host)
        {
            // What was not taken in of it was acknowledged: it is to tell all of it again.
            ahead.missed = 0;
            acked.remove(&hello.journal);
        }
        // Of one that is forgotten it only tells again.
        while acked.len() >= MOST_JOURNALS && !acked.contains_key(&hello.journal) {
            acked.pop_first();
        }
        let upto = acked.get(&hello.journal).copied().unwrap_or(0);
        // An epoch is durable before a host hears of it: a host that has seen a higher one has seen what this store has lost.
        let lost = hello.epoch_seen > known.map_or(0, |row| row.epoch);
        let ahead = ahead.or_else(|| lost.then(|| Ahead::from(self.now)));
        // It is about to tell all that it knows, of pauses too.
        let tells = ahead.is_some() && upto == 0 && known.is_some_and(|row| row.journal == hello.journal);
        let row = AgentRow {
            host: host.clone(),
            labels,
            bound,
            epoch,
            connected: true,
            version: hello.version,
            last_seen_at: self.now,
            serial: certificate.serial,
            not_after: certificate.not_after,
            revoked: None,
            void_until: known.map_or(At(0), |row| row.void_until),
            roster_version: hello.roster_version,
            missing: hello.missing,
            boot_id: hello.boot_id,
            acked,
            journal: hello.journal,
            tallies,
            ahead,
        };
        self.change(Change::AgentConnected(Box::new(row)));
        let paused: BTreeMap<RunId, u32> =
            paused.into_iter().filter_map(|it| Some((it.run.parse().ok()?, it.count))).collect();
        let open: Vec<_> = self.model.open_on(host).map(|row| (row.run, row.machine.pause.clone())).collect();
        for (run, pause) in open {
            let (on, count) = paused.get(&run).map_or((false, 0), |count| (true, *count));
            // A host that knows more is believed; one whose disk was put back is told again.
            let more = on && pause.asked < count;
            let less = !tells && count < pause.asked && on != pause.on && pause.is_confirmed();
            if more || less {
                self.host_event(run, host, Event::PauseTold { on, count });
            }
        }
        let heartbeat_ms = u32::try_from(HEARTBEAT.as_millis()).unwrap_or(u32::MAX);
        Ok(v1::Welcome { epoch, heartbeat_ms, credits: CREDITS, acked: upto })
    }

    /// Opens the stream of a welcomed host. First it hears everything it may have missed: the roster, tombstones asked for,
    /// and every order of the outbox; it knows which of them it has.
    pub(super) fn attach(&mut self, host: Host, epoch: u64, sender: mpsc::Sender<Message>) {
        let first = self.owed(&host);
        self.effect(Effect::Attach { host, epoch, sender, first });
    }

    /// Everything a host must hear when it connects.
    pub(super) fn owed(&self, host: &Host) -> Vec<Message> {
        let has = self.model.agents.get(host).map_or(0, |row| row.roster_version);
        let roster = self.in_force.roster.as_ref().filter(|roster| roster.roster.version > has);
        let cancels = self.model.open_on(host).filter_map(|row| match &row.machine.state {
            State::Cancelling { reason, .. } => Some(cancel(row.run, reason.clone())),
            // Of one that was revoked, and joined again, nobody has heard that.
            State::Waiting(Wait::Resolve { cancelled: true, .. }) => {
                Some(cancel(row.run, "the run is cancelled".to_owned()))
            }
            State::Created
            | State::Diagnosing
            | State::Planned { .. }
            | State::Remediating
            | State::Waiting(_)
            | State::Verifying { .. }
            | State::Undoing
            | State::Ended(_) => None,
        });
        let pauses = self.pauses_owed(host);
        let orders = self.model.orders_open(host).into_iter().filter(|order| self.may_go(order));
        let orders =
            orders.filter_map(|order| Some(dispatch::message(self.model.runs.get(&order.run)?, order)));
        let roster = roster.map(|roster| roster_update(roster)).into_iter();
        roster.chain(cancels).chain(pauses).chain(orders).collect()
    }

    pub(super) fn gone(&mut self, host: &Host, epoch: u64, how: Gone) {
        let current = self.model.agents.get(host).is_some_and(|row| row.epoch == epoch && row.connected);
        if !current {
            return;
        }
        let reason = match how {
            Gone::Goodbye(reason) => format!("goodbye: {reason}"),
            Gone::Lost => "the stream broke".to_owned(),
        };
        self.change(Change::AgentGone { host: host.clone(), epoch, reason });
        self.effect(Effect::Detach(host.clone()));
    }

    /// Takes reports in; those taken before change nothing.
    pub(super) fn reports(
        &mut self,
        host: &Host,
        epoch: u64,
        reports: Vec<v1::Report>,
        over: &BTreeMap<RunId, Over>,
    ) -> Result<u64, Problem> {
        let Some(agent) =
            self.model.agents.get(host).filter(|row| row.epoch == epoch && row.revoked.is_none())
        else {
            return Err(Problem::conflict("old-epoch", format!("epoch {epoch} of {host} is history")));
        };
        let journal = agent.journal.clone();
        let before = agent.acked.get(&journal).copied().unwrap_or(0);
        let mut upto = before;
        for report in reports {
            if report.seq <= upto {
                continue;
            }
            upto = report.seq;
            let was_taken = self.model.taken_by(host);
            self.report(host, report, over);
            // What a host tells again of a run may have let go of it, and nobody was asked at the time.
            if was_taken.is_some() && self.model.taken_by(host) != was_taken {
                self.reconsider(host);
            }
        }
        if upto > before {
            self.change(Change::ReportsTaken { host: host.clone(), journal, upto });
        }
        Ok(upto)
    }

    fn report(&mut self, host: &Host, report: v1::Report, over: &BTreeMap<RunId, Over>) {
        let Ok(run) = report.run.parse::<RunId>() else { return };
        if let Some(v1::report::What::ToldAgain(told)) = report.what {
            self.told_again(run, host, told, over.get(&run));
            // It may name others, which will not tell their parts.
            return self.part_with_all_revoked();
        }
        if report.segment > SEGMENT_HIGHEST {
            tracing::warn!(%host, %run, segment = report.segment, "A report of a segment that cannot be; ignored.");
            return;
        }
        let known =
            self.model.runs.get(&run).filter(|_| self.model.host_runs.contains_key(&(run, host.clone())));
        // A run that is over, or that a restored store never knew: acknowledged, so that the host can forget it. Of the
        // latter it tells again as a whole.
        let Some(row) = known else { return };
        let incident = row.incident;
        if self.has_another_order(run, host, &report) {
            let text =
                format!("ignored: segment {} was asked for again, and the host has it", report.segment);
            return self.change(Change::Noted { run, host: host.clone(), text });
        }
        let runbook = row.runbook_digest;
        if self.has_taken_on_another(run, host, &report) {
            return;
        }
        let about = About { run, host, runbook };
        let segment = report.segment;
        let at = At(report.at_ms);
        let ended = matches!(report.what, Some(v1::report::What::SegmentEnded(_)));
        let heard = hear(about, report);
        for change in heard.changes {
            // The host answers each time it is told.
            if let Change::PauseConfirmed { on, .. } = &change
                && self.pause_known(run, host, *on)
            {
                continue;
            }
            if let Change::Planned { plan, .. } = &change
                && self.other_plan(run, host, plan.digest)
            {
                let text = format!("ignored: the host sent another plan, {}", plan.digest);
                self.change(Change::Noted { run, host: host.clone(), text });
                return;
            }
            self.hear_of_step(change);
        }
        // A host answers an order that it has taken on as it did before. If it refuses it, it does not know it any more; unless it
        // knows better: of another segment that goes on, or that the run was cancelled.
        let knows = [fettle_proto::Code::SegmentConflict, fettle_proto::Code::RunCancelled];
        let lost = |code: &str| knows.iter().all(|known| known.as_str() != code);
        let order = self.model.orders.get(&(run, host.clone(), segment));
        let had_it = order.is_some_and(|order| order.accepted_at.is_some() && order.closed_at.is_none());
        let accepted = match &heard.event {
            Some(Event::Refused { code, .. }) if had_it && lost(code) => self.may_have_begun(run, host),
            Some(_) | None => None,
        };
        if heard.closes {
            let open = self.model.orders.get(&(run, host.clone(), segment));
            if open.is_some_and(|order| order.closed_at.is_none()) {
                self.change(Change::OrderClosed { run, host: host.clone(), segment });
            }
        }
        if let Some(event) = heard.event {
            if let (Event::Planned { .. }, Some(incident)) = (&event, incident) {
                self.investigated(incident);
            }
            for event in self.lost_midway(run, host, at, event, accepted) {
                self.host_event(run, host, event);
            }
        }
        if ended {
            self.send_later(run, host, segment);
        }
    }

    /// A host that ends a segment only now has not begun a later one that its copy took on: it is sent that, now that it can.
    fn send_later(&mut self, run: RunId, host: &Host, segment: u32) {
        let open = self.model.orders_open(host).into_iter();
        let mut of_run = open.filter(|order| order.run == run);
        if of_run.any(|order| order.segment > segment && order.accepted_at.is_some()) {
            self.send_again(run, host);
        }
    }

    /// Keeps what is new of a step, within bounds.
    pub(super) fn hear_of_step(&mut self, change: Change) {
        if self.told_before(&change) {
            return;
        }
        match self.within_bounds(change) {
            Ok(change) => self.change(change),
            Err(host) => tracing::warn!(%host, "More steps than a run has; ignored."),
        }
    }

    /// A host may make up steps without end: no more of them are kept than a run has, and no more of what they said. `Err`: it is not
    /// kept at all.
    fn within_bounds(&self, change: Change) -> Result<Change, Host> {
        let (key, own) = if let Change::StepEnded(end) = &change {
            let own = said(&end.message, &end.outputs, [&end.stdout, &end.stderr]);
            ((end.run, end.host.clone(), end.path.clone(), end.attempt), own)
        } else if let Change::StepStarted { run, host, path, attempt, .. } = &change {
            ((*run, host.clone(), path.clone(), *attempt), 0)
        } else if let Change::StepSkipped { run, host, path, reason, .. } = &change {
            ((*run, host.clone(), path.clone(), 0), reason.len())
        } else {
            return Ok(change);
        };
        let (run, host) = (key.0, key.1.clone());
        let all = self.model.steps.range((run, host.clone(), String::new(), 0)..);
        let here = all.take_while(|((of, on, _, _), _)| *of == run && *on == host);
        let known = self.model.steps.contains_key(&key);
        if !known && here.clone().count() >= MOST_STEPS {
            return Err(host);
        }
        let others = here.filter(|(other, _)| **other != key).map(|(_, row)| row);
        let kept: usize =
            others.map(|row| said(&row.message, &row.outputs, [&row.stdout, &row.stderr])).sum();
        if kept.saturating_add(own) <= MOST_STEP_BYTES {
            return Ok(change);
        }
        // How it ended counts, whatever it said.
        if known && let Change::StepEnded(mut end) = change {
            let most = MOST_STEP_BYTES >> 20;
            end.message =
                format!("the steps of this run have said {most} MiB: what this one said is not kept");
            (end.outputs, end.stdout, end.stderr) = Default::default();
            return Ok(Change::StepEnded(end));
        }
        Err(host)
    }

    /// Whether a host refuses an order because it carries out, or has carried out, another of the same number, which it has told
    /// of meanwhile: then that one counts.
    fn has_another_order(&self, run: RunId, host: &Host, report: &v1::Report) -> bool {
        let Some(v1::report::What::Refused(refused)) = &report.what else { return false };
        let order = self.model.orders.get(&(run, host.clone(), report.segment));
        // It was sent one on the word of another host of the run, or by a controller that was restored, and is about to tell of its
        // own.
        let untold =
            self.model.host_runs.get(&(run, host.clone())).is_some_and(|row| row.told == Some(false));
        let untold = untold || self.may_know_more(host);
        refused.code == fettle_proto::Code::SegmentConflict.as_str()
            && (untold || order.is_some_and(|order| order.accepted_at.is_some()))
    }

    /// Whether a host run is known to be paused on its host, or not to be.
    pub(super) fn pause_known(&self, run: RunId, host: &Host, on: bool) -> bool {
        let row = self.model.host_runs.get(&(run, host.clone()));
        row.is_some_and(|row| row.machine.pause.is_confirmed() && row.machine.pause.on == on)
    }

    /// Whether a host run has a plan already, and not this one: what people saw and signed for stays on record.
    pub(super) fn other_plan(&self, run: RunId, host: &Host, digest: fettle_runbooks::id::Digest) -> bool {
        let row = self.model.host_runs.get(&(run, host.clone()));
        row.and_then(|row| row.plan.as_ref()).is_some_and(|plan| plan.digest != digest)
    }

    /// Whether a host says of an attempt what is known of it already: again after a restart, under other numbers. An attempt that
    /// changes something is over once, if it was ever born; one that only reads may run again, and then its latest run counts.
    pub(super) fn told_before(&self, change: &Change) -> bool {
        let known = |run: RunId, host: &Host, path: &str, attempt: u32| {
            self.model.steps.get(&(run, host.clone(), path.to_owned(), attempt))
        };
        let effect = |path: &str| path.starts_with("remediate/");
        if let Change::StepStarted { run, host, path, attempt, at } = change {
            let known = known(*run, host, path, *attempt);
            let over = |row: &StepRow| effect(path) && row.state != NOT_STARTED;
            return known.is_some_and(|row| over(row) || row.started_at == Some(*at));
        }
        if let Change::StepEnded(end) = change {
            let known = known(end.run, &end.host, &end.path, end.attempt);
            return known.filter(|row| row.ended_at.is_some()).is_some_and(|row| {
                let same = row.ended_at == Some(end.at) && row.state == end.outcome;
                // What was not known may become known, and what was never born may yet be.
                same || (effect(&end.path) && row.state != "unknown" && row.state != NOT_STARTED)
            });
        }
        if let Change::StepSkipped { run, host, path, reason, at } = change {
            let known = known(*run, host, path, 0);
            return known.is_some_and(|row| row.ended_at == Some(*at) && row.message == *reason);
        }
        false
    }

    /// A diagnosis nobody took on in time is of no use any more.
    pub(super) fn order_due(&mut self, run: RunId, host: &Host, segment: u32) {
        let Some(order) = self.model.orders.get(&(run, host.clone(), segment)) else { return };
        if order.accepted_at.is_some() || order.closed_at.is_some() || self.now < of_order(self.model, order)
        {
            return;
        }
        let diagnosing = self
            .model
            .host_runs
            .get(&(run, host.clone()))
            .is_some_and(|row| row.machine.state == State::Diagnosing);
        if diagnosing {
            let message = format!("the host did not take the order on by {}", order.not_after);
            let code = "order-expired".to_owned();
            self.host_event(run, host, Event::Refused { segment, code, message });
        }
    }

    pub(super) fn revoke(&mut self, session: &Session, host: Host, reason: String) -> Result<bool, Problem> {
        session.may(Scope::Operate)?;
        let was_connected = self.model.agents.get(&host).map(|row| row.connected);
        if was_connected.is_none() {
            // After a restore, of one that joined since the backup there is nothing but its part in a run of others.
            if self.model.open_on(&host).next().is_none() {
                return Err(Problem::not_found(format!("host `{host}`")).next("fettle agent list"));
            }
            let (host, serial) = (host.clone(), String::new());
            self.change(Change::AgentCertified { host, labels: None, serial, not_after: At(0) });
        }
        let by = session.person.clone();
        let why = format!("{host} was revoked by {by}: {reason}");
        self.change(Change::AgentRevoked { host: host.clone(), by, reason });
        self.part_with(&host, &why);
        // A token made before would let whoever has it back in.
        let tokens = self.model.tokens.values().filter(|row| row.host == host && row.spent_at.is_none());
        let hashes: Vec<String> = tokens.map(|row| row.hash.clone()).collect();
        for hash in hashes {
            self.change(Change::TokenSpent { hash });
        }
        self.effect(Effect::Detach(host));
        Ok(was_connected.unwrap_or(false))
    }
}

/// About how much memory it takes what a host says of a step, bytes.
fn said(message: &str, outputs: &BTreeMap<String, String>, kept: [&KeptRow; 2]) -> usize {
    const EACH: usize = 64;
    let outputs: usize = outputs.iter().map(|(name, value)| name.len() + value.len() + EACH).sum();
    let kept: usize = kept.iter().map(|kept| kept.head.0.len() + kept.tail.0.len()).sum();
    message.len() + outputs + kept
}
