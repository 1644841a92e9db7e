//! The rules about the whole runbook, its inputs and its triggers: what is said, word for word.

use super::said;

#[test]
fn a_runbook_must_say_its_language_version() {
    assert_eq!(
        said(
            r#"runbook: a
"#
        ),
        r#"1:1 wrong-version: `fettle:` with the version of the language is missing (write `fettle: 1`)"#
    );
}

#[test]
fn another_language_version_is_refused() {
    assert_eq!(
        said(
            r#"fettle: 2
runbook: a
something: new
"#
        ),
        r#"1:9 wrong-version: this is Fettle language version 1, the runbook asks for `2` (write `fettle: 1`)"#
    );
}

#[test]
fn a_runbook_has_a_name() {
    assert_eq!(
        said(
            r#"fettle: 1
diagnose:
  - id: a
    run: [df]
"#
        ),
        r#"1:1 missing-key: `runbook:` with its name is missing (write its path in the library, such as `runbook: host/disk-full`)"#
    );
}

#[test]
fn the_name_is_a_path_in_the_library() {
    assert_eq!(
        said(
            r#"fettle: 1
runbook: ../Etc
diagnose:
  - id: a
    run: [df]
"#
        ),
        r#"2:10 wrong-value: a runbook's name has lower-case letters, digits, `-` and `_`, with `/` between its parts (write its path in the library, such as `host/disk-full`)"#
    );
}

#[test]
fn a_runbook_without_steps_does_nothing() {
    assert_eq!(
        said(
            r#"fettle: 1
runbook: a
"#
        ),
        r#"2:1 no-steps: the runbook does nothing (add `diagnose:`, or `remediate:` and `verify:`)"#
    );
}

#[test]
fn a_phase_without_steps_is_refused() {
    assert_eq!(
        said(
            r#"fettle: 1
runbook: a
diagnose: []
"#
        ),
        r#"3:1 no-steps: `diagnose` has no steps (add one, or leave the key out)"#
    );
}

#[test]
fn an_unknown_key_is_answered_with_the_one_that_was_meant() {
    assert_eq!(
        said(
            r#"fettle: 1
runbook: a
diagnos:
  - id: a
    run: [df]
diagnose:
  - id: b
    run: [df]
    timout: 3s
"#
        ),
        r#"3:1 unknown-key: a runbook has no key `diagnos` (did you mean `diagnose`?)
9:5 unknown-key: a step has no key `timout` (did you mean `timeout`?)"#
    );
}

#[test]
fn verify_is_required_when_something_is_remediated() {
    assert_eq!(
        said(
            r#"fettle: 1
runbook: a
remediate:
  - id: act
    risk: low
    run: [true]
    repeat: safe
    undo: none
"#
        ),
        r#"3:1 verify-missing: a runbook that remediates must verify: the exit code of a step says nothing of the symptom (add `verify:` with a step such as `that: disk(inputs.mount).used_percent < 85`)"#
    );
}

#[test]
fn verify_without_remediate_never_runs() {
    assert_eq!(
        said(
            r#"fettle: 1
runbook: a
diagnose:
  - id: a
    run: [df]
verify:
  - id: b
    that: load.one < 3.0
"#
        ),
        r#"6:1 unreachable: `verify` never runs, because nothing is remediated (make its steps diagnose steps)"#
    );
}

#[test]
fn finally_is_of_a_later_version() {
    assert_eq!(
        said(
            r#"fettle: 1
runbook: a
diagnose:
  - id: a
    run: [df]
finally:
  - id: b
    run: [df]
"#
        ),
        r#"6:1 not-in-this-version: this version of the language does not have `finally` yet"#
    );
}

#[test]
fn watch_is_of_a_later_version() {
    assert_eq!(
        said(
            r#"fettle: 1
runbook: a
on:
  - watch: load.one > 3
    for: 1m
diagnose:
  - id: a
    run: [df]
"#
        ),
        r#"4:5 not-in-this-version: this version of the language does not have `watch` yet
5:5 not-in-this-version: this version of the language does not have `for` yet"#
    );
}

#[test]
fn a_trigger_names_its_alert() {
    assert_eq!(
        said(
            r#"fettle: 1
runbook: a
on:
  - match: labels.a == "b"
diagnose:
  - id: a
    run: [df]
"#
        ),
        r#"4:5 missing-key: a trigger without `alert` (write `- alert: TheAlertsName`)"#
    );
}

