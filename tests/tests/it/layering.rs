//! Who may know whom. The compiler allows any arrow that is no circle; these tests allow the ones that were drawn.

use std::collections::BTreeMap;
use std::process::Command;

use crate::sources;

/// Who may depend on whom inside the workspace. Adding an arrow is a design decision, so it is made here, where a
/// reviewer will see it.
const ARROWS: &[(&str, &[&str])] = &[
    ("fettle-crash", &[]),
    ("fettle-runbooks", &[]),
    ("fettle-proto", &["fettle-runbooks"]),
    ("fettle-agent", &["fettle-crash", "fettle-proto", "fettle-runbooks"]),
    ("fettle-controller", &["fettle-crash", "fettle-proto", "fettle-runbooks"]),
    ("fettle", &["fettle-agent", "fettle-controller", "fettle-proto", "fettle-runbooks"]),
    (
        "fettle-tests",
        &["fettle", "fettle-agent", "fettle-controller", "fettle-crash", "fettle-proto", "fettle-runbooks"],
    ),
];

/// The stages an alert passes in the controller. Each may know those before it, none after it.
const STAGES: &[&str] =
    &["signal", "trigger", "incident", "run", "guard", "gate", "dispatch", "outcome", "evidence", "report"];

/// Modules of the controller that see every stage, and that no stage may see.
const ABOVE_THE_STAGES: &[&str] = &["coordinator", "api", "agents", "http"];

#[test]
fn crates_depend_on_each_other_as_drawn() {
    let cargo = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(sources::top())
        .output()
        .expect("cargo can be run");
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&cargo.stdout).expect("cargo prints JSON");

    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("there are packages") {
        let dependencies = package["dependencies"].as_array().expect("each lists its dependencies");
        // A dependency with a path is one of ours. Development dependencies are arrows too.
        let ours = dependencies.iter().filter(|dependency| dependency["path"].is_string());
        let mut ours: Vec<String> = ours.map(|dependency| text(&dependency["name"])).collect();
        ours.sort();
        ours.dedup();
        found.insert(text(&package["name"]), ours);
    }

    let drawn =
        ARROWS.iter().map(|(from, to)| ((*from).to_owned(), to.iter().map(|to| (*to).to_owned()).collect()));
    assert_eq!(found, drawn.collect(), "the arrows between crates are drawn in {}", file!());
}

#[test]
fn the_language_knows_no_clock_no_tasks_no_sockets_and_no_files() {
    const OUTSIDE: &[&str] = &[
        "SystemTime",
        "Instant::now",
        "Timestamp::now",
        "Zoned::now",
        "std::fs",
        "std::net",
        "std::process",
        "std::env",
        "tokio",
        "getrandom",
    ];
    let mut complaints = Vec::new();
    for source in sources::rust("runbooks/src/").into_iter().filter(|source| !source.is_test()) {
        // What follows `#[cfg(test)]` may do as it likes.
        let code = source.code().take_while(|(_, line)| *line != "#[cfg(test)]");
        for (line, code) in code {
            for word in OUTSIDE.iter().filter(|word| code.contains(**word)) {
                complaints.push(format!("{}:{line}: {word}", source.path));
            }
        }
    }
    sources::expect_none(
        &complaints,
        "Hand it in as data, or out as an effect: the crate `runbooks` is pure.",
    );
}

#[test]
fn a_stage_of_the_controller_knows_only_those_before_it() {
    let mut complaints = Vec::new();
    for source in sources::rust("controller/src/") {
        let Some(stage) = module_of(&source.path, "controller/src/") else { continue };
        let Some(own) = STAGES.iter().position(|name| *name == stage) else { continue };
        // The webhook hands what it has read to the coordinator: it is the way in, not a stage.
        if source.path.starts_with("controller/src/signal/intake") {
            continue;
        }
        for (line, name) in source.names_of_its_crate() {
            let later = STAGES.iter().position(|stage| *stage == name).is_some_and(|other| other > own);
            if later || ABOVE_THE_STAGES.contains(&name.as_str()) {
                complaints.push(format!("{}:{line}: `{stage}` knows `{name}`", source.path));
            }
        }
    }
    sources::expect_none(
        &complaints,
        "An alert moves one way. What two stages share belongs to the earlier one.",
    );
}

#[test]
fn the_two_halves_of_the_agent_share_nothing_but_messages() {
    let mut complaints = Vec::new();
    for (half, other) in [("link", "works"), ("works", "link")] {
        for source in
            sources::rust("agent/src/").into_iter().filter(|s| is_module(&s.path, "agent/src/", half))
        {
            for (line, name) in source.names_of_its_crate() {
                if name == other {
                    complaints.push(format!("{}:{line}: `{half}` knows `{other}`", source.path));
                }
            }
        }
    }
    sources::expect_none(
        &complaints,
        "They will be two processes: say it in `message`, or share it through `main`.",
    );
}

#[test]
fn the_half_that_acts_speaks_to_no_network_and_the_half_that_speaks_starts_nothing() {
    const RULES: &[(&str, &[&str])] = &[
        ("works", &["tonic::", "hyper", "rustls", "tokio::net", "TcpListener", "UnixListener"]),
        ("link", &["Command::new", "posix_spawn", "fork("]),
    ];
    let mut complaints = Vec::new();
    for (half, words) in RULES {
        for source in sources::rust("agent/src/")
            .into_iter()
            .filter(|s| is_module(&s.path, "agent/src/", half) && !s.is_test())
        {
            for (line, code) in source.code().take_while(|(_, line)| *line != "#[cfg(test)]") {
                for word in words.iter().filter(|word| code.contains(**word)) {
                    complaints.push(format!("{}:{line}: `{half}` uses {word}", source.path));
                }
            }
        }
    }
    sources::expect_none(&complaints, "See the tour of `agent/src/lib.rs` for which half does what.");
}

#[test]
fn the_command_line_embeds_the_others_only_where_it_says_so() {
    const EMBEDS: &[&str] = &["main", "demo", "local"];
    let mut complaints = Vec::new();
    for source in sources::rust("cli/src/") {
        let module = module_of(&source.path, "cli/src/").unwrap_or_default();
        for (line, code) in source.code() {
            let embeds = code.contains("fettle_agent") || code.contains("fettle_controller");
            if embeds && !EMBEDS.contains(&module) {
                complaints.push(format!("{}:{line}: {code}", source.path));
            }
        }
    }
    sources::expect_none(&complaints, "Only the demonstration and local runs carry the other two programs.");
}

/// `gate` for both `controller/src/gate.rs` and `controller/src/gate/factor.rs`.
fn module_of<'a>(path: &'a str, crate_source: &str) -> Option<&'a str> {
    let inside = path.strip_prefix(crate_source)?;
    inside.split(['/', '.']).next()
}

fn is_module(path: &str, crate_source: &str, module: &str) -> bool {
    module_of(path, crate_source) == Some(module)
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().expect("cargo writes names as text").to_owned()
}
