//! From what ComfyUI tells of its classes to what the check needs.

use super::{Catalogue, Choices, Class, Input, Kind};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Classes of ComfyUI that look at values themselves; what they look at is not checked in general.
const OWN_CHECK: [&str; 9] = [
    "ComfySoftSwitchNode",
    "ComfySwitchNode",
    "CustomCombo",
    "LoadAudio",
    "LoadImage",
    "LoadImageMask",
    "LoadLatent",
    "LoadVideo",
    "TrainLoraNode",
];

/// In names of inputs that list files or directories, which come and go.
const FILE_WORDS: [&str; 14] = [
    "audio",
    "checkpoint",
    "ckpt",
    "dir",
    "embedding",
    "file",
    "folder",
    "image",
    "latent",
    "lora",
    "model",
    "path",
    "video",
    "vae",
];

/// Marks of lists that are filled from files or from elsewhere.
const CHANGING: [&str; 7] = [
    "audio_upload",
    "file_upload",
    "image_folder",
    "image_upload",
    "remote",
    "upload",
    "video_upload",
];

/// Types that stand for other inputs, which depend on the graph, and those to come.
const DYNAMIC: &str = "COMFY_";
/// Types with the same beginning that are a single input.
const NOT_DYNAMIC: [&str; 2] = ["COMFY_MATCHTYPE_V3", "COMFY_MULTITYPED_V3"];

/// The catalogue, read class by class: all at once it would take many times its size.
pub(super) struct Listed(pub(super) Catalogue);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<Source: Deserializer<'de>>(source: Source) -> Result<Self, Source::Error> {
        source.deserialize_map(ListedVisitor)
    }
}

struct ListedVisitor;

impl<'de> Visitor<'de> for ListedVisitor {
    type Value = Listed;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of node classes")
    }

    fn visit_map<Members: MapAccess<'de>>(
        self,
        mut members: Members,
    ) -> Result<Listed, Members::Error> {
        let mut fault = None;
        let classes = std::iter::from_fn(|| match members.next_entry() {
            Ok(entry) => entry,
            Err(error) => {
                fault = Some(error);
                None
            }
        });
        let catalogue = Catalogue::from_classes(classes);
        match fault {
            Some(error) => Err(error),
            None => Ok(Listed(catalogue)),
        }
    }
}

/// Keeps what is told again and again only once.
#[derive(Default)]
pub(super) struct Describer {
    words: HashMap<Box<str>, Arc<str>>,
    choices: HashMap<Box<str>, Arc<Choices>>,
}

impl Describer {
    pub(super) fn class(&mut self, name: &str, told: &Value) -> Class {
        let module = told.get("python_module").and_then(Value::as_str);
        let is_core = module.is_some_and(|module| {
            module == "nodes" || module == "comfy_extras" || module.starts_with("comfy_extras.")
        });
        let are_checked = is_core && !OWN_CHECK.contains(&name);
        let mut inputs: Vec<Input> = Vec::new();
        for (group, is_required) in [("required", true), ("optional", false)] {
            let Some(Value::Object(group)) = told.get("input").and_then(|input| input.get(group))
            else {
                continue;
            };
            for (name, spec) in group {
                if !inputs.iter().any(|input| *input.name == **name) {
                    inputs.push(self.input(name, spec, is_required, are_checked));
                }
            }
        }
        let outputs = match told.get("output") {
            Some(Value::Array(outputs)) => outputs
                .iter()
                .map(|output| output.as_str().map(|word| self.word(word)))
                .collect(),
            _ => Box::default(),
        };
        Class {
            inputs: inputs.into(),
            outputs,
            is_output: told.get("output_node") == Some(&Value::Bool(true)),
            is_core,
            is_new: ["api_node", "deprecated", "experimental"]
                .iter()
                .all(|name| told.get(name).is_some()),
        }
    }

    fn input(&mut self, name: &str, spec: &Value, is_required: bool, is_checked: bool) -> Input {
        let none = Map::new();
        let properties = spec.get(1).and_then(Value::as_object).unwrap_or(&none);
        let first = spec.get(0);
        let word = first.and_then(Value::as_str);
        let list = match first {
            Some(Value::Array(list)) => Some(list),
            _ if word == Some("COMBO") => properties.get("options").and_then(Value::as_array),
            _ => None,
        };
        let number = |key: &str| properties.get(key).and_then(Value::as_number).cloned();
        let kind = match word {
            Some("INT") => Kind::Integer,
            Some("FLOAT") => Kind::Float,
            Some("STRING") => Kind::Text,
            Some("BOOLEAN") => Kind::Boolean,
            Some(word) if word.starts_with(DYNAMIC) && !NOT_DYNAMIC.contains(&word) => {
                Kind::Dynamic
            }
            _ => Kind::Other,
        };
        let may_change = list.is_some() && (lists_files(name) || is_filled(properties));
        let rest = if word == Some("COMBO") && list.is_some() {
            let mut rest = properties.clone();
            rest.shift_remove("options");
            Value::Object(rest).to_string()
        } else {
            Value::Object(properties.clone()).to_string()
        };
        Input {
            name: self.word(name),
            is_required,
            kind,
            word: word.map(|word| self.word(word)),
            properties: self.word(&rest),
            minimum: number("min"),
            maximum: number("max"),
            choices: list.map(|list| self.choices(list)),
            is_checked: is_checked && !may_change,
        }
    }

    fn word(&mut self, word: &str) -> Arc<str> {
        if let Some(known) = self.words.get(word) {
            return Arc::clone(known);
        }
        let new: Arc<str> = word.into();
        self.words.insert(word.into(), Arc::clone(&new));
        new
    }

    fn choices(&mut self, list: &[Value]) -> Arc<Choices> {
        let text = serde_json::to_string(list).unwrap_or_default();
        if let Some(known) = self.choices.get(text.as_str()) {
            return Arc::clone(known);
        }
        let new = Arc::new(Choices {
            list: list.into(),
            texts: list
                .iter()
                .filter_map(|choice| choice.as_str().map(Into::into))
                .collect(),
            are_texts: !list.is_empty() && list.iter().all(Value::is_string),
        });
        self.choices.insert(text.into(), Arc::clone(&new));
        new
    }
}

/// Whether an input of this name lists files. `sampler_name` is the one name that does not.
fn lists_files(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    if name == "sampler_name" {
        return false;
    }
    let bare = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    bare.ends_with("name") || FILE_WORDS.iter().any(|word| name.contains(word))
}

fn is_filled(properties: &Map<String, Value>) -> bool {
    let truthy = |key: &str| match properties.get(key) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(_) => true,
    };
    truthy("multiselect") || truthy("lazy_options") || CHANGING.iter().any(|key| truthy(key))
}
