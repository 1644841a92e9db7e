//! Notifications enter the outbox.

use std::time::Duration;

use fettle_runbooks::id::{GateId, Host, IncidentId, RunId};
use fettle_runbooks::run::Final;

use super::desk::Desk;
use crate::evidence::{self, Evidence};
use crate::model::Change;
use crate::model::row::IncidentRow;
use crate::model::row::NotificationRow;
use crate::notify::{FORMAT, Notification, retry};
use crate::signal::{Answer, Verdict};
use crate::world::At;

/// A refusal that goes on is told again in another incident, and not before this.
const TELL_AGAIN: Duration = Duration::from_secs(60 * 60);

/// What there is to tell of a run that ended.
#[derive(Default)]
pub(super) struct Ended {
    ending: &'static str,
    since: Option<At>,
    evidence: Option<Evidence>,
}

/// One notification in the making: the members of [`Notification`], those that do not apply by default.
#[derive(Default)]
pub(super) struct Told<'a> {
    pub(super) kind: &'static str,
    pub(super) title: String,
    pub(super) run: Option<RunId>,
    pub(super) gate: Option<GateId>,
    /// The run's, if not said.
    pub(super) incident: Option<IncidentId>,
    pub(super) host: Option<&'a Host>,
    pub(super) to: &'a [String],
    pub(super) text: &'a str,
    pub(super) ended: Ended,
}

impl Desk<'_> {
    /// Tells how a host run ended, with what people need where they must look. Of guards that go on refusing they are told once;
    /// a refusal of the host itself is another matter each time.
    pub(super) fn notify_ended(&mut self, run: RunId, host: &Host, how: &Final, barred: bool) {
        if self.in_force.policy.notify.is_none() {
            // Then the record must not say that anybody was told.
            return;
        }
        let key = (run, host.clone());
        let Some((row, host_row)) = self.model.runs.get(&run).zip(self.model.host_runs.get(&key)) else {
            return;
        };
        let (incident, signal, runbook) = (row.incident, row.signal, row.runbook.clone());
        let evidence = evidence::wanted(how.ending).then(|| {
            let steps = self.model.steps.range((run, host.clone(), String::new(), 0)..);
            let steps = steps.take_while(|((of, on, ..), _)| *of == run && on == host).map(|(_, step)| step);
            evidence::of(row, host_row, steps)
        });
        if let Some(signal) = signal.filter(|_| barred) {
            if let Some(at) = self.told_of_refusal(&runbook, host, incident) {
                let reason = format!(
                    "people were told at {at} that guards refuse {runbook} on {host}: not again while that goes on"
                );
                let verdicts = vec![Verdict::new(self.now, "notify", Answer::No, reason)];
                self.change(Change::Judged { signal, verdicts });
                return;
            }
            self.change(Change::RefusalTold { run, host: host.clone(), runbook: runbook.clone() });
        }
        let since = incident.and_then(|id| self.model.incidents.get(&id)).map(|row| row.readings.onset);
        let title = format!("{runbook} on {host}: {}", how.ending.word());
        let ended = Ended { ending: how.ending.word(), since, evidence };
        let (kind, text) = ("run-ended", how.reason.as_str());
        self.notify(Told { kind, title, run: Some(run), host: Some(host), text, ended, ..Told::default() });
    }

    /// When people were told that guards refuse this runbook on this host, if that is enough for now.
    fn told_of_refusal(&self, runbook: &str, host: &Host, incident: Option<IncidentId>) -> Option<At> {
        let (at, of) = self.model.agents.get(host)?.tallies.get(runbook)?.told?;
        (of == incident || self.now < at.plus(TELL_AGAIN)).then_some(at)
    }

    /// An incident whose symptom was verified gone a while ago is looked at: does the alert agree?
    pub(super) fn incident_due(&mut self, id: IncidentId) {
        let Some(row) = self.model.incidents.get(&id) else { return };
        let due = row.look_again_at.is_some_and(|at| self.now >= at);
        let Some(verified) = row.verified_at.or(row.readings.remediated).filter(|_| due) else { return };
        let IncidentRow { title, host, mut firing, readings, runs, .. } = row.clone();
        // What began after that is another matter.
        firing.retain(|id| self.model.signals.get(id).is_some_and(|row| row.signal.began() <= verified));
        if firing.is_empty() {
            return;
        }
        self.change(Change::StillFiring { incident: id });
        let text = format!(
            "the symptom was verified gone at {verified}, and the alert still fires: either it is slow to resolve, or it sees something that \
             the runbook's `verify` does not; then: fettle incident show {id}"
        );
        for signal in firing {
            let verdicts = vec![Verdict::new(self.now, "verified", Answer::No, text.clone())];
            self.change(Change::Judged { signal, verdicts });
        }
        let title = format!("{title}: verified, but still firing");
        let ended = Ended { since: Some(readings.onset), ..Ended::default() };
        let (run, host) = (runs.last().copied(), host.as_ref());
        let (kind, incident, text) = ("still-firing", Some(id), text.as_str());
        self.notify(Told { kind, title, run, incident, host, text, ended, ..Told::default() });
    }

    /// Queues a notification, if there is anyone to tell.
    pub(super) fn notify(&mut self, told: Told<'_>) {
        if self.in_force.policy.notify.is_none() {
            return;
        }
        fn word<T: ToString>(value: Option<T>) -> String {
            value.map(|value| value.to_string()).unwrap_or_default()
        }
        let id = self.model.next_notification();
        let Told { kind, title, run, gate, incident, host, to, text, ended } = told;
        let of_run = || self.model.runs.get(&run?)?.incident;
        let incident = incident.or_else(of_run);
        let body = Notification {
            fettle: FORMAT,
            id: id.to_string(),
            kind,
            at: self.now.to_string(),
            title: evidence::plain(&title, 300),
            run: word(run),
            gate: word(gate),
            incident: word(incident),
            host: word(host),
            to: to.to_vec(),
            text: evidence::plain(text, 2000),
            ending: ended.ending,
            since: word(ended.since),
            evidence: ended.evidence,
        };
        let Ok(body) = serde_json::to_string(&body) else { return };
        self.change(Change::NotificationQueued(Box::new(NotificationRow {
            id,
            body,
            created_at: self.now,
            tries: 0,
            next_at: Some(self.now),
            note: String::new(),
        })));
    }

    /// A delivery came to an end.
    pub(super) fn delivered(&mut self, id: u64, result: Result<(), String>) {
        let Some(row) = self.model.notifications.get(&id) else { return };
        let tries = row.tries + 1;
        let (next_at, note) = match result {
            Ok(()) => (None, "delivered".to_owned()),
            Err(why) => match retry(tries, self.now) {
                Some(at) => (Some(at), why),
                None => (None, format!("given up after {tries} tries: {why}")),
            },
        };
        self.change(Change::NotificationTried { id, next_at, note });
    }
}
