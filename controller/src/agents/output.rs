//! Live output of running steps. Best effort: it is handed on at once or dropped, and never waits for a watcher.

use std::sync::Arc;

use fettle_proto::v1;
use tonic::Streaming;

use super::{Answers, Caller, Fleet, Shared, answering, refusal};
use crate::tasks::TaskKind;

/// Bytes an agent may have under way.
const WINDOW: u64 = 256 * 1024;
/// Credit is given back in pieces of this size, so that small chunks do not cost a message each.
const PIECE: u64 = 64 * 1024;

pub(super) fn start<F: Fleet>(
    shared: &Arc<Shared<F>>,
    caller: Caller,
    mut chunks: Streaming<v1::OutputChunk>,
) -> Answers<v1::OutputReply> {
    let fleet = shared.parts.fleet.clone();
    answering(&shared.parts.tasks, TaskKind::AgentOutput, |answers| async move {
        let mut owed = WINDOW;
        let mut credit = 0;
        loop {
            if owed >= PIECE {
                if answers.send(Box::new(Ok(v1::OutputReply { credit_bytes: owed }))).await.is_err() {
                    return Ok(());
                }
                credit += owed;
                owed = 0;
            }
            let next = tokio::select! {
                next = chunks.message() => next?,
                () = caller.peer.ending.cancelled() => return Err(refusal::certificate_ended()),
                () = answers.closed() => return Ok(()),
            };
            let Some(chunk) = next else {
                return Ok(());
            };
            // Who sends more than it was given room for would fill the memory of everybody's watchers.
            let size = chunk.data.len() as u64;
            if size > credit || size > PIECE {
                return Err(refusal::over_credit());
            }
            credit -= size;
            owed += size;
            fleet.output(caller.identity.host.clone(), chunk);
        }
    })
}
