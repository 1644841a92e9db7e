//! Joining and the connection, against a controller with real TLS, with works that do nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use fettle_runbooks::id::Host;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::fake::{Authority, Fake, LIMIT};
use super::*;
use crate::join::{Join, JoinError, Token, join};
use crate::message::Greeting;

fn wish(fake: &Fake, state: &Path) -> Join {
    Join {
        controller: fake.controller(),
        root: fake.root(),
        token: Token::new(" good\n"),
        state: state.to_owned(),
    }
}

async fn joined(fake: &Fake) -> tempfile::TempDir {
    let state = tempfile::tempdir().expect("a directory");
    join(wish(fake, state.path())).await.expect("joined");
    state
}

#[tokio::test]
async fn a_host_joins_and_keeps_its_key_to_itself() {
    let fake = Fake::start().await;
    let state = joined(&fake).await;
    let identity = Identity::load(state.path()).expect("an identity");
    assert_eq!(identity.host, "web-1".parse::<Host>().expect("a name"));
    assert_eq!(identity.labels["role"], "web");
    assert_eq!(identity.controller, fake.controller());
    assert_eq!(identity.trust.ca_der, fake.authority.certificate.to_vec());
    assert_eq!(fake.with_heard(|heard| heard.tokens.clone()), ["good"]);
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    let folder = crate::identity::folder(state.path());
    assert_eq!((mode(&folder), mode(&folder.join("key.pem"))), (0o700, 0o600));
    assert!(!state.path().join("identity.pending").exists());
}

#[tokio::test]
async fn joining_twice_says_what_to_do_and_changes_nothing() {
    let fake = Fake::start().await;
    let state = joined(&fake).await;
    let before =
        std::fs::read(crate::identity::folder(state.path()).join("cert.pem")).expect("a certificate");
    let refused = join(wish(&fake, state.path())).await.expect_err("refused");
    assert!(matches!(refused, JoinError::AlreadyJoined { .. }));
    assert!(refused.to_string().contains("start the agent, or move that folder away"), "{refused}");
    let after = std::fs::read(crate::identity::folder(state.path()).join("cert.pem")).expect("a certificate");
    assert_eq!(before, after);
    assert_eq!(fake.with_heard(|heard| heard.tokens.len()), 1);
}

#[tokio::test]
async fn a_wrong_root_fingerprint_keeps_the_token_here() {
    let fake = Fake::start().await;
    let state = tempfile::tempdir().expect("a directory");
    let wrong = Join { root: fettle_runbooks::id::Digest([1; 32]), ..wish(&fake, state.path()) };
    let refused = join(wrong).await.expect_err("refused");
    assert!(matches!(refused, JoinError::OtherRoot { shown, .. } if shown == fake.root()), "{refused}");
    assert!(fake.with_heard(|heard| heard.tokens.is_empty()));
    assert!(!crate::identity::folder(state.path()).exists());
}

#[tokio::test]
async fn an_impostor_with_the_right_bundle_does_not_get_the_token() {
    let fake = Fake::with(Arc::new(Authority::new()), &Authority::new()).await;
    let state = tempfile::tempdir().expect("a directory");
    let refused = join(wish(&fake, state.path())).await.expect_err("refused");
    assert!(matches!(refused, JoinError::Impostor { .. }), "{refused}");
    assert!(fake.with_heard(|heard| heard.tokens.is_empty()));
}

#[tokio::test]
async fn a_refused_token_is_told_with_its_code_and_the_key_is_used_again() {
    let fake = Fake::start().await;
    let state = tempfile::tempdir().expect("a directory");
    let mut spent = Status::new(Code::Aborted, "it was spent already");
    spent.metadata_mut().insert("fettle-code", "token-spent".parse().expect("a word"));
    fake.with_heard(|heard| heard.refuse = Some(spent));
    let refused = join(wish(&fake, state.path())).await.expect_err("refused");
    assert_eq!(refused.to_string(), "join: the controller refuses: it was spent already (token-spent)");
    let key = std::fs::read(state.path().join("identity.pending/key.pem")).expect("the key waits");

    fake.with_heard(|heard| heard.refuse = None);
    join(wish(&fake, state.path())).await.expect("joined");
    assert_eq!(std::fs::read(state.path().join("identity/key.pem")).expect("the key"), key);
}

/// A link that runs, and the ends its works would hold.
struct Running {
    told: mpsc::UnboundedReceiver<ToWorks>,
    works: mpsc::UnboundedSender<FromWorks>,
    output: mpsc::Sender<v1::OutputChunk>,
    stop: CancellationToken,
    link: JoinSet<Outcome>,
}

