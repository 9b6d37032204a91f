//! Multipart forms as aiohttp reads them, with all its tolerance: `name*` and `filename*` beat the plain
//! forms, continuations are joined, transfer encodings of single parts are undone, the first of several
//! equal names wins.

use base64::Engine as _;
use bytes::Bytes;
use percent_encoding::percent_decode_str;

/// One part of a form.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) filename: Option<String>,
    pub(crate) data: Bytes,
}

/// A form.
#[derive(Debug, Default)]
pub(crate) struct Form {
    parts: Vec<Part>,
}

impl Form {
    /// Reads a body. Without a boundary in the content type the form is empty.
    pub(crate) fn read(content_type: &str, body: &Bytes) -> Self {
        let Some(boundary) = boundary(content_type) else {
            return Self::default();
        };
        let marker = format!("--{boundary}").into_bytes();
        let mut parts = Vec::new();
        let mut at = find(body, &marker, 0);
        while let Some(start) = at {
            let start = start + marker.len();
            if body[start..].starts_with(b"--") {
                break;
            }
            let Some(start) = find(body, b"\n", start).map(|line| line + 1) else {
                break;
            };
            let next = find(body, &marker, start);
            let end = next.unwrap_or(body.len());
            let piece = body.slice(start..end);
            parts.extend(part(&piece));
            at = next;
        }
        Self { parts }
    }

    /// The first part of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }

    /// The texts of all parts of that name; what is no text is left out.
    pub(crate) fn texts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.parts
            .iter()
            .filter(move |part| part.name == name)
            .filter_map(|part| std::str::from_utf8(&part.data).ok())
    }

    /// The text of a part; `Err` where Python fails to decode it.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, std::str::Utf8Error> {
        self.get(name)
            .map(|part| std::str::from_utf8(&part.data))
            .transpose()
    }
}

fn boundary(content_type: &str) -> Option<String> {
    if !content_type
        .trim_start()
        .to_ascii_lowercase()
        .starts_with("multipart/")
    {
        return None;
    }
    let value = parameters(content_type)
        .into_iter()
        .find(|(name, _)| name == "boundary")?
        .1;
    (!value.is_empty()).then_some(value)
}

fn find(haystack: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let first = *needle.first()?;
    let mut at = from;
    while at + needle.len() <= haystack.len() {
        at += haystack[at..].iter().position(|byte| *byte == first)?;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
    None
}

fn part(piece: &Bytes) -> Option<Part> {
    let (head_end, body_start) = match (find(piece, b"\r\n\r\n", 0), find(piece, b"\n\n", 0)) {
        (Some(crlf), lf) if lf.is_none_or(|lf| crlf < lf) => (crlf, crlf + 4),
        (_, Some(lf)) => (lf, lf + 2),
        _ => return None,
    };
    let head = String::from_utf8_lossy(&piece[..head_end]).into_owned();
    let mut data = piece.slice(body_start..);
    let trimmed = data
        .strip_suffix(b"\r\n")
        .or_else(|| data.strip_suffix(b"\n"))
        .map_or(data.len(), <[u8]>::len);
    data.truncate(trimmed);
    let header = |wanted: &str| {
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim().to_owned())
    };
    let disposition = parameters(&header("content-disposition")?);
    let name = parameter(&disposition, "name")?;
    let filename = parameter(&disposition, "filename");
    let data = match header("content-transfer-encoding")
        .unwrap_or_default()
        .to_ascii_lowercase()
        .as_str()
    {
        "base64" => {
            let clean: Vec<u8> = data
                .iter()
                .copied()
                .filter(|byte| !byte.is_ascii_whitespace())
                .collect();
            base64::engine::general_purpose::STANDARD
                .decode(clean)
                .ok()?
                .into()
        }
        "quoted-printable" => quoted_printable(&data).into(),
        _ => data,
    };
    Some(Part {
        name,
        filename,
        data,
    })
}

