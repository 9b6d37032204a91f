//! Classes that stand for others: a prompt that names one that is not installed gets the one that replaces it.

use crate::graph::link;
use crate::json::{Json, json};
use crate::nodes::catalogue::Catalogue;
use crate::state::Engine;
use std::sync::OnceLock;

/// The replacements that ComfyUI itself registers, in the form of `/node_replacements`.
const CORE: &str = include_str!("replacements.json");
/// What a node pack registers with the fault `pack-replacements`.
const PACK: &str = r#"{"OldLoadImage": [{"new_node_id": "LoadImage", "old_node_id": "OldLoadImage", "old_widget_ids": ["file"], "input_mapping": [{"new_id": "image", "old_id": "file"}], "output_mapping": [{"new_idx": 0, "old_idx": 0}]}]}"#;

/// Python would have raised here.
#[derive(Debug)]
pub(super) struct Raised;

/// All replacements that are registered.
pub(super) fn all(engine: &Engine) -> Json {
    static ALL: [OnceLock<Json>; 2] = [const { OnceLock::new() }; 2];
    let with_pack = engine.options.faults.pack_replacements;
    ALL[usize::from(with_pack)]
        .get_or_init(|| {
            let mut all = Json::parse(CORE).unwrap_or_else(|_| json!({}));
            let pack = Json::parse(PACK).unwrap_or(Json::Null);
            let entries = pack.as_object().unwrap_or_default().iter();
            for (old, new) in entries.filter(|_| with_pack) {
                all.set(old, new.clone());
            }
            all
        })
        .clone()
}

/// Replaces the classes of a prompt that are not installed, renames their inputs and renumbers the links to
/// their outputs.
pub(super) fn apply(engine: &Engine, prompt: &mut Json) -> Result<(), Raised> {
    let all = all(engine);
    let nodes = prompt.as_object().ok_or(Raised)?;
    let mut replaced = Vec::new();
    for (id, node) in nodes {
        node.as_object().ok_or(Raised)?;
        let (Some(class), Some(_)) = (node.get("class_type"), node.get("inputs")) else {
            continue;
        };
        let Some(class) = class.as_str() else {
            continue;
        };
        if installed(engine, class) {
            continue;
        }
        let first = all
            .get(class)
            .and_then(Json::as_list)
            .and_then(<[Json]>::first);
        if let Some(first) = first {
            replaced.push((id.clone(), first.clone()));
        }
    }
    for (id, replacement) in replaced {
        let new_class = replacement
            .get("new_node_id")
            .and_then(Json::as_str)
            .unwrap_or_default();
        if !installed(engine, new_class) {
            continue;
        }
        let mut node = prompt.get(&id).cloned().ok_or(Raised)?;
        // A replaced node has to have this member: the copy of it is not optional.
        node.get("_meta").and_then(Json::as_object).ok_or(Raised)?;
        let old_inputs = node.get("inputs").cloned().ok_or(Raised)?;
        let mut inputs = json!({});
        for mapped in list(&replacement, "input_mapping") {
            let new = mapped.get("new_id").and_then(Json::as_str).ok_or(Raised)?;
            if let Some(value) = mapped.get("set_value") {
                inputs.set(new, value.clone());
            } else if let Some(old) = mapped.get("old_id").and_then(Json::as_str) {
                inputs.set(new, old_inputs.get(old).cloned().ok_or(Raised)?);
            }
        }
        node.set("class_type", new_class);
        node.set("inputs", inputs);
        prompt.set(&id, node);
        renumber(prompt, &id, list(&replacement, "output_mapping"));
    }
    Ok(())
}

fn installed(engine: &Engine, class: &str) -> bool {
    Catalogue::get().describe(engine, class).is_some()
}

fn list<'a>(replacement: &'a Json, name: &str) -> &'a [Json] {
    replacement
        .get(name)
        .and_then(Json::as_list)
        .unwrap_or_default()
}

/// Moves the links to the outputs of a node.
fn renumber(prompt: &mut Json, id: &str, mapping: &[Json]) {
    let Json::Object(nodes) = prompt else { return };
    for (_, node) in nodes {
        let Some(Json::Object(inputs)) = node.get_mut("inputs") else {
            continue;
        };
        for (_, value) in inputs {
            let Some((source, slot)) = link(value) else {
                continue;
            };
            let number = |mapped: &Json, name: &str| {
                mapped
                    .get(name)
                    .and_then(Json::as_i64)
                    .and_then(|number| usize::try_from(number).ok())
            };
            let new = mapping
                .iter()
                .find(|mapped| number(mapped, "old_idx") == Some(slot))
                .and_then(|mapped| number(mapped, "new_idx"));
            if let Some(new) = new.filter(|_| source == id) {
                *value = Json::List(vec![id.into(), new.into()]);
            }
        }
    }
}
