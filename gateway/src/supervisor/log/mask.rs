//! Hides secrets that engines and custom nodes print.

use std::borrow::Cow;

/// What stands in the place of a secret.
const HIDDEN: &str = "[hidden]";

/// Names after which a value is hidden, lower case; also as the beginning of a longer name such
/// as `auth_token_comfy_org`, or the end of one such as `my_api_key`.
const SECRET_NAMES: &[&str] = &[
    "access_token",
    "api-key",
    "api_key",
    "apikey",
    "auth-token",
    "auth_token",
    "authorization",
    "client_secret",
    "hf_token",
    "jwt_token",
    "passwd",
    "password",
    "refresh_token",
    "secret_key",
];

/// Beginnings of well-known keys, and how long the rest has to be at least.
const KEY_PREFIXES: &[(&str, usize)] = &[
    ("sk-", 16),
    ("hf_", 20),
    ("ghp_", 20),
    ("github_pat_", 20),
    ("comfyui-", 32),
];

/// A JSON web token is longer than this.
const SHORTEST_JWT: usize = 24;

/// The text with every secret it recognises replaced by `[hidden]`.
///
/// Hidden are JSON web tokens, what follows `Bearer` and `Basic`, values of names such as
/// `api_key_comfy_org` and `auth_token…`, keys that begin with `sk-` and the like, and user and
/// password in URLs. Better one word too many than one too few.
pub fn mask_secrets(text: &str) -> Cow<'_, str> {
    let mut masked: Option<String> = None;
    let mut copied = 0;
    let mut position = 0;
    while position < text.len() {
        match secret_at(text, position) {
            Some((from, to)) => {
                let output = masked.get_or_insert_with(String::new);
                output.push_str(&text[copied..from]);
                output.push_str(HIDDEN);
                copied = to;
                position = to;
            }
            None => position = next_candidate(text, position + 1),
        }
    }
    match masked {
        Some(mut output) => {
            output.push_str(&text[copied..]);
            Cow::Owned(output)
        }
        None => Cow::Borrowed(text),
    }
}

/// The next place where a secret may begin: a character boundary with an ASCII letter or `:`.
fn next_candidate(text: &str, from: usize) -> usize {
    text.as_bytes()[from.min(text.len())..]
        .iter()
        .position(|byte| byte.is_ascii_alphabetic() || *byte == b':')
        .map_or(text.len(), |offset| from + offset)
}

/// The range to hide, if one is recognised by what stands at `position`.
fn secret_at(text: &str, position: usize) -> Option<(usize, usize)> {
    let first = text.as_bytes()[position].to_ascii_lowercase();
    match first {
        b':' => user_info(text, position),
        b'e' if text[position..].starts_with("eyJ") => web_token(text, position),
        b'b' => after_scheme(text, position),
        _ => key_by_prefix(text, position),
    }
    .or_else(|| named_value(text, position, first))
}

fn web_token(text: &str, position: usize) -> Option<(usize, usize)> {
    let end = run(text, position, |byte| is_base64url(byte) || byte == b'.');
    let token = &text[position..end];
    (token.len() >= SHORTEST_JWT && token.contains('.')).then_some((position, end))
}

/// `Bearer xyz`, `Basic xyz`: hides the second word.
fn after_scheme(text: &str, position: usize) -> Option<(usize, usize)> {
    if !starts_word(text, position) {
        return None;
    }
    let rest = text.get(position..)?;
    let scheme = ["bearer", "basic"]
        .into_iter()
        .find(|scheme| starts_with_ignoring_case(rest, scheme))?;
    let gap = position + scheme.len();
    let from = run(text, gap, |byte| {
        matches!(byte, b' ' | b'\t' | b':' | b'=' | b'"' | b'\'')
    });
    let to = run(text, from, is_value);
    // "basic nodes" is no secret.
    let long_enough = if scheme == "basic" { 12 } else { 6 };
    let masked = text[from..].starts_with(HIDDEN);
    (from > gap && to - from >= long_enough && !masked).then_some((from, to))
}

fn key_by_prefix(text: &str, position: usize) -> Option<(usize, usize)> {
    if !starts_word(text, position) {
        return None;
    }
    let (prefix, length) = KEY_PREFIXES
        .iter()
        .find(|(prefix, _)| text[position..].starts_with(prefix))?;
    let end = run(text, position + prefix.len(), is_base64url);
    (end - position - prefix.len() >= *length).then_some((position, end))
}

/// `api_key_comfy_org: "xyz"`, `password=xyz`: hides the value.
fn named_value(text: &str, position: usize, first: u8) -> Option<(usize, usize)> {
    let rest = text.get(position..)?;
    let name = SECRET_NAMES.iter().find(|name| {
        name.as_bytes().first() == Some(&first) && starts_with_ignoring_case(rest, name)
    })?;
    let name_end = run(text, position + name.len(), |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
    });
    let mut cursor = run(text, name_end, |byte| {
        matches!(byte, b'"' | b'\'' | b'\\' | b' ')
    });
    if !matches!(text.as_bytes().get(cursor), Some(b':' | b'=')) {
        return None;
    }
    cursor = run(text, cursor, |byte| {
        matches!(byte, b':' | b'=' | b'"' | b'\'' | b'\\' | b' ' | b'[')
    });
    // `Authorization: Bearer xyz`: hide the second word rather than the first.
    if let Some(found) = after_scheme(text, cursor) {
        return Some(found);
    }
    let end = run(text, cursor, is_value);
    let value = &text[cursor..end];
    let harmless = matches!(
        value,
        "" | "None" | "null" | "true" | "false" | "True" | "False"
    );
    (!harmless && value != HIDDEN.trim_matches(['[', ']'])).then_some((cursor, end))
}

