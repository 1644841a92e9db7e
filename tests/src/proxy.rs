//! A network that is ill: what two programs say to each other goes through here, or does not.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

/// How often a connection looks at the weather.
const LOOK: Duration = Duration::from_millis(10);
/// Whoever takes nothing for so long is cut off.
const TAKES: Duration = Duration::from_secs(20);

/// What the network does with every connection, those that are open included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// All arrives at once.
    Fair,
    /// Every piece arrives so much later.
    Slow(Duration),
    /// Connections are closed, and new ones as soon as they are made.
    Down,
    /// Nothing arrives anywhere, and nobody is told so. Connections can still be made, and are as silent.
    Hole,
    /// What the caller says does not arrive.
    Mute,
    /// What the caller is told does not arrive.
    Deaf,
    /// A connection ends after so many bytes, both ways together, in the middle of whatever they are.
    CutAfter(u64),
}

/// A proxy on a port of its own, for as long as this lives.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    to: u16,
    /// Read for as long as what it lets through is on its way: once it has changed, nothing more is.
    weather: RwLock<Weather>,
    over: AtomicBool,
    made: AtomicUsize,
}

impl Proxy {
    /// To another port of this machine; in fair weather.
    pub fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let here = listener.local_addr().expect("it has an address").port();
        let shared = Shared {
            to: port,
            weather: RwLock::new(Weather::Fair),
            over: AtomicBool::new(false),
            made: AtomicUsize::new(0),
        };
        let shared = Arc::new(shared);
        let all = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if all.over.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(stream) = stream {
                    all.carry(stream);
                }
            }
        });
        Proxy { port: here, shared }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on: what was under way has arrived when this returns, or waits for better weather.
    pub fn weather(&self, weather: Weather) {
        *self.shared.weather.write().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    /// How many connections were made through it.
    pub fn made(&self) -> usize {
        self.shared.made.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // Whoever waits for the next connection gets one.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Shared {
    fn now(&self) -> Weather {
        *self.looked()
    }

    fn looked(&self) -> RwLockReadGuard<'_, Weather> {
        self.weather.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both ways, on two threads.
    fn carry(self: &Arc<Shared>, caller: TcpStream) {
        if self.now() == Weather::Down {
            return;
        }
        let Ok(called) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.to)) else { return };
        self.made.fetch_add(1, Ordering::Relaxed);
        let passed = Arc::new(AtomicU64::new(0));
        for (from, to, stalled_by) in [(&caller, &called, Weather::Mute), (&called, &caller, Weather::Deaf)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
            let (all, passed) = (Arc::clone(self), Arc::clone(&passed));
            std::thread::spawn(move || {
                all.pump(&from, &to, stalled_by, &passed);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }

    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream, stalled_by: Weather, passed: &AtomicU64) {
        let _ = from.set_read_timeout(Some(LOOK));
        let _ = to.set_write_timeout(Some(TAKES));
        let mut buffer = [0; 4096];
        let mut waiting = 0;
        loop {
            let weather = self.looked();
            let now = *weather;
            if self.over.load(Ordering::Relaxed) || now == Weather::Down {
                return;
            }
            if now == Weather::Hole || now == stalled_by {
                drop(weather);
                std::thread::park_timeout(LOOK);
                continue;
            }
            if waiting == 0 {
                drop(weather);
                match from.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(read) => waiting = read,
                    Err(error)
                        if matches!(
                            error.kind(),
                            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                        ) => {}
                    Err(_) => return,
                }
                if let Weather::Slow(later) = now
                    && waiting > 0
                {
                    std::thread::park_timeout(later);
                }
                continue;
            }
            let before = passed.fetch_add(waiting as u64, Ordering::Relaxed);
            let goes = match now {
                Weather::CutAfter(bytes) => (bytes.saturating_sub(before) as usize).min(waiting),
                Weather::Fair
                | Weather::Slow(_)
                | Weather::Down
                | Weather::Hole
                | Weather::Mute
                | Weather::Deaf => waiting,
            };
            if to.write_all(&buffer[..goes]).is_err() || goes < waiting {
                return;
            }
            waiting = 0;
        }
    }
}
