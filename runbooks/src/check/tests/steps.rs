//! The rules about steps: what is said, word for word.

use super::{diagnose, remediate, said};
use crate::runbook::{Action, Phase, Undo};

#[test]
fn a_step_has_an_id() {
    assert_eq!(
        said(&diagnose(
            r#"  - run: [df]
"#
        )),
        r#"12:5 missing-key: a step without `id` (write `id: some-name`; later steps and reports refer to it)"#
    );
}

#[test]
fn two_steps_cannot_have_the_same_id() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [df]
  - id: a
    run: [df]
"#
        )),
        r#"14:9 duplicate-step: the step `a` is on line 12 and again on line 14 (give one of them another id)"#
    );
}

#[test]
fn an_id_is_a_simple_name() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: 1 a
    run: [df]
"#
        )),
        r#"12:9 wrong-name: `1 a` cannot be the id of a step (use letters, digits, `-` and `_`, at most 64, beginning with a letter)"#
    );
}

#[test]
fn no_step_is_called_as_what_takes_one_back() {
    let of = |id: &str| {
        said(&remediate("run: [touch, /tmp/x]\nrisk: low\nrepeat: safe\nundo: none\n").replace("id: act", id))
    };
    let wrong = "16:9 wrong-name: `undo` cannot be the id of a step: what takes a step back is called `STEP/undo` (give it another id, as `take-back`)";
    assert_eq!(of("id: undo"), wrong);
    assert_eq!(of("id: undone"), "");
}

#[test]
fn a_step_does_something() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
"#
        )),
        r#"12:5 missing-key: the step does nothing (write `run:`, `service:`, `that:` or `wait:`)"#
    );
}

#[test]
fn a_step_does_one_thing() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [df]
    wait: 3s
"#
        )),
        r#"14:5 two-actions: a step has one action, this one has `run` and `wait` (make two steps of it)"#
    );
}

#[test]
fn an_action_of_a_later_version_is_refused_by_name() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    http: { url: x }
  - id: b
    run: [df]
    as: root
"#
        )),
        r#"13:5 not-in-this-version: this version of the language does not have `http` yet (it has the actions `run`, `service`, `that` and `wait`)
16:5 not-in-this-version: this version of the language does not have `as` yet (it has the actions `run`, `service`, `that` and `wait`)"#
    );
}

#[test]
fn a_sandbox_names_ports_and_may_ask_to_read_everything() {
    let text = diagnose(
        r#"  - id: a
    run: [df]
    sandbox: { connect: [5432, 80, 80], read: all }
  - id: b
    run: [df]
"#,
    );
    let read = crate::read(text.as_bytes()).unwrap();
    let steps = read.runbook.steps(crate::runbook::Phase::Diagnose);
    assert_eq!(
        (steps[0].sandbox.connect.as_slice(), steps[0].sandbox.read_all),
        ([80, 5432].as_slice(), true)
    );
    assert_eq!(steps[1].sandbox, crate::runbook::Sandbox::default());
}

#[test]
fn a_sandbox_that_cannot_be_is_told_from_one_that_can() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [df]
    sandbox: { connect: [70000], read: some, write: all }
  - id: b
    wait: 1s
    sandbox: { connect: [1] }
"#
        )),
        r#"14:26 wrong-value: an item of `connect` is a TCP port, from 1 to 65535 (write the number as it is, such as `connect: [5432]`)
14:40 wrong-value: `some` is no `read` (there is: `all`)
14:46 unknown-key: `sandbox` has no key `write` (there is: `connect`, `read`)
17:5 wrong-key: `sandbox` belongs to `run`, which this step does not have (leave it out)"#
    );
}

#[test]
fn diagnose_steps_have_no_risk_and_no_undo() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [df]
    risk: low
    undo: none
"#
        )),
        r#"14:5 risk-forbidden: a diagnose step only reads, so it has no `risk` (leave it out, or move the step to `remediate`)
15:5 wrong-key: a diagnose step only reads, so it has no `undo` (leave it out, or move the step to `remediate`)"#
    );
}

