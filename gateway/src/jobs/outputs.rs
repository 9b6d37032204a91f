//! What a job has made, as ComfyUI's job list counts and shows it (0.33, `comfy_execution/jobs.py`).

use serde_json::{Map, Value, json};

/// Kinds that ComfyUI's page can show.
const PREVIEWABLE: [&str; 5] = ["images", "video", "audio", "3d", "text"];
/// Ends of names of 3D files, for which there is no kind.
const THREE_D: [&str; 5] = [".obj", ".fbx", ".gltf", ".glb", ".usdz"];
/// Ends of names of text files.
const TEXT: [&str; 3] = [".txt", ".md", ".json"];
/// Longest text in a list of jobs, characters.
const LONGEST_TEXT: usize = 1024;

/// Counts, and what stands for all.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Shown {
    /// Files.
    pub(super) count: usize,
    /// Files that ComfyUI's page can show.
    pub(super) previewable: usize,
    /// A kept picture or the like before a temporary one, before a text file, before a text.
    pub(super) preview: Option<Value>,
}

impl Shown {
    /// Of the outputs in a history entry.
    pub(super) fn of(outputs: &Value) -> Self {
        let mut shown = Self::default();
        let mut found = [const { None }; 4];
        for (node, kind, item) in items(outputs) {
            let file = match item {
                Value::Object(file) => Some(file.clone()),
                Value::String(name) => three_d_file(name),
                _ => None,
            };
            let Some(mut file) = file else {
                if kind == "text" {
                    found[3].get_or_insert_with(|| text_preview(node, item));
                }
                continue;
            };
            shown.count += 1;
            if !is_previewable(kind, &file) {
                continue;
            }
            shown.previewable += 1;
            let rank = if is_text(kind, &file) {
                2
            } else if file.get("type").and_then(Value::as_str) == Some("output") {
                0
            } else {
                1
            };
            file.insert("nodeId".to_owned(), json!(node));
            file.entry("mediaType").or_insert_with(|| json!(kind));
            found[rank].get_or_insert(Value::Object(file));
        }
        shown.preview = found.into_iter().flatten().next();
        shown
    }
}

/// Each node's items with their kind. `animated` says how the others are to be shown.
fn items(outputs: &Value) -> impl Iterator<Item = (&String, &String, &Value)> {
    let nodes = outputs.as_object().into_iter().flatten();
    nodes.flat_map(|(node, shown)| {
        let kinds = shown.as_object().into_iter().flatten();
        kinds
            .filter(|(kind, _)| *kind != "animated")
            .flat_map(move |(kind, items)| {
                let items = items.as_array().into_iter().flatten();
                items.map(move |item| (node, kind, item))
            })
    })
}

/// Nodes tell 3D files by name alone.
fn three_d_file(name: &str) -> Option<Map<String, Value>> {
    let file = json!({ "filename": name, "type": "output", "subfolder": "", "mediaType": "3d" });
    match file {
        Value::Object(file) if ends_with(name, &THREE_D) => Some(file),
        _ => None,
    }
}

fn ends_with(name: &str, ends: &[&str]) -> bool {
    let name = name.to_lowercase();
    ends.iter().any(|end| name.ends_with(end))
}

fn text<'file>(file: &'file Map<String, Value>, name: &str) -> &'file str {
    file.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn is_previewable(kind: &str, file: &Map<String, Value>) -> bool {
    let format = text(file, "format");
    PREVIEWABLE.contains(&kind)
        || format.starts_with("video/")
        || format.starts_with("audio/")
        || ends_with(text(file, "filename"), &THREE_D)
        || ends_with(text(file, "filename"), &TEXT)
}

fn is_text(kind: &str, file: &Map<String, Value>) -> bool {
    kind == "text" || ends_with(text(file, "filename"), &TEXT)
}

fn text_preview(node: &str, item: &Value) -> Value {
    let content = match item {
        // A tuple in Python.
        Value::Array(items) => items.first().map_or_else(String::new, in_python),
        other => in_python(other),
    };
    let short: String = content.chars().take(LONGEST_TEXT).collect();
    let is_cut = short.len() < content.len();
    let mut preview = json!({ "content": short, "nodeId": node, "mediaType": "text" });
    if is_cut {
        preview["truncated"] = json!(true);
    }
    preview
}

/// A value as Python prints it.
pub(crate) fn in_python(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        other => other.to_string(),
    }
}

