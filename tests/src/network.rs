//! Hosts with a network of their own: real links, which can be ill as real links are.
//!
//! Each host is a network namespace of the kernel's, with one interface; the other end of its link is a port of a bridge in the
//! controller's namespace. The thread that makes a [`Network`] moves there, and so does whatever it starts: the controller, the
//! command line. Only agents are started elsewhere ([`Cluster`](crate::Cluster) does that).
//!
//! Nothing of it is in the network of this machine, and nothing is left of it: the kernel takes a namespace back when the last
//! process in it has ended. Only root can do this: elsewhere [`Network::of`] says loudly that a test did not run.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cluster::told;
use crate::eventually;

/// Where the controller is.
pub const CONTROLLER: &str = "10.77.0.1";

/// An address of the Ethernet that nobody has: what is sent there arrives nowhere, and nobody is told.
const NOBODY: &str = "02:00:00:00:00:fe";

/// The hosts and their links, for as long as this lives.
pub struct Network {
    hosts: BTreeMap<String, Link>,
    /// Where the thread was before.
    home: File,
}

struct Link {
    namespace: File,
    /// The bridge's end.
    port: String,
    /// The last part of the host's address.
    address: AtomicU8,
}

impl Network {
    /// One link for each host; moves this thread to where the controller will be. None, and loud, where that cannot be had.
    #[track_caller]
    pub fn of(hosts: &[&str]) -> Option<Network> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT RUN: only root can make network namespaces, and this test needs some");
            return None;
        }
        let home = File::open("/proc/thread-self/ns/net").expect("every thread has a network");
        let (controller, _keeper) = match namespace() {
            Ok(made) => made,
            Err(why) => {
                eprintln!("NOT RUN: this kernel gives no network namespaces: {why}");
                return None;
            }
        };
        enter(&controller);
        let mut network = Network { hosts: BTreeMap::new(), home };
        ip(&["link", "set", "lo", "up"]);
        for kind in [&["br0", "type", "bridge"][..], &["trial", "type", "veth", "peer", "name", "trial-end"]]
        {
            let made = run("ip", &[&["link", "add"], kind].concat());
            if !made.status.success() {
                eprintln!("NOT RUN: this kernel gives no bridge or no veth: {}", told(&made));
                return None;
            }
        }
        ip(&["link", "del", "trial"]);
        ip(&["addr", "add", &format!("{CONTROLLER}/24"), "dev", "br0"]);
        ip(&["link", "set", "br0", "up"]);
        for (host, address) in hosts.iter().zip((10..).step_by(10)) {
            let (namespace, keeper) = namespace().expect("there was one a moment ago");
            let port = format!("port-{address}");
            let within = keeper.0.id().to_string();
            ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &within]);
            ip(&["link", "set", &port, "master", "br0", "up"]);
            network
                .hosts
                .insert((*host).to_owned(), Link { namespace, port, address: AtomicU8::new(address) });
            network.inside(host, &["link", "set", "lo", "up"]);
            network.inside(host, &["addr", "add", &at(address), "dev", "eth0"]);
            network.inside(host, &["link", "set", "eth0", "up"]);
        }
        Some(network)
    }

    /// What is typed before a command so that it runs on a host; nothing, if it has no link here.
    pub fn on(&self, host: &str) -> Vec<String> {
        let Some(link) = self.hosts.get(host) else { return Vec::new() };
        let file = format!("--net=/proc/{}/fd/{}", std::process::id(), link.namespace.as_raw_fd());
        vec!["nsenter".to_owned(), file, "--".to_owned()]
    }

    /// The cable is pulled at the switch, or plugged in again.
    #[track_caller]
    pub fn plug(&self, host: &str, plugged: bool) {
        let link = self.link(host);
        ip(&["link", "set", &link.port, if plugged { "up" } else { "down" }]);
        // A neighbour that did not answer is asked again at once.
        let _ = run("ip", &["neigh", "flush", "dev", "br0"]);
    }

    /// What the host says arrives nowhere, or arrives again.
    #[track_caller]
    pub fn mute(&self, host: &str, mute: bool) {
        self.inside(host, &neighbour(CONTROLLER, "eth0", mute));
    }

    /// What the host is told arrives nowhere, or arrives again.
    #[track_caller]
    pub fn deaf(&self, host: &str, deaf: bool) {
        ip(&neighbour(&format!("10.77.0.{}", self.link(host).address.load(Ordering::Relaxed)), "br0", deaf));
    }

    /// The host has another address from now on, and the old one is nobody's.
    #[track_caller]
    pub fn readdress(&self, host: &str) {
        let new = 1 + self.link(host).address.fetch_add(1, Ordering::Relaxed);
        self.inside(host, &["addr", "flush", "dev", "eth0"]);
        self.inside(host, &["addr", "add", &at(new), "dev", "eth0"]);
    }

    #[track_caller]
    fn link(&self, host: &str) -> &Link {
        self.hosts.get(host).unwrap_or_else(|| panic!("no host is called `{host}`"))
    }

    #[track_caller]
    fn inside(&self, host: &str, words: &[&str]) {
        let on = self.on(host);
        let (program, before) = on.split_first().expect("it has a link");
        let all: Vec<&str> =
            before.iter().map(String::as_str).chain(["ip"]).chain(words.iter().copied()).collect();
        worked("ip", words, &run(program, &all));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Another test may be on this thread next.
        let _ = move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network));
    }
}

