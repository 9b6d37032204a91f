//! WebSocket messages on their way from an engine to a browser (RFC 6455): passed on byte for byte,
//! but for ComfyUI's `status`, whose count is the user's own, and progress texts of other people's
//! jobs. Messages of our own are put in between, never into the middle of another.

use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Buffer, bytes: large frames are passed on in pieces of this.
const BUFFER: usize = 128 * 1024;
/// Longest message that is looked at, bytes; a `status` has about a hundred.
const MAX_LOOKED_AT: usize = 4096;
/// How long a browser may take to accept a piece.
const SEND_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How ComfyUI's `status` begins, as Python writes it and as others do.
const STATUS: [&[u8]; 2] = [b"{\"type\": \"status\"", b"{\"type\":\"status\""];
/// First bytes of a binary message with a progress text, which names no job (comfyui-api.md 4).
const PROGRESS_TEXT: [u8; 4] = [0, 0, 0, 3];

const OPCODE: u8 = 0x0f;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// Replaces a message of an engine; `None` leaves it as it is.
type Replace = Arc<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync>;
/// Decides while messages pass.
type Decide = Arc<dyn Fn() -> bool + Send + Sync>;

/// What is done to the messages of one socket.
pub(super) struct Feed {
    /// Changes a `status`.
    pub(super) status: Replace,
    /// Whether progress texts are for this socket.
    pub(super) hears_text: Decide,
    /// Messages of our own, texts.
    pub(super) messages: mpsc::Receiver<Bytes>,
}

/// Where in the stream of frames we are.
enum Place {
    /// Before a frame, with the bytes of its header so far.
    Header(Vec<u8>),
    /// In a frame that is looked at as a whole: its header, its bytes so far, its length.
    Looked {
        header: Vec<u8>,
        payload: Vec<u8>,
        length: usize,
    },
    /// In a frame that is passed on, so many bytes before its end.
    Passed(u64),
    /// Not understood: everything passes, and nothing is put in between any more.
    Untouched,
}

/// Takes the stream apart and writes what goes on to the browser into a buffer.
struct Rewriter {
    place: Place,
    /// Between the first and the last frame of a message.
    is_fragmented: bool,
    status: Replace,
    hears_text: Decide,
}

impl Rewriter {
    fn new(status: Replace, hears_text: Decide) -> Self {
        Self {
            place: Place::Header(Vec::new()),
            is_fragmented: false,
            status,
            hears_text,
        }
    }

    /// Whether a message of our own may be put here.
    fn is_between(&self) -> bool {
        !self.is_fragmented && matches!(&self.place, Place::Header(header) if header.is_empty())
    }

    /// Takes bytes of the engine; appends to `out` what goes on, and stops at the end of a frame, so
    /// that messages can be put in between. Returns how many bytes were taken.
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        match &mut self.place {
            Place::Untouched => {
                out.extend_from_slice(bytes);
                bytes.len()
            }
            Place::Passed(left) => {
                let taken = at_most(bytes, *left);
                out.extend_from_slice(taken);
                *left -= length_of(taken);
                if *left == 0 {
                    self.place = Place::Header(Vec::new());
                }
                taken.len()
            }
            Place::Looked {
                payload, length, ..
            } => {
                let wanted = (*length - payload.len()).min(bytes.len());
                payload.extend_from_slice(&bytes[..wanted]);
                if payload.len() == *length {
                    self.look(out);
                }
                wanted
            }
            Place::Header(header) => {
                let wanted = header_length(header).saturating_sub(header.len()).max(1);
                let wanted = wanted.min(bytes.len());
                header.extend_from_slice(&bytes[..wanted]);
                if header.len() == header_length(header) {
                    self.begin(out);
                }
                wanted
            }
        }
    }

    /// A header is whole.
    fn begin(&mut self, out: &mut Vec<u8>) {
        let Place::Header(header) = std::mem::replace(&mut self.place, Place::Untouched) else {
            return;
        };
        let (first, second) = (header[0], header[1]);
        if first & RESERVED != 0 || second & MASKED != 0 {
            tracing::debug!("frames of an engine are not understood; they pass untouched");
            out.extend_from_slice(&header);
            return;
        }
        let length = payload_length(&header);
        let opcode = first & OPCODE;
        let is_control = opcode & 8 != 0;
        let is_whole = first & FIN != 0;
        let begins = opcode == TEXT || opcode == BINARY;
        if is_whole
            && begins
            && !self.is_fragmented
            && let Ok(length) = usize::try_from(length)
            && (1..=MAX_LOOKED_AT).contains(&length)
        {
            self.place = Place::Looked {
                header,
                payload: Vec::with_capacity(length),
                length,
            };
            return;
        }
        if !is_control {
            self.is_fragmented = !is_whole;
        }
        out.extend_from_slice(&header);
        self.place = if length == 0 {
            Place::Header(Vec::new())
        } else {
            Place::Passed(length)
        };
    }

    /// A short message is whole.
    fn look(&mut self, out: &mut Vec<u8>) {
        let before = std::mem::replace(&mut self.place, Place::Header(Vec::new()));
        let Place::Looked {
            header, payload, ..
        } = before
        else {
            return;
        };
        let is_text = header[0] & OPCODE == TEXT;
        if is_text && STATUS.iter().any(|start| payload.starts_with(start)) {
            if let Some(changed) = (self.status)(&payload) {
                write_text(&changed, out);
                return;
            }
        } else if !is_text && payload.starts_with(&PROGRESS_TEXT) && !(self.hears_text)() {
            return;
        }
        out.extend_from_slice(&header);
        out.extend_from_slice(&payload);
    }
}

