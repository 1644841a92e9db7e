//! What the shipped runbooks answer: the page that says so, and the alerts that people really have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::expr::{Facts, Scope};
use crate::input;
use crate::runbook::{Phase, Runbook, Trigger};
use crate::table::documented_in;
use crate::value::Value;

/// The group `host`, by name.
fn shipped() -> BTreeMap<String, Runbook> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("library/host");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .map(|path| {
            let runbook = crate::read(&std::fs::read(path).unwrap()).unwrap().runbook;
            (runbook.name().to_owned(), runbook)
        })
        .collect()
}

/// What a trigger makes of an alert: the host and the inputs, or why it is not for it.
type Answer = Result<(String, BTreeMap<String, Value>), String>;

fn asked(trigger: &Trigger, runbook: &Runbook, labels: &[(&str, &str)]) -> Answer {
    let text = |text: &str| Value::String(text.to_owned());
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect();
    let scope = Scope(BTreeMap::from([
        ("labels".to_owned(), Value::Map(labels)),
        ("annotations".to_owned(), Value::Map(BTreeMap::new())),
    ]));
    let facts = Facts::new();
    if let Some(condition) = &trigger.matches
        && !condition.eval_bool(&scope, &facts).map_err(|error| error.to_string())?
    {
        return Err("its match is false".to_owned());
    }
    let host = match trigger.host.as_ref().map(|host| host.eval(&scope, &facts)) {
        Some(Ok(Value::String(host))) => host,
        other => return Err(format!("its host is {other:?}")),
    };
    let mut given = BTreeMap::new();
    for (name, template) in &trigger.inputs {
        given.insert(name.clone(), template.render(&scope).map_err(|error| error.to_string())?.text);
    }
    let inputs = input::bind(runbook.inputs(), &given).map_err(|problems| format!("{problems:?}"))?;
    Ok((host, inputs))
}

/// Who answers an alert: each runbook with its host and inputs.
fn answers(
    shipped: &BTreeMap<String, Runbook>,
    alert: &str,
    labels: &[(&str, &str)],
) -> Vec<(String, Answer)> {
    let mut answers = Vec::new();
    for (name, runbook) in shipped {
        for trigger in runbook.triggers().iter().filter(|trigger| trigger.alerts.iter().any(|it| it == alert))
        {
            answers.push((name.clone(), asked(trigger, runbook, labels)));
        }
    }
    answers
}

#[test]
fn the_page_of_the_library_names_every_alert_that_it_answers() {
    let mut rows = BTreeMap::new();
    for (name, runbook) in shipped() {
        for trigger in runbook.triggers() {
            let inputs = trigger.inputs.iter().map(|(input, template)| {
                let label =
                    template.source().trim_start_matches("${{").trim_end_matches("}}").trim().to_owned();
                format!("`{input}` = `{label}`")
            });
            let inputs: Vec<String> = inputs.collect();
            for alert in &trigger.alerts {
                let row = format!("| `{alert}` | `{name}` | {} |\n", inputs.join(", "));
                assert!(rows.insert(alert.clone(), row).is_none(), "two triggers wait for {alert}");
            }
        }
    }
    let rows: String = rows.into_values().collect();
    documented_in(
        "library.md",
        "alerts",
        &format!("| Alert | Runbook | Inputs |\n| --- | --- | --- |\n{rows}"),
    );
}

/// The labels that an alert has in any topic that names it, with values as they are on a host.
fn labels(topics: &[serde_json::Value], alert: &str) -> Vec<(&'static str, &'static str)> {
    const SAMPLES: [(&str, &str); 5] = [
        ("instance", "web-1:9100"),
        ("device", "/dev/sda1"),
        ("mountpoint", "/var"),
        ("fstype", "ext4"),
        ("name", "nginx.service"),
    ];
    let names_it = |topic: &&serde_json::Value| {
        topic["names"].as_array().is_some_and(|names| names.iter().any(|name| name == alert))
    };
    let named = topics.iter().filter(names_it).filter_map(|topic| topic["key_labels"].as_str());
    let words: BTreeSet<&str> =
        named.flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')).collect();
    SAMPLES.into_iter().filter(|(label, _)| words.contains(label)).collect()
}

