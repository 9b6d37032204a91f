//! What of an engine's stream goes on to the browser, and in which words.

use super::wire::{BINARY, CLOSE, CONTINUATION, Header, TEXT, write_text};
use super::{Decide, Judge};
use crate::comfyui::event;
use crate::jobs::{Passage, Verdict, Wait};

/// Longest text that is looked at as a whole, bytes; a `status` has about a hundred.
const MAX_LOOKED_AT: usize = 4096;
/// How the texts begin that are looked at: `status`, `execution_…` and `executing`, as Python writes
/// them and as others do.
const JUDGED: [&[u8]; 4] = [
    b"{\"type\": \"status\"",
    b"{\"type\":\"status\"",
    b"{\"type\": \"execut",
    b"{\"type\":\"execut",
];
/// First bytes of a binary message with a progress text, which names no job (comfyui-api.md 4).
pub(super) const PROGRESS_TEXT: [u8; 4] = [0, 0, 0, 3];

/// Where in the stream of frames we are.
enum Place {
    /// Before a frame, with its header so far.
    Header(Header),
    /// At the beginning of a message that is looked at before it goes on.
    Looked(Beginning),
    /// In a frame that is passed on, so many bytes before its end.
    Passed(u64),
    /// In a frame that is left out, so many bytes before its end.
    LeftOut(u64),
    /// At the beginning of a message that waits, and everything after it.
    Held(Beginning, Wait),
    /// Not understood, or closed: everything passes, and nothing is put in between any more.
    Untouched,
}

/// The first bytes of a message.
struct Beginning {
    header: Header,
    /// What of the payload has arrived, at most `wanted`.
    payload: Vec<u8>,
    /// Bytes that are [`enough`] to decide: a text is replaced as a whole, a binary message has its
    /// kind in front.
    wanted: usize,
    /// Payload of the frame, bytes.
    length: u64,
}

/// Takes the stream apart and writes what goes on to the browser into a buffer.
pub(super) struct Rewriter {
    place: Place,
    /// Between the first and the last frame of a message.
    is_fragmented: bool,
    /// The message with the frames at hand is left out.
    is_left_out: bool,
    judge: Judge,
    hears_text: Decide,
}

impl Rewriter {
    pub(super) fn new(judge: Judge, hears_text: Decide) -> Self {
        Self {
            place: Place::Header(Header::default()),
            is_fragmented: false,
            is_left_out: false,
            judge,
            hears_text,
        }
    }

    /// Whether a message of our own may be put here.
    pub(super) fn is_between(&self) -> bool {
        !self.is_fragmented && matches!(&self.place, Place::Header(header) if header.is_empty())
    }

    /// What the next message waits for, if it waits. [`Rewriter::release`] must follow; until then no
    /// bytes are taken.
    pub(super) fn held(&mut self) -> Option<Wait> {
        match std::mem::replace(&mut self.place, Place::Untouched) {
            Place::Held(beginning, wait) => {
                self.place = Place::Looked(beginning);
                Some(wait)
            }
            place => {
                self.place = place;
                None
            }
        }
    }

    /// The message that waited goes on, or does not.
    pub(super) fn release(&mut self, verdict: &Verdict, out: &mut Vec<u8>) {
        if let Place::Looked(beginning) = std::mem::replace(&mut self.place, Place::Untouched) {
            self.carry_out(&beginning, verdict, out);
        }
    }

