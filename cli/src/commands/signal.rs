//! `fettle signal …`

use std::io::Read as _;
use std::path::Path;

use fettle_proto::v1;

use crate::client::{answer, connect};
use crate::config::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::{Output, Table, Tone, time, visible};
use crate::view;

/// The largest body a source may post, bytes.
const LARGEST: u64 = 1024 * 1024;

pub(super) async fn list(context: &Context, limit: u32) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let signals = answer(context, calls.list_signals(v1::ListSignalsRequest { limit })).await?.signals;
    let data: Vec<_> = signals.iter().map(view::signal).collect();
    context.output.list(&data, || {
        let mut table =
            Table::new(&["SIGNAL", "RECEIVED", "STATUS", "NAME", "HOST", "RUN"], "no signals yet");
        for signal in &signals {
            table.row([
                signal.id.clone(),
                time(signal.received_at),
                signal.status.clone(),
                signal.name.clone(),
                if signal.host.is_empty() { "-".into() } else { signal.host.clone() },
                if signal.run.is_empty() { "-".into() } else { signal.run.clone() },
            ]);
        }
        table
    })?;
    Ok(Exit::Done)
}

pub(super) async fn explain(context: &Context, signal: &str) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let request = v1::ExplainSignalRequest { signal: signal.to_owned() };
    let signal = answer(context, calls.explain_signal(request)).await?;
    context.output.show(&view::signal(&signal), || trail(&context.output, &signal))?;
    Ok(Exit::Done)
}

pub(super) async fn test(context: &Context, file: &Path, source: &str) -> Result<Exit> {
    let body = read(file)?;
    let mut calls = connect(context).await?;
    let request = v1::TestSignalRequest { source: source.to_owned(), body: body.into() };
    let signals = answer(context, calls.test_signal(request)).await?.signals;
    if context.output.is_table() {
        let all: Vec<String> = signals.iter().map(|signal| trail(&context.output, signal)).collect();
        crate::output::print(&all.join("\n\n"))?;
        crate::output::talk("\nNothing was changed: this is what would happen.");
    } else {
        let data: Vec<_> = signals.iter().map(view::signal).collect();
        context.output.list(&data, || Table::new(&[], ""))?;
    }
    Ok(Exit::Done)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(LARGEST + 1).read_to_end(&mut body)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut body))
    };
    read.map_err(|error| Error::usage("failed to read the body").at(file.display()).because(&error))?;
    if body.len() as u64 > LARGEST {
        return Err(
            Error::usage("the body is larger than 1 MiB, which no source may post").at(file.display())
        );
    }
    Ok(body)
}

/// A signal and every decision about it.
fn trail(out: &Output, signal: &v1::Signal) -> String {
    let mut text = format!(
        "{}  {}  {}\n  source:    {}   fingerprint {}\n  started:   {}\n  received:  {}",
        out.paint(Tone::Strong, if signal.name.is_empty() { "(no alertname)" } else { &signal.name }),
        out.paint(Tone::of(&signal.status), &signal.status),
        visible(&signal.id),
        visible(&signal.source),
        visible(&signal.fingerprint),
        time(signal.starts_at),
        time(signal.received_at),
    );
    let mut labels: Vec<_> = signal.labels.iter().collect();
    labels.sort();
    for (name, value) in labels {
        text.push_str(&format!("\n  {} = {}", out.paint(Tone::Dim, name), visible(value)));
    }
    if !signal.trail.is_empty() {
        text.push('\n');
    }
    let width = signal.trail.iter().map(|it| visible(&it.asked).chars().count()).max().unwrap_or(0);
    for verdict in &signal.trail {
        let asked = visible(&verdict.asked);
        let pad = " ".repeat(width.saturating_sub(asked.chars().count()));
        let tone = Tone::of(&verdict.answer);
        text.push_str(&format!(
            "\n  {asked}{pad}  {}  {}",
            out.paint(tone, &format!("{:<4}", verdict.answer)),
            visible(&verdict.reason)
        ));
    }
    for (name, value) in [("incident", &signal.incident), ("run", &signal.run)] {
        if !value.is_empty() {
            text.push_str(&format!("\n  {name}: {}", visible(value)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn a_trail_gives_every_answer_with_its_reason() {
        let signal = v1::Signal {
            id: "sig_1".into(),
            source: "alertmanager".into(),
            fingerprint: "fc63".into(),
            status: "firing".into(),
            name: "HostServiceDown".into(),
            labels: [("instance".to_owned(), "web-1\u{1b}[2J".to_owned())].into(),
            trail: vec![
                v1::Verdict {
                    at: 1,
                    asked: "dedupe".into(),
                    answer: "yes".into(),
                    reason: "not seen before".into(),
                },
                v1::Verdict {
                    at: 1,
                    asked: "trigger host/disk-full".into(),
                    answer: "no".into(),
                    reason: "it waits for NodeFilesystemAlmostOutOfSpace".into(),
                },
            ],
            ..Default::default()
        };
        insta::assert_snapshot!(trail(&Output::plain(Format::Table), &signal), @r"
        HostServiceDown  firing  sig_1
          source:    alertmanager   fingerprint fc63
          started:   -
          received:  -
          instance = web-1\u{1b}[2J

          dedupe                  yes   not seen before
          trigger host/disk-full  no    it waits for NodeFilesystemAlmostOutOfSpace
        ");
    }
}