impl Running {
    fn start(state: &Path) -> Running {
        let (tell, told) = mpsc::unbounded_channel();
        let (works, from_works) = mpsc::unbounded_channel();
        let (output, chunks) = mpsc::channel(8);
        let wires = Wires {
            to_works: Box::new(move |message| {
                let _ = tell.send(message);
            }),
            from_works,
            output: chunks,
        };
        let stop = CancellationToken::new();
        let settings = Settings { state: state.to_owned(), now: super::fake::now };
        let mut link = JoinSet::new();
        link.spawn(run(settings, wires, stop.clone()));
        Running { told, works, output, stop, link }
    }

    async fn next(&mut self) -> ToWorks {
        tokio::time::timeout(LIMIT, self.told.recv()).await.expect("told in time").expect("the link lives")
    }

    /// Greets when asked, and gives the epoch of the welcome.
    async fn welcomed(&mut self) -> u64 {
        loop {
            match self.next().await {
                ToWorks::Greet => {
                    let greeting = Greeting {
                        epoch_seen: 3,
                        boot_id: "boot".into(),
                        journal: "journal".into(),
                        roster_version: 0,
                        paused: Vec::new(),
                        missing: vec![],
                        labels: [("role".to_owned(), "web".to_owned())].into(),
                    };
                    self.works.send(FromWorks::Greeting(greeting)).expect("the link lives");
                }
                ToWorks::Connected { epoch, credits, acked } => {
                    assert_eq!((credits, acked), (32, 0));
                    return epoch;
                }
                ToWorks::Disconnected => {}
                other @ (ToWorks::Order { .. }
                | ToWorks::Acked { .. }
                | ToWorks::Cancel { .. }
                | ToWorks::Pause { .. }
                | ToWorks::Roster(_)
                | ToWorks::Stop) => panic!("told {other:?} before the welcome"),
            }
        }
    }

    fn report(&self, seq: u64) {
        let report = v1::Report { seq, ..v1::Report::default() };
        self.works.send(FromWorks::Report(report)).expect("the link lives");
    }

    async fn end(&mut self) -> Outcome {
        let ended = tokio::time::timeout(LIMIT, self.link.join_next()).await.expect("it ends in time");
        ended.expect("it ran").expect("it did not panic")
    }
}

fn sequence(heard: &super::fake::Heard) -> Vec<u64> {
    let reports = heard.messages.iter().filter_map(|message| {
        let v1::from_agent::What::Reports(reports) = message else { return None };
        Some(&reports.reports)
    });
    reports.flatten().map(|report| report.seq).collect()
}

#[tokio::test]
async fn what_either_side_says_arrives_at_the_other() {
    let fake = Fake::start().await;
    let state = joined(&fake).await;
    let mut agent = Running::start(state.path());
    assert_eq!(agent.welcomed().await, 1);
    let hello = fake.with_heard(|heard| heard.messages[0].clone());
    let v1::from_agent::What::Hello(hello) = hello else { panic!("{hello:?} is no hello") };
    assert_eq!((hello.protocol, hello.epoch_seen, hello.boot_id.as_str()), (PROTOCOL, 3, "boot"));

    (1..=100).for_each(|seq| agent.report(seq));
    fake.until("all reports", |heard| (sequence(heard) == (1..=100).collect::<Vec<_>>()).then_some(())).await;
    let messages = fake.with_heard(|heard| heard.messages.len());
    assert!(messages < 60, "reports travel together, not in {messages} messages");

    fake.say(v1::to_agent::What::Ack(v1::Ack { upto: 100 })).await;
    assert!(matches!(agent.next().await, ToWorks::Acked { upto: 100 }));
    let order = v1::Order { content: b"content".as_slice().into(), digest: vec![5; 32].into() };
    fake.say(v1::to_agent::What::Order(order)).await;
    assert!(
        matches!(agent.next().await, ToWorks::Order { content, digest } if content == b"content" && digest.0 == [5; 32])
    );
    let run = "run_00000000000000000000000000000001";
    fake.say(v1::to_agent::What::Cancel(v1::Cancel { run: run.into(), reason: "enough".into() })).await;
    assert!(matches!(agent.next().await, ToWorks::Cancel { run: which, .. } if which.to_string() == run));
}

#[tokio::test]
async fn what_a_newer_controller_says_beyond_what_is_known_breaks_nothing() {
    let fake = Fake::start().await;
    let state = joined(&fake).await;
    let mut agent = Running::start(state.path());
    agent.welcomed().await;
    // A message of a kind that this version does not know.
    let say = fake.with_heard(|heard| heard.say.clone()).expect("a session");
    say.send(Ok(v1::ToAgent::default())).await.expect("the agent is there");
    fake.say(v1::to_agent::What::Ack(v1::Ack { upto: 1 })).await;
    assert!(matches!(agent.next().await, ToWorks::Acked { upto: 1 }));
}

#[tokio::test]
async fn stopping_says_goodbye_and_hands_over_what_is_ready() {
    let fake = Fake::start().await;
    let state = joined(&fake).await;
    let mut agent = Running::start(state.path());
    agent.welcomed().await;
    agent.stop.cancel();
    assert_eq!(agent.end().await, Outcome::Stopped);
    let last = fake.with_heard(|heard| heard.messages.last().cloned());
    assert!(matches!(last, Some(v1::from_agent::What::Goodbye(_))), "{last:?}");
}

