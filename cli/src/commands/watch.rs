//! `fettle watch`: what happened to a run, then what happens, live.

use std::collections::BTreeSet;

use fettle_proto::v1::{self, run_event::What};
use serde_json::{Value, json};

use super::stop;
use crate::args;
use crate::client::{Operators, connect, explain};
use crate::config::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::{Output, Tone, named, talk, time, time_json, visible, visible_lines};
use crate::view;

pub(super) async fn run(context: &Context, args: &args::Watch) -> Result<Exit> {
    let mut calls = connect(context).await?;
    follow(
        context,
        &mut calls,
        &args.run,
        args.after,
        if args.quiet { Show::Events } else { Show::Everything },
    )
    .await
}

/// How much of a run is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// What happens.
    Events,
    /// And what the steps print.
    Everything,
}

/// A run that stands still until a person looks has said everything once it has been silent for so long.
const SILENCE: std::time::Duration = std::time::Duration::from_millis(500);

/// How often a broken stream is opened again, at most.
const RETRIES: u32 = 5;

/// One that lived for so long was a good one, whatever it said.
const QUIET: std::time::Duration = std::time::Duration::from_secs(10);

/// Follows a run to its end and answers with its exit. Ctrl-C detaches: the run goes on.
pub(crate) async fn follow(
    context: &Context,
    calls: &mut Operators,
    run: &str,
    after: u64,
    show: Show,
) -> Result<Exit> {
    let mut seen = after;
    let mut last: Option<v1::Run> = None;
    let mut broken = 0;
    loop {
        let request = v1::WatchRunRequest { run: run.to_owned(), after: seen };
        let opened = tokio::select! {
            opened = tokio::time::timeout(context.timeout, calls.watch_run(request)) => opened,
            _ = tokio::signal::ctrl_c() => return Ok(detached(run, seen)),
        };
        let why = match opened {
            Ok(Ok(stream)) => {
                let mut stream = stream.into_inner();
                let opened = tokio::time::Instant::now();
                let why = loop {
                    let still = last.as_ref().filter(|run| stop::stands_still(run));
                    let next = tokio::select! {
                        next = stream.message() => next,
                        () = tokio::time::sleep(SILENCE), if still.is_some() => {
                            return Ok(still.map_or(Exit::Resolve, stands_still));
                        }
                        _ = tokio::signal::ctrl_c() => return Ok(detached(run, seen)),
                    };
                    match next {
                        Ok(Some(event)) => {
                            // A stream that says only what it has said before is as broken as none.
                            if event.number > seen || matches!(event.what, Some(What::Output(_))) {
                                broken = 0;
                            }
                            seen = seen.max(event.number);
                            if let Some(What::Run(run)) = &event.what {
                                last = Some(run.clone());
                            }
                            print(&context.output, &event, show)?;
                        }
                        Ok(None) => match &last {
                            Some(run)
                                if run.hosts.iter().all(|host| host.state == "ended")
                                    && !run.hosts.is_empty() =>
                            {
                                return Ok(ended(run));
                            }
                            Some(run) if run.ended_at != 0 => {
                                break Error::new(Exit::Unreachable, "the controller ended the stream")
                                    .why("it told of no end of the run that this fettle knows");
                            }
                            Some(_) | None => {
                                break Error::new(Exit::Unreachable, "the controller ended the stream");
                            }
                        },
                        Err(status) => break explain(context, status),
                    }
                };
                // A run may be quiet for hours, at a gate say, and its streams break now and then.
                if opened.elapsed() >= QUIET {
                    broken = 0;
                }
                why
            }
            Ok(Err(status)) => explain(context, status),
            Err(_) => Error::new(Exit::Unreachable, "the controller did not answer in time"),
        };
        broken += 1;
        // What else is wrong says by itself what comes next.
        if why.exit() != Exit::Unreachable {
            return Err(why);
        }
        if broken > RETRIES {
            return Err(why.next(format!("fettle watch {run} --after {seen}")));
        }
        talk(&format!("lost the controller; trying again ({broken} of {RETRIES})"));
        tokio::time::sleep(std::time::Duration::from_millis(250 * u64::from(broken))).await;
    }
}

fn detached(run: &str, seen: u64) -> Exit {
    talk(&format!("\ndetached; the run goes on. Come back with: fettle watch {run} --after {seen}"));
    Exit::Pending
}

fn stands_still(run: &v1::Run) -> Exit {
    talk(&format!("{}: {}\n{}", visible(&run.id), Exit::Resolve.meaning(), stop::waiting(run)));
    Exit::Resolve
}

fn ended(run: &v1::Run) -> Exit {
    let exit = Exit::of_run(&run.hosts);
    let endings: BTreeSet<&str> = run.hosts.iter().map(|host| host.ending.as_str()).collect();
    let how = match endings.first() {
        Some(ending) if endings.len() == 1 && exit != Exit::Done => named(ending),
        Some(_) | None => exit.meaning().into(),
    };
    let mut said = format!("{}: {how}", run.id);
    if exit != Exit::Done {
        said.push_str(&format!("\n  fettle run show {0}\n  fettle logs {0}", run.id));
        super::run::further(run).iter().for_each(|next| said.push_str(&format!("\n  {next}")));
    }
    talk(&visible_lines(&said));
    exit
}

