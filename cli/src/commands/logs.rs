//! `fettle logs`

use fettle_proto::v1;
use serde_json::json;

use crate::args;
use crate::client::{answer, connect};
use crate::config::Context;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Tone, print, talk, visible_lines};

pub(super) async fn run(context: &Context, args: &args::Logs) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let request = v1::GetLogsRequest {
        run: args.run.clone(),
        host: args.host.clone().unwrap_or_default(),
        path: args.step.clone().unwrap_or_default(),
    };
    let steps = answer(context, calls.get_logs(request)).await?.steps;
    if !context.output.is_table() {
        let data: Vec<_> = steps
            .iter()
            .map(|step| {
                json!({
                    "host": step.host, "path": step.path, "attempt": step.attempt,
                    "stdout": step.stdout.as_ref().map(data), "stderr": step.stderr.as_ref().map(data),
                })
            })
            .collect();
        context.output.list(&data, || crate::output::Table::new(&[], ""))?;
        return Ok(Exit::Done);
    }
    if steps.is_empty() {
        talk("no step has printed anything yet");
    }
    for step in &steps {
        print(
            &context
                .output
                .paint(Tone::Strong, &format!("── {} {} (attempt {})", step.host, step.path, step.attempt)),
        )?;
        for (name, kept) in [("stdout", &step.stdout), ("stderr", &step.stderr)] {
            let Some(kept) = kept else { continue };
            let text = text(kept);
            if !text.is_empty() {
                print(&context.output.paint(Tone::Dim, name))?;
                print(&visible_lines(text.trim_end_matches('\n')))?;
            }
        }
    }
    Ok(Exit::Done)
}

/// What was kept, with the gap named.
fn text(kept: &v1::Kept) -> String {
    let head = String::from_utf8_lossy(&kept.head).into_owned();
    let tail = String::from_utf8_lossy(&kept.tail);
    match kept.dropped {
        0 => head + &tail,
        dropped => format!("{head}\n[{dropped} bytes not kept]\n{tail}"),
    }
}

fn data(kept: &v1::Kept) -> serde_json::Value {
    json!({ "text": text(kept), "dropped_bytes": kept.dropped })
}
