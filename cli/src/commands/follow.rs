//! `fettle run retry`, `fettle run undo`: another run that goes on from one that is over.

use std::collections::BTreeMap;
use std::time::Duration;

use fettle_proto::signed;
use fettle_proto::v1;
use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::{Digest, RunId};
use fettle_runbooks::plan::{Plan, PlannedUndo};
use serde_json::json;

use super::stop;
use super::watch::{Show, follow};
use crate::args::Follow;
use crate::client::{Operators, answer, connect};
use crate::config::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::{talk, visible};
use crate::people::{self, StartWanted, Until};

/// How often a run that is being cancelled is looked at.
const LOOK: Duration = Duration::from_millis(200);

pub(super) async fn retry(context: &Context, args: &Follow, reason: &str) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let run = get(context, &mut calls, &args.run).await?;
    if let Some(exit) = not_over(&run, FollowUp::Retry)? {
        return Ok(exit);
    }
    let hosts = chosen(&run, &args.hosts, |host| !["verified", "succeeded"].contains(&&*host.ending))?;
    if hosts.is_empty() {
        return Err(Error::new(Exit::Failed, format!("nothing of {} is left to retry", visible(&run.id)))
            .why("it ended well on every host")
            .fix("to do it all again on a host nevertheless, name it with --host"));
    }
    in_library(context, &mut calls, &run, &hosts).await?;
    go_on(context, &mut calls, &run, hosts, FollowUp::Retry, Wanted { reason, detach: args.detach }).await
}

pub(super) async fn undo(context: &Context, args: &Follow, reason: &str, cancel: bool) -> Result<Exit> {
    if reason.trim().is_empty() {
        return Err(Error::usage("an undo needs a reason").fix("say why with --reason: the record keeps it"));
    }
    let mut calls = connect(context).await?;
    let mut run = get(context, &mut calls, &args.run).await?;
    if run.ended_at == 0 && cancel {
        let request = v1::CancelRunRequest { run: run.id.clone(), reason: reason.to_owned() };
        run = answer(context, calls.cancel_run(request)).await?;
        talk(&format!("{}: asked its hosts to stop; waiting until they have confirmed it", visible(&run.id)));
        for away in run.hosts.iter().filter(|host| host.state == "cancelling" && !host.agent_connected) {
            talk(&format!("{} is away; if it is lost: {}", visible(&away.host), stop::revoke(&away.host)));
        }
        while run.ended_at == 0 && !stop::stands_still(&run) {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = tokio::signal::ctrl_c() => {
                    talk("not undone: it is still being cancelled. Once that is over, type the same again");
                    return Ok(Exit::Pending);
                }
            }
            run = get(context, &mut calls, &args.run).await?;
        }
        // With its plans and steps, which the last answer to a wish may be without.
        run = get(context, &mut calls, &args.run).await?;
    }
    if let Some(exit) = not_over(&run, FollowUp::Undo)? {
        return Ok(exit);
    }
    if let Some(of) = run.of.as_ref().filter(|of| of.how == FollowUp::Undo.word()) {
        return Err(Error::new(Exit::Failed, format!("{} is an undo itself", visible(&run.id)))
            .fix("name the run that it was of")
            .next(format!("fettle run undo {} --reason '…'", visible(&of.run))));
    }
    let (mut can, mut cannot) = (Vec::new(), Vec::new());
    let hosts = chosen(&run, &args.hosts, |_| true)?;
    for host in run.hosts.iter().filter(|host| hosts.contains(&host.host)) {
        let (some, without) = done(host);
        cannot.extend(without.iter().map(|path| format!("{path} on {}", host.host)));
        // One that is named is asked: it knows best.
        if some || !args.hosts.is_empty() && !without.is_empty() {
            can.push(host.host.clone());
        }
    }
    if can.is_empty() {
        let why = if cannot.is_empty() {
            "it changed nothing".to_owned()
        } else {
            format!("what it did has no undo: {}", cannot.join(", "))
        };
        return Err(Error::new(Exit::Failed, format!("there is nothing to undo of {}", visible(&run.id)))
            .why(visible(&why))
            .next(format!("fettle run show {}", visible(&run.id))));
    }
    for step in cannot {
        talk(&format!("cannot be undone, and stays: {}", visible(&step)));
    }
    go_on(context, &mut calls, &run, can, FollowUp::Undo, Wanted { reason, detach: args.detach }).await
}