fn print(out: &Output, event: &v1::RunEvent, show: Show) -> Result<()> {
    match &event.what {
        Some(What::Output(_)) if show == Show::Events => Ok(()),
        // People have read the events that led here; programs want the state.
        Some(What::Run(_)) if out.is_table() => Ok(()),
        what => out.line(&data(event, what.as_ref()), || line(out, event, what.as_ref())),
    }
}

fn data(event: &v1::RunEvent, what: Option<&What>) -> Value {
    let mut value = match what {
        Some(What::Happened(happened)) => {
            json!({ "kind": happened.kind, "who": happened.who, "text": happened.text })
        }
        Some(What::Output(chunk)) => json!({
            "kind": "output", "path": chunk.path, "attempt": chunk.attempt, "stream": stream(chunk),
            "offset": chunk.offset, "text": String::from_utf8_lossy(&chunk.data),
        }),
        Some(What::Run(run)) => json!({ "kind": "run", "run": view::run(run) }),
        None => json!({ "kind": "unknown" }),
    };
    if let Some(object) = value.as_object_mut() {
        object.insert("number".to_owned(), json!(event.number));
        object.insert("at".to_owned(), time_json(event.at));
        object.insert("host".to_owned(), json!(event.host));
    }
    value
}

fn line(out: &Output, event: &v1::RunEvent, what: Option<&What>) -> String {
    let at_its_time = |text: &str| {
        let clock = time(event.at);
        let clock = clock.split_once(' ').map_or(clock.as_str(), |(_, clock)| clock);
        let host = if event.host.is_empty() { "-" } else { &event.host };
        // Indented, so that no line of a text from outside passes for an event.
        let text = visible_lines(text).replace('\n', "\n           ");
        format!("{}  {}  {text}", out.paint(Tone::Dim, clock), visible(host))
    };
    match what {
        Some(What::Happened(happened)) => {
            let by = happened.who.strip_prefix("person ").map(|name| format!("{name}: ")).unwrap_or_default();
            at_its_time(&format!("{by}{}", happened.text))
        }
        None => at_its_time("something happened that this fettle does not know"),
        Some(What::Output(chunk)) => {
            let text = String::from_utf8_lossy(&chunk.data).into_owned();
            let mark = match stream(chunk) {
                "stdout" => "|",
                "stderr" => "!",
                _ => "?",
            };
            let at = format!("{} {} {mark}", event.host, chunk.path);
            text.trim_end_matches('\n')
                .split('\n')
                .map(|line| format!("{} {}", out.paint(Tone::Dim, &at), visible(line)))
                .collect::<Vec<_>>()
                .join("\n")
        }
        Some(What::Run(run)) => format!("{} {}", visible(&run.id), visible(&run.runbook)),
    }
}

fn stream(chunk: &v1::OutputChunk) -> &'static str {
    match chunk.kind() {
        v1::OutputKind::Stderr => "stderr",
        v1::OutputKind::Stdout => "stdout",
        v1::OutputKind::Unspecified => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn lines_say_when_where_and_what_and_never_move_the_cursor() {
        let out = Output::plain(Format::Table);
        let happened = v1::RunEvent {
            number: 1,
            at: 1_600_000_000_000,
            host: "web-1".into(),
            what: Some(What::Happened(v1::Happened {
                kind: "step-started".into(),
                text: "diagnose/port starts\n12:26:41Z  -  approved".into(),
                who: "host web-1".into(),
            })),
        };
        let output = v1::RunEvent {
            host: "web-1".into(),
            what: Some(What::Output(v1::OutputChunk {
                path: "diagnose/port".into(),
                kind: v1::OutputKind::Stderr.into(),
                data: b"one\r\ntwo\x1b[2J\n".as_slice().into(),
                ..Default::default()
            })),
            ..Default::default()
        };
        // Of a newer controller: another kind of output, another kind of event.
        let newer = v1::OutputChunk {
            path: "diagnose/port".into(),
            kind: 9,
            data: "three".into(),
            ..Default::default()
        };
        let newer = v1::RunEvent { what: Some(What::Output(newer)), ..output.clone() };
        let nothing = v1::RunEvent { what: None, ..happened.clone() };
        let text: Vec<String> =
            [&happened, &output, &newer, &nothing].map(|event| line(&out, event, event.what.as_ref())).into();
        insta::assert_snapshot!(text.join("\n"), @r"
        12:26:40Z  web-1  diagnose/port starts
                   12:26:41Z  -  approved
        web-1 diagnose/port ! one\r
        web-1 diagnose/port ! two\u{1b}[2J
        web-1 diagnose/port ? three
        12:26:40Z  web-1  something happened that this fettle does not know
        ");
    }
}
