//! How a step does it: scripts, commands, polling, waiting; and what values may reach.

use std::collections::BTreeMap;
use std::time::Duration;

use super::scope::Use;
use super::steps::Site;
use super::{commands, scripts, service};
use crate::draft::Fields;
use crate::expr::Env;
use crate::problem::visible;
use crate::runbook::{Action, Undo};
use crate::template::Template;
use crate::value::Type;
use crate::yaml::{Entry, Node, NodeKind};

/// The keys that are actions.
pub(super) const ACTIONS: [&str; 4] = ["run", "service", "that", "wait"];

/// What runs a script that does not say.
const SHELL: [&str; 2] = ["/bin/sh", "-eu"];

/// The one action of a step.
pub(super) fn action(site: &mut Site<'_>) -> Option<Action> {
    let keys: Vec<&Entry> = ACTIONS.iter().filter_map(|key| site.fields.get(key)).collect();
    match keys.as_slice() {
        [] => {
            // An action of a later version has been refused by name already.
            let (from, to) = (site.fields.at.offset, site.fields.until);
            let told = site.checker.problems.iter().any(|problem| {
                problem.code == "not-in-this-version" && (from..=to).contains(&problem.span.start)
            });
            if !told {
                let (at, until) = match site.fields.get("id") {
                    Some(entry) => (entry.at, entry.value.until),
                    None => (site.fields.at, from + 1),
                };
                let help = Some("write `run:`, `service:`, `that:` or `wait:`");
                site.checker.error("missing-key", at, until, "the step does nothing", help);
            }
            None
        }
        [entry] => match entry.key.as_str() {
            "run" => run(site, entry, site.fields.get("interpreter")),
            "that" => that(site, entry),
            "service" => service::action(site, entry),
            _ => site.checker.time(entry, 1).map(Action::Wait),
        },
        [first, second, ..] => {
            let message = format!("a step has one action, this one has `{}` and `{}`", first.key, second.key);
            site.checker.at_key(second, "two-actions", message, Some("make two steps of it"));
            None
        }
    }
}

fn that(site: &mut Site<'_>, entry: &Entry) -> Option<Action> {
    let env = site.env(Use::Condition);
    let condition = site.checker.expr(&entry.value, "`that`", Some(&Type::Bool), &env);
    let mut time =
        |key: &str, least: u64| site.fields.get(key).and_then(|entry| site.checker.time(entry, least));
    let within = time("within", 0).unwrap_or_default();
    let stable_for = time("stable_for", 0).unwrap_or_default();
    let every = time("every", 100).unwrap_or(Duration::from_secs(1));
    if let Some(entry) = site.fields.get("stable_for").filter(|_| stable_for > within) {
        let message = "`stable_for` is longer than `within`, so it can never be reached";
        site.checker.at_key(entry, "wrong-value", message, Some("make `within` longer"));
    }
    condition.map(|condition| Action::That { condition, within, stable_for, every })
}

/// `run:` with a text or a list.
fn run(site: &mut Site<'_>, entry: &Entry, interpreter: Option<&Entry>) -> Option<Action> {
    match &entry.value.kind {
        NodeKind::Scalar(_) => script(site, entry, interpreter),
        NodeKind::List(items) => command(site, entry, items),
        NodeKind::Map(_) => {
            let help = Some("write a text for a script, or a list for a command");
            site.checker.at_value(
                &entry.value,
                "wrong-type",
                "`run` is a text or a list, this is a map",
                help,
            );
            None
        }
    }
}

