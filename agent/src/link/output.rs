//! Live output: forwarded while the controller gives credit, dropped otherwise. What is lost here is still in the step's
//! result or on the host.

use std::time::Duration;

use fettle_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Chunks on their way into the stream.
const QUEUE: usize = 16;
/// After a stream that failed, the next one is opened no sooner.
const PAUSE: Duration = Duration::from_secs(5);

/// Forwards until the works are gone. The stream is opened with the first chunk, so that a host that does nothing has
/// only its control stream.
pub(super) async fn forward(channel: Channel, output: &mut mpsc::Receiver<v1::OutputChunk>) {
    while let Some(first) = output.recv().await {
        match stream(channel.clone(), first, output).await {
            Ok(Over::WorksGone) => return,
            Ok(Over::Ended) => {}
            Err(status) => tracing::debug!(%status, "Live output is not being sent."),
        }
        let pause = tokio::time::sleep(PAUSE);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                biased;
                () = &mut pause => break,
                chunk = output.recv() => if chunk.is_none() {
                    return;
                },
            }
        }
    }
}

enum Over {
    WorksGone,
    Ended,
}

async fn stream(
    channel: Channel,
    first: v1::OutputChunk,
    output: &mut mpsc::Receiver<v1::OutputChunk>,
) -> Result<Over, Status> {
    let (chunks, outgoing) = mpsc::channel(QUEUE);
    let mut client = v1::agents_client::AgentsClient::new(channel);
    let mut replies: Streaming<v1::OutputReply> =
        client.output(ReceiverStream::new(outgoing)).await?.into_inner();
    let Some(reply) = replies.message().await? else {
        return Ok(Over::Ended);
    };
    let mut credit = reply.credit_bytes;
    let mut next = Some(first);
    loop {
        if let Some(chunk) = next.take() {
            let size = chunk.data.len() as u64;
            if size <= credit && chunks.try_send(chunk).is_ok() {
                credit -= size;
            }
        }
        tokio::select! {
            biased;
            reply = replies.message() => match reply? {
                Some(reply) => credit = credit.saturating_add(reply.credit_bytes),
                None => return Ok(Over::Ended),
            },
            chunk = output.recv() => match chunk {
                Some(chunk) => next = Some(chunk),
                None => return Ok(Over::WorksGone),
            },
        }
    }
}
