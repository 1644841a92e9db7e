//! Whatever the bytes, reading them ends, does not panic, and what it says has a place in the file.

use proptest::prelude::*;

use crate::yaml::{Node, NodeKind, ScalarValue};

const WHOLE: &str = include_str!("../../../library/demo/service-down.yaml");

fn look(bytes: &[u8]) {
    if let Err(problems) = crate::read(bytes) {
        assert!(!problems.is_empty());
        for problem in &problems {
            assert!(problem.line >= 1 && problem.column >= 1, "{problem:?}");
            assert!(problem.span.start <= problem.span.end, "{problem:?}");
            assert!(problem.span.start <= bytes.len(), "{problem:?}");
        }
        crate::problem::render("runbook.yaml", bytes, &problems, false);
    }
}

/// Every text that stands where the index says is there, character by character.
fn places(node: &Node, text: &str) {
    match &node.kind {
        NodeKind::List(items) => items.iter().for_each(|item| places(item, text)),
        NodeKind::Map(entries) => {
            for entry in entries {
                let written = &text[entry.at.offset..entry.until];
                assert!(
                    written.contains(&entry.key) || written.contains('\\'),
                    "{written:?} is not {:?}",
                    entry.key
                );
                places(&entry.value, text);
            }
        }
        NodeKind::Scalar(scalar) => {
            assert!(text.is_char_boundary(node.at.offset) && text.is_char_boundary(node.until));
            if scalar.text.exact && scalar.value == ScalarValue::Text {
                for (offset, c) in scalar.text.text.char_indices().filter(|(_, c)| *c != '\n') {
                    let at = scalar.text.source().at(offset);
                    assert!(
                        text[at.offset..].starts_with(c),
                        "{c:?} of {:?} is not at {at:?}",
                        scalar.text.text
                    );
                    if text.contains('\r') {
                        continue; // Which also ends a line, for YAML but not for `split`.
                    }
                    let line = text.split('\n').nth(at.line - 1).unwrap_or("");
                    assert_eq!(line.chars().nth(at.column - 1), Some(c), "{at:?}");
                }
            }
        }
    }
}

/// The tree the index and `serde_yaml` make together is the one `serde_yaml` makes alone.
fn agrees(node: &Node, value: &serde_yaml::Value) -> bool {
    match (&node.kind, value) {
        (NodeKind::List(items), serde_yaml::Value::Sequence(values)) => {
            items.len() == values.len() && items.iter().zip(values).all(|(item, value)| agrees(item, value))
        }
        (NodeKind::Map(entries), serde_yaml::Value::Mapping(map)) => {
            entries.len() == map.len()
                && entries
                    .iter()
                    .all(|entry| map.get(entry.key.as_str()).is_some_and(|value| agrees(&entry.value, value)))
        }
        (NodeKind::Scalar(scalar), value) => match (&scalar.value, value) {
            (ScalarValue::Null, serde_yaml::Value::Null) => true,
            (ScalarValue::Bool(ours), serde_yaml::Value::Bool(theirs)) => ours == theirs,
            (ScalarValue::Int(ours), theirs) => theirs.as_i64() == Some(*ours),
            (ScalarValue::Number(_), theirs) => theirs.is_number(),
            (ScalarValue::Text, serde_yaml::Value::String(theirs)) => scalar.text.text == *theirs,
            (_, _) => false,
        },
        (NodeKind::List(_) | NodeKind::Map(_), _) => false,
    }
}

fn yaml_check(text: &str) {
    if let Ok(document) = crate::yaml::read(text.as_bytes()) {
        places(&document.root, text);
        let value: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
        assert!(agrees(&document.root, &value), "{text:?}");
    }
}

#[test]
fn the_places_of_a_real_runbook_are_right() {
    yaml_check(WHOLE);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        look(&bytes);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[ a-z:\\-\\[\\]{}!&*'\"|>#%@`?,\\n\t$0-9éß]{0,120}") {
        look(text.as_bytes());
        look(format!("fettle: 1\nrunbook: a\ndiagnose:\n  - id: a\n    run: {text}\n").as_bytes());
        yaml_check(&text);
    }

    #[test]
    fn no_change_of_a_real_runbook_makes_it_panic(
        at in 0..WHOLE.len(), cut in 0usize..40,
        put in prop_oneof![Just(""), Just("\n"), Just(" "), Just("\t"), Just("${{"), Just("}}"), Just("- "), Just(": "), Just("'"), Just("\""),
            Just("["), Just("{"), Just("!"), Just("&a "), Just("*a"), Just("#"), Just("|\n"), Just("é"), Just("\u{202e}"), Just("\0"), Just("\r"),
            Just("after: [process]"), Just("undo: none"), Just("inputs.")],
    ) {
        let end = (at + cut).min(WHOLE.len());
        if WHOLE.is_char_boundary(at) && WHOLE.is_char_boundary(end) {
            let changed = format!("{}{put}{}", &WHOLE[..at], &WHOLE[end..]);
            look(changed.as_bytes());
            yaml_check(&changed);
        }
    }

    #[test]
    fn no_script_makes_the_lint_panic(script in "[ a-zM\\$\"'(){}\\[\\]<#;=é\\\\\\n`]{0,120}") {
        super::super::scripts::warnings(&script, &["M".to_owned(), "a".to_owned()]);
    }
}