fn script(site: &mut Site<'_>, entry: &Entry, interpreter: Option<&Entry>) -> Option<Action> {
    let source = site.checker.text(&entry.value, "`run`")?.to_owned();
    if source.trim().is_empty() {
        site.checker.at_value(&entry.value, "wrong-value", "the script is empty", None);
        return None;
    }
    let NodeKind::Scalar(scalar) = &entry.value.kind else { return None };
    let place = scalar.text.source();
    if let Some(at) = source.find("${{") {
        let end = source[at..].find("}}").map_or(at + 3, |end| at + end + 2);
        let inner = source[at + 3..end].trim_end_matches('}').trim().to_owned();
        let name = variable_name(&inner);
        let help = format!(
            "give it to the script in its environment: `env: {{ {name}: \"${{{{ {inner} }}}}\" }}`, and write \"${name}\" in the script"
        );
        let message = "a script never contains `${{`: a value must not become code";
        site.checker.error(
            "value-in-script",
            place.at(at),
            place.at(end).offset,
            message,
            Some(&visible(help.as_bytes())),
        );
        return None;
    }
    if let Some(at) = source.find("{{").filter(|at| source[*at..].contains("}}")) {
        let message = "`{{ … }}` is not replaced by anything: the script gets it as it stands";
        let help = Some("give values to the script in its environment, with `env:`");
        site.checker.warn("not-a-template", place.at(at), place.at(at + 2).offset, message, help);
    }
    let interpreter = match interpreter {
        None => SHELL.map(str::to_owned).to_vec(),
        Some(entry) => {
            let words = site.checker.texts(entry)?;
            let value = words.iter().any(|word| word.contains("${{"));
            if value || words.first().is_none_or(String::is_empty) {
                let help = Some("write `interpreter: [/usr/bin/python3]`");
                site.checker.at_value(
                    &entry.value,
                    "wrong-value",
                    "`interpreter` is a list of plain texts",
                    help,
                );
                return None;
            }
            words
        }
    };
    if commands::is_shell(&interpreter) {
        let names = match site.fields.get("env").map(|entry| &entry.value.kind) {
            Some(NodeKind::Map(entries)) => entries.iter().map(|entry| entry.key.clone()).collect(),
            Some(NodeKind::Scalar(_) | NodeKind::List(_)) | None => Vec::new(),
        };
        for warning in scripts::warnings(&source, &names) {
            let (from, to) = (place.at(warning.from), place.at(warning.to).offset);
            site.checker.warn(warning.code, from, to, warning.message, Some(&warning.help));
        }
    }
    Some(Action::Script { source, interpreter })
}

/// A name for the variable that holds the value of an expression.
fn variable_name(expression: &str) -> String {
    let last =
        expression.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).find(|word| !word.is_empty());
    let name = last.unwrap_or("VALUE").to_ascii_uppercase();
    if changes_what_runs(&name) || name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("V_{name}")
    } else {
        name
    }
}

fn command(site: &mut Site<'_>, entry: &Entry, items: &[Node]) -> Option<Action> {
    let env = site.env(Use::Text);
    if items.is_empty() {
        site.checker.at_value(
            &entry.value,
            "wrong-value",
            format!("`{}` has no program", entry.key),
            Some(&format!("write `{}: [program, argument]`", entry.key)),
        );
        return None;
    }
    let read: Vec<Option<Template>> =
        items.iter().map(|node| site.checker.template(node, "an argument of `run`", &env)).collect();
    let templates: Vec<Template> = read.into_iter().collect::<Option<_>>()?;
    let good = match templates[0].is_literal() {
        None => {
            let message = "the program is written out: no value may choose what runs";
            site.checker.at_value(&items[0], "program-from-value", message, Some("write its name or path"));
            false
        }
        Some(program) if program.trim().is_empty() || program.contains(char::is_whitespace) => {
            let help = "write each argument as an item of its own: `[journalctl, -n, \"50\"]`";
            site.checker.at_value(&items[0], "wrong-value", "a program's name has no blanks", Some(help));
            false
        }
        Some(_) => true,
    };
    if !good {
        return None;
    }
    let dashes = site.fields.get("allow_leading_dash").is_some();
    for (at, refusal) in commands::evaluated(&templates, dashes) {
        site.checker.at_value(&items[at], refusal.code, refusal.message, Some(refusal.help));
    }
    Some(Action::Argv(templates))
}

/// `undo:` is `none`, `previous`, a command, a script, or a map with `run`.
pub(super) fn undo(site: &mut Site<'_>, entry: &Entry) -> Option<Undo> {
    match &entry.value.kind {
        NodeKind::Scalar(scalar) if scalar.text.text.trim() == "none" => Some(Undo::None),
        NodeKind::Scalar(scalar) if scalar.text.text.trim() == "previous" => service::previous(site, entry),
        NodeKind::Scalar(scalar) if means_none(&scalar.text.text) => {
            let message = "`undo` without anything to run is written `none`";
            site.checker.at_value(&entry.value, "wrong-value", message, Some("write `undo: none`"));
            None
        }
        NodeKind::Scalar(_) | NodeKind::List(_) => {
            let interpreter = site.fields.get("interpreter");
            run(site, entry, interpreter).map(Undo::Run)
        }
        NodeKind::Map(_) => {
            let known = ["run", "interpreter"];
            let fields =
                Fields::read(entry.value.clone(), "`undo`", &known, &[], &mut site.checker.problems)?;
            let Some(inner) = fields.get("run") else {
                let help = Some("write `undo: [program, argument]`");
                site.checker.at_key(entry, "missing-key", "`undo` does not say what to `run`", help);
                return None;
            };
            let own = fields.get("interpreter").or_else(|| site.fields.get("interpreter"));
            run(site, inner, own).map(Undo::Run)
        }
    }
}

