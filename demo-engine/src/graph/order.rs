//! In which order the nodes of a prompt run.

use crate::graph::sources;
use crate::json::Json;
use std::collections::HashSet;

/// The nodes still to run, in the order they were found.
#[derive(Debug)]
pub(crate) struct Pending {
    nodes: Vec<String>,
}

impl Pending {
    /// Everything the outputs need, except what is cached. An output that is cached itself stays in, for
    /// its result is shown again.
    pub(crate) fn new(prompt: &Json, outputs: &[String], cached: &HashSet<String>) -> Self {
        let mut nodes: Vec<String> = Vec::new();
        let mut stack: Vec<&str> = Vec::new();
        for output in outputs {
            stack.push(output);
            while let Some(node) = stack.pop() {
                if nodes.iter().any(|known| known == node) {
                    continue;
                }
                nodes.push(node.to_owned());
                if !cached.contains(node) {
                    stack.extend(sources(prompt, node).filter(|source| !cached.contains(*source)));
                }
            }
        }
        Self { nodes }
    }

    /// Takes the next node: outputs first, then what leads to an output soonest. `None` when nothing is
    /// left, or when only a cycle is.
    pub(crate) fn next(
        &mut self,
        prompt: &Json,
        is_output: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let waits = |node: &str| {
            sources(prompt, node).any(|source| self.nodes.iter().any(|other| other == source))
        };
        let free: Vec<&String> = self.nodes.iter().filter(|node| !waits(node)).collect();
        let feeds_output = |node: &str| {
            self.nodes.iter().any(|other| {
                is_output(other) && sources(prompt, other).any(|source| source == node)
            })
        };
        let chosen = free
            .iter()
            .find(|node| is_output(node))
            .or_else(|| free.iter().find(|node| feeds_output(node)))
            .or_else(|| free.first())?
            .to_string();
        self.nodes.retain(|node| *node != chosen);
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::Pending;
    use crate::json::{Json, json};
    use std::collections::HashSet;

    fn run(prompt: &Json, cached: &[&str]) -> Vec<String> {
        let cached: HashSet<String> = cached.iter().map(|node| (*node).to_owned()).collect();
        let mut pending = Pending::new(prompt, &["save".to_owned()], &cached);
        std::iter::from_fn(|| pending.next(prompt, |node| node == "save")).collect()
    }

    #[test]
    fn sources_first() {
        let prompt = json!({
            "save": { "inputs": { "images": ["scale", 0] } },
            "scale": { "inputs": { "image": ["make", 0], "other": 3 } },
            "make": { "inputs": {} },
            "unused": { "inputs": {} },
        });
        assert_eq!(run(&prompt, &[]), ["make", "scale", "save"]);
        assert_eq!(run(&prompt, &["make"]), ["scale", "save"]);
        assert_eq!(run(&prompt, &["make", "scale", "save"]), ["save"]);
    }
}
