//! One seed's story, from the first step to the last.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use fettle_controller::ca::Ca;
use fettle_controller::world::At;
use fettle_runbooks::id::Host;

use crate::cast::{Cast, TOO_FULL};
use crate::chance::Chance;
use crate::check::{Broken, Checker, Left};
use crate::controller::{self, Machine};
use crate::faults::{self, Fault, Plan};
use crate::host::{DiskImage, EPOCH_MS, Ledger, Make, Nature, SimHost};
use crate::people::{self, Acks, Desk};
use crate::seeds::PANICS;
use crate::store::{Disk, Health};
use crate::trace::{self, Tally, Trace, count};

/// Things go wrong for so long.
const TROUBLE: Duration = Duration::from_secs(120);
/// For so long at most a host is off whose power fails while a step acts.
const OFF: Duration = Duration::from_secs(15);
/// Until then, what was held back on its way may still arrive.
const LATEST: Duration = Duration::from_secs(30);
/// When nothing goes wrong any more, everything has ended after so long.
const SETTLED: Duration = Duration::from_secs(15 * 60);

/// After so many records tables and history are held against each other.
const FOLDED: u64 = 150;

/// How a seed went.
pub(crate) struct Told {
    /// The rule that was broken, or what else was wrong.
    pub(crate) wrong: Option<String>,
    /// Lines, and their hash.
    pub(crate) sum: (usize, u64),
    /// The last lines.
    pub(crate) tail: Vec<String>,
    /// How host runs ended.
    pub(crate) endings: BTreeMap<&'static str, usize>,
    /// How often what happened.
    pub(crate) tally: Tally,
    /// How much time it was, virtually.
    pub(crate) took: Duration,
}

/// Tells the story of a seed.
pub(crate) fn tell(seed: u64, trace: &Trace) -> Told {
    let mut stage = Stage::new(seed, trace);
    let wrong = stage.play().err();
    if let Some(wrong) = &wrong {
        trace.say(format_args!("WRONG: {wrong}"));
    }
    Told {
        wrong,
        sum: trace.sum(),
        tail: trace.tail(),
        endings: stage.checker.endings(),
        tally: trace::tally(),
        took: stage.sim.elapsed(),
    }
}

struct Stage {
    sim: turmoil::Sim<'static>,
    controller: Machine,
    hosts: Vec<SimHost>,
    names: Vec<Host>,
    ledger: Ledger,
    heard: usize,
    acks: Acks,
    checker: Checker,
    /// What the disk of a controller that died had wrong.
    wrong: Option<Broken>,
    plan: Plan,
    images: BTreeMap<usize, DiskImage>,
    /// When the controller is to be started again, and on what.
    back: Option<(Duration, bool)>,
    /// For so long a controller is down that dies within a commit.
    down: Duration,
    twins: usize,
    trace: Trace,
    seed: u64,
}

fn told(broken: Broken) -> String {
    format!("{}: {}", broken.rule, broken.how)
}

fn name(host: usize) -> String {
    format!("web-{}", host + 1)
}

