//! `backup` and `restore`, as they are typed.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::args::{Format, print, say};
use crate::config::Config;
use crate::notify::{FORMAT, Notification};
use crate::policy;
use crate::store::backup::Contents;
use crate::store::restore::Restored;
use crate::store::{backup, restore};
use crate::world::{At, System, World as _};

pub(crate) fn backup(config: &Config, to: &Path, output: Format) -> ExitCode {
    match backup::backup(&config.state.join("store"), to) {
        Ok(contents) => {
            let text = format!("{}: {}; checked and durable", to.display(), told(&contents));
            tell(output, &text, json!({ "file": to.display().to_string(), "holds": members(&contents) }))
        }
        Err(error) => {
            failed("there is no backup", &error, "nothing is at that name that was not there before")
        }
    }
}

pub(crate) fn restore(config: &Config, from: &Path, output: Format) -> ExitCode {
    let read = policy::read(&config.policy);
    let now = System.now();
    let body = |id: u64, contents: &Contents| notification(id, contents, now);
    let body: restore::Body<'_> = &body;
    let tell_people = read.as_ref().is_ok_and(|policy| policy.notify.is_some()).then_some(body);
    match restore::restore(&config.state.join("store"), from, now, tell_people) {
        Ok(restored) => tell(output, &what_follows(from, &restored), as_json(from, &restored)),
        Err(error @ restore::RestoreError::NotDurable { .. }) => failed(
            "what was restored may not outlive a loss of power",
            &error,
            "the database is in place, and the one before beside it; once the disk is well, type the same again",
        ),
        Err(error) => failed("nothing was restored", &error, "the database is as it was"),
    }
}

fn notification(id: u64, contents: &Contents, now: At) -> String {
    let (event, at) = contents.last.unwrap_or_default();
    let body = Notification {
        fettle: FORMAT,
        id: id.to_string(),
        kind: "restored",
        at: now.to_string(),
        title: format!("the controller was restored from a backup of {at}"),
        run: String::new(),
        gate: String::new(),
        incident: String::new(),
        host: String::new(),
        to: Vec::new(),
        text: format!(
            "its last event is {event}; hosts tell again what they have done since. Signals, incidents, approvals and sign-ins since \
             then are lost; then: fettle status"
        ),
        ending: "",
        since: String::new(),
        evidence: None,
    };
    serde_json::to_string(&body).unwrap_or_default()
}

fn tell(output: Format, text: &str, value: Value) -> ExitCode {
    match output {
        Format::Text => print(text),
        Format::Json => print(&value.to_string()),
    }
    ExitCode::SUCCESS
}

fn failed(what: &str, error: &dyn std::error::Error, state: &str) -> ExitCode {
    let mut text = format!("error: {what}");
    let mut cause = Some(error);
    while let Some(error) = cause {
        text.push_str(&format!("\n   why: {error}"));
        cause = error.source();
    }
    say(&format!("{text}\n  note: {state}"));
    ExitCode::FAILURE
}

/// `1204 events, the last at 2026-11-22T01:02:03Z (schema 4)`
fn told(contents: &Contents) -> String {
    let last = contents.last.map_or_else(String::new, |(_, at)| format!(", the last at {at}"));
    format!("{} events{last} (schema {})", contents.events, contents.version)
}

fn members(contents: &Contents) -> Value {
    json!({
        "events": contents.events,
        "last_event": contents.last.map(|(number, _)| number),
        "last_at": contents.last.map(|(_, at)| at.to_string()),
        "schema": contents.version,
    })
}

fn as_json(from: &Path, restored: &Restored) -> Value {
    json!({
        "from": from.display().to_string(),
        "holds": members(&restored.contents),
        "before": restored.before.as_ref().map(|path| path.display().to_string()),
        "tokens_voided": restored.tokens,
        "notifications_dropped": restored.notifications,
        "revoked": restored.revoked.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn what_follows(from: &Path, restored: &Restored) -> String {
    let mut lines = vec![format!("restored from {}: {}", from.display(), told(&restored.contents))];
    match (&restored.before, &restored.replaced) {
        (Some(before), Some(Ok(replaced))) => {
            lines.push(format!("the database before is {}: {}", before.display(), told(replaced)));
        }
        (Some(before), Some(Err(why))) => {
            lines.push(format!("the database before is {}; {why}", before.display()));
            lines.push("it could not be asked which hosts were revoked: revoke them again, with fettle agent revoke".to_owned());
        }
        (Some(before), None) => lines.push(format!("the database before is {}", before.display())),
        (None, _) => lines.push("there was no database before; hosts revoked since the backup must be revoked again, with fettle agent revoke".to_owned()),
    }
    if !restored.revoked.is_empty() {
        let hosts: Vec<&str> = restored.revoked.iter().map(fettle_runbooks::id::Host::as_str).collect();
        lines.push(format!("revoked since the backup, and still so: {}", hosts.join(", ")));
    }
    lines.push(format!(
        "void: {} enrolment tokens, for they may have been spent; not sent again: {} notifications",
        restored.tokens, restored.notifications
    ));
    lines.push(
        "what follows when the controller runs again:\n  - hosts tell again what they did since the backup; runs that only they know are taken in, and their timelines say so\n  - nothing is started again: a host refuses what it has carried out, and approvals that were used stay used\n  - signals, incidents, approvals and sign-ins since the backup are lost: alerts that still fire come again with their source's next repetition"
            .to_owned(),
    );
    lines.push("next: start the controller, then fettle status".to_owned());
    lines.join("\n")
}
