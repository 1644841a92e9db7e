//! A host run moves: its machine says what to do, and this is where that is done.

use fettle_proto::signed::{Signed, words};
use fettle_proto::v1;
use fettle_runbooks::id::{GateId, Host, RunId};
use fettle_runbooks::run::{Effect as Asked, Ending, Event, Final, Held, State, Wait, Work};

use super::desk::{Desk, Effect};
use super::handle::RosterInForce;
use super::notices::Told;
use crate::dispatch::{self, Message, Needed};
use crate::evidence;
use crate::model::row::{GateRow, GateState, HostRunRow, Leaf, Origin, RunRow};
use crate::model::{Change, Model};
use crate::signal::{Answer, Verdict};
use crate::world::At;
use crate::{gate, guard};

impl Desk<'_> {
    /// Something happened to a host run.
    pub(super) fn host_event(&mut self, run: RunId, host: &Host, event: Event) {
        self.host_event_because(run, host, event, "");
    }

    fn host_event_because(&mut self, run: RunId, host: &Host, event: Event, because: &str) {
        let Some(row) = self.model.host_runs.get(&(run, host.clone())) else { return };
        let (machine, effects) = match row.machine.apply(&event) {
            Ok(moved) => moved,
            Err(illegal) => {
                tracing::warn!(%run, %host, %illegal, "Something happened to a run that cannot happen there.");
                let text = format!("ignored: {illegal}");
                self.change(Change::Noted { run, host: host.clone(), text });
                return;
            }
        };
        let was_taken = self.model.taken_by(host);
        if machine != row.machine {
            let why = reason(&machine.state, &effects);
            let marks = row.machine.but_for_marks(&machine) && why.is_none();
            let reason = why.unwrap_or(because).to_owned();
            let host = host.clone();
            self.change(match marks {
                true => Change::Marked { run, host, machine },
                false => Change::Moved { run, host, machine, reason },
            });
        }
        let barred = matches!(event, Event::Barred { .. });
        for effect in effects {
            self.carry_out(run, host, effect, barred);
        }
        if was_taken == Some(run) && self.model.taken_by(host) != was_taken {
            self.reconsider(host);
        }
    }

    fn carry_out(&mut self, run: RunId, host: &Host, effect: Asked, barred: bool) {
        match effect {
            Asked::SendSegment { segment, work } => self.send_segment(run, host, segment, &work),
            Asked::AskGuards => self.ask_guards(run, host),
            Asked::OpenGate { from } => self.open_gate(run, host, &from, None),
            Asked::OpenAgain(unclear) => self.open_gate(run, host, &unclear.path, Some(unclear.attempt)),
            Asked::AskGate => self.begin_approved(run, host),
            Asked::SendAgain => self.send_again(run, host),
            Asked::AskPause => self.tell_pause(run, host),
            Asked::CloseGate { reason } => self.close_gate(run, host, &reason),
            Asked::AskCancel { reason } => self.effect(Effect::Tell(host.clone(), cancel(run, reason))),
            Asked::AskResolve { path, reason, .. } => {
                let title = format!("{path} on {host}: a person must look");
                let cancelled = self.rows(run, host).is_some_and(|(_, row)| !row.goes_on());
                let text = format!("{reason}; then: {}", look(run, host, &path, cancelled));
                let (kind, run, host, text) = ("resolve-wanted", Some(run), Some(host), text.as_str());
                self.notify(Told { kind, title, run, host, text, ..Told::default() });
            }
            Asked::End(how) => self.end(run, host, &how, barred),
        }
    }

    fn rows(&self, run: RunId, host: &Host) -> Option<(&RunRow, &HostRunRow)> {
        rows(self.model, run, host)
    }

    fn send_segment(&mut self, run: RunId, host: &Host, segment: u32, work: &Work) {
        let Some((run_row, host_row)) = rows(self.model, run, host) else { return };
        let grant = match work {
            Work::Remediate { granted: true, .. } => self.grant(host_row),
            Work::Remediate { granted: false, .. } | Work::Diagnose | Work::Verify => None,
        };
        let needed = Needed {
            host,
            segment,
            work,
            plan: host_row.plan.as_ref().map(|plan| plan.digest),
            also_from: gate::also_from(run_row.mode, &self.in_force.policy, &run_row.runbook, host),
            grant,
            now: self.now,
        };
        let order = dispatch::order(run_row, needed, self.digests);
        let message = dispatch::message(run_row, &order);
        self.close_orders(run, host);
        self.effect(Effect::Tell(host.clone(), message));
        self.change(Change::OrderIssued(Box::new(order)));
    }

    /// The grant of an approved gate, with the approvals that count under the roster in force now.
    fn grant(&self, row: &HostRunRow) -> Option<(fettle_proto::grant::Grant, At)> {
        let gate = self.model.gates.get(&row.gate?)?;
        let leaf = gate.leaves.iter().find(|leaf| leaf.host == row.host)?;
        let leaf = fettle_proto::signed::Leaf {
            agent: leaf.host.clone(),
            plan: leaf.plan,
            nonce: leaf.nonce.clone(),
        };
        let roster = self.in_force.roster.as_deref().map(|RosterInForce { roster, .. }| roster)?;
        let approvals = gate.decisions.iter().filter(|decision| decision.approves).filter_map(|decision| {
            let signed = Signed::try_from(v1::Signed::from(&decision.signed)).ok()?;
            fettle_proto::signed::Approval::verify(&signed, roster).ok().map(|_| signed)
        });
        Some((gate::grant(&gate.request.bytes(), &leaf, approvals.collect()), gate.start_by))
    }

    /// Takes the orders of a host run out of the outbox.
    pub(super) fn close_orders(&mut self, run: RunId, host: &Host) {
        let open: Vec<u32> = self
            .model
            .orders_open(host)
            .into_iter()
            .filter(|order| order.run == run)
            .map(|order| order.segment)
            .collect();
        for segment in open {
            self.change(Change::OrderClosed { run, host: host.clone(), segment });
        }
    }

    pub(super) fn ask_guards(&mut self, run: RunId, host: &Host) {
        let Some((run_row, host_row)) = self.rows(run, host) else { return };
        // They are asked when it is resumed; and a host that is revoked is given nothing to do.
        if host_row.machine.pause.on || !self.enrolled(host) {
            return;
        }
        let in_library = self.in_force.library.entries.get(&run_row.runbook);
        let own = match in_library.filter(|entry| entry.runbook.digest() == run_row.runbook_digest) {
            Some(entry) => entry.runbook.guard().clone(),
            // It was checked when the run was started.
            None => fettle_runbooks::read(&run_row.source.bytes())
                .map(|read| read.runbook.guard().clone())
                .unwrap_or_default(),
        };
        let remediations = self.model.remediations(&run_row.runbook, host, run);
        let before: Vec<At> = remediations.iter().map(|before| before.at).collect();
        let same = remediations.iter().rev().find(|before| before.about == host_row.about);
        let asked = guard::Asked {
            run,
            runbook: &run_row.runbook,
            own: &own,
            host,
            before: &before,
            last: same.map(|before| before.at),
            taken_by: self.model.taken_by(host),
            failed: self.model.failed_in_a_row(&run_row.runbook, host, self.now),
            by_hand: matches!(run_row.origin, Origin::Person(_)),
            now: self.now,
        };
        let (outcome, verdicts) = guard::judge(&asked, &self.in_force.policy);
        let waiting = matches!(host_row.machine.state, State::Waiting(_));
        let reasons = guard::reasons(&verdicts);
        let (machine, told) = (host_row.machine.clone(), reasons == host_row.reason);
        if let Some(signal) = run_row.signal.filter(|_| !waiting || outcome != guard::Outcome::Wait) {
            self.change(Change::Judged { signal, verdicts });
        }
        match outcome {
            guard::Outcome::Pass => {
                self.change(Change::Admitted { run, host: host.clone() });
                self.host_event(run, host, Event::Admitted);
            }
            guard::Outcome::Wait if waiting && told => {}
            // It waits for another than before.
            guard::Outcome::Wait if waiting => {
                self.change(Change::Moved { run, host: host.clone(), machine, reason: reasons });
            }
            guard::Outcome::Wait => {
                self.host_event_because(run, host, Event::Held(Held::Wave), &reasons);
            }
            guard::Outcome::Refuse => self.host_event(run, host, Event::Barred { reason: reasons }),
        }
    }

    /// A host is free again, or another run's: whoever waits for it is asked, the oldest first.
    pub(super) fn reconsider(&mut self, host: &Host) {
        let open = self.model.open_on(host);
        let waiting: Vec<RunId> =
            open.filter(|row| row.machine.state.wait().is_some()).map(|row| row.run).collect();
        for run in waiting {
            let Some(row) = self.model.host_runs.get(&(run, host.clone())) else { continue };
            match row.machine.state.wait() {
                Some(Wait::Wave { .. } | Wait::Window { .. }) => self.ask_guards(run, host),
                Some(Wait::Gate { .. } | Wait::Resolve { .. }) => self.begin_approved(run, host),
                None => {}
            }
        }
    }

    /// Goes on behind an approved gate, unless it is paused or another run changes the host now; then as soon as that is over.
    pub(super) fn begin_approved(&mut self, run: RunId, host: &Host) {
        use fettle_runbooks::run::Checking;
        let Some(row) = self.model.host_runs.get(&(run, host.clone())) else { return };
        let approved = row
            .gate
            .and_then(|gate| self.model.gates.get(&gate))
            .is_some_and(|gate| gate.state == GateState::Approved);
        let waits = match row.machine.state.wait() {
            Some(Wait::Gate { checking: None, .. }) => !row.machine.pause.on,
            Some(Wait::Gate { checking: Some(Checking::Undecided), .. }) => true,
            Some(Wait::Resolve { .. }) => row.machine.again.is_some() && !row.machine.pause.on,
            Some(
                Wait::Gate { checking: Some(Checking::Approved), .. }
                | Wait::Wave { .. }
                | Wait::Window { .. },
            )
            | None => false,
        };
        let free = self.enrolled(host) && self.model.taken_by(host).is_none_or(|other| other == run);
        if approved && free && waits {
            self.host_event(run, host, Event::GateApproved);
        }
    }

    /// `again`: the attempt that may have run, when people are asked to let the step run again.
    pub(super) fn open_gate(&mut self, run: RunId, host: &Host, from: &str, again: Option<u32>) {
        let id = GateId::new(self.world.uuid());
        let row = match self.gate_row(id, run, host, from, again) {
            Ok(row) => row,
            Err(reason) => {
                self.host_event(run, host, Event::GateExpired { reason });
                return;
            }
        };
        let needs: Vec<String> = row.factors.iter().map(gate::describe).collect();
        let to = first_told(&row);
        let title = match again {
            None => format!("{} on {host} waits for approval", row.runbook),
            Some(_) => format!("{} on {host}: run {from} again, which may have run?", row.runbook),
        };
        let text = format!(
            "{from} needs {}; decide by {}; then: fettle approve {id}",
            needs.join(" and "),
            row.decide_by
        );
        self.change(Change::GateOpened(Box::new(row)));
        let (kind, run, gate, host) = ("gate-opened", Some(run), Some(id), Some(host));
        self.notify(Told { kind, title, run, gate, host, to: &to, text: &text, ..Told::default() });
    }

    pub(super) fn gate_row(
        &self,
        id: GateId,
        run: RunId,
        host: &Host,
        from: &str,
        again: Option<u32>,
    ) -> Result<GateRow, String> {
        let Some((run_row, host_row)) = self.rows(run, host) else {
            return Err("the run is not known".to_owned());
        };
        let plan = host_row.plan.as_ref().ok_or("there is no plan to approve")?;
        let roster = self.roster().map_err(|problem| problem.to_string())?;
        let certificates: Vec<Signed> = run_row
            .certificates
            .iter()
            .filter_map(|signed| Signed::try_from(v1::Signed::from(signed)).ok())
            .collect();
        let source = run_row.source.bytes();
        let now = words::from_ms(self.now.0);
        let certified = fettle_proto::signed::certified(&source, &certificates, &roster.roster, now).ok();
        let started = match (&run_row.origin, &run_row.start) {
            (Origin::Person(person), Some(start)) => {
                let digest =
                    fettle_proto::signed::digest(fettle_proto::signed::Tag::Start, &start.bytes.bytes());
                Some((person.as_str(), digest))
            }
            (Origin::Person(_) | Origin::Alert(_), _) => None,
        };
        let bytes = plan.bytes.bytes();
        let asked = gate::Asked {
            gate: id,
            run,
            host,
            plan: &bytes,
            from,
            certified: certified.is_some(),
            author: certified.as_ref().map(|certified| certified.author()),
            started,
            mode: run_row.mode,
            again: again.map(|attempt| self.again(host, from, attempt)),
            now: self.now,
        };
        let opened = gate::open(&asked, &roster.roster, &self.in_force.policy)
            .map_err(|refusal| format!("{}: {}", refusal.code.as_str(), refusal.message))?;
        Ok(GateRow {
            id,
            run,
            incident: run_row.incident,
            runbook: run_row.runbook.clone(),
            request: crate::model::row::Blob::new(opened.request),
            digest: opened.digest,
            leaves: vec![Leaf {
                host: host.clone(),
                plan: opened.plan,
                nonce: opened.nonce,
                from: from.to_owned(),
            }],
            factors: opened.factors,
            excluded: opened.excluded,
            opened_at: self.now,
            decide_by: opened.decide_by,
            start_by: opened.start_by,
            escalate: opened.escalate,
            escalated_at: None,
            state: GateState::Open,
            reason: String::new(),
            closed_at: None,
            decisions: Vec::new(),
        })
    }

    fn close_gate(&mut self, run: RunId, host: &Host, reason: &str) {
        let gate = self.model.host_runs.get(&(run, host.clone())).and_then(|row| row.gate);
        let Some(id) =
            gate.filter(|id| self.model.gates.get(id).is_some_and(|gate| gate.state == GateState::Open))
        else {
            return;
        };
        self.change(Change::GateClosed { gate: id, state: GateState::Closed, reason: reason.to_owned() });
        self.tell_decided(id);
    }

    /// Tells the people of a gate what became of it.
    pub(super) fn tell_decided(&mut self, id: GateId) {
        let Some(row) = self.model.gates.get(&id) else { return };
        let (run, host) = (row.run, row.leaves.first().map(|leaf| leaf.host.clone()));
        let title = format!("{}: the gate is {}", row.runbook, row.state.word());
        let text = row.reason.clone();
        let (kind, run, gate, host) = ("gate-decided", Some(run), Some(id), host.as_ref());
        self.notify(Told { kind, title, run, gate, host, text: &text, ..Told::default() });
    }

    /// `barred`: a guard ended it.
    fn end(&mut self, run: RunId, host: &Host, how: &Final, barred: bool) {
        self.over(run, host, how, barred, true);
    }

    /// Its host has told again that it ended: people were told at the time, unless it was `unheard`.
    pub(super) fn had_ended(&mut self, run: RunId, host: &Host, how: &Final, unheard: bool) {
        self.over(run, host, how, false, unheard);
    }

    fn over(&mut self, run: RunId, host: &Host, how: &Final, barred: bool, tell: bool) {
        self.close_orders(run, host);
        // One that may tell of it again says itself how its steps ended.
        if tell && !self.may_tell_of(run, host) {
            self.close_steps(run, host);
        }
        let Some(row) = self.model.runs.get(&run) else { return };
        let (incident, signal) = (row.incident, row.signal);
        if let Some(incident) = incident {
            self.investigated(incident);
            if how.ending == Ending::Verified {
                let look_again_at = Some(self.now.plus(self.in_force.policy.incidents.still_firing_after));
                self.change(Change::Remediated { incident, look_again_at });
            }
        }
        if let Some(signal) = signal.filter(|_| evidence::wanted(how.ending)) {
            let reason = format!("{run} on {host} ended {}: {}", how.ending.word(), how.reason);
            let verdicts = vec![Verdict::new(self.now, "run", Answer::No, reason)];
            self.change(Change::Judged { signal, verdicts });
        }
        if tell {
            self.notify_ended(run, host, how, barred);
        }
        if self.model.open_hosts(run) == 0 {
            self.change(Change::RunEnded { run });
        }
        self.hear_the_rest(host);
        if let Some(incident) = incident {
            self.settle(incident);
        }
    }

    /// Takes the second clock's reading, if it has not been taken.
    pub(super) fn investigated(&mut self, incident: fettle_runbooks::id::IncidentId) {
        let open = self.model.incidents.get(&incident).is_some_and(|row| row.readings.investigated.is_none());
        if open {
            self.change(Change::Investigated { incident });
        }
    }
}

