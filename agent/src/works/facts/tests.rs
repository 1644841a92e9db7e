//! Facts of the machine that the tests run on, and of one that hangs.

use std::net::{TcpListener, TcpStream};

use fettle_runbooks::value::Type;

use super::*;
use crate::works::unix::mount;

fn call(fact: FactKind, arg: Option<&str>) -> FactCall {
    FactCall { fact, args: arg.into_iter().map(|arg| Value::String(arg.into())).collect() }
}

const LIMIT: Duration = Duration::from_secs(20);

fn asked(call: &FactCall) -> Reading {
    read(std::slice::from_ref(call), LIMIT, Path::new("/nonexistent")).remove(&call.to_string()).unwrap()
}

fn one(fact: FactKind, arg: Option<&str>) -> Reading {
    asked(&call(fact, arg))
}

pub(super) fn fields(value: Value) -> BTreeMap<String, Value> {
    if let Value::Map(fields) = value { fields } else { panic!("{value:?}") }
}

fn field(reading: &Reading, name: &str) -> Value {
    fields(reading.clone().unwrap())[name].clone()
}

/// Whether a value is of a type; what has no value is null.
pub(super) fn is_of(value: &Value, ty: &Type) -> bool {
    match (value, ty) {
        (Value::Null, _)
        | (Value::Bool(_), Type::Bool)
        | (Value::Int(_), Type::Int)
        | (Value::Number(_), Type::Number)
        | (Value::String(_), Type::String) => true,
        (Value::List(items), Type::List(item)) => items.iter().all(|value| is_of(value, item)),
        (Value::Map(values), Type::Record(fields)) => {
            values.keys().eq(fields.keys()) && values.iter().all(|(name, value)| is_of(value, &fields[name]))
        }
        _ => false,
    }
}

/// The most memory that this process has had since it was last asked, and at first what it has.
pub(super) fn peak() -> u64 {
    static RESET: std::sync::Once = std::sync::Once::new();
    let reset = || std::fs::write("/proc/self/clear_refs", "5").unwrap();
    RESET.call_once(reset);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    reset();
    kib * 1024
}

#[test]
fn every_fact_of_the_language_is_answered_with_its_fields_and_types() {
    let me = std::env::current_exe().unwrap();
    for fact in FactKind::ALL {
        let arg = match fact {
            FactKind::Disk | FactKind::File | FactKind::OpenFiles => Some("/"),
            FactKind::Processes => me.file_name().unwrap().to_str(),
            FactKind::Tcp => Some("127.0.0.1:1"),
            FactKind::Memory | FactKind::Cpu | FactKind::Load => None,
            FactKind::Unit | FactKind::Log(_) => continue, // Each has tests of its own.
        };
        let reading = one(fact, arg);
        let Ok(value) = &reading else { panic!("{} {reading:?}", fact.name()) };
        assert!(is_of(value, &fact.ty()), "{} {value:?}", fact.name());
    }
}

#[test]
fn this_process_is_found_by_its_name() {
    let me = std::env::current_exe().unwrap();
    let reading = one(FactKind::Processes, me.file_name().unwrap().to_str());
    let Value::List(pids) = field(&reading, "pids") else { panic!("{reading:?}") };
    assert!(pids.contains(&Value::Int(std::process::id().into())), "{reading:?}");
}

#[test]
fn each_process_is_told_of_with_its_parent_its_user_and_its_descriptors() {
    let me = std::env::current_exe().unwrap();
    let reading = one(FactKind::Processes, me.file_name().unwrap().to_str());
    let Value::List(all) = field(&reading, "all") else { panic!("{reading:?}") };
    let mine = Value::Int(std::process::id().into());
    let found = all.into_iter().map(fields).find(|fields| fields["pid"] == mine).expect("this process");
    assert_eq!(found["parent_pid"], Value::Int(std::os::unix::process::parent_id().into()));
    assert_eq!(found["uid"], int(rustix::process::geteuid().as_raw().into()));
    assert!(matches!(found["descriptors"], Value::Int(3..)), "{found:?}");
    assert!(matches!(found["memory_bytes"], Value::Int(1_000_000..)), "{found:?}");
}

#[test]
fn a_port_is_open_while_somebody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    assert_eq!(field(&one(FactKind::Tcp, Some(&address)), "open"), Value::Bool(true));
    drop(listener);
    assert_eq!(field(&one(FactKind::Tcp, Some(&address)), "open"), Value::Bool(false));
}

