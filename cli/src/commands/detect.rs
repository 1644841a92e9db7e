//! `fettle detect lint`: how late alerts can be, by the files of Prometheus and Alertmanager here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fettle_runbooks::detect::{Detection, Files, Monitoring, Place, Sources, Verdict};
use fettle_runbooks::duration::format;
use serde_json::{Value, json};

use crate::args::DetectLint;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::{Format, Output, Table, Tone, print, span, talk, visible};

/// The largest file that is read, bytes.
const LARGEST: u64 = 8 * 1024 * 1024;

pub(super) fn lint(out: &Output, args: &DetectLint) -> Result<Exit> {
    let read = Monitoring::read(&sources(args), &Disk).map_err(|wrongs| {
        let what = "failed to read the files of Prometheus and Alertmanager";
        wrongs.iter().fold(Error::usage(what), |error, wrong| error.why(wrong))
    })?;
    for pattern in read.unanswered() {
        talk(&format!("warning: no file is called `{}`", visible(pattern)));
    }
    if args.alertmanager.is_none() {
        talk(
            "Without --alertmanager the way ends where Prometheus sends the alert: what Alertmanager adds is not counted.",
        );
    }
    let answers = args.library.as_deref().map(answers).transpose()?;
    let wanted =
        |it: &Detection| args.alerts.is_empty() || args.alerts.iter().any(|one| one.matches(&it.alert));
    let all: Vec<Detection> = read.detections(args.limit).into_iter().filter(wanted).collect();
    if all.is_empty() {
        let why = if args.alerts.is_empty() {
            "the files have no alerting rule"
        } else {
            "no alert has such a name"
        };
        let files: Vec<String> = read.files().map(|path| path.display().to_string()).collect();
        return Err(Error::usage("there is no alert to look at").at(files.join(", ")).why(why));
    }
    let runbooks =
        |alert: &str| answers.as_ref().map(|answers| answers.get(alert).cloned().unwrap_or_default());
    let data: Vec<Value> = all.iter().map(|it| view(it, args.limit, runbooks(&it.alert))).collect();
    out.list(&data, || table(&all))?;
    let late = all.iter().filter(|it| it.verdict != Verdict::InTime).count();
    if out.format() == Format::Table {
        for it in &all {
            let unanswered = runbooks(&it.alert).is_some_and(|runbooks| runbooks.is_empty());
            if let Some(text) = remarks(out, it, args.limit, unanswered) {
                print(&format!("\n{text}"))?;
            }
        }
    }
    let alerts = if all.len() == 1 { "alert" } else { "alerts" };
    talk(&format!(
        "{} {alerts}: {} in time within {}, {late} not",
        all.len(),
        all.len() - late,
        format(args.limit)
    ));
    Ok(if late == 0 { Exit::Done } else { Exit::Failed })
}

fn sources(args: &DetectLint) -> Sources {
    Sources {
        prometheus: Some(args.prometheus.clone()),
        rules: args.rules.clone(),
        alertmanager: args.alertmanager.clone(),
        receivers: args.receivers.iter().cloned().collect(),
    }
}

/// Which runbooks of a folder answer each alert. Files that are no runbooks are left out: `fettle runbook lint` is for them.
fn answers(library: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let pattern = format!("{}/**/*.yaml", glob::Pattern::escape(&library.display().to_string()));
    let failed = |why: String| Error::usage("failed to read the library").at(library.display()).why(why);
    if !library.is_dir() {
        return Err(failed("it is not a folder".to_owned()));
    }
    let mut answers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in Disk.matching(Path::new(&pattern)).map_err(failed)? {
        let text = Disk.read(&path).map_err(failed)?;
        let Ok(read) = fettle_runbooks::read(text.as_bytes()) else {
            talk(&format!(
                "warning: {} has problems and was left out: `fettle runbook lint` names them",
                path.display()
            ));
            continue;
        };
        for trigger in read.runbook.triggers() {
            for alert in &trigger.alerts {
                answers.entry(alert.clone()).or_default().push(read.runbook.name().to_owned());
            }
        }
    }
    Ok(answers)
}

fn never(it: &Detection) -> bool {
    it.verdict == Verdict::Never
}