async fn get(context: &Context, calls: &mut Operators, run: &str) -> Result<v1::Run> {
    answer(context, calls.get_run(v1::GetRunRequest { run: run.to_owned() })).await
}

/// A run that is not over is not gone on from: what to type instead.
fn not_over(run: &v1::Run, how: FollowUp) -> Result<Option<Exit>> {
    if run.ended_at != 0 {
        return Ok(None);
    }
    let id = visible(&run.id);
    if stop::stands_still(run) || run.hosts.iter().any(|host| host.waiting_for == "resolve") {
        talk(&format!(
            "{id} waits for a person to look at a step; say what you found, then {how} it:\n{}",
            stop::waiting(run)
        ));
        return Ok(Some(Exit::Resolve));
    }
    let error =
        Error::new(Exit::Pending, format!("{id} is not over, and only a run that is over is gone on from"));
    Err(match how {
        FollowUp::Retry => error
            .fix(format!("wait until it is over, or stop it: fettle run cancel {id}"))
            .next(format!("fettle watch {id}")),
        FollowUp::Undo => error
            .fix("to stop it on all its hosts first, add --cancel")
            .next(format!("fettle run undo {id} --cancel --reason '…'")),
    })
}

/// The hosts that were named, or those of the run that `by_default` holds for.
fn chosen(run: &v1::Run, named: &[String], by_default: impl Fn(&v1::HostRun) -> bool) -> Result<Vec<String>> {
    if let Some(stranger) = named.iter().find(|name| run.hosts.iter().all(|host| host.host != **name)) {
        let hosts: Vec<String> = run.hosts.iter().map(|host| visible(&host.host).into_owned()).collect();
        let what = format!("`{}` is no host of {}", visible(stranger), visible(&run.id));
        return Err(Error::new(Exit::NotFound, what).fix(format!("its hosts: {}", hosts.join(", "))));
    }
    let wanted = |host: &&v1::HostRun| match named.is_empty() {
        true => by_default(host),
        false => named.contains(&host.host),
    };
    Ok(run.hosts.iter().filter(wanted).map(|host| host.host.clone()).collect())
}

fn plan_of(host: &v1::HostRun) -> Option<Plan> {
    signed::plan::decode(&host.plan).ok()
}

/// Whether some step that may have changed the host has an undo; and those that have none.
fn done(host: &v1::HostRun) -> (bool, Vec<String>) {
    let tried = |path: &str| {
        host.steps.iter().any(|step| step.path == path && step.attempt > 0 && step.state != "not-started")
    };
    let plan = plan_of(host);
    let steps = plan.iter().flat_map(|plan| &plan.steps);
    let (with, without): (Vec<_>, Vec<_>) = steps
        .filter(|step| step.done_in.is_some() || tried(&step.path))
        .partition(|step| step.undo != PlannedUndo::None);
    let changes = |path: &String| host.steps.iter().any(|step| step.path == *path && step.state != "skipped");
    let without = without.into_iter().map(|step| step.path.clone()).filter(changes).collect();
    (!with.is_empty(), without)
}

/// The library must still have what ran: a retry is of the same runbook.
async fn in_library(context: &Context, calls: &mut Operators, run: &v1::Run, hosts: &[String]) -> Result<()> {
    let anew = || {
        let inputs: Vec<String> = sorted(&run.inputs)
            .into_iter()
            .map(|(name, value)| format!(" -i {}", quoted(&format!("{name}={value}"))))
            .collect();
        format!("fettle start {} --host {}{}", visible(&run.runbook), hosts.join(","), inputs.concat())
    };
    let asked = answer(context, calls.get_runbook(v1::GetRunbookRequest { runbook: run.runbook.clone() }));
    match asked.await {
        Ok(got) if got.digest == run.runbook_digest => Ok(()),
        Ok(_) => Err(Error::new(
            Exit::Failed,
            format!("the library has another `{}` by now", visible(&run.runbook)),
        )
        .why("a retry is of the very same runbook; what has changed in it nobody has planned for")
        .fix("start it anew")
        .next(anew())),
        Err(error) if error.exit() == Exit::NotFound => {
            Err(Error::new(Exit::Failed, format!("`{}` is not in the library", visible(&run.runbook)))
                .why("a retry is of the very same runbook, out of the library")
                .fix("start it anew; a runbook file of your own with --file"))
        }
        Err(error) => Err(error),
    }
}

