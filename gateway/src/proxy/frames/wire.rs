//! Frames as they are on the wire (RFC 6455 5.2).

/// Longest header, bytes.
const MAX_HEADER: usize = 10;
/// Largest payload of a control frame, bytes (RFC 6455 5.5).
const MAX_CONTROL: u64 = 125;
/// Largest payload of a frame, bytes (RFC 6455 5.2).
const MAX_PAYLOAD: u64 = u64::MAX >> 1;

const OPCODE: u8 = 0x0f;
pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
const CONTROL: u8 = 8;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;
pub(super) const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
pub(super) const MASKED: u8 = 0x80;

/// The header of a frame, as far as it has arrived. What is asked of it counts when it is whole.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Header {
    bytes: [u8; MAX_HEADER],
    /// How many of them have arrived.
    length: usize,
}

impl Header {
    /// Takes what is missing from the beginning of `bytes`, as far as it is known by now; returns
    /// how many bytes that were.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let missing = self.whole_length() - self.length;
        let taken = missing.min(bytes.len());
        self.bytes[self.length..self.length + taken].copy_from_slice(&bytes[..taken]);
        self.length += taken;
        taken
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn is_whole(&self) -> bool {
        self.length == self.whole_length()
    }

    /// As they arrived.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub(super) fn opcode(&self) -> u8 {
        self.bytes[0] & OPCODE
    }

    pub(super) fn is_control(&self) -> bool {
        self.bytes[0] & CONTROL != 0
    }

    /// Whether the message ends with this frame.
    pub(super) fn is_last(&self) -> bool {
        self.bytes[0] & FIN != 0
    }

    /// Bytes.
    pub(super) fn payload(&self) -> u64 {
        match self.bytes()[2..] {
            [] => u64::from(self.bytes[1] & !MASKED),
            ref more => more
                .iter()
                .fold(0, |length, byte| length << 8 | u64::from(*byte)),
        }
    }

    /// Whether it is one of a server's stream without extensions; `is_fragmented`: a message has
    /// begun and not ended before it.
    pub(super) fn is_understood(&self, is_fragmented: bool) -> bool {
        self.bytes[0] & RESERVED == 0
            && self.bytes[1] & MASKED == 0
            && self.payload() <= MAX_PAYLOAD
            && match self.opcode() {
                CONTINUATION => is_fragmented,
                TEXT | BINARY => !is_fragmented,
                CLOSE | PING | PONG => self.is_last() && self.payload() <= MAX_CONTROL,
                _ => false,
            }
    }

    /// As far as the first bytes tell; the second is 0 until it arrives.
    fn whole_length(&self) -> usize {
        match self.bytes[1] & !MASKED {
            126 => 4,
            127 => MAX_HEADER,
            _ => 2,
        }
    }
}

/// A whole text message in one frame.
pub(super) fn write_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(FIN | TEXT);
    match (u8::try_from(text.len()), u16::try_from(text.len())) {
        (Ok(length @ ..126), _) => out.push(length),
        (_, Ok(length)) => {
            out.push(126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_arrive_byte_by_byte() {
        let long = [&[FIN | BINARY, 127][..], &70_000_u64.to_be_bytes()].concat();
        let table: [(&[u8], u8, bool, u64); 5] = [
            (&[FIN | TEXT, 5], TEXT, true, 5),
            (&[BINARY, 0], BINARY, false, 0),
            (&[FIN, 126, 1, 2], CONTINUATION, true, 258),
            (&long, BINARY, true, 70_000),
            (&[FIN | PING, 125], PING, true, 125),
        ];
        for (bytes, opcode, is_last, payload) in table {
            let mut header = Header::default();
            for (at, byte) in bytes.iter().enumerate() {
                assert!(!header.is_whole(), "{bytes:?} {at}");
                assert_eq!(header.take(&[*byte]), 1);
            }
            assert!(header.is_whole());
            assert_eq!(header.take(b"payload"), 0);
            assert_eq!(header.bytes(), bytes);
            assert_eq!(
                (header.opcode(), header.is_last(), header.payload()),
                (opcode, is_last, payload)
            );
            assert!(header.is_understood(opcode == CONTINUATION));
        }
    }
}
