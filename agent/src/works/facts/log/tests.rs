//! Logs that the tests write: files of every form, and a journal.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use jiff::{Timestamp, ToSpan as _};
use tempfile::TempDir;

use super::super::tests::peak;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

/// A directory that anybody may read, as that of a log.
fn place() -> TempDir {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

fn write(path: &Path, text: &str) -> PathBuf {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
    path.to_owned()
}

fn ask(question: Question, target: &Path, pattern: &str, since: Duration) -> Reading {
    let text = |text: &str| Value::String(text.to_owned());
    let args = [text(target.to_str().unwrap()), text(pattern), Value::Duration(since)];
    read(question, &args, PATIENCE, Path::new("/nonexistent/state"))
}

fn count(target: &Path, pattern: &str, since: Duration) -> Reading {
    ask(Question::Count, target, pattern, since)
}

fn why(reading: Reading) -> String {
    match reading {
        Err(why) => why,
        Ok(value) => panic!("{value:?}"),
    }
}

/// The stamp of so many minutes ago.
fn ago(minutes: i64) -> String {
    format!("{:.0}", Timestamp::now() - minutes.minutes())
}

#[test]
fn a_log_is_asked_for_what_was_written_lately() {
    let dir = place();
    let text = format!(
        "{} ERROR old\n{} INFO fine\n{} ERROR first\n{} ERROR a.b second\n{} INFO end\n",
        ago(90),
        ago(70),
        ago(30),
        ago(20),
        ago(1)
    );
    let log = write(&dir.path().join("app.log"), &text);
    assert_eq!(count(&log, "ERROR", HOUR), Ok(Value::Int(2)));
    assert_eq!(count(&log, "ERROR", HOUR * 2), Ok(Value::Int(3)));
    assert_eq!(count(&log, "a.b", HOUR), Ok(Value::Int(1)));
    assert_eq!(ask(Question::Matches, &log, "ERROR .*second$", HOUR), Ok(Value::Bool(true)));
    assert_eq!(ask(Question::Matches, &log, "ERROR", HOUR / 6), Ok(Value::Bool(false)));
    let Ok(Value::String(last)) = ask(Question::Last, &log, "ERROR", HOUR) else { panic!() };
    assert!(last.ends_with("ERROR a.b second"), "{last}");
    assert_eq!(ask(Question::Last, &log, "nothing", HOUR), Ok(Value::String(String::new())));
}

#[test]
fn a_line_without_a_stamp_belongs_to_the_stamped_one_before() {
    let dir = place();
    let text = format!(
        "{} boom\n  at old.rs\n{} boom\n  at main.rs\n  caused by 2019-01-01 00:00:00 disk\n",
        ago(90),
        ago(5)
    );
    let log = write(&dir.path().join("app.log"), &text);
    assert_eq!(count(&log, "^  at ", HOUR), Ok(Value::Int(1)));
    assert_eq!(
        ask(Question::Last, &log, "caused by", HOUR).unwrap().literal(),
        "\"  caused by 2019-01-01 00:00:00 disk\""
    );
}

#[test]
fn a_log_that_was_just_rotated_is_read_on_in_the_one_before() {
    let dir = place();
    let log = write(&dir.path().join("app.log"), &format!("{} ERROR now\n", ago(1)));
    write(&dir.path().join("app.log.1"), &format!("{} ERROR old\n{} ERROR before\n", ago(90), ago(10)));
    assert_eq!(count(&log, "ERROR", HOUR), Ok(Value::Int(2)));
    write(&log, "");
    assert_eq!(count(&log, "ERROR", HOUR), Ok(Value::Int(1)));
    // It reaches back far enough by itself.
    write(&log, &format!("{} ERROR long ago\n{} ERROR now\n", ago(80), ago(1)));
    assert_eq!(count(&log, "ERROR", HOUR), Ok(Value::Int(1)));
}

#[test]
fn whatever_a_log_was_rotated_into_is_read_or_named_and_never_taken_for_nothing() {
    let dir = place();
    let log = write(&dir.path().join("app.log"), &format!("{} INFO\n", ago(1)));
    let rotated = |name: &str, text: &str| write(&dir.path().join(name), text);
    let lines = |minutes| format!("{} ERROR\n", ago(minutes));
    // What is called alike is no part of it.
    for other in ["app.log.pos", "app.logs.1", "app.log-errors", "app.lo.1"] {
        rotated(other, &lines(2));
    }
    assert_eq!(count(&log, "ERROR", HOUR), Ok(Value::Int(0)));
    rotated("app.log.2", &lines(20));
    rotated("app.log.1", &lines(10));
    assert_eq!(count(&log, "ERROR", HOUR), Ok(Value::Int(2)));
    let dated = rotated("app.log-20261121", &lines(30));
    assert_eq!(count(&log, "ERROR", HOUR), Ok(Value::Int(3)));
    let link = dir.path().join("link.log");
    std::os::unix::fs::symlink(&log, &link).unwrap();
    assert_eq!(count(&link, "ERROR", HOUR), Ok(Value::Int(3)));
    for name in ["app.log.3.gz", "app.log-20261121.xz", "app.log.1.zst"] {
        let packed = rotated(name, "packed");
        let told = why(count(&log, "ERROR", HOUR));
        assert!(told.contains(name) && told.contains("compressed"), "{told}");
        // What is certain is certain.
        assert_eq!(ask(Question::Matches, &log, "INFO", HOUR), Ok(Value::Bool(true)));
        let old = packed.metadata().unwrap().modified().unwrap() - 2 * HOUR;
        OpenOptions::new().write(true).open(&packed).unwrap().set_modified(old).unwrap();
        assert_eq!(count(&log, "ERROR", HOUR), Ok(Value::Int(3)), "{name} is older than what is asked for");
    }
    // A name twice is one file.
    std::fs::remove_file(&dated).unwrap();
    std::fs::hard_link(dir.path().join("app.log.1"), &dated).unwrap();
    assert_eq!(count(&log, "ERROR", HOUR), Ok(Value::Int(2)));
}

#[test]
fn a_stranger_who_backdates_a_line_hides_nothing_above_it() {
    let dir = place();
    let forged = "192.0.2.1 - x [01/Jan/2001:00:00:00 +0000] \"GET / HTTP/1.1\" 200\n".repeat(50);
    let text = format!("{} ERROR real\n{forged}{} INFO end\n", ago(9), ago(1));
    let log = write(&dir.path().join("access.log"), &text);
    assert_eq!(ask(Question::Matches, &log, "ERROR", HOUR), Ok(Value::Bool(true)));
}

#[test]
fn a_date_in_the_name_of_a_user_is_not_the_time_of_a_request() {
    let dir = place();
    let now = (Timestamp::now() - 1.minutes()).strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
    let old = "[01/Jan/2020:00:00:00 +0000]";
    for user in [format!("x {old} y"), format!("x {old} \\\" y"), format!("[ {old}")] {
        let line = format!("192.0.2.1 - {user} [{now}] \"GET / HTTP/1.1\" 401 0\n");
        let text = format!("{} ERROR real\n{}", ago(9), line.repeat(300));
        let log = write(&dir.path().join("access.log"), &text);
        assert_eq!(ask(Question::Matches, &log, "ERROR", HOUR), Ok(Value::Bool(true)), "{user}");
    }
}

#[test]
fn old_lines_end_the_reading_only_where_their_times_do_not_rise() {
    let dir = place();
    let lines =
        |minutes: &dyn Fn(i64) -> i64| (0..1000).map(|n| format!("{} old\n", ago(minutes(n)))).collect();
    let of = |old: String| {
        let text = format!("{} ERROR real\n{old}{} INFO end\n", ago(9), ago(1));
        ask(Question::Matches, &write(&dir.path().join("app.log"), &text), "ERROR", HOUR)
    };
    assert_eq!(of(lines(&|n| 9000 + n % 100 * 30)), Ok(Value::Bool(true)), "up and down");
    assert_eq!(of(lines(&|n| 9000 + n)), Ok(Value::Bool(true)), "up");
    assert_eq!(of(lines(&|n| 9000 - n)), Ok(Value::Bool(false)), "as logs are");
    assert_eq!(of(lines(&|n| 9000 - n + n % 2 * 5)), Ok(Value::Bool(false)), "nearly in order");
}

#[test]
fn a_stamp_without_a_zone_is_of_the_zone_in_which_the_file_was_just_written() {
    let dir = place();
    // The file says UTC; a host at UTC+2 must not take it for two hours old, nor the other way round.
    let utc = Timestamp::now() - 2.minutes();
    let log = write(&dir.path().join("app.log"), &format!("{} ERROR now\n", utc.strftime("%F %T")));
    assert_eq!(count(&log, "ERROR", Duration::from_secs(600)), Ok(Value::Int(1)));
}

#[test]
fn a_file_that_nobody_wrote_to_since_has_nothing_and_one_without_stamps_is_an_error() {
    let dir = place();
    let log = write(&dir.path().join("plain.log"), "ERROR without a time\n");
    assert!(why(count(&log, "ERROR", HOUR)).contains("do not begin with a time"));
    let old = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    OpenOptions::new().write(true).open(&log).unwrap().set_modified(old).unwrap();
    assert_eq!(count(&log, "ERROR", HOUR), Ok(Value::Int(0)));
}

#[test]
fn what_is_no_file_is_refused_and_hangs_nobody() {
    let dir = place();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    for target in [fifo.as_path(), dir.path(), Path::new("/dev/zero"), Path::new("/dev/log")] {
        let why = why(count(target, "x", HOUR));
        assert!(why.contains("not a regular file") || why.contains("no such file"), "{target:?}: {why}");
    }
    assert!(why(count(&dir.path().join("none"), "x", HOUR)).contains("no such file"));
    assert!(why(count(Path::new("/proc/self/status"), "x", HOUR)).contains("the kernel's"));
    // A link to a log is one; its rotated sibling may not lead elsewhere either.
    let log = write(&dir.path().join("app.log"), &format!("{} x\n", ago(1)));
    let link = dir.path().join("link.log");
    std::os::unix::fs::symlink(&log, &link).unwrap();
    assert_eq!(count(&link, "x", HOUR), Ok(Value::Int(1)));
    std::os::unix::fs::symlink(&fifo, dir.path().join("app.log.1")).unwrap();
    assert!(why(count(&log, "x", HOUR)).contains("app.log.1: not a regular file"));
}

#[test]
fn no_secret_is_a_log_by_whatever_name() {
    let dir = place();
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let own = write(&state.join("journal.log"), &format!("{} x\n", ago(1)));
    let args = |target: &Path| {
        let target = Value::String(target.to_str().unwrap().to_owned());
        [target, Value::String(".*".into()), Value::Duration(HOUR)]
    };
    let told = read(Question::Last, &args(&own), PATIENCE, &state);
    assert!(told.as_ref().is_err_and(|why| why.contains("list of secrets")), "{told:?}");
    let link = dir.path().join("shadow.log");
    std::os::unix::fs::symlink("/etc/shadow", &link).unwrap();
    for target in [Path::new("/etc/shadow"), &link] {
        let told = read(Question::Last, &args(target), PATIENCE, &state);
        assert!(told.is_err(), "{told:?}");
    }
}

#[test]
fn what_only_root_may_read_is_a_log_below_the_directory_of_logs_alone() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: only root can read what others may not");
        return;
    }
    let dir = place();
    let private = write(&dir.path().join("app.conf"), &format!("{} password=x\n", ago(1)));
    std::fs::set_permissions(&private, PermissionsExt::from_mode(0o640)).unwrap();
    assert!(why(count(&private, "x", HOUR)).contains("nor readable by everybody"));
    std::fs::set_permissions(&private, PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(count(&private, "x", HOUR), Ok(Value::Int(1)));
    // What nobody can get to is not readable by everybody.
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
    assert!(why(count(&private, "x", HOUR)).contains("nor readable by everybody"));

    let logs = tempfile::tempdir_in("/var/log").unwrap();
    let log = write(&logs.path().join("app.log"), &format!("{} x\n", ago(1)));
    std::fs::set_permissions(&log, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(count(&log, "x", HOUR), Ok(Value::Int(1)));
    // A link out of there leads out of there.
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&private, PermissionsExt::from_mode(0o600)).unwrap();
    let link = logs.path().join("link.log");
    std::os::unix::fs::symlink(&private, &link).unwrap();
    assert!(why(count(&link, "x", HOUR)).contains("nor readable by everybody"));
}

