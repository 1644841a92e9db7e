//! From a rendered step to a process: the program's path, the fixed environment, the account.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::process::Pid;

use crate::crash;

use super::attempt::{Spec, Work};
use super::place::Place;
use super::record::AttemptKey;
use super::sandbox::{self, Confinement, Keeper, Reader};
use super::unix::{self, Birth};

/// Where programs are looked for; a step may set another `PATH` for itself.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What marks every process of an attempt in its environment.
pub(crate) fn marks(key: &AttemptKey) -> [(String, String); 3] {
    [
        ("FETTLE_RUN".into(), key.run.to_string()),
        ("FETTLE_STEP".into(), key.path.clone()),
        ("FETTLE_ATTEMPT".into(), key.attempt.to_string()),
    ]
}

/// The marks as they stand in `/proc/PID/environ`.
pub(crate) fn mark_bytes(key: &AttemptKey) -> Vec<Vec<u8>> {
    marks(key).iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect()
}

/// The whole environment of a step: the fixed one, then its own, which wins except over the marks.
pub(crate) fn environment(spec: &Spec) -> Vec<(String, String)> {
    let marks = marks(&spec.key);
    let mut env: Vec<(String, String)> = marks.into();
    for (name, value) in [("PATH", PATH), ("LANG", "C.UTF-8"), ("HOME", "/")] {
        if !spec.env.contains_key(name) {
            env.push((name.into(), value.into()));
        }
    }
    let own = spec.env.iter().filter(|(name, _)| !name.starts_with("FETTLE_"));
    env.extend(own.map(|(name, value)| (name.clone(), value.clone())));
    env
}

/// Descriptors 0, 1 and 2 of a step.
pub(crate) struct Ends<'a> {
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
}

/// Starts the process of a step that only reads, in a sandbox of its own.
pub(crate) fn launch_reader(spec: &Spec, confinement: &Confinement, ends: &Ends<'_>) -> io::Result<Keeper> {
    if let Some(user) = &spec.user {
        let message = format!("a step that only reads has a user of its own, and cannot be `{user}`");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let (mut args, script) = match &spec.work {
        Work::Argv(words) => (words.clone(), None),
        Work::Script { source, interpreter } => {
            (interpreter.clone(), Some(sandbox::in_memory("script", source.as_bytes())?))
        }
        Work::Service { .. } => {
            let why = "a step that only reads does nothing with a unit";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
    };
    if script.is_some() {
        args.push(format!("/proc/self/fd/{}", unix::EXTRA));
    }
    let env = environment(spec);
    let path = env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, path)| path.as_str());
    let cwd = Path::new(spec.cwd.as_deref().unwrap_or("/"));
    if !cwd.is_dir() {
        return Err(io::Error::other(format!("working directory {} is not there", cwd.display())));
    }
    let program = find(args.first().map_or("", String::as_str), path, cwd)?;
    let reader = Reader { program: &program, args, cwd, script, allowed: &spec.allowed, env };
    confinement.start(reader, [ends.stdin, ends.stdout, ends.stderr])
}

/// Starts the process of a step, whose directory is `place`: a script is first written there.
pub(crate) fn launch(spec: &Spec, helper: &Path, place: &Place, ends: &Ends<'_>) -> io::Result<Pid> {
    let account = spec.user.as_deref().map(account).transpose()?;
    let (mut args, text) = match &spec.work {
        Work::Argv(words) => (words.clone(), None),
        Work::Script { source, interpreter } => (interpreter.clone(), Some(source)),
        Work::Service { .. } if account.is_some() => {
            let why = "what is done with a unit is done by the agent's own user";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Work::Service { .. } => return launch_ourselves(spec, helper, place, ends),
    };
    let script = &place.file("script");
    let mut extra = None;
    if let Some(text) = text {
        write_script(script, text)?;
        match &account {
            None => args.push(script.to_string_lossy().into_owned()),
            // That account cannot walk down to our private directory; a descriptor opens the file all the same.
            Some(account) => {
                extra = Some(hand_over(script, account)?);
                args.push(format!("/proc/self/fd/{}", unix::EXTRA));
            }
        }
    }
    let env = environment(spec);
    let path = env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, path)| path.as_str());
    let cwd = Path::new(spec.cwd.as_deref().unwrap_or("/"));
    if !cwd.is_dir() {
        return Err(io::Error::other(format!("working directory {} is not there", cwd.display())));
    }
    let program = find(args.first().map_or("", String::as_str), path, cwd)?;
    let (program, args) = match &account {
        None => (program, args),
        Some(account) => (helper.to_owned(), as_account(account, &program, &args)),
    };
    unix::spawn(&Birth {
        program: &program,
        args: &args,
        env: &env,
        cwd,
        fds: [ends.stdin, ends.stdout, ends.stderr],
        extra: extra.iter().map(AsFd::as_fd).collect(),
        group: None,
    })
}

