//! The few calls that neither `std` nor `rustix` offers safely: the only module of the agent with `unsafe` in it.
//!
//! Processes are born with `posix_spawn`, because a fork of a large process costs tens of milliseconds, and because
//! code between fork and exec in a program with threads is a deadlock waiting for its day. The C library can do there
//! all that is needed: a session, a directory, three descriptors and none else, default signals.
#![allow(
    unsafe_code,
    reason = "posix_spawn, signal, pre_exec and adopting an inherited descriptor have no safe wrapper"
)]

use std::ffi::{CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::ptr::null_mut;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};
use rustix::process::{Pid, Signal};

/// The descriptor under which a child finds the first extra descriptor it was given.
pub(crate) const EXTRA: RawFd = 3;

/// A process to be. It inherits nothing that is not named here.
pub(crate) struct Birth<'a> {
    /// An absolute path; nothing is searched.
    pub(crate) program: &'a Path,
    /// All arguments, beginning with the program's own name.
    pub(crate) args: &'a [String],
    /// The whole environment.
    pub(crate) env: &'a [(String, String)],
    /// Its working directory.
    pub(crate) cwd: &'a Path,
    /// Its descriptors 0, 1 and 2.
    pub(crate) fds: [BorrowedFd<'a>; 3],
    /// Its descriptors from [`EXTRA`] on.
    pub(crate) extra: Vec<BorrowedFd<'a>>,
    /// The directory of the control group it is born into, where the kernel can do that; else it is born into ours.
    /// Moving a living process makes the kernel wait for all cores, which takes milliseconds, and many on a busy host.
    pub(crate) group: Option<BorrowedFd<'a>>,
}

/// Starts a process at the head of a session of its own, with default signals.
pub(crate) fn spawn(birth: &Birth<'_>) -> io::Result<Pid> {
    // Far away from 0..=5, so that putting one in place overwrites no other.
    let wanted = birth.fds.iter().chain(&birth.extra).copied();
    let sources = wanted.map(|fd| fcntl_dupfd_cloexec(fd, 64)).collect::<Result<Vec<OwnedFd>, _>>()?;

    let program = c_string(birth.program.as_os_str())?;
    let cwd = c_string(birth.cwd.as_os_str())?;
    let args = strings(birth.args.iter().cloned())?;
    let env = strings(birth.env.iter().map(|(name, value)| format!("{name}={value}")))?;
    let (argv, envp) = (pointers(&args), pointers(&env));
    if let Some(group) = birth.group
        && let Some(pid) = born_into(group, &sources, &program, &cwd, &argv, &envp)
    {
        return Ok(pid);
    }

    let mut actions = Actions::new()?;
    for (target, source) in sources.iter().enumerate() {
        actions.dup2(source.as_fd(), target as RawFd)?;
    }
    actions.close_from(sources.len() as RawFd)?;
    actions.chdir(&cwd)?;
    let attributes = Attributes::session_with_default_signals()?;

    let mut pid = 0;
    // SAFETY: every pointer is to something alive in this function: NUL-ended strings, and arrays of pointers to such
    // that end in null. posix_spawn only reads them, and is done with them when it returns.
    let failed = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            argv.as_ptr(),
            envp.as_ptr(),
        )
    };
    check(failed)?;
    Pid::from_raw(pid).ok_or_else(|| io::Error::other("the kernel gave a child no number"))
}

/// Forks into a control group, which `posix_spawn` cannot, and execs. None: the kernel does not do it (before 5.7, or it
/// was told not to), and nothing was born. What fails later in the child ends it with 127.
///
/// The child has memory of its own, and between fork and exec it makes system calls only, with everything prepared: no
/// lock of another thread is ever asked for. The caller sleeps until the exec, so little memory is copied.
fn born_into(
    group: BorrowedFd<'_>,
    sources: &[OwnedFd],
    program: &CString,
    cwd: &CString,
    argv: &[*mut libc::c_char],
    envp: &[*mut libc::c_char],
) -> Option<Pid> {
    // SAFETY: all zero is a good value of both: of plain numbers, and of a set of signals.
    let (mut how, mut before): (libc::clone_args, libc::sigset_t) = unsafe { std::mem::zeroed() };
    how.flags = (libc::CLONE_VFORK as u64) | CLONE_INTO_CGROUP;
    how.exit_signal = libc::SIGCHLD as u64;
    how.cgroup = group.as_raw_fd() as u64;
    let size = std::mem::size_of::<libc::clone_args>();
    // SAFETY: both sets live here. No handler of ours may run in the child: it would write into pipes it shares with us.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
    }
    // SAFETY: without CLONE_VM this is a fork: the child goes on here, on its own copy of this stack.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const how, size) };
    if pid == 0 {
        // SAFETY: system calls, on memory that was prepared before; it ends in exec or exit, and never returns.
        unsafe { become_program(sources, program, cwd, argv, envp) }
    }
    // SAFETY: the set was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, null_mut()) };
    // Below zero nothing was born, and such a number is nobody's.
    i32::try_from(pid).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw)
}

/// `CLONE_INTO_CGROUP`; the C library's constant is too small a type for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The child's part of [`born_into`].
///
/// # Safety
/// Only between fork and exec, with all signals blocked, and strings and arrays as `execve` wants them.
unsafe fn become_program(
    sources: &[OwnedFd],
    program: &CString,
    cwd: &CString,
    argv: &[*mut libc::c_char],
    envp: &[*mut libc::c_char],
) -> ! {
    // SAFETY: as promised by the caller; nothing below allocates, locks or unwinds.
    unsafe {
        libc::setsid();
        let mut fits = true;
        for (target, source) in sources.iter().enumerate() {
            fits &= libc::dup2(source.as_raw_fd(), target as RawFd) >= 0;
        }
        let rest = sources.len() as libc::c_uint;
        fits &= libc::syscall(libc::SYS_close_range, rest, libc::c_uint::MAX, 0) == 0;
        fits &= libc::chdir(cwd.as_ptr()) == 0;
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, null_mut());
        if fits {
            libc::execve(program.as_ptr(), argv.as_ptr().cast(), envp.as_ptr().cast());
        }
        libc::_exit(127)
    }
}

