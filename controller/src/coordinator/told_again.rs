//! A host tells again what a store that was restored from a backup has lost.
//!
//! What happened on a host is true, whatever the backup says: the run's machine hears it all, and nothing is done of what it asks
//! for on the way, for that was done at the time. Only what it asks for at the end is done now. A run that is not known at all
//! is *adopted*: the order that the host accepted says what it is, and what a person signed to start it.

use std::collections::BTreeSet;
use std::time::Duration;

use fettle_proto::signed::words::from_ms;
use fettle_proto::signed::{Signed, Start, Started, Tag, Until, digest};
use fettle_proto::v1;
use fettle_runbooks::id::{Digest, Host, RunId};
use fettle_runbooks::run::{Event, HostRun, State, Wait};
use fettle_runbooks::segment::{How, Outcome};
use prost::Message as _;

use super::agents::SEGMENT_HIGHEST;
use super::desk::{Desk, Effect};
use super::lately::Over;
use super::moves::look;
use super::notices::Told as Notice;
use crate::model::row::{Ahead, Blob, Earlier, GateState, HostRunRow, OrderRow, Origin, RunRow};
use crate::model::{Change, Row};
use crate::outcome::{About, hear};
use crate::policy::Mode;
use crate::run::{Beginning, begin};
use crate::store::restore::GAP;
use crate::world::At;

/// People are told of runs that were adopted, and not again before this.
const TELL_AGAIN: Duration = Duration::from_secs(60 * 60);

/// So many adopted runs may be open on one host. A host in wrong hands can make up as many as it likes.
const MOST_OPEN: usize = 64;

/// Hosts remember a run for so long.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// What a host tells of a run, and what is known of it here.
struct Told<'a> {
    /// The run, if it is over here, and the host has more to tell.
    over: Option<&'a Over>,
    /// No step of it starts on the host any more.
    cancelled: bool,
}

/// What a report says of a pause.
fn pause_of(report: &v1::Report) -> Option<v1::Paused> {
    if let Some(v1::report::What::Paused(paused)) = &report.what { Some(*paused) } else { None }
}

/// Whether a report says that the run was cancelled.
fn cancels(report: &v1::Report) -> bool {
    matches!(report.what, Some(v1::report::What::Cancelled(_)))
}

/// What people asked for, if a segment ended because they did.
fn stopped(event: &Event) -> Option<Event> {
    let Event::SegmentEnded { outcome: Outcome { how: How::Stopped { reason }, .. }, .. } = event else {
        return None;
    };
    Some(Event::CancelAsked { reason: reason.clone() })
}

/// Whether a host may have a part in a run that is known here without it: only if the same bytes that started it name the host.
fn joins(known: &RunRow, told: &RunRow, host: &Host, content: &v1::OrderContent) -> Result<(), String> {
    if known.runbook_digest != told.runbook_digest {
        return Err("another host has a run of another runbook under this id".to_owned());
    }
    let names =
        |start: &v1::Signed| Start::decode(&start.bytes).is_ok_and(|start| start.hosts.contains(host));
    match &content.start {
        _ if known.hosts.contains(host) && known.start == told.start => Ok(()),
        Some(start) if known.start == told.start && names(start) => Ok(()),
        Some(_) | None => {
            Err("the run is another host's, and what started it does not name this one".to_owned())
        }
    }
}

