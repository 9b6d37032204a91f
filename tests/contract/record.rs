//! Turns what a server answered into the form of a recording.
//!
//! Texts of ComfyUI itself, such as the tooltips of its nodes, are left out, and long lists are cut to their
//! length. Paths of the machine are written as `/srv/comfy`.

use crate::server::Server;
use crate::wire::Answer;
use serde_json::{Map, Value, json};

/// Longest list that is kept whole.
const LONGEST_LIST: usize = 40;
/// How many items of a longer list are kept.
const KEPT_ITEMS: usize = 6;
/// Longest text that is kept whole, and how much of a longer one is kept.
const LONGEST_TEXT: usize = 1_500;
const KEPT_TEXT: usize = 240;
/// Stands for a text that is not ours.
const CUT: &str = "<cut>";
/// Begins a traceback, which shows lines of the program.
const TRACEBACK: &str = "Traceback (most recent call last)";
/// Members of a node's description that hold prose.
const PROSE: &[&str] = &[
    "tooltip",
    "description",
    "search_aliases",
    "output_tooltips",
];
/// Headers worth keeping.
const HEADERS: &[&str] = &[
    "allow",
    "accept-ranges",
    "cache-control",
    "content-disposition",
    "content-length",
    "content-range",
    "content-security-policy",
    "content-type",
    "etag",
    "expires",
    "last-modified",
    "pragma",
    "server",
    "transfer-encoding",
    "vary",
    "x-content-type-options",
];

/// An exchange with this answer instead of the recorded one.
pub(crate) fn exchange(asked: &Value, answer: &Answer, server: &Server) -> Value {
    let mut made = json!({ "note": asked["note"], "request": asked["request"] });
    let mut headers = Map::new();
    for (name, value) in &answer.headers {
        if HEADERS.contains(&name.as_str()) {
            headers.insert(name.clone(), json!(value));
        }
    }
    let path = asked["request"]["path"].as_str().unwrap_or_default();
    made["response"] = json!({
        "status": answer.status,
        "headers": headers,
        "body": body(path, &asked["response"]["body"], answer),
    });
    neutral(&made, server)
}

/// A value without the paths and the port of this run.
pub(crate) fn neutral(value: &Value, server: &Server) -> Value {
    let root = server.root.to_string_lossy();
    let own = format!("127.0.0.1:{}", server.port);
    map_texts(value, &|text| {
        let mut text = text
            .replace(root.as_ref(), "/srv/comfy")
            .replace(&own, "127.0.0.1:8188");
        for (place, name) in &server.places {
            text = text.replace(place, name);
        }
        match text.split_once(TRACEBACK) {
            Some((before, _)) => format!("{before}{TRACEBACK}: {CUT}"),
            None => text,
        }
    })
}

fn map_texts(value: &Value, change: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(change(text)),
        Value::Array(items) => items.iter().map(|item| map_texts(item, change)).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (change(key), map_texts(value, change)))
            .collect(),
        other => other.clone(),
    }
}

fn body(path: &str, before: &Value, answer: &Answer) -> Value {
    let kind = answer.header("content-type").unwrap_or_default();
    if answer.body.is_empty() {
        return if answer.status == 304 || kind.is_empty() {
            json!("")
        } else {
            Value::Null
        };
    }
    if kind.starts_with("application/json")
        && let Ok(value) = serde_json::from_slice::<Value>(&answer.body)
    {
        if path.contains("object_info") {
            return trim(&without_prose(&only(before, &value)));
        }
        if path.starts_with("/templates") {
            return json!([{}]);
        }
        if path.contains("global_subgraphs") {
            // Blueprints of ComfyUI's own.
            return json!({ "<more>": value.as_object().map_or(0, Map::len) });
        }
        return trim(&without_traceback(&value));
    }
    let text = String::from_utf8_lossy(&answer.body);
    if kind.starts_with("text/plain") || kind.starts_with("application/json") {
        return trim(&json!(text));
    }
    if kind.starts_with("text/") || kind.starts_with("application/javascript") {
        return json!({ "text_len": answer.body.len(), "kind": kind });
    }
    let head: String = answer
        .body
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    json!({ "binary_len": answer.body.len(), "head_hex": head })
}

/// Of a catalogue of many nodes those that were recorded before.
fn only(before: &Value, value: &Value) -> Value {
    let (Some(before), Some(all)) = (before.as_object(), value.as_object()) else {
        return value.clone();
    };
    if all.len() <= LONGEST_LIST {
        return value.clone();
    }
    let mut kept: Map<String, Value> = all
        .iter()
        .filter(|(name, _)| before.contains_key(*name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let left_out = all.len() - kept.len();
    kept.insert("<more>".to_owned(), json!(left_out));
    Value::Object(kept)
}

fn without_prose(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| {
                let value = if PROSE.contains(&key.as_str()) {
                    map_texts(value, &|text| {
                        if text.is_empty() { "" } else { CUT }.to_owned()
                    })
                } else {
                    without_prose(value)
                };
                (key.clone(), value)
            })
            .collect(),
        Value::Array(items) => items.iter().map(without_prose).collect(),
        other => other.clone(),
    }
}

/// Tracebacks show lines of the program; their length is enough.
pub(crate) fn without_traceback(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match value {
                Value::Array(lines) if key == "traceback" => (
                    key.clone(),
                    json!(format!("<{} traceback entries>", lines.len())),
                ),
                _ => (key.clone(), without_traceback(value)),
            })
            .collect(),
        Value::Array(items) => items.iter().map(without_traceback).collect(),
        other => other.clone(),
    }
}

fn trim(value: &Value) -> Value {
    match value {
        Value::String(text) if text.chars().count() > LONGEST_TEXT => {
            let kept: String = text.chars().take(KEPT_TEXT).collect();
            json!(format!(
                "{kept}...<+{} chars>",
                text.chars().count() - KEPT_TEXT
            ))
        }
        Value::Array(items) if items.len() > LONGEST_LIST => {
            let mut kept: Vec<Value> = items.iter().take(KEPT_ITEMS).map(trim).collect();
            kept.push(json!(format!("<+{} items>", items.len() - KEPT_ITEMS)));
            Value::Array(kept)
        }
        Value::Array(items) => items.iter().map(trim).collect(),
        Value::Object(map) if map.len() > LONGEST_LIST => {
            let kept = map.iter().take(2);
            let mut kept: Map<String, Value> = kept
                .map(|(key, value)| (key.clone(), trim(value)))
                .collect();
            kept.insert("<more>".to_owned(), json!(map.len() - kept.len()));
            Value::Object(kept)
        }
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), trim(value)))
            .collect(),
        other => other.clone(),
    }
}

/// A whole file, as the recordings are written.
pub(crate) fn file(label: &str, name: &str, exchanges: &[Value]) -> anyhow::Result<Vec<u8>> {
    use serde::Serialize as _;
    let whole = json!({
        "label": label,
        "recorded": name.trim_end_matches(".json"),
        "multi_user": true,
        "exchanges": exchanges,
    });
    let mut bytes = Vec::new();
    let form = serde_json::ser::PrettyFormatter::with_indent(b" ");
    whole.serialize(&mut serde_json::Serializer::with_formatter(
        &mut bytes, form,
    ))?;
    bytes.push(b'\n');
    Ok(bytes)
}
