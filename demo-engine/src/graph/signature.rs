//! When two nodes count as the same: class, inputs and everything they hang on are equal.
//!
//! Who asked does not matter, and neither do the hidden inputs: an equal graph of somebody else is answered
//! with the files of the first. That is ComfyUI's behaviour and one of the things a gateway has to deal with.

use crate::graph::{class, inputs, link};
use crate::json::Json;
use crate::nodes::catalogue::Catalogue;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fmt::Write as _;

/// Signatures of all nodes of a prompt.
#[derive(Debug, Default)]
pub(crate) struct Signatures {
    known: HashMap<String, String>,
}

impl Signatures {
    /// Computes them. `changed` gives what a node depends on besides its inputs, such as a file's content.
    pub(crate) fn new(
        prompt: &Json,
        catalogue: &Catalogue,
        changed: impl Fn(&str, &[(String, Json)]) -> Option<String>,
    ) -> Self {
        let mut signatures = Self::default();
        for (node, _) in prompt.as_object().unwrap_or_default() {
            signatures.compute(prompt, node, catalogue, &changed);
        }
        signatures
    }

    pub(crate) fn get(&self, node: &str) -> Option<&str> {
        self.known.get(node).map(String::as_str)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &String> {
        self.known.values()
    }

    fn compute(
        &mut self,
        prompt: &Json,
        node: &str,
        catalogue: &Catalogue,
        changed: &impl Fn(&str, &[(String, Json)]) -> Option<String>,
    ) -> String {
        if let Some(known) = self.known.get(node) {
            return known.clone();
        }
        // A cycle ends here; such a prompt is refused before it runs.
        self.known.insert(node.to_owned(), String::new());
        let class = class(prompt, node).unwrap_or_default();
        let given = inputs(prompt, node);
        let mut text = format!("{class}\n");
        if catalogue.wants_own_id(class) {
            let _ = writeln!(text, "id {node}");
        }
        if let Some(changed) = changed(class, given) {
            let _ = writeln!(text, "changed {changed}");
        }
        let mut sorted: Vec<&(String, Json)> = given.iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, value) in sorted {
            match link(value) {
                Some((source, slot)) => {
                    let source = self.compute(prompt, source, catalogue, changed);
                    let _ = writeln!(text, "{name} from {source} {slot}");
                }
                None => {
                    let _ = writeln!(text, "{name} is {}", value.dump());
                }
            }
        }
        let mut signature = String::new();
        for byte in Sha256::digest(text.as_bytes()) {
            let _ = write!(signature, "{byte:02x}");
        }
        self.known.insert(node.to_owned(), signature.clone());
        signature
    }
}