impl Stage {
    fn new(seed: u64, trace: &Trace) -> Stage {
        let mut chance = Chance::new(seed, "stage");
        let tick = *chance.one(&[100, 200, 300]);
        let mut sim = turmoil::Builder::new()
            .rng_seed(chance.word())
            .epoch(UNIX_EPOCH + Duration::from_millis(u64::try_from(EPOCH_MS).unwrap_or(0)))
            .simulation_duration(TROUBLE + SETTLED + Duration::from_secs(3600))
            .tick_duration(Duration::from_millis(tick))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(chance.ms(2..150))
            .enable_random_order()
            .tcp_capacity(4096)
            .build();
        let disk = Disk::new(seed, trace.clone());
        let ca = Arc::new(Ca::open(&disk.folder(), At(EPOCH_MS)).expect("a certificate authority"));
        let cast = Arc::new(Cast::new(ca.certificate().to_vec()));
        // Most are small: what goes wrong between hosts shows with three, and every further one has its price.
        let count = *chance.one(&[3, 3, 3, 3, 4, 4, 5, 6, 7, 8]);
        let names: Vec<Host> = (0..count).map(|host| name(host).parse().expect("a name")).collect();
        let mut identities: BTreeMap<String, Host> =
            names.iter().map(|host| (host.to_string(), host.clone())).collect();
        for (number, host) in names.iter().enumerate() {
            identities.insert(format!("twin-{number}"), host.clone());
        }
        let controller = Machine::new(seed, disk, ca, Arc::clone(&cast), identities, trace.clone());
        let running = controller.clone();
        sim.host(controller::NAME, move || running.clone().run());
        let ledger = Ledger::default();
        let nature = Nature {
            takes: Duration::from_millis(50)..Duration::from_millis(*chance.one(&[200, 2_000, 8_000])),
            fails: *chance.one(&[0.0, 0.1, 0.3]),
            hangs: *chance.one(&[0.0, 0.05]),
        };
        let hosts: Vec<SimHost> = names
            .iter()
            .map(|host| {
                let make = Make {
                    machine: host.to_string(),
                    host: host.clone(),
                    labels: BTreeMap::new(),
                    trust: cast.trust.clone(),
                    roster: Some(cast.roster_file()),
                    controller: format!("https://{}:{}", controller::NAME, controller::PORT),
                    seed: chance.word(),
                    nature: nature.clone(),
                };
                let made = SimHost::new(make, ledger.clone());
                made.set_used("/var", 50.0);
                let boots = made.clone();
                sim.host(host.as_str(), move || boots.clone().boot());
                made
            })
            .collect();
        let acks = Acks::default();
        let checker = Checker::new(cast.roster.roster.clone());
        let desk = Rc::new(Desk {
            cast,
            hosts: hosts.clone(),
            names: names.clone(),
            ledger: ledger.clone(),
            acks: acks.clone(),
            trace: trace.clone(),
            busy_until: TROUBLE,
            seed,
        });
        let (at_desk, told) = (Rc::clone(&desk), controller.clone());
        sim.host("people", move || {
            let (desk, told) = (Rc::clone(&at_desk), told.clone());
            async move {
                let sources = (0..desk.names.len())
                    .map(|number| people::source(number, Rc::clone(&desk), told.clone()));
                let all = futures_util::future::try_join_all(sources);
                let ana = people::person("ana", Rc::clone(&desk));
                let ben = people::person("ben", Rc::clone(&desk));
                futures_util::future::try_join3(all, ana, ben).await.map(drop)
            }
        });
        let plan = faults::plan(seed, count, TROUBLE);
        trace.say(format_args!(
            "{count} hosts, a tick of {tick} ms, {} faults, nature {nature:?}",
            plan.len()
        ));
        Stage {
            sim,
            controller,
            hosts,
            names,
            ledger,
            heard: 0,
            acks,
            checker,
            wrong: None,
            plan,
            images: BTreeMap::new(),
            back: None,
            down: Duration::ZERO,
            twins: 0,
            trace: trace.clone(),
            seed,
        }
    }

    fn play(&mut self) -> Result<(), String> {
        let mut quiet_since = None;
        loop {
            self.act();
            self.sim.step().map_err(|error| format!("a simulated machine ended: {error}"))?;
            trace::step(self.sim.elapsed());
            self.look()?;
            let now = self.sim.elapsed();
            if now < TROUBLE {
                continue;
            }
            let since = *quiet_since.get_or_insert_with(|| {
                self.heal();
                now
            });
            if now > since + LATEST && self.is_settled() {
                break;
            }
            if now > since + SETTLED {
                self.checker.must_be_over(SETTLED).map_err(told)?;
                return Err(format!(
                    "liveness: {SETTLED:?} after the last fault not every agent is connected"
                ));
            }
        }
        self.end()
    }

    /// Every symptom gone that anybody asked about, nothing open, everybody there.
    fn is_settled(&self) -> bool {
        self.checker.unfinished().is_empty()
            && self.hosts.iter().all(SimHost::is_up)
            && self
                .names
                .iter()
                .all(|host| self.checker.model().agents.get(host).is_some_and(|row| row.connected))
    }

    fn end(&mut self) -> Result<(), String> {
        self.sim.crash(controller::NAME);
        self.controller.died();
        self.controller.disk.crash();
        self.look()?;
        self.controller.disk.check().map_err(told)?;
        for (number, host) in self.hosts.iter().enumerate() {
            let name = &self.names[number];
            let (alive, why_down) = (host.alive(), host.why_down());
            let left = Left { alive, why_down, boots: host.boots(), epoch: host.epoch() };
            self.checker.left(name, &left).map_err(told)?;
        }
        self.checker.must_be_over(Duration::ZERO).map_err(told)?;
        self.checker.all_kept().map_err(told)
    }

