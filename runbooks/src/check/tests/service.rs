//! `service:`, and which keys go with it.

use super::{diagnose, remediate, said};
use crate::runbook::{Action, Phase, Undo};

/// A remediate step with an action and an undo.
fn step(service: &str, more: &str) -> String {
    said(&remediate(&format!("service: {service}\nrisk: medium\nrepeat: safe\n{more}")))
}

#[test]
fn a_service_step_has_one_verb_and_one_unit() {
    for verb in ["start", "stop", "restart"] {
        assert_eq!(step(&format!("{{ {verb}: nginx }}"), "undo: previous"), "");
    }
    assert_eq!(step("{ reload: nginx }", "undo: none"), "");
    assert_eq!(step(r#"{ restart: "app@${{ inputs.port }}.service" }"#, "undo: previous"), "");
    for (service, told) in [
        ("{}", "17:14 missing-key: `service` does not say what to do (write `service: { restart: nginx }`)"),
        ("nginx", "17:14 wrong-type: `service` is a map, this is a text"),
        ("[restart, nginx]", "17:14 wrong-type: `service` is a map, this is a list"),
        ("{ retsart: nginx }", "17:16 unknown-key: `service` has no key `retsart` (did you mean `restart`?)"),
        (
            "{ enable: nginx }",
            "17:16 not-in-this-version: this version of the language does not have `enable` yet",
        ),
        (
            "{ stop: nginx, start: nginx }",
            "17:16 two-actions: `service` does one thing, this one has `start` and `stop` (write `restart`, or make two steps of it)",
        ),
        (
            "{ restart: nginx, reload: nginx }",
            "17:32 two-actions: `service` does one thing, this one has `restart` and `reload` (make two steps of it)",
        ),
        (
            "{ restart: [a, b] }",
            "17:25 wrong-type: the unit to restart is a text, this is a list (make a step for each unit)",
        ),
        (
            "{ restart: }",
            "17:23 wrong-type: the unit to restart is a text, this is nothing (write \"\" for an empty text)",
        ),
    ] {
        assert_eq!(step(service, "undo: none"), told, "{service}");
    }
}

#[test]
fn a_unit_is_named_as_units_are_whatever_its_values_will_be() {
    for (unit, why) in [
        ("--now", "`--now` cannot be the name of a unit: it begins with `-`"),
        (
            "nginx apache2",
            "`nginx apache2` cannot be the name of a unit: it has ` ` in it; a unit's name has letters, digits and `:-_.\\@`",
        ),
        (
            "'nginx*'",
            "`nginx*` cannot be the name of a unit: it has `*` in it; a unit's name has letters, digits and `:-_.\\@`",
        ),
        (
            "/etc/passwd",
            "`/etc/passwd` cannot be the name of a unit: it has `/` in it; a unit's name has letters, digits and `:-_.\\@`",
        ),
        (
            r#""-${{ inputs.port }}""#,
            "`-${{ inputs.port }}` cannot be the name of a unit: it begins with `-`",
        ),
        ("app@", "`app@.service` is a template: name one of its instances, such as `app@NAME.service`"),
        (
            "poweroff.target",
            "`poweroff.target` is a state of the whole host, and a step acts on services, sockets, timers, paths, mounts and swaps only",
        ),
        (
            r#""${{ host.name }}.target""#,
            "`x.target` is a state of the whole host, and a step acts on services, sockets, timers, paths, mounts and swaps only",
        ),
        (
            "systemd-reboot",
            "`systemd-reboot.service` ends, suspends or opens the whole host, which no `service` step does",
        ),
    ] {
        assert_eq!(step(&format!("{{ start: {unit} }}"), "undo: none"), format!("17:23 wrong-unit: {why}"));
    }
}

#[test]
fn whoever_fills_an_input_does_not_choose_among_all_units_of_the_host() {
    let with = |input: &str, unit: &str| {
        let text =
            remediate(&format!("service: {{ restart: \"{unit}\" }}\nrisk: low\nrepeat: safe\nundo: none"));
        text.replace(
            "  token: { type: secret }",
            &format!("  token: {{ type: secret }}\n  unit: {{ {input} }}"),
        )
    };
    let told = "18:25 unit-not-bounded: whoever fills `inputs.unit` chooses among all units of the host (give the input a `pattern`, or make it an `enum`)";
    assert_eq!(said(&with("type: string", "${{ inputs.unit }}")), told);
    assert_eq!(said(&with("type: string", "app@${{ trim(inputs.unit) }}")), told);
    assert_eq!(said(&with("type: list, of: string", "${{ inputs.unit[0] }}")), told);
    let instances = |input: &str, unit: &str| {
        let read = crate::read(with(input, unit).as_bytes()).expect("it is good");
        let steps = read.runbook.steps(Phase::Remediate);
        let Action::Service { instances, .. } = steps[0].action else { panic!("it acts on a unit") };
        instances
    };
    for (input, unit, expected) in [
        ("type: string, pattern: '[a-z]+'", "${{ inputs.unit }}", false),
        ("type: string, pattern: '.*'", "${{ inputs.unit }}", false),
        ("type: string, pattern: '[a-z]+'", "app@${{ inputs.unit }}", true),
        ("type: string, pattern: 'pg@[0-9]+'", "${{ inputs.unit }}", true),
        ("type: enum, of: [nginx, apache2]", "${{ inputs.unit }}", false),
        ("type: enum, of: [pg@15, pg@16]", "${{ inputs.unit }}", true),
        ("type: host", "${{ inputs.unit }}", false),
        ("type: string", "${{ string(steps.look.used) }}", true),
    ] {
        assert_eq!(instances(input, unit), expected, "{input} {unit}");
    }
}

#[test]
fn only_what_changed_whether_a_unit_runs_can_be_put_back() {
    assert_eq!(
        step("{ reload: nginx }", "undo: previous"),
        "20:11 wrong-value: a unit runs after `reload` as it did before, so there is nothing to put back (write `undo: none`, or `undo: [program, argument]` that brings its old files back)"
    );
    assert_eq!(
        said(&remediate("run: [true]\nrisk: low\nrepeat: safe\nundo: previous")),
        "20:11 wrong-value: `undo: previous` belongs to `service`, which this step does not have (write `undo: none`, or `undo: [program, argument]`)"
    );
    assert_eq!(
        said(&remediate("service: { stop: nginx }\nrisk: low\nrepeat: safe")),
        "16:5 undo-missing: a remediate step states its `undo`: how is it made as if not done? (write `undo: previous`, `undo: none`, or `undo: [program, argument]`)"
    );
    let read = crate::read(
        remediate("service: { stop: nginx }\nrisk: low\nrepeat: safe\nundo: previous").as_bytes(),
    );
    let read = read.expect("it is good");
    let step = &read.runbook.steps(Phase::Remediate)[0];
    assert!(matches!((&step.action, &step.undo), (Action::Service { .. }, Undo::Previous)));
}

#[test]
fn a_service_step_acts_and_says_so() {
    assert_eq!(
        said(&remediate("service: { stop: nginx }\nundo: previous")),
        "16:5 repeat-missing: a remediate step states `repeat`: may it start again when nobody knows whether it ran? (write `repeat: safe`, or `repeat: never` if twice does harm)\n16:5 risk-missing: a remediate step states its `risk` (write `risk: low`, `medium`, `high` or `critical`)"
    );
    assert_eq!(
        said(&diagnose("  - id: a\n    service: { restart: nginx }\n")),
        "13:5 wrong-key: `service` acts on the host, and this step only reads (ask the fact `unit(name)` in a condition, or move the step to `remediate`)"
    );
    assert_eq!(
        said(&remediate("service: { stop: nginx }\nrun: [true]\nrisk: low\nrepeat: safe\nundo: none")),
        "17:5 two-actions: a step has one action, this one has `run` and `service` (make two steps of it)"
    );
}

#[test]
fn a_service_step_has_the_keys_of_whatever_acts_and_none_of_a_process_of_its_own() {
    let with = |more: &str| step("{ restart: nginx }", more);
    for good in [
        "undo: previous\ntimeout: 1m\nretry: { times: 2 }\non_failure: undo\nif: inputs.hard\ncheck: tcp(\"127.0.0.1:80\").open",
        "undo: none\napproval: { from: [web], need: 2 }",
        "undo: [lbctl, undrain, \"${{ inputs.port }}\"]\nenv: { A: b }\ncwd: /srv",
        "undo: { run: echo, interpreter: [/bin/bash] }\nenv: { A: b }",
        "undo: echo\ninterpreter: [/bin/bash]",
    ] {
        assert_eq!(with(good), "", "{good}");
    }
    for key in [
        "env: { A: b }",
        "cwd: /srv",
        "interpreter: [/bin/bash]",
        "allow_leading_dash: true",
        "outputs: { a: \"1\" }",
    ] {
        for undo in ["previous", "none"] {
            let name = key.split(':').next().unwrap();
            let belong = if name == "outputs" { "run` or `that" } else { "run" };
            let told = format!(
                "21:5 wrong-key: `{name}` belongs to `{belong}`, which this step does not have (leave it out)"
            );
            assert_eq!(with(&format!("undo: {undo}\n{key}")), told);
        }
    }
    assert_eq!(
        with("undo: none\nwithin: 3s"),
        "21:5 wrong-key: `within` belongs to `that`, which this step does not have (leave it out)"
    );
    assert_eq!(
        with("undo: none\nsandbox: { read: all }"),
        "21:5 wrong-key: a remediate step acts, so it runs without a sandbox (leave it out)"
    );
}

#[test]
fn the_unit_of_a_step_is_fixed_before_people_approve() {
    assert_eq!(
        step(r#"{ restart: "${{ inputs.token }}" }"#, "undo: none").split(':').nth(1),
        Some("30 secret-in-text"),
    );
    assert!(
        step(r#"{ restart: "${{ string(disk(\"/\").used_percent) }}" }"#, "undo: none")
            .contains("live facts"),
    );
}
