//! What sources posted in vain, so that people who miss an alert find out why: the sender's log is not theirs to read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::policy::Policy;
use crate::world::At;

/// The refused posts of each source since the last one that was taken in. Lost with a restart; the next refusal brings it back.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<BTreeMap<String, Refusal>>>);

#[derive(Clone, Debug)]
struct Refusal {
    at: At,
    times: u64,
    why: String,
}

impl Refusals {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A post of a source that showed its token was refused.
    pub(super) fn refused(&self, source: &str, at: At, why: String) {
        let mut kept = self.kept();
        let times = kept.get(source).map_or(0, |before| before.times).saturating_add(1);
        kept.insert(source.to_owned(), Refusal { at, times, why });
    }

    /// A post of it was taken in: whatever was wrong is right.
    pub(super) fn taken(&self, source: &str) {
        self.kept().remove(source);
    }

    /// One sentence for each source of the policy that is refused now.
    pub fn sentences(&self, policy: &Policy) -> Vec<String> {
        let kept = self.kept();
        let known = kept.iter().filter(|(source, _)| policy.sources.contains_key(*source));
        let each = known.map(|(source, Refusal { at, times, why })| match times {
            1 => format!("the last post of source `{source}` was refused, at {at}: {why}"),
            _ => {
                format!("the last {times} posts of source `{source}` were refused, the newest at {at}: {why}")
            }
        });
        each.collect()
    }
}
