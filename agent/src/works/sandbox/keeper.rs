//! The process between the agent and a step that only reads.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getpid, getppid, pidfd_open,
    setrlimit, waitpid,
};

use super::{Order, Reading, Said, calls, land, mounts, rights};
use crate::works::kin;
use crate::works::oom;
use crate::works::unix;

/// How long a killed process may take to be gone.
const DYING: Duration = Duration::from_secs(5);

/// The most processes and threads of a step that has a user of its own.
const PROCESSES: u64 = 1024;

/// Is a keeper, from beginning to end. Gives back the exit code of this process.
pub(in crate::works) fn keep() -> i32 {
    let Ok(say) = unix::take_extra(1) else { return 2 };
    let said = match order().and_then(|order| watch(&order, &say)) {
        Ok(said) => said,
        Err(error) => Said::Failed(format!("the keeper of the step failed: {error}")),
    };
    tell(&say, &said);
    0
}

fn order() -> io::Result<Order> {
    let mut told = Vec::new();
    std::fs::File::from(unix::take_extra(0)?).read_to_end(&mut told)?;
    Ok(serde_json::from_slice(&told)?)
}

fn tell(say: &OwnedFd, said: &Said) {
    let mut line = serde_json::to_vec(said).unwrap_or_default();
    line.push(b'\n');
    let _ = rustix::io::write(say, &line);
}

fn watch(order: &Order, say: &OwnedFd) -> io::Result<Said> {
    let script = if order.script { Some(unix::take_extra(2)?) } else { None };
    let me = getpid();
    rustix::process::set_child_subreaper(Some(me))?;
    let Some(step) = unix::fork()? else { become_step(order, script, say, me) };
    drop(script);
    unix::ignore_polite_signals();
    let pidfd = pidfd_open(step, PidfdFlags::empty())?;
    // Whoever inherits our outputs would keep them from ending.
    let status = loop {
        let mut fds = [
            PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(say.as_fd(), PollFlags::empty()),
        ];
        let _ = poll(&mut fds, None);
        if let Ok(Some((_, status))) = waitpid(Some(step), WaitOptions::NOHANG) {
            break Some(status);
        }
        // Nobody listens any more: the agent is gone, and will start the step anew when it comes back.
        if fds[1].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            break None;
        }
    };
    end_all();
    Ok(match (status.and_then(WaitStatus::exit_status), status.and_then(WaitStatus::terminating_signal)) {
        (Some(code), _) => Said::Exited(code),
        (None, Some(signal)) => Said::Signalled(signal),
        (None, None) => Said::Signalled(Signal::KILL.as_raw()),
    })
}

/// Ends what the step left behind. All of it is below this process, which adopts every orphan.
fn end_all() {
    // Usually there is nothing, and the kernel says so at once.
    let childless = || loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    };
    if childless() {
        return;
    }
    kin::kill_all(None, DYING, || if childless() { Vec::new() } else { kin::descendants(getpid()) });
}

/// The child of the keeper: takes everything away from itself, then becomes the step.
#[expect(
    clippy::disallowed_methods,
    reason = "a fork has nothing to return to, and starts nothing: it becomes the step"
)]
fn become_step(order: &Order, script: Option<OwnedFd>, say: &OwnedFd, keeper: Pid) -> ! {
    match confine(order, script, keeper) {
        Ok(()) => {}
        Err(why) => {
            tell(say, &Said::Failed(why));
            std::process::exit(126);
        }
    }
    let Some(program) = &order.program else { std::process::exit(0) };
    let (name, rest) = order.args.split_first().map_or(("", [].as_slice()), |(name, rest)| (name, rest));
    let mut command = std::process::Command::new(program);
    command.arg0(name).args(rest).env_clear();
    command.envs(order.env.iter().map(|(name, value)| (name, value)));
    let error = command.exec();
    tell(
        say,
        &Said::Failed(format!(
            "{} could not be started in the read-only sandbox: {error}",
            program.display()
        )),
    );
    std::process::exit(126)
}

fn confine(order: &Order, script: Option<OwnedFd>, keeper: Pid) -> Result<(), String> {
    let failed = |what: &'static str| {
        move |error: io::Error| format!("the read-only sandbox failed to {what}: {error}")
    };
    let errno = |what: &'static str| move |error: rustix::io::Errno| failed(what)(error.into());
    rustix::process::setsid().map_err(errno("begin a session"))?;
    oom::go_first();
    let at_most = |most| Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::Core, at_most(0)).map_err(errno("forbid core dumps"))?;
    match order.uid {
        Some(uid) => {
            rights::give(io::stdout(), uid).map_err(failed("hand over the step's output"))?;
            rights::give(io::stderr(), uid).map_err(failed("hand over the step's error output"))?;
            mounts::arrange(order).map_err(failed("arrange mounts"))?;
            // Of this user, who is the step's alone.
            setrlimit(Resource::Nproc, at_most(PROCESSES)).map_err(errno("limit its processes"))?;
            let read_all = order.allowed.read == Reading::All;
            rights::become_reader(uid, read_all).map_err(failed("change its user"))?;
        }
        None => rights::give_up().map_err(failed("give up capabilities"))?,
    }
    // After the user has changed, which would forget it again.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(errno("bind the step to its keeper"))?;
    if getppid() != Some(keeper) {
        return Err("the keeper of the step died".to_owned());
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::chdir(&order.cwd).map_err(|error| {
        format!(
            "working directory {} cannot be entered in the read-only sandbox: {error}",
            order.cwd.display()
        )
    })?;
    if let Some(script) = script {
        unix::leave_extra(script.as_fd()).map_err(failed("hand over the script"))?;
    }
    rustix::thread::set_no_new_privs(true).map_err(errno("give up new privileges"))?;
    land::confine(order)
        .map_err(|error| format!("the read-only sandbox failed to set up Landlock: {error}"))?;
    calls::confine(order)
        .map_err(|error| format!("the read-only sandbox failed to set up seccomp: {error}"))?;
    Ok(())
}
