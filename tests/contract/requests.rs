//! The bytes of a recorded request. Long and binary bodies were recorded by name only; they are made here.

use anyhow::{Context as _, Result, bail};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};
use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};

const BOUNDARY: &str = "----contract";

/// A body and the content type that goes with it, if the recording names none.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) bytes: Option<Vec<u8>>,
    pub(crate) kind: Option<String>,
    pub(crate) chunked: bool,
}

/// Makes the body of an exchange.
pub(crate) fn body(exchange: &Value) -> Result<Made> {
    let request = &exchange["request"];
    let json_kind = Some("application/json".to_owned());
    let bytes = match &request["body"] {
        Value::Null => return Ok(Made::default()),
        Value::String(name) if request["path"] == "/upload/image" => {
            return upload(
                name,
                request["headers"]["Content-Type"]
                    .as_str()
                    .unwrap_or_default(),
            );
        }
        // A JSON text is recorded as it is; the others are names of what was sent.
        Value::String(name) => match named(name) {
            Some(bytes) => bytes?,
            None if request["path"]
                .as_str()
                .is_some_and(|path| path.contains("settings")) =>
            {
                serde_json::to_vec(&request["body"])?
            }
            None => name.clone().into_bytes(),
        },
        Value::Object(map) if map.contains_key("raw_parts") => {
            return raw_parts(
                &map["raw_parts"],
                request["headers"]["Content-Type"]
                    .as_str()
                    .unwrap_or_default(),
            );
        }
        Value::Object(map) if map.contains_key("multipart") => {
            return multipart(&map["multipart"], exchange);
        }
        Value::Object(map) if map.contains_key("head_hex") => b"{".to_vec(),
        other => serde_json::to_vec(&lengthened(other))?,
    };
    let chunked = request["body"] == "chunked JSON";
    Ok(Made {
        bytes: Some(bytes),
        kind: json_kind,
        chunked,
    })
}

/// Each time another colour, so that nothing is answered from the cache.
fn color() -> u32 {
    static COLOR: AtomicU32 = AtomicU32::new(0x0010_0000);
    COLOR.fetch_add(1, Ordering::Relaxed)
}

fn graph() -> Value {
    json!({
        "1": { "class_type": "EmptyImage", "inputs": { "width": 64, "height": 64, "batch_size": 1, "color": color() } },
        "2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": "forms" } },
    })
}

/// A graph with one more input, written as text since it need not be JSON.
fn poisoned(junk: &str) -> Vec<u8> {
    format!(
        r#"{{"prompt": {{"1": {{"class_type": "EmptyImage", "inputs": {{"width": 64, "height": 64, "batch_size": 1, "junk": {junk}, "color": {}}}}}, "2": {{"class_type": "SaveImage", "inputs": {{"images": ["1", 0], "filename_prefix": "poison"}}}}}}}}"#,
        color()
    )
    .into_bytes()
}

fn named(name: &str) -> Option<Result<Vec<u8>>> {
    let plain = || json!({ "prompt": graph() }).to_string();
    let with = |key: &str, value: Value| {
        let mut body = json!({ "prompt": graph() });
        body[key] = value;
        body.to_string().into_bytes()
    };
    Some(Ok(match name {
        "gzip body" => return Some(gzip(plain().as_bytes())),
        "deflate body" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            return Some(
                encoder
                    .write_all(plain().as_bytes())
                    .and_then(|()| encoder.finish())
                    .map_err(Into::into),
            );
        }
        "charset utf-16" => {
            let units = std::iter::once(0xFEFF).chain(plain().encode_utf16().collect::<Vec<u16>>());
            units.flat_map(u16::to_le_bytes).collect()
        }
        "charset utf-7" => plain()
            .replace('{', "+AHs-")
            .replace('}', "+AH0-")
            .into_bytes(),
        "charset unknown" | "text/plain" | "form content type" | "chunked JSON" => {
            plain().into_bytes()
        }
        "BOM" => format!("\u{feff}{}", plain()).into_bytes(),
        "duplicate keys: last wins" => format!(
            r#"{{"prompt": {}, "client_id": "first", "client_id": "last"}}"#,
            graph()
        )
        .into_bytes(),
        "escaped duplicate key" => format!(
            r#"{{"prompt": {}, "client_id": "first", "client\u005fid": "last"}}"#,
            graph()
        )
        .into_bytes(),
        "list body" => b"[]".to_vec(),
        "null body" => b"null".to_vec(),
        "prompt is a list" => br#"{"prompt": [1]}"#.to_vec(),
        // Without a client id 0.3.64 takes it, and its worker dies of it.
        "extra_data null" => {
            let body = json!({ "prompt": graph(), "extra_data": null, "client_id": "x" });
            body.to_string().into_bytes()
        }
        "prompt_id null (0.12.1 makes the id 'None')" => with("prompt_id", Value::Null),
        "prompt_id object" => with("prompt_id", json!({ "a": 1 })),
        "number string" => with("number", json!("3")),
        "partial_execution_targets" => with("partial_execution_targets", json!(["2"])),
        "graph with an extra input junk=NaN" => poisoned("NaN"),
        "graph with an extra input junk=1e999 -> Infinity" => poisoned("1e999"),
        "graph with an extra input junk=lone surrogate" => poisoned(r#""\ud800""#),
        "graph with an extra input junk=400-digit integer" => {
            poisoned(&format!("1{}", "0".repeat(399)))
        }
        "graph with an extra input junk=nesting 200" => {
            poisoned(&format!("{}{}", "[".repeat(200), "]".repeat(200)))
        }
        _ => return None,
    }))
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// Texts cut in the recording go on as they began.
fn lengthened(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let cut = text.rfind("...<+").zip(text.strip_suffix(" chars>"));
            let Some((at, rest)) = cut else {
                return value.clone();
            };
            let more = rest[at + 5..].parse().unwrap_or(0);
            let start = &text[..at];
            Value::String(
                start
                    .chars()
                    .chain(
                        start
                            .chars()
                            .cycle()
                            .skip(start.chars().count() % 3)
                            .take(more),
                    )
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(lengthened).collect()),
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, value)| (key.clone(), lengthened(value)))
                .collect(),
        ),
        other => other.clone(),
    }
}

