//! Tells when the last byte of an answer has been handed to its connection.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Something that is dropped when an answer has been written.
type Token = Box<dyn Any + Send>;

/// What waits for the next flush of one connection; `None` when the connection is gone.
#[derive(Clone)]
pub(crate) struct Unflushed(Arc<Mutex<Option<Vec<Token>>>>);

impl Default for Unflushed {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(Vec::new()))))
    }
}

impl fmt::Debug for Unflushed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Unflushed").finish_non_exhaustive()
    }
}

impl Unflushed {
    /// All that was handed to the connection has left it.
    pub(crate) fn flushed(&self) {
        let done = match self.0.lock().as_mut() {
            Some(waiting) if !waiting.is_empty() => std::mem::take(waiting),
            _ => return,
        };
        // Not under the lock: what is dropped may do anything.
        drop(done);
    }

    /// The connection is gone, and with it whoever listened.
    pub(crate) fn close(&self) {
        let rest = self.0.lock().take();
        drop(rest);
    }

    fn wait(&self, token: Token) {
        if let Some(waiting) = self.0.lock().as_mut() {
            waiting.push(token);
        }
    }
}

/// Drops `token` when the last byte of the answer was handed to the connection, or the client is gone.
pub(crate) fn drop_when_written(
    response: Response,
    token: impl Any + Send,
    connection: &Unflushed,
) -> Response {
    let token: Token = Box::new(token);
    let connection = connection.clone();
    response.map(|inner| {
        Body::new(Written {
            inner,
            token: Some(token),
            connection,
        })
    })
}

/// A body whose end is noted.
struct Written {
    inner: Body,
    token: Option<Token>,
    connection: Unflushed,
}

impl http_body::Body for Written {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Written {
    /// The server drops a body when it has taken all of it, and flushes afterwards.
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            self.connection.wait(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn the_token_lives_until_the_answer_has_left() {
        let connection = Unflushed::default();
        let token = Arc::new(());
        let answer = Response::new(Body::from("{}"));
        let answer = drop_when_written(answer, Arc::clone(&token), &connection);
        connection.flushed();
        assert_eq!(Arc::strong_count(&token), 2, "nothing was taken yet");
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(bytes, "{}");
        assert_eq!(Arc::strong_count(&token), 2, "taken, not flushed");
        connection.flushed();
        assert_eq!(Arc::strong_count(&token), 1);
    }

    #[test]
    fn a_client_that_is_gone_is_not_waited_for() {
        let connection = Unflushed::default();
        let token = Arc::new(());
        let answer = Response::new(Body::from("{}"));
        let answer = drop_when_written(answer, Arc::clone(&token), &connection);
        connection.close();
        drop(answer);
        assert_eq!(Arc::strong_count(&token), 1);
    }
}