fn length(span_of: Duration) -> String {
    span(ms(span_of))
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn table(all: &[Detection]) -> Table {
    let mut table = Table::new(&["ALERT", "BEST", "WORST", "VERDICT", "WHERE THE WORST GOES"], "no alerts");
    for it in all {
        let mut parts: Vec<_> = it.parts.iter().filter(|part| !part.span.worst.is_zero()).collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.span.worst));
        let goes = parts.iter().map(|part| part.setting.as_str()).collect::<Vec<_>>().join(", ");
        let or_dash = |text: String| if never(it) { "-".to_owned() } else { text };
        table.row([
            it.alert.clone(),
            or_dash(length(it.span.best)),
            or_dash(length(it.span.worst)),
            it.verdict.word().to_owned(),
            goes,
        ]);
    }
    table
}

/// What there is to say of an alert beside its line in the table, if anything.
fn remarks(out: &Output, it: &Detection, limit: Duration, unanswered: bool) -> Option<String> {
    let labels: Vec<String> = it.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let labels = if labels.is_empty() { String::new() } else { format!(" {{{}}}", labels.join(", ")) };
    let head = format!("{}{} at {}", it.alert, labels, it.place);
    let mut lines =
        vec![format!("{}: {}", visible(&head), out.paint(Tone::of(it.verdict.word()), it.verdict.word()))];
    if !it.fixes.is_empty() {
        lines.push(format!("  to have it within {}:", format(limit)));
        let width =
            it.fixes.iter().map(|fix| fix.place.to_string().chars().count()).max().unwrap_or_default();
        lines.extend(it.fixes.iter().map(|fix| {
            visible(&format!("    {:<width$}  {}", fix.place.to_string(), fix.write)).into_owned()
        }));
    }
    lines.extend(it.notes.iter().map(|note| format!("  {}", visible(note))));
    lines.extend(unanswered.then(|| "  no runbook of the library answers it".to_owned()));
    lines.extend(it.unsure.iter().map(|unsure| format!("  not told by the files: {}", visible(unsure))));
    (lines.len() > 1 || it.verdict != Verdict::InTime).then(|| lines.join("\n"))
}

fn view(it: &Detection, limit: Duration, runbooks: Option<Vec<String>>) -> Value {
    let at = |place: &Place| (place.file.to_string(), (place.line > 0).then_some(place.line));
    let time = |span: Duration| if never(it) { Value::Null } else { json!(ms(span)) };
    let parts = it.parts.iter().map(|part| {
        let (file, line) = at(&part.place);
        json!({
            "name": part.name, "setting": part.setting, "file": file, "line": line,
            "best_ms": ms(part.span.best), "worst_ms": ms(part.span.worst),
        })
    });
    let fixes = it.fixes.iter().map(|fix| {
        let (file, line) = at(&fix.place);
        json!({ "file": file, "line": line, "write": fix.write })
    });
    let (file, line) = at(&it.place);
    json!({
        "alert": it.alert, "labels": it.labels, "file": file, "line": line, "verdict": it.verdict.word(),
        "best_ms": time(it.span.best), "worst_ms": time(it.span.worst), "limit_ms": ms(limit),
        "parts": parts.collect::<Vec<_>>(), "fixes": fixes.collect::<Vec<_>>(),
        "notes": it.notes, "unsure": it.unsure, "runbooks": runbooks,
    })
}

