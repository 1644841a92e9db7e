//! Learns anew how late alerts are, when the files of Prometheus change.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fettle_runbooks::detect::Monitoring;
use tokio_util::sync::CancellationToken;

use super::Handle;
use crate::policy::{Learn, Policy};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// What tells that a file changed: its length, and when it was last written.
type Look = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

/// The rules of every source, as they were last read.
#[derive(Default)]
pub(crate) struct RulesWatch {
    sources: BTreeMap<String, Seen>,
}

struct Seen {
    learn: Learn,
    /// Absent while the files are wrong: then they are read again each time.
    look: Option<Look>,
    good: Option<Arc<Monitoring>>,
    wrongs: Vec<String>,
}

impl RulesWatch {
    /// Reads what has changed. What is wrong is not put in force: what was read before stays.
    pub(crate) fn read(&mut self, policy: &Policy) {
        self.sources.retain(|name, _| policy.sources.get(name).is_some_and(|source| source.learn.is_some()));
        for (name, source) in &policy.sources {
            let Some(learn) = &source.learn else { continue };
            let seen = self.sources.entry(name.clone()).or_insert_with(|| Seen::new(learn));
            if seen.learn != *learn {
                *seen = Seen::new(learn);
            }
            seen.read(name);
        }
    }

    /// Puts what was read in force.
    pub(crate) fn apply(&self, handle: &Handle) {
        let good = self.sources.iter().filter_map(|(name, seen)| Some((name.clone(), seen.good.clone()?)));
        let warnings = self.warnings().cloned().collect();
        handle.set_rules(Arc::new(good.collect()), warnings);
    }

    /// What is wrong, in sentences.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = &String> {
        self.sources.values().flat_map(|seen| &seen.wrongs)
    }

    /// What there is to see of it.
    fn state(&self) -> Vec<(String, Option<Look>, Vec<String>)> {
        let seen = self.sources.iter();
        seen.map(|(name, seen)| (name.clone(), seen.look.clone(), seen.wrongs.clone())).collect()
    }

    /// Looks at the files again and again. Ends with `stop`.
    pub(crate) async fn watch(mut self, handle: Handle, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            let (policy, before) = (handle.policy(), self.state());
            let read = tokio::task::spawn_blocking(move || {
                self.read(&policy);
                self
            });
            match read.await {
                Ok(read) => self = read,
                Err(_) => return,
            }
            if self.state() != before {
                self.warnings()
                    .for_each(|warning| tracing::warn!(%warning, "Rule files were not put in force."));
                self.apply(&handle);
            }
        }
    }
}

impl Seen {
    fn new(learn: &Learn) -> Seen {
        Seen { learn: learn.clone(), look: None, good: None, wrongs: Vec::new() }
    }

    fn read(&mut self, source: &str) {
        let look = self.good.as_ref().map(|good| look(&self.learn, good));
        if look.is_some() && look == self.look {
            return;
        }
        match self.learn.read() {
            Ok(good) => {
                // Taken before the files were read: what changes in between is read once more.
                self.look = look.or_else(|| Some(self::look(&self.learn, &good)));
                self.good = Some(Arc::new(good));
                self.wrongs.clear();
            }
            Err(wrongs) => {
                let stays = match self.good {
                    Some(_) => "what was read before stays in force",
                    None => "onsets are not learnt",
                };
                self.look = None;
                self.wrongs = wrongs
                    .iter()
                    .map(|wrong| format!("rules of source `{source}`: {wrong}; {stays}"))
                    .collect();
            }
        }
    }
}

/// How the files look that it was read from, and those that would be read with them now.
fn look(learn: &Learn, read: &Monitoring) -> Look {
    let patterns = read.patterns().chain(learn.rules.iter().map(PathBuf::as_path));
    let files = Learn::matching(patterns).into_iter().chain(read.files().map(Path::to_owned));
    files
        .map(|path| {
            let metadata = fs::metadata(&path).ok();
            let seen = metadata.map_or((0, None), |metadata| (metadata.len(), metadata.modified().ok()));
            (path, seen)
        })
        .collect()
}