/// Words that an author writes for `none`. As a script each would fail, when it is needed most.
fn means_none(text: &str) -> bool {
    ["", "no", "none", "nothing", "never", "null", "~", "false"]
        .iter()
        .any(|word| text.trim().eq_ignore_ascii_case(word))
}

/// `env:` of a step.
pub(super) fn environment(site: &mut Site<'_>) -> BTreeMap<String, Template> {
    let env: Env = site.env(Use::Text);
    let mut environment = BTreeMap::new();
    for (entry, template) in site.checker.templates(site.fields.get("env"), &env) {
        let good = entry.key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && entry.key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !good {
            let message = format!("`{}` cannot be the name of a variable", visible(entry.key.as_bytes()));
            site.checker.at_key(&entry, "wrong-name", message, Some("use letters, digits and `_`"));
        } else if entry.key.starts_with("FETTLE_") {
            site.checker.at_key(
                &entry,
                "wrong-name",
                "names that begin with `FETTLE_` are Fettle's own",
                None,
            );
        } else if template.is_literal().is_none() && changes_what_runs(&entry.key) {
            let message = format!("`{}` changes what runs, so no value may be in it", entry.key);
            site.checker.at_key(
                &entry,
                "environment-changes-what-runs",
                message,
                Some("use another name, or a fixed text"),
            );
        }
        environment.insert(entry.key, template);
    }
    environment
}

/// `cwd:` of a step.
pub(super) fn directory(site: &mut Site<'_>) -> Option<Template> {
    let entry = site.fields.get("cwd")?;
    let env = site.env(Use::Text);
    let template = site.checker.template(&entry.value, "`cwd`", &env)?;
    if template.is_literal().is_some_and(|text| !text.starts_with('/')) {
        site.checker.at_value(&entry.value, "wrong-value", "`cwd` is an absolute path", None);
    }
    Some(template)
}

/// Whether a variable decides which program, library or start-up file is used.
pub(super) fn changes_what_runs(name: &str) -> bool {
    const NAMES: [&str; 66] = [
        "PATH",
        "IFS",
        "ENV",
        "BASH_ENV",
        "BASHOPTS",
        "SHELLOPTS",
        "SHELL",
        "PS0",
        "PS1",
        "PS2",
        "PS3",
        "PS4",
        "PROMPT_COMMAND",
        "CDPATH",
        "FPATH",
        "GLOBIGNORE",
        "HOME",
        "ZDOTDIR",
        "KSH_ENV",
        "INPUTRC",
        "EDITOR",
        "VISUAL",
        "PAGER",
        "MANPAGER",
        "SYSTEMD_PAGER",
        "BROWSER",
        "LESS",
        "LESSOPEN",
        "LESSCLOSE",
        "PERL5LIB",
        "PERLLIB",
        "PERL5OPT",
        "PERL5DB",
        "PERL5SHELL",
        "RUBYLIB",
        "RUBYOPT",
        "GEM_HOME",
        "GEM_PATH",
        "NODE_OPTIONS",
        "NODE_PATH",
        "CLASSPATH",
        "JAVA_TOOL_OPTIONS",
        "_JAVA_OPTIONS",
        "JDK_JAVA_OPTIONS",
        "PHPRC",
        "PHP_INI_SCAN_DIR",
        "AWKPATH",
        "AWKLIBPATH",
        "GCONV_PATH",
        "LOCPATH",
        "NLSPATH",
        "HOSTALIASES",
        "GLIBC_TUNABLES",
        "OPENSSL_CONF",
        "OPENSSL_MODULES",
        "OPENSSL_ENGINES",
        "CURL_HOME",
        "WGETRC",
        "PSQLRC",
        "PGSERVICEFILE",
        "PGSYSCONFDIR",
        "MYSQL_HOME",
        "TAR_OPTIONS",
        "MAKEFLAGS",
        "RSYNC_RSH",
        "SSH_ASKPASS",
    ];
    const PREFIXES: [&str; 9] =
        ["LD_", "DYLD_", "PYTHON", "LUA_", "GIT_", "BASH_FUNC_", "SUDO_", "XDG_", "MALLOC_"];
    let name = name.to_ascii_uppercase();
    NAMES.contains(&name.as_str()) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
