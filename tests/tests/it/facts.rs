//! What an agent reads by itself, on a host with a systemd and a journal of its own.

use std::time::Duration;

use fettle_tests::cluster::told;
use fettle_tests::{Cluster, Systemd, eventually};

const LOOK: &str = r#"fettle: 1
runbook: test/look
title: Look
owner: tests
diagnose:
  - id: held
    that: open_files("/srv").deleted_bytes > 1000000
    outputs:
      units: open_files("/srv").deleted.filter(f, f.bytes > 1000).map(f, f.unit)
      paths: open_files("/srv").deleted.map(f, f.path)
      hidden: open_files("/srv").hidden
  - id: said
    that: log("leaky").matches("ERROR .*full", duration("1h"))
    within: 10s
    outputs:
      count: log("leaky").count("ERROR", duration("1h"))
      last: log("leaky.service").last("ERROR|WARN", duration("1h"))
      alias: log("drip").count("ERROR", duration("1h"))
      other: log("other").count("ERROR", duration("1h"))
  - id: who
    that: processes("leaky").all.exists(p, p.unit == "leaky.service" && p.uid == 65534)
    outputs: { memory: 'processes("leaky").all.all(p, p.memory_bytes > 0 && p.descriptors > 3)' }
"#;

const LEAKY: &str = r#"#!/bin/bash
exec 7>/srv/held.log
head -c 2000000 /dev/zero >&7
rm /srv/held.log
echo 'INFO began'
echo 'ERROR the disk is full'
echo 'ERROR again'
while :; do read -t 1000 <> <(:); done
"#;

#[test]
fn an_agent_tells_who_holds_what_is_deleted_and_what_a_unit_said() {
    let Some(machine) = Systemd::boot() else { return };
    machine.write("/usr/local/bin/leaky", LEAKY);
    machine.ok(&["chmod", "755", "/usr/local/bin/leaky"]);
    machine.ok(&["chmod", "777", "/srv"]);
    machine.unit("leaky.service", "[Service]\nUser=nobody\nExecStart=/usr/local/bin/leaky\n");
    machine.unit("other.service", "[Service]\nType=oneshot\nExecStart=echo ERROR of another\n");
    machine.ok(&["ln", "-s", "leaky.service", "/etc/systemd/system/drip.service"]);
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "start", "leaky.service", "other.service"]);
    let cluster = Cluster::builder().runbook(LOOK).start();
    machine.agent(&cluster, "web-1");

    let started = cluster.json("ana", &["start", "test/look", "--host", "web-1", "--detach"]);
    let run = started["run"].as_str().expect("a start names its run");
    let shown = eventually("the run has ended", Duration::from_secs(60), || {
        let shown = cluster.json("ana", &["run", "show", run]);
        if shown["hosts"][0]["state"] == "ended" {
            Ok(shown)
        } else {
            Err(format!("{shown:#}\n{}\n{}", cluster.said(), machine.agent_said()))
        }
    });
    let outputs = |step: &str| {
        let steps = shown["hosts"][0]["steps"].as_array().expect("steps are a list");
        let path = format!("diagnose/{step}");
        let step = steps.iter().find(|step| step["path"] == path.as_str());
        step.unwrap_or_else(|| panic!("{path} in {shown:#}"))["outputs"].clone()
    };
    let logs = told(&cluster.fettle("ana", &["logs", run]));
    assert_eq!(outputs("held")["units"], r#"["leaky.service"]"#, "{shown:#}\n{logs}");
    assert_eq!(outputs("held")["paths"], r#"["/srv/held.log"]"#, "{shown:#}");
    assert_eq!(outputs("held")["hidden"], "0", "{shown:#}");
    assert_eq!(outputs("said")["count"], "2", "{shown:#}");
    assert_eq!(outputs("said")["alias"], "2", "{shown:#}");
    assert_eq!(outputs("said")["last"], r#""ERROR again""#, "{shown:#}");
    assert_eq!(outputs("said")["other"], "1", "{shown:#}");
    assert_eq!(outputs("who")["memory"], "true", "{shown:#}");
}
