//! What is asked of a host: orders, produced once as bytes and kept in the outbox until their segment is over.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use fettle_proto::grant::Grant;
use fettle_proto::signed::words::risk_word;
use fettle_proto::signed::{Tag, beginning};
use fettle_proto::v1;
use fettle_runbooks::id::{Beginning, Digest, Host};
use fettle_runbooks::run::Work;
use fettle_runbooks::runbook::Risk;
use prost::Message as _;

use crate::model::row::{Blob, OrderRow, RunRow};
use crate::world::At;

/// A diagnosis that a host could not take on for so long is of no use any more.
pub const DIAGNOSE_WITHIN: Duration = Duration::from_secs(15 * 60);

/// So long a host may take to begin what needs no approval of people, or only looks.
pub const BEGIN_WITHIN: Duration = Duration::from_secs(60 * 60);

/// What an order is made of, beside its run.
#[derive(Debug)]
pub struct Needed<'a> {
    /// The host.
    pub host: &'a Host,
    /// The segment's number.
    pub segment: u32,
    /// What it asks for.
    pub work: &'a Work,
    /// The plan, once there is one.
    pub plan: Option<Digest>,
    /// From which risk on every step waits for people.
    pub also_from: Option<Risk>,
    /// What people granted, and until when it must have begun.
    pub grant: Option<(Grant, At)>,
    /// Now.
    pub now: At,
}

/// So many runs may send orders in turn before one is hashed anew.
const RUNS: usize = 4;

/// Digests of orders. The orders of a run begin alike, with what was signed for all of its hosts: that is hashed once for each
/// length, not for each host.
#[derive(Debug, Default)]
pub struct Digests {
    /// What the orders of the last runs began with, the last first.
    runs: VecDeque<Beginning<Bytes>>,
}

impl Digests {
    fn of(&mut self, shared: &Bytes, own: &[u8]) -> Digest {
        // The same memory: it is kept here, so nothing else can be in its place.
        let here = |run: &Beginning<Bytes>| run.bytes().as_ptr_range() == shared.as_ptr_range();
        let known = self.runs.iter().position(here).and_then(|at| self.runs.remove(at));
        let mut run = known.unwrap_or_else(|| beginning(Tag::Order, shared.clone()));
        let digest = run.with(own);
        self.runs.push_front(run);
        self.runs.truncate(RUNS);
        digest
    }
}

/// The order's row, its content produced here and nowhere else.
pub fn order(run: &RunRow, needed: Needed<'_>, digests: &mut Digests) -> OrderRow {
    let plan_digest = Bytes::copy_from_slice(needed.plan.as_ref().map_or(&[][..], |digest| &digest.0));
    let start_by = needed.grant.as_ref().map(|(_, start_by)| *start_by);
    let (work, within) = match needed.work {
        Work::Diagnose => (v1::order_content::Work::Diagnose(v1::Diagnose {}), DIAGNOSE_WITHIN),
        Work::Remediate { from, .. } => (
            v1::order_content::Work::Remediate(v1::Remediate {
                plan_digest,
                from: from.clone(),
                gate_from_risk: needed.also_from.map(risk_word).unwrap_or_default().to_owned(),
                grant: needed.grant.map(|(grant, _)| grant.into()),
            }),
            BEGIN_WITHIN,
        ),
        Work::Verify => (v1::order_content::Work::Verify(v1::Verify { plan_digest }), BEGIN_WITHIN),
    };
    let not_after = start_by.unwrap_or_else(|| needed.now.plus(within));
    let own = v1::OrderContent {
        host: needed.host.to_string(),
        segment: needed.segment,
        not_after_ms: not_after.0,
        work: Some(work),
        ..v1::OrderContent::default()
    };
    let content = match run.shared.is_empty() {
        false => own,
        // Begun by an earlier version.
        true => v1::OrderContent {
            run: run.id.to_string(),
            runbook: run.source.bytes(),
            certificates: run.certificates.iter().map(v1::Signed::from).collect(),
            inputs: run.inputs.clone().into_iter().collect(),
            start: run.start.as_ref().map(v1::Signed::from),
            ..own
        },
    };
    let content = Blob::new(content.encode_to_vec());
    OrderRow {
        run: run.id,
        host: needed.host.clone(),
        segment: needed.segment,
        digest: digests.of(&run.shared.0, &content.0),
        content,
        after_shared: !run.shared.is_empty(),
        issued_at: needed.now,
        not_after,
        accepted_at: None,
        closed_at: None,
    }
}

/// What a host is told, on its way to the host's stream.
#[derive(Clone, Debug)]
pub enum Message {
    /// An order that begins as others of its run do. It is put together when the stream takes it: ten thousand that wait would fill
    /// gigabytes.
    Order(Box<Sharing>),
    /// Anything else.
    Whole(Box<v1::ToAgent>),
}

