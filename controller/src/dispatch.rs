//! What is asked of a host: orders, produced once as bytes and kept in the outbox until their segment is over.

use std::time::Duration;

use fettle_proto::grant::Grant;
use fettle_proto::signed::words::risk_word;
use fettle_proto::signed::{Tag, digest};
use fettle_proto::v1;
use fettle_runbooks::id::{Digest, Host};
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

/// The order's row, its content produced here and nowhere else.
pub fn order(run: &RunRow, needed: Needed<'_>) -> OrderRow {
    let plan_digest = bytes::Bytes::copy_from_slice(needed.plan.as_ref().map_or(&[][..], |digest| &digest.0));
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
        digest: digest(Tag::Order, &[&run.shared.0[..], &content.0[..]].concat()),
        content,
        after_shared: !run.shared.is_empty(),
        issued_at: needed.now,
        not_after,
        accepted_at: None,
        closed_at: None,
    }
}

/// The message that carries an order of a run. Members of a protobuf message may come in any order, and one after the other
/// is one message.
pub fn message(run: &RunRow, order: &OrderRow) -> v1::ToAgent {
    let content = match order.after_shared {
        true => [&run.shared.0[..], &order.content.0[..]].concat().into(),
        false => order.content.bytes(),
    };
    let order = v1::Order { content, digest: bytes::Bytes::copy_from_slice(&order.digest.0) };
    v1::ToAgent { what: Some(v1::to_agent::What::Order(order)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::row::Origin;
    use crate::policy::Mode;
    use crate::run::{Beginning, begin};

    /// The message of an order, whose digest must be that of its content.
    fn order_of(run: &RunRow, host: &Host) -> v1::OrderContent {
        let work = Work::Diagnose;
        let needed =
            Needed { host, segment: 1, work: &work, plan: None, also_from: None, grant: None, now: At(7) };
        let row = order(run, needed);
        let Some(v1::to_agent::What::Order(sent)) = message(run, &row).what else { panic!("an order") };
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
}
