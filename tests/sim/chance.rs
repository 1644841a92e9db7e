//! All chance of the process comes from the seed.
//!
//! Much of what runs here draws randomness where nobody hands it in: the order of `HashMap`, the branch that `select!`
//! takes first, keys of a certificate authority. All of it comes to libc's `getrandom` in the end, so the simulation's
//! binary has a `getrandom` of its own, which answers from the seed. Until a seed is set it asks the kernel: the same
//! binary also lists tests and starts processes.
//!
//! This is unsafe because the symbol replaces libc's for the whole process and writes through a pointer that C passes.

#![expect(unsafe_code, reason = "it stands in for a function of libc")]

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

static SEEDED: AtomicBool = AtomicBool::new(false);
static HIDDEN: AtomicU64 = AtomicU64::new(0);

/// From now on the process has no other randomness than this seed's.
pub(crate) fn seed(seed: u64) {
    HIDDEN.store(mix(seed), Ordering::SeqCst);
    SEEDED.store(true, Ordering::SeqCst);
}

/// What libc's function does, from the seed.
///
/// # Safety
/// `buffer` points to `length` bytes that may be written, as for libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    if !SEEDED.load(Ordering::SeqCst) {
        // SAFETY: the caller's promise is the system call's demand.
        let got = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return isize::try_from(got).unwrap_or(-1);
    }
    for at in 0..length {
        let word = mix(HIDDEN.fetch_add(1, Ordering::SeqCst));
        // SAFETY: `at` is within the `length` bytes that the caller lets us write.
        unsafe { buffer.add(at).write(word.to_le_bytes()[0]) };
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}

/// SplitMix64's finaliser.
fn mix(seed: u64) -> u64 {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A stream of choices. Everything that chooses by itself has its own, so that one more choice here moves none there.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// The stream of this seed for this purpose.
    pub(crate) fn new(seed: u64, purpose: &str) -> Chance {
        let named = purpose.bytes().fold(seed, |hash, byte| mix(hash ^ u64::from(byte)));
        Chance(mix(named))
    }

    /// Any number.
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    /// A number of the range, which is not empty.
    pub(crate) fn among(&mut self, range: Range<u64>) -> u64 {
        range.start + self.word() % (range.end - range.start)
    }

    /// True so often.
    pub(crate) fn happens(&mut self, probability: f64) -> bool {
        let share = (self.word() >> 11) as f64 / (1u64 << 53) as f64;
        share < probability
    }

    /// A duration of the range, in milliseconds.
    pub(crate) fn ms(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.among(range))
    }

    /// One of these.
    pub(crate) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.among(0..of.len() as u64) as usize]
    }
}