/// Why a host run is where it came to, where its machine says.
fn reason<'a>(state: &'a State, effects: &'a [Asked]) -> Option<&'a str> {
    match state {
        State::Ended(how) => Some(&how.reason),
        State::Cancelling { reason, .. } => Some(reason),
        State::Waiting(Wait::Resolve { .. }) => effects.iter().find_map(|effect| match effect {
            Asked::AskResolve { reason, .. } => Some(reason.as_str()),
            Asked::SendSegment { .. }
            | Asked::AskGuards
            | Asked::OpenGate { .. }
            | Asked::CloseGate { .. }
            | Asked::AskCancel { .. }
            | Asked::OpenAgain(_)
            | Asked::AskGate
            | Asked::SendAgain
            | Asked::AskPause
            | Asked::End(_) => None,
        }),
        State::Waiting(Wait::Gate { .. } | Wait::Wave { .. } | Wait::Window { .. })
        | State::Created
        | State::Diagnosing
        | State::Planned { .. }
        | State::Remediating
        | State::Verifying { .. }
        | State::Undoing => None,
    }
}

/// What a person types who has looked at a step whose outcome was unknown.
pub(super) fn look(run: RunId, host: &Host, path: &str, cancelled: bool) -> String {
    // Of a run that is cancelled nothing runs again.
    let again = if cancelled { "" } else { " | --run-again" };
    format!(
        "fettle run resolve {run} --host {host} --step {path} (--ran | --did-not-run{again}) --reason '…'"
    )
}

fn rows<'a>(model: &'a Model, run: RunId, host: &Host) -> Option<(&'a RunRow, &'a HostRunRow)> {
    model.runs.get(&run).zip(model.host_runs.get(&(run, host.clone())))
}

/// The message that asks a host for its tombstone.
pub(super) fn cancel(run: RunId, reason: String) -> Message {
    let cancel = v1::Cancel { run: run.to_string(), reason };
    v1::ToAgent { what: Some(v1::to_agent::What::Cancel(cancel)) }.into()
}

/// The groups that are told when a gate opens. Those it escalates to may decide as well, but are told later, unless nobody
/// else can.
fn first_told(gate: &GateRow) -> Vec<String> {
    let later = gate.escalate.as_ref().map(|(_, to)| to.as_slice()).unwrap_or_default();
    let mut told = std::collections::BTreeSet::new();
    for factor in &gate.factors {
        let now: Vec<&String> = factor.from.iter().filter(|group| !later.contains(group)).collect();
        if now.is_empty() { told.extend(&factor.from) } else { told.extend(now) }
    }
    told.into_iter().cloned().collect()
}