#[test]
fn keys_of_another_action_are_refused() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [df]
    within: 3s
  - id: b
    wait: 3s
    outputs: { x: stdout }
  - id: c
    that: load.one < 3.0
    env: { A: b }
  - id: d
    run: [df]
    interpreter: [sh]
"#
        )),
        r#"14:5 wrong-key: `within` belongs to `that`, which this step does not have (leave it out)
17:5 wrong-key: `outputs` belongs to `run` or `that`, which this step does not have (leave it out)
20:5 wrong-key: `env` belongs to `run`, which this step does not have (leave it out)
23:5 wrong-key: `interpreter` belongs to a script; a list is run without one (leave it out)"#
    );
}

#[test]
fn a_condition_may_leave_outputs_but_has_no_process() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    that: open_files("/var").deleted_count > 0
    outputs: { units: 'open_files("/var").deleted.map(f, f.unit)' }
  - id: b
    after: [a]
    that: steps.a.units.exists(u, u != "" && unit(u).can_restart)
    outputs: { code: exit_code, first: "steps.a.units[0] + 1" }
"#
        )),
        r#"18:22 not-in-scope: `exit_code` cannot be used here: a `that` starts no process
18:41 expression-type: `+` does not take a text and a whole number (make both the same with `int(…)` or `string(…)`)"#
    );
}

#[test]
fn steps_wait_only_for_earlier_ones() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [df]
    after: [b]
  - id: b
    run: [df]
    after: [bb, b]
"#
        )),
        r#"14:13 after-later: the step `b` comes later; a step waits for steps above it (move it up)
17:13 unknown-name: there is no step `bb` (there is: `a`)
17:17 after-cycle: the step `b` waits for itself"#
    );
}

#[test]
fn steps_that_wait_for_each_other_are_told() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [df]
    after: [b]
  - id: b
    run: [df]
    after: [a]
"#
        )),
        r#"14:13 after-cycle: the steps `a` and `b` wait for each other"#
    );
}

#[test]
fn outputs_are_used_only_where_they_exist() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [df]
    outputs: { used: int(stdout) }
  - id: b
    if: steps.a.used > 1
    run: [df]
  - id: c
    after: [a]
    if: steps.a.used > 1 && steps.d.x == 1
    run: [df]
  - id: d
    after: [c]
    if: steps.c.used > 1
    run: [df]
"#
        )),
        r#"16:9 not-in-scope: `steps.a` cannot be used here: diagnose steps run at the same time; write `after: [a]` to wait for it
20:29 not-in-scope: `steps.d` cannot be used here: the step `d` comes later
24:9 unknown-name: the step `c` has no output `used`"#
    );
}

#[test]
fn waiting_reaches_further_than_one_step() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [df]
    outputs: { used: int(stdout) }
  - id: b
    after: [a]
    run: [df]
  - id: c
    after: [b]
    if: steps.a.used > 1
    run: [df]
"#
        )),
        r#""#
    );
}

#[test]
fn conditions_are_true_or_false() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    if: inputs.mount
    run: [df]
  - id: b
    that: tcp("127.0.0.1:80")
"#
        )),
        r#"13:9 expression-type: `if` must be true or false, this is a text (compare it with something)
16:11 expression-type: `that` must be true or false, this is a map (did you mean its field `.open`?)"#
    );
}

#[test]
fn a_step_that_never_runs_is_told() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    if: false
    run: [df]
"#
        )),
        r#"13:9 unreachable: this step never runs"#
    );
}

#[test]
fn labels_reach_steps_only_through_inputs() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [echo, "${{ labels.instance }}"]
"#
        )),
        r#"13:22 not-in-scope: `labels` cannot be used here: `labels` of an alert reach steps only through inputs: fill an input in `on:` from `labels`"#
    );
}

#[test]
fn a_secret_has_no_text() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    if: inputs.token == "x"
    run: [echo, "${{ inputs.token }}"]
  - id: b
    if: inputs["token"] == "x"
    run: [df]
"#
        )),
        r#"13:9 secret-in-text: `inputs.token` is a secret, which must not appear in text or conditions