#[test]
fn a_trigger_names_one_alert_or_several_and_each_once() {
    let alerts = |written: &str| {
        let text = format!(
            "fettle: 1\nrunbook: a\non:\n  - alert: {written}\ndiagnose:\n  - id: a\n    run: [df]\n"
        );
        let read = crate::read(text.as_bytes()).unwrap_or_else(|problems| panic!("{written}: {problems:?}"));
        assert_eq!(read.runbook.triggers().len(), 1);
        read.runbook.triggers()[0].alerts.clone()
    };
    assert_eq!(alerts("A"), ["A"]);
    assert_eq!(alerts("[A]"), ["A"]);
    assert_eq!(alerts("[B, A, ' two words ']"), ["B", "A", "two words"]);
    assert_eq!(
        said(
            r#"fettle: 1
runbook: a
on:
  - alert: []
  - alert: [A, "", 1.10, [B], A, ~]
  - alert: { A: B }
diagnose:
  - id: a
    run: [df]
"#
        ),
        r#"4:12 wrong-value: `alert` names no alert (write at least one name)
5:16 wrong-value: a name of `alert` is one line of text
5:20 not-quoted: YAML reads `1.10` as the number 1.1, but a name of `alert` is a text (write "1.10")
5:26 wrong-type: a name of `alert` is a text, this is a list
5:31 wrong-value: the alert `A` is named twice in this list (leave it out once)
5:34 wrong-type: a name of `alert` is a text, this is nothing (write "" for an empty text)
6:12 wrong-type: `alert` is a text, this is a map"#
    );
}

#[test]
fn the_inputs_of_a_trigger_are_known_and_complete() {
    assert_eq!(
        said(
            r#"fettle: 1
runbook: a
inputs:
  port: { type: int }
  name: { type: string, default: x }
on:
  - alert: A
    inputs: { nam: "${{ labels.name }}" }
diagnose:
  - id: a
    run: [df]
"#
        ),
        r#"8:5 missing-input: the trigger gives no value for the input `port`, which has no default (write `inputs: { port: "${{ labels.port }}" }`, or give the input a default)
8:15 unknown-name: there is no input `nam` (did you mean `name`?)"#
    );
}

#[test]
fn a_trigger_sees_only_the_alert() {
    assert_eq!(
        said(
            r#"fettle: 1
runbook: a
inputs:
  port: { type: int, default: 1 }
on:
  - alert: A
    match: inputs.port > 1 && load.one > 2.0
    host: size(labels.instance)
    inputs: { port: many }
diagnose:
  - id: a
    run: [df]
"#
        ),
        r#"7:12 not-in-scope: `inputs` cannot be used here: the controller evaluates this before any host is asked
7:31 fact-not-allowed: the fact `load` cannot be used here: the controller evaluates this before any host is asked
8:11 expression-type: `host` must be a text, this is a whole number
9:21 wrong-value: input `port`: `many` is not a whole number"#
    );
}

#[test]
fn guards_are_read() {
    assert_eq!(
        said(
            r#"fettle: 1
runbook: a
guard: { cooldown: 30, max_runs: 3, coldown: 1m }
diagnose:
  - id: a
    run: [df]
"#
        ),
        r#"3:20 wrong-type: `cooldown` is a length of time, and `30` has no unit (write `30s` for seconds)
3:34 wrong-value: `max_runs` is a number of runs per length of time (write `max_runs: 3 per 24h`)
3:37 unknown-key: `guard` has no key `coldown` (did you mean `cooldown`?)"#
    );
}

#[test]
fn inputs_have_a_known_type_and_fitting_limits() {
    assert_eq!(
        said(
            r#"fettle: 1
runbook: a
inputs:
  a: { type: paht }
  b: { default: 1 }
  c: { type: int, min: 9, max: 3 }
  d: { type: int, default: 100, max: 95 }
  e: { type: string, pattern: "a(" }
  f: { type: bool, min: 1 }
  g: { type: enum }
  h: { type: enum, of: [red, blue], default: green }
  i: { type: secret, default: x }
  j: { type: duration, default: 5 }
  k-l: { type: int }
  m: { type: string, default: 0644 }
  n: { type: string, default: 1.10 }
  o: { type: list, of: int, default: [1, x] }
diagnose:
  - id: a
    run: [df]
"#
        ),
        r#"4:14 wrong-value: `paht` is no `type` (did you mean `path`?)
5:3 missing-key: the input `b` has no `type` (write `type:` and one of string, int, number, bool, duration, path, host, enum, list, secret)
6:24 wrong-value: `min` is more than `max`
7:28 wrong-value: the default does not fit: 100 is more than its maximum 95
8:31 bad-pattern: the pattern is broken: found open group without closing ')'
9:20 wrong-key: an input of type `bool` has no `min`
10:3 missing-key: the enum `g` does not say which values it has (write `of: [one, other]`)
11:46 wrong-value: the default does not fit: `green` is not one of its values; there is: `red`, `blue`
12:22 secret-in-text: a secret has no default (leave it out)
13:33 wrong-value: the default does not fit: `5` is not a length of time: write a whole number and a unit, such as `500ms`, `30s`, `2m` or `1h`
14:3 wrong-name: `k-l` cannot be an input's name (use letters, digits and `_`)
16:31 not-quoted: YAML reads `1.10` as the number 1.1, but `default` is a text (write "1.10")
17:38 wrong-value: the default does not fit: item 2: `x` is not a whole number"#
    );
}
