//! Request bodies as aiohttp gives them to ComfyUI: transfer and content encodings undone, the charset of
//! the content type obeyed, the content type itself not looked at.

use crate::answer::{self, Refusal};
use crate::json::Json;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use std::io::Read as _;

/// Reads a whole body and undoes `Content-Encoding`.
pub(crate) async fn bytes(headers: &HeaderMap, body: Body, largest: u64) -> Result<Bytes, Refusal> {
    let limit = usize::try_from(largest).unwrap_or(usize::MAX);
    let collected = Limited::new(body, limit).collect().await.map_err(|error| {
        if error.downcast_ref::<LengthLimitError>().is_some() {
            let text = format!(
                "Maximum request body size {largest} exceeded, actual body size {}",
                largest + 1
            );
            answer::text(StatusCode::PAYLOAD_TOO_LARGE, &text)
        } else {
            answer::refused(StatusCode::BAD_REQUEST)
        }
    })?;
    let raw = collected.to_bytes();
    let encoding = headers
        .get(header::CONTENT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let mut out = Vec::new();
    let read = match encoding.to_ascii_lowercase().as_str() {
        "gzip" => flate2::read::MultiGzDecoder::new(&raw[..])
            .take(largest + 1)
            .read_to_end(&mut out),
        "deflate" if raw.first().is_some_and(|byte| byte & 0x0F == 8) => {
            flate2::read::ZlibDecoder::new(&raw[..])
                .take(largest + 1)
                .read_to_end(&mut out)
        }
        "deflate" => flate2::read::DeflateDecoder::new(&raw[..])
            .take(largest + 1)
            .read_to_end(&mut out),
        _ => return Ok(raw),
    };
    match read {
        Ok(length) if length <= limit => Ok(out.into()),
        Ok(_) => Err(answer::refused(StatusCode::PAYLOAD_TOO_LARGE).into()),
        Err(_) => Err(answer::refused(StatusCode::BAD_REQUEST).into()),
    }
}

/// Reads JSON; anything that is not is a 500, as an uncaught exception in ComfyUI.
pub(crate) async fn json(headers: &HeaderMap, body: Body, largest: u64) -> Result<Json, Refusal> {
    let bytes = bytes(headers, body, largest).await?;
    let text = decode(&bytes, &charset(headers)).ok_or_else(answer::broken)?;
    Json::parse(&text).map_err(|_| answer::broken().into())
}

fn charset(headers: &HeaderMap) -> String {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    kind.split(';')
        .skip(1)
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
        .map_or_else(
            || "utf-8".to_owned(),
            |(_, value)| value.trim().trim_matches('"').to_ascii_lowercase(),
        )
}

/// Decodes by the name of a Python codec; `None` where Python raises.
pub(crate) fn decode(bytes: &[u8], charset: &str) -> Option<String> {
    let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    match charset.replace('_', "-").as_str() {
        "utf-8" | "utf8" | "us-ascii" | "ascii" => utf8(bytes),
        "utf-8-sig" => utf8(bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)),
        "latin-1" | "latin1" | "iso-8859-1" => {
            Some(bytes.iter().copied().map(char::from).collect())
        }
        "utf-16" | "utf16" => match bytes {
            [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes),
            [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes),
            rest => utf16(rest, u16::from_le_bytes),
        },
        "utf-16-le" | "utf-16le" => utf16(bytes, u16::from_le_bytes),
        "utf-16-be" | "utf-16be" => utf16(bytes, u16::from_be_bytes),
        "utf-7" | "utf7" => utf7(bytes),
        _ => None,
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let pairs = bytes.chunks(2).map(|pair| pair.try_into().ok().map(unit));
    let units: Vec<u16> = pairs.collect::<Option<_>>()?;
    String::from_utf16(&units).ok()
}

fn utf7(bytes: &[u8]) -> Option<String> {
    use base64::Engine as _;
    use base64::alphabet::STANDARD;
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    let engine = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let text = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| text.is_ascii())?;
    let mut out = String::new();
    let mut rest = text;
    while let Some((plain, shifted)) = rest.split_once('+') {
        out.push_str(plain);
        let end = shifted
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '+' || c == '/'))
            .unwrap_or(shifted.len());
        if end == 0 {
            rest = shifted.strip_prefix('-')?;
            out.push('+');
            continue;
        }
        let mut units = engine.decode(&shifted[..end]).ok()?;
        units.truncate(units.len() / 2 * 2);
        out.push_str(&utf16(&units, u16::from_be_bytes)?);
        rest = &shifted[end..];
        rest = rest.strip_prefix('-').unwrap_or(rest);
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn decodes_what_python_decodes() {
        for (bytes, charset, expected) in [
            (&b"\xff\xfe{\0}\0"[..], "utf-16", Some("{}")),
            (b"+AHs-a+-b+AH0-", "utf-7", Some("{a+b}")),
            (b"\xef\xbb\xbf{}", "utf-8-sig", Some("{}")),
            (b"\xef\xbb\xbf{}", "utf-8", Some("\u{feff}{}")),
            (b"\xe9", "latin-1", Some("é")),
            (b"\xe9", "utf-8", None),
            (b"{}", "bogus", None),
        ] {
            assert_eq!(decode(bytes, charset).as_deref(), expected, "{charset}");
        }
    }
}