14:22 secret-in-text: `inputs.token` is a secret, which must not appear in text or conditions
16:9 secret-in-text: `inputs.token` is a secret, which must not appear in text or conditions"#
    );
}

#[test]
fn a_text_takes_no_facts() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [echo, "${{ disk(inputs.mount).used_percent }}"]
"#
        )),
        r#"13:22 fact-not-allowed: the fact `disk` cannot be used here: live facts appear only in `if`, `that`, `check` and `outputs`"#
    );
}

#[test]
fn a_list_has_no_text() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [echo, "${{ inputs.hosts }}"]
"#
        )),
        r#"13:21 not-text: `inputs.hosts` is a list, which has no text form (pick one element or field of it)"#
    );
}

#[test]
fn a_value_is_closed() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [echo, "${{ inputs.mount"]
"#
        )),
        r#"13:18 template-not-closed: `${{` is never closed (write `${{ … }}`, or `$${{` for the characters themselves)"#
    );
}

#[test]
fn a_number_that_is_a_text_is_quoted() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [find, /var, -mtime, +7, -perm, 0644, -size, 1.10, -maxdepth, 2]
"#
        )),
        r#"13:31 not-quoted: YAML reads `+7` as the number 7, but an argument of `run` is a text (write "+7")
13:55 not-quoted: YAML reads `1.10` as the number 1.1, but an argument of `run` is a text (write "1.10")"#
    );
}

#[test]
fn other_braces_are_not_replaced() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [echo, "{{ inputs.mount }}"]
  - id: b
    run: |
      echo {{ service }}
"#
        )),
        r#"13:17 not-a-template: `{{ … }}` is not replaced by anything (a value is written `${{ … }}`)
16:12 not-a-template: `{{ … }}` is not replaced by anything: the script gets it as it stands (give values to the script in its environment, with `env:`)"#
    );
}

#[test]
fn lengths_of_time_have_a_unit() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [df]
    timeout: 30
  - id: b
    wait: 3 minutes
"#
        )),
        r#"14:14 wrong-type: `timeout` is a length of time, and `30` has no unit (write `30s` for seconds)
16:11 wrong-value: `3 minutes` is not a length of time: write a whole number and a unit, such as `500ms`, `30s`, `2m` or `1h`"#
    );
}

#[test]
fn a_script_never_contains_a_value() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: |
      df
      echo "${{ inputs.mount }}" x
"#
        )),
        r#"15:13 value-in-script: a script never contains `${{`: a value must not become code (give it to the script in its environment: `env: { MOUNT: "${{ inputs.mount }}" }`, and write "$MOUNT" in the script)"#
    );
}

#[test]
fn a_variable_in_a_script_wants_quotes() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: |
      df $MOUNT # $MOUNT
      du "$MOUNT" '$MOUNT'
      OTHER=$MOUNT
    env: { MOUNT: "${{ inputs.mount }}" }
"#
        )),
        r#"14:10 unquoted-variable: `$MOUNT` without quotes is split at blanks and its `*` are replaced by file names (write "$MOUNT")"#
    );
}

#[test]
fn eval_in_a_script_is_told() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: |
      eval "df $MOUNT"
    env: { MOUNT: "${{ inputs.mount }}" }
"#
        )),
        r#"14:7 eval: `eval` makes code of text, also of the values this script is given (write the command itself, with "$NAME" for the values)"#
    );
}

#[test]
fn a_variable_that_changes_what_runs_takes_no_value() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [df]
    env: { PATH: "${{ inputs.mount }}", LD_PRELOAD: "${{ inputs.mount }}", BASH_ENV: "${{ inputs.mount }}", PYTHONPATH: "${{ inputs.mount }}", LANG: C, A-B: x, FETTLE_X: y }
"#
        )),
        r#"14:12 environment-changes-what-runs: `PATH` changes what runs, so no value may be in it (use another name, or a fixed text)
14:41 environment-changes-what-runs: `LD_PRELOAD` changes what runs, so no value may be in it (use another name, or a fixed text)
14:76 environment-changes-what-runs: `BASH_ENV` changes what runs, so no value may be in it (use another name, or a fixed text)
14:109 environment-changes-what-runs: `PYTHONPATH` changes what runs, so no value may be in it (use another name, or a fixed text)
14:153 wrong-name: `A-B` cannot be the name of a variable (use letters, digits and `_`)
14:161 wrong-name: names that begin with `FETTLE_` are Fettle's own"#
    );
}

