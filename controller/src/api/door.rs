//! How many people may be signing in at once, in all and from one address.
//!
//! Signing in needs no session, so anybody can begin to. One address alone must not be able to keep everybody else out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// In all.
const ALL: usize = 64;
/// From one address; of IPv6, from one network of 64 bits, which is what one machine is given.
const ONE: usize = 8;

/// Where people come in.
#[derive(Clone)]
pub(super) struct Door {
    all: Arc<Semaphore>,
    from: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place at the door, held until it is dropped.
pub(super) struct Place {
    door: Door,
    address: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Door {
    pub(super) fn new() -> Door {
        Door { all: Arc::new(Semaphore::new(ALL)), from: Arc::default() }
    }

    /// A place for one more from this address, if there is one.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let mut from = self.from.lock().unwrap_or_else(PoisonError::into_inner);
        let here = from.entry(address).or_default();
        if *here >= ONE {
            return None;
        }
        *here += 1;
        drop(from);
        Some(Place { door: self.clone(), address, _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut from = self.door.from.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = from.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                from.remove(&self.address);
            }
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_the_places_of_others() {
        let door = Door::new();
        let at = |text: &str| door.enter(text.parse().expect("an address"));
        let held: Vec<_> = (0..ONE).map(|_| at("10.0.0.1").expect("a place")).collect();
        assert!(at("10.0.0.1").is_none());
        assert!(at("::ffff:10.0.0.1").is_none(), "the same machine, written otherwise");
        let other = at("10.0.0.2").expect("another address");
        drop(held);
        assert!(at("10.0.0.1").is_some(), "places come back");
        let held: Vec<_> = (0..ONE).map(|one| at(&format!("fd00::{one}")).expect("a place")).collect();
        assert!(at("fd00::1:0:0:0").is_none(), "the same network");
        drop((other, held));
        assert!(door.from.lock().expect("not poisoned").is_empty());
    }
}
