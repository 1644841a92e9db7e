//! A source of signals that keeps its connection, as Alertmanager does.

use std::fs::File;
use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use fettle_tests::Cluster;
use fettle_tests::cluster::SOURCE;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// An open connection to the port for signals.
pub(crate) struct Webhook {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Webhook {
    pub(crate) fn open(cluster: &Cluster) -> Webhook {
        let mut roots = RootCertStore::empty();
        let file = BufReader::new(File::open(cluster.path("ca.pem")).expect("the cluster's root"));
        for certificate in CertificateDer::pem_reader_iter(file) {
            roots.add(certificate.expect("it is PEM")).expect("it is a root");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        let socket = TcpStream::connect(("127.0.0.1", cluster.http)).expect("the port is open");
        socket.set_nodelay(true).expect("a socket");
        Webhook { stream: StreamOwned::new(connection, socket) }
    }

    /// Posts a body and waits for the answer, which must be that it is taken.
    pub(crate) fn post(&mut self, body: &str) {
        let request = format!(
            "POST /v1/signals/{} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            SOURCE.0,
            SOURCE.1,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).and_then(|()| self.stream.flush()).expect("it is posted");
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let read = self.stream.read(&mut buffer).expect("there is an answer");
            answer.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                assert!(head.starts_with("HTTP/1.1 2"), "{text}");
                let head = head.to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.and_then(|text| text.parse().ok()).expect("it has a length");
                if body.len() >= length {
                    return;
                }
            }
            assert!(read > 0, "the connection ended: {text}");
        }
    }
}
