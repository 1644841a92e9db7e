//! Signals come in: known or new, joined to an incident, and perhaps the start of a run.

use std::time::Duration;

use fettle_proto::v1;
use fettle_runbooks::id::{IncidentId, RunId, SignalId};
use fettle_runbooks::run::Event;

use super::desk::Desk;
use super::handle::Receipt;
use crate::incident::{self, Readings};
use crate::model::row::{IncidentRow, Origin, SignalRow};
use crate::model::{Change, Over};
use crate::policy::Mode;
use crate::report;
use crate::run::{self, Beginning, begin};
use crate::signal::{Answer, Signal, Status, Verdict};
use crate::trigger::{Chosen, Judged, choose};
use crate::world::At;

/// A trail that long says enough of other starts.
const TRAIL: usize = 64;

/// A source with several senders may deliver an alert's beginning so long after its end.
const ECHO: Duration = Duration::from_secs(60);

impl Desk<'_> {
    /// Takes one signal in.
    pub(super) fn signal(&mut self, signal: Signal) -> Receipt {
        let echo = self.echo(&signal);
        let over = echo.filter(|_| signal.status == Status::Resolved);
        let over = over.map(|over| Receipt { signal: over.signal, new: false, run: over.run });
        if let Some(known) = self.known(&signal) {
            let receipt = Receipt { signal: known.id, new: false, run: known.run };
            let was_late = known.late_until.is_some();
            if known.signal.status == Status::Firing && barred(&known.signal) && !barred(&signal) {
                return Receipt { run: self.no_hearsay(known.id, &signal).or(receipt.run), ..receipt };
            }
            if known.signal.status != signal.status {
                self.turned(receipt.signal, &signal);
            } else {
                self.change(Change::SignalRepeated { signal: receipt.signal });
            }
            return over.filter(|_| was_late).unwrap_or(receipt);
        }
        if let Some(over) = over {
            return over;
        }
        if let Some(receipt) = self.same_alert(&signal) {
            return receipt;
        }
        let (judged, go) = match echo {
            Some(over) => (self.late(over), None),
            None => self.judge(&signal),
        };
        let id = SignalId::new(self.world.uuid());
        let row = SignalRow {
            id,
            signal: signal.clone(),
            repeats: 0,
            seen_at: Some(signal.received_at).filter(|_| signal.status == Status::Firing),
            late_until: echo.map(|over| over.at.plus(ECHO)),
            incident: None,
            run: None,
            host: judged.host.clone(),
            trail: judged.verdicts.clone(),
        };
        if signal.status == Status::Resolved || echo.is_some() {
            self.change(Change::SignalReceived(Box::new(row)));
            return Receipt { signal: id, new: true, run: None };
        }
        let run = self.begin_or_join(&signal, id, &judged, go, |incident| {
            Change::SignalReceived(Box::new(SignalRow { incident, ..row }))
        });
        Receipt { signal: id, new: true, run }
    }

    /// Opens an incident for a signal that fires, or joins one, and starts what it asks for. `entered` makes the change by which
    /// the signal comes in, given the incident if it is a new one.
    fn begin_or_join(
        &mut self,
        signal: &Signal,
        id: SignalId,
        judged: &Judged,
        go: Option<Chosen>,
        entered: impl FnOnce(Option<IncidentId>) -> Change,
    ) -> Option<RunId> {
        let key = incident::key(signal, judged.host.as_ref());
        self.end_earlier(&key, signal);
        let incident = match self.model.open_incident(&key).map(|row| row.id) {
            Some(incident) => {
                self.change(entered(None));
                self.change(Change::IncidentJoined { incident, signal: Some(id), run: None });
                incident
            }
            None => {
                let incident = IncidentId::new(self.world.uuid());
                self.change(entered(Some(incident)));
                let row = self.incident_row(incident, id, key, signal, judged);
                self.change(Change::IncidentOpened(Box::new(row)));
                if self.model.signals.get(&id).is_some_and(|row| row.incident.is_none()) {
                    self.change(Change::IncidentJoined { incident, signal: Some(id), run: None });
                }
                incident
            }
        };
        go.map(|chosen| self.start_by_alert(chosen, signal, id, incident))
    }

    /// A firing that was thought to be a late message, and of which nobody said since that it is over.
    pub(super) fn late_due(&mut self, id: SignalId) {
        let Some(row) = self.model.signals.get(&id) else { return };
        let due = row.late_until.is_some_and(|at| self.now >= at) && row.signal.status == Status::Firing;
        if !due {
            return;
        }
        let signal = row.signal.clone();
        let other = self
            .model
            .firing(&signal.source, &signal.fingerprint)
            .find(|other| other.id != id && other.late_until.is_none())
            .map(|other| other.id);
        if let Some(other) = other {
            let reason = format!("the same alert fires as {other}, so this one is nothing more");
            let verdicts = vec![Verdict::new(self.now, "dedupe", Answer::No, reason)];
            self.change(Change::Judged { signal: id, verdicts });
            let (status, ends_at) = (Status::Resolved, Some(self.now));
            self.change(Change::SignalTurned { signal: id, status, ends_at });
            return;
        }
        let (mut judged, go) = self.judge(&signal);
        let reason = "it still fires a minute after its end, so it was no late message";
        judged.verdicts.insert(0, Verdict::new(self.now, "dedupe", Answer::Yes, reason));
        self.take(id, &signal, judged, go);
    }

    /// What a source said of itself is an alert about a host by now.
    fn no_hearsay(&mut self, id: SignalId, signal: &Signal) -> Option<RunId> {
        let (mut judged, go) = self.judge(signal);
        let reason = "what was known of it was about its source; now it is about a host";
        judged.verdicts.insert(0, Verdict::new(self.now, "dedupe", Answer::Yes, reason));
        self.take(id, signal, judged, go)
    }

    /// Takes a signal that is kept already for an alert.
    fn take(&mut self, id: SignalId, signal: &Signal, judged: Judged, go: Option<Chosen>) -> Option<RunId> {
        let verdicts = judged.verdicts.clone();
        self.change(Change::Judged { signal: id, verdicts });
        let taken =
            Change::SignalTaken { signal: id, said: Box::new(signal.clone()), host: judged.host.clone() };
        let incident = self.model.signals.get(&id).and_then(|row| row.incident);
        if let Some(incident) = incident {
            self.change(taken);
            return go.map(|chosen| self.start_by_alert(chosen, signal, id, incident));
        }
        self.begin_or_join(signal, id, &judged, go, |_| taken)
    }

    /// The signal that this one says something more of.
    fn known(&self, signal: &Signal) -> Option<&SignalRow> {
        self.model.signal_by_key(&signal.key()).filter(|known| !fires_anew(&known.signal, signal))
    }

    /// The firing signals that this one is about although it names another start, each with the reason. A source says another
    /// start after it was restarted, or when it is one of several that watch the same.
    fn other_starts(&self, signal: &Signal) -> Vec<(SignalId, String)> {
        let start =
            |signal: &Signal| signal.starts_at.map_or_else(|| "unknown".to_owned(), |at| at.to_string());
        let firing = self.model.firing(&signal.source, &signal.fingerprint);
        let about = firing.filter_map(|row| {
            let known = &row.signal;
            let (said, first) = (start(signal), start(known));
            let why = match signal.status {
                // What began after that end is not over by it.
                Status::Resolved if known.starts_at > signal.ends_at.or(Some(signal.received_at)) => {
                    return None;
                }
                Status::Resolved => format!(
                    "resolved under the start {said}, it fired under {first}: the same alert, so it is over"
                ),
                // It was still firing then, so it had not ended in between.
                Status::Firing if signal.starts_at > row.seen_at.or(Some(known.received_at)) => return None,
                Status::Firing => {
                    format!("fires under the start {said} as well, and fired all along: the same trouble")
                }
            };
            Some((row.id, why))
        });
        about.collect()
    }

    /// Takes in what is said of a known alert under another start.
    fn same_alert(&mut self, signal: &Signal) -> Option<Receipt> {
        let about = self.other_starts(signal);
        let first = about.first().and_then(|(id, _)| self.model.signals.get(id))?;
        let receipt = Receipt { signal: first.id, new: false, run: first.run };
        for (id, why) in about {
            let told =
                self.model.signals.get(&id).is_some_and(|row| {
                    row.trail.len() >= TRAIL || row.trail.iter().any(|it| it.reason == why)
                });
            if !told {
                let verdicts = vec![Verdict::new(self.now, "dedupe", Answer::No, why)];
                self.change(Change::Judged { signal: id, verdicts });
            }
            match signal.status {
                Status::Resolved => self.turned(id, signal),
                Status::Firing => self.change(Change::SignalRepeated { signal: id }),
            }
        }
        Some(receipt)
    }

    /// The same alert with a later start: the earlier ones are over, whether or not anybody was told. Otherwise an incident
    /// whose "resolved" was lost on the way would never close.
    fn end_earlier(&mut self, key: &str, signal: &Signal) {
        let Some(starts_at) = signal.starts_at else { return };
        let firing = self.model.open_incident(key).into_iter().flat_map(|row| row.firing.iter());
        let earlier = firing.filter_map(|id| self.model.signals.get(id)).filter(|row| {
            let known = &row.signal;
            known.source == signal.source
                && known.fingerprint == signal.fingerprint
                && known.starts_at.is_some_and(|start| start < starts_at)
        });
        let earlier: Vec<SignalId> = earlier.map(|row| row.id).collect();
        for id in earlier {
            let ends_at = Some(starts_at);
            self.change(Change::SignalTurned { signal: id, status: Status::Resolved, ends_at });
            let reason = "the same alert fires with a later start, so this one is over";
            let verdicts = vec![Verdict::new(self.now, "dedupe", Answer::No, reason)];
            self.change(Change::Judged { signal: id, verdicts });
        }
    }

    /// The signal that is over and of which this one only says so again, or says late what was so before. An alert that fires
    /// for longer than that after its end is another one, whatever its source says of its start.
    fn echo(&self, signal: &Signal) -> Option<Over> {
        let soon = |over: &Over| signal.starts_at.is_some() && self.now < over.at.plus(ECHO);
        if let Some(over) = self.model.settled_signal(&signal.key()) {
            return (signal.status == Status::Resolved || soon(&over)).then_some(over);
        }
        // Under another start, by one of several that watch the same: over as well, if it began before that end.
        let last = self.model.settled_alert(&signal.source, &signal.fingerprint)?;
        let began_before = signal.starts_at.is_some_and(|start| start <= last.ended);
        (signal.status == Status::Firing && began_before && soon(&last)).then_some(last)
    }

    /// What is said of a beginning that arrives after the end.
    fn late(&self, over: Over) -> Judged {
        let reason = format!(
            "it fires again though it began before its end, and {} was over at {}: taken for a late message, unless it still \
             fires a minute after that",
            over.signal, over.at
        );
        let verdicts = vec![Verdict::new(self.now, "dedupe", Answer::No, reason)];
        Judged { verdicts, ..Judged::default() }
    }

    fn incident_row(
        &self,
        id: IncidentId,
        signal_id: SignalId,
        key: String,
        signal: &Signal,
        judged: &Judged,
    ) -> IncidentRow {
        let source = self.in_force.policy.sources.get(&signal.source);
        let rules = self.in_force.rules.get(&signal.source);
        let learnt = rules.and_then(|rules| rules.onset(&signal.name, &signal.labels));
        let onset = incident::onset(signal, learnt, source.and_then(|source| source.declared));
        let place = judged.host.as_ref().map(|host| format!(" on {host}")).unwrap_or_default();
        IncidentRow {
            id,
            key,
            title: format!("{}{place}", signal.name),
            host: judged.host.clone(),
            opened_at: self.now,
            closed: None,
            signals: vec![signal_id],
            firing: [signal_id].into(),
            runs: Vec::new(),
            readings: Readings {
                onset: onset.at,
                uncertainty: onset.uncertainty,
                confidence: onset.confidence,
                learnt_from: onset.learnt_from,
                detected: signal.received_at,
                investigated: None,
                remediated: None,
                closed: None,
            },
            acted: false,
            unhelped: Default::default(),
            verified_at: None,
            look_again_at: None,
        }
    }

    /// What a signal that is not known asks for, with every reason, and what of it goes ahead.
    fn judge(&self, signal: &Signal) -> (Judged, Option<Chosen>) {
        let now = self.now;
        if signal.status == Status::Resolved {
            let reason = "resolved, and nothing known fires under this fingerprint";
            let mut verdicts = remarks(signal, now);
            verdicts.push(Verdict::new(now, "dedupe", Answer::No, reason));
            return (Judged { verdicts, ..Judged::default() }, None);
        }
        let enrolled = |host: &_| self.enrolled(host);
        let mut judged = choose(signal, &self.in_force.library, &self.in_force.policy, &enrolled, now);
        judged.verdicts.insert(0, Verdict::new(now, "dedupe", Answer::Yes, "not seen before"));
        judged.verdicts.splice(0..0, remarks(signal, now));
        let Some(chosen) = judged.chosen.clone() else { return (judged, None) };
        if barred(signal) {
            return (judged, None);
        }
        let name = chosen.entry.runbook.name();
        let (mode, why) = self.in_force.policy.mode(name, &signal.name, &chosen.host);
        let goes = if mode == Mode::Observe { Answer::No } else { Answer::Yes };
        judged.verdicts.push(Verdict::new(now, "mode", goes, why));
        // Of another mount, or another unit, is not the same.
        let about = run::about(&chosen.inputs);
        let open = self.model.open_on(&chosen.host).find(|row| row.runbook == name && row.about == about);
        match open {
            Some(row) => {
                let reason = format!("{} of {name} with these inputs is open on {}", row.run, row.host);
                judged.verdicts.push(Verdict::new(now, "guard one run", Answer::No, reason));
                (judged, None)
            }
            None if mode == Mode::Observe => (judged, None),
            None => (judged, Some(chosen)),
        }
    }

    /// What taking the signal in would record, changing nothing.
    pub(super) fn test_signal(&self, signal: Signal) -> v1::Signal {
        let no = |reason: String| vec![Verdict::new(self.now, "dedupe", Answer::No, reason)];
        let other = self.other_starts(&signal).into_iter().next();
        let (trail, incident, host) = match (self.known(&signal), self.echo(&signal), other) {
            (Some(row), ..) => {
                let reason = format!("known as {}, {}", row.id, row.signal.status.word());
                (no(reason), row.incident, row.host.clone())
            }
            (None, Some(over), _) if signal.status == Status::Resolved => {
                (no(format!("known as {}, which is over", over.signal)), None, None)
            }
            (None, _, Some((id, why))) => {
                let row = self.model.signals.get(&id);
                let (incident, host) =
                    (row.and_then(|row| row.incident), row.and_then(|row| row.host.clone()));
                (no(format!("known as {id}: {why}")), incident, host)
            }
            (None, Some(over), None) => (self.late(over).verdicts, None, None),
            (None, None, None) => {
                let judged = self.judge(&signal).0;
                (judged.verdicts, None, judged.host)
            }
        };
        let id = SignalId::new(uuid::Uuid::nil());
        let row = SignalRow {
            id,
            signal,
            repeats: 0,
            seen_at: None,
            late_until: None,
            incident,
            run: None,
            host,
            trail,
        };
        v1::Signal { id: String::new(), ..report::signal(&row, true) }
    }

    fn start_by_alert(
        &mut self,
        chosen: Chosen,
        signal: &Signal,
        signal_id: SignalId,
        incident: IncidentId,
    ) -> RunId {
        let id = RunId::new(self.world.uuid());
        let Chosen { entry, host, inputs, mode } = chosen;
        let (run, hosts) = begin(Beginning {
            id,
            runbook: entry.runbook.name(),
            digest: entry.runbook.digest(),
            bytes: entry.bytes.clone(),
            certificates: &entry.certificates,
            certified: entry.certified,
            inputs,
            origin: Origin::Alert(signal.name.clone()),
            start: None,
            incident: Some(incident),
            signal: Some(signal_id),
            mode,
            hosts: vec![host.clone()],
            of: None,
            now: self.now,
        });
        self.change(Change::RunCreated { run: Box::new(run), hosts });
        self.change(Change::IncidentJoined { incident, signal: None, run: Some(id) });
        self.host_event(id, &host, Event::Started);
        id
    }

    fn turned(&mut self, id: SignalId, signal: &Signal) {
        self.change(Change::SignalTurned { signal: id, status: signal.status, ends_at: signal.ends_at });
        let Some(incident) = self.model.signals.get(&id).and_then(|row| row.incident) else { return };
        let Some(row) = self.model.incidents.get(&incident) else { return };
        if signal.status == Status::Firing {
            let reason =
                "it fires again under the start it had: the same trouble, for which nothing more is started";
            let verdicts = vec![Verdict::new(self.now, "dedupe", Answer::No, reason)];
            self.change(Change::Judged { signal: id, verdicts });
            return;
        }
        if !row.firing.is_empty() {
            return;
        }
        for run in row.runs.clone() {
            for host in self.model.runs.get(&run).map(|row| row.hosts.clone()).unwrap_or_default() {
                self.host_event(run, &host, Event::AlertResolved);
            }
        }
        self.settle(incident);
    }

    /// Closes an incident whose signals are all resolved and of which nothing runs any more.
    pub(super) fn settle(&mut self, incident: IncidentId) {
        let Some(row) = self.model.incidents.get(&incident) else { return };
        let running =
            row.runs.iter().any(|run| self.model.runs.get(run).is_some_and(|run| run.ended_at.is_none()));
        if row.closed.is_some() || !row.firing.is_empty() || running {
            return;
        }
        let verified = row.readings.remediated.filter(|_| row.unhelped.is_empty());
        let reason = match (verified, row.acted, row.runs.is_empty()) {
            (Some(_), ..) => "the symptom is verified gone and the alert is resolved",
            (None, true, _) if row.verified_at.is_some() && row.unhelped.is_empty() => {
                "the alert is resolved; the symptom was verified gone before it fired again, and not since"
            }
            (None, true, _) if row.verified_at.is_some() => {
                "the alert is resolved, though not every run could verify that its symptom is gone"
            }
            (None, true, _) => "the alert is resolved, though no run could verify that the symptom is gone",
            (None, false, false) => {
                "the alert resolved by itself: the host was looked at, and nothing was changed on it"
            }
            (None, false, true) => "the alert resolved by itself before anything ran",
        };
        if verified.is_none() {
            for signal in row.signals.clone() {
                let verdicts = vec![Verdict::new(self.now, "incident", Answer::No, reason)];
                self.change(Change::Judged { signal, verdicts });
            }
        }
        self.change(Change::IncidentClosed { incident, reason: reason.to_owned() });
    }
}

/// What its intake has to say of a signal.
fn remarks(signal: &Signal, now: At) -> Vec<Verdict> {
    let each = signal.remarks.iter();
    each.map(|remark| Verdict::new(now, "intake", remark.answer, remark.text.clone())).collect()
}

/// Whether nothing is started for it, because of how it arrived.
fn barred(signal: &Signal) -> bool {
    signal.remarks.iter().any(|remark| remark.answer == Answer::No)
}

/// Whether an alert that was over fires anew. A start tells the two apart; where the source gives none, only the
/// "resolved" between them can.
fn fires_anew(known: &Signal, signal: &Signal) -> bool {
    signal.starts_at.is_none() && known.status == Status::Resolved && signal.status == Status::Firing
}
