//! Nodes that read pictures, from the directories of the engine only.

use super::{Call, Failure, Outcome, Value, picture};
use crate::json::Json;
use image::{DynamicImage, GrayImage, ImageError, ImageReader, Luma};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) fn image(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let loaded = open(&checked(call, &call.text("image"))?)?;
    let mask = if loaded.color().has_alpha() {
        let rgba = loaded.to_rgba8();
        GrayImage::from_fn(rgba.width(), rgba.height(), |x, y| {
            Luma([255 - rgba.get_pixel(x, y).0[3]])
        })
    } else {
        GrayImage::new(64, 64)
    };
    let mut outcome = picture::images(vec![loaded.to_rgb8()]);
    outcome.slots.push(vec![Value::Mask(Arc::new(mask))]);
    Ok(outcome)
}

pub(super) fn mask(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let loaded = open(&checked(call, &call.text("image"))?)?;
    let channel = call.text("channel");
    let rgba = loaded.to_rgba8();
    let mask = match channel.as_str() {
        "alpha" if !loaded.color().has_alpha() => GrayImage::new(64, 64),
        "alpha" => GrayImage::from_fn(rgba.width(), rgba.height(), |x, y| {
            Luma([255 - rgba.get_pixel(x, y).0[3]])
        }),
        other => {
            let index = ["red", "green", "blue"]
                .iter()
                .position(|name| *name == other)
                .unwrap_or(0);
            GrayImage::from_fn(rgba.width(), rgba.height(), |x, y| {
                Luma([rgba.get_pixel(x, y).0[index]])
            })
        }
    };
    Ok(Outcome::one(Value::Mask(Arc::new(mask))))
}

/// The path of a name, if it leads nowhere else.
fn checked(call: &Call<'_>, name: &str) -> Result<PathBuf, Failure> {
    call.engine.load_path(name).ok_or_else(|| {
        let name = Json::Text(name.to_owned()).python_repr();
        Failure::value(format!("Invalid file path: {name}"))
    })
}

/// Kinds of files this engine knows by name only.
pub(super) fn nothing_to_load(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    Err(Failure::Raised(
        "NotImplementedError",
        format!(
            "the demo engine cannot load what node {} asks for",
            call.node
        ),
    ))
}

pub(super) fn open(path: &Path) -> Result<DynamicImage, Failure> {
    let shown = path.display();
    let reader = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(|_| {
            Failure::Raised(
                "FileNotFoundError",
                format!("[Errno 2] No such file or directory: '{shown}'"),
            )
        })?;
    reader.decode().map_err(|error| match error {
        ImageError::IoError(_) => Failure::Raised("OSError", "image file is truncated".to_owned()),
        _ => Failure::Raised(
            "UnidentifiedImageError",
            format!("cannot identify image file '{shown}'"),
        ),
    })
}
