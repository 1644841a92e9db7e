//! What an agent is given of its machine, for one life: disk, hands, clocks and a way to dial.
//!
//! Every call on disk or hands is one operation, at which the agent may be killed: before it, after it, or in the midst
//! of a write. Being killed is a panic that nobody but the machine catches, and that leaves no word anywhere.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fettle_agent::link::connect::{ConnectError, Controller};
use fettle_agent::link::{Dial, DialError, Dialled};
use fettle_agent::works::attempt::{Observer, Running, Spec, StartBy, StartError, Stop};
use fettle_agent::works::disk::{Disk, DiskFile};
use fettle_agent::works::hands::{Answer, Hands};
use fettle_agent::works::policy::{HostPolicy, ReadOnly};
use fettle_agent::works::record::AttemptKey;
use fettle_agent::works::recovery::Found;
use fettle_agent::works::world::World;
use fettle_runbooks::expr::FactCall;
use fettle_runbooks::id::RunId;
use fettle_runbooks::segment::Kind;

use super::machine::{Machine, newborn, place, policy, tombstone};
use super::process::New;
use super::wire;
use crate::trace::count;

/// The agent's process was killed.
pub(super) struct Died;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(15);

/// A machine that is shared.
pub(super) type Shared = Arc<Mutex<Machine>>;

pub(super) fn lock(machine: &Shared) -> MutexGuard<'_, Machine> {
    machine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The machine as it is now.
pub(super) fn current(machine: &Shared) -> MutexGuard<'_, Machine> {
    let mut machine = lock(machine);
    let now = turmoil::sim_elapsed().unwrap_or(machine.now);
    machine.advance(now);
    machine
}

/// One life of an agent.
#[derive(Clone)]
pub(super) struct Life {
    pub(super) machine: Shared,
    pub(super) number: u64,
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Life({})", self.number)
    }
}

/// Whether this is the operation that was counted down to.
fn is_now(left: &mut Option<u32>) -> bool {
    let is_now = *left == Some(0);
    *left = left.and_then(|left| left.checked_sub(1));
    is_now
}

impl Life {
    /// One operation. `half` is what is left of it when the agent dies midway.
    fn op_or<T>(
        &self,
        work: impl FnOnce(&mut Machine) -> io::Result<T>,
        half: impl FnOnce(&mut Machine),
    ) -> io::Result<T> {
        let mut machine = current(&self.machine);
        if machine.life != Some(self.number) {
            return Err(io::Error::other("this process was killed"));
        }
        let (dies, off) = (is_now(&mut machine.dies_in), is_now(&mut machine.off_in));
        if !dies && !off {
            return work(&mut machine);
        }
        match machine.chance.among(0..3) {
            0 => count("an agent is killed before what it does"),
            1 => {
                count("an agent is killed after what it does");
                drop(work(&mut machine));
            }
            _ => {
                count("an agent is killed midway");
                half(&mut machine);
            }
        }
        if off {
            count("the power fails at an operation");
            machine.power_fails();
        } else {
            machine.agent_died();
        }
        drop(machine);
        resume_unwind(Box::new(Died));
    }

    fn op<T>(&self, work: impl FnOnce(&mut Machine) -> io::Result<T>) -> io::Result<T> {
        self.op_or(work, |_| {})
    }
}

