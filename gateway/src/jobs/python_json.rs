//! What Python takes for JSON.

/// Python writes `NaN` and `Infinity`, which are no JSON, and halves of characters for file names
/// that are not UTF-8. The former become `null`, the latter the mark for broken characters.
pub(super) fn to_strict_json(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let mut strict = String::with_capacity(body.len());
    let mut rest = &*body;
    let mut is_text = false;
    while let Some(letter) = rest.chars().next() {
        if is_text && letter == '\\' {
            let is_half = |text: &str, halves: [&str; 4]| {
                text.get(..6).is_some_and(|text| {
                    text.starts_with("\\u")
                        && text.get(2..4).is_some_and(|digits| {
                            halves.iter().any(|half| digits.eq_ignore_ascii_case(half))
                        })
                })
            };
            let length = if is_half(rest, ["d8", "d9", "da", "db"]) {
                if is_half(&rest[6..], ["dc", "dd", "de", "df"]) {
                    strict.push_str(&rest[..12]);
                    12
                } else {
                    strict.push('\u{fffd}');
                    6
                }
            } else if is_half(rest, ["dc", "dd", "de", "df"]) {
                strict.push('\u{fffd}');
                6
            } else {
                let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                strict.push_str(&rest[..length]);
                length
            };
            rest = &rest[length..];
            continue;
        }
        if letter == '"' {
            is_text = !is_text;
        } else if !is_text
            && let Some(after) = ["-Infinity", "Infinity", "NaN"]
                .iter()
                .find_map(|word| rest.strip_prefix(word))
        {
            strict.push_str("null");
            rest = after;
            continue;
        }
        strict.push(letter);
        rest = &rest[letter.len_utf8()..];
    }
    strict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_writes_becomes_json() {
        let told = r#"{"a":NaN,"b":[-Infinity,Infinity],"c":"NaN \" Infinity\\","d":"x\udc80y\ud83d\ude00","e":"\ud83dz\\udc80"}"#;
        let read: serde_json::Value =
            serde_json::from_str(&to_strict_json(told.as_bytes())).unwrap();
        let expected = serde_json::json!({
            "a": null, "b": [null, null], "c": "NaN \" Infinity\\", "d": "x\u{fffd}y😀",
            "e": "\u{fffd}z\\udc80",
        });
        assert_eq!(read, expected);
    }
}
