//! Attacks, sick hosts and sick networks: what is bounded stays so, others are not held up, and no run is lost or done twice.

mod crowd; // too many, too slow, too wrong
mod steps; // steps that take all there is
mod eaten; // … and others that do
mod host; // … of one host