#[test]
fn what_is_too_much_to_read_is_an_error_unless_the_answer_is_certain() {
    let dir = place();
    let path = dir.path().join("big.log");
    let mut file = File::create(&path).unwrap();
    let line = format!("{} {}\n", ago(3), "x".repeat(1000));
    file.write_all(format!("{} ERROR first\n", ago(4)).as_bytes()).unwrap();
    file.write_all(line.repeat(17 * 1024).as_bytes()).unwrap();
    file.write_all(format!("{} WARN last\n", ago(1)).as_bytes()).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(ask(Question::Matches, &path, "WARN", HOUR), Ok(Value::Bool(true)));
    for question in [Question::Matches, Question::Count, Question::Last] {
        let why = why(ask(question, &path, "ERROR", HOUR));
        assert!(why.contains("16 MiB") && why.contains("ask for a shorter time"), "{why}");
    }
    assert_eq!(ask(Question::Matches, &path, "ERROR", Duration::from_secs(120)), Ok(Value::Bool(false)));
}

#[test]
fn a_line_may_be_as_long_as_it_likes() {
    let dir = place();
    let text = format!("{} A{}\n{} B\n", ago(3), "x".repeat(3_000_000), ago(2));
    let log = write(&dir.path().join("long.log"), &text);
    assert_eq!(count(&log, " [AB]", HOUR), Ok(Value::Int(2)));
    let Ok(Value::String(last)) = ask(Question::Last, &log, "A", HOUR) else { panic!() };
    assert_eq!(last.len(), MOST_TOLD);
}

