//! Facts of the machine that the tests run on, and of one that hangs.

use std::net::TcpListener;

use super::*;

fn call(name: &str, arg: Option<&str>) -> FactCall {
    FactCall { name: name.into(), args: arg.into_iter().map(|arg| Value::String(arg.into())).collect() }
}

const LIMIT: Duration = Duration::from_secs(20);

fn one(name: &str, arg: Option<&str>) -> Reading {
    let call = call(name, arg);
    read(std::slice::from_ref(&call), LIMIT).remove(&call.to_string()).unwrap()
}

fn field(reading: &Reading, name: &str) -> Value {
    match reading {
        Ok(Value::Map(fields)) => fields[name].clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_fact_of_the_language_is_answered_with_its_fields_and_types() {
    for kind in FactKind::ALL {
        let arg = match kind {
            FactKind::Disk | FactKind::File => Some("/"),
            FactKind::Processes => Some("no-such-process"),
            FactKind::Tcp => Some("127.0.0.1:1"),
            FactKind::Memory | FactKind::Cpu | FactKind::Load => None,
        };
        let reading = one(kind.name(), arg);
        let Ok(Value::Map(fields)) = &reading else { panic!("{} {reading:?}", kind.name()) };
        let mut expected: Vec<_> = kind.fields().iter().map(|(name, _)| *name).collect();
        expected.sort_unstable();
        assert_eq!(fields.keys().collect::<Vec<_>>(), expected, "{}", kind.name());
    }
}

#[test]
fn this_process_is_found_by_its_name() {
    let me = std::env::current_exe().unwrap();
    let reading = one("processes", me.file_name().unwrap().to_str());
    let Value::List(pids) = field(&reading, "pids") else { panic!("{reading:?}") };
    assert!(pids.contains(&Value::Int(std::process::id().into())), "{reading:?}");
}

#[test]
fn a_port_is_open_while_somebody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    assert_eq!(field(&one("tcp", Some(&address)), "open"), Value::Bool(true));
    drop(listener);
    assert_eq!(field(&one("tcp", Some(&address)), "open"), Value::Bool(false));
}

#[test]
fn a_file_that_is_not_there_has_no_size_rather_than_none() {
    let reading = one("file", Some("/nonexistent"));
    assert_eq!(field(&reading, "exists"), Value::Bool(false));
    assert_eq!(field(&reading, "size"), Value::Null);
}

#[test]
fn what_cannot_be_read_says_why() {
    for (name, arg) in
        [("disk", Some("/nonexistent")), ("disk", Some("var")), ("tcp", Some("nothing")), ("weather", None)]
    {
        let reading = one(name, arg);
        assert!(reading.as_ref().is_err_and(|why| !why.is_empty()), "{name}: {reading:?}");
    }
}

#[test]
fn a_fact_that_hangs_is_an_error_and_hangs_nobody() {
    fn stuck(call: &FactCall, _: Duration) -> Reading {
        if call.name == "hangs" {
            std::thread::park_timeout(Duration::from_secs(3600));
        }
        Ok(Value::Null)
    }
    let calls = [call("hangs", None), call("answers", None)];
    let facts = read_with(&calls, Duration::from_millis(300), stuck);
    assert_eq!(facts["answers"], Ok(Value::Null));
    assert!(facts["hangs"].as_ref().unwrap_err().contains("did not answer within"));
    // Asked again, it costs neither time nor another thread.
    let again = read_with(&calls[..1], LIMIT, stuck);
    assert!(again["hangs"].as_ref().unwrap_err().contains("still has not"));
}
