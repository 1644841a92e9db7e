//! Steps that do something with a unit of systemd.

use super::*;

const UNITS: &str = r#"
fettle: 1
runbook: host/units
title: Units
owner: core
description: x
inputs:
  mount: { type: path, default: /var }
diagnose:
  - id: look
    run: [df]
    outputs: { unit: trim(stdout) }
remediate:
  - id: drain
    risk: medium
    service: { stop: "drain@${{ steps.look.unit }}" }
    repeat: safe
    undo: previous
    retry: { times: 1 }
  - id: again
    risk: medium
    service: { restart: web }
    repeat: safe
    undo: [lbctl, undrain]
    env: { WHERE: "${{ inputs.mount }}" }
    cwd: /srv
    on_failure: undo
verify:
  - id: up
    that: disk("/var").used_percent < 90.0
"#;

#[test]
fn a_unit_that_was_changed_is_put_back_when_a_later_step_fails() {
    check(
        remediate(UNITS, "remediate/drain", &[], vec![]),
        &[
            Say::Begin,
            Say::Exit("remediate/drain", 1, 1, ""),
            Say::Timer(1),
            Say::Exit("remediate/drain", 2, 0, ""),
            Say::Exit("remediate/again", 1, 1, ""),
        ],
        "
        start remediate/drain 1 (acts): stop drain@91.service; started remediate/drain 1
        failed remediate/drain 1: it exited with 1; timer 1s
        start remediate/drain 2 (acts): stop drain@91.service; started remediate/drain 2
        succeeded remediate/drain 2; start remediate/again 1 (acts): restart web.service; started remediate/again 1
        failed remediate/again 1: it exited with 1; start remediate/drain/undo 1 (acts): put back drain@91.service; started remediate/drain/undo 1
        ",
    );
}

#[test]
fn a_unit_whose_own_step_failed_is_put_back_too_but_only_if_something_was_started() {
    let both = UNITS
        .replace("undo: [lbctl, undrain]", "undo: previous")
        .replace("    env: { WHERE: \"${{ inputs.mount }}\" }\n    cwd: /srv\n", "");
    check(
        remediate(&both, "remediate/drain", &[], vec![]),
        &[
            Say::Begin,
            Say::Exit("remediate/drain", 1, 0, ""),
            Say::Exit("remediate/again", 1, 1, ""),
            Say::Exit("remediate/again/undo", 1, 0, ""),
        ],
        "
        start remediate/drain 1 (acts): stop drain@91.service; started remediate/drain 1
        succeeded remediate/drain 1; start remediate/again 1 (acts): restart web.service; started remediate/again 1
        failed remediate/again 1: it exited with 1; start remediate/again/undo 1 (acts): put back web.service; started remediate/again/undo 1
        succeeded remediate/again/undo 1; start remediate/drain/undo 1 (acts): put back drain@91.service; started remediate/drain/undo 1
        ",
    );
    // The same where the agent died in between, and where an earlier segment failed and went on.
    let failed = || exit(1, "");
    check(
        remediate(
            &both,
            "remediate/drain",
            &[],
            vec![
                past("remediate/drain", 1, Some(exit(0, ""))),
                past("remediate/again", 1, Some(failed())),
                past("remediate/again/undo", 1, None),
            ],
        ),
        &[Say::Begin, Say::Exit("remediate/again/undo", 1, 0, "")],
        "
        succeeded remediate/drain 1; failed remediate/again 1: it exited with 1
        succeeded remediate/again/undo 1; start remediate/drain/undo 1 (acts): put back drain@91.service; started remediate/drain/undo 1
        ",
    );
    let goes_on = both.replace("    retry: { times: 1 }", "    on_failure: continue");
    check(
        remediate(&goes_on, "remediate/again", &[], vec![past("remediate/drain", 1, Some(failed()))]),
        &[
            Say::Begin,
            Say::Exit("remediate/again", 1, 1, ""),
            Say::Exit("remediate/again/undo", 1, 0, ""),
        ],
        "
        start remediate/again 1 (acts): restart web.service; started remediate/again 1
        failed remediate/again 1: it exited with 1; start remediate/again/undo 1 (acts): put back web.service; started remediate/again/undo 1
        succeeded remediate/again/undo 1; start remediate/drain/undo 1 (acts): put back drain@91.service; started remediate/drain/undo 1
        ",
    );
    // Its condition could not be read, so nothing of it was done.
    let asks = both.replace(
        "    service: { restart: web }",
        "    if: disk(\"/var\").used_percent > 1\n    service: { restart: web }",
    );
    check(
        remediate(&asks, "remediate/drain", &[], vec![]),
        &[Say::Begin, Say::Exit("remediate/drain", 1, 0, ""), Say::NoAnswer],
        "
        start remediate/drain 1 (acts): stop drain@91.service; started remediate/drain 1
        succeeded remediate/drain 1; read disk(\"/var\")
        not-started remediate/again 1: its condition `disk(\"/var\").used_percent > 1` cannot be read: line 22, column 9: disk(\"/var\") cannot be read: it hangs; start remediate/drain/undo 1 (acts): put back drain@91.service; started remediate/drain/undo 1
        ",
    );
}

#[test]
fn what_goes_with_a_command_that_undoes_never_reaches_the_unit() {
    let runbook = runbook(UNITS);
    let step = plan(&runbook).steps[1].clone();
    assert_eq!((step.env["WHERE"].as_str(), step.cwd.as_str()), ("/var", "/srv"));
    let item = item::Item::planned(&runbook.steps(Phase::Remediate)[1], &step);
    let item::Job::Start(spec) = item.job(&base("/var")) else { panic!("it starts something") };
    assert_eq!((spec.env.len(), spec.cwd.as_str()), (0, "/"));
}

#[test]
fn a_value_that_names_no_unit_or_the_whole_host_makes_its_step_impossible() {
    for (value, why) in [
        (
            r"a\x3breboot",
            "`drain@${{ steps.look.unit }}` would stop `drain@a\\\\x3breboot`: a value in it has `\\`, which stands for any character there",
        ),
        (
            "a b",
            "`drain@${{ steps.look.unit }}` would stop `drain@a b`: it has ` ` in it; a unit's name has letters, digits and `:-_.\\@`",
        ),
        (
            "",
            "`drain@${{ steps.look.unit }}` would stop `drain@`: `drain@.service` is a template: name one of its instances, such as `drain@NAME.service`",
        ),
        (
            "x.target",
            "`drain@${{ steps.look.unit }}` would stop `drain@x.target`: `drain@x.target` is a state of the whole host, and a step acts on services, sockets, timers, paths, mounts and swaps only",
        ),
    ] {
        let mut bench = Bench::new(Program::diagnose(runbook(UNITS), base("/var")));
        bench.say(Say::Begin);
        bench.say(Say::Exit("diagnose/look", 1, 0, value));
        let rendering = bench.rendering.expect("a plan");
        assert_eq!(rendering.impossible().get("remediate/drain").map(String::as_str), Some(why));
    }
}
