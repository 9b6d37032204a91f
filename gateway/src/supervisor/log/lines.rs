//! Cuts a byte stream into lines of bounded length.

/// Longest line kept, in bytes; the rest of a longer one is counted and dropped.
pub(super) const LINE_LIMIT: usize = 16 * 1024;

/// Assembles lines from pieces of output.
///
/// `\n` and `\r\n` end a line. A lone `\r` starts it anew, as progress bars do: only what is
/// written last counts.
#[derive(Debug, Default)]
pub(super) struct LineAssembler {
    line: Vec<u8>,
    /// The last thing written before a `\r`, in case nothing follows it.
    overwritten: Vec<u8>,
    dropped: usize,
    /// The last byte was `\r`.
    returned: bool,
    changed: bool,
}

impl LineAssembler {
    /// Takes the next piece and calls `complete` for every line that ends in it.
    pub(super) fn push(&mut self, mut piece: &[u8], mut complete: impl FnMut(String)) {
        while let Some(position) = piece.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.append(&piece[..position]);
            if piece[position] == b'\n' {
                let line = self.take();
                complete(line);
            } else {
                self.carriage_return();
            }
            piece = &piece[position + 1..];
        }
        self.append(piece);
    }

    /// What is there of an unfinished line, if it changed since the last call.
    pub(super) fn unfinished(&mut self) -> Option<String> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let text = clean(self.visible(), self.dropped);
        (!text.is_empty()).then_some(text)
    }

    /// The last line of a stream that ended without a line end.
    pub(super) fn finish(&mut self) -> Option<String> {
        let line = self.take();
        (!line.is_empty()).then_some(line)
    }

    fn append(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if std::mem::take(&mut self.returned) {
            self.line.clear();
            self.dropped = 0;
        }
        let room = LINE_LIMIT - self.line.len();
        let kept = bytes.len().min(room);
        self.line.extend_from_slice(&bytes[..kept]);
        self.dropped = self.dropped.saturating_add(bytes.len() - kept);
        self.changed = true;
    }

    fn carriage_return(&mut self) {
        self.returned = true;
        // Bars are often wiped with blanks at the end; the last text is worth more than nothing.
        if self.line.iter().any(|byte| !byte.is_ascii_whitespace()) {
            self.overwritten.clear();
            self.overwritten.extend_from_slice(&self.line);
        }
    }

    fn visible(&self) -> &[u8] {
        if self.line.iter().all(u8::is_ascii_whitespace) {
            &self.overwritten
        } else {
            &self.line
        }
    }

    fn take(&mut self) -> String {
        let text = clean(self.visible(), self.dropped);
        *self = Self::default();
        text
    }
}

/// Lossy UTF-8 without escape sequences and control characters, so that reading a log in a
/// terminal cannot do anything but show text.
fn clean(bytes: &[u8], dropped: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut output = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => match characters.peek() {
                Some('[') => {
                    characters.next();
                    for next in characters.by_ref() {
                        if ('@'..='~').contains(&next) {
                            break;
                        }
                    }
                }
                Some(']') => {
                    while let Some(next) = characters.next() {
                        if next == '\u{7}' {
                            break;
                        }
                        if next == '\u{1b}' {
                            characters.next();
                            break;
                        }
                    }
                }
                _ => {
                    characters.next();
                }
            },
            '\t' => output.push(' '),
            _ if character.is_control() => {}
            _ => output.push(character),
        }
    }
    let length = output.trim_end().len();
    output.truncate(length);
    if dropped > 0 {
        output.push_str(&format!(" … ({dropped} bytes left out)"));
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut assembler = LineAssembler::default();
        let mut lines = Vec::new();
        for piece in pieces {
            assembler.push(piece, |line| lines.push(line));
        }
        lines.extend(assembler.finish());
        lines
    }

    #[test]
    fn table() {
        let table: &[(&[&[u8]], &[&str])] = &[
            (&[], &[]),
            (&[b"a\nb\n"], &["a", "b"]),
            (&[b"a\r\nb\r", b"\nc"], &["a", "b", "c"]),
            (&[b"h", b"el", b"lo\n"], &["hello"]),
            (&[b"\n\n"], &["", ""]),
            (
                &[b"\r 10%|#\r 50%|##\r100%|###\n"],
                &["100%|###"].map(|text| text),
            ),
            (&[b" 10%\r", b" 20%\r", b"        \r"], &[" 20%"]),
            (&[b"100%\r\r\n"], &["100%"]),
            (
                &[b"\x1b[32mgreen\x1b[0m \x1b]0;title\x07end\x1b[A\n"],
                &["green end"],
            ),
            (&[b"a\x00b\x07c\td\n"], &["abc d"]),
            (&[b"\xff\xfe ok\n"], &["\u{fffd}\u{fffd} ok"]),
        ];
        for (pieces, expected) in table {
            assert_eq!(lines(pieces), *expected, "{pieces:?}");
        }
    }

    #[test]
    fn a_character_cut_between_pieces_stays_whole() {
        let text = "größer €\n".as_bytes();
        for cut in 0..text.len() {
            assert_eq!(lines(&[&text[..cut], &text[cut..]]), ["größer €"]);
        }
    }

    #[test]
    fn a_long_line_is_cut_and_holds_no_more_than_its_limit() {
        let mut assembler = LineAssembler::default();
        let mut lines = Vec::new();
        for _ in 0..100 {
            assembler.push(&[b'x'; 10_000], |line| lines.push(line));
            assert!(assembler.line.capacity() <= 2 * LINE_LIMIT);
        }
        assembler.push(b"\nnext\n", |line| lines.push(line));
        assert_eq!(lines.len(), 2);
        assert!(lines[0].ends_with(&format!("… ({} bytes left out)", 1_000_000 - LINE_LIMIT)));
        assert!(lines[0].len() < LINE_LIMIT + 64);
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn an_unfinished_line_is_shown_once_per_change() {
        let mut assembler = LineAssembler::default();
        assembler.push(b" 10%\r 20%", |_| panic!("not finished"));
        assert_eq!(assembler.unfinished().unwrap(), " 20%");
        assert_eq!(assembler.unfinished(), None);
        assembler.push(b"\r 30%", |_| panic!("not finished"));
        assert_eq!(assembler.unfinished().unwrap(), " 30%");
    }
}
