//! Joining a host: one conversation on one connection.
//!
//! The controller shows what it is before the agent shows its token, so that a token is never spent at a stranger's.

use std::sync::Arc;

use fettle_proto::v1;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{Answer, Answers, Fleet, PROTOCOL, Shared, answering, certificate, refusal};
use crate::ca::Ca;
use crate::tasks::TaskKind;

pub(super) fn start<F: Fleet>(
    shared: &Arc<Shared<F>>,
    requests: Streaming<v1::EnrolRequest>,
) -> Result<Answers<v1::EnrolReply>, Status> {
    let turn = Arc::clone(&shared.enrolments).try_acquire_owned().map_err(|_| refusal::busy())?;
    let of = Arc::clone(shared);
    Ok(answering(&shared.parts.tasks, TaskKind::Enrolment, |answers| async move {
        let _turn = turn;
        let limit = of.parts.settings.enrolment;
        tokio::time::timeout(limit, converse(&of, requests, answers))
            .await
            .unwrap_or_else(|_| Err(refusal::too_slow("joining")))
    }))
}

async fn converse<F: Fleet>(
    shared: &Shared<F>,
    mut requests: Streaming<v1::EnrolRequest>,
    answers: mpsc::Sender<Answer<v1::EnrolReply>>,
) -> Result<(), Status> {
    use v1::enrol_request::What::{Open, Spend};
    let parts = &shared.parts;

    let Some(Open(open)) = next(&mut requests).await? else {
        return Err(refusal::out_of_order("`open`"));
    };
    if open.protocol != PROTOCOL {
        return Err(refusal::protocol(open.protocol));
    }
    let trust = v1::TrustBundle { bytes: parts.trust.clone() };
    answer(&answers, v1::enrol_reply::What::Trust(trust)).await;

    let Some(Spend(spend)) = next(&mut requests).await? else {
        return Err(refusal::out_of_order("`spend`"));
    };
    // A request that cannot be used shall not cost a token.
    Ca::check_request(&spend.csr_der).map_err(|error| refusal::certificate(&error))?;
    let enrolment =
        parts.fleet.spend_token(spend.token).await.map_err(|problem| refusal::status(&problem))?;
    let issued = parts
        .ca
        .issue(&enrolment.host, &spend.csr_der, parts.world.now())
        .map_err(|error| refusal::certificate(&error))?;
    parts
        .fleet
        .certificate_issued(enrolment.host.clone(), certificate(&issued.identity))
        .await
        .map_err(|problem| refusal::status(&problem))?;
    tracing::info!(host = %enrolment.host, serial = issued.identity.serial, "Host joined.");
    let done = v1::EnrolDone {
        host: enrolment.host.to_string(),
        labels: enrolment.labels.into_iter().collect(),
        certificate_der: issued.der.into(),
    };
    answer(&answers, v1::enrol_reply::What::Done(done)).await;
    Ok(())
}

async fn next(requests: &mut Streaming<v1::EnrolRequest>) -> Result<Option<v1::enrol_request::What>, Status> {
    Ok(requests.message().await?.and_then(|request| request.what))
}

async fn answer(answers: &mpsc::Sender<Answer<v1::EnrolReply>>, what: v1::enrol_reply::What) {
    // A caller that has left ends the conversation at its next turn.
    let _ = answers.send(Box::new(Ok(v1::EnrolReply { what: Some(what) }))).await;
}
