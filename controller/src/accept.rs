//! Connections in: our own accept loop, for both ports.
//!
//! A peer that opens a connection and then says nothing holds a place among the waiting, not among the handshakes, and
//! one that stops in the middle of a handshake holds nobody else's turn; both end after [`Limits::handshake`].
//! Connections without a certificate are counted apart, so that anonymous peers cannot take the places of agents. All such
//! places are [shared](crate::share) between the addresses that want them: when they run out, those give way who have
//! most. When the process runs out of descriptors the loop waits instead of spinning.
//!
//! A connection with a certificate ends with it: at its `notAfter`, and when [`Connections::revoke`] says so.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use fettle_runbooks::id::Host;
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::ca::{self, Identity, Revocations};
use crate::share::{Place, Shares, source_of};
use crate::tasks::{TaskKind, Tasks};
use crate::tls::ServerTls;
use crate::world::{At, World};

/// Connections that are ready and not yet taken by the server.
const READY: usize = 64;

/// Handshakes that compute at once; the others wait for their turn, in their order.
const TURNS: usize = 256;
/// Honest peers begin to speak at once, …
const SILENT: Duration = Duration::from_secs(1);
/// … answer our part of the handshake as soon as they have it, …
const MIDWAY: Duration = Duration::from_secs(2);
/// … and without a certificate, ask what they came to ask. Whoever took longer gives way when places run out.
const ANONYMOUS: Duration = Duration::from_secs(30);
/// So many bytes must come in as much time as a handshake has: the preface of HTTP/2.
const OPENING: usize = 24;

/// How long a connection that was ended may still say why.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// What is read of a peer that was refused, before the connection is closed, bytes.
const UNREAD: u64 = 64 * 1024;

/// What one port puts up with.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Peers that have connected and not yet said anything.
    pub waiting: usize,
    /// Peers whose turn it is to go on with a handshake.
    pub handshakes: usize,
    /// From connecting to the end of the handshake; and from there to the first words.
    pub handshake: Duration,
    /// Connections without a client certificate.
    pub anonymous: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { waiting: 4096, handshakes: 1024, handshake: Duration::from_secs(10), anonymous: 2048 }
    }
}

impl Limits {
    /// For one of two ports of a process that may have so many descriptors: more than a third are left to agents and files.
    #[must_use]
    pub fn within(self, descriptors: u64) -> Limits {
        let part = |of: u64| usize::try_from(descriptors / of).unwrap_or(usize::MAX).max(1);
        Limits {
            waiting: self.waiting.min(part(8)),
            handshakes: self.handshakes.min(part(16)),
            anonymous: self.anonymous.min(part(8)),
            ..self
        }
    }
}

/// Who is at the other end. On every gRPC request as an extension.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where from.
    pub address: SocketAddr,
    /// Whom the client's certificate names; none was shown if absent.
    pub identity: Option<Arc<Identity>>,
    /// Cancelled when the connection shall end.
    pub ending: CancellationToken,
}

/// How the bytes travel.
#[derive(Clone)]
pub enum Security {
    /// Through TLS.
    Tls(ServerTls),
    /// As they are; only for a port that something else protects.
    Plain,
}

/// The live connections of agents, and which certificates no longer count. Clones share them.
#[derive(Clone, Default)]
pub struct Connections {
    revocations: Revocations,
    live: Arc<Mutex<HashMap<Host, Vec<Live>>>>,
    numbers: Arc<AtomicU64>,
}

struct Live {
    number: u64,
    identity: Arc<Identity>,
    ending: CancellationToken,
}

impl Connections {
    /// What the TLS verifier consults.
    pub fn revocations(&self) -> Revocations {
        self.revocations.clone()
    }

    /// Ends everything issued to a host until `at`: such certificates are refused from now on, and connections that
    /// were made with one are closed. Says how many.
    pub fn revoke(&self, host: &Host, at: At) -> usize {
        self.revocations.revoke(host, at);
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let revoked: Vec<_> = live
            .get(host)
            .into_iter()
            .flatten()
            .filter(|connection| self.revocations.covers(&connection.identity))
            .collect();
        revoked.iter().for_each(|connection| connection.ending.cancel());
        revoked.len()
    }

    /// How many connections of agents are open.
    pub fn count(&self) -> usize {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).values().map(Vec::len).sum()
    }

    /// Registered before it is checked, so that a revocation in between is not missed.
    fn admit(&self, identity: &Arc<Identity>, ending: &CancellationToken) -> Option<Admitted> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let connection = Live { number, identity: Arc::clone(identity), ending: ending.clone() };
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.entry(identity.host.clone()).or_default().push(connection);
        drop(live);
        let admitted = Admitted { connections: self.clone(), host: identity.host.clone(), number };
        (!self.revocations.covers(identity)).then_some(admitted)
    }
}

struct Admitted {
    connections: Connections,
    host: Host,
    number: u64,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut live = self.connections.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_host) = live.get_mut(&self.host) {
            of_host.retain(|connection| connection.number != self.number);
            if of_host.is_empty() {
                live.remove(&self.host);
            }
        }
    }
}

