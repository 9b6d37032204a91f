//! What an engine's nodes take, as its `GET /object_info` tells, and the check of a graph against
//! it: what ComfyUI would refuse is refused in ComfyUI's own words before the job waits for an
//! hour.
//!
//! The answer does not tell everything (whether a class checks its values itself, for example), and
//! lists of files change while the engine runs. What is not certain passes: nothing is refused that
//! ComfyUI would take.

mod check;
mod describe;
mod python;
#[cfg(test)]
mod tests;

use super::replacements::Replacement;
use super::{Json, Node, Prompt, Replacements};
use crate::jobs::python_json::to_strict_json;
pub(crate) use check::{Accepted, Refusal};
use describe::{Describer, Listed};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// An engine's list of nodes cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the list of nodes is not valid JSON")]
pub(crate) struct CatalogueError(#[from] serde_json::Error);

/// All classes of nodes of one engine. The empty one knows nothing and refuses nothing.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    classes: HashMap<Box<str>, Class>,
    /// ComfyUI before 0.12: it says `invalid_prompt` of unknown nodes and leaves the values of new
    /// choice lists alone.
    is_old: bool,
    replacements: Replacements,
}

#[derive(Debug)]
struct Class {
    /// Required ones first.
    inputs: Box<[Input]>,
    /// Type of each output; `None` where it is not a word.
    outputs: Box<[Option<Arc<str>>]>,
    is_output: bool,
    /// Part of ComfyUI itself, so that it is known to leave its values to the general check.
    is_core: bool,
    /// Made with the newer programming interface.
    is_new: bool,
}

#[derive(Debug)]
struct Input {
    name: Arc<str>,
    is_required: bool,
    kind: Kind,
    /// The type as it is told; `None` for a list of choices that stands in its place.
    word: Option<Arc<str>>,
    /// Its other properties, a JSON object without the choices.
    properties: Arc<str>,
    minimum: Option<serde_json::Number>,
    maximum: Option<serde_json::Number>,
    choices: Option<Arc<Choices>>,
    /// Whether values outside of the bounds and of the choices are certainly refused.
    is_checked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Integer,
    Float,
    Text,
    Boolean,
    /// Stands for other inputs, which depend on the graph.
    Dynamic,
    Other,
}

/// A list of choices; the same one is kept once.
#[derive(Debug)]
struct Choices {
    /// As it is told.
    list: Box<[Value]>,
    texts: HashSet<Box<str>>,
    /// Whether all of them are texts: others compare in ways of their own.
    are_texts: bool,
}

impl Catalogue {
    /// Reads the body of a `GET /object_info`.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, CatalogueError> {
        let listed: Listed = match serde_json::from_slice(body) {
            Ok(listed) => listed,
            // Python writes numbers and broken file names that are no JSON.
            Err(_) => serde_json::from_str(&to_strict_json(body))?,
        };
        Ok(listed.0)
    }

    /// The same with what the engine tells of its replacements.
    pub(crate) fn with_replacements(self, replacements: Replacements) -> Self {
        Self {
            replacements,
            ..self
        }
    }

    pub(crate) fn replacements(&self) -> &Replacements {
        &self.replacements
    }

    /// Whether a class is installed, and so not replaced.
    pub(crate) fn has(&self, class: &str) -> bool {
        self.classes.contains_key(class)
    }

    /// Whether a graph has a class that the engine did not tell of. One that told of no class at all
    /// knows nothing.
    pub(crate) fn lacks_any(&self, prompt: &Prompt<'_>) -> bool {
        let is_lacking = |node: &Node<'_>| {
            let class = node.class_type.as_ref();
            !class.is_empty() && !self.has(class) && self.replacement_of(class).is_none()
        };
        !self.classes.is_empty() && prompt.nodes.iter().any(is_lacking)
    }

    /// What ComfyUI puts in the place of a class.
    fn replacement_of(&self, class: &str) -> Option<&Replacement> {
        if self.has(class) {
            return None;
        }
        let first = self.replacements.of(class)?.first()?;
        self.has(first.class()).then_some(first)
    }

    /// Whether a class that is not installed may be replaced, for all that is known.
    fn may_replace(&self, class: &str) -> bool {
        !class.is_empty() && self.replacements.of(class).is_none()
    }

    /// A graph as ComfyUI checks it, with classes replaced that are not installed.
    fn replace<'graph>(&'graph self, nodes: &'graph [Node<'_>]) -> Cow<'graph, [Node<'graph>]> {
        let replaced: HashMap<&str, &Replacement> = nodes
            .iter()
            .filter_map(|node| Some((node.id.as_ref(), self.replacement_of(&node.class_type)?)))
            .collect();
        if replaced.is_empty() {
            return Cow::Borrowed(nodes);
        }
        let mut nodes: Vec<Node<'graph>> = nodes
            .iter()
            .map(|node| match replaced.get(node.id.as_ref()) {
                Some(replacement) => replacement.apply(node),
                None => node.clone(),
            })
            .collect();
        for (_, value) in nodes.iter_mut().flat_map(|node| &mut node.inputs) {
            if !value.is_link() {
                continue;
            }
            if let Json::List(items) = value
                && let [Json::Text(source), Json::Number(slot)] = items.as_mut_slice()
                && let Some(new) = replaced
                    .get(source.as_ref())
                    .and_then(|replacement| replacement.output(slot))
            {
                *slot = new.into();
            }
        }
        Cow::Owned(nodes)
    }

    /// Checks a graph: the outputs that ComfyUI will execute, `targets` being those that the client
    /// asks for, and what is wrong with the others.
    pub(crate) fn check(
        &self,
        prompt: &Prompt<'_>,
        targets: Option<&[String]>,
    ) -> Result<Accepted, Refusal> {
        check::check(self, prompt, targets)
    }

    fn from_classes(told: impl Iterator<Item = (String, Value)>) -> Self {
        let mut describer = Describer::default();
        let mut catalogue = Self {
            is_old: true,
            ..Self::default()
        };
        for (name, class) in told {
            if class.get("is_input_list").is_some() {
                catalogue.is_old = false;
            }
            let class = describer.class(&name, &class);
            catalogue.classes.insert(name.into(), class);
        }
        catalogue
    }
}

impl Choices {
    /// Whether a value is certainly not among them.
    fn lacks(&self, value: &Json<'_>) -> bool {
        match value {
            Json::Text(text) => self.are_texts && !self.texts.contains(text.as_ref()),
            Json::Number(_) | Json::Boolean(_) | Json::Null => self.are_texts,
            Json::List(_) | Json::Object(_) => false,
        }
    }
}