    /// The bytes that may go on just as they are.
    pub(super) fn passes<'bytes>(&self, bytes: &'bytes [u8]) -> &'bytes [u8] {
        match self.place {
            Place::Passed(left) => at_most(bytes, left),
            Place::Untouched => bytes,
            _ => &[],
        }
    }

    /// So many bytes, of those that may, have gone on as they are.
    pub(super) fn passed(&mut self, bytes: &[u8]) {
        if let Place::Passed(left) = &mut self.place {
            *left = left.saturating_sub(length_of(bytes));
            if *left == 0 {
                self.place = Place::Header(Header::default());
            }
        }
    }

    /// Takes bytes of the engine; appends to `out` what goes on, and stops at the end of a frame, so
    /// that messages can be put in between. Returns how many bytes were taken.
    pub(super) fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        match &mut self.place {
            Place::Untouched | Place::Passed(_) => {
                let taken = self.passes(bytes);
                out.extend_from_slice(taken);
                self.passed(taken);
                taken.len()
            }
            Place::LeftOut(left) => {
                let taken = at_most(bytes, *left);
                *left -= length_of(taken);
                if *left == 0 {
                    self.place = Place::Header(Header::default());
                }
                taken.len()
            }
            Place::Held(..) => 0,
            Place::Looked(beginning) => {
                let missing = beginning.wanted - beginning.payload.len();
                let missing = missing.min(bytes.len());
                beginning.payload.extend_from_slice(&bytes[..missing]);
                if beginning.payload.len() == beginning.wanted {
                    self.look(out);
                }
                missing
            }
            Place::Header(header) => {
                let taken = header.take(bytes);
                if header.is_whole() {
                    self.begin(out);
                }
                taken
            }
        }
    }

    /// A header is whole.
    fn begin(&mut self, out: &mut Vec<u8>) {
        let Place::Header(header) = std::mem::replace(&mut self.place, Place::Untouched) else {
            return;
        };
        let length = header.payload();
        if !header.is_understood(self.is_fragmented) {
            tracing::debug!("frames of an engine are not understood; they pass untouched");
            out.extend_from_slice(header.bytes());
            return;
        }
        if header.opcode() == CLOSE {
            // The last frame: nothing may follow it.
            out.extend_from_slice(header.bytes());
            return;
        }
        if header.is_control() {
            out.extend_from_slice(header.bytes());
            self.place = in_frame(Place::Passed, length);
            return;
        }
        self.is_fragmented = !header.is_last();
        if header.opcode() == CONTINUATION && self.is_left_out {
            self.is_left_out = !header.is_last();
            self.place = in_frame(Place::LeftOut, length);
            return;
        }
        let wanted = enough(&header);
        self.place = Place::Looked(Beginning {
            header,
            payload: Vec::with_capacity(wanted),
            wanted,
            length,
        });
        if wanted == 0 {
            self.look(out);
        }
    }

    /// Enough of a message is there to decide.
    fn look(&mut self, out: &mut Vec<u8>) {
        let Place::Looked(beginning) = std::mem::replace(&mut self.place, Place::Untouched) else {
            return;
        };
        let payload = beginning.payload.as_slice();
        let opcode = beginning.header.opcode();
        if opcode == TEXT && JUDGED.iter().any(|start| payload.starts_with(start)) {
            let is_whole = beginning.left() == 0;
            match (self.judge)(payload, is_whole) {
                Passage::Now(verdict) => self.carry_out(&beginning, &verdict, out),
                Passage::Wait(wait) => self.place = Place::Held(beginning, wait),
            }
            return;
        }
        // The first part may be too short to tell; then rather nothing is heard.
        let is_progress_text = opcode == BINARY
            && (payload == PROGRESS_TEXT
                || (self.is_fragmented && PROGRESS_TEXT.starts_with(payload)));
        let verdict = if is_progress_text && !(self.hears_text)() {
            self.is_left_out = self.is_fragmented;
            Verdict::LeaveOut
        } else {
            Verdict::Pass
        };
        self.carry_out(&beginning, &verdict, out);
    }

    fn carry_out(&mut self, beginning: &Beginning, verdict: &Verdict, out: &mut Vec<u8>) {
        let left = beginning.left();
        match verdict {
            Verdict::Pass => {
                out.extend_from_slice(beginning.header.bytes());
                out.extend_from_slice(&beginning.payload);
                self.place = in_frame(Place::Passed, left);
            }
            Verdict::LeaveOut => self.place = in_frame(Place::LeftOut, left),
            Verdict::Replace(text) => {
                write_text(text, out);
                self.place = in_frame(Place::LeftOut, left);
            }
        }
    }
}

impl Beginning {
    /// Bytes of the frame behind what has arrived.
    fn left(&self) -> u64 {
        self.length - length_of(&self.payload)
    }
}

/// How many bytes of a frame's payload are enough to decide on its message.
fn enough(header: &Header) -> usize {
    let length = usize::try_from(header.payload()).unwrap_or(usize::MAX);
    match header.opcode() {
        TEXT if header.is_last() && length <= MAX_LOOKED_AT => length,
        TEXT if header.is_last() => event::ENOUGH,
        BINARY => length.min(PROGRESS_TEXT.len()),
        // A text in parts, or more of a message that was decided on.
        _ => 0,
    }
}

/// So many bytes before the end of a frame, or before the next one.
fn in_frame(place: fn(u64) -> Place, left: u64) -> Place {
    if left == 0 {
        Place::Header(Header::default())
    } else {
        place(left)
    }
}

fn at_most(bytes: &[u8], left: u64) -> &[u8] {
    let end = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    &bytes[..end]
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
