//! Points at which a test may kill a process, so that every recovery is tried and not merely argued.
//!
//! | `FETTLE_CRASH_AT` | what happens |
//! | --- | --- |
//! | `shim.started` | whoever gets to that point kills itself with SIGKILL, which no destructor, buffer or handler survives |
//! | `journal.after-sync#3` | the same, the third time that this process gets there |
//! | `shim.started power=/mnt` | the power fails: the disk at `/mnt` loses what was not made durable, then SIGKILL |
//! | `store.before-commit stall` | whoever gets to that point stands still there for as long as `@FILE` is there, as before a disk that does not answer |
//! | `@FILE` | the file says one of these; it is removed by who dies, so there is one death, in whichever process gets there first |
//!
//! The disk must be an ext4 of its own: it is shut down without writing what it still has in memory, not even its log,
//! and takes nothing any more until it is mounted again.
//!
//! The points exist in debug builds and with the cargo feature `crash-points`; in a release build [`point`] is nothing.
//! Which ones there are is said by each program for itself.
//!
//! Deliberately missing: any knowledge of what the points stand between.

/// The points around a file that is replaced as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Replaced {
    /// The new content is written beside the old file, and not durable.
    pub unsynced: &'static str,
    /// It is durable, and has not the name yet.
    pub unnamed: &'static str,
    /// It has the name, and that is not durable.
    pub undurable: &'static str,
    /// It is there for good.
    pub durable: &'static str,
}

/// Whether this build has points at all.
pub const POSSIBLE: bool = cfg!(any(debug_assertions, feature = "crash-points"));

/// Dies here when `FETTLE_CRASH_AT` says so.
#[cfg(not(any(debug_assertions, feature = "crash-points")))]
#[inline(always)]
pub fn point(_name: &'static str) {}

#[cfg(any(debug_assertions, feature = "crash-points"))]
pub use armed::point;

/// The power of the disk fails that is mounted at a directory: it takes nothing any more, and has what was durable.
///
/// # Errors
/// When it is no ext4, or this process is not allowed to.
#[expect(unsafe_code, reason = "no crate offers this call; it reads the flag it is given and nothing else")]
pub fn cut(disk: &std::path::Path) -> std::io::Result<()> {
    use rustix::ioctl::{Setter, ioctl, opcode};
    /// `EXT4_IOC_SHUTDOWN`.
    const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
    /// `EXT4_GOING_FLAGS_NOLOGFLUSH`.
    const AT_ONCE: u32 = 2;
    // SAFETY: the kernel reads one u32 from the pointer it is given.
    std::fs::File::open(disk).and_then(|disk| unsafe {
        ioctl(disk, Setter::<SHUTDOWN, u32>::new(AT_ONCE)).map_err(std::io::Error::from)
    })
}

#[cfg(any(debug_assertions, feature = "crash-points"))]
mod armed {
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, OnceLock, PoisonError};

    /// Where this process dies, if anywhere.
    enum Armed {
        Here(String),
        File(PathBuf),
    }

    /// How often this process came to the point that it is told to die at.
    #[derive(Default)]
    struct Count {
        told: String,
        times: u32,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    static COUNT: Mutex<Count> = Mutex::new(Count { told: String::new(), times: 0 });

    /// Dies here when `FETTLE_CRASH_AT` says so.
    pub fn point(name: &'static str) {
        let armed = ARMED.get_or_init(|| {
            let asked = std::env::var("FETTLE_CRASH_AT").ok()?;
            Some(asked.strip_prefix('@').map_or(Armed::Here(asked.clone()), |file| Armed::File(file.into())))
        });
        match armed {
            Some(Armed::Here(told)) if is_the_one(name, told) => die(told),
            None | Some(Armed::Here(_)) => {}
            Some(Armed::File(file)) => {
                let Ok(told) = std::fs::read_to_string(file) else { return };
                if told.strip_suffix(" stall") == Some(name) {
                    while file.exists() {
                        std::thread::sleep(std::time::Duration::from_millis(10));
                    }
                    return;
                }
                if is_the_one(name, &told) && std::fs::remove_file(file).is_ok() {
                    die(&told);
                }
            }
        }
    }

    fn is_the_one(name: &str, told: &str) -> bool {
        let at = told.split_whitespace().next().unwrap_or_default();
        let (at, time) = at.split_once('#').unwrap_or((at, "1"));
        if at != name {
            return false;
        }
        let mut count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
        if count.told != told {
            *count = Count { told: told.to_owned(), times: 0 };
        }
        count.times += 1;
        time.parse() == Ok(count.times)
    }

    fn die(told: &str) -> ! {
        let disk = told.split_whitespace().find_map(|word| word.strip_prefix("power="));
        if disk.is_some() {
            stop_the_agent_above();
        }
        if let Some(Err(error)) = disk.map(|disk| super::cut(Path::new(disk))) {
            eprintln!("fettle: the power does not fail: {error}");
        }
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // SIGKILL has been delivered before the call returns; this is for readers of the types.
        std::process::abort();
    }

    /// With the power everybody stops. An agent that went on until it was killed was seen to tell its controller, as durable, what
    /// was not on the disk afterwards: a sync that is under way when an ext4 is shut down may be told that all went well.
    fn stop_the_agent_above() {
        let Some(parent) = rustix::process::getppid() else { return };
        let name = std::fs::read_to_string(format!("/proc/{}/comm", parent.as_raw_nonzero()));
        if name.is_ok_and(|name| name.trim_end() == "fettle-agent") {
            let _ = rustix::process::kill_process(parent, rustix::process::Signal::KILL);
        }
    }
}
