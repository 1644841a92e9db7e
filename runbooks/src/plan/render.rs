//! From a runbook and what diagnosis found to the steps of a plan.

use std::collections::BTreeMap;

use super::{PlannedStep, PlannedUndo, PlannedWork, Rendering, TooLarge, evidence};
use crate::expr::Scope;
use crate::runbook::{Action, Phase, Runbook, Step, Undo};
use crate::segment::path as segment_path;
use crate::template::Template;
use crate::unit::{NotAUnit, UnitName, in_name};
use crate::value::Value;

/// A plan's text may not be larger: people have to read it.
pub const MAX_PLAN_BYTES: usize = 256 * 1024;

/// Renders `remediate` and `verify`, once, from `inputs`, `host` and the outputs of diagnosis.
///
/// # Errors
/// When it would be larger than people can be asked to read.
pub fn render(
    runbook: &Runbook,
    scope: &Scope,
    outputs: &BTreeMap<String, BTreeMap<String, Value>>,
) -> Result<Rendering, TooLarge> {
    let missing: Vec<(&str, &str)> = runbook
        .steps(Phase::Diagnose)
        .iter()
        .flat_map(|step| step.outputs.keys().map(|name| (step.id.as_str(), name.as_str())))
        .filter(|(id, name)| !outputs.get(*id).is_some_and(|values| values.contains_key(*name)))
        .collect();
    let phase = |phase: Phase| -> Vec<PlannedStep> {
        runbook
            .steps(phase)
            .iter()
            .map(|step| planned(step, segment_path(phase, &step.id), scope, &missing))
            .collect()
    };
    let rendering = Rendering {
        steps: phase(Phase::Remediate),
        verify: phase(Phase::Verify),
        evidence: evidence::of(outputs),
    };
    let bytes = size(&rendering);
    if bytes > MAX_PLAN_BYTES { Err(TooLarge { bytes, limit: MAX_PLAN_BYTES }) } else { Ok(rendering) }
}

/// Renders one step; what cannot be rendered, or needs what diagnosis did not find, is impossible.
fn planned(step: &Step, path: String, scope: &Scope, missing: &[(&str, &str)]) -> PlannedStep {
    let unmet = step
        .condition
        .as_ref()
        .and_then(|condition| missing.iter().find(|(id, name)| condition.reads(&["steps", id, name])));
    let rendered = match unmet {
        None => render_step(step, path.clone(), scope),
        Some((id, name)) => {
            Err(format!("its condition needs `steps.{id}.{name}`, which diagnosis did not find"))
        }
    };
    rendered.unwrap_or_else(|reason| PlannedStep {
        work: PlannedWork::Impossible(reason),
        env: BTreeMap::new(),
        undo: PlannedUndo::None,
        ..frame(step, path)
    })
}

/// Renders one step; on failure, why it cannot be.
pub(crate) fn render_step(step: &Step, path: String, scope: &Scope) -> Result<PlannedStep, String> {
    let allow_dash = step.allow_leading_dash;
    let mut env = BTreeMap::new();
    for (name, template) in &step.env {
        env.insert(name.clone(), text(template, scope, &format!("environment variable {name}"))?.text);
    }
    let cwd = match &step.cwd {
        None => "/".to_owned(),
        Some(template) => text(template, scope, "working directory")?.text,
    };
    if !cwd.starts_with('/') {
        return Err(format!("its working directory `{cwd}` is not an absolute path"));
    }
    let undo = match &step.undo {
        Undo::None => PlannedUndo::None,
        Undo::Previous => PlannedUndo::Previous,
        Undo::Run(action) => {
            PlannedUndo::Work(work(action, scope, allow_dash).unwrap_or_else(PlannedWork::Impossible))
        }
    };
    Ok(PlannedStep { work: work(&step.action, scope, allow_dash)?, env, cwd, undo, ..frame(step, path) })
}

