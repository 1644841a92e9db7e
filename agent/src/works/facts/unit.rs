//! `unit("nginx")`: what systemd knows of a unit. One that does not exist is an answer; systemd not answering is none.

use std::path::Path;
use std::time::Duration;

use fettle_runbooks::unit::UnitName;
use fettle_runbooks::value::Value;
use rustix::time::{ClockId, clock_gettime};

use super::{Reading, int, record};
use crate::works::systemd::{self, Last, Systemd, Unit};

pub(super) fn read(name: &str, patience: Duration) -> Reading {
    read_at(Path::new(systemd::SOCKET), name, patience)
}

/// From a bus at a socket.
pub(super) fn read_at(socket: &Path, name: &str, patience: Duration) -> Reading {
    let name: UnitName =
        name.parse().map_err(|why| format!("`{name}` cannot be the name of a unit: {why}"))?;
    if name.is_template() {
        return Err(format!("`{name}` is a template, which is no unit itself: name one of its instances"));
    }
    // A little less than the fact has: then its own reason is told.
    let asked =
        systemd::wait(patience.mul_f64(0.8), async { Systemd::connect(socket).await?.unit(&name).await });
    let unit = asked.map_err(|no| no.to_string())?;
    let now = clock_gettime(ClockId::Monotonic);
    Ok(fields(&unit, u64::try_from(now.tv_sec).unwrap_or(0)))
}

/// `now`: seconds of the monotonic clock.
pub(super) fn fields(unit: &Unit, now: u64) -> Value {
    let text = |text: &str| Value::String(text.to_owned());
    let exists = unit.load_state == "loaded";
    let active = matches!(&*unit.active_state, "active" | "reloading" | "refreshing");
    let active_since = Some(unit.active_since_us / 1_000_000).filter(|_| active && unit.active_since_us > 0);
    let exit_status = unit.last.map(|last| match last {
        Last::Exit(code) => code,
        // As shells say it.
        Last::Signal(signal) => 128 + signal,
    });
    record([
        ("exists", Value::Bool(exists)),
        ("load_state", text(&unit.load_state)),
        ("active_state", text(&unit.active_state)),
        ("sub_state", text(&unit.sub_state)),
        ("active", Value::Bool(active)),
        ("failed", Value::Bool(unit.active_state == "failed")),
        ("result", text(&unit.result)),
        ("main_pid", unit.main_pid.map_or(Value::Null, |pid| int(pid.into()))),
        ("restarts", int(unit.restarts.into())),
        ("active_seconds", active_since.map_or(Value::Null, |since| int(now.saturating_sub(since)))),
        ("exit_status", exit_status.map_or(Value::Null, |status| Value::Int(status.into()))),
        ("enabled", text(&unit.unit_file_state)),
        ("can_reload", Value::Bool(exists && unit.can_reload)),
        ("can_restart", Value::Bool(exists && unit.can_start && unit.can_stop)),
        ("memory_bytes", unit.memory_bytes.map_or(Value::Null, int)),
        ("description", text(&unit.description)),
    ])
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::Instant;

    use fettle_runbooks::expr::facts::FactKind;

    use super::super::tests::{fields as map, is_of};
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn the_fact_has_the_fields_of_the_language_and_null_for_what_there_is_not() {
        let running = Unit {
            load_state: "loaded".into(),
            active_state: "active".into(),
            main_pid: Some(7),
            active_since_us: 3_000_000,
            memory_bytes: Some(5),
            last: Some(Last::Signal(9)),
            can_start: true,
            can_stop: true,
            ..Unit::default()
        };
        let absent =
            Unit { load_state: "not-found".into(), active_state: "inactive".into(), ..Unit::default() };
        for unit in [&running, &absent] {
            assert!(is_of(&fields(unit, 10), &FactKind::Unit.ty()), "{unit:?}");
        }
        let (running, absent) = (map(fields(&running, 10)), map(fields(&absent, 10)));
        for (name, of_running, of_absent) in [
            ("exists", Value::Bool(true), Value::Bool(false)),
            ("active", Value::Bool(true), Value::Bool(false)),
            ("main_pid", Value::Int(7), Value::Null),
            ("active_seconds", Value::Int(7), Value::Null),
            ("exit_status", Value::Int(137), Value::Null),
            ("memory_bytes", Value::Int(5), Value::Null),
            ("can_restart", Value::Bool(true), Value::Bool(false)),
        ] {
            assert_eq!((&running[name], &absent[name]), (&of_running, &of_absent), "{name}");
        }
    }

    #[test]
    fn what_is_no_name_of_a_unit_is_not_asked_for() {
        let nowhere = Path::new("/nonexistent");
        for (name, why) in [("a b", "has ` ` in it"), ("--all", "begins with `-`"), ("app@", "is a template")]
        {
            let told = read_at(nowhere, name, PATIENCE).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn a_host_without_a_bus_says_so() {
        let told = read_at(Path::new("/nonexistent/bus"), "nginx", PATIENCE).unwrap_err();
        assert!(told.starts_with("there is no D-Bus at /nonexistent/bus: "), "{told}");
    }

    #[test]
    fn a_bus_that_hangs_or_hangs_up_is_an_error_within_the_time_of_the_fact() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("bus");
        let listener = UnixListener::bind(&socket).unwrap();
        let began = Instant::now();
        let told = read_at(&socket, "nginx", Duration::from_millis(500)).unwrap_err();
        assert_eq!(told, "this host's D-Bus did not answer within 400ms");
        assert!(began.elapsed() < PATIENCE);
        // Whoever has filled its queue keeps nobody waiting for ever either.
        rustix::net::listen(&listener, 0).unwrap();
        let flags = rustix::net::SocketFlags::NONBLOCK;
        let address = rustix::net::SocketAddrUnix::new(&socket).unwrap();
        let fill = || {
            let one = rustix::net::socket_with(
                rustix::net::AddressFamily::UNIX,
                rustix::net::SocketType::STREAM,
                flags,
                None,
            );
            let one = one.unwrap();
            rustix::net::connect(&one, &address).map(|()| one)
        };
        let queue: Vec<_> = std::iter::from_fn(|| fill().ok()).take(1000).collect();
        assert!(queue.len() < 1000, "the queue is never full");
        let began = Instant::now();
        let (answer, told) = std::sync::mpsc::channel();
        let full = socket.clone();
        std::thread::spawn(move || answer.send(read_at(&full, "nginx", Duration::from_millis(500))));
        let told = told.recv_timeout(PATIENCE).expect("an answer").unwrap_err();
        assert_eq!(told, "this host's D-Bus did not answer within 400ms");
        assert!(began.elapsed() < PATIENCE);
        drop(queue);
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let told = read_at(&socket, "nginx", PATIENCE).unwrap_err();
        assert!(told.starts_with("the connection to this host's D-Bus broke: "), "{told}");
    }
}
