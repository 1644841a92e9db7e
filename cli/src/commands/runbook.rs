//! `fettle runbook list|show`

use fettle_proto::v1;
use serde_json::json;

use crate::client::{answer, connect};
use crate::config::Context;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Table, Tone, print_bytes, talk, visible, visible_lines};
use crate::view;

pub(super) async fn list(context: &Context) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let library = answer(context, calls.list_runbooks(v1::ListRunbooksRequest {})).await?;
    let data: Vec<_> = library.runbooks.iter().map(view::runbook).collect();
    context.output.list(&data, || {
        let mut table = Table::new(
            &["RUNBOOK", "CERTIFIED", "OWNER", "DIGEST", "STARTED BY", "TITLE"],
            "the library is empty; put runbooks into the folder of the controller's `library:`",
        );
        for runbook in &library.runbooks {
            table.row([
                runbook.name.clone(),
                if runbook.certified { "yes" } else { "no" }.to_owned(),
                runbook.owner.clone(),
                view::short(&runbook.digest),
                if runbook.triggers.is_empty() { "people".to_owned() } else { runbook.triggers.join(", ") },
                runbook.title.clone(),
            ]);
        }
        table
    })?;
    let mut refused: Vec<_> = library.refused.iter().collect();
    refused.sort();
    for (file, problems) in refused {
        talk(&format!("\nrefused: {}\n{}", visible(file), visible_lines(problems)));
    }
    Ok(Exit::Done)
}

pub(super) async fn show(context: &Context, name: &str, source: bool) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let request = v1::GetRunbookRequest { runbook: name.to_owned() };
    let runbook = answer(context, calls.get_runbook(request)).await?;
    if source && context.output.is_table() {
        print_bytes(&runbook.bytes)?;
        return Ok(Exit::Done);
    }
    let mut data = view::runbook(&runbook);
    if let Some(object) = data.as_object_mut() {
        object.insert("source".to_owned(), json!(String::from_utf8_lossy(&runbook.bytes)));
    }
    context.output.show(&data, || {
        let out = &context.output;
        let certified = if runbook.certified {
            out.paint(Tone::Good, "certified")
        } else {
            out.paint(Tone::Warn, "not certified: every remediate step counts as critical")
        };
        let mut text = format!(
            "{}  {certified}\n  {}\n  owner:   {}\n  digest:  {}",
            out.paint(Tone::Strong, &runbook.name),
            visible(&runbook.title),
            visible(&runbook.owner),
            view::digest(&runbook.digest).as_str().unwrap_or("-"),
        );
        for trigger in &runbook.triggers {
            text.push_str(&format!("\n  on:      {}", visible(trigger)));
        }
        text.push_str(&format!("\n\n{}", visible_lines(&String::from_utf8_lossy(&runbook.bytes))));
        text
    })?;
    Ok(Exit::Done)
}