impl Desk<'_> {
    /// Takes up everything a host knows of one of its runs.
    pub(super) fn told_again(&mut self, run: RunId, host: &Host, told: v1::ToldAgain, over: Option<&Over>) {
        let Ok(content) = v1::OrderContent::decode(&told.order[..]) else {
            return tracing::warn!(%host, %run, "A host told again of a run with an order that cannot be read.");
        };
        if content.run != run.to_string()
            || content.host != host.as_str()
            || content.segment > SEGMENT_HIGHEST
        {
            return tracing::warn!(%host, %run, "A host told again of a run with the order of another.");
        }
        // What this host told just before has ended it: there is no more to tell.
        if self.has_ended(run) {
            return;
        }
        let cancelled = told.reports.iter().any(cancels);
        let known = self.model.host_runs.get(&(run, host.clone()));
        if known.is_none_or(|row| row.told == Some(false) || self.ended_unheard(row, content.segment))
            && let Err(why) = self.adopt(run, host, &content, &Told { over, cancelled })
        {
            return tracing::warn!(%host, %run, why, "A run that only its host knows is not taken in.");
        }
        let is_over = told.reports.iter().any(|report| {
            report.segment == content.segment
                && matches!(report.what, Some(v1::report::What::SegmentEnded(_)))
        });
        // A pause holds before anything is done, and the end of one lets go on from where the run stands after all of it.
        let pause = told.reports.iter().filter_map(pause_of).next_back();
        let (pause, resumption) = (pause.filter(|pause| pause.on), pause.filter(|pause| !pause.on));
        self.hear_pause(run, host, pause);
        if pause.is_none() && resumption.is_none() && self.machine(run, host).is_some_and(|it| it.pause.on) {
            self.host_event(run, host, Event::PauseTold { on: false, count: 0 });
        }
        let Some(before) = self.machine(run, host).filter(|machine| machine.ended().is_none()) else {
            return;
        };
        let newest = (content.segment, digest(Tag::Order, &told.order));
        let Some(machine) = self.hear_again(run, host, &before, newest, told.looks, told.reports) else {
            return;
        };
        // What was to be sent after its last order was done at the time, or was not: nobody knows.
        let machine = match self.gate_before(run, host).filter(|_| machine.segment != before.segment) {
            Some(gate) => machine.unsent_after(content.segment, &gate),
            None => machine,
        };
        let (moved, ended) = (machine != before, machine.ended().is_some());
        // An order that the host has not taken on yet is still what a run waits for that has not moved.
        if moved {
            self.close_orders(run, host);
        }
        if !is_over && !ended {
            self.keep_order(run, host, &content, told.order);
        }
        if moved {
            self.go_on(run, host, machine, told.unheard);
        }
        if cancelled && moved {
            self.cancel_elsewhere(run, host);
        }
        self.hear_pause(run, host, resumption);
    }

    /// A host has taken on another order under the number of one that we have sent since this controller was restored: that is
    /// what it carries out. Whether it has.
    pub(super) fn has_taken_on_another(&mut self, run: RunId, host: &Host, report: &v1::Report) -> bool {
        let Some(v1::report::What::Accepted(accepted)) = &report.what else { return false };
        let ours = self.model.orders.get(&(run, host.clone(), report.segment));
        let is_ours =
            ours.is_none_or(|ours| ours.accepted_at.is_some() || ours.digest.0[..] == accepted.digest[..]);
        if accepted.digest.is_empty() || is_ours || !self.may_know_more(host) {
            return false;
        }
        let Some(machine) = self.machine(run, host).filter(|machine| machine.segment == report.segment)
        else {
            return false;
        };
        let gate = self.gate_before(run, host);
        let next = machine.overtaken(accepted.looks, gate.as_deref());
        self.change(Change::OrderClosed { run, host: host.clone(), segment: report.segment });
        if next != machine {
            self.go_on(run, host, next, false);
        }
        true
    }

    /// Whether a host run ended here after this controller was restored, and before its host could tell that it had gone on. Once:
    /// what is taken in again is known to have been told.
    fn ended_unheard(&self, row: &HostRunRow, segment: u32) -> bool {
        let ended = row.machine.ended().is_some() && row.told.is_none() && segment > row.machine.segment;
        ended && self.ended_since_restore(&row.host, row.ended_at)
    }

    /// Whether something of a host ended when this controller had been restored, and the host could still know more. A store that
    /// was restored has a gap in its numbers; that no host can make up.
    fn ended_since_restore(&self, host: &Host, ended_at: Option<At>) -> bool {
        let ahead = self.model.agents.get(host).and_then(|agent| agent.ahead);
        let within = |ahead: Ahead| {
            ended_at.is_some_and(|at| at >= ahead.since() && at < ahead.until.plus(REMEMBERED))
        };
        self.model.last_event > GAP && ahead.is_some_and(within)
    }

    /// The step before which people were asked last.
    pub(super) fn gate_before(&self, run: RunId, host: &Host) -> Option<String> {
        let gate = self.model.host_runs.get(&(run, host.clone()))?.gate?;
        let leaf = self.model.gates.get(&gate)?.leaves.iter().find(|leaf| leaf.host == *host)?;
        Some(leaf.from.clone())
    }

    fn machine(&self, run: RunId, host: &Host) -> Option<HostRun> {
        self.model.host_runs.get(&(run, host.clone())).map(|row| row.machine.clone())
    }

    /// Whether it is paused there, by the last that the host was told.
    fn hear_pause(&mut self, run: RunId, host: &Host, paused: Option<v1::Paused>) {
        let Some(v1::Paused { on, count }) = paused else { return };
        if self.machine(run, host).is_none_or(|machine| machine.ended().is_some()) {
            return;
        }
        if !self.pause_known(run, host, on) {
            self.change(Change::PauseConfirmed { run, host: host.clone(), on });
        }
        self.host_event(run, host, Event::PauseTold { on, count });
    }

    /// Lets the machine hear the rest, and keeps what is to be kept. `newest`: the order that the host accepted last; `looks`: the
    /// segments that only looked.
    fn hear_again(
        &mut self,
        run: RunId,
        host: &Host,
        before: &HostRun,
        newest: (u32, Digest),
        looks: Vec<u32>,
        reports: Vec<v1::Report>,
    ) -> Option<HostRun> {
        let runbook = self.model.runs.get(&run)?.runbook_digest;
        let cancelled = reports.iter().any(cancels);
        let looks: BTreeSet<u32> = looks.into_iter().filter(|look| *look <= SEGMENT_HIGHEST).collect();
        let mut machine = before.clone();
        let (number, digest) = newest;
        let ours = self.model.orders.get(&(run, host.clone(), number));
        if number == machine.segment && ours.is_some_and(|ours| ours.digest != digest) {
            let gate = self.gate_before(run, host);
            machine = machine.overtaken(looks.contains(&number), gate.as_deref());
        }
        for report in reports {
            if report.segment > machine.segment && looks.contains(&report.segment) {
                machine = machine.looks(report.segment);
            }
            if report.segment > SEGMENT_HIGHEST || report.what.is_none() || pause_of(&report).is_some() {
                continue;
            }
            let heard = hear(About { run, host, runbook }, report);
            for change in heard.changes {
                let other = matches!(&change, Change::Planned { plan, .. } if self.other_plan(run, host, plan.digest));
                // Those of a run that was over are closed, and were taken on when they were.
                let old = matches!(&change, Change::OrderAccepted { segment, .. } if !self.model.orders.contains_key(&(run, host.clone(), *segment)));
                if !other && !old {
                    self.hear_of_step(change);
                }
            }
            // People had asked for it before the host stopped.
            let asked = heard.event.as_ref().filter(|_| cancelled).and_then(stopped);
            for event in asked.into_iter().chain(heard.event) {
                if let Ok((next, _done_at_the_time)) = machine.apply(&event) {
                    machine = next;
                }
            }
        }
        Some(machine)
    }

    /// Does what there is to do where the run stands now. `unheard`: how it came there nobody was told.
    fn go_on(&mut self, run: RunId, host: &Host, machine: HostRun, unheard: bool) {
        let Some(row) = self.model.host_runs.get(&(run, host.clone())) else { return };
        let gate =
            row.gate.and_then(|id| self.model.gates.get(&id)).filter(|gate| gate.state == GateState::Open);
        let gate = gate.map(|gate| gate.id);
        if row.remediated_at.is_none() && (machine.effects || machine.segment > 1) {
            // Guards count it.
            self.change(Change::Admitted { run, host: host.clone() });
        }
        let state = machine.state.clone();
        let waits = matches!(state, State::Waiting(Wait::Gate { .. }));
        if let Some(gate) = gate.filter(|_| !waits) {
            let reason = "its host went on, before this controller was restored".to_owned();
            self.change(Change::GateClosed { gate, state: GateState::Closed, reason });
        }
        let reason = match &state {
            State::Ended(how) => how.reason.clone(),
            State::Created
            | State::Diagnosing
            | State::Planned { .. }
            | State::Remediating
            | State::Waiting(_)
            | State::Verifying { .. }
            | State::Undoing
            | State::Cancelling { .. } => "as its host tells it".to_owned(),
        };
        self.change(Change::Moved { run, host: host.clone(), machine, reason });
        match state {
            State::Planned { .. } => self.ask_guards(run, host),
            State::Waiting(Wait::Gate { from, .. }) if gate.is_none() => {
                self.open_gate(run, host, &from, None)
            }
            State::Waiting(Wait::Resolve { path, cancelled, .. }) => {
                let title = format!("{path} on {host}: a person must look");
                let text = format!("then: {}", look(run, host, &path, cancelled));
                let (kind, run, host) = ("resolve-wanted", Some(run), Some(host));
                self.notify(Notice { kind, title, run, host, text: &text, ..Notice::default() });
            }
            State::Ended(how) => self.had_ended(run, host, &how, unheard),
            State::Waiting(Wait::Gate { .. } | Wait::Wave { .. } | Wait::Window { .. })
            | State::Created
            | State::Diagnosing
            | State::Remediating
            | State::Verifying { .. }
            | State::Undoing
            | State::Cancelling { .. } => {}
        }
    }

    /// The order that the host carries out is the one of the outbox.
    fn keep_order(&mut self, run: RunId, host: &Host, content: &v1::OrderContent, bytes: bytes::Bytes) {
        let segment = content.segment;
        let digest = digest(Tag::Order, &bytes);
        let known = self.model.orders.get(&(run, host.clone(), segment));
        if known
            .is_some_and(|row| row.digest == digest && row.accepted_at.is_some() && row.closed_at.is_none())
        {
            return;
        }
        self.change(Change::OrderIssued(Box::new(OrderRow {
            run,
            host: host.clone(),
            segment,
            digest,
            content: Blob::new(bytes),
            after_shared: false,
            issued_at: self.now,
            not_after: At(content.not_after_ms),
            accepted_at: Some(self.now),
            closed_at: None,
        })));
    }

    /// Takes in a run that only its host knows, as its order says; or one that is known, and ended here before this host could tell its part.
    fn adopt(
        &mut self,
        run: RunId,
        host: &Host,
        content: &v1::OrderContent,
        told: &Told,
    ) -> Result<(), String> {
        let ahead = self.model.agents.get(host).and_then(|row| row.ahead);
        let Some(ahead) = ahead.filter(|ahead| ahead.runs > 0) else {
            return Err("nothing says that this store has lost any".to_owned());
        };
        let known = self.model.host_runs.get(&(run, host.clone())).cloned();
        let strange = known.is_none();
        let was = || told.over?.parts.hosts.iter().find(|row| row.host == *host).cloned();
        let before = known.or_else(was);
        if strange && !self.may_adopt(host) {
            // Said once of all that it tells: it may make up as many as it likes.
            if ahead.missed == 0 {
                self.change(Change::Missed { run, host: host.clone() });
            }
            self.effect(Effect::Missed);
            return Err(format!(
                "{MOST_OPEN} such runs are open on it; it is asked again when half of them are over"
            ));
        }
        let read =
            fettle_runbooks::read(&content.runbook).map_err(|_| "its runbook cannot be read".to_owned())?;
        let started = self.started(run, host, content, read.runbook.digest());
        let (origin, mode) = match &started {
            Some(started) => {
                let mode = match started.start().until {
                    Until::Plan => Mode::Diagnose,
                    Until::End => Mode::Auto,
                };
                (Origin::Person(started.person().to_owned()), mode)
            }
            // How far the policy of that time let it go cannot be told: what it has not begun yet waits for people.
            None => (Origin::Alert(format!("that only {host} knows of")), Mode::Approve),
        };
        // What a person signed says where else it runs; whoever is not connected yet is heard later.
        let mut hosts: Vec<Host> = started.iter().flat_map(|it| it.start().hosts.iter().cloned()).collect();
        if hosts.is_empty() {
            hosts.push(host.clone());
        }
        let of = started.as_ref().and_then(|started| started.start().of.clone());
        let of =
            of.map(|of| (Earlier { run: of.run, how: of.how, reason: of.reason }, self.root(of.run, host)));
        let (row, mut rows) = begin(Beginning {
            id: run,
            runbook: read.runbook.name(),
            digest: read.runbook.digest(),
            bytes: content.runbook.clone(),
            certificates: &content.certificates,
            certified: false,
            inputs: content.inputs.clone().into_iter().collect(),
            origin,
            start: content.start.clone(),
            incident: None,
            signal: None,
            mode,
            hosts,
            of,
            now: self.now,
        });
        if told.over.is_some_and(|over| over.told && !self.ended_since_restore(host, over.ended_at)) {
            return Err("it was over before this controller was restored".to_owned());
        }
        let known_here = told.over.is_some() || self.model.runs.contains_key(&run);
        let row = match self.model.runs.get(&run).or(told.over.map(|over| &over.parts.run)) {
            None => row,
            Some(known) => {
                joins(known, &row, host, content)?;
                // What it was part of and is closed since, is closed: that does not change with it.
                let incident = known.incident.filter(|id| self.model.incidents.contains_key(id));
                let signal = known.signal.filter(|id| self.model.signals.contains_key(id));
                let mut known = RunRow { ended_at: None, incident, signal, ..known.clone() };
                if !known.hosts.contains(host) {
                    known.hosts.push(host.clone());
                }
                rows.retain(|row| row.host == *host);
                known
            }
        };
        let (title, text) = (
            format!("{} on {host} was adopted", row.runbook),
            match known_here {
                false => format!(
                    "this controller did not know of {run}, as after a restore from a backup; {host} did. Others may follow: fettle run list"
                ),
                true => format!(
                    "this controller had given up the part of {host} in {run}, which knows more of it. Others may follow: fettle run list"
                ),
            },
        );
        for row in &mut rows {
            row.told = Some(false);
            let before = before.as_ref().filter(|before| before.host == row.host);
            if let Some(before) = before {
                // Of one that was over its host says whether it is paused.
                if !strange {
                    row.machine.pause = before.machine.pause.clone();
                }
                (row.found, row.remediated_at) = (before.found.clone(), before.remediated_at);
                row.root = before.root.or(row.root);
            }
            // A cancel that it has not confirmed yet stays asked.
            if let Some(before) = before.filter(|it| matches!(it.machine.state, State::Cancelling { .. })) {
                row.machine = before.machine.clone();
            } else if (row.host == *host || told.cancelled)
                && let Ok((machine, _sent_at_the_time)) = row.machine.apply(&Event::Started)
            {
                row.machine = machine;
            }
        }
        let others: Vec<Host> =
            rows.iter().map(|row| row.host.clone()).filter(|other| other != host).collect();
        let last = self.model.adopted_at();
        self.close_orders(run, host);
        self.change(Change::RunCreated { run: Box::new(row), hosts: rows });
        // What is known already stays so: of its other hosts, and of its steps.
        if let Some(Over { parts, .. }) = told.over {
            let others = parts.hosts.iter().filter(|row| row.host != *host).cloned().map(Row::HostRun);
            others.chain(parts.steps.iter().cloned().map(Row::Step)).for_each(|row| self.model.insert(row));
        }
        self.change(Change::Adopted { run, host: host.clone() });
        if !told.cancelled {
            for other in &others {
                // One that has it already refuses the second order, which ends nothing.
                self.host_event(run, other, Event::Started);
            }
        }
        if last.is_none_or(|at| self.now >= at.plus(TELL_AGAIN)) {
            self.notify(Notice {
                kind: "adopted",
                title,
                run: Some(run),
                host: Some(host),
                text: &text,
                ..Notice::default()
            });
        }
        Ok(())
    }

    /// Whether another run that only this host knows may be taken in.
    pub(super) fn may_adopt(&self, host: &Host) -> bool {
        self.model.adopted_open(host) < MOST_OPEN
    }

    /// A run on the host is over: if some that it told of were not taken in and there is room again, it is sent away, and tells all
    /// of it again when it is back.
    pub(super) fn hear_the_rest(&mut self, host: &Host) {
        let Some(agent) = self.model.agents.get(host).filter(|agent| agent.connected) else { return };
        if agent.ahead.is_none_or(|ahead| ahead.missed == 0) || self.model.adopted_open(host) > MOST_OPEN / 2
        {
            return;
        }
        let (host, epoch) = (host.clone(), agent.epoch);
        let reason = "it is to tell of the runs that were not taken in".to_owned();
        self.change(Change::AgentGone { host: host.clone(), epoch, reason });
        self.effect(Effect::Detach(host));
    }

    /// A host says that people cancelled the run, or had it closed: what this store has lost of that is asked of its other hosts
    /// again. Of no host that cannot have missed it: a host in wrong hands must not stop others.
    fn cancel_elsewhere(&mut self, run: RunId, host: &Host) {
        let of_run = self.model.runs.get(&run).map(|row| row.hosts.clone()).unwrap_or_default();
        let others = of_run.into_iter().filter(|other| other != host).filter(|other| {
            let row = self.model.host_runs.get(&(run, other.clone()));
            row.is_some_and(|row| {
                (row.told == Some(false) || self.may_know_more(other)) && row.machine.ended().is_none()
            })
        });
        let others: Vec<Host> = others.collect();
        for other in others {
            let reason = format!("it was cancelled before this controller was restored, as {host} tells it");
            self.host_event(run, &other, Event::CancelAsked { reason });
        }
    }

    /// Whether a host may yet tell of a run that this store has lost, or has lost something of.
    pub(super) fn may_tell_of(&self, run: RunId, host: &Host) -> bool {
        let untold = self.model.host_runs.get(&(run, host.clone())).and_then(|row| row.told) == Some(false);
        let ahead = self.model.agents.get(host).and_then(|row| row.ahead);
        let of_before =
            |ahead: Ahead| self.model.runs.get(&run).is_some_and(|row| row.created_at < ahead.since());
        untold || self.may_know_more(host) && ahead.is_some_and(of_before)
    }

    pub(super) fn may_know_more(&self, host: &Host) -> bool {
        let ahead = self.model.agents.get(host).and_then(|row| row.ahead);
        ahead.is_some_and(|ahead| self.now < ahead.until.plus(REMEMBERED))
    }

    /// The first of the runs that a run goes on from, as far as it is known.
    fn root(&self, run: RunId, host: &Host) -> RunId {
        self.model.host_runs.get(&(run, host.clone())).and_then(|row| row.root).unwrap_or(run)
    }

    /// Who started it, if a person's signature says so.
    fn started(
        &self,
        run: RunId,
        host: &Host,
        content: &v1::OrderContent,
        runbook: fettle_runbooks::id::Digest,
    ) -> Option<Started> {
        let signed = Signed::try_from(content.start.clone()?).ok()?;
        let roster = self.in_force.roster.as_ref()?;
        let started = Start::verify(&signed, &roster.roster, from_ms(self.now.0)).ok()?;
        let inputs = content.inputs.clone().into_iter().collect();
        started.covers(run, runbook, &inputs, host).ok()?;
        Some(started)
    }
}