fn at_most(bytes: &[u8], left: u64) -> &[u8] {
    let end = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    &bytes[..end]
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Length of a header, as far as its first bytes tell.
fn header_length(header: &[u8]) -> usize {
    match header.get(1).map(|second| second & !MASKED) {
        None => 2,
        Some(126) => 4,
        Some(127) => 10,
        Some(_) => 2,
    }
}

fn payload_length(header: &[u8]) -> u64 {
    match header[2..] {
        [] => u64::from(header[1] & !MASKED),
        ref more => more
            .iter()
            .fold(0, |length, byte| length << 8 | u64::from(*byte)),
    }
}

/// A whole text message in one frame.
fn write_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(FIN | TEXT);
    match (u8::try_from(text.len()), u16::try_from(text.len())) {
        (Ok(length @ ..126), _) => out.push(length),
        (_, Ok(length)) => {
            out.push(126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&length_of(text).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

/// Carries messages from an engine to a browser until the engine ends or the browser is gone.
pub(super) async fn carry(
    engine: &mut (impl AsyncRead + Unpin),
    client: &mut (impl AsyncWrite + Unpin),
    feed: Feed,
) -> std::io::Result<()> {
    let Feed {
        status,
        hears_text,
        mut messages,
    } = feed;
    let mut rewriter = Rewriter::new(status, hears_text);
    let mut buffer = vec![0; BUFFER];
    let mut out = Vec::new();
    let mut is_open = true;
    loop {
        out.clear();
        tokio::select! {
            read = engine.read(&mut buffer) => {
                let length = read?;
                if length == 0 {
                    return client.shutdown().await;
                }
                let mut rest = &buffer[..length];
                while !rest.is_empty() {
                    // The inner part of a large frame goes on as it lies in the buffer.
                    if let Place::Passed(left) = &mut rewriter.place
                        && out.is_empty()
                    {
                        let piece = at_most(rest, *left);
                        send(client, piece).await?;
                        *left -= length_of(piece);
                        if *left == 0 {
                            rewriter.place = Place::Header(Vec::new());
                        }
                        rest = &rest[piece.len()..];
                        continue;
                    }
                    let taken = rewriter.take(rest, &mut out);
                    rest = &rest[taken..];
                    if rewriter.is_between() {
                        while let Ok(message) = messages.try_recv() {
                            write_text(&message, &mut out);
                        }
                    }
                    if matches!(rewriter.place, Place::Passed(_)) && !rest.is_empty() {
                        send(client, &out).await?;
                        out.clear();
                    }
                }
            }
            message = messages.recv(), if is_open && rewriter.is_between() => match message {
                Some(message) => write_text(&message, &mut out),
                None => is_open = false,
            },
        }
        if !out.is_empty() {
            send(client, &out).await?;
        }
    }
}

async fn send(client: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    let sent = async {
        client.write_all(bytes).await?;
        client.flush().await
    };
    timeout(SEND_LIMIT, sent)
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_text(payload, &mut bytes);
        bytes[0] = first;
        bytes
    }

    fn rewriter(hears_text: bool) -> Rewriter {
        Rewriter::new(
            Arc::new(|_| Some(b"{\"changed\":1}".to_vec())),
            Arc::new(move || hears_text),
        )
    }

    fn run(rewriter: &mut Rewriter, pieces: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let taken = rewriter.take(rest, &mut out);
                rest = &rest[taken..];
            }
        }
        out
    }

    const STATUS_TEXT: &[u8] =
        b"{\"type\": \"status\", \"data\": {\"status\": {\"exec_info\": {\"queue_remaining\": 1}}}}";

    #[test]
    fn only_a_status_is_changed() {
        let changed = frame(FIN | TEXT, b"{\"changed\":1}");
        let table: Vec<(Vec<u8>, Vec<u8>)> = vec![
            (frame(FIN | TEXT, STATUS_TEXT), changed.clone()),
            (frame(FIN | TEXT, b"{\"type\":\"status\"}"), changed),
            (
                frame(FIN | TEXT, b"{\"type\": \"executing\"}"),
                frame(FIN | TEXT, b"{\"type\": \"executing\"}"),
            ),
            (
                frame(FIN | BINARY, STATUS_TEXT),
                frame(FIN | BINARY, STATUS_TEXT),
            ),
            (frame(TEXT, STATUS_TEXT), frame(TEXT, STATUS_TEXT)),
            (frame(FIN | 9, STATUS_TEXT), frame(FIN | 9, STATUS_TEXT)),
            (
                frame(FIN | 0x40 | TEXT, STATUS_TEXT),
                frame(FIN | 0x40 | TEXT, STATUS_TEXT),
            ),
            (frame(FIN | TEXT, b""), frame(FIN | TEXT, b"")),
            (
                frame(FIN | BINARY, &vec![7; 70_000]),
                frame(FIN | BINARY, &vec![7; 70_000]),
            ),
        ];
        for (sent, expected) in table {
            assert_eq!(run(&mut rewriter(true), &[&sent]), expected);
        }
    }

    #[test]
    fn r14_progress_texts_of_others_are_left_out() {
        let text = frame(FIN | BINARY, b"\0\0\0\x03\0\0\0\x01\x39hello");
        let picture = frame(FIN | BINARY, b"\0\0\0\x01\0\0\0\x01jpeg");
        let both = [text.as_slice(), picture.as_slice()].concat();
        assert_eq!(run(&mut rewriter(true), &[&both]), both);
        assert_eq!(run(&mut rewriter(false), &[&both]), picture);
    }

    #[test]
    fn nothing_is_put_into_a_message() {
        let mut one = rewriter(true);
        assert!(one.is_between());
        run(&mut one, &[&frame(TEXT, b"first")]);
        assert!(!one.is_between(), "more of it comes");
        run(&mut one, &[&frame(FIN | 9, b"ping")]);
        assert!(!one.is_between());
        run(&mut one, &[&frame(FIN, b"last")]);
        assert!(one.is_between());
        run(&mut one, &[&[FIN | TEXT]]);
        assert!(!one.is_between(), "half a header");
        run(&mut rewriter(true), &[&frame(FIN | 0x40 | TEXT, b"x")]);
        let mut odd = rewriter(true);
        run(&mut odd, &[&frame(FIN | 0x40 | TEXT, b"compressed")]);
        assert!(
            !odd.is_between(),
            "never again in a stream that is not understood"
        );
    }

    proptest! {
        #[test]
        fn however_the_bytes_arrive_the_same_goes_on(
            frames in prop::collection::vec((prop::sample::select(vec![0x81_u8, 0x82, 0x01, 0x80, 0x89]), prop::collection::vec(any::<u8>(), 0..300), any::<bool>()), 1..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut bytes = Vec::new();
            for (first, payload, is_status) in &frames {
                let payload = if *is_status { STATUS_TEXT } else { payload };
                bytes.extend(frame(*first, payload));
            }
            let whole = run(&mut rewriter(false), &[&bytes]);
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            places.extend([0, bytes.len()]);
            places.sort_unstable();
            let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(run(&mut rewriter(false), &pieces), whole);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            run(&mut rewriter(true), &[&bytes]);
        }
    }

    #[tokio::test]
    async fn messages_go_between_those_of_the_engine_and_large_ones_pass_whole() {
        let (mut engine, mut engine_side) = tokio::io::duplex(64 * 1024);
        let (mut client_side, mut client) = tokio::io::duplex(64 * 1024);
        let (sender, messages) = mpsc::channel(4);
        let feed = Feed {
            status: Arc::new(|_| None),
            hears_text: Arc::new(|| true),
            messages,
        };
        let carried =
            tokio::spawn(async move { carry(&mut engine_side, &mut client_side, feed).await });
        let half = frame(TEXT, b"half ");
        engine.write_all(&half).await.unwrap();
        let mut read = vec![0; half.len()];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(read, half);
        sender.send(Bytes::from_static(b"ours")).await.unwrap();
        let rest = frame(FIN, b"whole");
        engine.write_all(&rest).await.unwrap();
        let expected = [rest, frame(FIN | TEXT, b"ours")].concat();
        let mut read = vec![0; expected.len()];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(read, expected);
        // Also while the engine is silent.
        sender.send(Bytes::from_static(b"more")).await.unwrap();
        let expected = frame(FIN | TEXT, b"more");
        let mut read = vec![0; expected.len()];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(read, expected);
        let large = frame(FIN | BINARY, &vec![9; 500_000]);
        let sent = large.clone();
        let writes = tokio::spawn(async move {
            engine.write_all(&sent).await.unwrap();
            engine
        });
        let mut read = vec![0; large.len()];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(read, large);
        drop(writes.await.unwrap());
        carried.await.unwrap().unwrap();
    }
}
