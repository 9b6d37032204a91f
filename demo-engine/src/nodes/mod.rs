//! The nodes and what they work on.

pub(crate) mod catalogue;
mod dataset;
mod diffusion;
mod hostile;
mod load;
mod paint;
mod picture;
mod probe;
mod save;
mod scene;
mod words;

use crate::json::Json;
use crate::state::Engine;
use image::{GrayImage, RgbImage};
use std::collections::HashMap;
use std::sync::Arc;

pub(crate) use diffusion::{MODELS, PIXEL_SPACE};
pub(crate) use paint::thumbnail;
pub(crate) use save::png_bytes;

/// What flows between nodes.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// A batch of pictures.
    Images(Arc<Vec<RgbImage>>),
    Mask(Arc<GrayImage>),
    /// A part of a checkpoint; there is nothing in it.
    Model,
    /// A conditioning.
    Words(String),
    Latent(Arc<diffusion::Latent>),
    Plain(Json),
}

/// Why a node did not finish.
#[derive(Debug)]
pub(crate) enum Failure {
    Interrupted,
    /// Type and text of the Python exception.
    Raised(&'static str, String),
}

impl Failure {
    fn value(text: impl Into<String>) -> Self {
        Self::Raised("ValueError", text.into())
    }
}

/// What a node made: for each slot a list of values, and what the page shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) slots: Vec<Vec<Value>>,
    pub(crate) ui: Option<Json>,
}

impl Outcome {
    fn one(value: Value) -> Self {
        Self {
            slots: vec![vec![value]],
            ui: None,
        }
    }

    fn shown(ui: Json) -> Self {
        Self {
            slots: Vec::new(),
            ui: Some(ui),
        }
    }

    /// What the page shows, and a value passed on to the next node.
    fn shown_and(ui: Json, value: Value) -> Self {
        Self {
            slots: vec![vec![value]],
            ui: Some(ui),
        }
    }
}

/// How a node reports while it runs.
pub(crate) trait Reporter {
    /// Reports a step, with a preview if there is one; fails when the job has been interrupted.
    fn step(
        &mut self,
        value: u32,
        most: u32,
        preview: Option<(&RgbImage, bool)>,
    ) -> Result<(), Failure>;
    /// Sends a text to the job's client, or to everybody.
    fn text(&mut self, text: &str, to_all: bool);
}

/// One run of a node.
pub(crate) struct Call<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) node: &'a str,
    pub(crate) inputs: Vec<(String, Vec<Value>)>,
    pub(crate) prompt: &'a Json,
    pub(crate) extra_pnginfo: Option<&'a Json>,
    /// Five letters that stay as long as prompts with this node follow each other.
    pub(crate) prefix: &'a str,
    /// Whether the page wants to see pictures on their way.
    pub(crate) previews: bool,
    pub(crate) reporter: &'a mut dyn Reporter,
}

impl Call<'_> {
    fn values(&self, name: &str) -> &[Value] {
        self.inputs
            .iter()
            .find(|(known, _)| known == name)
            .map_or(&[], |(_, values)| values)
    }

    fn images(&self, name: &str) -> Result<Arc<Vec<RgbImage>>, Failure> {
        match self.values(name).first() {
            Some(Value::Images(images)) => Ok(Arc::clone(images)),
            Some(Value::Plain(Json::Text(_))) => Err(Failure::Raised(
                "AttributeError",
                "'str' object has no attribute 'shape'".to_owned(),
            )),
            _ => Err(Failure::Raised(
                "AttributeError",
                "'NoneType' object has no attribute 'shape'".to_owned(),
            )),
        }
    }

    fn plain(&self, name: &str) -> Json {
        match self.values(name).first() {
            Some(Value::Plain(value)) => value.clone(),
            _ => Json::Null,
        }
    }

    fn text(&self, name: &str) -> String {
        self.plain(name).python_text()
    }

    fn number(&self, name: &str) -> f64 {
        self.plain(name).as_f64().unwrap_or(0.0)
    }

    /// A size or count; out of range becomes the nearest possible.
    fn count(&self, name: &str) -> u32 {
        self.number(name).clamp(0.0, f64::from(u32::MAX)) as u32
    }
}

