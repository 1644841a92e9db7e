//! Identities for hosts that nobody has to wait for: issued by the controller's own authority, from the files in its state
//! folder, and written where `fettle-agent join` would have put them.

use std::fs;
use std::path::Path;

use fettle_controller::ca::Ca;
use fettle_controller::world::{System, World as _};
use fettle_runbooks::id::Host;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde_json::json;

use crate::Cluster;

/// Issues identities of one cluster.
pub struct Mint {
    ca: Ca,
    trust: Vec<u8>,
    controller: String,
    /// One key for all: making keys is not what is tried here.
    key: String,
    request: Vec<u8>,
}

impl Mint {
    /// Opens the authority of a cluster.
    pub fn of(cluster: &Cluster) -> Mint {
        let state = cluster.path("controller");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).expect("a request");
        Mint {
            ca: Ca::open(&state, System.now()).expect("the authority is in the state folder"),
            trust: fs::read(state.join("trust.json")).expect("a trust bundle"),
            controller: format!("https://localhost:{}", cluster.grpc),
            key: key.serialize_pem(),
            request: request.der().to_vec(),
        }
    }

    /// The same for hosts whose controller listens on another port.
    #[must_use]
    pub fn at(self, port: u16) -> Mint {
        Mint { controller: format!("https://localhost:{port}"), ..self }
    }

    /// Writes the identity of a host below its state folder.
    pub fn join(&self, host: &Host, state: &Path) {
        let issued = self.ca.issue(host, &self.request, System.now()).expect("a certificate");
        let folder = fettle_agent::identity::folder(state);
        fs::create_dir_all(&folder).expect("a folder can be made");
        let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("a file");
        let about = json!({ "host": host, "controller": self.controller });
        write("host.json", about.to_string().as_bytes());
        write("trust.json", &self.trust);
        write("cert.pem", crate::cluster::pem(&issued.der).as_bytes());
        write("key.pem", self.key.as_bytes());
    }
}
