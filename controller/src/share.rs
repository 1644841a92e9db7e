//! Places that are scarce, shared between those who want them.
//!
//! Nobody has a number of places of their own: where there is room, one address may have all of them, for behind it may be
//! a proxy, or a whole site. When there is none, a newcomer gets the oldest place of whoever has most: if that is more
//! than the newcomer has, or if that place was held for longer than anybody honest needs it. So a crowd from one address
//! costs that address, and nobody else more than a moment.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A number of places. Clones share them.
#[derive(Clone)]
pub struct Shares<K>(Arc<Inner<K>>);

struct Inner<K> {
    places: usize,
    patience: Duration,
    held: Mutex<Held<K>>,
}

struct Held<K> {
    /// The oldest first.
    by: HashMap<K, VecDeque<Holder>>,
    count: usize,
    number: u64,
}

struct Holder {
    number: u64,
    since: Instant,
    lost: CancellationToken,
}

/// One place, until it is dropped, or [lost](Place::lost) to somebody else.
pub struct Place<K: Eq + Hash> {
    of: Shares<K>,
    key: K,
    number: u64,
    lost: CancellationToken,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// So many places, of which one that was held for longer than `patience` may go to anybody.
    pub fn new(places: usize, patience: Duration) -> Shares<K> {
        let held = Held { by: HashMap::new(), count: 0, number: 0 };
        Shares(Arc::new(Inner { places, patience, held: Mutex::new(held) }))
    }

    /// A place for `key`. None: all are taken, and nobody is to lose one for this.
    pub fn take(&self, key: K) -> Option<Place<K>> {
        let now = Instant::now();
        let mut held = self.held();
        if held.count >= self.0.places {
            let own = held.by.get(&key).map_or(0, VecDeque::len);
            let most = held.by.iter().max_by_key(|(_, holders)| holders.len())?.0.clone();
            let holders = held.by.get_mut(&most)?;
            // Equal shares stay: two would else take one place from each other, over and over.
            let unequal = holders.len() > own + 1;
            let oldest = holders.front()?;
            if !unequal && now.duration_since(oldest.since) < self.0.patience {
                return None;
            }
            holders.pop_front()?.lost.cancel();
            if holders.is_empty() {
                held.by.remove(&most);
            }
            held.count -= 1;
        }
        held.number += 1;
        held.count += 1;
        let (number, lost) = (held.number, CancellationToken::new());
        held.by.entry(key.clone()).or_default().push_back(Holder { number, since: now, lost: lost.clone() });
        drop(held);
        Some(Place { of: self.clone(), key, number, lost })
    }
}

impl<K> Shares<K> {
    fn held(&self) -> MutexGuard<'_, Held<K>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Place<K> {
    /// Cancelled when somebody else has got the place.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut held = self.of.held();
        let Some(holders) = held.by.get_mut(&self.key) else { return };
        // Numbers only grow. What is not there was lost before.
        let Ok(at) = holders.binary_search_by_key(&self.number, |holder| holder.number) else { return };
        holders.remove(at);
        if holders.is_empty() {
            held.by.remove(&self.key);
        }
        held.count -= 1;
    }
}

/// Whom a connection counts for: an address, or the network that a host with IPv6 chooses its addresses from.
pub fn source_of(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn crowd(shares: &Shares<char>, key: char, times: usize) -> Vec<Place<char>> {
        (0..times).map_while(|_| shares.take(key)).collect()
    }

    fn kept(places: &[Place<char>]) -> usize {
        places.iter().filter(|place| !place.lost().is_cancelled()).count()
    }

    #[test]
    fn one_has_all_places_until_others_come_and_then_as_many_as_each_of_them() {
        let shares = Shares::new(9, LONG);
        let first = crowd(&shares, 'a', 20);
        assert_eq!(first.len(), 9);
        let second = crowd(&shares, 'b', 20);
        let third = crowd(&shares, 'c', 20);
        assert_eq!((kept(&first), kept(&second), kept(&third)), (3, 3, 3));
        // The oldest went first, and whoever came has stayed.
        assert!(!first[8].lost().is_cancelled() && first[0].lost().is_cancelled());
        assert!(shares.take('a').is_none());
        drop((second, third));
        assert_eq!(crowd(&shares, 'd', 20).len(), 6);
    }

    #[test]
    fn dropping_a_place_that_was_lost_frees_nobody_elses() {
        let shares = Shares::new(2, LONG);
        let first = crowd(&shares, 'a', 2);
        let second = shares.take('b').expect("a has two");
        drop(first);
        assert_eq!(crowd(&shares, 'c', 5).len(), 1);
        assert!(!second.lost().is_cancelled());
    }

    #[test]
    fn a_place_held_for_longer_than_patience_goes_to_whoever_comes() {
        let shares = Shares::new(2, Duration::ZERO);
        let first = crowd(&shares, 'a', 2);
        let second = crowd(&shares, 'a', 1);
        assert_eq!((kept(&first), kept(&second)), (1, 1));
    }

    #[test]
    fn a_host_counts_once_however_its_address_is_written() {
        let source = |text: &str| source_of(text.parse().expect("an address"));
        assert_eq!(source("[::ffff:192.0.2.7]:1"), source("192.0.2.7:2"));
        assert_eq!(source("[2001:db8:0:1::5]:1"), source("[2001:db8:0:1:ffff::6]:1"));
        assert_ne!(source("[2001:db8:0:1::5]:1"), source("[2001:db8:0:2::5]:1"));
    }
}
