//! Every test that looks at the system as a whole, in one binary, because linking it is the slow part.
//!
//! Two kinds live here. Those about the house itself (`layering`, `tidy`, `docs`) read the sources and fail when a
//! rule bends that no compiler holds. Those about the system start real controllers and agents with
//! [`fettle_tests::Cluster`] and look at what people would see.

#![expect(
    clippy::disallowed_methods,
    reason = "tests start cargo, ssh-keygen and whole systems, not steps on a host"
)]

mod alertmanager;
mod commandline;
mod change;
mod control;
mod crash;
mod demo;
mod docs;
mod exits;
mod facts;
mod fleet;
mod going_on;
mod guards;
mod healing;
mod hosts;
mod install;
mod intake;
mod layering;
mod library;
mod notify;
mod prometheus;
mod reload;
mod rogue;
mod sick;
mod sources;
mod stepping_in;
mod surface;
mod systemd;
mod tidy;
mod units;
mod values;
