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
