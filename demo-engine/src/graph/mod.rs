//! The graph of a prompt: what is allowed, in which order it runs, what need not run again.

pub(crate) mod order;
pub(crate) mod signature;
mod types;
pub(crate) mod validation;

use crate::json::Json;

/// The node and slot that an input is linked to.
pub(crate) fn link(value: &Json) -> Option<(&str, usize)> {
    match value.as_list()? {
        [Json::Text(node), slot] => slot.as_f64().filter(|slot| *slot >= 0.0).map(|slot| {
            let slot = slot as usize;
            (node.as_str(), slot)
        }),
        _ => None,
    }
}

/// The class of a node of a prompt.
pub(crate) fn class<'a>(prompt: &'a Json, node: &str) -> Option<&'a str> {
    prompt.get(node)?.get("class_type")?.as_str()
}

/// The inputs of a node of a prompt.
pub(crate) fn inputs<'a>(prompt: &'a Json, node: &str) -> &'a [(String, Json)] {
    prompt
        .get(node)
        .and_then(|node| node.get("inputs"))
        .and_then(Json::as_object)
        .unwrap_or_default()
}

/// The nodes that a node is linked to.
pub(crate) fn sources<'a>(prompt: &'a Json, node: &str) -> impl Iterator<Item = &'a str> {
    inputs(prompt, node)
        .iter()
        .filter_map(|(_, value)| link(value))
        .map(|(source, _)| source)
}