#[test]
fn a_line_as_long_as_all_that_is_read_fills_no_memory() {
    let dir = place();
    let log = write(&dir.path().join("long.log"), "");
    let mut file = File::options().append(true).open(&log).unwrap();
    writeln!(file, "{} A", ago(3)).unwrap();
    for _ in 0..15 * 16 {
        file.write_all(&[0xff; 64 * 1024]).unwrap();
    }
    writeln!(file, "\n\n{} B", ago(2)).unwrap();
    let before = peak();
    assert_eq!(count(&log, "^$", HOUR), Ok(Value::Int(1)));
    let took = peak().saturating_sub(before);
    assert!(took < 10 * 1024 * 1024, "{took} bytes for a line of 15 MiB");
}

#[test]
fn only_so_many_logs_are_read_at_once_and_the_others_wait() {
    let later = || Instant::now() + PATIENCE;
    let turns: Vec<Turn> = (0..TURNS).map(|_| Turn::take(later()).unwrap()).collect();
    let why = Turn::take(Instant::now()).err().unwrap();
    assert!(why.contains("other logs are being read"), "{why}");
    let waits = std::thread::spawn(move || Turn::take(later()).map(drop));
    drop(turns);
    assert_eq!(waits.join().unwrap(), Ok(()));
}

#[test]
fn lines_come_backwards_whole_however_they_lie_in_blocks() {
    let dir = place();
    for length in [1usize, 63, 64, 65, 1000, 65_535, 65_536, 65_537, 200_000] {
        for end in ["\n", ""] {
            let body = "y".repeat(length);
            let text = format!("{} a {body}\n\n{} b {body}\n{} c {body}{end}", ago(3), ago(2), ago(1));
            let log = write(&dir.path().join("blocks.log"), &text);
            assert_eq!(count(&log, "Z [abc] y+$", HOUR), Ok(Value::Int(3)), "{length}");
            assert_eq!(count(&log, "", HOUR), Ok(Value::Int(4)), "{length}");
        }
    }
}

