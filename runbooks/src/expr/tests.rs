//! Expressions, each through one funnel.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::{At, Env, Expr, Mapped, Scope};
use crate::value::{Type, Value};

fn env() -> Env {
    let text_map = Type::Map(Box::new(Type::String));
    let inputs = BTreeMap::from([
        ("mount".to_owned(), Type::String),
        ("port".to_owned(), Type::Int),
        ("wait".to_owned(), Type::Duration),
        ("hosts".to_owned(), Type::List(Box::new(Type::String))),
        ("ratio".to_owned(), Type::Number),
    ]);
    let steps = BTreeMap::from([
        ("look".to_owned(), Type::Record(BTreeMap::from([("used".to_owned(), Type::Int)]))),
        ("my-step".to_owned(), Type::Record(BTreeMap::from([("x".to_owned(), Type::Any)]))),
    ]);
    Env {
        vars: BTreeMap::from([
            ("inputs".to_owned(), Type::Record(inputs)),
            ("labels".to_owned(), text_map),
            ("steps".to_owned(), Type::Record(steps)),
            ("stdout".to_owned(), Type::String),
        ]),
        ..Env::default()
    }
}

fn map(entries: &[(&str, Value)]) -> Value {
    Value::Map(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn scope() -> Scope {
    Scope(BTreeMap::from([
        (
            "inputs".to_owned(),
            map(&[
                ("mount", text("/var")),
                ("port", Value::Int(80)),
                ("wait", Value::Duration(std::time::Duration::from_secs(90))),
                ("hosts", Value::List(vec![text("a"), text("b")])),
                ("ratio", Value::Number(0.5)),
            ]),
        ),
        ("labels".to_owned(), map(&[("team", text("core")), ("empty", text(""))])),
        ("steps".to_owned(), map(&[("look", map(&[("used", Value::Int(91))]))])),
        ("stdout".to_owned(), text(" 42 \n{\"a\": [1, 2.5]}\nlast\n")),
    ]))
}

fn facts() -> Facts {
    let deleted = [("a.service", 7), ("", 2)]
        .map(|(unit, bytes)| map(&[("unit", text(unit)), ("bytes", Value::Int(bytes))]))
        .to_vec();
    Facts::from([
        ("disk(\"/var\")".to_owned(), Ok(map(&[("used_percent", Value::Number(91.5))]))),
        ("memory".to_owned(), Ok(map(&[("used_percent", Value::Number(10.0))]))),
        ("load".to_owned(), Err("the file is not there".to_owned())),
        ("open_files(\"/var\")".to_owned(), Ok(map(&[("deleted", Value::List(deleted))]))),
        ("log(\"/var/log/x\").count(\"a.b\", duration(\"90s\"))".to_owned(), Ok(Value::Int(3))),
        ("log(\"nginx\").matches(\"x\", duration(\"5m\"))".to_owned(), Ok(Value::Bool(true))),
        ("log(\"nginx\").last(\"x\", duration(\"5m\"))".to_owned(), Ok(text("ax"))),
    ])
}

/// The value as an expression, or what is wrong: `line:column message (help)`.
fn result(source: &str) -> String {
    let mapped = Mapped::bare(source);
    match Expr::parse(&mapped.source(), &env()) {
        Ok(expr) => match expr.eval(&scope(), &facts()) {
            Ok(value) => value.literal(),
            Err(error) => format!("ERROR {}:{} {}", error.line, error.column, error.message),
        },
        Err(problems) => {
            let lines: Vec<String> = problems
                .iter()
                .map(|problem| {
                    let At { line, column, .. } = problem.at;
                    let help = problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
                    format!("{line}:{column} {}{help}", problem.message)
                })
                .collect();
            lines.join("; ")
        }
    }
}

#[test]
fn expressions_have_values() {
    let cases = [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("-7 / 2", "-3"),
        ("-7 % 3", "-1"),
        ("7.0 / 2.0", "3.5"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("0x1F", "31"),
        ("\"a\" + 'b'", "\"ab\""),
        (r#"r"\d" + "\u00e9\n""#, "\"\\\\dé\\n\""),
        ("'''a'b'''", "\"a'b\""),
        ("true ? 1 : 2", "1"),
        ("false || true && !false", "true"),
        ("1 < 2.5 && 2 == 2.0", "true"),
        ("\"b\" > \"a\"", "true"),
        ("[1, 2] + [3]", "[1, 2, 3]"),
        ("2 in [1, 2]", "true"),
        ("\"a\" in {\"a\": 1}", "true"),
        ("{\"a\": {\"b\": 2}}.a.b", "2"),
        ("[10, 20][1]", "20"),
        ("[1, 2, 3].all(x, x > 0)", "true"),
        ("[1, 2, 3].exists(x, x > 2)", "true"),
        ("[1, 2, 3].exists_one(x, x > 1)", "false"),
        ("[1, 2, 3].map(x, x * 2)", "[2, 4, 6]"),
        ("[1, 2, 3].map(x, x > 1, x * 2)", "[4, 6]"),
        ("[1, 2, 3].filter(x, x > 1)", "[2, 3]"),
        ("size(\"prüf\") + size([1])", "5"),
        ("int(\" 42\\n\") + int(2.9)", "44"),
        ("double(\"2.5\") + double(1)", "3.5"),
        ("string(1) + string(2.5) + string(true) + string(duration(\"90s\"))", "\"12.5true90s\""),
        ("bool(\"true\")", "true"),
        ("trim(\" a \") + trim(\"b\\n\")", "\"ab\""),
        ("lines(stdout)[2]", "\"last\""),
        ("json(lines(stdout)[1]).a[1]", "2.5"),
        ("json(lines(stdout)[1]).a[0] + 1", "2"),
        ("regex(stdout, \"a.: .([0-9])\")", "\"1\""),
        ("stdout.contains(\"last\") && stdout.matches(\"^ 4\") && stdout.startsWith(\" \")", "true"),
        ("duration(\"1m\") + inputs.wait > duration(\"2m\")", "true"),
        ("inputs.port == 80 && inputs.mount == \"/var\"", "true"),
        ("labels.team == \"core\" && labels.nothing == \"\"", "true"),
        ("has(labels.team) && !has(labels.nothing) && !has(labels.empty)", "true"),
        ("has(steps[\"my-step\"].x)", "false"),
        ("steps.look.used >= inputs.port", "true"),
        ("disk(inputs.mount).used_percent > 90", "true"),
        ("memory.used_percent", "10.0"),
        ("false && load.one > 1.0", "false"),
        ("load.one > 1.0 && false", "false"),
        ("true || load.one > 1.0", "true"),
        ("open_files(\"/var\").deleted.filter(f, f.unit != \"\").map(f, f.unit)", "[\"a.service\"]"),
        ("open_files(inputs.mount).deleted[0].bytes > 5", "true"),
        ("open_files(\"/var\").deleted.exists(f, f.bytes > 7)", "false"),
        ("log(\"/var/log/x\").count(\"a.b\", inputs.wait) > 2", "true"),
        ("!log(\"nginx\").matches(\"x\", duration(\"5m\"))", "false"),
        ("log(\"nginx\").last(\"x\", duration(\"5m\")).contains(\"a\")", "true"),
        ("1 /* 2 */", "1:4 expected a value, found `*`"),
        ("1 // a comment", "1"),
    ];
    for (source, expected) in cases {
        assert_eq!(result(source), expected, "`{source}`");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let cases = [
        ("", "1:1 an expression is missing here"),
        ("1 +", "1:4 expected a value, found the end"),
        ("(1", "1:3 expected `)` to close the parenthesis, found the end"),
        ("1 2", "1:3 unexpected `2` after a complete expression"),
        ("a = 1", "1:3 `=` is not an operator (compare with `==`)"),
        ("true & false", "1:6 `&` is not an operator (write `&&`)"),
        ("true and false", "1:6 unexpected `and` after a complete expression (write `&&`)"),
        ("not true", "1:1 `not` is not an operator (write `!`)"),
        ("\"abc", "1:1 the text that \" opens is never closed"),
        ("\"a\\d\"", "1:3 `\\d` is not an escape: write `\\\\` for a backslash, or r\"…\""),
        ("1u", "1:1 `1u`: there are no unsigned numbers here, write `1`"),
        ("30s", "1:1 a length of time is written `duration(\"30s\")`"),
        ("9223372036854775808", "1:1 `9223372036854775808` is too large a number"),
        ("b\"x\"", "1:1 there are no bytes here: leave out the `b`"),
        ("inputs.prot > 1", "1:1 there is no input `prot` (did you mean `port`?)"),
        ("input.port", "1:1 there is no `input` here (did you mean `inputs`?)"),
        ("port > 1", "1:1 there is no `port` here (did you mean `inputs.port`?)"),
        ("steps.lok.used", "1:1 there is no step `lok` (did you mean `look`?)"),
        ("steps.look.usd", "1:1 the step `look` has no output `usd` (did you mean `used`?)"),
        (
            "steps.my-step.x",
            "1:1 there is no step `my` (a name with `-` is written `steps[\"my-step\"]`); 1:10 there is no `step` here (did you \
             mean `steps`?)",
        ),
        (
            "lenght(stdout)",
            "1:1 there is no function `lenght` (there is: `size`, `int`, `double`, `string`, `bool`, `duration`, \
                            `json`, `trim`, `lines`, `regex`, `disk`, `memory`, `cpu`, `load`, `processes`, `open_files`, `unit`, `tcp`, `file`, `log`, `has`)",
        ),
        ("tirm(stdout)", "1:1 there is no function `tirm` (did you mean `trim`?)"),
        ("stdout.trim()", "1:8 `trim` is not written after a dot (write `trim(…)`)"),
        ("contains(stdout, \"a\")", "1:1 there is no function `contains` (write `text.contains(…)`)"),
        (
            "memory().used_percent",
            "1:1 the fact `memory` takes no arguments (write `memory` without parentheses)",
        ),
        ("disk.used_percent", "1:1 there is no `disk` here (write `disk(mount)`)"),
        ("disk(inputs.mount).used > 1", "1:1 there is no field `used` (did you mean `used_bytes`?)"),
        (
            "disk(file(\"/x\").mode).readonly",
            "1:6 an argument of `disk` must not depend on another fact (read it in a diagnose \
                                             step and use that step's output)",
        ),
        (
            "processes(\"x\").pids.all(p, file(string(p)).exists)",
            "1:33 an argument of `file` must not depend on another fact \
                                                                   (read it in a diagnose step and use that step's output)",
        ),
        (
            "open_files(\"/var\").deleted.map(f, f.size)",
            "1:35 `f` has no field `size` (there is: `bytes`, `name`, `path`, `pid`, `process_uid`, `uid`, `unit`)",
        ),
        (
            "open_files(\"/var\").deleted.exists(f, unit(f.unit).active)",
            "1:43 an argument of `unit` must not depend on another fact (read it in a diagnose step and use that step's output)",
        ),
        (
            "unit(\"x\").restarts == \"1\"",
            "1:1 `==` does not take a whole number and a text (make both the same with `int(…)` or `string(…)`)",
        ),
        (
            "log(\"x\")",
            "1:1 `log` needs a target and a question (write `log(target).matches(pattern, since)` or `log(target).count(pattern, since)` \
             or `log(target).last(pattern, since)`)",
        ),
        (
            "log(\"x\").contains(\"a\")",
            "1:1 `log` needs a target and a question (write `log(target).matches(pattern, since)` or `log(target).count(pattern, since)` \
             or `log(target).last(pattern, since)`)",
        ),
        (
            "log(\"x\").matches(\"a\")",
            "1:1 `matches` takes 2 arguments (write `log(target).matches(pattern, since)`)",
        ),
        (
            "log(\"x\").matches(\"a\", \"5m\")",
            "1:23 `log` takes a length of time, this is a text (a length of time is written `duration(\"30s\")`)",
        ),
        (
            "log(\"x\").matches(inputs.mount, inputs.wait)",
            "1:18 a pattern must be written out as a text, not computed",
        ),
        (
            "log(\"x\").matches(\"(\", inputs.wait)",
            "1:18 the pattern is broken: found open group without closing ')'",
        ),
        (
            "log(file(\"/x\").mode).matches(\"a\", inputs.wait)",
            "1:5 an argument of `log` must not depend on another fact (read it in a diagnose step and use that step's output)",
        ),
        ("log.matches(\"a\")", "1:1 there is no `log` here (write `log(target).matches(pattern, since)`)"),
        (
            "1 + 1.0",
            "1:1 `+` does not take a whole number and a number (make both the same: write `2.0` rather than `2`, or \
                     `double(x)`)",
        ),
        (
            "\"a\" + 1",
            "1:1 `+` does not take a text and a whole number (make both the same with `int(…)` or `string(…)`)",
        ),
        (
            "inputs.port == \"80\"",
            "1:1 `==` does not take a whole number and a text (make both the same with `int(…)` or \
                                    `string(…)`)",
        ),
        (
            "inputs.wait > 5",
            "1:1 `>` does not take a length of time and a whole number (a length of time is written \
                             `duration(\"30s\")`)",
        ),
        (
            "!inputs.port",
            "1:2 `!` takes true or false, this is a whole number (compare it, for instance with `> 0`)",
        ),
        ("int()", "1:1 `int` takes one argument, found 0"),
        ("int(inputs.hosts)", "1:5 `int` takes a text or a number, this is a list"),
        ("regex(stdout, inputs.mount)", "1:15 a pattern must be written out as a text, not computed"),
        ("stdout.matches(\"(\")", "1:1 the pattern is broken: found open group without closing ')'"),
        (
            "duration(\"5\")",
            "1:10 `5` is not a length of time: write a whole number and a unit, such as `500ms`, `30s`, `2m` or \
                             `1h`",
        ),
        ("stdout.all(x, true)", "1:1 this is a text, not a list (split a text with `lines(…)`)"),
        ("[1].all(inputs, true)", "1:1 `inputs` already has a meaning: choose another name"),
        ("[1].all(1, true)", "1:5 `all` takes a name and an expression (write `list.all(x, …x…)`)"),
        ("has(labels)", "1:1 `has` takes a field, such as `labels.team` (write `has(a.b)`)"),
        ("{\"a\": 1, \"a\": 2}", "1:10 the key `a` is given twice"),
        ("true &&\n  inputs.ports > 1", "2:3 there is no input `ports` (did you mean `port`?)"),
    ];
    for (source, expected) in cases {
        let expected = expected.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(result(source).replace("\n", " "), expected, "`{source}`");
    }
}

#[test]
fn what_an_expression_read_is_told_in_its_words() {
    let read = |source: &str| {
        let expr = Expr::parse(&Mapped::bare(source).source(), &env()).expect("it is good");
        let asked = expr.fact_calls(&scope()).expect("they can be told");
        let mut answers = facts();
        answers.retain(|call, _| asked.iter().any(|fact| fact.to_string() == *call));
        let read = expr.readings(&scope(), &answers);
        read.iter().map(|(words, value)| format!("{words} = {value}")).collect::<Vec<_>>().join("; ")
    };
    for (source, told) in [
        (
            "disk(inputs.mount).used_percent < double(inputs.port) + 1.0",
            r#"disk("/var").used_percent = 91.5; inputs.port = 80"#,
        ),
        ("inputs.port < 1 || inputs.port > 2", "inputs.port = 80"),
        (
            "steps.look.used > 90 && memory.used_percent > 5.0",
            "steps.look.used = 91; memory.used_percent = 10.0",
        ),
        ("load.one > 1.0", "load = cannot be read: the file is not there"),
        (r#"["/var"].exists(m, disk(m).used_percent > 99.0)"#, r#"disk("/var") = {"used_percent":91.5}"#),
        ("1 < 2", ""),
    ] {
        assert_eq!(read(source), told, "{source}");
    }
}

#[test]
fn what_fails_when_it_runs_says_where() {
    let cases = [
        ("1 / 0", "ERROR 1:1 division by zero"),
        ("9223372036854775807 + 1", "ERROR 1:1 the result of `+` is too large"),
        ("[1][inputs.port]", "ERROR 1:1 there is no element 80: the list has 1"),
        ("int(stdout)", "ERROR 1:1 ` 42 \\u{a}{\"a\": [1, 2.5]}\\u{a}last\\u{a}` is not a whole number"),
        ("steps[\"my-step\"].x", "ERROR 1:1 the step `my-step` left no outputs"),
        ("json(stdout)", "ERROR 1:1 not JSON: trailing characters at line 2 column 1"),
        ("regex(stdout, \"zzz\")", "ERROR 1:1 ` 42 \\u{a}{\"a\": [1, 2.5]}\\u{a}last\\u{a}` does not match"),
        ("1 == 1 && load.one > 1.0", "ERROR 1:11 load cannot be read: the file is not there"),
        ("tcp(\"a:1\").open", "ERROR 1:1 tcp(\"a:1\") was not read"),
        ("duration(\"1s\") - inputs.wait", "ERROR 1:1 a length of time cannot be negative"),
    ];
    for (source, expected) in cases {
        assert_eq!(result(source), expected, "`{source}`");
    }
}

#[test]
fn no_expression_takes_much_work() {
    let list = format!("[{}]", vec!["1"; 60].join(","));
    let loops =
        format!("{list}.map(a, {list}.map(b, {list}.map(c, {list}.map(d, a + b + c + d)))).size() > 0");
    assert!(result(&loops.replace(".size() > 0", "")).contains("takes too much work"), "{}", result(&loops));
    let absorbed = format!("{list}.all(a, {list}.all(b, {list}.all(c, {list}.all(d, a > 0)))) || true");
    assert!(result(&absorbed).contains("takes too much work"));
    let doubling = "[stdout].map(a, a + a + a + a + a + a + a + a).map(a, a + a + a + a + a + a + a + a).map(a, a + a + a + a + \
                    a + a + a + a).map(a, a + a + a + a + a + a + a + a).map(a, a + a + a + a + a + a + a + a).map(a, a + a + a + \
                    a + a + a + a + a).map(a, a + a + a + a + a + a + a + a).map(a, a + a + a + a + a + a + a + a)";
    assert!(result(doubling).contains("takes too much work"));
}

#[test]
fn no_expression_is_long_or_deep() {
    assert!(result(&"1+".repeat(1500)).contains("at most 2048"));
    assert!(result(&format!("1{}", "+1".repeat(100))).contains("64 levels deep"));
    assert!(result(&"(".repeat(1000)).contains("64 levels deep"));
    assert!(result(&"[".repeat(1000)).contains("64 levels deep"));
    assert!(result(&"!".repeat(1000)).contains("64 levels deep"));
    assert!(result(&"-".repeat(1000)).contains("64 levels deep"));
    assert!(result(&format!("{}1", "true?1:".repeat(100))).contains("64 levels deep"));
    assert!(result(&format!("x{}", ".a".repeat(100))).contains("64 levels deep"));
}

#[test]
fn the_facts_it_needs_are_told_beforehand() {
    let calls = |source: &str| {
        let mapped = Mapped::bare(source);
        let expr = Expr::parse(&mapped.source(), &env()).unwrap();
        expr.fact_calls(&scope()).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(calls("inputs.port > 1"), "");
    assert_eq!(
        calls("true || disk(inputs.mount).used_percent > 1 && memory.used_percent < 2"),
        "disk(\"/var\") memory"
    );
    assert_eq!(calls("disk(\"/a\").readonly == disk(\"/a\").readonly"), "disk(\"/a\")");
    assert_eq!(
        calls("inputs.hosts.all(h, tcp(h + \":\" + string(inputs.port)).open)"),
        "tcp(\"a:80\") tcp(\"b:80\")"
    );
    assert_eq!(calls("processes(\"x\").pids.all(p, p > cpu.cores)"), "cpu processes(\"x\")");
    assert_eq!(calls("disk(steps[\"my-step\"].x).readonly"), "");
    assert_eq!(
        calls("inputs.hosts.exists(h, log(h).matches(\"a\", inputs.wait))"),
        "log(\"a\").matches(\"a\", duration(\"90s\")) log(\"b\").matches(\"a\", duration(\"90s\"))"
    );
}

/// What the `cel` crate says to the same expression, in the same form; nothing where our language differs on purpose.
fn reference(source: &str) -> Option<String> {
    let program = cel::Program::compile(source).ok()?;
    let value = program.execute(&cel::Context::default()).ok()?;
    literal(value)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the values of the reference are not ours")]
fn literal(value: cel::Value) -> Option<String> {
    Some(match value {
        cel::Value::Int(value) => Value::Int(value).literal(),
        cel::Value::Float(value) => Value::Number(value).literal(),
        cel::Value::Bool(value) => Value::Bool(value).literal(),
        cel::Value::String(value) => Value::String(value.to_string()).literal(),
        cel::Value::Null => Value::Null.literal(),
        cel::Value::List(items) => {
            let items: Option<Vec<String>> = items.iter().cloned().map(literal).collect();
            format!("[{}]", items?.join(", "))
        }
        _ => return None,
    })
}

mod differential {
    use proptest::prelude::*;

    fn expression() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            (0i64..20).prop_map(|number| number.to_string()),
            (0i64..20).prop_map(|number| format!("{number}.5")),
            Just("true".to_owned()),
            Just("false".to_owned()),
            prop_oneof![Just("\"a\""), Just("'b c'"), Just("\"\"")].prop_map(str::to_owned),
            Just("[1, 2, 3]".to_owned()),
        ];
        leaf.prop_recursive(4, 16, 3, |inner| {
            let op = prop_oneof![
                Just("+"),
                Just("-"),
                Just("*"),
                Just("/"),
                Just("%"),
                Just("=="),
                Just("!="),
                Just("<"),
                Just("<="),
                Just(">"),
                Just(">="),
                Just("&&"),
                Just("||"),
                Just("in"),
            ];
            prop_oneof![
                (inner.clone(), op, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
                inner.clone().prop_map(|a| format!("({a})")),
                inner.clone().prop_map(|a| format!("!{a}")),
                (inner.clone(), inner.clone(), inner.clone())
                    .prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
                inner.clone().prop_map(|a| format!("[1, 2, 3].exists(x, x == {a})")),
                inner.clone().prop_map(|a| format!("[1, 2, 3].map(x, [x, {a}])")),
                inner.clone().prop_map(|a| format!("size({a})")),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn where_both_have_a_value_it_is_the_same(source in expression()) {
            let ours = super::result(&source);
            let refused = ours.contains(':') || ours.starts_with("ERROR");
            if let Some(theirs) = super::reference(&source).filter(|_| !refused) {
                prop_assert_eq!(ours, theirs, "`{}`", source);
            }
        }

        #[test]
        fn no_text_makes_it_panic(source in "\\PC{0,80}") {
            super::result(&source);
        }

        #[test]
        fn no_words_make_it_panic(words in proptest::collection::vec(
            prop_oneof![
                Just("("), Just(")"), Just("["), Just("]"), Just("{"), Just("}"), Just("."), Just(","), Just("?"), Just(":"), Just("!"),
                Just("-"), Just("in"), Just("has"), Just("inputs"), Just("port"), Just("labels"), Just("disk"), Just("memory"),
                Just("all"), Just("map"), Just("x"), Just("1"), Just("2.5"), Just("\"a\""), Just("&&"), Just("=="), Just("+"),
                Just("json"), Just("log"), Just("matches"), Just("open_files"), Just("stdout"), Just("lines"), Just("steps"), Just("%"), Just("/"),
            ], 0..24)) {
            super::result(&words.join(" "));
            super::result(&words.concat());
        }
    }
}
