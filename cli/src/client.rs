//! The way to the controller: TLS 1.3, pinned to the trust bundle, with a limit on every wait.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fettle_proto::v1::operators_client::OperatorsClient;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::config::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::session::Session;

/// The service with the caller's session on every call.
pub type Operators = OperatorsClient<InterceptedService<Channel, Bearer>>;

/// The largest answer that is accepted, bytes: plans and runbooks are small, logs are bounded by their hosts.
const LARGEST: usize = 64 * 1024 * 1024;

/// Puts the session on every call.
#[derive(Clone)]
pub struct Bearer {
    header: Option<MetadataValue<Ascii>>,
    timeout: Duration,
}

impl Interceptor for Bearer {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> std::result::Result<tonic::Request<()>, tonic::Status> {
        if let Some(header) = &self.header {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}

impl Bearer {
    /// How long one call may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// Connects as the person who is signed in.
pub async fn connect(context: &Context) -> Result<Operators> {
    let session = Session::load(context)?;
    let mut header: MetadataValue<Ascii> = format!("Bearer {}", session.token)
        .parse()
        .map_err(|_| Error::new(Exit::SignIn, "the session is damaged").next("fettle login"))?;
    header.set_sensitive(true);
    open(context, Some(header)).await
}

/// Connects without a session, to sign in.
pub async fn connect_unsigned(context: &Context) -> Result<Operators> {
    open(context, None).await
}

/// Waits for an answer at most as long as the context says.
pub async fn answer<T>(
    context: &Context,
    call: impl Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T> {
    match tokio::time::timeout(context.timeout, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(explain(context, status)),
        Err(_) => Err(Error::new(Exit::Unreachable, "the controller did not answer in time")
            .at(context.controller().unwrap_or_default())
            .why(format!("waited {} s", context.timeout.as_secs_f32()))
            .fix("give --timeout more time; whether the request took effect is not known, and repeating it is safe")),
    }
}

/// A status in our words, with the address it came from when the connection is to blame.
pub fn explain(context: &Context, status: tonic::Status) -> Error {
    let error = Error::from(status);
    match error.exit() {
        Exit::Unreachable => error.at(context.controller().unwrap_or_default()),
        Exit::Done
        | Exit::Failed
        | Exit::Usage
        | Exit::NotFound
        | Exit::SignIn
        | Exit::NotAllowed
        | Exit::Undone
        | Exit::Pending
        | Exit::Rejected
        | Exit::NotVerified
        | Exit::Partial
        | Exit::Guard
        | Exit::Resolve => error,
    }
}

async fn open(context: &Context, header: Option<MetadataValue<Ascii>>) -> Result<Operators> {
    let url = context.controller()?;
    let address = Address::parse(url)?;
    let tls = tls(context)?;
    let tried = Arc::new(Mutex::new(Vec::new()));
    let uri: Uri = format!("http://{}:{}", address.bracketed(), address.port)
        .parse()
        .map_err(|_| Error::usage(format!("`{url}` is not an address")))?;
    let endpoint = Endpoint::from(uri)
        .connect_timeout(context.timeout)
        .http2_keep_alive_interval(Duration::from_secs(15))
        .keep_alive_timeout(Duration::from_secs(10))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    let connector = {
        let tried = Arc::clone(&tried);
        let timeout = context.timeout;
        tower::service_fn(move |_: Uri| {
            let (address, tls, tried) = (address.clone(), tls.clone(), Arc::clone(&tried));
            async move { dial(&address, &tls, timeout, &tried).await.map(TokioIo::new) }
        })
    };
    let channel = endpoint.connect_with_connector(connector).await.map_err(|error| {
        let mut said = Error::new(Exit::Unreachable, "failed to reach the controller").at(url);
        let tried = tried.lock().map(|tried| tried.clone()).unwrap_or_default();
        if tried.is_empty() {
            said = said.because(&error);
        }
        for line in tried {
            said = said.why(line);
        }
        said.fix(
            "is it running, is the address right, and is its certificate from the CA of the trust bundle?",
        )
    })?;
    let bearer = Bearer { header, timeout: context.timeout };
    Ok(OperatorsClient::with_interceptor(channel, bearer).max_decoding_message_size(LARGEST))
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    host: String,
    port: u16,
}

impl Address {
    fn parse(url: &str) -> Result<Address> {
        let bad = |why: &str| {
            Error::usage(format!("`{url}` is not a controller's address"))
                .why(why)
                .fix("write it as https://controller.example:7443")
        };
        let uri: Uri = url.parse().map_err(|_| bad("it is not a URL"))?;
        match uri.scheme_str() {
            Some("https") => {}
            Some(_) => return Err(bad("only https is spoken: every call is encrypted and pinned")),
            None => return Err(bad("it has no `https://`")),
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("it has a path"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| bad("it has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Address { host, port: uri.port_u16().unwrap_or(7443) })
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

/// Tries each address of the host in turn, and remembers why each failed.
async fn dial(
    address: &Address,
    tls: &tokio_rustls::TlsConnector,
    timeout: Duration,
    tried: &Mutex<Vec<String>>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let failed = |why: String| {
        if let Ok(mut tried) = tried.lock() {
            tried.push(why.clone());
        }
        std::io::Error::other(why)
    };
    let name = ServerName::try_from(address.host.clone())
        .map_err(|_| failed(format!("`{}` is not a host name", address.host)))?;
    let found = tokio::time::timeout(timeout, tokio::net::lookup_host((address.host.as_str(), address.port)))
        .await
        .map_err(|_| {
            failed(format!("looking up {} took longer than {} s", address.host, timeout.as_secs_f32()))
        })?
        .map_err(|error| failed(format!("looking up {}: {error}", address.host)))?;
    let mut last = None;
    for to in found {
        let attempt = async {
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            tls.connect(name.clone(), stream).await
        };
        match tokio::time::timeout(timeout, attempt).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = Some(failed(format!("tried {to}: {error}"))),
            Err(_) => last = Some(failed(format!("tried {to}: no answer in {} s", timeout.as_secs_f32()))),
        }
    }
    Err(last.unwrap_or_else(|| failed(format!("{} has no address", address.host))))
}

fn bad_trust(context: &Context, error: Error) -> Error {
    let fix = "get the trust bundle again from where your organisation keeps it, and compare its digest";
    match context.trust() {
        Ok(path) => error.at(path.display()).fix(fix),
        Err(missing) => missing,
    }
}

fn trust(context: &Context) -> Result<Vec<u8>> {
    std::fs::read(context.trust()?)
        .map_err(|error| bad_trust(context, Error::usage("failed to read the trust bundle").because(&error)))
}

/// The root fingerprint of the controller one means, by the trust bundle.
pub fn root(context: &Context) -> Result<String> {
    Ok(fettle_proto::signed::Trust::fingerprint(&trust(context)?).to_string())
}

/// TLS that believes the CA of the trust bundle and nobody else.
fn tls(context: &Context) -> Result<tokio_rustls::TlsConnector> {
    let failed = |error: Error| bad_trust(context, error);
    let bytes = trust(context)?;
    let ca = ca_of(&bytes).map_err(|why| failed(Error::usage("failed to read the trust bundle").why(why)))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(ca)).map_err(|error| {
        failed(Error::usage("the trust bundle's CA is not a certificate").because(&error))
    })?;
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| Error::new(Exit::Failed, "failed to set up TLS").because(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
}

fn ca_of(bytes: &[u8]) -> std::result::Result<Vec<u8>, String> {
    use base64::Engine as _;
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if value["fettle"] != "trust/1" {
        return Err("it does not say `\"fettle\":\"trust/1\"`".to_owned());
    }
    let ca = value["ca"].as_str().ok_or("it has no `ca`")?;
    base64::engine::general_purpose::STANDARD.decode(ca).map_err(|error| format!("its `ca`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_with_a_host_and_nothing_else() {
        let parse =
            |url| Address::parse(url).map(|it| (it.bracketed(), it.port)).map_err(|it| it.to_string());
        assert_eq!(parse("https://c.example:1"), Ok(("c.example".to_owned(), 1)));
        assert_eq!(parse("https://[::1]:1/"), Ok(("[::1]".to_owned(), 1)));
        assert_eq!(parse("https://c.example"), Ok(("c.example".to_owned(), 7443)));
        assert!(parse("http://c.example:1").is_err_and(|it| it.contains("only https")));
        assert!(parse("c.example:1").is_err());
        assert!(parse("https://c.example:1/x").is_err());
        assert!(parse("").is_err());
    }

    #[tokio::test]
    async fn a_controller_that_is_not_there_is_exit_14_with_what_was_tried() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let trust = dir.path().join("trust.json");
        let ca = "MIIBejCCASGgAwIBAgIUEhoNlBvAHgKA7kZ1Hn1TIdbS8mowCgYIKoZIzj0EAwIw";
        std::fs::write(&trust, format!(r#"{{"fettle":"trust/1","ca":"{ca}","roots":[]}}"#)).expect("written");
        let context = Context::new(&crate::args::Global {
            config: Some({
                let file = dir.path().join("config.yaml");
                std::fs::write(&file, "controller: https://127.0.0.1:1\ntrust: trust.json\n")
                    .expect("written");
                file
            }),
            ..Default::default()
        })
        .expect("it is read");
        let Err(error) = connect_unsigned(&context).await else { panic!("that is no certificate") };
        assert_eq!(error.exit(), Exit::Usage, "{error}");
    }
}