/// What of a planned step is not rendered.
fn frame(step: &Step, path: String) -> PlannedStep {
    PlannedStep {
        path,
        risk: step.risk,
        name: step.name.clone(),
        work: PlannedWork::Wait(std::time::Duration::ZERO),
        env: BTreeMap::new(),
        cwd: "/".to_owned(),
        user: String::new(),
        sandbox: step.sandbox.clone(),
        timeout: step.timeout,
        retry: step.retry,
        repeat: step.repeat,
        condition: step.condition.as_ref().map(|expr| expr.source().to_owned()),
        undo: PlannedUndo::None,
        check: step.check.as_ref().map(|expr| expr.source().to_owned()),
        on_failure: step.on_failure,
        approval: step.approval.clone(),
        outputs: step.outputs.iter().map(|(name, expr)| (name.clone(), expr.source().to_owned())).collect(),
        done_in: None,
    }
}

fn work(action: &Action, scope: &Scope, allow_dash: bool) -> Result<PlannedWork, String> {
    match action {
        Action::Script { source, interpreter } => {
            Ok(PlannedWork::Script { source: source.clone(), interpreter: interpreter.clone() })
        }
        Action::Argv(templates) => {
            let mut words = Vec::with_capacity(templates.len());
            for (place, template) in templates.iter().enumerate() {
                let rendered = text(template, scope, &format!("argument {place}"))?;
                if rendered.leads_with_value && rendered.text.starts_with('-') && !allow_dash {
                    return Err(format!(
                        "argument {place} (`{}`) would begin with `-` because of a value: `{}`",
                        template.source(),
                        shown(&rendered.text)
                    ));
                }
                words.push(rendered.text);
            }
            Ok(PlannedWork::Argv(words))
        }
        Action::That { condition, within, stable_for, every } => Ok(PlannedWork::That {
            condition: condition.source().to_owned(),
            within: *within,
            stable_for: *stable_for,
            every: *every,
        }),
        Action::Wait(time) => Ok(PlannedWork::Wait(*time)),
        Action::Service { verb, unit, instances } => {
            let rendered = text(unit, scope, "the unit")?.text;
            let no = |why: String| format!("`{}` would {verb} `{}`: {why}", unit.source(), shown(&rendered));
            for value in unit.values(scope).map_err(|error| no(error.to_string()))? {
                in_name(&value, *instances).map_err(|why| no(why.to_owned()))?;
            }
            let name: UnitName = rendered.parse().map_err(|why: NotAUnit| no(why.to_string()))?;
            name.acted_on().map_err(|why| no(why.to_string()))?;
            Ok(PlannedWork::Service { verb: *verb, unit: name })
        }
    }
}

fn text(template: &Template, scope: &Scope, what: &str) -> Result<crate::template::Rendered, String> {
    let rendered = template
        .render(scope)
        .map_err(|error| format!("{what} (`{}`) has no value: {error}", template.source()))?;
    if rendered.text.contains('\0') {
        return Err(format!("{what} (`{}`) would contain a NUL", template.source()));
    }
    Ok(rendered)
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect::<String>().escape_debug().to_string()
}

fn size(rendering: &Rendering) -> usize {
    let map = |map: &BTreeMap<String, String>| {
        map.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    };
    let work = |work: &PlannedWork| match work {
        PlannedWork::Script { source, .. } => source.len(),
        PlannedWork::Argv(words) => words.iter().map(|word| word.len() + 3).sum(),
        PlannedWork::That { condition, .. } => condition.len(),
        PlannedWork::Wait(_) => 0,
        PlannedWork::Service { unit, .. } | PlannedWork::PutBack { unit } => unit.as_str().len(),
        PlannedWork::Impossible(reason) => reason.len(),
    };
    let undo = |undo: &PlannedUndo| match undo {
        PlannedUndo::None | PlannedUndo::Previous => 0,
        PlannedUndo::Work(undo) => work(undo),
    };
    let step =
        |step: &PlannedStep| 256 + work(&step.work) + undo(&step.undo) + map(&step.env) + map(&step.outputs);
    map(&rendering.evidence) + rendering.steps.iter().chain(&rendering.verify).map(step).sum::<usize>()
}
