//! `fettle login`: the controller's challenge, the person's signature, a short session.

use std::time::Duration;

use fettle_proto::signed::{Login, Namespace};
use fettle_proto::v1;
use jiff::Timestamp;
use serde_json::json;
use v1::login_reply::What as Reply;
use v1::login_request::What as Request;

use super::keys::{Wanted, signer};
use crate::client::{connect_unsigned, explain};
use crate::config::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::{time, time_json};
use crate::session::Session;

/// A challenge that stays good for longer than this is not one.
const LONGEST: Duration = Duration::from_secs(15 * 60);

pub(super) async fn login(context: &Context) -> Result<Exit> {
    let person = context.person()?;
    // Before anything else: a session that cannot be kept, or a key that is not there, needs no controller.
    context.session_file()?;
    let signer = signer(context, Wanted::Any)?;
    let root = crate::client::root(context)?;

    let mut calls = connect_unsigned(context).await?;
    let (send, requests) = tokio::sync::mpsc::channel(2);
    let open = v1::LoginOpen { person: person.to_owned() };
    say(&send, Request::Open(open)).await?;
    let exchange = async {
        let stream = calls.login(tokio_stream::wrappers::ReceiverStream::new(requests)).await;
        let mut replies = stream.map_err(|status| explain(context, status))?.into_inner();
        let challenge = match next(context, &mut replies).await? {
            Reply::Challenge(bytes) => bytes,
            Reply::Session(_) => return Err(unexpected("a session before its challenge")),
        };
        sensible(&challenge, person, &root, super::now())?;
        let answer = signer.sign(Namespace::Login, &challenge)?;
        say(&send, Request::Answer(answer.into())).await?;
        match next(context, &mut replies).await? {
            Reply::Session(session) => Ok(session),
            Reply::Challenge(_) => Err(unexpected("a second challenge")),
        }
    };
    let waited = context.timeout.max(Duration::from_secs(10)) * 2; // ssh-agent may ask its user.
    let session = tokio::time::timeout(waited, exchange).await.map_err(|_| {
        Error::new(Exit::Unreachable, "the controller did not answer in time")
            .at(context.controller().unwrap_or(""))
    })??;
    keep(context, person, session)
}

async fn say(send: &tokio::sync::mpsc::Sender<v1::LoginRequest>, what: Request) -> Result<()> {
    let request = v1::LoginRequest { what: Some(what) };
    send.send(request).await.map_err(|_| unexpected("the end of the exchange"))
}

async fn next(context: &Context, replies: &mut tonic::Streaming<v1::LoginReply>) -> Result<Reply> {
    let reply = replies.message().await.map_err(|status| explain(context, status))?;
    reply.and_then(|reply| reply.what).ok_or_else(|| unexpected("nothing that this fettle knows"))
}

fn unexpected(what: &str) -> Error {
    Error::new(Exit::Failed, "the controller does not follow the exchange").why(format!("it sent {what}"))
}

/// What a person signs unseen must be a login of theirs to this controller and nothing else, and be void soon.
fn sensible(challenge: &[u8], person: &str, root: &str, now: Timestamp) -> Result<()> {
    let refuse =
        |why: String| Error::new(Exit::NotAllowed, "the controller's challenge is not one to sign").why(why);
    let login = Login::decode(challenge).map_err(|error| refuse(error.to_string()))?;
    // A session of one controller is of no use to another that only passed its challenge on.
    if login.controller != root {
        let why =
            format!("it is of the controller with the root fingerprint {}, not of {root}", login.controller);
        return Err(
            refuse(why).fix("the one you are connected to passes on another's challenge: tell who runs it")
        );
    }
    if login.person != person {
        return Err(refuse(format!("it is for `{}`", login.person)));
    }
    if login.expires.as_millisecond() - now.as_millisecond() > LONGEST.as_millis() as i64 {
        return Err(refuse(format!("it stays good until {}", login.expires))
            .fix("if this machine's clock is wrong, set it"));
    }
    Ok(())
}

fn keep(context: &Context, person: &str, session: v1::LoginSession) -> Result<Exit> {
    let kept = Session {
        controller: context.controller()?.to_owned(),
        person: person.to_owned(),
        token: session.token,
        expires_at: session.expires_at,
    };
    kept.save(context)?;
    let data = json!({
        "person": kept.person, "controller": kept.controller, "expires_at": time_json(kept.expires_at),
    });
    context.output.show(&data, || format!("signed in as {person} until {}", time(kept.expires_at)))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_challenge_of_this_controller_for_this_person_that_is_void_soon_is_signed() {
        let now: Timestamp = "2026-11-21T18:00:00Z".parse().expect("a time");
        let challenge = |person: &str, expires: &str| {
            Login {
                controller: "fettle".to_owned(),
                challenge: [1; 32],
                person: person.to_owned(),
                expires: expires.parse().expect("a time"),
            }
            .encode()
        };
        let sensible = |challenge: &[u8], root: &str| sensible(challenge, "ana", root, now);
        sensible(&challenge("ana", "2026-11-21T18:02:00Z"), "fettle").expect("sensible");
        sensible(&challenge("ana", "2026-11-21T18:02:00Z"), "other").expect_err("another controller's");
        sensible(&challenge("ben", "2026-11-21T18:02:00Z"), "fettle").expect_err("another person");
        sensible(&challenge("ana", "2027-11-21T18:02:00Z"), "fettle").expect_err("good for a year");
        sensible(b"{\"fettle\":\"approval/1\"}", "fettle").expect_err("no login at all");
    }
}