    /// Hears what has happened and holds it against the rules.
    fn look(&mut self) -> Result<(), String> {
        let now = self.sim.elapsed();
        self.checker.at(now);
        if PANICS.load(Ordering::SeqCst) > 0 {
            return Err("panic: a task of a program panicked; the panic is printed".to_owned());
        }
        for (number, host) in self.hosts.iter().enumerate() {
            match host.used_percent("/var") < TOO_FULL {
                true => self.checker.away(&self.names[number], now),
                false => self.checker.there(self.names[number].clone(), now),
            }
        }
        if let Some(broken) = self.wrong.take().or_else(|| self.controller.wrong()) {
            return Err(told(broken));
        }
        let before = self.checker.model().last_event;
        let transactions = self.controller.disk.news();
        for transaction in &transactions {
            for record in &transaction.records {
                self.trace.say(format_args!("durable {}: {:?}", record.number, brief(record)));
            }
            self.checker.committed(transaction).map_err(told)?;
        }
        let entries = self.ledger.after(self.heard);
        for entry in &entries {
            self.trace.say(format_args!(
                "{} ({}, boot {}) {} {} {}: {:?} of {}",
                entry.host,
                entry.machine,
                entry.boot,
                entry.run,
                entry.path,
                entry.attempt,
                entry.what,
                entry.digest
            ));
            self.checker.entry(entry).map_err(told)?;
        }
        self.heard += entries.len();
        for ack in self.acks.news() {
            self.checker.ack(ack).map_err(told)?;
        }
        if !transactions.is_empty() {
            self.checker.at_rest().map_err(told)?;
        }
        // What a commit writes is held against what its events make; all tables are read now and then, and whenever a controller dies.
        if self.checker.model().last_event / FOLDED > before / FOLDED {
            self.controller.disk.check().map_err(told)?;
        }
        Ok(())
    }

