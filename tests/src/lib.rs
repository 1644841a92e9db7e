//! A Fettle of its own for each test: real controller, real agents, real keys, in a directory that goes away.
//!
//! [`Cluster`] starts the programs that are shipped, as processes, on ports of their own, and furnishes them as
//! `docs/operating.md` says: a roster signed by a root key, certified runbooks, policy files. A test then does what people
//! do, mostly through the real command line ([`Cluster::fettle`]), and looks at what people see. Programs can be killed and
//! started again at any point. Nothing survives the test: see [`remains`].
//!
//! There are no sleeps: [`eventually`] looks until something is so and says what it saw last when it never is.

#![expect(clippy::disallowed_methods, reason = "tests start programs and know what time it is")]

pub mod people; // who has which key
pub mod programs; // what is started
pub mod cluster; // … and how it is put together
pub mod desk; // … and asked
pub mod alerts; // what comes in
pub mod wire; // … byte by byte
pub mod prometheus; // … and who sends it in earnest
pub mod receiver; // … and what is told
pub mod systemd; // a host with units
pub mod fleet; // many hosts in one process
pub mod proxy; // … far away from their controller
pub mod network; // … on real links
pub mod power; // a disk that forgets
pub mod memory; // … and what programs do not
pub mod remains; // what must not be left
mod wait;

pub use cluster::{Builder, Cluster};
pub use fleet::Fleet;
pub use network::Network;
pub use systemd::Systemd;
pub use wait::{eventually, eventually_every};
