//! What sources posted in vain, so that people who miss an alert find out why: the sender's log is not theirs to read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::policy::Policy;
use crate::world::At;

/// So long after the last refusal nobody need be told of it any more, where posts are taken in since.
const TOLD_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The refused posts of each source, until others are taken in and a day has passed. Lost with a restart; the next refusal brings
/// it back.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<BTreeMap<String, Refusal>>>);

#[derive(Clone, Debug)]
struct Refusal {
    at: At,
    times: u64,
    taken: u64,
    why: String,
}

impl Refusals {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A post of a source that showed its token was refused.
    pub(super) fn refused(&self, source: &str, at: At, why: String) {
        let mut kept = self.kept();
        let before = kept.get(source).filter(|before| before.taken == 0);
        let times = before.map_or(0, |before| before.times).saturating_add(1);
        kept.insert(source.to_owned(), Refusal { at, times, taken: 0, why });
    }

    /// A post of it was taken in. That does not make the refused one right: a source may post several kinds of bodies.
    pub(super) fn taken(&self, source: &str) {
        if let Some(refusal) = self.kept().get_mut(source) {
            refusal.taken = refusal.taken.saturating_add(1);
        }
    }

    /// One sentence for each source of the policy that was refused lately.
    pub fn sentences(&self, policy: &Policy, now: At) -> Vec<String> {
        let mut kept = self.kept();
        kept.retain(|_, refusal| refusal.taken == 0 || now < refusal.at.plus(TOLD_FOR));
        let known = kept.iter().filter(|(source, _)| policy.sources.contains_key(*source));
        let each = known.map(|(source, Refusal { at, times, taken, why })| match (times, taken) {
            (1, 0) => format!("the last post of source `{source}` was refused, at {at}: {why}"),
            (_, 0) => {
                format!("the last {times} posts of source `{source}` were refused, the newest at {at}: {why}")
            }
            (_, _) => {
                format!(
                    "a post of source `{source}` was refused at {at}; taken in since: {taken}; why: {why}"
                )
            }
        });
        each.collect()
    }
}
