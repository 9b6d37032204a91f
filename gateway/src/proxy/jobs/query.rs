//! Queries as ComfyUI reads them.

use percent_encoding::percent_decode_str;
use std::num::ParseIntError;

/// First value of a key; ComfyUI takes the first of repeated ones.
pub(super) fn value_of(query: Option<&str>, name: &str) -> Option<String> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == name).then(|| decode(value))
    })
}

pub(super) fn number_of(query: Option<&str>, name: &str) -> Option<Result<i64, ParseIntError>> {
    value_of(query, name).map(|text| text.trim().parse())
}
