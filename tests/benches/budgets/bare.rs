//! What gRPC itself costs: a server of the same streams that knows nothing and keeps nothing, as a process of its own, with
//! mTLS as ours has it. It is this program again, told by its environment what it is.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fettle_controller::ca::{Ca, Revocations};
use fettle_controller::tls::grpc_config;
use fettle_controller::world::{System, World as _};
use fettle_proto::v1;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const ROLE: &str = "FETTLE_BENCH_BARE";

/// Becomes the server when that is what this process was started as.
pub(crate) fn serve_if_asked() {
    let Ok(asked) = std::env::var(ROLE) else { return };
    let (port, authority) = asked.split_once(' ').expect("a port and a folder");
    let port = port.parse().expect("a port");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(serve(port, Path::new(authority)));
    std::process::exit(0);
}

/// The server, as whoever measures sees it.
pub(crate) struct Bare {
    child: Child,
    say: ChildStdin,
    hear: BufReader<ChildStdout>,
}

impl Bare {
    /// Starts it on a port, with the authority in a controller's state folder.
    pub(crate) fn start(port: u16, authority: &Path) -> Bare {
        let mut child = Command::new(std::env::current_exe().expect("a program knows where it is"))
            .env(ROLE, format!("{port} {}", authority.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be run");
        let (say, hear) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut bare = Bare { child, say, hear: BufReader::new(hear) };
        bare.answer();
        bare
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Says something of this size to every stream, and waits for every answer; as often as asked, one after the other.
    pub(crate) fn fan_out(&mut self, rounds: usize, bytes: usize) -> Duration {
        writeln!(self.say, "{rounds} {bytes}").expect("it listens");
        Duration::from_micros(self.answer().parse().expect("a number"))
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.hear.read_line(&mut line).expect("it answers");
        line.trim().to_owned()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Say = mpsc::Sender<Result<v1::ToAgent, Status>>;

struct Service {
    streams: Arc<Mutex<Vec<Say>>>,
    answered: mpsc::UnboundedSender<()>,
}

async fn serve(port: u16, authority: &Path) {
    let now = System.now();
    let ca = Ca::open(authority, now).expect("an authority");
    let leaf = ca.server_leaf(&[], now).expect("a certificate");
    let tls = TlsAcceptor::from(Arc::new(grpc_config(&ca, &leaf, Revocations::default()).expect("TLS")));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
    let (ready, connections) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, ready) = (tls.clone(), ready.clone());
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                if let Ok(stream) = tls.accept(stream).await {
                    let _ = ready.send(Ok::<_, std::io::Error>(stream)).await;
                }
            });
        }
    });
    let (answered, mut answers) = mpsc::unbounded_channel();
    let streams = Arc::<Mutex<Vec<Say>>>::default();
    let service = Service { streams: Arc::clone(&streams), answered };
    tokio::spawn(
        tonic::transport::Server::builder()
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(512 * 1024)
            .serve_with_incoming(
                v1::agents_server::AgentsServer::new(service),
                ReceiverStream::new(connections),
            ),
    );
    println!("ready");
    loop {
        let line = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await;
        let Ok(Some(Ok(line))) = line else { return };
        let (rounds, bytes) = line.split_once(' ').expect("two numbers");
        let (rounds, bytes): (usize, usize) =
            (rounds.parse().expect("a number"), bytes.parse().expect("a number"));
        let all = streams.lock().expect("not poisoned").clone();
        let began = Instant::now();
        for _ in 0..rounds {
            let order = v1::Order { content: vec![7; bytes].into(), digest: vec![7; 32].into() };
            for say in &all {
                let _ =
                    say.send(Ok(v1::ToAgent { what: Some(v1::to_agent::What::Order(order.clone())) })).await;
            }
            for _ in &all {
                answers.recv().await;
            }
        }
        println!("{}", began.elapsed().as_micros());
    }
}

type Answers<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl v1::agents_server::Agents for Service {
    type EnrolStream = Answers<v1::EnrolReply>;
    type SessionStream = Answers<v1::ToAgent>;
    type OutputStream = Answers<v1::OutputReply>;

    async fn enrol(
        &self,
        _: Request<Streaming<v1::EnrolRequest>>,
    ) -> Result<Response<Self::EnrolStream>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn renew(&self, _: Request<v1::RenewRequest>) -> Result<Response<v1::RenewReply>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn session(
        &self,
        request: Request<Streaming<v1::FromAgent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut messages = request.into_inner();
        let (say, hear) = mpsc::channel(4);
        let (streams, answered) = (Arc::clone(&self.streams), self.answered.clone());
        tokio::spawn(async move {
            while let Ok(Some(v1::FromAgent { what: Some(what) })) = messages.message().await {
                match what {
                    v1::from_agent::What::Hello(_) => {
                        // Like the welcome.
                        let welcome = v1::Welcome { epoch: 1, ..v1::Welcome::default() };
                        let _ = say
                            .send(Ok(v1::ToAgent { what: Some(v1::to_agent::What::Welcome(welcome)) }))
                            .await;
                        streams.lock().expect("not poisoned").push(say.clone());
                    }
                    v1::from_agent::What::Reports(_)
                    | v1::from_agent::What::Heartbeat(_)
                    | v1::from_agent::What::Goodbye(_) => drop(answered.send(())),
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(hear)))
    }

    async fn output(
        &self,
        _: Request<Streaming<v1::OutputChunk>>,
    ) -> Result<Response<Self::OutputStream>, Status> {
        Err(Status::unimplemented("bare"))
    }
}
