//! What an approver reads before signing, laid out for a phone.
//!
//! Every value passes [`visible`] and is wrapped, never cut: whoever reads to the end has seen all that would run. What
//! is signed comes first; what the controller merely says comes last, under its own heading.

use std::fmt::Write as _;
use std::time::Duration;

use fettle_proto::grant::{describe, effective_risk};
use fettle_proto::signed::words::risk_word;
use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::plan::{Plan, PlannedStep, PlannedUndo, PlannedWork};
use fettle_runbooks::runbook::{OnFailure, Repeat, Risk};
use jiff::Timestamp;
use unicode_width::UnicodeWidthChar as _;

use super::gate::{Checked, CheckedPlan};
use crate::output::{Output, Tone, span, visible};

/// Lays a gate out in this many columns.
pub fn render(checked: &Checked, out: &Output, columns: usize, now: Timestamp) -> String {
    let mut page = Page { text: String::new(), out, columns };
    header(&mut page, checked, now);
    for plan in &checked.plans {
        host(&mut page, checked, plan);
    }
    signature(&mut page, checked);
    aside(&mut page, checked);
    page.text
}

/// Lays a plan out alone, with nothing around it that could be signed.
pub fn plan(plan: &Plan, certified: bool, out: &Output, columns: usize) -> String {
    let mut page = Page { text: String::new(), out, columns };
    if plan.steps.is_empty() {
        page.field("", "nothing to remediate");
    }
    planned(&mut page, plan, certified, None);
    page.text
}

struct Page<'a> {
    text: String,
    out: &'a Output,
    columns: usize,
}

impl Page<'_> {
    fn heading(&mut self, text: &str) {
        let rule = "─".repeat(self.columns.saturating_sub(text.chars().count() + 4).max(2));
        let painted = self.out.paint(Tone::Strong, text);
        let _ = writeln!(self.text, "\n── {painted} {rule}");
    }

    /// `name   value`, the value wrapped under itself.
    fn field(&mut self, name: &str, value: &str) {
        self.toned(name, value, Tone::Plain);
    }

    fn toned(&mut self, name: &str, value: &str, tone: Tone) {
        const INDENT: usize = 11;
        let value = visible(value);
        for (index, line) in wrap(&value, self.columns.saturating_sub(INDENT).max(12)).iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            let _ = writeln!(self.text, "{name:<INDENT$}{}", self.out.paint(tone, line));
        }
    }

    /// Text of several lines, each marked, so that nothing in it can pass for a line of ours.
    fn block(&mut self, text: &str) {
        for line in text.split('\n') {
            let line = visible(line);
            for (index, part) in wrap(&line, self.columns.saturating_sub(4).max(12)).iter().enumerate() {
                let mark = if index == 0 { '│' } else { '┊' };
                let _ = writeln!(self.text, "  {mark} {part}");
            }
        }
    }
}

fn header(page: &mut Page<'_>, checked: &Checked, now: Timestamp) {
    let request = &checked.request;
    page.heading("You are asked to approve");
    page.field("runbook", &request.runbook);
    match &checked.certified {
        Ok(certified) => {
            let reviewers = certified.reviewers().iter().cloned().collect::<Vec<_>>().join(", ");
            page.field("certified", &format!("by {reviewers}; written by {}", certified.author()));
        }
        Err(refusal) => {
            page.toned("certified", &format!("NO: {}", refusal.message), Tone::Bad);
            page.field("", "so every remediate step counts as critical");
        }
    }
    if let Some(again) = &request.again {
        let what = format!(
            "{} attempt {} MAY HAVE RUN: nobody can tell. Approved, it runs again, as attempt {}, and the steps after it.",
            again.path,
            again.attempt,
            again.attempt.saturating_add(1)
        );
        page.toned("AGAIN", &what, Tone::Bad);
    }
    page.toned("risk", risk_word(request.risk), tone_of(request.risk));
    let hosts: Vec<_> = checked.plans.iter().map(|plan| plan.plan.agent.as_str()).collect();
    page.field("on", &hosts.join(", "));
    match &checked.started {
        Some(started) => {
            page.field("asked by", &format!("{}, signed at {}", started.person(), started.start().at));
        }
        None => page.field("asked by", "nobody: a trigger started it"),
    }
    page.field("run", &request.run.to_string());
    page.field("decide by", &until(request.decide_by, now));
    page.field("start by", &until(request.start_by, now));
    let needed: Vec<String> = checked.factors.iter().map(describe).collect();
    page.field("needs", &needed.join(" and "));
}

fn host(page: &mut Page<'_>, checked: &Checked, checked_plan: &CheckedPlan) {
    page.heading(&format!("On {}", checked_plan.plan.agent));
    planned(page, &checked_plan.plan, checked.certified.is_ok(), Some(&checked_plan.from));
}