fn at(address: u8) -> String {
    format!("10.77.0.{address}/24")
}

/// The words that give an address to nobody, or back to whoever answers for it.
fn neighbour<'a>(address: &'a str, device: &'a str, is_nobody: bool) -> Vec<&'a str> {
    match is_nobody {
        true => vec!["neigh", "replace", address, "lladdr", NOBODY, "dev", device, "nud", "permanent"],
        false => vec!["neigh", "del", address, "dev", device],
    }
}

#[track_caller]
fn enter(namespace: &File) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("a namespace can be entered");
}

/// A process that does nothing but stand in a namespace.
struct Keeper(Child);

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A new network namespace; it is there for as long as the file is open.
fn namespace() -> Result<(File, Keeper), String> {
    let child = Command::new("unshare")
        .args(["--net", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("unshare: {error}"))?;
    let mut keeper = Keeper(child);
    let (ours, theirs) = ("/proc/thread-self/ns/net", format!("/proc/{}/ns/net", keeper.0.id()));
    let made = eventually("a process is in a new namespace", Duration::from_secs(10), || {
        if !matches!(keeper.0.try_wait(), Ok(None)) {
            return Ok::<_, String>(None);
        }
        match (std::fs::read_link(ours), std::fs::read_link(&theirs)) {
            (Ok(ours), Ok(theirs)) if ours != theirs => Ok(Some(())),
            seen => Err(format!("{seen:?}")),
        }
    });
    match made {
        Some(()) => {
            let file = File::open(theirs).map_err(|error| error.to_string())?;
            Ok((file, keeper))
        }
        None => {
            let mut said = String::new();
            if let Some(mut errors) = keeper.0.stderr.take() {
                let _ = std::io::Read::read_to_string(&mut errors, &mut said);
            }
            Err(said.trim().to_owned())
        }
    }
}

#[track_caller]
fn ip(words: &[&str]) {
    worked("ip", words, &run("ip", words));
}

#[track_caller]
fn worked(program: &str, words: &[&str], output: &Output) {
    assert!(output.status.success(), "{program} {}: {}", words.join(" "), told(output));
}

#[track_caller]
fn run(program: &str, words: &[&str]) -> Output {
    Command::new(program).args(words).stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!("{program}, of the Debian package iproute2 or util-linux, is needed: {error}")
    })
}