#[test]
fn a_file_that_is_not_there_has_no_size_rather_than_none() {
    let reading = one(FactKind::File, Some("/nonexistent"));
    assert_eq!(field(&reading, "exists"), Value::Bool(false));
    assert_eq!(field(&reading, "size"), Value::Null);
}

#[test]
fn a_port_that_does_not_answer_is_not_open_and_is_not_waited_for() {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let full = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&full, &"127.0.0.1:0".parse::<std::net::SocketAddrV4>().unwrap()).unwrap();
    listen(&full, 0).unwrap();
    let listener = TcpListener::from(full);
    let address = listener.local_addr().unwrap();
    let knock = || TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
    let queue: Vec<_> = std::iter::from_fn(knock).take(100).collect();
    assert!(queue.len() < 100, "its queue is never full");
    let began = Instant::now();
    let reading = tcp::read(&address.to_string(), Duration::from_millis(300));
    assert_eq!(field(&reading, "open"), Value::Bool(false));
    assert!(began.elapsed() < LIMIT);
}

#[test]
fn what_cannot_be_read_says_why() {
    let too_long = format!("/{}", "x".repeat(300));
    for (fact, arg, why) in [
        (FactKind::Disk, "var", "begins with `/`"),
        (FactKind::Disk, "/nonexistent", "No such file"),
        (FactKind::File, "var", "begins with `/`"),
        (FactKind::File, &too_long, "name too long"),
        (FactKind::OpenFiles, "var", "begins with `/`"),
        (FactKind::OpenFiles, "/nonexistent", "No such file"),
        (FactKind::Tcp, "nothing", "no address with a port"),
        (FactKind::Unit, "--all", "cannot be the name of a unit"),
    ] {
        let told = one(fact, Some(arg)).unwrap_err();
        assert!(told.contains(why), "{arg}: {told}");
    }
}

#[test]
fn a_host_that_does_not_show_itself_is_an_error_and_never_a_zero() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: only root can hide /proc, from a thread of its own");
        return;
    }
    let read = || {
        hide("/proc");
        let [memory, cpu, load] = [machine::memory(), machine::cpu(), machine::load()];
        [memory, cpu, load, processes::read("init"), open_files::read("/", LIMIT)]
    };
    let readings = std::thread::spawn(read).join().unwrap();
    for (fact, reading) in ["memory", "cpu", "load", "processes", "open_files"].iter().zip(readings) {
        let why = reading.unwrap_err();
        assert!(!why.is_empty(), "{fact}");
        if matches!(*fact, "processes" | "open_files") {
            assert_eq!(why, NO_PROCESSES, "{fact}");
        }
    }
}

/// Puts an empty directory in front of one, for this thread alone.
#[expect(deprecated, reason = "no descriptor table is unshared, which is what the other name warns of")]
fn hide(dir: &str) {
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
    mount("", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "").unwrap();
    mount("tmpfs", Path::new(dir), "tmpfs", 0, "").unwrap();
}

#[test]
fn a_fact_that_hangs_is_an_error_and_hangs_nobody() {
    fn stuck(call: &FactCall, _: Duration) -> Reading {
        if call.fact == FactKind::Disk {
            std::thread::park_timeout(Duration::from_secs(3600));
        }
        Ok(Value::Null)
    }
    let calls = [call(FactKind::Disk, Some("/hangs")), call(FactKind::Load, None)];
    let facts = read_with(&calls, Duration::from_millis(300), stuck);
    assert_eq!(facts["load"], Ok(Value::Null));
    assert!(facts["disk(\"/hangs\")"].as_ref().unwrap_err().contains("did not answer within"));
    // Asked again, it costs neither time nor another thread.
    let again = read_with(&calls[..1], LIMIT, stuck);
    assert!(again["disk(\"/hangs\")"].as_ref().unwrap_err().contains("still has not"));
}

#[test]
fn only_so_many_steps_wait_for_facts_at_once() {
    let mut turns: Vec<Turn> = (0..TURNS).map(|_| Turn::take().unwrap()).collect();
    assert!(Turn::take().unwrap_err().contains("other steps are waiting"));
    turns.pop();
    turns.push(Turn::take().unwrap());
}