mod journal_of {
    //! A journal that systemd's own tool makes of what the test says, and one that is not there.

    use std::process::{Command, Stdio};

    use super::super::journal;
    use super::*;

    fn asking(question: Question, pattern: &str, since: Duration) -> Ask {
        Ask {
            question,
            pattern: Pattern::new(pattern).unwrap(),
            from_ms: wall_ms() - since.as_millis() as i64,
            now_ms: wall_ms(),
            deadline: Instant::now() + PATIENCE,
        }
    }

    const REMOTE: &str = "/lib/systemd/systemd-journal-remote";
    const JOURNALCTL: &str = "/usr/bin/journalctl";

    #[expect(clippy::disallowed_methods, reason = "a test starts its own")]
    fn journal(dir: &Path, lines: &[(&str, i64, &str)]) -> PathBuf {
        let path = dir.join("test.journal");
        let mut child = Command::new(REMOTE)
            .args(["--split-mode=none", "--output"])
            .arg(&path)
            .arg("-")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        for (number, (unit, minutes, message)) in lines.iter().enumerate() {
            let at = (wall_ms() - minutes * 60_000) * 1000 + number as i64;
            let size = (message.len() as u64).to_le_bytes();
            write!(stdin, "__REALTIME_TIMESTAMP={at}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID=0123456789abcdef0123456789abcdef\n_SYSTEMD_UNIT={unit}\nMESSAGE\n", number + 1).unwrap();
            stdin.write_all(&size).unwrap();
            write!(stdin, "{message}\n\n").unwrap();
        }
        drop(stdin);
        assert!(child.wait().unwrap().success());
        path
    }

