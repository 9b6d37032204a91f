//! Workflows that the tests run.

use serde_json::{Value, json};

/// A single-coloured picture, saved under a prefix, which may be a link.
pub(crate) fn picture(prefix: impl Into<Value>, color: u32) -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": color}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix.into()}},
    })
}

/// The same, kept in the temp directory.
pub(crate) fn preview(color: u32) -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": color}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    })
}

/// Takes `seconds` in steps of a twentieth, and shows a picture with each step.
pub(crate) fn slow(seconds: f64, tag: &str) -> Value {
    probe(seconds, tag, "PNG", false)
}

pub(crate) fn probe(seconds: f64, tag: &str, preview: &str, fails: bool) -> Value {
    let steps = (seconds * 20.0).ceil().max(1.0);
    json!({
        "1": {"class_type": "SlowProbe", "inputs": {"seconds": seconds, "steps": steps as u32, "preview": preview, "tag": tag, "fail": fails}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    })
}

/// Loads a picture and shows it.
pub(crate) fn load(class: &str, input: &str, name: impl Into<Value>) -> Value {
    json!({
        "1": {"class_type": class, "inputs": {input: name.into(), "channel": "red", "width": 16, "height": 16}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    })
}

/// Adds a workflow as ComfyUI's page sends it, with a note in it.
pub(crate) fn with_note(graph: &Value, note: &str) -> Value {
    json!({
        "prompt": graph,
        "extra_data": {"extra_pnginfo": {"workflow": {"id": note, "nodes": [], "extra": {"note": note}}}},
    })
}