/// The files of this machine.
struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> std::result::Result<String, String> {
        let failed = |error: std::io::Error| format!("cannot be read: {error}");
        if fs::metadata(path).map_err(failed)?.len() > LARGEST {
            return Err(format!("is longer than {LARGEST} bytes"));
        }
        fs::read_to_string(path).map_err(failed)
    }

    fn matching(&self, pattern: &Path) -> std::result::Result<Vec<PathBuf>, String> {
        let text = pattern.to_str().ok_or("is not UTF-8")?;
        let found = glob::glob(text).map_err(|error| format!("is no pattern of file names: {error}"))?;
        found.map(|path| path.map_err(|error| format!("cannot be looked for: {error}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        folder
    }

    fn args(folder: &Path) -> DetectLint {
        DetectLint {
            prometheus: folder.join("prometheus.yml"),
            alertmanager: Some(folder.join("alertmanager.yml")),
            receivers: Vec::new(),
            alerts: Vec::new(),
            library: None,
            limit: Duration::from_secs(60),
            rules: Vec::new(),
        }
    }

    const PROMETHEUS: &str = "rule_files: ['rules/[a-z]*.yml']\nalerting: { alertmanagers: [{}] }\nscrape_configs: [{ job_name: node }]\n";
    const ALERTMANAGER: &str = "route: { receiver: f }\nreceivers: [{ name: f, webhook_configs: [{ url: 'http://x/v1/signals/a' }] }]\n";
    const RULES: &str = "groups:\n- name: g\n  rules:\n  - { alert: Down, expr: 'up{job=\"node\"} == 0', for: 5m, labels: { severity: page } }\n";

    #[test]
    fn an_alert_says_where_its_time_goes_and_what_to_change() {
        let folder = folder(&[
            ("prometheus.yml", PROMETHEUS),
            ("alertmanager.yml", ALERTMANAGER),
            ("rules/node.yml", RULES),
            ("rules/9.yml", "not read"),
        ]);
        let read = Monitoring::read(&sources(&args(folder.path())), &Disk).expect("they are good");
        let all = read.detections(Duration::from_secs(60));
        let out = Output::plain(Format::Table);
        let text = format!(
            "{}\n{}",
            table(&all).render(&out),
            remarks(&out, &all[0], Duration::from_secs(60), true).expect("it is late")
        );
        let text = text.replace(&format!("{}/", folder.path().display()), "");
        insta::assert_snapshot!(text, @r"
        ALERT  BEST        WORST        VERDICT  WHERE THE WORST GOES
        Down   5 min 30 s  12 min 10 s  late     for 5m, group_interval 5m, scrape_interval 1m of job node, evaluation_interval 1m, scrape_timeout 10s

        Down {severity=page} at rules/node.yml:4: late
          to have it within 1m:
            alertmanager.yml:1  group_by: ['...']
            alertmanager.yml:1  group_wait: 0s
            alertmanager.yml:1  group_interval: 10s
            prometheus.yml:1    scrape_interval: 10s
            prometheus.yml:1    evaluation_interval: 10s
            rules/node.yml:4    for: 30s
          no runbook of the library answers it
        ");
        assert_eq!(lint(&out, &args(folder.path())), Ok(Exit::Failed));
    }

    #[test]
    fn nothing_to_look_at_is_not_taken_for_all_is_well() {
        let folder =
            folder(&[("prometheus.yml", PROMETHEUS), ("alertmanager.yml", ALERTMANAGER), ("r.yml", RULES)]);
        let out = Output::plain(Format::Json);
        let none = lint(&out, &args(folder.path())).expect_err("there are no rules");
        assert_eq!((none.exit(), none.what()), (Exit::Usage, "there is no alert to look at"));
        let named = DetectLint {
            alerts: vec![glob::Pattern::new("Up*").expect("a pattern")],
            rules: vec![folder.path().join("r.yml")],
            ..args(folder.path())
        };
        assert_eq!(lint(&out, &named).map_err(|error| error.exit()), Err(Exit::Usage));
        let gone = DetectLint { prometheus: folder.path().join("gone.yml"), ..args(folder.path()) };
        let error = lint(&out, &gone).expect_err("it is not there").to_string();
        assert!(error.contains("gone.yml: cannot be read"), "{error}");
    }

    #[test]
    fn a_library_tells_which_alerts_nobody_answers() {
        let runbook = "fettle: 1\nrunbook: a/b\ntitle: T\nowner: o\non:\n  - alert: Down\ndiagnose:\n  - id: up\n    run: [uptime]\n";
        let folder = folder(&[("library/a/b.yaml", runbook), ("library/bad.yaml", "x: [")]);
        let answers = answers(&folder.path().join("library")).expect("a library");
        assert_eq!(answers, BTreeMap::from([("Down".to_owned(), vec!["a/b".to_owned()])]));
        assert!(super::answers(&folder.path().join("nowhere")).is_err());
    }
}