    fn is_there() -> bool {
        let there = Path::new(REMOTE).exists() && Path::new(JOURNALCTL).exists();
        if !there {
            eprintln!("NOT RUN: systemd-journal-remote is not installed, so no journal can be made");
        }
        there
    }

    fn told(more: &[PathBuf], unit: &str, ask: &Ask) -> Result<Value, String> {
        journal::ask_program(Path::new(JOURNALCTL), more, unit, ask).map(|hits| hits.answer(ask.question))
    }

    #[test]
    fn is_asked_for_what_its_unit_wrote_lately() {
        if !is_there() {
            return;
        }
        let dir = place();
        let path = journal(
            dir.path(),
            &[
                ("demo.service", 90, "ERROR old"),
                ("demo.service", 30, "ERROR first\nwith a second line"),
                ("other.service", 20, "ERROR of another"),
                ("demo.service", 10, "ERROR last"),
                ("demo.service", 1, "-- No entries --"),
            ],
        );
        let file = [PathBuf::from(format!("--file={}", path.display()))];
        let of = |question, pattern, since| told(&file, "demo.service", &asking(question, pattern, since));
        assert_eq!(of(Question::Count, "ERROR", HOUR), Ok(Value::Int(2)));
        assert_eq!(of(Question::Count, "^with a second", HOUR), Ok(Value::Int(1)));
        assert_eq!(of(Question::Last, "ERROR", HOUR), Ok(Value::String("ERROR last".into())));
        assert_eq!(of(Question::Matches, "old", HOUR), Ok(Value::Bool(false)));
        assert_eq!(of(Question::Matches, "old", HOUR * 2), Ok(Value::Bool(true)));
        let nobody = told(&file, "nobody.service", &asking(Question::Count, "", HOUR));
        assert_eq!(nobody, Ok(Value::Int(0)));
    }

    #[test]
    fn a_host_without_one_has_none_rather_than_an_empty_one() {
        let dir = place();
        assert!(!journal::is_kept(&dir.path().join("none")));
        assert!(!journal::is_kept(dir.path()));
        let machine = dir.path().join("0123456789abcdef0123456789abcdef");
        std::fs::create_dir(&machine).unwrap();
        assert!(!journal::is_kept(dir.path()));
        write(&machine.join("system.journal"), "");
        assert!(journal::is_kept(dir.path()));
    }