/// A job's outputs as `/api/jobs/{id}` tells them: 3D files as files, and no empty items.
pub(crate) fn normalised(outputs: String) -> String {
    let lower = outputs.to_ascii_lowercase();
    let is_touched = lower.contains("null")
        || THREE_D
            .iter()
            .any(|end| lower.contains(&format!("{end}\"")));
    if !is_touched {
        return outputs;
    }
    let Ok(mut value) = serde_json::from_str::<Value>(&outputs) else {
        return outputs;
    };
    for shown in value.as_object_mut().into_iter().flat_map(Map::values_mut) {
        for (kind, items) in shown.as_object_mut().into_iter().flatten() {
            let Some(items) = items.as_array_mut().filter(|_| kind != "animated") else {
                continue;
            };
            items.retain(|item| !item.is_null());
            for item in items {
                if let Some(file) = item.as_str().and_then(three_d_file) {
                    *item = Value::Object(file);
                }
            }
        }
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(outputs: &Value) -> (usize, usize, Value) {
        let shown = Shown::of(outputs);
        (
            shown.count,
            shown.previewable,
            shown.preview.unwrap_or(Value::Null),
        )
    }

    #[test]
    fn b7_counts_and_previews_are_those_of_0_33() {
        let file =
            |name: &str, kind: &str| json!({"filename": name, "subfolder": "", "type": kind});
        // A text file first, then a picture: the picture.
        let outputs = json!({
            "1": {"text": ["words"], "files": [file("a.md", "output")]},
            "2": {"images": [file("t.png", "temp")], "animated": [false]},
            "3": {"images": [file("x.png", "output")]},
        });
        let (count, previewable, preview) = of(&outputs);
        assert_eq!((count, previewable), (3, 3));
        assert_eq!(preview["filename"], "x.png");
        assert_eq!(preview["nodeId"], "3");
        assert_eq!(preview["mediaType"], "images");
        // A temporary picture before a kept text.
        let outputs = json!({
            "1": {"files": [file("a.TXT", "output")]},
            "2": {"images": [file("t.png", "temp")]},
        });
        assert_eq!(of(&outputs).2["filename"], "t.png");
        // 3D files are told by name, beside what is no file.
        let outputs = json!({"1": {"result": ["3d/a.GLB", {"camera": 1}, null, "words"]}});
        let (count, previewable, preview) = of(&outputs);
        assert_eq!((count, previewable), (2, 1));
        assert_eq!(
            preview,
            json!({"filename": "3d/a.GLB", "type": "output", "subfolder": "", "mediaType": "3d", "nodeId": "1"})
        );
        // What cannot be shown counts as a file all the same.
        let outputs = json!({
            "1": {"latents": [file("a.latent", "output")]},
            "2": {"gifs": [{"filename": "a.mp4", "type": "output", "format": "video/h264-mp4"}]},
        });
        let (count, previewable, preview) = of(&outputs);
        assert_eq!((count, previewable), (2, 1));
        assert_eq!(preview["filename"], "a.mp4");
    }

    #[test]
    fn b7_texts_stand_for_a_job_that_made_nothing_else() {
        let long = "ä".repeat(2000);
        let (count, previewable, preview) = of(&json!({"4": {"text": [long, "second"]}}));
        assert_eq!((count, previewable), (0, 0));
        assert_eq!(preview["content"].as_str().unwrap().chars().count(), 1024);
        assert_eq!(preview["truncated"], true);
        assert_eq!(
            (&preview["nodeId"], &preview["mediaType"]),
            (&json!("4"), &json!("text"))
        );
        for (item, content) in [
            (json!("a"), "a"),
            (json!(["b", "c"]), "b"),
            (json!(5), "5"),
            (json!(true), "True"),
        ] {
            let preview = of(&json!({"4": {"text": [item]}})).2;
            assert_eq!(preview["content"], content);
            assert_eq!(preview.get("truncated"), None);
        }
    }

    #[test]
    fn b7_one_jobs_outputs_name_3d_files_as_files() {
        let told = normalised(r#"{"1":{"result":["a.glb",null,"words"]}}"#.to_owned());
        let told: Value = serde_json::from_str(&told).unwrap();
        let file =
            json!({"filename": "a.glb", "type": "output", "subfolder": "", "mediaType": "3d"});
        assert_eq!(told, json!({"1": {"result": [file, "words"]}}));
        let plain = r#"{"1":{"images":[{"filename":"x.png"}]}}"#.to_owned();
        assert_eq!(normalised(plain.clone()), plain);
    }
}
