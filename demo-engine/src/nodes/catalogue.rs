//! What nodes there are, as `/object_info` describes them.

use crate::files;
use crate::json::{Json, json};
use crate::state::Engine;
use std::path::Path;
use std::sync::OnceLock;

/// All classes in the form of `/object_info`.
#[derive(Debug)]
pub(crate) struct Catalogue {
    classes: Json,
}

static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();

impl Catalogue {
    pub(crate) fn get() -> &'static Self {
        CATALOGUE.get_or_init(|| Self {
            classes: Json::parse(include_str!("catalogue.json")).unwrap_or(Json::Null),
        })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.classes
            .as_object()
            .unwrap_or_default()
            .iter()
            .map(|(name, _)| name.as_str())
    }

    pub(crate) fn class(&self, name: &str) -> Option<&Json> {
        self.classes.get(name)
    }

    pub(crate) fn is_output(&self, name: &str) -> bool {
        self.class(name)
            .and_then(|class| class.get("output_node"))
            .is_some_and(Json::truthy)
    }

    /// Whether the class takes whole lists instead of being run for each entry.
    pub(crate) fn takes_lists(&self, name: &str) -> bool {
        self.class(name)
            .and_then(|class| class.get("is_input_list"))
            .is_some_and(Json::truthy)
    }

    /// Whether the class asks for its node's id, which then is part of the signature.
    pub(crate) fn wants_own_id(&self, name: &str) -> bool {
        self.hidden(name).any(|hidden| hidden == "unique_id")
    }

    pub(crate) fn hidden(&self, name: &str) -> impl Iterator<Item = &str> {
        let hidden = self
            .class(name)
            .and_then(|class| class.get("input"))
            .and_then(|input| input.get("hidden"));
        hidden
            .and_then(Json::as_object)
            .unwrap_or_default()
            .iter()
            .map(|(name, _)| name.as_str())
    }

    /// Types of the output slots.
    pub(crate) fn outputs(&self, name: &str) -> &[Json] {
        self.class(name)
            .and_then(|class| class.get("output"))
            .and_then(Json::as_list)
            .unwrap_or_default()
    }

    /// Name, description and whether it is required, for each input of a described class.
    pub(crate) fn inputs(class: &Json) -> impl Iterator<Item = (&str, &Json, bool)> {
        let part = |part: &'static str| {
            let inputs = class.get("input").and_then(|input| input.get(part));
            inputs
                .and_then(Json::as_object)
                .unwrap_or_default()
                .iter()
                .map(move |(name, spec)| (name.as_str(), spec, part == "required"))
        };
        part("required").chain(part("optional"))
    }

    /// The description of a class with the files that are there now as choices.
    pub(crate) fn describe(&self, engine: &Engine, name: &str) -> Option<Json> {
        if name == super::hostile::CLASS && !engine.options.faults.hostile_node {
            return None;
        }
        let mut class = self.class(name)?.clone();
        let input = &engine.options.input;
        let choices = |kinds: &'static [&'static str]| -> Json { top_level(input, kinds).into() };
        let required = class
            .get_mut("input")
            .and_then(|input| input.get_mut("required"))?;
        match name {
            "LoadImage" | "LoadImageMask" => {
                if let Some(Json::List(spec)) = required.get_mut("image") {
                    spec[0] = choices(&["image/"]);
                }
            }
            "LoadLatent" => {
                let latents: Vec<String> = top_level(input, &[""])
                    .into_iter()
                    .filter(|name| name.ends_with(".latent"))
                    .collect();
                required.set("latent", json!([latents]));
            }
            "LoadVideo" => set_options(required, "file", choices(&["video/"])),
            "Load3D" => {
                // As in the original, asking for the description makes the directory.
                let directory = input.join("3d");
                let _ = std::fs::create_dir_all(&directory);
                let found = top_level(&directory, &["model/"]).into_iter();
                let models: Vec<String> = std::iter::once("none".to_owned())
                    .chain(found.map(|name| format!("3d/{name}")))
                    .collect();
                set_options(required, "model_file", models.into());
            }
            "LoadImageDataSetFromFolder" => {
                set_options(required, "folder", directories(input).into())
            }
            "LoadTrainingDataset" => {
                let root = engine.options.base.join("datasets");
                set_options(required, "folder_name", directories(&root).into());
            }
            "CheckpointLoaderSimple" => set_models(engine, required, "ckpt_name", "checkpoints"),
            "UNETLoader" => set_models(engine, required, "unet_name", "diffusion_models"),
            "CLIPLoader" => set_models(engine, required, "clip_name", "text_encoders"),
            "VAELoader" => {
                set_models(engine, required, "vae_name", "vae");
                if let Some(Json::List(spec)) = required.get_mut("vae_name")
                    && let Some(Json::List(names)) = spec.first_mut()
                {
                    names.push(super::PIXEL_SPACE.into());
                }
            }
            _ => {}
        }
        Some(class)
    }
}

fn set_options(required: &mut Json, name: &str, choices: Json) {
    if let Some(Json::List(spec)) = required.get_mut(name)
        && let Some(options) = spec.get_mut(1)
    {
        options.set("options", choices);
    }
}

/// Makes the models of a folder the choices of an input: the demo's own one, and the files of the owner.
fn set_models(engine: &Engine, required: &mut Json, name: &str, folder: &str) {
    if let Some(Json::List(spec)) = required.get_mut(name)
        && let Some(choices) = spec.first_mut()
    {
        *choices = crate::routes::model_names(engine, folder).into();
    }
}

/// Names of the files in a directory whose type begins with one of these.
fn top_level(directory: &Path, kinds: &[&str]) -> Vec<String> {
    let fits = |path: &Path| {
        let kind = files::kind(path).unwrap_or("");
        path.is_file() && kinds.iter().any(|wanted| kind.starts_with(wanted))
    };
    names(directory, fits)
}

fn directories(directory: &Path) -> Vec<String> {
    names(directory, Path::is_dir)
}

fn names(directory: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| wanted(&entry.path()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::Catalogue;

    #[test]
    fn every_class_is_described_and_can_run() {
        let catalogue = Catalogue::get();
        assert!(catalogue.names().count() > 20);
        for name in catalogue.names() {
            assert!(crate::nodes::find(name).is_some(), "{name} has no code");
            assert_eq!(
                catalogue
                    .class(name)
                    .and_then(|class| class.get("name")?.as_str()),
                Some(name)
            );
        }
    }
}
