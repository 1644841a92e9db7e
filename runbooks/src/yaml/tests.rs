//! What YAML may not do here, and what to write instead.

/// What is said of the text: `line:column code: message (help)`.
fn said(text: &str) -> String {
    match super::read(text.as_bytes()) {
        Ok(_) => "read".to_owned(),
        Err(problems) => {
            let lines = problems.iter().map(|problem| {
                let help = problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
                format!("{}:{} {}: {}{help}", problem.line, problem.column, problem.code, problem.message)
            });
            lines.collect::<Vec<_>>().join("\n")
        }
    }
}

#[test]
fn what_collides_with_expressions_is_answered_with_the_quoted_form() {
    let cases = [
        ("if: !has(labels.team)\n", "if: '!has(labels.team)'"),
        ("if: !has(labels.team) && inputs.hard\n", "if: '!has(labels.team) && inputs.hard'"),
        ("- if: a ? b : c\n", "- if: 'a ? b : c'"),
        ("if: \"a\" == labels.team\n", "if: '\"a\" == labels.team'"),
        ("if: 'a' == labels.team\n", "if: \"'a' == labels.team\""),
        ("if: [1, 2].exists(x, x > 1)\n", "if: '[1, 2].exists(x, x > 1)'"),
        ("if: {\"a\": 1}.a == 1\n", "if: '{\"a\": 1}.a == 1'"),
        ("that: *x\n", "that: '*x'"),
        ("that: @x\n", "that: '@x'"),
        ("that: `x`\n", "that: '`x`'"),
        ("that: %x\n", "that: '%x'"),
        ("env: { A: ${{ inputs.x }} }\n", "\"${{ … }}\""),
        ("run: [echo, ${{ inputs.x }}]\n", "\"${{ … }}\""),
    ];
    for (text, wanted) in cases {
        let said = said(text);
        assert!(said.contains(wanted), "{text:?}: {said}");
    }
}

#[test]
fn what_runbooks_do_without_is_refused_by_name() {
    let cases = [
        ("a: &x 1\n", "yaml-anchor"),
        ("a: &x 1\nb: *x\n", "yaml-alias"),
        ("<<: { a: 1 }\n", "yaml-merge"),
        ("a: !!str 1\n", "yaml-tag"),
        ("%YAML 1.2\n---\na: 1\n", "yaml-directive"),
        ("a: 1\n---\nb: 2\n", "second-document"),
        ("a: 1\n...\nb: 2\n", "second-document"),
        ("1: a\n", "key-not-text"),
        ("true: a\n", "key-not-text"),
        ("? [a]\n: b\n", "key-not-text"),
        ("\ta: 1\n", "tab-indentation"),
        ("a:\n \tb: 1\n", "yaml-syntax"),
        ("a: \"x\\0\"\n", "hidden-character"),
        ("a: \"\\u202e\"\n", "hidden-character"),
        ("a: x\u{202e}\n", "hidden-character"),
        ("a: x\u{feff}\n", "hidden-character"),
        ("a:\n\u{a0}b: 1\n", "hidden-character"),
        ("a: 18446744073709551615\n", "yaml-ambiguous"),
        ("", "empty"),
        ("# only a comment\n", "empty"),
    ];
    for (text, code) in cases {
        let said = said(text);
        assert!(said.contains(code), "{text:?}: {said}");
    }
}

#[test]
fn a_key_that_is_there_twice_is_told_with_both_lines() {
    assert_eq!(
        said("a: 1\nb: 2\n\"a\": 3\n"),
        "3:1 duplicate-key: the key `a` is on line 1 and again on line 3 (keep one of them)"
    );
}

#[test]
fn bytes_that_are_not_utf8_are_told_with_their_offset() {
    let said = super::read(b"a: b\nc: \xe9\n").err().unwrap();
    assert_eq!(said[0].message, "byte 8 (0xe9) is not UTF-8");
    assert_eq!((said[0].line, said[0].column), (2, 4));
    let utf16: Vec<u8> = "\u{feff}a: 1".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(super::read(&utf16).err().unwrap()[0].message, "the file is in UTF-16");
}

#[test]
fn size_and_nesting_have_limits() {
    assert!(said(&"a".repeat(super::MAX_BYTES + 1)).contains("too-large"));
    assert!(said(&"- ".repeat(100)).contains("too-deep"));
    assert!(said(&"[".repeat(100_000)).contains("yaml-syntax"));
    let begun = std::time::Instant::now();
    let many: String = (0..12_000).map(|at| format!("key_{at}: {at}\n")).collect();
    assert_eq!(said(&many), "read");
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
}
