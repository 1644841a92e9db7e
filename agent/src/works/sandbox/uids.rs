//! A user of its own for each step, so that a step can do nothing to another, nor to anybody else.

use std::collections::BTreeSet;
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

/// Above what distributions and systemd give away (up to 65535), below where containers begin (100000). The page on security
/// names it, for whoever hands out users on a host.
pub(crate) const RANGE: RangeInclusive<u32> = 70_000..=70_999;

/// The users that may be taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    taken: BTreeSet<u32>,
    /// The last one that was taken: the next comes after it, so that a number rests before it is used again.
    last: Option<u32>,
}

/// One that is taken, until it is dropped.
#[derive(Debug)]
pub(in crate::works) struct Uid {
    number: u32,
    pool: Pool,
}

impl Uid {
    pub(in crate::works) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Uid {
    fn drop(&mut self) {
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).taken.remove(&self.number);
    }
}

impl Pool {
    /// Takes one that is neither a user nor a group of this host.
    pub(super) fn take(&self) -> io::Result<Uid> {
        let known = known()?;
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, count) = (*RANGE.start(), RANGE.end() - RANGE.start() + 1);
        // Two agents on one host should not begin at the same one.
        let last = held.last.unwrap_or(first + std::process::id() % count);
        let next = (1..=count).map(|step| first + (last - first + step) % count);
        let free = next.into_iter().find(|uid| !held.taken.contains(uid) && !known.contains(uid));
        let number = free.ok_or_else(|| {
            io::Error::other(format!("all users from {} to {} are taken", RANGE.start(), RANGE.end()))
        })?;
        held.taken.insert(number);
        held.last = Some(number);
        drop(held);
        Ok(Uid { number, pool: self.clone() })
    }
}

/// Numbers of the range that mean somebody on this host.
fn known() -> io::Result<BTreeSet<u32>> {
    let mut known = BTreeSet::new();
    for file in ["/etc/passwd", "/etc/group"] {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let numbers = text.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok());
        known.extend(numbers.filter(|number| RANGE.contains(number)));
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_documented() {
        let page = include_str!("../../../../docs/security.md");
        let range = format!("one from {} to {} that is nobody's", RANGE.start(), RANGE.end());
        assert!(page.contains(&range), "{range}");
    }

    #[test]
    fn no_two_steps_have_the_same_user_and_a_number_rests_before_it_comes_again() {
        let pool = Pool::default();
        let first = pool.take().unwrap();
        let second = pool.take().unwrap();
        assert_ne!(first.number(), second.number());
        let number = first.number();
        drop(first);
        assert_ne!(pool.take().unwrap().number(), number);
        assert!(RANGE.contains(&number));
    }

    #[test]
    fn a_thousand_steps_at_once_is_the_limit_and_is_said() {
        let pool = Pool::default();
        let all: Vec<Uid> = RANGE.map_while(|_| pool.take().ok()).collect();
        let refused = pool.take().unwrap_err();
        assert!(refused.to_string().contains("are taken"), "{refused}");
        drop(all);
        pool.take().unwrap();
    }
}
