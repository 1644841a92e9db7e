//! Puts a changed policy in force without a restart.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::Handle;
use crate::policy::{PolicyProblem, read};

/// How often the directory is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// What tells that a file changed: its length, and when it was last written.
type Look = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

fn look(directory: &Path) -> Look {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let metadata = fs::metadata(entry.path()).ok()?;
            Some((entry.path(), (metadata.len(), metadata.modified().ok())))
        })
        .collect()
}

/// Looks at the directory again and again, and hands every change to the coordinator. A policy with problems is not put
/// in force: the one before stays, and the problems become warnings of the status. Ends with `stop`.
pub async fn watch_policy(directory: PathBuf, handle: Handle, stop: CancellationToken) {
    let mut seen = None;
    loop {
        let now = look(&directory);
        if seen.as_ref() != Some(&now) {
            seen = Some(now);
            let read_from = directory.clone();
            match tokio::task::spawn_blocking(move || read(&read_from)).await {
                Ok(Ok(policy)) => handle.set_policy(Arc::new(policy), Vec::new()).await,
                Ok(Err(problems)) => {
                    let warnings: Vec<String> = problems.iter().map(sentence).collect();
                    for warning in &warnings {
                        tracing::warn!(%warning, "The policy was not put in force.");
                    }
                    handle.set_policy(handle.policy(), warnings).await;
                }
                Err(_) => return,
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

fn sentence(problem: &PolicyProblem) -> String {
    match std::error::Error::source(problem) {
        Some(source) => format!("policy not put in force: {problem}: {source}"),
        None => format!("policy not put in force: {problem}"),
    }
}