/// What a plan was made from, and each of its steps; those before the step `from` stand before the gate.
fn planned(page: &mut Page<'_>, plan: &Plan, certified: bool, from: Option<&str>) {
    if let Some(of) = &plan.of {
        let what = match of.how {
            FollowUp::Retry => format!("retries {}", of.run),
            FollowUp::Undo => format!("undoes what {} did", of.run),
        };
        page.toned("this", &what, Tone::Strong);
        for says in &of.says {
            page.field("", says);
        }
    }
    for (name, value) in &plan.inputs {
        page.field("input", &format!("{name} = {}", quoted(value)));
    }
    for (name, value) in &plan.evidence {
        page.field("evidence", &format!("{name} = {value}"));
    }
    let gate = from.and_then(|from| plan.steps.iter().position(|step| step.path == from)).unwrap_or(0);
    for (index, planned) in plan.steps.iter().enumerate() {
        step(page, index + 1, planned, certified, index < gate);
    }
    for planned in &plan.verify {
        let _ = writeln!(page.text);
        page.toned("then", &format!("{} looks whether it helped", planned.path), Tone::Strong);
        work(page, &planned.work);
    }
}

fn step(page: &mut Page<'_>, number: usize, step: &PlannedStep, certified: bool, before_gate: bool) {
    let _ = writeln!(page.text);
    let name = if step.path.ends_with(&format!("/{}", step.name)) {
        step.path.clone()
    } else {
        format!("{} ({})", step.path, step.name)
    };
    page.toned(&format!("{number}."), &name, Tone::Strong);
    match step.done_in {
        Some(run) if step.path.ends_with("/undo") => {
            page.field("", &format!("undoes what was done in {run}"))
        }
        Some(run) => page.toned("", &format!("done in {run}: NOT run again"), Tone::Strong),
        None => {}
    }
    if before_gate {
        page.field("", "stands before the gate; part of the plan all the same");
    }
    work(page, &step.work);
    for (name, value) in &step.env {
        page.field("env", &format!("{name}={}", quoted(value)));
    }
    if step.cwd != "/" {
        page.field("in", &quoted(&step.cwd));
    }
    page.field("as", if step.user.is_empty() { "the agent's own user" } else { &step.user });
    if !step.sandbox.connect.is_empty() {
        let ports: Vec<String> = step.sandbox.connect.iter().map(u16::to_string).collect();
        page.field("connects to", &format!("TCP port {}", ports.join(", ")));
    }
    if step.sandbox.read_all {
        page.field("reads", "what only root may read");
    }
    let risk = effective_risk(step, certified);
    let risk_text = match step.risk == risk {
        true => risk_word(risk).to_owned(),
        false => format!("{} (written as {}; not certified)", risk_word(risk), risk_word(step.risk)),
    };
    page.toned("risk", &risk_text, tone_of(risk));
    if let Some(condition) = &step.condition {
        page.field("only if", condition);
    }
    page.field("at most", &length(step.timeout));
    if step.retry.times > 0 {
        page.field("retries", &format!("up to {} times", step.retry.times));
    }
    match step.repeat {
        Repeat::Safe => page.field("repeat", "safe: may start again if its outcome is unknown"),
        Repeat::Never => page.field("repeat", "never: starts a second time only if a person signs"),
    }
    if let Some(check) = &step.check {
        page.field("in doubt", &format!("it has run if {check}"));
    }
    match step.on_failure {
        OnFailure::Stop => {}
        OnFailure::Continue => page.field("on failure", "goes on with the next step"),
        OnFailure::Undo => page.field("on failure", "undoes what was done"),
    }
    match &step.undo {
        PlannedUndo::None => page.toned("undo", "none", Tone::Warn),
        PlannedUndo::Previous => page.field("undo", "put it back as it was before the step, running or not"),
        PlannedUndo::Work(undo) => {
            page.field("undo", "with:");
            work(page, undo);
        }
    }
}

fn work(page: &mut Page<'_>, work: &PlannedWork) {
    match work {
        PlannedWork::Script { source, interpreter } => {
            page.field("runs", &format!("a script, by {}", argv(interpreter)));
            page.block(source.trim_end_matches('\n'));
        }
        PlannedWork::Argv(command) => {
            page.field("runs", "a command, without a shell");
            page.block(&argv(command));
        }
        PlannedWork::That { condition, within, stable_for, .. } => {
            page.field("waits", &format!("until, within {}, for {}:", length(*within), length(*stable_for)));
            page.block(condition);
        }
        PlannedWork::Wait(time) => page.field("waits", &length(*time)),
        PlannedWork::Service { verb, unit } => {
            page.field("does", &format!("{verb} the systemd unit {unit}"));
        }
        PlannedWork::PutBack { unit } => {
            page.field("does", &format!("put the systemd unit {unit} back as it was before, running or not"));
        }
        PlannedWork::Impossible(reason) => {
            page.toned("", &format!("cannot be done, and will fail: {reason}"), Tone::Bad);
        }
    }
}

fn signature(page: &mut Page<'_>, checked: &Checked) {
    page.heading("What you sign");
    page.field("request", &checked.digest.to_string());
    for plan in &checked.plans {
        page.field("plan", &format!("{} {}", plan.plan.agent, plan.digest));
    }
    page.field("runbook", &checked.request.runbook_digest.to_string());
    page.field("", "recomputed here from the bytes above; the hosts compute the same");
}

