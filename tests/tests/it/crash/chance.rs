//! Kills at random moments: what nobody thought of.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Kept, Low, Story, fresh_host, history_gives_the_tables, stage, wait_for};

/// Which moments: `FETTLE_TEST_SEED` tries those of another run again.
pub(super) fn seed() -> u64 {
    std::env::var("FETTLE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).expect("the system has randomness");
        u64::from_le_bytes(bytes)
    })
}

/// Numbers that only depend on the one before (splitmix64).
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn of(seed: u64) -> Chance {
        Chance(seed)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut next = self.0;
        next = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        next = (next ^ (next >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (next ^ (next >> 31)) % limit
    }
}

const HOSTS: usize = 4;
/// Kills, at least; it goes on until every story is over.
const KILLS: usize = 24;
/// Between two kills, at most, in milliseconds.
const PAUSE: u64 = 900;

#[test]
fn whoever_is_killed_whenever_every_run_ends_verified_with_one_effect_each() {
    let seed = seed();
    println!("FETTLE_TEST_SEED={seed}");
    let mut cluster = stage().start();
    cluster.controller().kill();
    let cluster = &cluster;
    let controller = Mutex::new(Kept::new(cluster.launch_controller(&[]), || cluster.launch_controller(&[])));
    wait_for(cluster);
    let hosts: Vec<String> = (0..HOSTS).map(|_| fresh_host(cluster)).collect();
    let agents: Vec<_> = hosts
        .iter()
        .map(|host| Kept::new(cluster.launch_agent(host, &[]), || cluster.launch_agent(host, &[])))
        .map(Mutex::new)
        .collect();
    let (agents, controller) = (&agents, &controller);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let killed = scope.spawn(|| {
            let mut chance = Chance(seed);
            let mut kills = 0;
            while kills < KILLS {
                let until = Instant::now() + Duration::from_millis(chance.below(PAUSE));
                std::thread::sleep(until.saturating_duration_since(Instant::now()));
                match chance.below(HOSTS as u64 + 2) as usize {
                    host if host < HOSTS => agents[host].lock().expect("nobody panics").restart(),
                    _ => controller.lock().expect("nobody panics").restart(),
                }
                kills += 1;
            }
            over.store(true, Ordering::Relaxed);
        });
        // One story after the other on each host, for as long as there is killing.
        let players: Vec<_> = hosts
            .iter()
            .map(|host| {
                let over = &over;
                scope.spawn(move || {
                    let mut stories = 0;
                    while !over.load(Ordering::Relaxed) {
                        let story = Story::new(cluster, host, Low::Checked).begin();
                        let seen = story.play(|| ());
                        story.healed(&seen);
                        stories += 1;
                    }
                    stories
                })
            })
            .collect();
        let stories: usize = players
            .into_iter()
            .map(|player| player.join().unwrap_or_else(|why| std::panic::resume_unwind(why)))
            .sum();
        killed.join().expect("it only kills");
        println!("{KILLS} kills in {stories} stories");
    });
    controller.lock().expect("nobody panics").program.kill();
    history_gives_the_tables(cluster);
}