#[tokio::test]
async fn a_lost_connection_is_told_and_made_again() {
    let fake = Fake::start().await;
    let state = joined(&fake).await;
    let mut agent = Running::start(state.path());
    assert_eq!(agent.welcomed().await, 1);
    fake.with_heard(|heard| heard.say = None);
    assert!(matches!(agent.next().await, ToWorks::Disconnected));
    // What the works say while nobody is connected reaches nobody; they say it again.
    agent.report(7);
    assert_eq!(agent.welcomed().await, 2);
    agent.report(8);
    fake.until("the next report", |heard| (sequence(heard) == [8]).then_some(())).await;
}

#[tokio::test]
async fn a_silent_controller_is_left() {
    let fake = Fake::start().await;
    fake.with_heard(|heard| heard.heartbeat_ms = 50);
    let state = joined(&fake).await;
    let mut agent = Running::start(state.path());
    agent.welcomed().await;
    assert!(matches!(agent.next().await, ToWorks::Disconnected));
    let beats = fake.with_heard(|heard| {
        heard.messages.iter().filter(|m| matches!(m, v1::from_agent::What::Heartbeat(_))).count()
    });
    assert!(beats >= 1);
}

#[tokio::test]
async fn the_end_of_the_works_ends_the_link() {
    let fake = Fake::start().await;
    let state = joined(&fake).await;
    let mut agent = Running::start(state.path());
    agent.welcomed().await;
    let (dead, _) = mpsc::unbounded_channel();
    agent.works = dead;
    assert_eq!(agent.end().await, Outcome::WorksGone);
}

#[tokio::test]
async fn a_controller_of_another_root_is_never_spoken_to() {
    let fake = Fake::start().await;
    let state = joined(&fake).await;
    let impostor = Fake::start().await;
    let file = crate::identity::folder(state.path()).join("host.json");
    let text = std::fs::read_to_string(&file).expect("a file");
    let moved = text.replace(&fake.address.port().to_string(), &impostor.address.port().to_string());
    std::fs::write(&file, moved).expect("written");

    let settings = Settings { state: state.path().to_owned(), now: super::fake::now };
    let refused = settings.dial().await.map(drop).expect_err("refused");
    assert!(
        matches!(refused_or_lost(&refused), Ended::Refused(why) if why.contains("not one that this host trusts"))
    );
    assert_eq!(impostor.with_heard(|heard| heard.sessions), 0);
}

#[tokio::test]
async fn a_certificate_is_renewed_before_it_ends_and_then_used() {
    let fake = Fake::start().await;
    fake.with_heard(|heard| heard.validity = Some(Duration::from_secs(6)));
    let state = joined(&fake).await;
    let first = Identity::load(state.path()).expect("an identity");
    let mut agent = Running::start(state.path());
    assert_eq!(agent.welcomed().await, 1);
    assert_eq!(agent.welcomed().await, 2);
    let second = Identity::load(state.path()).expect("an identity");
    assert!(second.valid.1 > first.valid.1);
    assert_eq!(first.key.secret_der(), second.key.secret_der());
    assert_eq!(fake.with_heard(|heard| heard.renewals), 1);
}

#[tokio::test]
async fn a_renewed_certificate_that_would_lock_the_host_out_is_not_taken() {
    let fake = Fake::start().await;
    fake.with_heard(|heard| heard.renew_elsewhere = true);
    let state = joined(&fake).await;
    let settings = Settings { state: state.path().to_owned(), now: super::fake::now };
    let Dialled { channel, identity, .. } = settings.dial().await.expect("connected");
    let identity = identity.expect("it is who it is");
    let refused = super::renew::renew(&settings, &identity, channel).await.expect_err("useless");
    assert!(matches!(refused, super::renew::RenewError::OtherRoot { .. }), "{refused}");
    assert_eq!(Identity::load(state.path()).expect("an identity").certificate, identity.certificate);
}

#[tokio::test]
async fn output_beyond_the_credit_is_dropped() {
    let fake = Fake::start().await;
    let state = joined(&fake).await;
    let mut agent = Running::start(state.path());
    agent.welcomed().await;
    for data in ["12345", "too much", "678"] {
        let chunk = v1::OutputChunk { data: data.as_bytes().into(), ..v1::OutputChunk::default() };
        agent.output.send(chunk).await.expect("the link lives");
    }
    let seen =
        fake.until("two chunks", |heard| (heard.chunks.len() == 2).then(|| heard.chunks.clone())).await;
    assert_eq!(seen.iter().map(|chunk| &chunk.data[..]).collect::<Vec<_>>(), [b"12345".as_slice(), b"678"]);
}
