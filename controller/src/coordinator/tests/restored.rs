//! A controller that has lost what was since its backup, and hosts that tell it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fettle_proto::signed::start::Of;
use fettle_runbooks::follow::FollowUp;
use fettle_runbooks::id::Host;
use prost::Message as _;
use tokio::sync::{Notify, Semaphore, mpsc};
use v1::report::What;

use super::*;
use crate::coordinator::Handle;
use crate::dispatch::Message;
use crate::model::Change;
use crate::store;
use crate::world::World;

/// A host that has seen a later epoch than the controller: so the controller has lost something.
pub(super) struct Teller {
    host: Host,
    pub(super) epoch: u64,
    seq: u64,
    acked: u64,
    inbox: mpsc::Receiver<Message>,
}

impl Teller {
    pub(super) async fn comes(bench: &Bench, name: &str, epoch_seen: u64) -> Teller {
        Teller::with_journal(bench, name, epoch_seen, "j").await
    }

    pub(super) async fn with_journal(bench: &Bench, name: &str, epoch_seen: u64, journal: &str) -> Teller {
        let host: Host = name.parse().unwrap();
        let (sender, inbox) = mpsc::channel(64);
        let hello = v1::Hello { protocol: 1, epoch_seen, journal: journal.into(), ..Default::default() };
        let certificate = AgentCertificate { serial: "1".into(), not_after: At(i64::MAX) };
        let welcome = bench.handle.agent_connected(host.clone(), hello, certificate, sender).await.unwrap();
        Teller { host, epoch: welcome.epoch, seq: 100 * welcome.epoch, acked: welcome.acked, inbox }
    }

    pub(super) async fn says(&mut self, bench: &Bench, run: RunId, segment: u32, what: What) {
        self.says_through(&bench.handle, run, segment, what).await;
    }

    async fn says_through(&mut self, handle: &Handle, run: RunId, segment: u32, what: What) {
        self.seq += 1;
        let at_ms = handle.world.now().0;
        let report = v1::Report { seq: self.seq, run: run.to_string(), segment, at_ms, what: Some(what) };
        let upto = handle.reports(self.host.clone(), self.epoch, vec![report]).await.unwrap();
        assert_eq!(upto, self.seq);
    }

    pub(super) async fn tells(
        &mut self,
        bench: &Bench,
        content: &v1::OrderContent,
        reports: Vec<v1::Report>,
    ) {
        self.tells_of_looks(bench, content, Vec::new(), reports).await;
    }

    /// … of segments of which these only looked at the symptom.
    pub(super) async fn tells_of_looks(
        &mut self,
        bench: &Bench,
        content: &v1::OrderContent,
        looks: Vec<u32>,
        reports: Vec<v1::Report>,
    ) {
        self.tells_through(&bench.handle, content, looks, reports).await;
    }

    async fn tells_through(
        &mut self,
        handle: &Handle,
        content: &v1::OrderContent,
        looks: Vec<u32>,
        reports: Vec<v1::Report>,
    ) {
        let order = v1::OrderContent { host: self.host.to_string(), ..content.clone() };
        let told =
            v1::ToldAgain { order: order.encode_to_vec().into(), reports, looks, ..Default::default() };
        let run = content.run.parse().unwrap();
        self.says_through(handle, run, content.segment, What::ToldAgain(told)).await;
    }

    /// … of an order of ours, to the byte.
    pub(super) async fn tells_of_ours(&mut self, bench: &Bench, order: &[u8], told: v1::ToldAgain) {
        let content = v1::OrderContent::decode(order).unwrap();
        let told = v1::ToldAgain { order: order.to_vec().into(), ..told };
        let run = content.run.parse().unwrap();
        self.says(bench, run, content.segment, What::ToldAgain(told)).await;
    }

