//! A connection to the controller's ports that is ours, byte by byte.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use fettle_proto::signed::Trust;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::Cluster;
use crate::cluster::{LIMIT, SOURCE};

/// Connects to a port of this machine from another of its addresses, `127.0.0.FROM`.
pub fn dial(from: u8, port: u16) -> io::Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0)))?;
    connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(TcpStream::from(socket))
}

/// How a client of this cluster begins.
pub fn client(cluster: &Cluster) -> ClientConnection {
    let trust = std::fs::read(cluster.path("controller/trust.json")).expect("a trust bundle");
    let ca = Trust::decode(&trust).expect("it is one").ca_der;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca)).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("a client")
}

/// HTTP, as far as these tests need it.
pub struct Wire(StreamOwned<ClientConnection, TcpStream>);

impl Wire {
    /// To the port for signals.
    pub fn to(cluster: &Cluster, from: u8) -> io::Result<Wire> {
        let stream = dial(from, cluster.http)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Wire(StreamOwned::new(client(cluster), stream)))
    }

    /// Says something.
    pub fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.flush()
    }

    /// The beginning of a post, without its body.
    pub fn head(source: &str, token: &str, length: usize) -> String {
        format!(
            "POST /v1/signals/{source} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
    }

    /// Posts as the one source, and reads the answer.
    pub fn post(&mut self, token: &str, body: &[u8]) -> io::Result<(u16, String)> {
        self.say(&[Wire::head(SOURCE.0, token, body.len()).as_bytes(), body].concat())?;
        self.answer()
    }

    /// Reads one answer: its status and body.
    pub fn answer(&mut self) -> io::Result<(u16, String)> {
        let mut read = Vec::new();
        let (head, length) = loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, _)) = text.split_once("\r\n\r\n") {
                let lower = head.to_ascii_lowercase();
                let length = lower.split_once("content-length: ").map_or("0", |(_, rest)| rest);
                let length: usize = length.split("\r\n").next().and_then(|it| it.parse().ok()).unwrap_or(0);
                break (head.to_owned(), length);
            }
            self.more(&mut read)?;
        };
        while read.len() < head.len() + 4 + length {
            self.more(&mut read)?;
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Ok((status, String::from_utf8_lossy(&read[head.len() + 4..]).into_owned()))
    }

    fn more(&mut self, read: &mut Vec<u8>) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.0.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                read.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }

    /// Whether the other side has ended the connection; waits no longer than `limit` for that.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        let _ = self.0.sock.set_read_timeout(Some(limit));
        let mut buffer = [0; 1024];
        loop {
            match self.0.read(&mut buffer) {
                Ok(1..) => {}
                Ok(0) => return true,
                Err(error) => {
                    return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                }
            }
        }
    }
}
