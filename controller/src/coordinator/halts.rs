//! People pause a run, let it go on, or let a step run again that may have run.

use fettle_proto::signed;
use fettle_proto::v1;
use fettle_runbooks::id::{GateId, Host, RunId};
use fettle_runbooks::run::{Event, Resolution, State, Unclear, Wait};
use prost::Message as _;

use super::desk::{Desk, Effect};
use super::handle::Session;
use crate::dispatch::{self, Message};
use crate::model::Change;
use crate::model::row::{HostRunRow, OrderRow, RunRow};
use crate::problem::Problem;

/// So many hosts are named where a person named another.
const SOME: usize = 20;

/// Whether a run is to be paused, where, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    /// Which run.
    pub run: RunId,
    /// Only there; absent: on all its hosts.
    pub host: Option<Host>,
    /// Paused, or not any more.
    pub on: bool,
    /// Why it is paused, for the record.
    pub reason: String,
}

impl Desk<'_> {
    /// Pauses a run, or lets it go on.
    pub(super) fn halt(&mut self, session: &Session, halt: Halt) -> Result<(), Problem> {
        let Halt { run, host, on, reason } = halt;
        let row = self.steered(session, run)?;
        if on && reason.trim().is_empty() {
            return Err(Problem::invalid("reason-missing", "say why: whoever finds it paused must know"));
        }
        let wanted = match &host {
            None => row.hosts.clone(),
            Some(host) if row.hosts.contains(host) => vec![host.clone()],
            Some(host) => return Err(no_host_of(row, host)),
        };
        let there = |host: &Host| self.model.host_runs.get(&(run, host.clone()));
        if let (Some(host), Some(how)) = (&host, host.as_ref().and_then(|host| there(host)?.machine.ended()))
        {
            let message = format!("{run} on {host} has ended: {}", how.ending.word());
            return Err(Problem::conflict("run-ended", message).next(&format!("fettle run show {run}")));
        }
        let go_on: Vec<Host> =
            wanted.into_iter().filter(|host| there(host).is_some_and(HostRunRow::goes_on)).collect();
        if go_on.is_empty() {
            let place = host.map(|host| format!(" on {host}")).unwrap_or_default();
            let message = format!(
                "{run}{place} is cancelled: nothing of it begins any more, and nothing lets it go on"
            );
            return Err(Problem::conflict("run-cancelled", message).next(&format!("fettle run show {run}")));
        }
        let turns = |host: &Host| there(host).is_some_and(|row| row.machine.pause.on != on);
        let hosts: Vec<Host> = go_on.into_iter().filter(turns).collect();
        if hosts.is_empty() {
            let so = if on { "is paused already" } else { "is not paused" };
            let place = host.map(|host| format!(" on {host}")).unwrap_or_default();
            return Err(Problem::conflict("nothing-to-pause", format!("{run}{place} {so}"))
                .next(&format!("fettle run show {run}")));
        }
        let by = session.person.clone();
        let why = format!("{by}: {reason}");
        self.change(Change::PauseAsked { run, hosts: hosts.clone(), on, by, reason });
        for host in hosts {
            let event = if on { Event::PauseAsked { reason: why.clone() } } else { Event::ResumeAsked };
            self.host_event(run, &host, event);
        }
        Ok(())
    }

    /// Tells a host whether a run is paused there, if it is connected.
    pub(super) fn tell_pause(&mut self, run: RunId, host: &Host) {
        let Some(row) = self.model.host_runs.get(&(run, host.clone())) else { return };
        let message = pause(row);
        self.effect(Effect::Tell(host.clone(), message));
    }

    /// What a host has not confirmed yet.
    pub(super) fn pauses_owed(&self, host: &Host) -> Vec<Message> {
        self.model.open_on(host).filter(|row| !row.machine.pause.is_confirmed()).map(pause).collect()
    }

    /// Whether an order may go out: one that acts waits for the end of a pause.
    pub(super) fn may_go(&self, order: &OrderRow) -> bool {
        let row = self.model.host_runs.get(&(order.run, order.host.clone()));
        row.is_none_or(|row| !row.machine.pause.on) || !acts(order)
    }

    /// Sends the orders that are not over and may go out. The host knows which of them it has: one that it had taken on, and lost with its
    /// journal while the run was paused, it was not sent when it connected.
    pub(super) fn send_again(&mut self, run: RunId, host: &Host) {
        let Some(row) = self.model.runs.get(&run) else { return };
        let open = self.model.orders_open(host).into_iter();
        let open = open.filter(|order| order.run == run && self.may_go(order));
        let messages: Vec<Message> = open.map(|order| dispatch::message(row, order)).collect();
        for message in messages {
            self.effect(Effect::Tell(host.clone(), message));
        }
    }

    /// The attempt that is to be followed by another one, as people are asked about it: in the boot that the host is in now.
    pub(super) fn again(&self, host: &Host, path: &str, attempt: u32) -> signed::Again {
        let boot = self.model.agents.get(host).map(|row| row.boot_id.clone()).unwrap_or_default();
        signed::Again { path: path.to_owned(), attempt, boot }
    }

    /// A person wants a step to run again whose outcome is unknown: opens a gate for that.
    pub(super) fn run_again(
        &mut self,
        session: &Session,
        run: RunId,
        host: &Host,
        reason: String,
    ) -> Result<(), Problem> {
        let machine = self.model.host_runs.get(&(run, host.clone())).map(|row| &row.machine);
        let Some((machine, State::Waiting(Wait::Resolve { path, attempt, cancelled }))) =
            machine.map(|machine| (machine, &machine.state))
        else {
            return Err(nothing_to_resolve(run, host));
        };
        if *cancelled {
            let message = format!(
                "{run} is cancelled on {host}: nothing of it starts there any more; say what you found"
            );
            return Err(Problem::conflict("run-cancelled", message));
        }
        if let Some(Unclear { path, .. }) = &machine.again {
            let message = format!("people are asked already whether {path} runs again on {host}");
            let problem = Problem::conflict("gate-open", message);
            let gate = self.model.host_runs.get(&(run, host.clone())).and_then(|row| row.gate);
            return Err(match gate {
                Some(gate) => problem.next(&format!("fettle approve {gate}")),
                None => problem,
            });
        }
        let (path, attempt) = (path.clone(), *attempt);
        // A gate that cannot be opened is told to who asks, and changes nothing.
        let id = GateId::new(self.world.uuid());
        self.gate_row(id, run, host, &path, Some(attempt))
            .map_err(|reason| Problem::conflict("gate-impossible", reason))?;
        let by = session.person.clone();
        self.change(Change::AgainAsked { run, host: host.clone(), path, attempt, by, reason });
        self.host_event(run, host, Event::Resolved(Resolution::Again));
        Ok(())
    }
}

