//! Look-alikes of the nodes of the default workflow of ComfyUI's front end, so that it runs without a model.
//!
//! The conditioning is the words themselves, and a latent is a canvas with what is to be painted on it. Only
//! the decoder paints, as large as the picture is to be.

use super::scene::Scene;
use super::{Call, Failure, Outcome, Value, paint, picture};
use image::{Rgb, RgbImage};
use std::sync::Arc;

/// The models that the demo brings: folder and name. The last three are what the default workflow of ComfyUI's
/// front end asks for. There is nothing in any of them.
pub(crate) const MODELS: &[(&str, &str)] = &[
    ("checkpoints", "demo.safetensors"),
    ("diffusion_models", "z_image_turbo_bf16.safetensors"),
    ("text_encoders", "qwen_3_4b.safetensors"),
    ("vae", "ae.safetensors"),
];
/// A way of decoding that needs no model.
pub(crate) const PIXEL_SPACE: &str = "pixel_space";
/// More pictures than this in one batch would fill the memory.
const MOST_PICTURES: u32 = 64;
const LARGEST_SIDE: u32 = 4096;
/// What an untouched canvas decodes to.
const EMPTY: Rgb<u8> = Rgb([127, 113, 98]);

/// A canvas.
#[derive(Clone, Debug)]
pub(crate) struct Latent {
    width: u32,
    height: u32,
    count: u32,
    painting: Option<Painting>,
}

/// What a sampler left on a canvas.
#[derive(Clone, Debug)]
struct Painting {
    words: String,
    without: String,
    seed: String,
    /// How much of the grain is gone.
    done: f32,
}

pub(super) fn checkpoint(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    own(&call.text("ckpt_name"))?;
    let part = || vec![Value::Model];
    Ok(Outcome {
        slots: vec![part(), part(), part()],
        ui: None,
    })
}

pub(super) fn load_painter(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    own(&call.text("unet_name"))?;
    Ok(Outcome::one(Value::Model))
}

pub(super) fn load_encoder(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    own(&call.text("clip_name"))?;
    Ok(Outcome::one(Value::Model))
}

pub(super) fn load_decoder(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let name = call.text("vae_name");
    if name != PIXEL_SPACE {
        own(&name)?;
    }
    Ok(Outcome::one(Value::Model))
}

/// A change of a model that changes nothing here.
pub(super) fn same_model(_: &mut Call<'_>) -> Result<Outcome, Failure> {
    Ok(Outcome::one(Value::Model))
}

/// Models of the owner are listed, but need a real ComfyUI.
fn own(name: &str) -> Result<(), Failure> {
    if MODELS.iter().any(|(_, known)| *known == name) {
        return Ok(());
    }
    let text = format!("the demo engine cannot open {name}: that needs a real ComfyUI");
    Err(Failure::Raised("NotImplementedError", text))
}

pub(super) fn encode(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    Ok(Outcome::one(Value::Words(call.text("text"))))
}

pub(super) fn empty(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    // As in the original, sides are multiples of eight.
    let side = |length: u32| (length.clamp(16, LARGEST_SIDE) / 8) * 8;
    let latent = Latent {
        width: side(call.count("width")),
        height: side(call.count("height")),
        count: call.count("batch_size").clamp(1, MOST_PICTURES),
        painting: None,
    };
    Ok(Outcome::one(Value::Latent(Arc::new(latent))))
}

pub(super) fn sample(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let mut latent = canvas(call, "latent_image")?;
    let painting = Painting {
        words: words(call, "positive"),
        without: words(call, "negative"),
        seed: call.text("seed"),
        done: call.number("denoise").clamp(0.0, 1.0) as f32,
    };
    let steps = call.count("steps").max(1);
    let scene = painting.scene(0);
    paint::show_steps(call, &scene, (latent.width, latent.height), steps)?;
    latent.painting = Some(painting);
    Ok(Outcome::one(Value::Latent(Arc::new(latent))))
}

pub(super) fn decode(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let latent = canvas(call, "samples")?;
    let (width, height) = (latent.width, latent.height);
    let Some(painting) = &latent.painting else {
        let empty = RgbImage::from_pixel(width, height, EMPTY);
        let count = usize::try_from(latent.count).unwrap_or(1);
        return Ok(picture::images(vec![empty; count]));
    };
    let pictures = (0..latent.count).map(|index| {
        let scene = painting.scene(index);
        let painted = scene.paint(width, height);
        if painting.done < 1.0 {
            scene.part_of_the_way(&painted, painting.done, index)
        } else {
            painted
        }
    });
    Ok(picture::images(pictures.collect()))
}

impl Painting {
    /// The scene of one picture of the batch; each has a seed of its own.
    fn scene(&self, index: u32) -> Scene {
        let seed = match index {
            0 => self.seed.clone(),
            index => format!("{}, {index}", self.seed),
        };
        Scene::new(&self.words, &self.without, &seed)
    }
}

fn canvas(call: &Call<'_>, name: &str) -> Result<Latent, Failure> {
    match call.values(name).first() {
        Some(Value::Latent(latent)) => Ok(latent.as_ref().clone()),
        _ => Err(Failure::Raised(
            "TypeError",
            "'NoneType' object is not subscriptable".to_owned(),
        )),
    }
}

fn words(call: &Call<'_>, name: &str) -> String {
    match call.values(name).first() {
        Some(Value::Words(words)) => words.clone(),
        _ => String::new(),
    }
}
