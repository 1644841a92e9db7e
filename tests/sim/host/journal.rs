//! The real journal on the simulated disk: what it said to be durable, and what it gave back when it was opened, is there
//! for ever, however often its agent is killed, its disk is full or fails, or the power goes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fettle_agent::works::disk::Disk;
use fettle_agent::works::journal::{Journal, OpenError};
use fettle_agent::works::record::Record;
use fettle_proto::signed::Trust;

use super::hands::{Life, lock};
use super::machine::{Machine, STATE};
use super::{DiskImage, Ledger, Make, Nature, SimHost, mortal};
use crate::chance::Chance;

/// The promise.
pub(super) fn what_it_said_is_there() {
    for seed in 0..60 {
        let mut chance = Chance::new(seed, "journal");
        let host = empty(seed);
        lock(&host.machine).power_on();
        let (mut certain, mut tried): (Vec<u64>, u64) = (Vec::new(), 0);
        for life in 0..8 {
            let said = Arc::new(Mutex::new(Vec::new()));
            if let Some(records) = live(&host, &mut chance, &mut tried, &said) {
                let given: Vec<u64> = records.iter().map(number).collect();
                assert!(
                    given.starts_with(&certain),
                    "seed {seed}, life {life}: {given:?} lacks of {certain:?}"
                );
                certain = given;
            }
            let said = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
            certain.extend(said);
            let mut machine = lock(&host.machine);
            machine.agent_died();
            if chance.happens(0.5) {
                machine.lose_power();
                machine.power_on();
            }
        }
    }
}

fn number(record: &Record) -> u64 {
    let Record::Acked { upto } = record else { panic!("nobody wrote {record:?}") };
    *upto
}

/// One life of an agent that appends numbers: what its journal held when it opened it, if it came so far.
fn live(
    host: &SimHost,
    chance: &mut Chance,
    tried: &mut u64,
    said: &Arc<Mutex<Vec<u64>>>,
) -> Option<Vec<Record>> {
    let number = lock(&host.machine).be_born().0;
    let life = Life { machine: Arc::clone(&host.machine), number };
    let disk: Arc<dyn Disk> = Arc::new(life.clone());
    if chance.happens(0.4) {
        host.crash_agent_at(chance.among(0..40) as u32);
    }
    let opened = mortal(|| Journal::open_on(&disk, &life, &Path::new(STATE).join("journal")))?;
    let (opened, mut writer) = match opened {
        Ok(opened) => opened,
        // A disk that fails: no agent.
        Err(OpenError::Io { .. }) => return None,
        Err(error) => panic!("{error}"),
    };
    assert!(opened.damage.is_none(), "{:?}", opened.damage);
    let mut all = opened.records.clone();
    for _ in 0..chance.among(0..6) {
        if chance.happens(0.1) {
            host.fail_next_sync();
        }
        if chance.happens(0.1) {
            host.fill_disk(true);
        }
        *tried += 1;
        let (mine, told) = (*tried, Arc::clone(said));
        let then = move |result: Result<(), _>| {
            if result.is_ok() {
                told.lock().unwrap_or_else(PoisonError::into_inner).push(mine);
            }
        };
        let anew = chance.happens(0.2);
        all.push(Record::Acked { upto: mine });
        let done = mortal(|| {
            match anew {
                true => opened.journal.compact_then(&all, then),
                false => opened.journal.append_then(&all[all.len() - 1..], then),
            }
            writer.turn()
        });
        host.fill_disk(false);
        if done.is_none() {
            break; // It was killed.
        }
        // An agent stops at a journal that is broken, and says again what found no room: neither is tried here.
        if said.lock().unwrap_or_else(PoisonError::into_inner).last() != Some(&mine) {
            break;
        }
    }
    Some(opened.records)
}

impl SimHost {
    /// The name of the journal that a disk holds, and the number of its last report.
    pub(crate) fn journal_of(&self, image: &DiskImage) -> Option<(String, u64)> {
        let make = lock(&self.machine).make.clone();
        let spare = SimHost::of(Machine::new(make, Ledger::default(), super::Disk::from_image(image)));
        lock(&spare.machine).power_on();
        let number = lock(&spare.machine).be_born().0;
        let life = Life { machine: Arc::clone(&spare.machine), number };
        let disk: Arc<dyn Disk> = Arc::new(life.clone());
        let (opened, _writer) = Journal::open_on(&disk, &life, &Path::new(STATE).join("journal")).ok()?;
        let number = |record: &Record| {
            if let Record::Report { seq: number, .. } | Record::Acked { upto: number } = record {
                *number
            } else {
                0
            }
        };
        let last = opened.records.iter().map(number).max().unwrap_or(0);
        Some((opened.journal.name().to_owned(), last))
    }
}

fn empty(seed: u64) -> SimHost {
    let make = Make {
        machine: "alone".to_owned(),
        host: "alone".parse().expect("a name"),
        labels: BTreeMap::new(),
        trust: Trust { ca_der: Vec::new(), roots: Vec::new() },
        roster: None,
        controller: "https://nowhere:1".to_owned(),
        seed,
        nature: Nature { takes: Duration::ZERO..Duration::from_secs(1), fails: 0.0, hangs: 0.0 },
    };
    SimHost::new(make, Ledger::default())
}
