//! `diagnose`, `remediate`, `verify`: what it does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::actions;
use super::fields::Checker;
use super::scope::{Known, Use, env};
use crate::draft::{Draft, Fields};
use crate::expr::{Env, Expr};
use crate::problem::{name_help, visible};
use crate::runbook::{
    Action, Approval, Escalate, Input, OnFailure, Phase, Repeat, Retry, Risk, Sandbox, Step, Undo,
};
use crate::template::Template;
use crate::value::Type;
use crate::yaml::{Entry, NodeKind, Scalar, ScalarValue};

/// The steps that are right.
pub(super) struct Steps {
    pub(super) diagnose: Vec<Step>,
    pub(super) remediate: Vec<Step>,
    pub(super) verify: Vec<Step>,
}

/// Checks the three phases.
pub(super) fn check(checker: &mut Checker, draft: &Draft, inputs: &BTreeMap<String, Input>) -> Steps {
    shape(checker, draft);
    let phases = [
        (Phase::Diagnose, &draft.diagnose),
        (Phase::Remediate, &draft.remediate),
        (Phase::Verify, &draft.verify),
    ];
    let all: Vec<(Phase, usize, &Fields)> = phases
        .into_iter()
        .flat_map(|(phase, steps)| steps.iter().enumerate().map(move |(at, step)| (phase, at, step)))
        .collect();
    let mut known = names(checker, &all);
    waits(checker, &all, &mut known);
    let mut steps = Steps { diagnose: vec![], remediate: vec![], verify: vec![] };
    for (place, (phase, _, fields)) in all.iter().enumerate() {
        let first = all.iter().position(|(other, _, _)| other == phase).unwrap_or(0);
        let mut site = Site { checker, fields, inputs, known: &known, place, phase: *phase, first };
        let (step, outputs) = site.step();
        known[place].outputs = outputs;
        match phase {
            Phase::Diagnose => steps.diagnose.push(step),
            Phase::Remediate => steps.remediate.push(step),
            Phase::Verify => steps.verify.push(step),
        }
    }
    steps
}

/// Which phases there must be.
fn shape(checker: &mut Checker, draft: &Draft) {
    let key = |name: &str| draft.top.get(name).map(|entry| (entry.at, entry.until));
    let written = |name: &str| key(name).is_some();
    if !draft.remediate.is_empty() && !written("verify") {
        let (at, until) = key("remediate").unwrap_or((draft.top.at, draft.top.at.offset + 1));
        checker.error(
            "verify-missing",
            at,
            until,
            "a runbook that remediates must verify: the exit code of a step says nothing of the symptom",
            Some("add `verify:` with a step such as `that: disk(inputs.mount).used_percent < 85`"),
        );
    }
    for name in ["diagnose", "remediate", "verify"] {
        let empty = matches!(draft.top.get(name).map(|entry| &entry.value.kind), Some(NodeKind::List(items)) if items.is_empty());
        if let Some((at, until)) = key(name).filter(|_| empty) {
            checker.error(
                "no-steps",
                at,
                until,
                format!("`{name}` has no steps"),
                Some("add one, or leave the key out"),
            );
        }
    }
    if !written("diagnose") && !written("remediate") {
        let (at, until) = key("runbook").unwrap_or((draft.top.at, draft.top.at.offset + 1));
        let help = Some("add `diagnose:`, or `remediate:` and `verify:`");
        checker.error("no-steps", at, until, "the runbook does nothing", help);
    }
    if let (Some((at, until)), false) = (key("verify"), written("remediate")) {
        let help = Some("make its steps diagnose steps");
        checker.warn("unreachable", at, until, "`verify` never runs, because nothing is remediated", help);
    }
}

