//! A connection that is used once, and remembers why TLS ended it.
//!
//! In TLS 1.3 a refused client certificate shows itself only when the connection is first read. The gRPC client does not
//! hand that error on: it says "transport error", or asks for another connection, which there is none of.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Why TLS ended a connection, once it has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Why(Arc<Mutex<Option<rustls::Error>>>);

impl Why {
    /// What TLS said.
    pub(crate) fn get(&self) -> Option<rustls::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result
            && let Some(why) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.clone());
        }
        result
    }
}

/// The place of a connection, until it is taken.
pub(crate) struct Once<S> {
    stream: Mutex<Option<S>>,
    why: Why,
}

impl<S> Once<S> {
    /// With the connection in it, and what will remember its end.
    pub(crate) fn new(stream: S) -> (Once<S>, Why) {
        let why = Why::default();
        (Once { stream: Mutex::new(Some(stream)), why: why.clone() }, why)
    }

    /// The connection, if it has not been taken.
    pub(crate) fn take(&self) -> io::Result<Remembers<S>> {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stream =
            stream.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection is over"))?;
        Ok(Remembers { stream, why: self.why.clone() })
    }
}

/// The connection itself.
pub(crate) struct Remembers<S> {
    stream: S,
    why: Why,
}

impl<S: AsyncRead + Unpin> AsyncRead for Remembers<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.why.remember(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Remembers<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.why.remember(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.why.remember(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.why.remember(shut)
    }
}