#[test]
fn no_value_chooses_the_directory_a_program_is_looked_for_in() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [./look.sh]
    cwd: "${{ inputs.mount }}"
  - id: b
    run: cat x
    interpreter: [bin/sh]
    cwd: "${{ inputs.mount }}"
  - id: c
    run: [ls]
    cwd: "${{ inputs.mount }}"
  - id: d
    run: [./look.sh]
    cwd: /opt/app
"#
        )),
        r#"14:10 program-from-value: `./look.sh` is looked for in `cwd`: no value may choose what runs (write the program's whole path, or a fixed `cwd`)
18:10 program-from-value: `bin/sh` is looked for in `cwd`: no value may choose what runs (write the program's whole path, or a fixed `cwd`)"#
    );
}

#[test]
fn the_program_is_written_out() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: ["${{ inputs.mount }}"]
  - id: b
    run: ["df -h"]
  - id: c
    run: []
"#
        )),
        r#"13:11 program-from-value: the program is written out: no value may choose what runs (write its name or path)
15:11 wrong-value: a program's name has no blanks (write each argument as an item of its own: `[journalctl, -n, "50"]`)
17:10 wrong-value: `run` has no program (write `run: [program, argument]`)"#
    );
}

#[test]
fn the_working_directory_is_absolute() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [df]
    cwd: tmp
"#
        )),
        r#"14:10 wrong-value: `cwd` is an absolute path"#
    );
}

#[test]
fn retry_says_how_often() {
    assert_eq!(
        said(&diagnose(
            r#"  - id: a
    run: [df]
    retry: { first: 1s }
  - id: b
    run: [df]
    retry: { times: 0 }
"#
        )),
        r#"14:5 missing-key: `retry` does not say how often (write `retry: { times: 2, first: 1s }`)
17:21 wrong-value: `times` is 0, but must be from 1 to 20"#
    );
}