/// Ids: every step has one, and no two the same.
fn names(checker: &mut Checker, all: &[(Phase, usize, &Fields)]) -> Vec<Known> {
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    let mut known = Vec::new();
    for (place, (phase, _, fields)) in all.iter().enumerate() {
        let mut id = format!("\0{place}"); // A name nobody can write, for a step that has none.
        match fields.get("id") {
            None => {
                let help = Some("write `id: some-name`; later steps and reports refer to it");
                checker.error("missing-key", fields.at, fields.at.offset + 1, "a step without `id`", help);
            }
            Some(entry) => {
                if let Some(text) = checker.text(&entry.value, "`id`").map(str::to_owned) {
                    if !is_id(&text) {
                        let message = format!("`{}` cannot be the id of a step", visible(text.as_bytes()));
                        let help =
                            Some("use letters, digits, `-` and `_`, at most 64, beginning with a letter");
                        checker.at_value(&entry.value, "wrong-name", message, help);
                    } else if text == "undo" {
                        let message =
                            "`undo` cannot be the id of a step: what takes a step back is called `STEP/undo`";
                        let help = Some("give it another id, as `take-back`");
                        checker.at_value(&entry.value, "wrong-name", message, help);
                    } else if let Some(line) = lines.get(&text) {
                        let message = format!(
                            "the step `{text}` is on line {line} and again on line {}",
                            entry.at.line
                        );
                        checker.at_value(
                            &entry.value,
                            "duplicate-step",
                            message,
                            Some("give one of them another id"),
                        );
                    } else {
                        lines.insert(text.clone(), entry.at.line);
                        id = text;
                    }
                }
            }
        }
        known.push(Known { id, phase: *phase, outputs: Type::Any, after: BTreeSet::new() });
    }
    known
}

fn is_id(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// `after:`, closed over what the others wait for. Only earlier steps can be waited for, so there are no cycles.
fn waits(checker: &mut Checker, all: &[(Phase, usize, &Fields)], known: &mut [Known]) {
    let written = |fields: &Fields| match fields.get("after").map(|entry| &entry.value.kind) {
        Some(NodeKind::List(items)) => items.clone(),
        Some(NodeKind::Scalar(_) | NodeKind::Map(_)) | None => vec![],
    };
    for (place, (phase, _, fields)) in all.iter().enumerate() {
        let Some(entry) = fields.get("after") else { continue };
        if *phase != Phase::Diagnose {
            checker.at_key(
                entry,
                "wrong-key",
                "only diagnose steps have `after`; these go in order",
                Some("leave it out"),
            );
            continue;
        }
        if checker.texts(entry).is_none() {
            continue;
        }
        for node in written(fields) {
            let Some(name) = checker.text(&node, "an item of `after`").map(str::to_owned) else { continue };
            let found = known.iter().position(|other| other.id == name);
            match found {
                Some(other) if other < place && known[other].phase == Phase::Diagnose => {
                    let further = known[other].after.clone();
                    known[place].after.extend(further);
                    known[place].after.insert(other);
                }
                Some(other) if other == place => {
                    checker.at_value(
                        &node,
                        "after-cycle",
                        format!("the step `{name}` waits for itself"),
                        None,
                    );
                }
                Some(other) if known[other].phase == Phase::Diagnose => {
                    let back = written(all[other].2).iter().any(|node| {
                        matches!(&node.kind, NodeKind::Scalar(scalar) if scalar.text.text == known[place].id)
                    });
                    if back {
                        let message =
                            format!("the steps `{}` and `{name}` wait for each other", known[place].id);
                        checker.at_value(&node, "after-cycle", message, None);
                    } else {
                        let message =
                            format!("the step `{name}` comes later; a step waits for steps above it");
                        checker.at_value(&node, "after-later", message, Some("move it up"));
                    }
                }
                Some(_) => {
                    checker.at_value(&node, "after-later", format!("`{name}` is not a diagnose step"), None);
                }
                None => {
                    let earlier = known[..place].iter().map(|known| known.id.as_str());
                    let help = name_help(&name, earlier.filter(|id| !id.starts_with('\0')));
                    let message = format!("there is no step `{}`", visible(name.as_bytes()));
                    checker.at_value(&node, "unknown-name", message, help.as_deref());
                }
            }
        }
    }
}

/// One step while it is checked.
pub(super) struct Site<'a> {
    pub(super) checker: &'a mut Checker,
    pub(super) fields: &'a Fields,
    pub(super) inputs: &'a BTreeMap<String, Input>,
    known: &'a [Known],
    place: usize,
    pub(super) phase: Phase,
    /// The place of the phase's first step.
    first: usize,
}

