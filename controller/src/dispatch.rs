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
    let content = v1::OrderContent {
        run: run.id.to_string(),
        host: needed.host.to_string(),
        segment: needed.segment,
        runbook: run.source.bytes(),
        certificates: run.certificates.iter().map(v1::Signed::from).collect(),
        inputs: run.inputs.clone().into_iter().collect(),
        start: run.start.as_ref().map(v1::Signed::from),
        not_after_ms: not_after.0,
        work: Some(work),
    }
    .encode_to_vec();
    OrderRow {
        run: run.id,
        host: needed.host.clone(),
        segment: needed.segment,
        digest: digest(Tag::Order, &content),
        content: Blob::new(content),
        issued_at: needed.now,
        not_after,
        accepted_at: None,
        closed_at: None,
    }
}

/// The message that carries it.
pub fn message(order: &OrderRow) -> v1::ToAgent {
    let order =
        v1::Order { content: order.content.bytes(), digest: bytes::Bytes::copy_from_slice(&order.digest.0) };
    v1::ToAgent { what: Some(v1::to_agent::What::Order(order)) }
}