/// The parameters after the first `;`, quoted strings undone.
fn parameters(value: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = value.split_once(';').map_or("", |(_, rest)| rest);
    while let Some((name, after)) = rest.split_once('=') {
        let name = name
            .trim()
            .trim_start_matches(';')
            .trim()
            .to_ascii_lowercase();
        let after = after.trim_start();
        let (text, remaining) = if let Some(quoted) = after.strip_prefix('"') {
            let mut text = String::new();
            let mut characters = quoted.char_indices();
            let mut end = quoted.len();
            while let Some((index, character)) = characters.next() {
                match character {
                    '"' => {
                        end = index + 1;
                        break;
                    }
                    '\\' => text.extend(characters.next().map(|(_, escaped)| escaped)),
                    other => text.push(other),
                }
            }
            // aiohttp takes directories at the start of a quoted file name for a browser's mistake.
            let text = if name == "filename" {
                text.trim_start_matches(['/', '\\']).to_owned()
            } else {
                text
            };
            (text, &quoted[end..])
        } else {
            let end = after.find(';').unwrap_or(after.len());
            (after[..end].trim().to_owned(), &after[end..])
        };
        found.push((name, text));
        rest = remaining.trim_start().trim_start_matches(';');
    }
    found
}

fn parameter(parameters: &[(String, String)], name: &str) -> Option<String> {
    let plain = |wanted: &str| {
        parameters
            .iter()
            .find(|(known, _)| known == wanted)
            .map(|(_, value)| value.clone())
    };
    if let Some(extended) = plain(&format!("{name}*")) {
        let text = extended
            .splitn(3, '\'')
            .nth(2)
            .unwrap_or(&extended)
            .to_owned();
        return Some(percent_decode_str(&text).decode_utf8_lossy().into_owned());
    }
    if let Some(value) = plain(name) {
        return Some(value);
    }
    let mut joined = None;
    for index in 0.. {
        let literal = plain(&format!("{name}*{index}"));
        let encoded = plain(&format!("{name}*{index}*"))
            .map(|value| percent_decode_str(&value).decode_utf8_lossy().into_owned());
        let Some(value) = literal.or(encoded) else {
            break;
        };
        joined.get_or_insert_with(String::new).push_str(&value);
    }
    joined
}

fn quoted_printable(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut at = 0;
    while at < data.len() {
        if data[at] == b'=' {
            if data[at + 1..].starts_with(b"\r\n") {
                at += 3;
                continue;
            }
            if data[at + 1..].starts_with(b"\n") {
                at += 2;
                continue;
            }
            let digits = data
                .get(at + 1..at + 3)
                .and_then(|digits| std::str::from_utf8(digits).ok());
            if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                out.push(byte);
                at += 3;
                continue;
            }
        }
        out.push(data[at]);
        at += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::Form;
    use bytes::Bytes;

    fn read(parts: &[(&str, &str)]) -> Form {
        let mut body = String::new();
        for (head, data) in parts {
            body.push_str(&format!("--b\r\n{head}\r\n\r\n{data}\r\n"));
        }
        body.push_str("--b--\r\n");
        Form::read("multipart/form-data; boundary=b", &Bytes::from(body))
    }

    #[test]
    fn names_of_files() {
        for (disposition, expected) in [
            (r#"name="image"; filename="a b.png""#, "a b.png"),
            (
                r#"name="image"; filename="safe.png"; filename*=UTF-8''star%20wins.png"#,
                "star wins.png",
            ),
            (
                r#"name="image"; filename*0="con"; filename*1="tin.png""#,
                "contin.png",
            ),
            (r#"name="image"; filename="//lead.png""#, "lead.png"),
            (r#"name="image"; filename="a\"b.png""#, "a\"b.png"),
        ] {
            let form = read(&[(
                &format!("Content-Disposition: form-data; {disposition}"),
                "x",
            )]);
            let name = form.get("image").and_then(|part| part.filename.clone());
            assert_eq!(name.as_deref(), Some(expected), "{disposition}");
        }
    }

    #[test]
    fn fields() {
        let form = read(&[
            (
                r#"Content-Disposition: form-data; name="x"; name*=UTF-8''subfolder"#,
                "first",
            ),
            (
                r#"Content-Disposition: form-data; name="subfolder""#,
                "second",
            ),
            (
                "Content-Disposition: form-data; name=\"coded\"\r\nContent-Transfer-Encoding: base64",
                "dmlh\r\nX2I=",
            ),
            (
                "Content-Disposition: form-data; name=\"quoted\"\r\nContent-Transfer-Encoding: quoted-printable",
                "a=20b=\r\nc",
            ),
        ]);
        assert_eq!(form.text("subfolder"), Ok(Some("first")));
        assert_eq!(form.text("coded"), Ok(Some("via_b")));
        assert_eq!(form.text("quoted"), Ok(Some("a bc")));
        assert_eq!(form.text("missing"), Ok(None));
    }
}