#[test]
fn each_topic_of_the_corpus_is_answered_by_one_runbook_or_not_yet() {
    let Some(corpus) = super::corpus::corpus() else { return };
    let topics = std::fs::read(corpus.join("host-alerts.json")).unwrap();
    let topics: serde_json::Value = serde_json::from_slice(&topics).unwrap();
    let shipped = shipped();
    let mut ours: BTreeSet<String> = shipped
        .values()
        .flat_map(|runbook| runbook.triggers().iter().flat_map(|trigger| trigger.alerts.clone()))
        .collect();
    let (mut answered, mut not_yet) = (String::new(), String::new());
    let topics = topics.as_array().unwrap();
    for topic in topics {
        let mut by: BTreeMap<Option<String>, Vec<&str>> = BTreeMap::new();
        for alert in topic["names"].as_array().unwrap() {
            let alert = alert.as_str().unwrap();
            let found = answers(&shipped, alert, &labels(topics, alert));
            for (name, answer) in &found {
                let (host, _) = answer.as_ref().unwrap_or_else(|why| panic!("{name} refuses {alert}: {why}"));
                assert_eq!(host, "web-1:9100", "{alert}");
            }
            ours.remove(alert);
            by.entry(found.first().map(|(name, _)| name.clone())).or_default().push(alert);
        }
        let title = topic["topic"].as_str().unwrap();
        for (name, alerts) in by {
            match name {
                Some(name) => answered.push_str(&format!("{name:24} {title}: {}\n", alerts.join(", "))),
                None => not_yet.push_str(&format!("{:24} {title}: {}\n", "not yet", alerts.join(", "))),
            }
        }
    }
    eprintln!("{answered}{not_yet}");
    assert!(ours.is_empty(), "no published alert is called {ours:?}");
    assert!(answered.lines().count() >= 9, "{answered}");
}

#[test]
fn a_trigger_takes_only_the_file_systems_that_its_runbook_can_mend() {
    let shipped = shipped();
    for alert in ["NodeFilesystemAlmostOutOfSpace", "NodeFilesystemSpaceFillingUp", "HostOutOfInodes"] {
        for (fstype, fits) in [
            ("ext4", true),
            ("xfs", true),
            ("", true),
            ("tmpfs", false),
            ("ramfs", false),
            ("nfs4", false),
            ("cifs", false),
            ("fuse.sshfs", false),
            ("squashfs", false),
            ("iso9660", false),
            ("overlay", false),
            ("vfat", false),
        ] {
            let labels = [("instance", "web-1"), ("mountpoint", "/var"), ("fstype", fstype)];
            let found = answers(&shipped, alert, &labels);
            assert_eq!(
                found.iter().filter(|(_, answer)| answer.is_ok()).count(),
                usize::from(fits),
                "{alert} {fstype}: {found:?}"
            );
        }
    }
}

#[test]
fn a_mount_point_that_is_none_is_refused() {
    for mount in ["/var/../etc", "/..", "-rf", "--help", "var", "", "/var\n/etc", "/var\u{0}", "$(reboot)"] {
        let labels = [("instance", "web-1"), ("mountpoint", mount), ("fstype", "ext4")];
        for alert in ["NodeFilesystemAlmostOutOfSpace", "NodeFilesystemFilesFillingUp"] {
            let found = answers(&shipped(), alert, &labels);
            assert!(found.iter().all(|(_, answer)| answer.is_err()), "{mount:?}: {found:?}");
        }
    }
}

#[test]
fn an_alert_that_came_through_another_exporter_is_about_the_host_it_names() {
    let labels = [("instance", "gateway:9091"), ("exported_instance", "web-1:9100"), ("mountpoint", "/var")];
    let found = answers(&shipped(), "HostOutOfDiskSpace", &labels);
    let (host, inputs) = found[0].1.clone().unwrap();
    assert_eq!((host.as_str(), &inputs["mount"]), ("web-1:9100", &Value::String("/var".to_owned())));
}

#[test]
fn the_page_of_the_library_tells_of_every_runbook_its_steps_and_its_inputs() {
    let page = include_str!("../../../../docs/library.md");
    for (name, runbook) in shipped() {
        let (_, section) =
            page.split_once(&format!("\n## {name}\n")).unwrap_or_else(|| panic!("{name} is not on the page"));
        let section = section.split("\n## ").next().unwrap_or_default();
        let steps = runbook.steps(Phase::Remediate).iter().map(|step| &step.id);
        for word in steps.chain(runbook.inputs().keys()) {
            assert!(section.contains(&format!("`{word}`")), "the page says nothing of `{word}` of {name}");
        }
        // Approvers and whoever starts it by hand see these.
        assert!(!runbook.title().is_empty() && !runbook.owner().is_empty(), "{name}");
        assert!(runbook.description().lines().count() >= 3, "{name}");
        let required = runbook.inputs().values().filter(|input| input.default.is_none());
        assert!(required.into_iter().all(|input| !input.description.is_empty()), "{name}");
    }
}
