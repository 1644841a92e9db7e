//! What goes wrong, and when: drawn from the seed before the first step.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chance::Chance;

/// Something that goes wrong, or ends. Hosts are numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// `/var` fills up on a host: not a fault of Fettle's, but why it is there.
    Fills(usize),
    /// As soon as a step acts on a host: this. Moments at which a death matters are short.
    Aimed(usize, Box<Fault>),
    /// No message passes between a host and the controller.
    Cut(usize),
    /// None from the host to the controller; or, false, none the other way.
    CutOneWay(usize, bool),
    /// Messages pass again.
    Mended(usize),
    /// Messages between a host and the controller take so long.
    Slow(usize, Duration),
    /// So often a message between a host and the controller comes twice; seldom enough: never.
    Twice(usize, f64),
    /// What an agent says from now on, for so long, is held back; its connection is gone then, and it arrives so much later,
    /// when the agent has connected again.
    Late(usize, Duration, Duration),
    /// No message passes between people and the controller.
    PeopleCut,
    /// They pass again.
    PeopleMended,
    /// An agent is stopped, and started again.
    AgentRestarts(usize),
    /// An agent is killed.
    AgentDies(usize),
    /// An agent is killed at its nth operation from now on.
    AgentDiesAt(usize, u32),
    /// An agent is killed and not started again.
    AgentHeld(usize),
    /// It may be started again.
    AgentLet(usize),
    /// A host loses power.
    HostOff(usize),
    /// It does so at the nth operation of its agent from now on.
    HostOffAt(usize, u32),
    /// It does so when a step that acts, or the shim above it, has come one stage further for the nth time.
    HostOffAtStage(usize, u32),
    /// It gets it back.
    HostOn(usize),
    /// A host's disk is full.
    HostFull(usize),
    /// It has room again.
    HostRoom(usize),
    /// The next fsync of an agent fails.
    HostSyncFails(usize),
    /// Writes of an agent's journal take so long.
    HostSlow(usize, Duration),
    /// Somebody sets a host's clock.
    HostClock(usize, i64),
    /// An agent's journal is deleted.
    JournalLost(usize),
    /// A host's disk is kept aside.
    HostCopied(usize),
    /// … and put back.
    HostPutBack(usize),
    /// The supervisors of a host's steps are killed.
    ShimsDie(usize),
    /// A supervisor is killed when it, or the step below it, has come one stage further for the nth time.
    ShimDiesAt(usize, u32),
    /// A copy of a host's disk runs on another machine.
    Twin(usize),
    /// The controller is killed, and started again after a while.
    ControllerDies(Duration),
    /// The same, and nobody is told that its connections are gone.
    ControllerOff(Duration),
    /// The same as the first, while its nth commit from now on is under way.
    ControllerDiesAt(u32, Duration),
    /// The controller's disk is full.
    ControllerFull,
    /// It has room again.
    ControllerRoom,
    /// The next commit fails; whether it took effect.
    CommitFails(bool),
    /// The next commit takes so long.
    CommitStalls(Duration),
    /// Somebody sets the controller's clock.
    ControllerClock(i64),
    /// The controller's store is backed up.
    BackUp,
    /// The controller dies, and is started again on the backup.
    Restore(Duration),
}

/// Faults by their moments.
pub(crate) type Plan = BTreeMap<(Duration, usize), Fault>;

