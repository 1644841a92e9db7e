//! YAML that must be refused, or read in exactly one way.
//!
//! The whole collection is kept outside the project: `FETTLE_CORPUS` says where, or it is looked for beside the
//! workspace. Without it only our own samples are read, and the test says so.

use std::path::PathBuf;

use crate::yaml::{self, Node, NodeKind};

pub(super) fn corpus() -> Option<PathBuf> {
    let given = std::env::var_os("FETTLE_CORPUS").map(PathBuf::from);
    let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus"));
    let near = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/corpus"));
    let found = given.into_iter().chain([near, beside]).find(|folder| folder.join("yaml-hazards").is_dir());
    if found.is_none() {
        eprintln!(
            "SKIPPED: no corpus; set FETTLE_CORPUS to the folder that has yaml-hazards/ and host-alerts.json"
        );
    }
    found
}

/// The tree as text: `{a: "x", b: [int 1, null]}`.
fn shown(node: &Node) -> String {
    match &node.kind {
        NodeKind::Scalar(scalar) => match scalar.value {
            yaml::ScalarValue::Null => "null".to_owned(),
            yaml::ScalarValue::Bool(value) => value.to_string(),
            yaml::ScalarValue::Int(value) => format!("int {value}"),
            yaml::ScalarValue::Number(value) => format!("number {value}"),
            yaml::ScalarValue::Text => format!("{:?}", scalar.text.text),
        },
        NodeKind::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        NodeKind::Map(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|entry| format!("{}: {}", entry.key, shown(&entry.value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// What reading the bytes comes to: the tree, or the codes and lines of the problems.
fn outcome(bytes: &[u8]) -> String {
    match yaml::read(bytes) {
        Ok(document) => shown(&document.root),
        Err(problems) => {
            let codes: Vec<String> =
                problems.iter().take(3).map(|problem| format!("{}@{}", problem.code, problem.line)).collect();
            codes.join(" ")
        }
    }
}

#[test]
fn every_hazard_of_the_corpus_is_refused_or_read_in_one_way() {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("yaml-hazards");
    let expected: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("EXPECTED.json")).unwrap()).unwrap();
    let mut said = String::new();
    for case in expected.as_array().unwrap() {
        let file = case["file"].as_str().unwrap();
        let Ok(bytes) = std::fs::read(folder.join(file)) else {
            eprintln!("SKIPPED: {file} is listed but not there");
            continue;
        };
        let begun = std::time::Instant::now();
        said.push_str(&format!("{file}: {}\n", outcome(&bytes)));
        assert!(begun.elapsed().as_secs() < 20, "{file} took {:?}", begun.elapsed());
        // Whatever YAML makes of it, it is no runbook, and saying so does not panic.
        let problems = crate::read(&bytes).expect_err(file);
        crate::problem::render(file, &bytes, &problems, true);
    }
    eprintln!("{said}");
    insta::assert_snapshot!(said, @r##"
    norway.yaml: {countries: ["GB", "IE", "FR", "DE", "NO"], no: "norway as key", answers: ["yes", "no", "on", "off", "y", "n", "Y", "N", "Yes", "NO", "On", "OFF", true, false], on: "push"}
    sexagesimal.yaml: {ports: ["22:22", "5432:5432"], time: "12:30:45", mac: "00:11:22:33:44:55"}
    octal.yaml: {mode_a: "0644", mode_b: int 420, mode_c: "0644", msisdn: "0722000000", account: "007"}
    floats.yaml: {version: number 1.1, git_sha_a: number 10000000000, git_sha_b: number 12000, sha: "8e35812", nan: number NaN, inf: number -inf, under: "1_000", plus: int 1, hex: int 31}
    bigint.yaml: yaml-syntax@5
    nulls.yaml: key-not-text@9
    dates.yaml: {d: "2024-01-02", t: "2024-01-02T03:04:05Z", fy: "2024-13-45"}
    nonstring_keys.yaml: key-not-text@1 key-not-text@2 key-not-text@3
    duplicate_keys.yaml: duplicate-key@5 duplicate-key@6
    duplicate_keys_quoted.yaml: duplicate-key@2
    duplicate_via_merge.yaml: yaml-anchor@1 yaml-merge@3 yaml-alias@3
    merge_list_order.yaml: yaml-anchor@1 yaml-anchor@2 yaml-merge@4
    merge_bad.yaml: yaml-merge@2
    merge_literal.yaml: {<<: "literal"}
    billion_laughs.yaml: yaml-anchor@1 yaml-anchor@2 yaml-alias@2
    billion_laughs_merge.yaml: yaml-anchor@1 yaml-anchor@2 yaml-alias@3
    quadratic_blowup.yaml: yaml-anchor@1 yaml-alias@2 yaml-alias@2
    deep_flow_seq_100k.yaml: yaml-syntax@1
    deep_flow_seq_closed_20k.yaml: yaml-syntax@1
    deep_block_seq_50k.yaml: too-deep@1
    recursive_alias.yaml: yaml-anchor@1 yaml-alias@2
    recursive_merge.yaml: yaml-anchor@1 yaml-merge@2 yaml-alias@2
    unknown_alias.yaml: yaml-alias@1
    redefined_anchor.yaml: yaml-anchor@1 yaml-alias@2 yaml-anchor@3
    alias_glob_hazard.yaml: yaml-alias@2
    jinja_unquoted.yaml: key-not-text@2
    jinja_in_flow.yaml: key-not-text@1
    bang_command.yaml: yaml-tag@1
    percent_command.yaml: yaml-syntax@1
    at_backtick.yaml: yaml-syntax@1
    colon_in_plain.yaml: yaml-syntax@1
    hash_in_plain.yaml: {run: "grep foo#bar /x", curl: "http://h/#frag", bad: "a"}
    dash_value.yaml: {args: ["-v", ["x"], "--"]}
    plain_multiline_fold.yaml: {run: "systemctl restart nginx && systemctl status nginx"}
    block_scalar_chomp.yaml: {keep: "a\n\n", strip: "a", clip: "a\n", fold: "a b\n\n  c\n", ind: "  two extra\n"}
    heredoc_in_block.yaml: {run: "cat <<EOF > /tmp/x\nline: 1\n\ttabbed\nEOF\nif [ \"$a\" ]; then\n  echo \"{{ not_a_template }}\" # keep\nfi\n"}
    tabs_indent.yaml: tab-indentation@2
    tab_after_colon.yaml: yaml-syntax@1
    crlf.yaml: {a: int 1, b: "x\ny\n"}
    cr_only.yaml: {a: int 1, b: int 2}
    bom_utf8.yaml: {a: int 1}
    bom_middle.yaml: hidden-character@3
    utf16le.yaml: not-utf8@1
    utf16be.yaml: not-utf8@1
    latin1.yaml: not-utf8@1
    nul_byte.yaml: hidden-character@1
    control_char.yaml: hidden-character@1
    escaped_nul.yaml: hidden-character@1
    lone_surrogate.yaml: yaml-syntax@1
    bidi.yaml: hidden-character@1 hidden-character@1
    nbsp_indent.yaml: hidden-character@2
    nel_ls_ps.yaml: hidden-character@1 hidden-character@1 hidden-character@1
    multidoc.yaml: second-document@3
    empty.yaml: empty@1
    comments_only.yaml: empty@1
    scalar_root.yaml: "just text"
    directive_3_0.yaml: yaml-directive@1
    unclosed_quote.yaml: yaml-syntax@1
    python_object_tag.yaml: yaml-tag@1
    ruby_object_tag.yaml: yaml-tag@1
    unknown_tags.yaml: yaml-tag@1 yaml-tag@2 yaml-tag@3
    binary_tag.yaml: yaml-tag@1 yaml-tag@2
    set_omap.yaml: yaml-tag@1 yaml-tag@2
    long_key_1025.yaml: yaml-syntax@1
    trailing_garbage.yaml: yaml-syntax@2
    mixed_indent_list.yaml: yaml-syntax@4
    quoted_number_types.yaml: {timeout: "30", retries: number 3, port: "08"}
    template_injection.yaml: {run: "echo {{ alert.labels.instance }}"}
    "##);
}