impl Disk for Life {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.op(|machine| machine.disk.make_dir(dir))
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.op(|machine| machine.disk.names(dir))
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        self.op(|machine| machine.disk.read(file))
    }

    fn create_new(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = self.op(|machine| machine.disk.create_new(file))?;
        Ok(Box::new(Open { life: self.clone(), file }))
    }

    fn open(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = self.op(|machine| machine.disk.open(file))?;
        Ok(Box::new(Open { life: self.clone(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.op(|machine| machine.disk.rename(from, to))
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        self.op(|machine| machine.disk.remove(file))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.op(|machine| machine.disk.sync_dir(dir))
    }

    fn lock(&self, file: &Path) -> io::Result<Option<Box<dyn Any + Send>>> {
        let file = file.to_owned();
        let free = self.op(|machine| {
            let free = !machine.locks.contains(&file);
            if free {
                machine.locks.push(file.clone());
            }
            Ok(free)
        })?;
        Ok(free.then(|| Box::new(Locked { life: self.clone(), file }) as Box<dyn Any + Send>))
    }
}

struct Locked {
    life: Life,
    file: PathBuf,
}

impl Drop for Locked {
    fn drop(&mut self) {
        let mut machine = lock(&self.life.machine);
        if machine.life == Some(self.life.number) {
            machine.locks.retain(|file| *file != self.file);
        }
    }
}

/// A file that the agent has open.
#[derive(Debug)]
struct Open {
    life: Life,
    file: u64,
}

impl DiskFile for Open {
    fn size(&self) -> io::Result<u64> {
        self.life.op(|machine| Ok(machine.disk.size(self.file)))
    }

    fn set_size(&mut self, size: u64) -> io::Result<()> {
        self.life.op(|machine| machine.disk.set_size(self.file, size))
    }

    fn reserve(&mut self, _from: u64, to: u64) -> io::Result<()> {
        self.life.op(|machine| machine.disk.set_size(self.file, to))
    }

    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        let file = self.file;
        let half = |machine: &mut Machine| {
            let cut = machine.chance.among(0..bytes.len() as u64 + 1) as usize;
            let _ = machine.disk.write(file, &bytes[..cut], at);
        };
        self.life.op_or(|machine| machine.disk.write(file, bytes, at), half)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.life.op(|machine| {
            let Machine { disk, chance, .. } = machine;
            disk.sync(self.file, chance)
        })
    }
}

impl World for Life {
    fn monotonic(&self) -> Duration {
        current(&self.machine).now
    }

    fn since_boot(&self) -> Duration {
        current(&self.machine).since_boot()
    }

    fn wall_ms(&self) -> i64 {
        current(&self.machine).wall_ms()
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(lock(&self.machine).boot_id.clone())
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut machine = lock(&self.machine);
        bytes.iter_mut().for_each(|byte| *byte = machine.chance.word() as u8);
        Ok(())
    }
}

/// Tells an attempt to end.
#[derive(Debug)]
struct Stopper {
    life: Life,
    key: AttemptKey,
}

impl Stop for Stopper {
    fn stop(&self) -> io::Result<()> {
        self.life.op(|machine| {
            let place = place(&self.key);
            let acts = machine.disk.exists(&place);
            if acts && !machine.disk.exists(&place.join("stop")) {
                machine.disk.create_new(&place.join("stop"))?;
            }
            machine.stop(&self.key);
            Ok(())
        })
    }
}

impl Life {
    fn running(&self, key: &AttemptKey) -> Running {
        Running::new(key.clone(), Arc::new(Stopper { life: self.clone(), key: key.clone() }))
    }

    fn start_reader(&self, new: New) -> io::Result<()> {
        self.op(|machine| {
            let process = newborn(machine, new);
            machine.add(process);
            machine.bell.notify_one();
            Ok(())
        })
    }

    /// What `start_effect` does, one operation after the other.
    fn start_shim(&self, new: New) -> Result<(), StartError> {
        let key = new.spec.key.clone();
        let dir = place(&key);
        let prepare = |path: &Path| {
            let path = path.to_owned();
            move |source| StartError::Prepare { path, source }
        };
        self.op(|machine| machine.disk.make_dir(&dir)).map_err(prepare(&dir))?;
        let before =
            self.op(|machine| Ok(machine.is_watched(&key) || machine.disk.exists(&dir.join("started"))));
        if before.map_err(prepare(&dir))? {
            return Err(StartError::StartedBefore(key));
        }
        let order = dir.join("order");
        let write = |machine: &mut Machine| {
            if !machine.disk.exists(&order) {
                let file = machine.disk.create_new(&order)?;
                machine.disk.write(file, b"{}", 0)?;
            }
            Ok(())
        };
        self.op(write).map_err(prepare(&order))?;
        let born = self.op(|machine| {
            let process = newborn(machine, new);
            machine.add(process);
            machine.bell.notify_one();
            Ok(())
        });
        born.map_err(|source| StartError::Spawn { program: "simulated".to_owned(), source })
    }
}

impl Hands for Life {
    fn start(
        &self,
        spec: &Spec,
        kind: Kind,
        start_by: &StartBy,
        observer: Observer,
    ) -> Result<Running, StartError> {
        let (spec, start_by) = (spec.clone(), start_by.clone());
        let key = spec.key.clone();
        match kind {
            Kind::Act => self.start_shim(New { spec, start_by, observer, child_of: None })?,
            Kind::Read => self
                .start_reader(New { spec, start_by, observer, child_of: Some(self.number) })
                .map_err(|source| StartError::Spawn { program: "simulated".to_owned(), source })?,
        }
        Ok(self.running(&key))
    }

    fn look(&self, key: &AttemptKey) -> io::Result<Found> {
        self.op(|machine| Ok(machine.look(key)))
    }

    fn reattach(&self, key: &AttemptKey, observer: Observer) -> io::Result<Running> {
        self.op(|machine| {
            machine.bell.notify_one();
            match machine.process(key) {
                Some(process) => process.observer = Some(observer),
                None => return Err(io::Error::other("it has just ended")),
            }
            Ok(())
        })?;
        Ok(self.running(key))
    }

    fn bury(&self, key: &AttemptKey) -> io::Result<bool> {
        self.op(|machine| Ok(machine.bury(key)))
    }

    fn stop_all(&self, run: RunId) -> io::Result<bool> {
        self.op(|machine| {
            machine.bell.notify_one();
            machine.stop_all(run)
        })
    }

    fn tombstone(&self, run: RunId) -> io::Result<()> {
        let path = tombstone(run);
        let tmp = path.with_extension("tmp");
        let _ = Disk::remove(self, &tmp);
        self.create_new(&tmp)?.sync()?;
        self.rename(&tmp, &path)?;
        self.sync_dir(path.parent().unwrap_or(&path))
    }

    fn forget(&self, run: RunId) -> io::Result<()> {
        self.op(|machine| machine.forget(run))
    }

    fn facts(&self, calls: Vec<FactCall>, answer: Answer) {
        let asked = self.op(|machine| {
            machine.read_facts(calls, answer);
            machine.bell.notify_one();
            Ok(())
        });
        // Of a dead agent, whom nobody answers.
        drop(asked);
    }

    fn policy(&self) -> HostPolicy {
        policy()
    }

    fn missing(&self) -> Vec<String> {
        Vec::new()
    }

    fn sure_of_reading(&self) -> ReadOnly {
        ReadOnly::Full
    }
}

/// Reaches the controller over the simulated network, without TLS: its listener knows who calls by the address.
pub(super) struct Network {
    pub(super) machine: Shared,
    pub(super) controller: Controller,
}

impl Dial for Network {
    async fn dial(&self) -> Result<Dialled, DialError> {
        let controller = || self.controller.clone();
        let connecting = turmoil::net::TcpStream::connect((self.controller.host(), self.controller.port()));
        let stream = match tokio::time::timeout(CONNECT, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => {
                return Err(DialError::Connect {
                    source: ConnectError::Tcp { controller: controller(), source },
                });
            }
            Err(_) => {
                return Err(DialError::Connect {
                    source: ConnectError::TooSlow { controller: controller() },
                });
            }
        };
        Dialled::over(&self.controller, wire::over(&self.machine, stream)).await
    }

    async fn renewed(&self, _: &Dialled) {
        std::future::pending().await
    }

    fn chance(&self) -> f64 {
        let word = lock(&self.machine).chance.word();
        (word >> 11) as f64 / (1u64 << 53) as f64
    }
}