    /// Tells so slowly that something happens after the store was asked about the run and before the coordinator hears the story.
    async fn tells_slowly(
        &mut self,
        bench: &Bench,
        content: &v1::OrderContent,
        reports: Vec<v1::Report>,
        meanwhile: impl Future<Output = ()>,
    ) {
        let slow = Arc::new(Slow::of(Arc::clone(&bench.handle.world)));
        let handle = Handle { world: Arc::clone(&slow) as Arc<dyn World>, ..bench.handle.clone() };
        let happens = async {
            slow.has_read.notified().await;
            meanwhile.await;
            slow.go_on.add_permits(1);
        };
        tokio::join!(self.tells_through(&handle, content, Vec::new(), reports), happens);
    }

    /// The next message that is an order or a cancel.
    pub(super) async fn hears(&mut self) -> v1::to_agent::What {
        loop {
            let message = tokio::time::timeout(Duration::from_secs(10), self.inbox.recv()).await;
            let what = message.expect("a message comes").expect("the stream is open").whole().what.unwrap();
            if let v1::to_agent::What::Order(_) | v1::to_agent::What::Cancel(_) = what {
                return what;
            }
        }
    }
}

/// A world in which what was read waits before anybody gets it.
struct Slow {
    world: Arc<dyn World>,
    has_read: Arc<Notify>,
    go_on: Arc<Semaphore>,
}

impl Slow {
    fn of(world: Arc<dyn World>) -> Slow {
        Slow { world, has_read: Arc::new(Notify::new()), go_on: Arc::new(Semaphore::new(0)) }
    }
}

impl World for Slow {
    fn now(&self) -> At {
        self.world.now()
    }
    fn sleep_until(&self, at: At) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.world.sleep_until(at)
    }
    fn uuid(&self) -> uuid::Uuid {
        self.world.uuid()
    }
    fn secret(&self) -> [u8; 32] {
        self.world.secret()
    }
    fn aside(&self, work: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (reading, go_on) = (self.world.aside(work), Arc::clone(&self.go_on));
        let has_read = Arc::clone(&self.has_read);
        Box::pin(async move {
            reading.await;
            has_read.notify_one();
            drop(go_on.acquire().await);
        })
    }
}

pub(super) fn report(segment: u32, what: What) -> v1::Report {
    v1::Report { segment, at_ms: 1_000_000, what: Some(what), ..Default::default() }
}

/// It has taken the diagnosis on.
fn begun() -> Vec<v1::Report> {
    vec![report(1, What::Accepted(v1::Accepted::default()))]
}

/// And found nothing to do.
fn nothing_to_do() -> Vec<v1::Report> {
    let done = v1::SegmentEnded {
        how: Some(v1::segment_ended::How::Done(v1::SegmentDone {})),
        ..Default::default()
    };
    let planned = report(1, What::Planned(v1::Planned::default()));
    [begun(), vec![planned, report(1, What::SegmentEnded(done))]].concat()
}

/// The order to diagnose, of a run that nobody here knows.
fn order(bench: &Bench, start: Option<&Start>) -> v1::OrderContent {
    let run = start.map_or_else(|| RunId::new(bench.clock.uuid()), |start| start.run);
    let signed = start.map(|start| signed::sign(&key("ana"), Namespace::Start, &start.encode()).unwrap());
    v1::OrderContent {
        run: run.to_string(),
        segment: 1,
        runbook: bench.handle.library().entries["host/disk-full"].bytes.clone(),
        start: signed.map(Into::into),
        not_after_ms: bench.clock.now().0 + MINUTE,
        work: Some(v1::order_content::Work::Diagnose(v1::Diagnose {})),
        ..Default::default()
    }
}

/// What Ana signed for these hosts.
fn start_on(bench: &Bench, hosts: &[&str]) -> Start {
    let runbook = bench.handle.library().entries["host/disk-full"].bytes.clone();
    let request = start(bench, "ana", RunId::new(bench.clock.uuid()), &runbook);
    let plain = Start::decode(&request.start.unwrap().bytes).unwrap();
    Start { hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(), ..plain }
}