/// The seed's faults: for `hosts` hosts, in the time that is given.
pub(crate) fn plan(seed: u64, hosts: usize, time: Duration) -> Plan {
    let mut chance = Chance::new(seed, "faults");
    let mut plan = Plan::new();
    let mut add = |at: Duration, fault: Fault| {
        let number = plan.len();
        plan.insert((at, number), fault);
    };
    let end = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    // The trouble that Fettle is for.
    for host in 0..hosts {
        for _ in 0..chance.among(1..4) {
            add(chance.ms(4_000..end), Fault::Fills(host));
        }
    }
    // Some seeds are calm, most have a few faults, some have many.
    let count = *chance.one(&[0, 2, 4, 7, 10, 16]);
    // What makes hosts or the controller forget excuses them from some rules, and so stays rare.
    let wild = chance.happens(0.4);
    let aimed = |chance: &mut Chance, host: usize, fault: Fault| match chance.happens(0.7) {
        true => Fault::Aimed(host, Box::new(fault)),
        false => fault,
    };
    for _ in 0..count {
        let at = chance.ms(3_000..end);
        let host = chance.among(0..hosts as u64) as usize;
        let until = (at + chance.ms(500..40_000)).min(time - Duration::from_secs(1));
        match chance.among(0..if wild { 32 } else { 26 }) {
            0 => {
                add(at, Fault::Cut(host));
                add(until, Fault::Mended(host));
            }
            1 => {
                add(at, Fault::CutOneWay(host, chance.happens(0.5)));
                add(until, Fault::Mended(host));
            }
            2 => {
                add(at, Fault::Slow(host, chance.ms(200..4_000)));
                add(until, Fault::Slow(host, Duration::ZERO));
            }
            3 => {
                add(at, Fault::PeopleCut);
                add(until, Fault::PeopleMended);
            }
            4 => match chance.happens(0.5) {
                true => add(at, aimed(&mut chance, host, Fault::AgentRestarts(host))),
                false => add(at, aimed(&mut chance, host, Fault::AgentDies(host))),
            },
            5 | 6 => add(at, Fault::AgentDiesAt(host, chance.among(1..40) as u32)),
            7 => {
                add(at, Fault::AgentHeld(host));
                add(until, Fault::AgentLet(host));
            }
            8 => {
                add(at, aimed(&mut chance, host, Fault::HostOff(host)));
                add(until, Fault::HostOn(host));
            }
            9 => {
                add(at, Fault::HostFull(host));
                add(until, Fault::HostRoom(host));
            }
            10 => add(at, Fault::HostSyncFails(host)),
            11 => {
                add(at, Fault::HostSlow(host, chance.ms(10..3_000)));
                add(until, Fault::HostSlow(host, Duration::ZERO));
            }
            12 => add(at, Fault::HostClock(host, clock(&mut chance))),
            13 => add(at, aimed(&mut chance, host, Fault::ShimsDie(host))),
            14 | 15 => add(at, Fault::ControllerDies(chance.ms(200..15_000))),
            16 => add(at, Fault::ControllerOff(chance.ms(200..15_000))),
            17 => {
                add(at, Fault::ControllerFull);
                add(until, Fault::ControllerRoom);
            }
            18 => add(at, Fault::CommitFails(chance.happens(0.5))),
            19 => match chance.happens(0.5) {
                true => add(at, Fault::CommitStalls(chance.ms(1_000..10_000))),
                false => add(at, Fault::ControllerClock(clock(&mut chance))),
            },
            20 => {
                add(at, Fault::Twice(host, *chance.one(&[0.05, 0.3, 1.0])));
                add(until, Fault::Twice(host, 0.0));
            }
            21 => {
                let late = Fault::Late(host, chance.ms(200..6_000), chance.ms(500..15_000));
                add(at, aimed(&mut chance, host, late));
            }
            22 => add(at, Fault::ControllerDiesAt(chance.among(0..40) as u32, chance.ms(200..15_000))),
            23 => add(at, Fault::HostOffAt(host, chance.among(1..40) as u32)),
            24 => add(at, Fault::HostOffAtStage(host, chance.among(0..12) as u32)),
            25 => add(at, Fault::ShimDiesAt(host, chance.among(0..12) as u32)),
            26 | 27 => add(at, aimed(&mut chance, host, Fault::JournalLost(host))),
            28 | 29 => {
                add(at, Fault::HostCopied(host));
                add(until, aimed(&mut chance, host, Fault::HostPutBack(host)));
            }
            30 => add(at, aimed(&mut chance, host, Fault::Twin(host))),
            _ => {
                add(at, Fault::BackUp);
                add(until, Fault::Restore(chance.ms(200..8_000)));
            }
        }
    }
    plan
}

/// How far somebody sets a clock, milliseconds: mostly little, sometimes far, either way.
fn clock(chance: &mut Chance) -> i64 {
    let most = *chance.one(&[1_500, 20_000, 120_000]);
    let by = chance.among(0..most) as i64;
    if chance.happens(0.5) { by } else { -by }
}
