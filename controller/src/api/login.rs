//! Signing in: a challenge, a signature, a short session; one conversation on one stream.

use std::time::Duration;

use fettle_proto::v1::{self, login_reply, login_request};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::door::Place;
use super::refusal::{invalid, no};
use super::{Events, Parts};
use crate::tasks::TaskKind;

/// For the first message.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// For the signature: a key may be on a token that somebody must touch, or behind a passphrase.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);

/// Starts the conversation.
pub(super) fn start(
    parts: &Parts,
    requests: Streaming<v1::LoginRequest>,
    place: Place,
) -> Events<v1::LoginReply> {
    let (replies, stream) = mpsc::channel(2);
    let (talking, stopping) = (parts.clone(), parts.tasks.stopping());
    parts.tasks.spawn(TaskKind::Login, async move {
        let _place = place;
        let talk = converse(&talking, requests, &replies);
        let ended = match stopping.run_until_cancelled(talk).await {
            Some(ended) => ended,
            None => Err(Status::unavailable("the controller is stopping")),
        };
        let code = ended.as_ref().err().map_or(tonic::Code::Ok, Status::code);
        talking.metrics.called("Login", code);
        if let Err(status) = ended {
            // The client has gone: nobody is left to be told.
            let _ = replies.send(Err(status)).await;
        }
    });
    ReceiverStream::new(stream).boxed()
}

async fn converse(
    parts: &Parts,
    mut requests: Streaming<v1::LoginRequest>,
    replies: &mpsc::Sender<Result<v1::LoginReply, Status>>,
) -> Result<(), Status> {
    let Some(login_request::What::Open(open)) = next(&mut requests, OPEN_WITHIN).await? else {
        return Err(invalid("the first message of a login names the person", "", ""));
    };
    let challenge = parts.handle.challenge(open.person).await.map_err(|problem| no(&problem))?;
    let shown = login_reply::What::Challenge(challenge.clone().into());
    let sent = replies.send(Ok(v1::LoginReply { what: Some(shown) })).await;
    let answered = match sent {
        Ok(()) => next(&mut requests, ANSWER_WITHIN).await,
        Err(_) => Ok(None),
    };
    let Ok(Some(login_request::What::Answer(signed))) = answered else {
        // Kept, it would take the place of one that somebody is about to answer.
        parts.handle.forget_challenge(challenge).await;
        answered?;
        return Err(invalid("the second message of a login is the signed challenge", "", ""));
    };
    let session = parts.handle.answer(challenge, signed).await.map_err(|problem| no(&problem))?;
    let _ = replies.send(Ok(v1::LoginReply { what: Some(login_reply::What::Session(session)) })).await;
    Ok(())
}

async fn next(
    requests: &mut Streaming<v1::LoginRequest>,
    within: Duration,
) -> Result<Option<login_request::What>, Status> {
    match tokio::time::timeout(within, requests.message()).await {
        Ok(message) => Ok(message?.and_then(|message| message.what)),
        Err(_) => Err(Status::deadline_exceeded("the login took too long\nnext: fettle login")),
    }
}