/// An order in two parts.
#[derive(Clone, Debug)]
pub struct Sharing {
    shared: Bytes,
    own: Bytes,
    digest: Digest,
}

impl Message {
    /// Puts it together. Members of a protobuf message may come in any order, and one after the other is one message.
    pub fn whole(self) -> v1::ToAgent {
        match self {
            Message::Order(order) => {
                let content = [&order.shared[..], &order.own[..]].concat().into();
                order_of(content, &order.digest)
            }
            Message::Whole(whole) => *whole,
        }
    }
}

impl From<v1::ToAgent> for Message {
    fn from(whole: v1::ToAgent) -> Message {
        Message::Whole(Box::new(whole))
    }
}

fn order_of(content: Bytes, digest: &Digest) -> v1::ToAgent {
    let order = v1::Order { content, digest: Bytes::copy_from_slice(&digest.0) };
    v1::ToAgent { what: Some(v1::to_agent::What::Order(order)) }
}

/// The message that carries an order of a run.
pub fn message(run: &RunRow, order: &OrderRow) -> Message {
    if !order.after_shared {
        return order_of(order.content.bytes(), &order.digest).into();
    }
    let (shared, own) = (run.shared.bytes(), order.content.bytes());
    Message::Order(Box::new(Sharing { shared, own, digest: order.digest }))
}

#[cfg(test)]
mod tests {
    use fettle_proto::signed::digest;

    use super::*;
    use crate::model::row::Origin;
    use crate::policy::Mode;
    use crate::run::{Beginning, begin};

    /// The message of an order, whose digest must be that of its content.
    fn order_of(run: &RunRow, host: &Host) -> v1::OrderContent {
        let work = Work::Diagnose;
        let needed =
            Needed { host, segment: 1, work: &work, plan: None, also_from: None, grant: None, now: At(7) };
        let row = order(run, needed, &mut Digests::default());
        let Some(v1::to_agent::What::Order(sent)) = message(run, &row).whole().what else {
            panic!("an order")
        };
        assert_eq!(digest(Tag::Order, &sent.content), row.digest);
        v1::OrderContent::decode(sent.content).expect("an order")
    }

    #[test]
    fn an_order_says_the_same_whether_its_run_keeps_what_they_share_or_an_earlier_version_began_it() {
        let host: Host = "web-1".parse().expect("a host");
        let signature = Some(v1::envelope::Signature::Sshsig("signature".into()));
        let signed = v1::Signed { bytes: "signed".into(), envelope: Some(v1::Envelope { signature }) };
        let (run, _) = begin(Beginning {
            id: fettle_runbooks::id::RunId::new(uuid::Uuid::nil()),
            runbook: "host/x",
            digest: Digest([1; 32]),
            bytes: "a runbook".into(),
            certificates: std::slice::from_ref(&signed),
            certified: true,
            inputs: [("mount".to_owned(), "/var".to_owned())].into(),
            origin: Origin::Person("ana".into()),
            start: Some(signed.clone()),
            incident: None,
            signal: None,
            mode: Mode::Auto,
            hosts: vec![host.clone()],
            of: None,
            now: At(0),
        });
        let earlier = RunRow { shared: Blob::default(), ..run.clone() };
        let said = order_of(&run, &host);
        assert_eq!(said, order_of(&earlier, &host));
        assert_eq!(
            (said.runbook, said.host, said.start.is_some()),
            ("a runbook".into(), "web-1".into(), true)
        );
    }

    #[test]
    fn what_orders_begin_with_is_kept_for_the_last_runs_and_never_taken_for_what_others_begin_with() {
        let mut digests = Digests::default();
        let runs: Vec<Bytes> = (0..=RUNS).map(|run| Bytes::from(vec![run as u8 / 2; 100])).collect();
        for own in [&b"web-1"[..], b"web-2", b"web-10", b"", b"web-1"] {
            for shared in &runs {
                let whole = [shared, own].concat();
                assert_eq!(digests.of(shared, own), digest(Tag::Order, &whole));
            }
            assert_eq!(digests.runs.len(), RUNS);
        }
        let kept = |digests: &Digests, run: &Bytes| {
            digests.runs.iter().any(|known| known.bytes().as_ptr_range() == run.as_ptr_range())
        };
        // The second of five was used last but three; now it is the last, and the third is the one that goes.
        digests.of(&runs[1], b"web-1");
        digests.of(&runs[0], b"web-1");
        let all: Vec<bool> = runs.iter().map(|run| kept(&digests, run)).collect();
        assert_eq!(all, [true, true, false, true, true]);
    }
}