fn form(parts: &[(String, Vec<u8>)], boundary: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (head, data) in parts {
        out.extend(format!("--{boundary}\r\n{head}\r\n\r\n").bytes());
        out.extend(data);
        out.extend(b"\r\n");
    }
    out.extend(format!("--{boundary}--\r\n").bytes());
    out
}

fn made(parts: &[(String, Vec<u8>)]) -> Made {
    Made {
        bytes: Some(form(parts, BOUNDARY)),
        kind: Some(format!("multipart/form-data; boundary={BOUNDARY}")),
        chunked: false,
    }
}

fn field(name: &str, value: &str) -> (String, Vec<u8>) {
    (
        format!("Content-Disposition: form-data; name=\"{name}\""),
        value.as_bytes().to_vec(),
    )
}

fn file(name: &str, filename: &str, data: Vec<u8>) -> (String, Vec<u8>) {
    (
        format!(
            "Content-Disposition: form-data; name=\"{name}\"; filename=\"{filename}\"\r\nContent-Type: image/png"
        ),
        data,
    )
}

fn upload(name: &str, kind: &str) -> Result<Made> {
    match name {
        "multipart without image" => Ok(made(&[field("subfolder", "x")])),
        "gzip(multipart)" => {
            let boundary = kind.split("boundary=").nth(1).context("a boundary")?;
            let whole = form(&[file("image", "gz.png", png(3, &[])?)], boundary);
            Ok(Made {
                bytes: Some(gzip(&whole)?),
                kind: None,
                chunked: false,
            })
        }
        other => bail!("unknown body {other}"),
    }
}

fn multipart(form: &Value, exchange: &Value) -> Result<Made> {
    let mut parts = Vec::new();
    for pair in form["fields"].as_array().into_iter().flatten() {
        parts.push(field(
            pair[0].as_str().unwrap_or_default(),
            pair[1].as_str().unwrap_or_default(),
        ));
    }
    if let Value::Object(reference) = &form["original_ref"] {
        parts.push(field(
            "original_ref",
            &Value::Object(reference.clone()).to_string(),
        ));
        parts.push(field(
            "subfolder",
            form["subfolder"].as_str().unwrap_or_default(),
        ));
        let name = exchange["response"]["body"]["name"]
            .as_str()
            .context("the name of the upload")?;
        parts.push(file("image", name, png(9, &[])?));
    } else if let Some([name, length]) = form["image"].as_array().map(Vec::as_slice) {
        let name = name.as_str().unwrap_or_default();
        let data = match length.as_u64() {
            Some(25) => b"<script>alert(1)</script>".to_vec(),
            Some(187) => png(
                7,
                &[
                    ("prompt", "{}"),
                    ("workflow", "{\"note\": \"of the source\"}"),
                ],
            )?,
            // Other bytes for another recorded length, so that equal names meet different contents.
            Some(length) => png(u8::try_from(length % 256)?, &[])?,
            None => bail!("a picture without a length"),
        };
        parts.push(file("image", name, data));
    } else {
        for tag in form["tags"].as_array().into_iter().flatten() {
            parts.push(field("tags", tag.as_str().unwrap_or_default()));
        }
        let name = form["name"].as_str().unwrap_or_default();
        parts.push(field("name", name));
        parts.push(file("file", name, png(5, &[])?));
    }
    Ok(made(&parts))
}

fn raw_parts(parts: &Value, kind: &str) -> Result<Made> {
    let boundary = kind.split("boundary=").nth(1).context("a boundary")?;
    let mut made = Vec::new();
    for (index, part) in parts.as_array().into_iter().flatten().enumerate() {
        let head = part[0].as_str().unwrap_or_default().to_owned();
        let text = part[1].as_str().unwrap_or_default();
        let data = if text.starts_with("\u{89}PNG") {
            png(40 + u8::try_from(index)?, &[])?
        } else {
            text.chars()
                .map(|character| u8::try_from(u32::from(character)).unwrap_or(b'?'))
                .collect()
        };
        made.push((head, data));
    }
    Ok(Made {
        bytes: Some(form(&made, boundary)),
        kind: None,
        chunked: false,
    })
}

/// A small picture with a shade and texts.
pub(crate) fn png(shade: u8, texts: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 32, 24);
    encoder.set_color(png::ColorType::Rgb);
    for (key, text) in texts {
        encoder.add_text_chunk((*key).to_owned(), (*text).to_owned())?;
    }
    encoder
        .write_header()?
        .write_image_data(&[shade; 32 * 24 * 3])?;
    Ok(bytes)
}
