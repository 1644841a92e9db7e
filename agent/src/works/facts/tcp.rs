//! `tcp("127.0.0.1:5432")`: whether something accepts a connection there.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use fettle_runbooks::value::Value;

use super::{Reading, int, record};

/// A connection that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn read(address: &str, patience: Duration) -> Reading {
    let addresses: Vec<_> = address
        .to_socket_addrs()
        .map_err(|error| format!("`{address}` is no address with a port: {error}"))?
        .collect();
    // One address after the other, all within the time of the fact.
    let each = patience.min(PATIENCE).mul_f64(0.8) / (addresses.len().max(1) as u32);
    let began = Instant::now();
    let open = addresses.iter().any(|one| TcpStream::connect_timeout(one, each).is_ok());
    let took = began.elapsed().as_millis();
    Ok(record([("open", Value::Bool(open)), ("connect_ms", int(took as u64))]))
}
