//! `fettle agent …`

use std::time::Duration;

use fettle_proto::v1;
use serde_json::json;

use crate::client::{answer, connect};
use crate::config::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::{Table, Tone, talk, time, time_json, visible};
use crate::view;

/// The longest a token may wait to be spent.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

pub(super) async fn list(context: &Context) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let agents = answer(context, calls.list_agents(v1::ListAgentsRequest {})).await?.agents;
    let data: Vec<_> = agents.iter().map(view::agent).collect();
    context.output.list(&data, || {
        let mut table = Table::new(
            &["HOST", "STATE", "VERSION", "LAST SEEN", "LABELS"],
            "no agents; create a token for one with `fettle agent token create HOST`",
        );
        for agent in &agents {
            table.row([
                agent.host.clone(),
                agent.state.clone(),
                agent.version.clone(),
                time(agent.last_seen_at),
                labels(agent),
            ]);
        }
        table
    })?;
    Ok(Exit::Done)
}

pub(super) async fn show(context: &Context, host: &str) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let agent = answer(context, calls.get_agent(v1::GetAgentRequest { host: host.to_owned() })).await?;
    context.output.show(&view::agent(&agent), || {
        let out = &context.output;
        let mut text = format!(
            "{}  {}\n  version:      {}\n  last seen:    {}\n  certificate:  until {}\n  roster:       version {}\n  epoch:        {}\n  labels:       {}",
            out.paint(Tone::Strong, &agent.host),
            out.paint(Tone::of(&agent.state), &agent.state),
            visible(&agent.version),
            time(agent.last_seen_at),
            time(agent.certificate_not_after),
            agent.roster_version,
            agent.epoch,
            visible(&labels(&agent)),
        );
        for missing in &agent.missing {
            text.push_str(&format!("\n  {}", out.paint(Tone::Warn, &format!("cannot: {missing}"))));
        }
        text
    })?;
    Ok(Exit::Done)
}

pub(super) async fn create_token(
    context: &Context,
    host: &str,
    labels: &[(String, String)],
    valid: Duration,
) -> Result<Exit> {
    host.parse::<fettle_runbooks::id::Host>()
        .map_err(|error| Error::usage("this cannot be a host's name").because(&error))?;
    if valid > LONGEST || valid.is_zero() {
        return Err(
            Error::usage("a token is valid for more than nothing and at most 7 days").fix("give --valid 1h")
        );
    }
    let mut calls = connect(context).await?;
    let request = v1::CreateTokenRequest {
        host: host.to_owned(),
        labels: labels.iter().cloned().collect(),
        valid_ms: u64::try_from(valid.as_millis()).unwrap_or(u64::MAX),
    };
    let made = answer(context, calls.create_token(request)).await?;
    let data = json!({ "host": host, "token": made.token, "expires_at": time_json(made.expires_at), "root": made.root });
    context.output.show(&data, || made.token.clone())?;
    if context.output.is_table() {
        talk(&format!(
            "\nValid until {}, once. Compare the root with the one you know, then on {host}, as root, type this, paste the token, and end with Ctrl-D:\n\n  fettle-agent join --controller {} --root {} --token-file -\n",
            time(made.expires_at),
            context.controller()?,
            visible(&made.root),
        ));
    }
    Ok(Exit::Done)
}

pub(super) async fn revoke(context: &Context, host: &str, reason: &str) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let request = v1::RevokeAgentRequest { host: host.to_owned(), reason: reason.to_owned() };
    let done = answer(context, calls.revoke_agent(request)).await?;
    context.output.show(
        &json!({ "host": host, "revoked": true, "was_connected": done.was_connected }),
        || {
            let end = if done.was_connected { "its connection is closed" } else { "it was not connected" };
            let runs = "its part in every run is cancelled, or waits for a person who looks: fettle status";
            format!("{} is revoked; {end}; {runs}", visible(host))
        },
    )?;
    Ok(Exit::Done)
}

fn labels(agent: &v1::Agent) -> String {
    let mut all: Vec<String> = agent.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    all.sort();
    all.join(" ")
}
