//! Idle time-outs: a transfer may take hours, but not stand still.

use super::tunnel::LONGEST;
use crate::auth::Session;
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
use tokio_util::sync::WaitForCancellationFutureOwned;

/// A timer that runs only while nothing moves.
#[derive(Debug)]
struct StallTimer {
    /// `None`: it may stand still for ever.
    limit: Option<Duration>,
    running: Option<Pin<Box<Sleep>>>,
}

impl StallTimer {
    fn new(limit: Option<Duration>) -> Self {
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
        let Some(limit) = self.limit else {
            return Poll::Pending;
        };
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
    end: Option<SessionEnd>,
    _in_use: Option<InUse>,
}

/// When a session ends, and when it runs out.
#[derive(Debug)]
struct SessionEnd(Pin<Box<WaitForCancellationFutureOwned>>, Pin<Box<Sleep>>);

impl SessionEnd {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.0.as_mut().poll(context).is_ready() || self.1.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl<Inner> IdleBody<Inner> {
    /// `None` sets no limit.
    pub(crate) fn new(inner: Inner, limit: impl Into<Option<Duration>>) -> Self {
        Self {
            inner,
            timer: StallTimer::new(limit.into()),
            end: None,
            _in_use: None,
        }
    }

    /// Ends with a session: what goes on for ever must not outlive the right to it.
    pub(super) fn until_end_of(self, session: &Session) -> Self {
        let ended = session.ended().clone().cancelled_owned();
        let runs_out = sleep(session.remaining().min(LONGEST));
        Self {
            end: Some(SessionEnd(Box::pin(ended), Box::pin(runs_out))),
            ..self
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
        if let Some(end) = &mut self.end
            && end.poll(context).is_ready()
        {
            return Poll::Ready(Some(Err("the session ended".into())));
        }
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
            timer: StallTimer::new(Some(limit)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body as AxumBody;
    use futures_util::stream;
    use http_body_util::BodyExt;
    use std::convert::Infallible;
    use tokio::time::timeout;

    #[tokio::test]
    async fn a_silent_body_ends_at_its_limit_if_it_has_one() {
        const LIMIT: Duration = Duration::from_millis(20);
        let silent = || AxumBody::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let mut limited = IdleBody::new(silent(), LIMIT);
        let frame = limited.frame().await.unwrap();
        assert!(frame.is_err());
        let mut unlimited = IdleBody::new(silent(), None);
        assert!(timeout(LIMIT * 10, unlimited.frame()).await.is_err());
    }
}