fn sorted(map: &std::collections::HashMap<String, String>) -> BTreeMap<&String, &String> {
    map.iter().collect()
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:@%+=,-".contains(&byte);
    if text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", visible(&text.replace('\'', "'\\''")))
    }
}

/// What people found out about steps of the earlier run, and of undos of it, that nobody could tell. Of steps that a later run has
/// done itself nothing is said: whoever means those names that run.
async fn found(
    context: &Context,
    calls: &mut Operators,
    run: &v1::Run,
    hosts: &[String],
) -> Result<BTreeMap<(fettle_runbooks::id::Host, String), bool>> {
    let mut all = vec![run.clone()];
    for later in &run.follow_ups {
        all.push(get(context, calls, &later.run).await?);
    }
    let mut found = BTreeMap::new();
    let of_runs = all.iter().flat_map(|of| of.hosts.iter().map(move |host| (of.id == run.id, host)));
    for (own, host) in of_runs.filter(|(_, host)| hosts.contains(&host.host)) {
        for (path, word) in host.found.iter().filter(|(path, _)| own || path.ends_with("/undo")) {
            let name = host.host.parse().map_err(|error| {
                Error::new(Exit::Failed, "the controller names a host that cannot be one").because(&error)
            })?;
            talk(&format!(
                "{} on {}: people say that it {}",
                visible(path),
                visible(&host.host),
                if word == "ran" { "ran" } else { "did not run" }
            ));
            found.insert((name, path.clone()), word == "ran");
        }
    }
    Ok(found)
}

struct Wanted<'a> {
    reason: &'a str,
    detach: bool,
}

async fn go_on(
    context: &Context,
    calls: &mut Operators,
    run: &v1::Run,
    hosts: Vec<String>,
    how: FollowUp,
    Wanted { reason, detach }: Wanted<'_>,
) -> Result<Exit> {
    let broken = |what: &str| Error::new(Exit::Failed, format!("the controller's answer has no {what}"));
    let earlier: RunId = run.id.parse().map_err(|_| broken("run id"))?;
    let runbook_digest = Digest::from_bytes(&run.runbook_digest).map_err(|_| broken("runbook digest"))?;
    let found = found(context, calls, run, &hosts).await?;
    let id = RunId::new(uuid::Uuid::now_v7());
    let wanted = StartWanted {
        run: id,
        runbook: run.runbook.clone(),
        runbook_digest,
        inputs: run.inputs.clone().into_iter().collect(),
        hosts,
        until: match (how, &*run.mode) {
            (FollowUp::Retry, "observe" | "diagnose") => Until::Plan,
            (FollowUp::Retry | FollowUp::Undo, _) => Until::End,
        },
        of: Some(signed::start::Of { run: earlier, how, reason: reason.to_owned(), found }),
    };
    let signed = people::sign_start(context, &wanted).await?;
    let request = v1::StartRunRequest { start: Some(signed), runbook: Default::default() };
    let id = super::start::send(context, calls, request).await?.run;
    if detach {
        context.output.show(&json!({ "run": id, "of": run.id, "how": how.word() }), || id.clone())?;
        if context.output.is_table() {
            talk(&format!("started the {how} of {}; follow it with: fettle watch {id}", visible(&run.id)));
        }
        return Ok(Exit::Done);
    }
    talk(&format!("started {id}, the {how} of {}; Ctrl-C detaches, the run goes on", visible(&run.id)));
    follow(context, calls, &id, 0, Show::Everything).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_becomes_one_word_of_a_shell() {
        assert_eq!(quoted("mount=/var"), "mount=/var");
        assert_eq!(quoted("x=a b'; rm"), r"'x=a b'\''; rm'");
    }

    #[test]
    fn a_run_that_is_not_over_says_what_to_type() {
        let mut run = v1::Run { id: "run_1".into(), ..Default::default() };
        let error = not_over(&run, FollowUp::Undo).expect_err("it goes on");
        assert_eq!(error.exit(), Exit::Pending);
        assert!(error.to_json().to_string().contains("--cancel"), "{}", error.to_json());
        run.hosts = vec![v1::HostRun { waiting_for: "resolve".into(), ..Default::default() }];
        assert_eq!(not_over(&run, FollowUp::Retry).expect("it says so"), Some(Exit::Resolve));
        run.ended_at = 1;
        assert_eq!(not_over(&run, FollowUp::Retry).expect("it is over"), None);
    }
}