/// `://user:password@host`: hides what stands before the `@`.
fn user_info(text: &str, position: usize) -> Option<(usize, usize)> {
    let from = position + text[position..].strip_prefix("://").map(|_| 3)?;
    let end = run(text, from, |byte| {
        !byte.is_ascii_whitespace() && !matches!(byte, b'/' | b'?' | b'#' | b'"' | b'\'')
    });
    let authority = &text[from..end];
    let (user_info, _) = authority.rsplit_once('@')?;
    user_info
        .contains(':')
        .then_some((from, from + user_info.len()))
}

/// Where the run of bytes that satisfy `belongs` ends; a character boundary, as all the bytes
/// tested for are ASCII or whole characters stay together.
fn run(text: &str, from: usize, belongs: impl Fn(u8) -> bool) -> usize {
    let mut end = from.min(text.len())
        + text.as_bytes()[from.min(text.len())..]
            .iter()
            .position(|byte| !belongs(*byte))
            .unwrap_or(text.len() - from.min(text.len()));
    while !text.is_char_boundary(end) {
        end += 1;
    }
    end
}

fn starts_word(text: &str, position: usize) -> bool {
    position == 0
        || !text.as_bytes()[position - 1].is_ascii_alphanumeric()
            && text.as_bytes()[position - 1] != b'_'
}

fn starts_with_ignoring_case(text: &str, start: &str) -> bool {
    text.as_bytes()
        .get(..start.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(start.as_bytes()))
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

fn is_value(byte: u8) -> bool {
    !byte.is_ascii_whitespace()
        && !matches!(byte, b'"' | b'\'' | b',' | b';' | b'&' | b'}' | b')' | b']')
}

#[cfg(test)]
mod tests {
    use super::*;

    const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJpZCI6IjEifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ";

    #[test]
    fn table() {
        let jwt = format!("token {JWT}.");
        let url = format!("GET /?token={JWT}&x=1");
        let table: &[(&str, &str)] = &[
            ("", ""),
            ("got prompt", "got prompt"),
            ("Füße 100 % – eyJ is short", "Füße 100 % – eyJ is short"),
            (&jwt, "token [hidden]"),
            (&url, "GET /?token=[hidden]&x=1"),
            (
                "Authorization: Bearer abcdef123456",
                "Authorization: Bearer [hidden]",
            ),
            (
                "authorization: bearer abcdef123456, x",
                "authorization: bearer [hidden], x",
            ),
            (
                "{'Authorization': 'Basic YWxpY2U6c2VjcmV0'}",
                "{'Authorization': 'Basic [hidden]'}",
            ),
            ("the bearer of news", "the bearer of news"),
            ("basic nodes loaded", "basic nodes loaded"),
            (
                "{\"api_key_comfy_org\": \"comfyui-1234\"}",
                "{\"api_key_comfy_org\": \"[hidden]\"}",
            ),
            (
                "{'auth_token_comfy_org': 'abc', 'b': 1}",
                "{'auth_token_comfy_org': '[hidden]', 'b': 1}",
            ),
            (
                "\\\"api_key\\\": \\\"abc\\\"",
                "\\\"api_key\\\": \\\"[hidden]\"",
            ),
            (
                "CIVITAI_API_KEY=0123abcd rest",
                "CIVITAI_API_KEY=[hidden] rest",
            ),
            ("?api_key=abc&b=2", "?api_key=[hidden]&b=2"),
            ("api_key_comfy_org: None", "api_key_comfy_org: None"),
            ("no password given", "no password given"),
            ("password: geheim, ok", "password: [hidden], ok"),
            ("Paßwort password=ä€ß", "Paßwort password=[hidden]"),
            ("key sk-proj-abcdefghij0123456789 end", "key [hidden] end"),
            (
                "risk-assessment-of-long-things",
                "risk-assessment-of-long-things",
            ),
            ("hf_abcdefghijklmnopqrstuvwxyz", "[hidden]"),
            (
                "https://al:pw@example.org/x?y",
                "https://[hidden]@example.org/x?y",
            ),
            ("http://127.0.0.1:8188/@x:y", "http://127.0.0.1:8188/@x:y"),
            (
                "git clone ssh://git@example.org/x",
                "git clone ssh://git@example.org/x",
            ),
            (
                "proxy http://u:p@ss@h:1 and http://h:2",
                "proxy http://[hidden]@h:1 and http://h:2",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(mask_secrets(text), *expected, "{text}");
        }
    }

    #[test]
    fn masking_twice_changes_nothing() {
        let once = mask_secrets("api_key: abcdefg Bearer abcdefgh").into_owned();
        assert_eq!(mask_secrets(&once), once);
    }

    #[test]
    fn any_text_is_cut_at_character_boundaries() {
        for text in [
            "Bearer é€€€€€€€",
            "password=é",
            "eyJé",
            "://é:é@é",
            "sk-é",
            "é://",
            "api_key:",
        ] {
            let _no_panic = mask_secrets(text);
        }
    }
}
