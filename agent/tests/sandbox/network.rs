//! The network: the ports a step names, and nothing else.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use crate::place::{Place, agents, connect};

#[test]
fn a_port_that_is_not_named_cannot_be_connected_to() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let other = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    for agent in agents() {
        let place = Place::new(agent);
        let port = port.to_string();
        assert_eq!(place.tries("tcp", &[&port]), "EPERM", "without any port there are no such sockets");
        assert_eq!(place.tries("tcp6", &[&port]), "EPERM");
        assert_eq!(place.tries_allowed(connect(&[other]), "tcp", &[&port]), "EACCES");
        assert_eq!(place.tries_allowed(connect(&[other]), "fast-open", &[&port]), "EPERM");
        assert_eq!(place.tries_allowed(connect(&[other]), "mptcp", &[]), "EPERM");
    }
}

#[test]
fn a_port_that_is_named_can() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    for agent in agents() {
        let place = Place::new(agent);
        assert_eq!(place.tries_allowed(connect(&[1, port]), "tcp", &[&port.to_string()]), "allowed");
    }
}

#[test]
fn nobody_can_connect_to_a_step() {
    for agent in agents() {
        let place = Place::new(agent);
        assert_eq!(place.tries_allowed(connect(&[1]), "bind", &[]), "EACCES");
        assert_eq!(place.tries_allowed(connect(&[1]), "listen", &[]), "EPERM");
    }
}

#[test]
fn datagrams_and_raw_packets_are_not_sent() {
    for agent in agents() {
        let place = Place::new(agent);
        for what in ["udp", "icmp", "raw", "packet", "vsock", "netfilter"] {
            assert_eq!(place.tries_allowed(connect(&[1]), what, &[]), "EPERM", "{what}, {agent:?}");
        }
        assert_eq!(place.tries("netlink-route", &[]), "allowed");
    }
}

#[test]
fn sockets_of_the_host_do_not_hear_a_step() {
    for agent in agents() {
        let place = Place::new(agent);
        // As open to everybody as D-Bus's is.
        let _listener = UnixListener::bind(place.path("docker.sock")).unwrap();
        std::fs::set_permissions(place.path("docker.sock"), std::fs::Permissions::from_mode(0o666)).unwrap();
        let engine = place.path("docker.sock").display().to_string();
        for path in
            [engine.as_str(), "/run/dbus/system_bus_socket", "/run/systemd/private", "/run/docker.sock"]
        {
            assert_eq!(place.tries("unix", &[path]), "EPERM", "{path}, {agent:?}");
            assert_eq!(place.tries_allowed(connect(&[1]), "unix", &[path]), "EPERM", "{path}, {agent:?}");
        }
        assert_eq!(place.tries("unix-pair", &[]), "EPERM", "a pair of datagrams could send elsewhere");
    }
}

#[test]
fn restarting_a_unit_is_denied_and_says_so() {
    if std::process::Command::new("systemctl").arg("--version").output().is_err() {
        return;
    }
    for agent in agents() {
        let place = Place::new(agent);
        let ended = place.script("systemctl restart no-such.service", Default::default());
        assert_ne!(ended.exit_code, Some(0), "{ended:?}");
        assert!(ended.hint.contains("denied by the read-only sandbox"), "{agent:?}: {ended:?}");
        assert!(ended.hint.contains("`unit(name)` is a fact"), "{agent:?}: {ended:?}");
    }
}
