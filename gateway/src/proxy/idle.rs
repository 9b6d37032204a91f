//! Idle time-outs: a transfer may take hours, but not stand still.

use crate::engine::InUse;
use crate::http::Unflushed;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A timer that runs only while nothing moves.
#[derive(Debug)]
struct StallTimer {
    limit: Duration,
    running: Option<Pin<Box<Sleep>>>,
}

impl StallTimer {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            running: None,
        }
    }

    /// Tells the timer whether the last poll moved anything; ready when it stood still too long.
    fn observe(&mut self, has_moved: bool, context: &mut Context<'_>) -> Poll<()> {
        if has_moved {
            self.running = None;
            return Poll::Pending;
        }
        let limit = self.limit;
        self.running
            .get_or_insert_with(|| Box::pin(sleep(limit)))
            .as_mut()
            .poll(context)
    }
}

/// A body that fails when no frame comes for a time.
#[derive(Debug)]
pub(crate) struct IdleBody<Inner> {
    inner: Inner,
    timer: StallTimer,
    _in_use: Option<InUse>,
}

impl<Inner> IdleBody<Inner> {
    pub(crate) fn new(inner: Inner, limit: Duration) -> Self {
        Self {
            inner,
            timer: StallTimer::new(limit),
            _in_use: None,
        }
    }

    /// Counts as use of an engine until it has been sent.
    pub(super) fn using(self, in_use: InUse) -> Self {
        Self {
            _in_use: Some(in_use),
            ..self
        }
    }
}

impl<Inner> Body for IdleBody<Inner>
where
    Inner: Body<Data = Bytes> + Unpin,
    Inner::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if self.timer.observe(polled.is_ready(), context).is_ready() {
            return Poll::Ready(Some(Err("the transfer stood still for too long".into())));
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A stream whose writes fail when the other side takes nothing for a time. Reads wait as long as
/// they like: an idle WebSocket is legal.
#[derive(Debug)]
pub(crate) struct StallGuard<Inner> {
    inner: Inner,
    timer: StallTimer,
    unflushed: Unflushed,
}

impl<Inner> StallGuard<Inner> {
    /// `unflushed` hears when all that was written has left, and when the stream is gone.
    pub(crate) fn new(inner: Inner, limit: Duration, unflushed: Unflushed) -> Self {
        Self {
            inner,
            timer: StallTimer::new(limit),
            unflushed,
        }
    }

    fn guard<Answer>(
        &mut self,
        polled: Poll<io::Result<Answer>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Answer>> {
        match self.timer.observe(polled.is_ready(), context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => polled,
        }
    }
}

impl<Inner> Drop for StallGuard<Inner> {
    fn drop(&mut self) {
        self.unflushed.close();
    }
}

impl<Inner: AsyncRead + Unpin> AsyncRead for StallGuard<Inner> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<Inner: AsyncWrite + Unpin> AsyncWrite for StallGuard<Inner> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, data);
        self.guard(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(context, data);
        self.guard(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(context);
        if matches!(polled, Poll::Ready(Ok(()))) {
            self.unflushed.flushed();
        }
        self.guard(polled, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(context);
        self.guard(polled, context)
    }
}