impl Site<'_> {
    pub(super) fn env(&self, usage: Use) -> Env {
        env(self.inputs, &self.checker.broken_inputs, self.known, self.place, usage)
    }

    /// The step, with something harmless where it is wrong, and the type of its outputs.
    fn step(&mut self) -> (Step, Type) {
        let action = actions::action(self);
        let runs = self.fields.get("run").is_some();
        let acts = runs || self.fields.get("service").is_some();
        action.iter().for_each(|action| self.keys_of_action(action));
        let action = action.unwrap_or(Action::Wait(Duration::ZERO));
        let looks = matches!(action, Action::That { .. }) && !acts;
        self.keys_of_phase();
        let me = &self.known[self.place];
        let id = me.id.clone();
        let after = me.after.iter().map(|place| place - self.first).collect();
        let name =
            self.fields.get("name").and_then(|entry| self.checker.line(entry)).unwrap_or_else(|| id.clone());
        let condition = self.condition("if");
        if let Some(entry) =
            self.fields.get("if").filter(|_| condition.as_ref().is_some_and(|expr| expr.source() == "false"))
        {
            self.checker.warn("unreachable", entry.value.at, entry.value.until, "this step never runs", None);
        }
        let outputs_see = match (runs, looks) {
            (true, _) => Some(Use::Output),
            (false, true) => Some(Use::Reading),
            (false, false) => None,
        };
        let (outputs, types) = self.outputs(outputs_see);
        let repeat = self.repeat(acts);
        let retry = self.retry(repeat);
        let timeout = self.fields.get("timeout").and_then(|entry| self.checker.time(entry, 100));
        let default_timeout = if self.phase == Phase::Remediate { 300 } else { 30 };
        let step = Step {
            id,
            name,
            phase: self.phase,
            risk: self.risk(acts),
            condition,
            after,
            env: actions::environment(self),
            cwd: actions::directory(self),
            sandbox: self.sandbox(runs),
            timeout: timeout.unwrap_or(Duration::from_secs(default_timeout)),
            retry,
            outputs,
            repeat,
            undo: self.undo(acts),
            check: self.condition("check"),
            on_failure: self.on_failure(),
            approval: self.approval(),
            allow_leading_dash: self
                .fields
                .get("allow_leading_dash")
                .and_then(|entry| self.checker.truth(entry))
                .unwrap_or(false),
            action,
        };
        self.nothing_in_a_directory_from_a_value(&step);
        (step, types)
    }

    /// A program that is looked for in the working directory is chosen by whoever chooses the directory.
    fn nothing_in_a_directory_from_a_value(&mut self, step: &Step) {
        let Some(entry) = self.fields.get("cwd") else { return };
        if step.cwd.as_ref().is_none_or(|cwd| cwd.is_literal().is_some()) {
            return;
        }
        let undo = match &step.undo {
            Undo::None | Undo::Previous => None,
            Undo::Run(action) => Some(action),
        };
        let relative = [Some(&step.action), undo].into_iter().flatten().find_map(|action| {
            let program = match action {
                Action::Script { interpreter, .. } => interpreter.first().map(String::as_str),
                Action::Argv(words) => words.first().and_then(Template::is_literal),
                Action::That { .. } | Action::Wait(_) | Action::Service { .. } => None,
            };
            program.filter(|program| program.contains('/') && !program.starts_with('/'))
        });
        if let Some(program) = relative {
            let message = format!("`{program}` is looked for in `cwd`: no value may choose what runs");
            let help = Some("write the program's whole path, or a fixed `cwd`");
            self.checker.at_value(&entry.value, "program-from-value", message, help);
        }
    }

    fn condition(&mut self, key: &str) -> Option<Expr> {
        let entry = self.fields.get(key)?;
        let env = self.env(Use::Condition);
        self.checker.expr(&entry.value, &format!("`{key}`"), Some(&Type::Bool), &env)
    }

    /// Keys that only some actions have.
    fn keys_of_action(&mut self, action: &Action) {
        let process = ["env", "cwd", "interpreter", "allow_leading_dash"];
        let run = [&process[..], &["timeout", "retry", "check"]].concat();
        let that = ["within", "stable_for", "every"];
        let (excess, belong): (Vec<&str>, &str) = match action {
            _ if actions::ACTIONS.iter().filter(|key| self.fields.get(key).is_some()).count() != 1 => {
                return;
            }
            Action::Script { .. } | Action::Argv(_) => (that.to_vec(), "that"),
            Action::That { .. } => (run, "run"),
            Action::Wait(_) => ([&run[..], &that, &["outputs"]].concat(), "run` or `that"),
            Action::Service { .. } => (that.to_vec(), "that"),
        };
        for entry in excess.iter().filter_map(|key| self.fields.get(key)) {
            let message = format!("`{}` belongs to `{belong}`, which this step does not have", entry.key);
            self.checker.at_key(entry, "wrong-key", message, Some("leave it out"));
        }
        if let Action::Service { .. } = action {
            // Of an undo that is something to run, these are its own.
            let of_undo = if self.undo_runs() { &process[..0] } else { &process[..] };
            for entry in of_undo.iter().chain(&["outputs"]).filter_map(|key| self.fields.get(key)) {
                let belong = if entry.key == "outputs" { "run` or `that" } else { "run" };
                let message = format!("`{}` belongs to `{belong}`, which this step does not have", entry.key);
                self.checker.at_key(entry, "wrong-key", message, Some("leave it out"));
            }
        }
        if let (Action::Argv(_), Some(entry)) = (action, self.fields.get("interpreter")) {
            let message = "`interpreter` belongs to a script; a list is run without one";
            self.checker.at_key(entry, "wrong-key", message, Some("leave it out"));
        }
        if let (Action::Script { .. }, Some(entry)) = (action, self.fields.get("allow_leading_dash")) {
            let message = "`allow_leading_dash` belongs to a list; a script has no arguments";
            self.checker.at_key(entry, "wrong-key", message, Some("leave it out"));
        }
    }

    /// Whether `undo` is a command or a script.
    fn undo_runs(&self) -> bool {
        let words = ["none", "previous"];
        self.fields.get("undo").is_some_and(|entry| match &entry.value.kind {
            NodeKind::Scalar(scalar) => !words.contains(&scalar.text.text.trim()),
            NodeKind::List(_) | NodeKind::Map(_) => true,
        })
    }

    /// Keys that only remediate steps have.
    fn keys_of_phase(&mut self) {
        let phase = match self.phase {
            Phase::Remediate => return,
            Phase::Diagnose => "diagnose",
            Phase::Verify => "verify",
        };
        for key in ["risk", "repeat", "undo", "check", "on_failure", "approval"] {
            if let Some(entry) = self.fields.get(key) {
                let message = format!("a {phase} step only reads, so it has no `{key}`");
                let code = if key == "risk" { "risk-forbidden" } else { "wrong-key" };
                self.checker.at_key(
                    entry,
                    code,
                    message,
                    Some("leave it out, or move the step to `remediate`"),
                );
            }
        }
    }

    fn missing(&mut self, code: &'static str, message: &str, help: &str) {
        let (at, until) = match self.fields.get("id") {
            Some(entry) => (entry.at, entry.value.until),
            None => (self.fields.at, self.fields.at.offset + 1),
        };
        self.checker.error(code, at, until, message, Some(help));
    }

    fn risk(&mut self, acts: bool) -> Risk {
        if self.phase != Phase::Remediate {
            return Risk::Read;
        }
        let words = [
            ("low", Risk::Low),
            ("medium", Risk::Medium),
            ("high", Risk::High),
            ("critical", Risk::Critical),
            ("read", Risk::Read),
        ];
        match self.fields.get("risk") {
            Some(entry) => match self.checker.one_of(entry, &words) {
                Some(Risk::Read) => {
                    let help =
                        Some("write `low`, `medium`, `high` or `critical`, or make it a diagnose step");
                    let message = "a remediate step cannot have the risk `read`";
                    self.checker.at_value(&entry.value, "risk-read", message, help);
                    Risk::Critical
                }
                Some(risk) => risk,
                None => Risk::Critical,
            },
            None if acts => {
                let help = "write `risk: low`, `medium`, `high` or `critical`";
                self.missing("risk-missing", "a remediate step states its `risk`", help);
                Risk::Critical
            }
            None => Risk::Low, // It only waits.
        }
    }

    fn repeat(&mut self, acts: bool) -> Repeat {
        if self.phase != Phase::Remediate {
            return Repeat::Safe;
        }
        match self.fields.get("repeat") {
            Some(entry) => self
                .checker
                .one_of(entry, &[("safe", Repeat::Safe), ("never", Repeat::Never)])
                .unwrap_or(Repeat::Never),
            None if acts => {
                let message =
                    "a remediate step states `repeat`: may it start again when nobody knows whether it ran?";
                self.missing(
                    "repeat-missing",
                    message,
                    "write `repeat: safe`, or `repeat: never` if twice does harm",
                );
                Repeat::Never
            }
            None => Repeat::Safe,
        }
    }

    fn retry(&mut self, repeat: Repeat) -> Retry {
        let Some(entry) = self.fields.get("retry") else { return Retry::default() };
        if self.phase == Phase::Remediate && repeat == Repeat::Never && self.fields.get("repeat").is_some() {
            let message = "`retry` with `repeat: never`: a failed attempt may have had half its effect";
            self.checker.at_key(
                entry,
                "retry-never",
                message,
                Some("leave `retry` out, or make the step `repeat: safe`"),
            );
            return Retry::default();
        }
        let known = ["times", "first", "longest"];
        let fields = Fields::read(entry.value.clone(), "`retry`", &known, &[], &mut self.checker.problems);
        let Some(fields) = fields else { return Retry::default() };
        let Some(times) = fields.get("times") else {
            self.checker.at_key(
                entry,
                "missing-key",
                "`retry` does not say how often",
                Some("write `retry: { times: 2, first: 1s }`"),
            );
            return Retry::default();
        };
        let times = self.checker.whole(times, 1, 20).unwrap_or(1) as u32;
        let first = fields
            .get("first")
            .and_then(|entry| self.checker.time(entry, 1))
            .unwrap_or(Duration::from_secs(1));
        let longest = fields.get("longest").and_then(|entry| self.checker.time(entry, 1));
        Retry { times, first, longest: longest.unwrap_or(Duration::from_secs(30)).max(first) }
    }

    fn outputs(&mut self, usage: Option<Use>) -> (BTreeMap<String, Expr>, Type) {
        let mut outputs = BTreeMap::new();
        let mut types = BTreeMap::new();
        let Some(usage) = usage else { return (outputs, Type::Record(types)) };
        let env = self.env(usage);
        for entry in crate::draft::map(self.fields.get("outputs"), &mut self.checker.problems) {
            let Entry { key, at, until, value } = entry;
            let good = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && key.len() <= 64
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !good {
                let message = format!("`{}` cannot be the name of an output", visible(key.as_bytes()));
                self.checker.error("wrong-name", at, until, message, Some("use letters, digits and `_`"));
                continue;
            }
            let expr = self.checker.expr(&value, &format!("the output `{key}`"), None, &env);
            types.insert(key.clone(), expr.as_ref().map_or(Type::Any, |expr| expr.ty().clone()));
            outputs.extend(expr.map(|expr| (key, expr)));
        }
        (outputs, Type::Record(types))
    }

    /// `sandbox:`, of a step that starts a process and only reads.
    fn sandbox(&mut self, runs: bool) -> Sandbox {
        let Some(entry) = self.fields.get("sandbox") else { return Sandbox::default() };
        if self.phase == Phase::Remediate {
            let message = "a remediate step acts, so it runs without a sandbox";
            self.checker.at_key(entry, "wrong-key", message, Some("leave it out"));
            return Sandbox::default();
        }
        if !runs {
            let message = "`sandbox` belongs to `run`, which this step does not have";
            self.checker.at_key(entry, "wrong-key", message, Some("leave it out"));
            return Sandbox::default();
        }
        let known = ["connect", "read"];
        let problems = &mut self.checker.problems;
        let Some(fields) = Fields::read(entry.value.clone(), "`sandbox`", &known, &[], problems) else {
            return Sandbox::default();
        };
        let mut sandbox = Sandbox::default();
        if let Some(entry) = fields.get("connect") {
            sandbox.connect = self.ports(entry);
        }
        if let Some(entry) = fields.get("read") {
            sandbox.read_all = self.checker.one_of(entry, &[("all", true)]).unwrap_or(false);
        }
        sandbox
    }

    fn ports(&mut self, entry: &Entry) -> Vec<u16> {
        let mut ports = BTreeSet::new();
        for node in crate::draft::list(Some(entry), &mut self.checker.problems) {
            let port = match &node.kind {
                NodeKind::Scalar(Scalar { value: ScalarValue::Int(port), .. }) => u16::try_from(*port).ok(),
                NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_) => None,
            };
            match port.filter(|port| *port > 0) {
                Some(port) => {
                    ports.insert(port);
                }
                None => {
                    let message = "an item of `connect` is a TCP port, from 1 to 65535";
                    let help = Some("write the number as it is, such as `connect: [5432]`");
                    self.checker.at_value(&node, "wrong-value", message, help);
                }
            }
        }
        ports.into_iter().collect()
    }

    fn undo(&mut self, acts: bool) -> Undo {
        if self.phase != Phase::Remediate {
            return Undo::None;
        }
        match self.fields.get("undo") {
            Some(entry) => actions::undo(self, entry).unwrap_or(Undo::None),
            None => {
                if acts {
                    let message = "a remediate step states its `undo`: how is it made as if not done?";
                    let service = self.fields.get("service").is_some();
                    let help = if service {
                        "write `undo: previous`, `undo: none`, or `undo: [program, argument]`"
                    } else {
                        "write `undo: none`, or `undo: [program, argument]`"
                    };
                    self.missing("undo-missing", message, help);
                }
                Undo::None
            }
        }
    }

    fn on_failure(&mut self) -> OnFailure {
        let words = [("stop", OnFailure::Stop), ("continue", OnFailure::Continue), ("undo", OnFailure::Undo)];
        match self.fields.get("on_failure").filter(|_| self.phase == Phase::Remediate) {
            Some(entry) => self.checker.one_of(entry, &words).unwrap_or(OnFailure::Stop),
            None => OnFailure::Stop,
        }
    }

    fn approval(&mut self) -> Option<Approval> {
        let entry = self.fields.get("approval").filter(|_| self.phase == Phase::Remediate)?;
        let checker = &mut *self.checker;
        let known = ["from", "need", "within", "escalate"];
        let fields = Fields::read(entry.value.clone(), "`approval`", &known, &[], &mut checker.problems)?;
        let from = fields.get("from").and_then(|entry| groups(checker, entry)).unwrap_or_default();
        let need = fields.get("need").and_then(|entry| checker.whole(entry, 1, 10)).unwrap_or(1) as u32;
        let within = fields.get("within").and_then(|entry| checker.time(entry, 1000));
        let within = within.unwrap_or(Duration::from_secs(600));
        let escalate = fields.get("escalate").and_then(|entry| {
            let known = ["after", "to"];
            let inner = Fields::read(entry.value.clone(), "`escalate`", &known, &[], &mut checker.problems)?;
            let (Some(after), Some(to)) = (inner.get("after"), inner.get("to")) else {
                let help = Some("write `escalate: { after: 90s, to: [some-group] }`");
                checker.at_key(
                    entry,
                    "missing-key",
                    "`escalate` says `after` which time and `to` whom",
                    help,
                );
                return None;
            };
            let time = checker.time(after, 1000)?;
            if time >= within {
                let message = "the approval has ended before it escalates";
                checker.at_value(
                    &after.value,
                    "wrong-value",
                    message,
                    Some("make `after` shorter than `within`"),
                );
            }
            Some(Escalate { after: time, to: groups(checker, to)? })
        });
        Some(Approval { from, need, within, escalate })
    }
}

/// Names of groups of people.
fn groups(checker: &mut Checker, entry: &Entry) -> Option<Vec<String>> {
    let groups = checker.texts(entry)?;
    let good = |group: &String| {
        !group.is_empty()
            && group.len() <= 64
            && group.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if groups.is_empty() || !groups.iter().all(good) {
        let help = Some("use letters, digits, `-`, `_` and `.`");
        checker.at_value(
            &entry.value,
            "wrong-name",
            format!("`{}` is a list of names of groups", entry.key),
            help,
        );
        return None;
    }
    Some(groups)
}
