//! `fettle plan`: diagnose and show what remediation would do, or the plan of a run that exists.

use fettle_proto::v1;
use fettle_runbooks::id::RunId;

use super::run::plans;
use super::start::start;
use super::watch::{Show, follow};
use crate::args;
use crate::client::{answer, connect};
use crate::config::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::talk;
use crate::people::{Until, terminal};
use crate::view;

pub(super) async fn run(context: &Context, args: &args::Plan) -> Result<Exit> {
    let existing = args.what.runbook.as_deref().filter(|name| name.parse::<RunId>().is_ok());
    let (mut calls, id, exit) = match existing {
        Some(id) if args.what.hosts.is_empty() && args.what.inputs.is_empty() => {
            (connect(context).await?, id.to_owned(), Exit::Done)
        }
        Some(_) => {
            return Err(Error::usage("a run has its hosts and inputs already").fix("leave out --host and -i"));
        }
        None => {
            let (mut calls, run) = start(context, &args.what, Until::Plan).await?;
            let id = run.to_string();
            talk(&format!("started {id}; it stops at the plan"));
            // Events are talk here: the plan is the data.
            let quiet = context.aside();
            let exit = follow(&quiet, &mut calls, &id, 0, Show::Events).await?;
            (calls, id, exit)
        }
    };
    let run = answer(context, calls.get_run(v1::GetRunRequest { run: id })).await?;
    context.output.show(&view::run(&run), || plans(&context.output, &run, terminal::width()))?;
    Ok(exit)
}