type Run = fn(&mut Call<'_>) -> Result<Outcome, Failure>;

/// Every class and its code.
const NODES: &[(&str, Run)] = &[
    ("EmptyImage", picture::empty),
    ("ImageScale", picture::scale),
    ("ImageInvert", picture::invert),
    ("MaskToImage", picture::from_mask),
    ("GetImageSize", picture::size),
    ("LoadImage", load::image),
    ("LoadImageMask", load::mask),
    ("LoadImageOutput", load::image),
    ("LoadVideo", load::nothing_to_load),
    ("Load3D", load::nothing_to_load),
    ("LoadLatent", load::nothing_to_load),
    ("SaveImage", save::image),
    ("PreviewImage", save::preview),
    ("SaveAnimatedWEBP", save::animated_webp),
    ("SaveAnimatedPNG", save::animated_png),
    ("LoadImageDataSetFromFolder", dataset::load),
    ("SaveImageDataSetToFolder", dataset::save),
    ("SaveImageTextDataSetToFolder", dataset::save),
    ("LoadTrainingDataset", dataset::load_training),
    ("PreviewAny", words::preview),
    ("Preview3D", words::preview_model),
    ("PrimitiveString", words::primitive),
    ("PrimitiveStringMultiline", words::primitive),
    ("PrimitiveInt", words::primitive),
    ("PrimitiveFloat", words::primitive),
    ("PrimitiveBoolean", words::primitive),
    ("StringConcatenate", words::concatenate),
    ("ComfySwitchNode", words::switch),
    ("CheckpointLoaderSimple", diffusion::checkpoint),
    ("UNETLoader", diffusion::load_painter),
    ("CLIPLoader", diffusion::load_encoder),
    ("VAELoader", diffusion::load_decoder),
    ("ModelSamplingAuraFlow", diffusion::same_model),
    ("EmptySD3LatentImage", diffusion::empty),
    ("CLIPTextEncode", diffusion::encode),
    ("EmptyLatentImage", diffusion::empty),
    ("KSampler", diffusion::sample),
    ("VAEDecode", diffusion::decode),
    ("SaveText", save::text),
    ("SlowProbe", probe::run),
    (hostile::CLASS, hostile::run),
    ("DemoImage", paint::run),
];

/// The code of a class.
pub(crate) fn find(class: &str) -> Option<Run> {
    NODES
        .iter()
        .find(|(name, _)| *name == class)
        .map(|(_, run)| *run)
}

/// What a class depends on besides its inputs: the content of the file it loads.
pub(crate) fn changed(engine: &Engine, class: &str, inputs: &[(String, Json)]) -> Option<String> {
    use sha2::Digest as _;
    let name = match class {
        "LoadImage" | "LoadImageMask" | "LoadImageOutput" => "image",
        _ => return None,
    };
    let file = inputs
        .iter()
        .find(|(known, _)| known == name)?
        .1
        .as_str()?
        .to_owned();
    let content = std::fs::read(engine.load_path(&file)?).ok()?;
    Some(format!("{:?}", sha2::Sha256::digest(&content).as_slice()))
}

/// Runs a node: once with all its lists, or once for each entry of the longest list.
pub(crate) fn run(call: &mut Call<'_>, class: &str) -> Result<Outcome, Failure> {
    let code = find(class).ok_or_else(|| Failure::Raised("KeyError", format!("'{class}'")))?;
    let longest = call
        .inputs
        .iter()
        .map(|(_, values)| values.len())
        .max()
        .unwrap_or(1)
        .max(1);
    if longest == 1 || catalogue::Catalogue::get().takes_lists(class) {
        return code(call);
    }
    let lists = std::mem::take(&mut call.inputs);
    let mut merged = Outcome::default();
    let mut shown: HashMap<String, Vec<Json>> = HashMap::new();
    let mut order = Vec::new();
    for index in 0..longest {
        call.inputs = lists
            .iter()
            .map(|(name, values)| {
                let value = values.get(index).or(values.last()).cloned();
                (name.clone(), value.into_iter().collect())
            })
            .collect();
        let outcome = code(call)?;
        for (slot, values) in outcome.slots.into_iter().enumerate() {
            if merged.slots.len() <= slot {
                merged.slots.push(Vec::new());
            }
            merged.slots[slot].extend(values);
        }
        for (key, value) in outcome
            .ui
            .as_ref()
            .and_then(Json::as_object)
            .unwrap_or_default()
        {
            if !order.contains(key) {
                order.push(key.clone());
            }
            shown
                .entry(key.clone())
                .or_default()
                .extend(value.as_list().unwrap_or_default().iter().cloned());
        }
    }
    if !order.is_empty() {
        let entries = order.into_iter().map(|key| {
            let items = shown.remove(&key).unwrap_or_default();
            (key, Json::List(items))
        });
        merged.ui = Some(Json::Object(entries.collect()));
    }
    Ok(merged)
}