/// A person means a step at which nobody need look.
pub(super) fn nothing_to_resolve(run: RunId, host: &Host) -> Problem {
    let message = format!("{run} on {host} does not wait for anybody to look");
    Problem::conflict("nothing-to-resolve", message).next(&format!("fettle run show {run}"))
}

/// A person means a host that has no part in a run.
pub(super) fn no_host_of(run: &RunRow, host: &Host) -> Problem {
    let hosts: Vec<&str> = run.hosts.iter().take(SOME).map(Host::as_str).collect();
    let more = if run.hosts.len() > SOME { ", …" } else { "" };
    let what = format!("host `{host}` among those of {}: {}{more}", run.id, hosts.join(", "));
    Problem::not_found(what).next(&format!("fettle run show {}", run.id))
}

fn acts(order: &OrderRow) -> bool {
    let content = v1::OrderContent::decode(order.content.bytes());
    match content.ok().and_then(|content| content.work) {
        Some(v1::order_content::Work::Diagnose(_) | v1::order_content::Work::Verify(_)) => false,
        Some(v1::order_content::Work::Remediate(_)) | None => true,
    }
}

/// The message that says whether a run is paused.
fn pause(row: &HostRunRow) -> Message {
    let pause = &row.machine.pause;
    let pause = v1::Pause { run: row.run.to_string(), on: pause.on, count: pause.asked };
    v1::ToAgent { what: Some(v1::to_agent::What::Pause(pause)) }.into()
}