/// What a port needs.
pub struct Port {
    /// Bound already, so that its address is known and a taken one is found before anything starts.
    pub listener: TcpListener,
    /// How the bytes travel.
    pub security: Security,
    /// What the port puts up with.
    pub limits: Limits,
    /// Where agents' connections are kept.
    pub connections: Connections,
    /// The clock that certificates end by.
    pub world: Arc<dyn World>,
    /// [`TaskKind::GrpcAccept`] or [`TaskKind::HttpAccept`].
    pub kind: TaskKind,
}

/// Connections whose handshake is done. A `Stream` for tonic, a `Listener` for axum.
pub struct Incoming {
    ready: mpsc::Receiver<Conn>,
    address: SocketAddr,
}

impl Incoming {
    /// Connections that come another way than through [`start`]; see [`Conn::vouched`].
    pub fn vouched(ready: mpsc::Receiver<Conn>, address: SocketAddr) -> Incoming {
        Incoming { ready, address }
    }

    /// Where the port is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Stream for Incoming {
    type Item = io::Result<Conn>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|next| next.map(Ok))
    }
}

impl axum::serve::Listener for Incoming {
    type Io = Conn;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Conn, SocketAddr) {
        match self.ready.recv().await {
            Some(connection) => {
                let address = connection.peer.address;
                (connection, address)
            }
            // The accept loop has stopped; the server is being stopped too.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Starts taking connections, until the tasks are stopped.
pub fn start(port: Port, tasks: &Tasks) -> io::Result<Incoming> {
    let address = port.listener.local_addr()?;
    let (deliver, ready) = mpsc::channel(READY);
    let kind = port.kind;
    let stopping = tasks.stopping();
    let shared = Arc::new(Shared {
        waiting: Shares::new(port.limits.waiting, SILENT),
        midway: Shares::new(port.limits.handshakes, MIDWAY),
        anonymous: Shares::new(port.limits.anonymous, ANONYMOUS),
        turns: Semaphore::new(TURNS),
        port,
        deliver,
        tasks: tasks.clone(),
    });
    tasks.spawn(kind, async move {
        stopping.run_until_cancelled(accept_all(shared)).await;
    });
    Ok(Incoming { ready, address })
}

struct Shared {
    port: Port,
    waiting: Shares<IpAddr>,
    midway: Shares<IpAddr>,
    anonymous: Shares<IpAddr>,
    turns: Semaphore,
    deliver: mpsc::Sender<Conn>,
    tasks: Tasks,
}

async fn accept_all(shared: Arc<Shared>) {
    let mut backoff = Duration::from_millis(5);
    loop {
        let (stream, address) = match shared.port.listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_the_peers(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, wait = ?backoff, "Cannot take connections.");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(Duration::from_secs(1));
                continue;
            }
        };
        backoff = Duration::from_millis(5);
        // Full: this peer is turned away.
        let Some(place) = shared.waiting.take(source_of(address)) else { continue };
        let one = Arc::clone(&shared);
        shared.tasks.spawn(TaskKind::Handshake, async move {
            let limit = one.port.limits.handshake;
            match tokio::time::timeout(limit, establish(&one, stream, address, place)).await {
                Ok(Ok(connection)) => {
                    let stopping = one.tasks.stopping();
                    // No server takes it any more: dropping closes it.
                    let _ = stopping.run_until_cancelled(one.deliver.send(connection)).await;
                }
                Ok(Err(error)) => tracing::debug!(%address, %error, "Handshake failed."),
                Err(_) => tracing::debug!(%address, "Handshake took too long."),
            }
        });
    }
}

/// The peer went away between connecting and being accepted; the next one may be fine.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

async fn establish(
    shared: &Shared,
    stream: TcpStream,
    address: SocketAddr,
    place: Place<IpAddr>,
) -> io::Result<Conn> {
    tune(&stream);
    let tls = match &shared.port.security {
        Security::Tls(tls) => tls,
        Security::Plain => return anonymous(shared, Io::Plain(stream), address),
    };
    let speaks = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
    let hello = place.lost().run_until_cancelled(speaks).await.ok_or_else(place_lost)??;
    drop(place);
    let mut handshake = std::pin::pin!(hello.into_stream(tls.current()).into_fallible());
    // Our part is arithmetic, and waits for its turn; theirs is waited for without one.
    let turn = shared.turns.acquire().await.map_err(io::Error::other)?;
    let ours = std::future::poll_fn(|cx| Poll::Ready(handshake.as_mut().poll(cx))).await;
    drop(turn);
    let shaken = match ours {
        Poll::Ready(shaken) => shaken,
        Poll::Pending => {
            let place = shared.midway.take(source_of(address)).ok_or_else(place_lost)?;
            place.lost().run_until_cancelled(handshake).await.ok_or_else(place_lost)?
        }
    };
    let stream = match shaken {
        Ok(stream) => stream,
        Err((error, stream)) => {
            hear_out(stream).await;
            return Err(error);
        }
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let identity = match shown {
        None => return anonymous(shared, Io::Tls(Box::new(stream)), address),
        Some(certificate) => Arc::new(ca::identity(certificate).map_err(io::Error::other)?),
    };
    let ending = CancellationToken::new();
    let admitted = shared
        .port
        .connections
        .admit(&identity, &ending)
        .ok_or_else(|| io::Error::other("the certificate was revoked"))?;
    let left = identity.not_after.since(shared.port.world.now());
    let peer = Peer { address, identity: Some(identity), ending };
    Ok(agents(Io::Tls(Box::new(stream)), peer, left, admitted))
}

/// The connection of an agent, whose certificate is good for `left`.
fn agents(io: Io, peer: Peer, left: Duration, admitted: Admitted) -> Conn {
    let ending = peer.ending.clone();
    let end = async move {
        // The certificate's own end ends the connection like a revocation.
        if tokio::time::timeout(left, ending.cancelled()).await.is_err() {
            ending.cancel();
        }
        tokio::time::sleep(LAST_WORDS).await;
    };
    Conn { io, peer, end: Some(Box::pin(end)), opening: None, _held: Held::Agent(admitted) }
}

/// Lets a peer that was refused read why. It has been sending already; closing on unread bytes would reset the connection,
/// and take the alert with it that says that its certificate was revoked.
async fn hear_out(mut stream: TcpStream) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let drained = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(UNREAD), &mut tokio::io::sink()).await
    };
    // However that ends, the connection is closed.
    let _ = tokio::time::timeout(LAST_WORDS, drained).await;
}