/// Starts this program as the process of a step: it reads the step's order itself.
fn launch_ourselves(spec: &Spec, helper: &Path, place: &Place, ends: &Ends<'_>) -> io::Result<Pid> {
    let args = ["fettle-agent".into(), super::shim::WORD.into(), "service".into()];
    let dir = place.dir().to_string_lossy().into_owned();
    unix::spawn(&Birth {
        program: helper,
        args: &args.into_iter().chain([dir]).collect::<Vec<_>>(),
        env: &[environment(spec), crash::told()].concat(),
        cwd: Path::new("/"),
        fds: [ends.stdin, ends.stdout, ends.stderr],
        extra: vec![],
        group: None,
    })
}

fn write_script(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    super::disk::create(path, 0o700)?.write_all(text.as_bytes())
}

fn hand_over(script: &Path, account: &Account) -> io::Result<OwnedFd> {
    rustix::fs::chown(script, Some(account.uid), Some(account.gid))?;
    Ok(rustix::fs::open(script, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The file a program's name means, looked up as a shell does, but in the step's own `PATH`.
fn find(program: &str, path: &str, cwd: &Path) -> io::Result<PathBuf> {
    if program.contains('/') {
        return Ok(cwd.join(program));
    }
    let can_run =
        |file: &PathBuf| file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok();
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no `{program}` in {path}"));
    if program.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program is named"));
    }
    path.split(':').map(|dir| cwd.join(dir).join(program)).find(can_run).ok_or_else(missing)
}

/// An account of this host.
struct Account {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

/// Reads `/etc/passwd` and `/etc/group`. Accounts that only a directory service knows are not found: asking it may
/// take a network that is down.
fn account(name: &str) -> io::Result<Account> {
    let passwd = std::fs::read_to_string("/etc/passwd")?;
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("no account `{name}` in /etc/passwd"));
    let mut fields = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name))
        .ok_or_else(unknown)?
        .into_iter()
        .skip(2)
        .map(|number| number.parse::<u32>().ok());
    let (Some(Some(uid)), Some(Some(gid))) = (fields.next(), fields.next()) else { return Err(unknown()) };
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let mut all = vec![Gid::from_raw(gid)];
    all.extend(groups.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        let gid = fields.next()?.parse().ok()?;
        fields.next()?.split(',').any(|member| member == name).then(|| Gid::from_raw(gid))
    }));
    Ok(Account { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups: all })
}

/// The command line of the helper that becomes the account and then the program: see [`become_account`].
fn as_account(account: &Account, program: &Path, args: &[String]) -> Vec<String> {
    let groups: Vec<String> = account.groups.iter().map(|gid| gid.as_raw().to_string()).collect();
    let head = [
        "fettle-agent".into(),
        super::shim::WORD.into(),
        "as".into(),
        account.uid.as_raw().to_string(),
        account.gid.as_raw().to_string(),
        groups.join(","),
        program.to_string_lossy().into_owned(),
    ];
    head.into_iter().chain(args.iter().cloned()).collect()
}

/// Becomes another account and then a program, for good: the arguments are what [`as_account`] wrote. Returns only the
/// error.
#[expect(clippy::disallowed_methods, reason = "nothing is started: this process becomes the step")]
pub(crate) fn become_account(args: &[String]) -> io::Error {
    use std::os::unix::process::CommandExt as _;
    let [uid, gid, groups, program, name, rest @ ..] = args else {
        return io::Error::new(io::ErrorKind::InvalidInput, "too few arguments");
    };
    let id = |text: &str| text.parse::<u32>().map_err(io::Error::other);
    let change = || -> io::Result<()> {
        let groups =
            groups.split(',').map(|gid| id(gid).map(Gid::from_raw)).collect::<Result<Vec<_>, _>>()?;
        let (uid, gid) = (Uid::from_raw(id(uid)?), Gid::from_raw(id(gid)?));
        // Per thread for the kernel, and this process has one.
        rustix::thread::set_thread_groups(&groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    };
    match change() {
        Ok(()) => std::process::Command::new(program).arg0(name).args(rest).exec(),
        Err(error) => error,
    }
}
