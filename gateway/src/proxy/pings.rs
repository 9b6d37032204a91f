//! Pings to clients on WebSockets that are silent: middle boxes cut connections on which nothing moves
//! (after 60 to 100 s), and a client that is gone is noticed. They are put in where an engine's stream
//! rests between two messages, as if the engine had sent them; it takes the answers as it does any.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Silence after which a ping is sent.
const PAUSE: Duration = Duration::from_secs(30);
/// A whole ping without payload (RFC 6455 5.5.2).
const PING: [u8; 2] = [0x89, 0];

/// An engine's side of a tunnel.
pub(super) struct Pinged<Inner> {
    inner: Inner,
    /// `None`: it speaks another protocol than WebSocket.
    pinger: Option<Pinger>,
}

struct Pinger {
    pause: Duration,
    place: Place,
    heard: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<Inner> Pinged<Inner> {
    pub(super) fn new(inner: Inner, is_websocket: bool) -> Self {
        Self::with_pause(inner, is_websocket.then_some(PAUSE))
    }

    fn with_pause(inner: Inner, pause: Option<Duration>) -> Self {
        Self {
            inner,
            pinger: pause.map(|pause| Pinger {
                pause,
                place: Place::default(),
                heard: Instant::now(),
                timer: Box::pin(sleep(pause)),
            }),
        }
    }
}

impl Pinger {
    fn hear(&mut self, bytes: &[u8]) {
        self.heard = Instant::now();
        self.place.pass(bytes);
    }

    /// Ready when a ping is due and may stand here.
    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            let next = self.heard + self.pause;
            let is_due = next <= Instant::now();
            let next = if is_due {
                Instant::now() + self.pause
            } else {
                next
            };
            self.timer.as_mut().reset(next);
            if is_due && self.place.is_between() {
                return Poll::Ready(());
            }
        }
    }
}

impl<Inner: AsyncRead + Unpin> AsyncRead for Pinged<Inner> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(context, buffer);
        let Some(pinger) = &mut this.pinger else {
            return polled;
        };
        if polled.is_ready() {
            pinger.hear(&buffer.filled()[before..]);
            return polled;
        }
        if buffer.remaining() >= PING.len() && pinger.poll_due(context).is_ready() {
            buffer.put_slice(&PING);
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}

impl<Inner: AsyncWrite + Unpin> AsyncWrite for Pinged<Inner> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Where in the frames of a server's stream its last byte stands (RFC 6455 5.2).
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    header: [u8; 10],
    /// How much of the header has passed.
    length: usize,
    /// Bytes of the payload that are still to come.
    payload: u64,
    /// A message has begun and not ended.
    is_fragmented: bool,
    /// It is no stream of frames as a server may send them: nothing may be put in any more.
    is_lost: bool,
}

impl Place {
    fn is_between(&self) -> bool {
        self.length == 0 && self.payload == 0 && !self.is_fragmented && !self.is_lost
    }

    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_lost {
            if self.payload > 0 {
                let taken =
                    usize::try_from(self.payload).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.payload -= u64::try_from(taken).unwrap_or(0);
                bytes = &bytes[taken..];
                continue;
            }
            self.header[self.length] = bytes[0];
            self.length += 1;
            bytes = &bytes[1..];
            self.end_header();
        }
    }

    /// Reads the header if it is whole.
    fn end_header(&mut self) {
        let [first, second, ..] = self.header;
        let whole = match second & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        if self.length < 2 || self.length < whole {
            return;
        }
        let is_last = first & 0x80 != 0;
        let is_control = first & 0x08 != 0;
        // Reserved bits need an extension, of which none is agreed on; a server masks nothing.
        self.is_lost = first & 0x70 != 0 || second & 0x80 != 0;
        self.payload = match &self.header[2..whole] {
            [] => u64::from(second & 0x7f),
            more => more
                .iter()
                .fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        if !is_control {
            self.is_fragmented = !is_last;
        }
        self.length = 0;
        self.header = [0; 10];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[test]
    fn places_between_messages() {
        let long = [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[7; 65536]].concat();
        let middle = [&[0x82, 126, 1, 0][..], &[7; 256]].concat();
        // Bytes, and whether a message of ours may stand behind them.
        let table: [(&[u8], bool); 10] = [
            (&[], true),
            (&[0x81], false),
            (&[0x81, 2, 1], false),
            (&[0x81, 2, 1, 2], true),
            (&[0x01, 1, 1], false),
            (&[0x01, 1, 1, 0x89, 0], false),
            (&[0x01, 1, 1, 0x80, 0], true),
            (&[0xc1, 0], false),
            (&middle, true),
            (&long, true),
        ];
        for (bytes, expected) in table {
            for piece in [1, 3, bytes.len().max(1)] {
                let mut place = Place::default();
                bytes.chunks(piece).for_each(|piece| place.pass(piece));
                assert_eq!(
                    place.is_between(),
                    expected,
                    "{:?}",
                    &bytes[..bytes.len().min(8)]
                );
            }
        }
    }

    /// Silence after which these tests ping.
    const SHORT: Duration = Duration::from_millis(30);

    #[tokio::test]
    async fn r17_a_silent_socket_is_pinged_between_messages_only() {
        let (engine, mut far) = duplex(1024);
        let mut pinged = Pinged::with_pause(engine, Some(SHORT));
        let mut bytes = [0; 64];
        let began = Instant::now();
        let length = pinged.read(&mut bytes).await.unwrap();
        assert_eq!(bytes[..length], PING);
        assert!(began.elapsed() >= SHORT);
        // Half a frame: silence is the engine's to end.
        far.write_all(&[0x81, 5, b'h']).await.unwrap();
        assert_eq!(pinged.read(&mut bytes).await.unwrap(), 3);
        let silent = tokio::time::timeout(SHORT * 5, pinged.read(&mut bytes)).await;
        assert!(silent.is_err());
        far.write_all(b"ello").await.unwrap();
        assert_eq!(pinged.read(&mut bytes).await.unwrap(), 4);
        let heard = Instant::now();
        let length = pinged.read(&mut bytes).await.unwrap();
        assert_eq!(bytes[..length], PING);
        assert!(heard.elapsed() >= SHORT);
        drop(far);
        assert_eq!(pinged.read(&mut bytes).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn other_protocols_are_left_alone() {
        let (engine, _far) = duplex(1024);
        let mut pinged = Pinged::new(engine, false);
        assert!(pinged.pinger.is_none());
        let read = tokio::time::timeout(SHORT * 5, pinged.read_u8()).await;
        assert!(read.is_err());
    }
}