/// `web-1 ended succeeded` and so on, once it is so.
async fn until(bench: &Bench, run: RunId, expected: &[&str]) {
    let mut last = Vec::new();
    let limit = Instant::now() + PATIENCE;
    while Instant::now() < limit {
        last.clear();
        if let Ok(run) = bench.handle.run(run).await {
            last.extend(run.hosts.iter().map(|it| format!("{} {} {}", it.host, it.state, it.ending)));
        }
        last.iter_mut().for_each(|line| *line = line.trim().to_owned());
        if last == expected {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("still not {expected:?}, but {last:?}");
}

#[tokio::test]
async fn a_run_on_several_hosts_is_over_when_each_of_them_has_told_its_part() {
    let bench = Bench::new(Mode::Auto).await;
    let start = start_on(&bench, &["web-1", "web-2", "web-3"]);
    let content = order(&bench, Some(&start));
    let mut one = Teller::comes(&bench, "web-1", 5).await;
    one.tells(&bench, &content, nothing_to_do()).await;
    until(&bench, start.run, &["web-1 ended succeeded", "web-2 diagnosing", "web-3 diagnosing"]).await;

    // The second has the order already, and says so before it tells.
    let mut two = Teller::comes(&bench, "web-2", 5).await;
    assert!(matches!(two.hears().await, v1::to_agent::What::Order(_)));
    let refused = v1::Refused { code: "segment-conflict".into(), message: "another".into() };
    two.says(&bench, start.run, 1, What::Refused(refused)).await;
    two.tells(&bench, &content, nothing_to_do()).await;
    until(&bench, start.run, &["web-1 ended succeeded", "web-2 ended succeeded", "web-3 diagnosing"]).await;

    // The third never had it: what was signed is still good.
    let mut three = Teller::comes(&bench, "web-3", 5).await;
    let v1::to_agent::What::Order(sent) = three.hears().await else { panic!("an order") };
    let sent = v1::OrderContent::decode(sent.content).unwrap();
    assert_eq!((sent.start, sent.segment), (content.start.clone(), 1));
    assert_eq!(bench.handle.run(start.run).await.unwrap().ended_at, 0);
    for report in nothing_to_do() {
        three.says(&bench, start.run, 1, report.what.unwrap()).await;
    }
    until(&bench, start.run, &["web-1 ended succeeded", "web-2 ended succeeded", "web-3 ended succeeded"])
        .await;
    assert_ne!(bench.handle.run(start.run).await.unwrap().ended_at, 0);
    bench.check().await;
}

#[tokio::test]
async fn a_host_that_is_late_is_heard_though_its_run_was_given_up() {
    let mut bench = Bench::new(Mode::Auto).await;
    let start = start_on(&bench, &["web-1", "web-2"]);
    let content = order(&bench, Some(&start));
    let mut one = Teller::comes(&bench, "web-1", 5).await;
    one.tells(&bench, &content, nothing_to_do()).await;
    until(&bench, start.run, &["web-1 ended succeeded", "web-2 diagnosing"]).await;
    bench.pass(60 * MINUTE);
    until(&bench, start.run, &["web-1 ended succeeded", "web-2 ended refused"]).await;
    assert_ne!(bench.handle.run(start.run).await.unwrap().ended_at, 0);
    let mut two = Teller::comes(&bench, "web-2", 5).await;
    two.tells(&bench, &content, begun()).await;
    until(&bench, start.run, &["web-1 ended succeeded", "web-2 diagnosing"]).await;
    assert_eq!(bench.handle.run(start.run).await.unwrap().ended_at, 0, "it goes on");
    bench.restart().await;
    let mut two = Teller::comes(&bench, "web-2", two.epoch).await;
    for report in nothing_to_do() {
        two.says(&bench, start.run, 1, report.what.unwrap()).await;
    }
    until(&bench, start.run, &["web-1 ended succeeded", "web-2 ended succeeded"]).await;
    // Told once more, nothing of it is news.
    two.tells(&bench, &content, begun()).await;
    until(&bench, start.run, &["web-1 ended succeeded", "web-2 ended succeeded"]).await;
    bench.check().await;
}

#[tokio::test]
async fn a_run_that_ends_while_a_host_tells_of_it_is_not_taken_for_a_stranger() {
    let bench = Bench::new(Mode::Auto).await;
    let start = start_on(&bench, &["web-1", "web-2"]);
    let content = order(&bench, Some(&start));
    let mut one = Teller::comes(&bench, "web-1", 5).await;
    one.tells(&bench, &content, nothing_to_do()).await;
    let mut two = Teller::comes(&bench, "web-2", 5).await;
    two.tells(&bench, &content, begun()).await;
    until(&bench, start.run, &["web-1 ended succeeded", "web-2 diagnosing"]).await;
    // The store is asked while the part of the other host is open.
    one.tells_slowly(&bench, &content, begun(), two.tells(&bench, &content, nothing_to_do())).await;
    until(&bench, start.run, &["web-1 ended succeeded", "web-2 ended succeeded"]).await;
    assert_ne!(bench.handle.run(start.run).await.unwrap().ended_at, 0);
    bench.check().await;
}

#[tokio::test]
async fn a_late_host_is_heard_though_its_run_is_given_up_while_it_tells() {
    let bench = Bench::new(Mode::Auto).await;
    let start = start_on(&bench, &["web-1", "web-2"]);
    let content = order(&bench, Some(&start));
    let mut one = Teller::comes(&bench, "web-1", 5).await;
    one.tells(&bench, &content, nothing_to_do()).await;
    until(&bench, start.run, &["web-1 ended succeeded", "web-2 diagnosing"]).await;
    let mut two = Teller::comes(&bench, "web-2", 5).await;
    let given_up = async {
        bench.pass(60 * MINUTE);
        until(&bench, start.run, &["web-1 ended succeeded", "web-2 ended refused"]).await;
    };
    two.tells_slowly(&bench, &content, begun(), given_up).await;
    until(&bench, start.run, &["web-1 ended succeeded", "web-2 diagnosing"]).await;
    two.tells(&bench, &content, nothing_to_do()).await;
    until(&bench, start.run, &["web-1 ended succeeded", "web-2 ended succeeded"]).await;
    bench.check().await;
}

#[tokio::test]
async fn a_run_that_another_host_brings_and_ends_while_one_tells_of_it_is_known() {
    let bench = Bench::new(Mode::Auto).await;
    let content = order(&bench, None);
    let run = content.run.parse().unwrap();
    let mut one = Teller::comes(&bench, "web-1", 5).await;
    let mut two = Teller::comes(&bench, "web-2", 5).await;
    two.tells_slowly(&bench, &content, begun(), one.tells(&bench, &content, nothing_to_do())).await;
    until(&bench, run, &["web-1 ended succeeded"]).await;
    bench.check().await;
}

#[tokio::test]
async fn a_cancel_that_one_host_tells_of_is_asked_of_the_others_again() {
    let bench = Bench::new(Mode::Auto).await;
    let start = start_on(&bench, &["web-1", "web-2", "web-3"]);
    let content = order(&bench, Some(&start));
    let mut two = Teller::comes(&bench, "web-2", 5).await;
    two.tells(&bench, &content, begun()).await;
    let mut one = Teller::comes(&bench, "web-1", 5).await;
    let cancelled = report(1, What::Cancelled(v1::Cancelled::default()));
    one.tells(&bench, &content, [begun(), vec![cancelled]].concat()).await;
    let stands = ["web-1 ended cancelled", "web-2 cancelling", "web-3 cancelling"];
    until(&bench, start.run, &stands).await;
    assert!(matches!(two.hears().await, v1::to_agent::What::Cancel(_)));
    // One that has it still and comes now does not take the cancel back.
    let mut three = Teller::comes(&bench, "web-3", 5).await;
    three.tells(&bench, &content, begun()).await;
    until(&bench, start.run, &stands).await;
    assert!(matches!(three.hears().await, v1::to_agent::What::Cancel(_)));
    bench.check().await;
}

#[tokio::test]
async fn a_host_that_joined_after_the_backup_and_never_comes_back_is_parted_with() {
    let bench = Bench::new(Mode::Auto).await;
    let start = start_on(&bench, &["web-1", "web-2"]);
    let mut one = Teller::comes(&bench, "web-1", 5).await;
    one.tells(&bench, &order(&bench, Some(&start)), nothing_to_do()).await;
    until(&bench, start.run, &["web-1 ended succeeded", "web-2 diagnosing"]).await;
    bench.handle.cancel(bench.session("ben"), start.run, "enough".into()).await.unwrap();
    until(&bench, start.run, &["web-1 ended succeeded", "web-2 cancelling"]).await;
    let nobody = bench.handle.revoke(bench.session("ben"), "web-9".parse().unwrap(), "gone".into()).await;
    assert_eq!(nobody.unwrap_err().code(), "not-found");
    bench.handle.revoke(bench.session("ben"), "web-2".parse().unwrap(), "gone".into()).await.unwrap();
    until(&bench, start.run, &["web-1 ended succeeded", "web-2 ended cancelled"]).await;
    bench.check().await;
}

#[tokio::test]
async fn a_host_that_may_not_have_missed_anything_is_not_stopped_by_another() {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let request = {
        let start = start_on(&bench, &["web-1", "web-2"]);
        let signed = signed::sign(&key("ana"), Namespace::Start, &start.encode()).unwrap();
        v1::StartRunRequest { start: Some(signed.into()), runbook: Default::default() }
    };
    let _two = Teller::comes(&bench, "web-2", 0).await;
    let run: RunId = bench.handle.start(bench.session("ana"), request).await.unwrap().run.parse().unwrap();
    let mine = agent.order().await;
    agent.accept(&bench, &mine).await;
    let mut two = Teller::comes(&bench, "web-2", 900).await;
    let cancelled = report(1, What::Cancelled(v1::Cancelled::default()));
    two.tells(&bench, &mine, [begun(), vec![cancelled]].concat()).await;
    until(&bench, run, &["web-1 diagnosing", "web-2 ended cancelled"]).await;
    bench.check().await;
}

#[tokio::test]
async fn a_start_that_is_sent_twice_starts_one_run_though_that_ends_before_the_second_is_heard() {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let start = start_on(&bench, &["web-1"]);
    let signed = signed::sign(&key("ana"), Namespace::Start, &start.encode()).unwrap();
    let request = v1::StartRunRequest { start: Some(signed.into()), runbook: Default::default() };
    let slow = Arc::new(Slow::of(Arc::clone(&bench.handle.world)));
    let handle = Handle { world: Arc::clone(&slow) as Arc<dyn World>, ..bench.handle.clone() };
    let first = async {
        slow.has_read.notified().await;
        assert!(bench.handle.start(bench.session("ana"), request.clone()).await.unwrap().created);
        let order = agent.order().await;
        let refused = v1::Refused { code: "vetoed".into(), message: "not here".into() };
        agent.report(&bench, &order, What::Refused(refused)).await;
        until(&bench, start.run, &["web-1 ended refused"]).await;
        slow.go_on.add_permits(1);
    };
    let (second, ()) = tokio::join!(handle.start(bench.session("ana"), request.clone()), first);
    assert!(!second.unwrap().created, "it was started, and is over");
    drop(handle);
    until(&bench, start.run, &["web-1 ended refused"]).await;
    bench.check().await;
}

#[tokio::test]
async fn a_host_has_no_part_in_a_run_that_does_not_name_it() {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let alert = bench.signal(Status::Firing).await.remove(0).run.unwrap();
    let mine = agent.order().await;
    agent.accept(&bench, &mine).await;
    let signed = start_on(&bench, &["web-1"]);
    let known = order(&bench, Some(&signed));
    agent.connect(&bench).await;
    let mut stranger = Teller::comes(&bench, "web-9", 1_000_000).await;
    let theirs = v1::OrderContent { start: known.start.clone(), ..mine.clone() };
    let own = Start { hosts: ["web-9".parse().unwrap()].into(), run: alert, ..signed.clone() };
    for order in [mine.clone(), theirs, order(&bench, Some(&own))] {
        stranger.tells(&bench, &order, begun()).await;
        until(&bench, alert, &["web-1 diagnosing"]).await;
    }
    // Nor by what is over.
    agent.plan(&bench, &mine).await;
    let stopped = v1::segment_ended::How::Stopped(v1::SegmentStopped { reason: "test".into() });
    agent.end(&bench, &mine, stopped, NOT_RUN, false).await;
    bench.handle.cancel(bench.session("ben"), alert, String::new()).await.unwrap();
    agent.report(&bench, &mine, What::Cancelled(v1::Cancelled::default())).await;
    until(&bench, alert, &["web-1 ended cancelled"]).await;
    stranger.tells(&bench, &mine, begun()).await;
    until(&bench, alert, &["web-1 ended cancelled"]).await;
    bench.check().await;
}

#[tokio::test]
async fn a_host_that_makes_up_runs_has_64_of_them_open_and_the_rest_is_heard_later() {
    let bench = Bench::new(Mode::Auto).await;
    let mut liar = Teller::comes(&bench, "web-1", 5).await;
    let orders: Vec<v1::OrderContent> = (0..70).map(|_| order(&bench, None)).collect();
    for order in &orders {
        liar.tells(&bench, order, begun()).await;
    }
    let open = async || {
        bench.handle.runs(v1::ListRunsRequest { limit: 200, ..Default::default() }).await.unwrap().len()
    };
    assert_eq!(open().await, 64);
    let last: RunId = orders[69].run.parse().unwrap();
    assert_eq!(bench.handle.run(last).await.unwrap_err().code(), "not-found");
    let history = bench.handle.store.history(store::Of::Everything, 0, 10_000).unwrap();
    let said = history.iter().filter(|record| matches!(record.change, Change::Missed { .. })).count();
    assert_eq!(said, 1, "history does not grow by what a host makes up");
    let text = bench.metrics.text();
    assert!(text.contains("fettle_runs_missed_total 6"), "{text}");
    // Half of them end.
    for order in &orders[..32] {
        for report in nothing_to_do() {
            liar.says(&bench, order.run.parse().unwrap(), 1, report.what.unwrap()).await;
        }
    }
    let gone = async { while liar.inbox.recv().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("it is sent away");
    let mut back = Teller::comes(&bench, "web-1", liar.epoch).await;
    assert_eq!(back.acked, 0, "it is to tell again");
    for order in &orders {
        back.tells(&bench, order, begun()).await;
    }
    assert_eq!(open().await, 70);
    assert_eq!(Teller::comes(&bench, "web-1", back.epoch).await.acked, back.seq, "once is enough");
    bench.check().await;
}

#[tokio::test]
async fn what_a_host_tells_of_no_segment_that_can_be_is_left_out() {
    let bench = Bench::new(Mode::Auto).await;
    let content = order(&bench, None);
    let mut one = Teller::comes(&bench, "web-1", 5).await;
    let ended = |segment| report(segment, What::Cancelled(v1::Cancelled::default()));
    let nothing = v1::Report { segment: 1, ..Default::default() };
    let odd = vec![ended(u32::MAX), nothing];
    one.tells(&bench, &content, [begun(), odd].concat()).await;
    let run = content.run.parse().unwrap();
    until(&bench, run, &["web-1 diagnosing"]).await;
    // Nor by an order that is another's, cannot be read, or of such a segment.
    let other = order(&bench, None);
    let far = v1::OrderContent { segment: u32::MAX, ..order(&bench, None) };
    one.tells(&bench, &far, begun()).await;
    for bytes in [Bytes::from_static(b"\xff"), other.encode_to_vec().into()] {
        let told = v1::ToldAgain { order: bytes, reports: begun(), ..Default::default() };
        one.says(&bench, run, 1, What::ToldAgain(told)).await;
    }
    until(&bench, run, &["web-1 diagnosing"]).await;
    assert_eq!(bench.handle.runs(v1::ListRunsRequest::default()).await.unwrap().len(), 1);
    bench.check().await;
}

/// Everything that the agent has ever reported, told again to a controller that knows nothing.
async fn retell(agent: &mut FakeAgent, order: &v1::OrderContent, bench: &Bench) {
    let reports = agent.reported.iter().map(|report| v1::Report { seq: 0, ..report.clone() }).collect();
    agent.connect(bench).await;
    let told = v1::ToldAgain { order: order.encode_to_vec().into(), reports, ..Default::default() };
    agent.report(bench, order, What::ToldAgain(told)).await;
}

#[tokio::test]
async fn a_run_at_a_gate_and_paused_waits_paused_at_a_gate_of_each_restored_controller() {
    let (first, mut agent) = at_the_gate().await;
    let run: RunId = first.run().await.id.parse().unwrap();
    first.handle.halt(first.session("ben"), halt(run, true)).await.unwrap();
    let content = v1::OrderContent {
        run: run.to_string(),
        host: "web-1".into(),
        segment: 2,
        certificates: first.handle.library().entries["host/disk-full"].certificates.clone(),
        runbook: first.handle.library().entries["host/disk-full"].bytes.clone(),
        inputs: first.run().await.inputs,
        ..Default::default()
    };
    agent.report(&first, &content, What::Paused(v1::Paused { on: true, count: 1 })).await;
    // Restored, and once more.
    for _ in 0..2 {
        let bench = Bench::new(Mode::Auto).await;
        retell(&mut agent, &content, &bench).await;
        bench.until("waiting gate").await;
        let gate = bench.decide("ana", Decision::Approve).await.unwrap();
        assert_eq!(gate.state, "approved");
        assert_eq!(bench.state().await.split_whitespace().collect::<Vec<_>>(), ["waiting", "gate"]);
        let reports = agent.reported.len();
        bench.handle.halt(bench.session("ben"), halt(run, false)).await.unwrap();
        bench.until("remediating").await;
        assert_eq!(agent.order().await.segment, 3);
        agent.orders.remove(&3);
        agent.reported.truncate(reports);
        bench.check().await;
    }
}

pub(super) fn halt(run: RunId, on: bool) -> crate::coordinator::Halt {
    crate::coordinator::Halt { run, host: None, on, reason: "look".into() }
}

/// A run that is paused with its plan, as in the backup, and the order that its host has.
pub(super) async fn planned_and_paused() -> (Bench, FakeAgent, v1::OrderContent) {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let run = bench.signal(Status::Firing).await.remove(0).run.unwrap();
    bench.handle.halt(bench.session("ben"), halt(run, true)).await.unwrap();
    let order = agent.order().await;
    agent.report(&bench, &order, What::Paused(v1::Paused { on: true, count: 1 })).await;
    agent.accept(&bench, &order).await;
    agent.step(&bench, &order, "diagnose/usage").await;
    agent.plan(&bench, &order).await;
    agent.done(&bench, &order, NOT_RUN).await;
    bench.until("planned").await;
    (bench, agent, order)
}

#[tokio::test]
async fn a_run_that_was_resumed_after_the_backup_goes_on_when_its_host_says_so() {
    let (bench, mut agent, order) = planned_and_paused().await;
    let resumed = report(1, What::Paused(v1::Paused { on: false, count: 2 }));
    let told =
        v1::ToldAgain { order: order.encode_to_vec().into(), reports: vec![resumed], ..Default::default() };
    agent.report(&bench, &order, What::ToldAgain(told)).await;
    bench.until("remediating").await;
    assert_eq!(agent.order().await.segment, 2);
    assert!(bench.run().await.hosts[0].pause.is_none());
    bench.check().await;
}

#[tokio::test]
async fn nothing_that_acts_is_sent_to_a_host_that_tells_of_a_pause() {
    let (first, mut agent, order) = planned_and_paused().await;
    drop(first);
    let bench = Bench::new(Mode::Auto).await;
    retell(&mut agent, &order, &bench).await;
    bench.until("planned").await;
    let run: RunId = bench.run().await.id.parse().unwrap();
    assert!(bench.run().await.hosts[0].pause.is_some());
    bench.handle.halt(bench.session("ben"), halt(run, false)).await.unwrap();
    bench.until("remediating").await;
    bench.check().await;
}

#[tokio::test]
async fn a_pause_that_people_ask_for_after_a_restore_is_not_ended_by_one_before_it() {
    let (bench, mut agent, order) = planned_and_paused().await;
    let run: RunId = bench.run().await.id.parse().unwrap();
    agent.leave(&bench).await;
    bench.handle.halt(bench.session("ben"), halt(run, false)).await.unwrap();
    bench.handle.halt(bench.session("ben"), halt(run, true)).await.unwrap();
    agent.connect(&bench).await;
    // Before the restore people had resumed, paused and resumed it.
    let resumed = report(1, What::Paused(v1::Paused { on: false, count: 4 }));
    let told =
        v1::ToldAgain { order: order.encode_to_vec().into(), reports: vec![resumed], ..Default::default() };
    agent.report(&bench, &order, What::ToldAgain(told)).await;
    let pause = agent.hears_pause_after(4).await;
    assert_eq!((pause.on, pause.count), (true, 5));
    let confirmed = || async { bench.run().await.hosts[0].pause.as_ref().map(|pause| pause.confirmed) };
    assert_eq!(confirmed().await, Some(false));
    agent.report(&bench, &order, What::Paused(v1::Paused { on: true, count: 5 })).await;
    assert_eq!(confirmed().await, Some(true));
    bench.check().await;
}

#[tokio::test]
async fn whoever_must_look_after_a_restore_is_told_a_command_that_can_be_typed() {
    let bench = Bench::new(Mode::Auto).await;
    let content = v1::OrderContent { segment: 2, ..order(&bench, None) };
    let unknown = v1::SegmentEnded {
        how: Some(v1::segment_ended::How::Unknown(v1::SegmentUnknown {
            path: "remediate/purge".into(),
            attempt: 1,
            reason: "power was lost".into(),
        })),
        effects: true,
        ..Default::default()
    };
    let mut one = Teller::comes(&bench, "web-1", 5).await;
    one.tells(&bench, &content, [begun(), vec![report(2, What::SegmentEnded(unknown))]].concat()).await;
    bench.until("waiting resolve").await;
    let text = || {
        let bodies = bench.inbox.bodies.lock().unwrap();
        let wanted = bodies.iter().find(|body| body["kind"] == "resolve-wanted");
        wanted.and_then(|body| Some(body["text"].as_str()?.to_owned()))
    };
    eventually(|| text().is_some()).await;
    let typed = format!(
        "then: fettle run resolve {} --host web-1 --step remediate/purge (--ran | --did-not-run | --run-again) --reason '…'",
        content.run
    );
    assert_eq!(text(), Some(typed), "{:?}", bench.inbox.kinds());
    bench.check().await;
}

#[tokio::test]
async fn an_undo_that_only_its_host_knows_is_taken_in_as_one() {
    let bench = Bench::new(Mode::Auto).await;
    let earlier = RunId::new(bench.clock.uuid());
    let of =
        Of { run: earlier, how: FollowUp::Undo, reason: "it got worse".into(), found: Default::default() };
    let start = Start { of: Some(of), ..start_on(&bench, &["web-1"]) };
    let mut one = Teller::comes(&bench, "web-1", 5).await;
    one.tells(&bench, &order(&bench, Some(&start)), begun()).await;
    let of = bench.handle.run(start.run).await.unwrap().of.unwrap();
    assert_eq!((of.run, of.how), (earlier.to_string(), "undo".to_owned()));
    bench.check().await;
}

#[tokio::test]
async fn a_pause_of_a_host_that_has_not_told_its_part_yet_is_not_ended_by_an_older_resumption() {
    let bench = Bench::new(Mode::Auto).await;
    let start = start_on(&bench, &["web-1", "web-2"]);
    let content = order(&bench, Some(&start));
    let mut one = Teller::comes(&bench, "web-1", 5).await;
    one.tells(&bench, &content, nothing_to_do()).await;
    bench.handle.halt(bench.session("ben"), halt(start.run, true)).await.unwrap();
    let mut two = Teller::comes(&bench, "web-2", 5).await;
    let resumed = report(1, What::Paused(v1::Paused { on: false, count: 2 }));
    two.tells(&bench, &content, [begun(), vec![resumed]].concat()).await;
    until(&bench, start.run, &["web-1 ended succeeded", "web-2 diagnosing"]).await;
    let shown = bench.handle.run(start.run).await.unwrap();
    assert!(shown.hosts[1].pause.is_some(), "people were told that it is paused");
    bench.check().await;
}