    fn program(dir: &Path, script: &str) -> PathBuf {
        let path = dir.join("journalctl");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn whatever_it_complains_of_is_an_error_unless_the_answer_is_certain() {
        let dir = place();
        let hint = "Hint: You are currently not seeing messages from other users and the system.";
        let program = program(dir.path(), &format!("echo fine; echo '{hint}' >&2"));
        let of = |pattern| {
            journal::ask_program(&program, &[], "a.service", &asking(Question::Matches, pattern, HOUR))
        };
        assert!(of("fine").unwrap().count > 0);
        assert!(of("nothing").unwrap_err().contains("systemd-journal"));
        let program = self::program(dir.path(), "exit 3");
        let why = journal::ask_program(&program, &[], "a.service", &asking(Question::Count, "x", HOUR))
            .unwrap_err();
        assert!(why.contains("exit status: 3"), "{why}");
        let missing = dir.path().join("missing");
        let why = journal::ask_program(&missing, &[], "a.service", &asking(Question::Count, "x", HOUR))
            .unwrap_err();
        assert!(why.contains("cannot be started"), "{why}");
    }

    #[test]
    fn it_is_ended_when_its_time_is_over_or_it_says_too_much() {
        let dir = place();
        let pid = dir.path().join("pid");
        let program = program(dir.path(), &format!("echo $$ > {}; exec sleep 1000", pid.display()));
        let ask =
            Ask { deadline: Instant::now() + Duration::from_secs(1), ..asking(Question::Count, "x", HOUR) };
        let why = journal::ask_program(&program, &[], "a.service", &ask).unwrap_err();
        assert!(why.contains("in time"), "{why}");
        let pid = std::fs::read_to_string(pid).unwrap();
        assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists(), "{pid} is still there");

        let program = self::program(dir.path(), "exec yes");
        let why = journal::ask_program(&program, &[], "a.service", &asking(Question::Count, "x", HOUR))
            .unwrap_err();
        assert!(why.contains("16 MiB"), "{why}");
    }

    #[test]
    fn a_message_without_an_end_fills_no_memory_and_takes_no_time_to_speak_of() {
        let dir = place();
        let program = program(dir.path(), "head -c 15000000 /dev/zero | tr '\\0' x; echo; echo END");
        let ask = asking(Question::Count, "x|END", HOUR);
        let before = peak();
        let told = journal::ask_program(&program, &[], "a.service", &ask);
        let took = peak().saturating_sub(before);
        assert_eq!(told.map(|hits| hits.count), Ok(2));
        assert!(took < 10 * 1024 * 1024, "{took} bytes for a line of 15 MB");
    }

    #[test]
    fn it_ends_with_whoever_asked_even_if_nobody_ended_it() {
        let dir = place();
        let program = program(dir.path(), "exec sleep 1000");
        let start = move || {
            let ask = asking(Question::Count, "x", HOUR);
            let running = journal::Running::start(&program, &[], "a.service", &ask).unwrap();
            let running = std::mem::ManuallyDrop::new(running);
            running.child.id()
        };
        let pid = std::thread::spawn(start).join().unwrap().cast_signed();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let until = Instant::now() + PATIENCE;
        let ended = loop {
            let ended = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG).unwrap();
            if ended.is_some() || Instant::now() > until {
                break ended;
            }
            std::thread::yield_now();
        };
        if ended.is_none() {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        assert_eq!(ended.and_then(|(_, status)| status.terminating_signal()), Some(9), "it is still there");
    }

    #[test]
    fn no_value_becomes_an_option_or_a_pattern_of_units() {
        let options = ["", "-x", "--file=/etc/shadow"];
        let patterns = ["a b", "*", "a?", "[a]", "../x", "a/b", "a\nb", "a\0", ".x", "ü"];
        for name in options.into_iter().chain(patterns).chain([&*"a".repeat(300)]) {
            let why = journal::read(name, &asking(Question::Count, "x", HOUR)).unwrap_err();
            assert!(why.contains("neither an absolute path nor the name of a unit"), "{name:?}: {why}");
        }
    }
}