    /// Everything that is due now.
    fn act(&mut self) {
        let now = self.sim.elapsed();
        self.hear_of_deaths();
        while let Some(entry) = self.plan.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let number = entry.key().1;
            let fault = entry.remove();
            if let Fault::Aimed(host, _) = &fault
                && self.hosts[*host].alive().is_empty()
            {
                self.plan.insert((now + Duration::from_millis(1), number), fault);
                continue;
            }
            self.do_wrong(fault);
        }
        if let Some((at, on_backup)) = self.back
            && at <= now
        {
            self.back = None;
            let now = At(self.controller.wall.ms());
            if on_backup && let Some(last) = self.controller.disk.restore(now) {
                count("a controller is put back");
                self.trace.say(format_args!("the controller is put back to record {last}"));
                let seen = self.hosts.iter().map(SimHost::epoch);
                self.checker.restored(last, self.names.iter().cloned().zip(seen));
            }
            self.sim.bounce(controller::NAME);
        }
    }

    /// Who died within the last step at a moment of its own.
    fn hear_of_deaths(&mut self) {
        if self.controller.disk.dies() {
            self.kill_controller(self.down, false);
        }
        for number in 0..self.hosts.len() {
            if self.hosts[number].went_off() {
                self.trace.say(format_args!("{} has no power", self.names[number]));
                self.sim.crash(name(number));
                self.plan.insert((self.sim.elapsed() + OFF, usize::MAX - number), Fault::HostOn(number));
            }
        }
    }

    fn do_wrong(&mut self, fault: Fault) {
        self.trace.say(format_args!("fault: {fault:?}"));
        if self.meets(&fault) {
            let said = format!("{fault:?}");
            count(format!("fault {}", said.split([' ', '(']).next().unwrap_or_default()));
        }
        let now = self.sim.elapsed();
        if let Fault::HostOff(host)
        | Fault::HostOffAt(host, _)
        | Fault::HostOffAtStage(host, _)
        | Fault::HostPutBack(host)
        | Fault::ShimsDie(host)
        | Fault::ShimDiesAt(host, _)
        | Fault::Twin(host)
        | Fault::HostSyncFails(host) = &fault
        {
            self.checker.strikes(self.names[*host].clone());
        }
        match fault {
            Fault::Aimed(_, fault) => {
                // The moment in which its power was to come back may be over.
                if let Fault::HostOff(host) = *fault {
                    self.plan.insert((now + OFF, usize::MAX), Fault::HostOn(host));
                }
                self.do_wrong(*fault);
            }
            Fault::Fills(host) => self.hosts[host].set_used("/var", 95.0),
            Fault::Cut(host) => self.sim.partition(name(host), controller::NAME),
            Fault::CutOneWay(host, up) => match up {
                true => self.sim.partition_oneway(name(host), controller::NAME),
                false => self.sim.partition_oneway(controller::NAME, name(host)),
            },
            Fault::Mended(host) => self.sim.repair(name(host), controller::NAME),
            Fault::Slow(host, by) => self.sim.set_link_max_message_latency(
                name(host),
                controller::NAME,
                by.max(Duration::from_millis(20)),
            ),
            Fault::Twice(host, often) => self.hosts[host].repeat_messages(often),
            Fault::Late(host, hold, after) => self.hosts[host].delay_connection(now + hold, after),
            Fault::PeopleCut => self.sim.partition("people", controller::NAME),
            Fault::PeopleMended => self.sim.repair("people", controller::NAME),
            Fault::AgentRestarts(host) => self.hosts[host].restart_agent(),
            Fault::AgentDies(host) => self.hosts[host].crash_agent(),
            Fault::AgentDiesAt(host, nth) => self.hosts[host].crash_agent_at(nth),
            Fault::AgentHeld(host) => {
                self.hosts[host].hold_agent(true);
                self.hosts[host].crash_agent();
            }
            Fault::AgentLet(host) => self.hosts[host].hold_agent(false),
            Fault::HostOff(host) => {
                // Nobody is told: what was under way is lost with the power.
                self.sim.partition(name(host), controller::NAME);
                self.hosts[host].lose_power(now);
                self.sim.crash(name(host));
                self.sim.repair(name(host), controller::NAME);
            }
            Fault::HostOffAt(host, nth) => self.hosts[host].lose_power_at(nth),
            Fault::HostOffAtStage(host, nth) => self.hosts[host].lose_power_at_stage(nth),
            Fault::HostOn(host) => {
                if !self.sim.is_host_running(name(host)) {
                    self.sim.bounce(name(host));
                }
            }
            Fault::HostFull(host) => self.hosts[host].fill_disk(true),
            Fault::HostRoom(host) => self.hosts[host].fill_disk(false),
            Fault::HostSyncFails(host) => {
                self.checker.fails_to_sync(self.names[host].clone());
                self.hosts[host].fail_next_sync();
            }
            Fault::HostSlow(host, by) => self.hosts[host].slow_disk(by),
            Fault::HostClock(host, by) => self.hosts[host].jump_wall_clock(by),
            Fault::JournalLost(host) => {
                self.checker.loses_journal(self.names[host].clone());
                self.hosts[host].lose_journal();
            }
            Fault::HostCopied(host) => drop(self.images.insert(host, self.hosts[host].snapshot())),
            Fault::HostPutBack(host) => {
                if let Some(image) = self.images.get(&host) {
                    let journal = self.hosts[host].journal_of(image);
                    let known = journal.as_ref().map(|(name, last)| (name.as_str(), *last));
                    self.checker.forgets(&self.names[host], known);
                    self.hosts[host].roll_back(image);
                }
            }
            Fault::ShimsDie(host) => self.hosts[host].kill_shims(),
            Fault::ShimDiesAt(host, nth) => self.hosts[host].kill_shim_at_stage(nth),
            Fault::Twin(host) => {
                if self.sim_has_twin(host) {
                    return;
                }
                self.twins |= 1 << host;
                self.checker.has_twin(self.names[host].clone());
                let machine = format!("twin-{host}");
                let twin = self.hosts[host].copy(&machine, self.seed);
                self.sim.host(machine, move || twin.clone().boot());
            }
            Fault::ControllerDies(down) => self.kill_controller(down, false),
            Fault::ControllerDiesAt(nth, down) => {
                self.down = down;
                self.controller.disk.die_in(nth);
            }
            Fault::ControllerOff(down) => {
                for number in 0..self.hosts.len() {
                    self.sim.partition(name(number), controller::NAME);
                }
                self.sim.partition("people", controller::NAME);
                self.kill_controller(down, false);
                for number in 0..self.hosts.len() {
                    self.sim.repair(name(number), controller::NAME);
                }
                self.sim.repair("people", controller::NAME);
            }
            Fault::ControllerFull => self.controller.disk.be(Health::Full),
            Fault::ControllerRoom => self.controller.disk.be(Health::Good),
            Fault::CommitFails(kept) => self.controller.disk.be(Health::FailsOnce(kept)),
            Fault::CommitStalls(stall) => self.controller.disk.be(Health::StallsOnce(stall)),
            Fault::ControllerClock(by) => self.controller.wall.jump(by),
            Fault::BackUp => self.controller.disk.back_up(),
            Fault::Restore(down) => self.kill_controller(down, true),
        }
    }

    /// Whether there is now what it strikes or ends. What strikes only later is counted again where it does.
    fn meets(&mut self, fault: &Fault) -> bool {
        let connected =
            |host: usize| self.checker.model().agents.get(&self.names[host]).is_some_and(|row| row.connected);
        match fault {
            Fault::Cut(host) | Fault::CutOneWay(host, _) | Fault::Slow(host, _) => connected(*host),
            Fault::AgentRestarts(host) | Fault::AgentDies(host) | Fault::AgentHeld(host) => {
                self.hosts[*host].is_up()
            }
            Fault::AgentLet(host) => !self.hosts[*host].is_up(),
            Fault::HostOff(host) => self.sim.is_host_running(name(*host)),
            Fault::HostOn(host) => !self.sim.is_host_running(name(*host)),
            Fault::HostPutBack(host) => self.images.contains_key(host),
            Fault::ShimsDie(host) => !self.hosts[*host].alive().is_empty(),
            Fault::Twin(host) => !self.sim_has_twin(*host),
            Fault::ControllerDies(_) | Fault::ControllerOff(_) | Fault::Restore(_) => self.back.is_none(),
            Fault::HostClock(_, by) | Fault::ControllerClock(by) => *by != 0,
            Fault::Aimed(..)
            | Fault::Fills(_)
            | Fault::Mended(_)
            | Fault::Twice(..)
            | Fault::Late(..)
            | Fault::PeopleCut
            | Fault::PeopleMended
            | Fault::AgentDiesAt(..)
            | Fault::HostOffAt(..)
            | Fault::HostOffAtStage(..)
            | Fault::ShimDiesAt(..)
            | Fault::ControllerDiesAt(..)
            | Fault::HostFull(_)
            | Fault::HostRoom(_)
            | Fault::HostSyncFails(_)
            | Fault::HostSlow(..)
            | Fault::JournalLost(_)
            | Fault::HostCopied(_)
            | Fault::ControllerFull
            | Fault::ControllerRoom
            | Fault::CommitFails(_)
            | Fault::CommitStalls(_)
            | Fault::BackUp => true,
        }
    }

    fn sim_has_twin(&self, host: usize) -> bool {
        self.twins & (1 << host) != 0
    }

    fn kill_controller(&mut self, down: Duration, on_backup: bool) {
        if self.back.is_none() {
            self.sim.crash(controller::NAME);
            self.controller.died();
            self.controller.disk.crash();
            // What a dead controller had promised is durable; its tables are what its history says.
            self.wrong = self.wrong.take().or(self.controller.disk.check().err());
        }
        self.back = Some((self.sim.elapsed() + down, on_backup || self.back.is_some_and(|(_, on)| on)));
    }

    /// Nothing goes wrong any more: everything that is broken is mended.
    fn heal(&mut self) {
        self.trace.say("nothing goes wrong any more");
        self.controller.disk.be(Health::Good);
        self.controller.disk.live();
        self.sim.repair("people", controller::NAME);
        for (number, host) in self.hosts.iter().enumerate() {
            self.sim.repair(name(number), controller::NAME);
            self.sim.set_link_max_message_latency(name(number), controller::NAME, Duration::from_millis(20));
            host.fill_disk(false);
            host.slow_disk(Duration::ZERO);
            host.hold_agent(false);
            host.repeat_messages(0.0);
            host.mend();
        }
        for number in 0..self.hosts.len() {
            if !self.sim.is_host_running(name(number)) {
                self.sim.bounce(name(number));
            }
        }
        self.plan.clear();
        for number in 0..self.hosts.len() {
            // Of two machines with one name, people switch one off.
            if self.sim_has_twin(number) {
                self.sim.crash(format!("twin-{number}"));
            }
        }
    }
}

/// What a record says, in one line that is the same for the same seed.
fn brief(record: &fettle_controller::store::Record) -> String {
    let text = format!("{:?}", record.change);
    text.chars().take(220).collect()
}
