//! The systemd that tests boot for themselves.

use std::fs;
use std::process::{Command, Stdio};

use fettle_tests::cluster::LIMIT;
use fettle_tests::{Cluster, Systemd, eventually, remains};

/// Asks this very test, started again, to boot a systemd and then to wait for its own death.
const DIE: &str = "FETTLE_TESTS_DIE_WITH_A_SYSTEMD";

#[test]
fn a_booted_systemd_runs_units_and_leaves_nothing_behind() {
    let network = network();
    let Some(machine) = Systemd::boot() else { return };
    machine.unit("demo.service", "[Service]\nExecStart=sleep 1000\n");
    machine.ok(&["systemctl", "start", "demo.service"]);
    machine.until("demo.service", "SubState", "running");
    assert!(machine.journal("demo.service").contains("Started demo.service"));
    assert_eq!(machine.ok(&["hostname"]), "fettle-test");
    assert!(!fs::exists("/etc/systemd/system/demo.service").unwrap());
    assert_eq!(machine.run(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]).status.code(), Some(2));
    assert_eq!(network, self::network(), "the network is the machine's, and stays as it is");

    let (group, directory, init) = (machine.group(), machine.directory().to_owned(), machine.init());
    assert!(group.is_dir());
    drop(machine);
    assert!(!group.exists(), "{}", group.display());
    assert!(!directory.exists());
    assert_eq!(remains::of(&directory), [].into());
    assert!(!fs::exists(format!("/proc/{init}")).unwrap());
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&*directory.to_string_lossy()));
}

#[test]
fn a_systemd_goes_with_a_test_that_is_killed() {
    if std::env::var_os(DIE).is_some() {
        let machine = Systemd::boot().expect("only root asks for this");
        println!("{}\n{}\n{}", machine.init(), machine.group().display(), machine.directory().display());
        loop {
            std::thread::park();
        }
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: only root can boot a systemd of its own, and this test needs one");
        return;
    }
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "systemd::a_systemd_goes_with_a_test_that_is_killed", "--nocapture"])
        .env(DIE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(other.stdout.take().unwrap());
    let mut lines = std::iter::from_fn(|| {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).ok().filter(|read| *read > 0)?;
        Some(line.trim().to_owned())
    })
    .skip_while(|line| line.parse::<u32>().is_err());
    let (init, group, directory) = (lines.next().unwrap(), lines.next().unwrap(), lines.next().unwrap());
    assert!(fs::exists(&group).unwrap() && fs::exists(&directory).unwrap());
    other.kill().unwrap();
    other.wait().unwrap();
    eventually("nothing is left of it", LIMIT, || {
        let left = [format!("/proc/{init}"), group.clone(), format!("{directory}/machine")];
        let left: Vec<_> = left.into_iter().filter(|path| fs::exists(path).unwrap()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    // What a test that is killed can never remove itself.
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn an_agent_joins_from_inside_a_booted_systemd_and_comes_back_after_a_kill() {
    let Some(machine) = Systemd::boot() else { return };
    let cluster = Cluster::builder().start();
    machine.agent(&cluster, "web-1");
    let first = machine.property("fettle-agent.service", "MainPID");
    machine.restart_agent(&cluster, "web-1");
    assert_ne!(machine.property("fettle-agent.service", "MainPID"), first);
}

/// Addresses and routes of this machine.
fn network() -> String {
    ["fib_trie", "if_inet6", "ipv6_route"]
        .iter()
        .map(|file| fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default())
        .map(|text| {
            text.split_whitespace()
                .filter(|word| word.len() > 8 || word.contains('.'))
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}
