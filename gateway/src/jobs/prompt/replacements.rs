//! Classes that ComfyUI (since 0.14) puts in the place of others which are not installed, as its
//! `GET /node_replacements` tells. It happens between our look at a graph and ComfyUI's own.

use super::{Json, Node};
use crate::jobs::python_json::to_strict_json;
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};
use std::borrow::Cow;
use std::collections::HashMap;

/// An engine's list of replacements cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the list of replaced nodes is not as expected")]
pub(crate) struct ReplacementsError(#[from] serde_json::Error);

/// What an engine tells of its replacements.
#[derive(Clone, Debug)]
pub(crate) enum Replacements {
    /// It did not tell, and may have some.
    Unknown,
    /// All that it has, by the class that is replaced.
    Known(HashMap<Box<str>, Vec<Replacement>>),
}

/// One class in the place of another.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Replacement {
    #[serde(rename = "new_node_id")]
    class: Box<str>,
    /// Inputs of the new class; those of the old one are all there are unless they are told.
    #[serde(default)]
    input_mapping: Option<Vec<NewInput>>,
    #[serde(default)]
    output_mapping: Option<Vec<NewOutput>>,
}

#[derive(Clone, Debug, Deserialize)]
struct NewInput {
    new_id: Box<str>,
    #[serde(default)]
    old_id: Option<Box<str>>,
    /// A value of the replacement's own, which is there even if it is null.
    #[serde(default, deserialize_with = "present")]
    set_value: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct NewOutput {
    old_idx: i64,
    new_idx: i64,
}

fn present<'de, Source: Deserializer<'de>>(source: Source) -> Result<Option<Value>, Source::Error> {
    Value::deserialize(source).map(Some)
}

impl Default for Replacements {
    fn default() -> Self {
        Self::Known(HashMap::new())
    }
}

impl Replacements {
    /// Reads the body of a `GET /node_replacements`.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ReplacementsError> {
        let told = match serde_json::from_slice(body) {
            Ok(told) => told,
            // Python writes numbers that are no JSON.
            Err(_) => serde_json::from_str(&to_strict_json(body))?,
        };
        Ok(Self::Known(told))
    }

    /// What may stand in the place of a class; `None`: not known.
    pub(super) fn of(&self, class: &str) -> Option<&[Replacement]> {
        match self {
            Self::Unknown => None,
            Self::Known(all) => Some(all.get(class).map_or(&[], Vec::as_slice)),
        }
    }
}

impl Replacement {
    /// The new class.
    pub(super) fn class(&self) -> &str {
        &self.class
    }

    /// Inputs of a node, under their new names, without values of the replacement's own.
    pub(super) fn renamed<'node, 'body>(
        &'node self,
        inputs: &'node [(Cow<'body, str>, Json<'body>)],
    ) -> impl Iterator<Item = (&'node str, &'node Json<'body>)> {
        let names = self.input_mapping.as_deref();
        let same = inputs
            .iter()
            .filter(move |_| names.is_none())
            .map(|(name, value)| (name.as_ref(), value));
        let renamed = names
            .unwrap_or_default()
            .iter()
            .filter(|input| input.set_value.is_none())
            .filter_map(move |input| {
                let old = input.old_id.as_deref()?;
                let (_, value) = inputs.iter().find(|(name, _)| name == old)?;
                Some((input.new_id.as_ref(), value))
            });
        same.chain(renamed)
    }

    /// The node as ComfyUI makes it.
    pub(super) fn apply<'node>(&'node self, node: &'node Node<'_>) -> Node<'node> {
        let own = self.input_mapping.iter().flatten().filter_map(|input| {
            let value = input.set_value.as_ref()?;
            Some((Cow::Borrowed(input.new_id.as_ref()), Json::of(value)))
        });
        let renamed = self
            .renamed(&node.inputs)
            .map(|(name, value)| (Cow::Borrowed(name), value.clone()));
        Node {
            id: Cow::Borrowed(&node.id),
            class_type: Cow::Borrowed(&self.class),
            inputs: renamed.chain(own).collect(),
            has_inputs: node.has_inputs,
            title: node.title.clone(),
        }
    }

    /// The new number of an output; `None`: it keeps its own.
    pub(super) fn output(&self, old: &Number) -> Option<i64> {
        let old = old.as_i64()?;
        let outputs = self.output_mapping.as_deref()?;
        outputs
            .iter()
            .find(|output| output.old_idx == old)
            .map(|output| output.new_idx)
    }
}