/// The extra descriptor of this place that whoever started this process left; closed at the next exec from now on.
pub(crate) fn take_extra(place: u8) -> io::Result<OwnedFd> {
    let number = EXTRA + RawFd::from(place);
    // SAFETY: only asked whether it is open; nothing is assumed of the answer.
    let there = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) });
    there?;
    // SAFETY: called once for each place, first in `main`: it is open, and nothing else in this process owns it yet.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Puts a descriptor at [`EXTRA`], where the next program of this process finds it.
pub(crate) fn leave_extra(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: numbers only. What was there before has been read and closed; nobody owns that number.
    let left = unsafe { libc::dup2(fd.as_raw_fd(), EXTRA) };
    if left == EXTRA { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has a program ended together with the thread that starts it, and so with this process. It is born by a fork then: for
/// what is seldom started.
pub(crate) fn end_with_us(command: &mut Command) {
    let bind = || Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec this is one system call, which neither allocates nor locks.
    unsafe { command.pre_exec(bind) };
}

/// Forks. None in the child, which has this thread only: to be called where there is no other.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the callers are helpers of one thread, so no lock is held by a thread that the child lacks.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// mount(2). An empty text is no text.
pub(crate) fn mount(source: &str, target: &Path, kind: &str, flags: u64, data: &str) -> io::Result<()> {
    let texts = [c_string(source.as_ref())?, c_string(kind.as_ref())?, c_string(data.as_ref())?];
    let [source, kind, data] =
        texts.each_ref().map(|text| if text.is_empty() { std::ptr::null() } else { text.as_ptr() });
    let target = c_string(target.as_os_str())?;
    // SAFETY: pointers to NUL-ended strings that outlive the call, or null, which the call takes for "none".
    let failed = unsafe { libc::mount(source, target.as_ptr(), kind, flags, data.cast()) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes every mount of this namespace read-only, and setuid files in it ordinary ones.
pub(crate) fn freeze_mounts() -> io::Result<()> {
    let wanted = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the kernel reads one string and one structure of the size it is told; both live through the call.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c"/".as_ptr(),
            libc::AT_RECURSIVE,
            &raw const wanted,
            size_of::<libc::mount_attr>(),
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The version of Landlock that the kernel has; 0 for none.
pub(crate) fn landlock_version() -> u32 {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes no structure and changes nothing.
    let found = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, null_mut::<libc::c_void>(), 0usize, VERSION)
    };
    u32::try_from(found).unwrap_or(0)
}

/// Goes on when the terminal hangs up, or when whoever ends the agent means all its processes.
pub(crate) fn ignore_polite_signals() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        // SAFETY: no handler is installed, so there is no code that could run at a bad moment.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a NUL byte in it"))
}

fn strings(texts: impl Iterator<Item = String>) -> io::Result<Vec<CString>> {
    texts.map(|text| c_string(OsStr::new(&text))).collect()
}

fn pointers(strings: &[CString]) -> Vec<*mut libc::c_char> {
    strings.iter().map(|string| string.as_ptr().cast_mut()).chain([null_mut()]).collect()
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Actions> {
        let mut new = MaybeUninit::uninit();
        // SAFETY: init is what makes it a value; it is taken for one only when init says so.
        unsafe {
            check(libc::posix_spawn_file_actions_init(new.as_mut_ptr()))?;
            Ok(Actions(new.assume_init()))
        }
    }

    fn dup2(&mut self, source: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
        // SAFETY: `self.0` was initialised in `new`; numbers are copied.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, source.as_raw_fd(), target) })
    }

    fn close_from(&mut self, first: RawFd) -> io::Result<()> {
        // SAFETY: as above.
        check(unsafe { libc::posix_spawn_file_actions_addclosefrom_np(&raw mut self.0, first) })
    }

    fn chdir(&mut self, dir: &CString) -> io::Result<()> {
        // SAFETY: as above; the path is copied by the call.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(&raw mut self.0, dir.as_ptr()) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn session_with_default_signals() -> io::Result<Attributes> {
        let mut new = MaybeUninit::uninit();
        // SAFETY: init is what makes it a value; it is taken for one only when init says so.
        let mut attributes = unsafe {
            check(libc::posix_spawnattr_init(new.as_mut_ptr()))?;
            Attributes(new.assume_init())
        };
        let mut signals = MaybeUninit::uninit();
        // SAFETY: sigemptyset and sigfillset initialise the set they are given; both are copied into attributes
        // that were initialised above.
        unsafe {
            libc::sigemptyset(signals.as_mut_ptr());
            check(libc::posix_spawnattr_setsigmask(&raw mut attributes.0, signals.as_ptr()))?;
            libc::sigfillset(signals.as_mut_ptr());
            check(libc::posix_spawnattr_setsigdefault(&raw mut attributes.0, signals.as_ptr()))?;
            let flags = i32::from(libc::POSIX_SPAWN_SETSID)
                | libc::POSIX_SPAWN_SETSIGDEF
                | libc::POSIX_SPAWN_SETSIGMASK;
            check(libc::posix_spawnattr_setflags(&raw mut attributes.0, flags as libc::c_short))?;
        }
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in the one maker, destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}