#[test]
fn a_remediate_step_states_risk_repeat_and_undo() {
    assert_eq!(
        said(&remediate(r#"run: [true]"#)),
        r#"16:5 repeat-missing: a remediate step states `repeat`: may it start again when nobody knows whether it ran? (write `repeat: safe`, or `repeat: never` if twice does harm)
16:5 risk-missing: a remediate step states its `risk` (write `risk: low`, `medium`, `high` or `critical`)
16:5 undo-missing: a remediate step states its `undo`: how is it made as if not done? (write `undo: none`, or `undo: [program, argument]`)"#
    );
}

#[test]
fn a_remediate_step_does_not_only_read() {
    assert_eq!(
        said(&remediate(
            r#"risk: read
run: [true]
repeat: safe
undo: none"#
        )),
        r#"17:11 risk-read: a remediate step cannot have the risk `read` (write `low`, `medium`, `high` or `critical`, or make it a diagnose step)"#
    );
}

#[test]
fn an_unknown_risk_is_told() {
    assert_eq!(
        said(&remediate(
            r#"risk: lwo
run: [true]
repeat: safe
undo: none"#
        )),
        r#"17:11 wrong-value: `lwo` is no `risk` (did you mean `low`?)"#
    );
}

#[test]
fn retry_and_repeat_never_exclude_each_other() {
    assert_eq!(
        said(&remediate(
            r#"risk: low
run: [true]
repeat: never
retry: { times: 2 }
undo: none"#
        )),
        r#"20:5 retry-never: `retry` with `repeat: never`: a failed attempt may have had half its effect (leave `retry` out, or make the step `repeat: safe`)"#
    );
}

#[test]
fn undo_is_none_or_something_to_run() {
    assert_eq!(
        said(&remediate(
            r#"risk: low
run: [true]
repeat: safe
undo: Nothing"#
        )),
        r#"20:11 wrong-value: `undo` without anything to run is written `none` (write `undo: none`)"#
    );
    assert_eq!(
        said(&remediate(
            r#"risk: low
run: [true]
repeat: safe
undo: []"#
        )),
        r#"20:11 wrong-value: `undo` has no program (write `undo: [program, argument]`)"#
    );
}

#[test]
fn undo_says_the_same_in_short_and_in_full() {
    let undo = |text: &str| {
        let text = remediate(&format!("risk: low\nrun: [true]\nrepeat: safe\nundo: {text}"));
        let read = crate::read(text.as_bytes()).expect("it is good");
        match &read.runbook.steps(Phase::Remediate)[0].undo {
            Undo::Run(Action::Argv(argv)) => argv.iter().map(|it| it.source().to_owned()).collect(),
            Undo::Run(Action::Script { source, .. }) => vec![format!("script: {source}")],
            Undo::None
            | Undo::Previous
            | Undo::Run(Action::That { .. } | Action::Wait(_) | Action::Service { .. }) => {
                panic!("{text} does nothing")
            }
        }
    };
    for (short, full) in [
        (r#"[touch, "${{ inputs.mount }}"]"#, r#"{ run: [touch, "${{ inputs.mount }}"] }"#),
        ("touch /tmp/x", "{ run: touch /tmp/x }"),
        ("[none]", "{ run: [none] }"),
    ] {
        assert_eq!(undo(short), undo(full), "{short}");
    }
}

#[test]
fn undo_keeps_the_rules_of_run() {
    assert_eq!(
        said(&remediate(
            r#"risk: low
run: [true]
repeat: safe
undo: { run: "echo ${{ inputs.mount }}" }"#
        )),
        r#"20:24 value-in-script: a script never contains `${{`: a value must not become code (give it to the script in its environment: `env: { MOUNT: "${{ inputs.mount }}" }`, and write "$MOUNT" in the script)"#
    );
}

#[test]
fn remediate_steps_go_in_order() {
    assert_eq!(
        said(&remediate(
            r#"risk: low
run: [true]
repeat: safe
undo: none
after: [look]"#
        )),
        r#"21:5 wrong-key: only diagnose steps have `after`; these go in order (leave it out)"#
    );
}

#[test]
fn a_wait_in_remediate_needs_no_risk() {
    assert_eq!(said(&remediate(r#"wait: 3s"#)), r#""#);
}

#[test]
fn actions_use_no_live_facts() {
    assert_eq!(
        said(&remediate(
            r#"risk: high
run: [echo, "${{ load.one }}"]
repeat: safe
undo: none"#
        )),
        r#"18:22 fact-not-allowed: the fact `load` cannot be used here: live facts appear only in `if`, `that`, `check` and `outputs`"#
    );
}

#[test]
fn an_approval_is_checked() {
    assert_eq!(
        said(&remediate(
            r#"risk: low
run: [true]
repeat: safe
undo: none
approval: { need: 0, from: [], within: 1m, escalate: { after: 2m, to: [duty] }, form: [x] }"#
        )),
        r#"21:23 wrong-value: `need` is 0, but must be from 1 to 10
21:32 wrong-name: `from` is a list of names of groups (use letters, digits, `-`, `_` and `.`)
21:67 wrong-value: the approval has ended before it escalates (make `after` shorter than `within`)
21:85 unknown-key: `approval` has no key `form` (did you mean `from`?)"#
    );
}

#[test]
fn on_failure_is_one_of_three() {
    assert_eq!(
        said(&remediate(
            r#"risk: low
run: [true]
repeat: safe
undo: none
on_failure: ignore"#
        )),
        r#"21:17 wrong-value: `ignore` is no `on_failure` (there is: `stop`, `continue`, `undo`)"#
    );
}

#[test]
fn a_step_does_not_see_its_own_end() {
    assert_eq!(
        said(&remediate(
            r#"risk: low
run: [true]
repeat: safe
undo: none
check: stdout == "x" || steps.act.x == 1"#
        )),
        r#"21:12 not-in-scope: `stdout` cannot be used here: only `outputs` of the step itself sees it
21:29 not-in-scope: `steps.act` cannot be used here: the step itself has not ended then"#
    );
}
