//! `fettle start`: fetch, bind, sign, start, watch.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;

use fettle_proto::v1;
use fettle_runbooks::id::{Digest, Host, RunId};
use fettle_runbooks::runbook::Runbook;
use serde_json::json;

use super::watch::{Show, follow};
use crate::args::{self, What};
use crate::client::{Operators, answer, connect};
use crate::config::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::{talk, visible};
use crate::people::{self, StartWanted, Until};

/// The largest runbook that is read, bytes.
const LARGEST: u64 = 1024 * 1024;

pub(super) async fn run(context: &Context, args: &args::Start) -> Result<Exit> {
    let (mut calls, run) = start(context, &args.what, Until::End).await?;
    let id = run.to_string();
    if args.detach {
        context.output.show(&json!({ "run": id }), || id.clone())?;
        if context.output.is_table() {
            talk(&format!("started; follow it with: fettle watch {id}"));
        }
        return Ok(Exit::Done);
    }
    talk(&format!("started {id}; Ctrl-C detaches, the run goes on"));
    follow(context, &mut calls, &id, 0, Show::Everything).await
}

/// Starts a run and answers with its id once the controller has it.
pub(super) async fn start(context: &Context, what: &What, until: Until) -> Result<(Operators, RunId)> {
    let hosts = hosts(&what.hosts)?;
    let given = inputs(&what.inputs)?;
    let own = what.file.as_deref().map(|file| read_file(file).map(|bytes| (file, bytes))).transpose()?;
    if let Some((file, bytes)) = &own {
        bind(&check(&file.display().to_string(), bytes)?, &given)?;
    }
    let mut calls = connect(context).await?;
    let (runbook, carried) = match own {
        Some((file, bytes)) => {
            let runbook = check(&file.display().to_string(), &bytes)?;
            talk(&format!(
                "{} is not of the library and not certified: every remediate step counts as critical",
                file.display()
            ));
            (runbook, bytes)
        }
        None => {
            let name = what.runbook.clone().unwrap_or_default();
            let got = answer(context, calls.get_runbook(v1::GetRunbookRequest { runbook: name.clone() }));
            let got = got.await.map_err(|error| {
                if error.exit() == Exit::NotFound { error.next("fettle runbook list") } else { error }
            })?;
            let runbook = check(&name, &got.bytes)?;
            if runbook.name() != name {
                return Err(Error::new(
                    Exit::Failed,
                    format!("asked for `{name}`, was given `{}`", runbook.name()),
                ));
            }
            (runbook, Vec::new())
        }
    };
    bind(&runbook, &given)?;
    let run = RunId::new(uuid::Uuid::now_v7());
    let digest: Digest = runbook.digest();
    let wanted = StartWanted {
        run,
        runbook: runbook.name().to_owned(),
        runbook_digest: digest,
        inputs: given,
        hosts,
        until,
        of: None,
    };
    let signed = people::sign_start(context, &wanted).await?;
    let request = v1::StartRunRequest { start: Some(signed), runbook: carried.into() };
    let reply = send(context, &mut calls, request).await?;
    if reply.run != run.to_string() {
        return Err(Error::new(Exit::Failed, "the controller answered with another run's id").why(reply.run));
    }
    Ok((calls, run))
}

/// Sends a start; when the answer is lost, sends the very same again: the id makes it one run.
pub(super) async fn send(
    context: &Context,
    calls: &mut Operators,
    request: v1::StartRunRequest,
) -> Result<v1::StartRunReply> {
    match answer(context, calls.start_run(request.clone())).await {
        Err(error) if error.exit() == Exit::Unreachable => {
            talk("no answer; asking again (the same start is never carried out twice)");
            answer(context, calls.start_run(request)).await
        }
        other => other,
    }
}

fn hosts(given: &[String]) -> Result<Vec<String>> {
    if given.is_empty() {
        return Err(Error::usage("no host is given").fix("add --host HOST").next("fettle agent list"));
    }
    let mut hosts = BTreeSet::new();
    for host in given {
        let host: Host = host.parse().map_err(|error| {
            Error::usage("this cannot be a host's name").because(&error).next("fettle agent list")
        })?;
        hosts.insert(host.to_string());
    }
    Ok(hosts.into_iter().collect())
}

fn inputs(given: &[(String, String)]) -> Result<BTreeMap<String, String>> {
    let mut inputs = BTreeMap::new();
    for (name, value) in given {
        if inputs.insert(name.clone(), value.clone()).is_some() {
            return Err(Error::usage(format!("the input `{name}` is given twice")).fix("give it once"));
        }
    }
    Ok(inputs)
}

/// Checks the inputs here, so that a mistake is told at once and with a suggestion.
fn bind(runbook: &Runbook, given: &BTreeMap<String, String>) -> Result<()> {
    fettle_runbooks::input::bind(runbook.inputs(), given).map(drop).map_err(|problems| {
        let mut error = Error::usage(format!("the inputs do not fit `{}`", runbook.name()));
        for problem in problems {
            error = error.why(problem);
        }
        let declared: Vec<String> = runbook
            .inputs()
            .iter()
            .map(|(name, input)| match &input.default {
                Some(default) => format!("{name} (default {})", visible(default)),
                None => format!("{name} (required)"),
            })
            .collect();
        if declared.is_empty() {
            error.fix("it takes none; leave out -i")
        } else {
            error.fix(format!("its inputs: {}", declared.join(", ")))
        }
    })
}

/// Reads a runbook's bytes; a problem is rendered with its line and caret.
pub(crate) fn check(name: &str, bytes: &[u8]) -> Result<Runbook> {
    fettle_runbooks::read(bytes).map(|read| read.runbook).map_err(|problems| {
        let color =
            std::env::var_os("NO_COLOR").is_none() && std::io::IsTerminal::is_terminal(&std::io::stderr());
        talk(fettle_runbooks::problem::render(name, bytes, &problems, color).trim_end());
        Error::usage("the runbook has problems")
            .at(name)
            .why(format!("{} of them, shown above", problems.len()))
    })
}

/// Reads a runbook file; `-` is stdin.
pub(super) fn read_file(file: &Path) -> Result<Vec<u8>> {
    let failed =
        |error: std::io::Error| Error::usage("failed to read the runbook").at(file.display()).because(&error);
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        std::fs::File::open(file)
            .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
            .map_err(failed)?;
    }
    if bytes.len() as u64 > LARGEST {
        return Err(Error::usage("the runbook is larger than 1 MiB").at(file.display()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_named_once_each_and_must_be_names() {
        let given = |all: &[&str]| hosts(&all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
        assert_eq!(given(&["b", "a", "b"]), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(given(&[]).map_err(|it| it.exit()), Err(Exit::Usage));
        assert_eq!(given(&["web 1; rm"]).map_err(|it| it.exit()), Err(Exit::Usage));
    }

    #[test]
    fn an_input_given_twice_is_a_mistake() {
        let twice = [("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
        assert_eq!(inputs(&twice).map_err(|it| it.exit()), Err(Exit::Usage));
    }
}
