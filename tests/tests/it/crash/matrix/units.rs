//! A step that does something with a unit, on a host with a systemd of its own.

use fettle_tests::cluster::LIMIT;
use fettle_tests::power::{self, Disk};
use fettle_tests::{Cluster, Systemd, eventually};

use super::hosts::uptime;
use super::words::Word;
use super::{Row, Way};

/// Starts a unit; should that fail, the unit is as it was.
const RUNBOOK: &str = r#"fettle: 1
runbook: crash/unit
title: A unit that is started
owner: tests
inputs:
  unit: { type: string, pattern: '.*' }
remediate:
  - id: act
    risk: low
    service: { start: "${{ inputs.unit }}" }
    repeat: safe
    undo: previous
    on_failure: undo
verify:
  - id: so
    that: unit(inputs.unit).active
"#;

/// Where the agent's state is, inside.
const STATE: &str = "/var/lib/fettle-agent";

/// What says where somebody dies, inside.
const ARM: &str = "/run/arm";

/// A host with units, whose power can fail, and a controller elsewhere.
struct Scene {
    machine: Option<Systemd>,
    disk: Disk,
    cluster: Cluster,
    /// How often it was booted.
    boots: u32,
}

/// Plays a row on a host of its own. Gives back how many deaths there were.
pub(super) fn on_a_host(row: &Row, way: Way, times: u64) -> u64 {
    let cluster = Cluster::builder().runbook(RUNBOOK).start();
    let Some(disk) = Disk::over(&cluster.path("web-1")) else { return 0 };
    let mut scene = Scene { machine: None, disk, cluster, boots: 0 };
    scene.boot();
    scene.machine().agent(&scene.cluster, "web-1");
    let word = Word::of(row.says(way)).expect("it was read before");
    for time in 0..times {
        let case = format!("{} {way:?} {time}", row.point);
        scene.machine().ok(&["systemctl", "stop", "web"]);
        power::sync(scene.disk.path()).expect("it can be synced");
        let told = match way {
            Way::Kill => row.point.to_owned(),
            Way::Power => format!("{} power={STATE}", row.point),
        };
        scene.machine().write(ARM, &told);
        let run = scene.start();
        if way == Way::Power {
            eventually("the power is gone", LIMIT, || {
                if scene.disk.is_cut() { Ok(()) } else { Err(scene.machine().agent_said()) }
            });
            scene.reboot();
        }
        let ending = scene.cluster.ending(&run);
        let context = format!("{case}: {ending}\n{}", scene.machine().agent_said());
        assert!(!scene.machine().path(ARM).exists(), "{context}\nnobody ever came there");
        let runs = scene.machine().property("web.service", "ActiveState");
        if word == Word::Undone {
            assert_eq!((&*ending, &*runs), ("undone", "inactive"), "{context}");
            let again = scene.start();
            assert_eq!(scene.cluster.ending(&again), "verified", "{context}");
        } else {
            assert_eq!(word, Word::GoesOn, "{case}: so a step can end");
            assert_eq!((&*ending, &*runs), ("verified", "active"), "{context}");
        }
    }
    times
}

impl Scene {
    fn machine(&self) -> &Systemd {
        self.machine.as_ref().expect("it is booted")
    }

    /// Boots it, without its agent.
    #[track_caller]
    fn boot(&mut self) {
        self.boots += 1;
        let machine = Systemd::boot_with(self.disk.path()).expect("who may mount a disk may boot a systemd");
        machine.unit("web.service", "[Service]\nExecStart=sleep 1000\n");
        let told = format!("FETTLE_CRASH_AT=@{ARM} FETTLE_BOOT=boot-{}@{}", self.boots, uptime());
        machine.unit("fettle-agent.service.d/told.conf", &format!("[Service]\nEnvironment={told}\n"));
        self.machine = Some(machine);
    }

    /// Everything of it is gone, and it comes up again with what was durable.
    #[track_caller]
    fn reboot(&mut self) {
        self.machine = None;
        self.disk.mount_again();
        self.boot();
        self.machine().install_agent("root");
        self.machine().start_agent(&self.cluster, "web-1");
    }

    /// A person starts a run. Gives back its id.
    #[track_caller]
    fn start(&self) -> String {
        let begun = ["start", "crash/unit", "--host", "web-1", "-i", "unit=web", "--detach"];
        let begun = self.cluster.json("ana", &begun);
        begun["run"].as_str().or(begun["id"].as_str()).expect("a start names its run").to_owned()
    }
}