fn aside(page: &mut Page<'_>, checked: &Checked) {
    let unsigned = &checked.unsigned;
    page.heading("Not signed: the controller says");
    page.field("gate", &format!("{} {}", checked.request.gate, unsigned.state));
    if !unsigned.incident.is_empty() {
        page.field("incident", &unsigned.incident);
    }
    for plan in &checked.plans {
        page.field("stands at", &format!("{} on {}", plan.from, plan.plan.agent));
    }
    for decision in &unsigned.decisions {
        let reason =
            if decision.reason.is_empty() { String::new() } else { format!(": {}", decision.reason) };
        page.field("decided", &format!("{} {}{reason}", decision.person, decision.decision));
    }
    for who in &unsigned.waits_for {
        page.field("waits for", who);
    }
}

fn tone_of(risk: Risk) -> Tone {
    match risk {
        Risk::Read | Risk::Low => Tone::Plain,
        Risk::Medium | Risk::High => Tone::Warn,
        Risk::Critical => Tone::Bad,
    }
}

fn length(time: Duration) -> String {
    span(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn until(time: Timestamp, now: Timestamp) -> String {
    let left = time.as_millisecond().saturating_sub(now.as_millisecond());
    match u64::try_from(left) {
        Ok(left) if left < 12 * 3_600_000 => format!("{} ({} left)", time.strftime("%H:%M:%SZ"), span(left)),
        Ok(left) => format!("{} ({} left)", time.strftime("%Y-%m-%d %H:%M:%SZ"), span(left)),
        Err(_) => format!("{} (passed)", time.strftime("%Y-%m-%d %H:%M:%SZ")),
    }
}

/// A command, so that where each element begins and ends cannot be mistaken.
fn argv(command: &[String]) -> String {
    command.iter().map(|element| quoted(element)).collect::<Vec<_>>().join(" ")
}

/// As it is when it is a plain word, else in quotes with `\` and `"` escaped.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!(
            "\"{}\"",
            text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t")
        )
    }
}

/// Breaks a line where it is full, at a space if there is one in its last third. Nothing is dropped.
fn wrap(line: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut current = String::new();
    let mut width = 0;
    for c in line.chars() {
        let wide = c.width().unwrap_or(1);
        if width + wide > columns {
            let rest = match current.rfind(' ') {
                Some(at) if at * 3 > current.len() * 2 => current.split_off(at + 1),
                Some(_) | None => String::new(),
            };
            lines.push(std::mem::replace(&mut current, rest));
            width = current.chars().map(|c| c.width().unwrap_or(1)).sum();
        }
        current.push(c);
        width += wide;
    }
    lines.push(current);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapping_loses_nothing_and_keeps_to_the_width() {
        let line = "find /var/cache/app -xdev -type f -mtime +7 -delete 漢字漢字漢字漢字漢字漢字漢字漢字";
        for columns in 12..60 {
            let parts = wrap(line, columns);
            assert_eq!(parts.concat(), line);
            for part in parts {
                let width: usize = part.chars().map(|c| c.width().unwrap_or(1)).sum();
                assert!(width <= columns, "{part:?} is {width} wide, {columns} fit");
            }
        }
    }

    #[test]
    fn what_is_done_with_a_unit_and_how_it_is_put_back_is_said_in_words() {
        use fettle_runbooks::unit::Verb;
        let mut sample = crate::people::sample_plan();
        let unit = "nginx.service".parse().expect("a unit");
        sample.steps[0].work = PlannedWork::Service { verb: Verb::Restart, unit };
        sample.steps[0].undo = PlannedUndo::Previous;
        let text = plan(&sample, true, &Output::plain(crate::output::Format::Table), 80);
        let words: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for line in [
            "does restart the systemd unit nginx.service",
            "undo put it back as it was before the step, running or not",
        ] {
            assert!(words.iter().any(|told| told == line), "{line} is missing in:\n{text}");
        }
    }

    #[test]
    fn elements_of_a_command_cannot_be_mistaken_for_one_another() {
        let command = ["rm", "-rf", "a b", "", "say \"hi\"", "x\ny", "$(id)"].map(str::to_owned);
        assert_eq!(argv(&command), r#"rm -rf "a b" "" "say \"hi\"" "x\ny" "$(id)""#);
    }

    fn shown(columns: usize) -> String {
        use crate::people::{gate, sample};
        let checked =
            gate::recompute(sample::GATE, &sample::gate(), &sample::roster(), sample::now()).expect("honest");
        render(&checked, &Output::plain(crate::output::Format::Table), columns, sample::now())
    }

    #[test]
    fn nothing_in_a_brief_reaches_the_terminal_raw_and_nothing_is_wider_than_a_phone() {
        let text = shown(44);
        for c in text.chars() {
            assert!(c == '\n' || !c.is_control() && c != '\u{202e}', "{c:?} is raw in:\n{text}");
        }
        for line in text.lines() {
            assert!(line.chars().count() <= 44, "too wide: {line}");
        }
    }

    #[test]
    fn a_brief_reads_like_this() {
        insta::assert_snapshot!(shown(60));
    }
}
