//! `fettle whoami`

use fettle_proto::v1;
use serde_json::json;

use crate::client::{answer, connect};
use crate::config::Context;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{time, time_json, visible};

pub(super) async fn run(context: &Context) -> Result<Exit> {
    let mut calls = connect(context).await?;
    let me = answer(context, calls.who_am_i(v1::WhoAmIRequest {})).await?;
    let data = json!({
        "person": me.person, "groups": me.groups, "scopes": me.scopes, "expires_at": time_json(me.expires_at),
    });
    context.output.show(&data, || {
        let list = |words: &[String]| match words {
            [] => "none".to_owned(),
            words => visible(&words.join(", ")).into_owned(),
        };
        format!(
            "{}\n  groups: {}\n  may:    {}\n  until:  {}",
            visible(&me.person),
            list(&me.groups),
            list(&me.scopes),
            time(me.expires_at)
        )
    })?;
    Ok(Exit::Done)
}