fn anonymous(shared: &Shared, io: Io, address: SocketAddr) -> io::Result<Conn> {
    let place = shared.anonymous.take(source_of(address)).ok_or_else(place_lost)?;
    let peer = Peer { address, identity: None, ending: place.lost() };
    let end = place.lost().cancelled_owned();
    let opening = Some(Opening::within(shared.port.limits.handshake));
    Ok(Conn { io, peer, end: Some(Box::pin(end)), opening, _held: Held::Anonymous(place) })
}

fn place_lost() -> io::Error {
    io::Error::other("there are too many such connections")
}

/// Failing to tune a socket is no reason to refuse it: a broken one shows itself at the first read.
fn tune(stream: &TcpStream) {
    use rustix::net::sockopt;
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, Duration::from_secs(60));
    let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15));
    let _ = sockopt::set_tcp_keepcnt(stream, 4);
}

/// One connection whose handshake is done.
pub struct Conn {
    io: Io,
    peer: Peer,
    /// Completes when the connection must be gone.
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Until a peer without a certificate has begun to speak.
    opening: Option<Opening>,
    _held: Held,
}

enum Io {
    Tls(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
    Vouched(Box<dyn Bytes>),
}

/// Bytes both ways, however they travel.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// What a connection holds while it lives.
enum Held {
    Agent(#[expect(dead_code, reason = "dropped with the connection")] Admitted),
    Anonymous(#[expect(dead_code, reason = "dropped with the connection")] Place<IpAddr>),
    Nothing,
}

impl Conn {
    /// A connection that did not come through TLS, and whose peer the caller vouches for: whom it is from is what
    /// `identity` says. No port of the controller makes one; a simulated network does, where addresses cannot lie. Absent
    /// when what was issued to the host has been revoked.
    pub fn vouched<S>(
        stream: S,
        address: SocketAddr,
        identity: Option<Identity>,
        connections: &Connections,
        now: At,
    ) -> Option<Conn>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (io, ending) = (Io::Vouched(Box::new(stream)), CancellationToken::new());
        let Some(identity) = identity.map(Arc::new) else {
            let peer = Peer { address, identity: None, ending };
            return Some(Conn { io, peer, end: None, opening: None, _held: Held::Nothing });
        };
        let admitted = connections.admit(&identity, &ending)?;
        let left = identity.not_after.since(now);
        Some(agents(io, Peer { address, identity: Some(identity), ending }, left, admitted))
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether the connection must be gone now.
    fn check_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(end) = &mut self.end else {
            // Either there never was an end, or it has come.
            return match self.peer.ending.is_cancelled() {
                true => Err(ended()),
                false => Ok(()),
            };
        };
        if end.as_mut().poll(cx).is_ready() {
            self.end = None;
            return Err(ended());
        }
        Ok(())
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection had to end")
}

/// What a peer must have said by when.
struct Opening {
    by: Pin<Box<Sleep>>,
    bytes: usize,
}

impl Opening {
    fn within(limit: Duration) -> Opening {
        Opening { by: Box::pin(tokio::time::sleep(limit)), bytes: OPENING }
    }
}

impl Connected for Conn {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_end(cx)?;
        let before = buf.filled().len();
        let read = match &mut self.io {
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Vouched(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if let Some(opening) = &mut self.opening {
            opening.bytes = opening.bytes.saturating_sub(buf.filled().len() - before);
            if opening.bytes == 0 {
                self.opening = None;
            } else if opening.by.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Io::Vouched(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Vouched(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(match &mut self.io {
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Vouched(stream) => Pin::new(stream).poll_shutdown(cx),
        })?;
        Poll::Ready(Ok(()))
    }
}
