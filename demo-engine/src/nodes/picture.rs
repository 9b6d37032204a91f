//! Nodes that make and change pictures.

use super::{Call, Failure, Outcome, Value};
use crate::json::Json;
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use std::sync::Arc;

/// More would be refused by the allocator of any machine; ComfyUI reports it in this way.
const MOST_BYTES: u64 = 2 << 30;

pub(super) fn empty(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let (width, height, count) = (
        call.count("width"),
        call.count("height"),
        call.count("batch_size"),
    );
    let bytes = u64::from(width) * u64::from(height) * u64::from(count) * 3;
    if bytes > MOST_BYTES {
        let text = format!(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate {bytes} bytes."
        );
        return Err(Failure::Raised("RuntimeError", text));
    }
    let [_, red, green, blue] = call.count("color").to_be_bytes();
    let picture = RgbImage::from_pixel(width, height, Rgb([red, green, blue]));
    Ok(images(vec![picture; usize::try_from(count).unwrap_or(1)]))
}

pub(super) fn scale(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let source = call.images("image")?;
    let (mut width, mut height) = (call.count("width"), call.count("height"));
    let Some(first) = source.first() else {
        return Ok(images(Vec::new()));
    };
    let (old_width, old_height) = first.dimensions();
    let keep = |wanted: u32, other: u32, old_other: u32, old: u32| {
        let exact = f64::from(old) * f64::from(other) / f64::from(old_other.max(1));
        let kept = exact.round().max(1.0) as u32;
        if wanted == 0 { kept } else { wanted }
    };
    if width == 0 && height == 0 {
        return Ok(Outcome::one(Value::Images(source)));
    }
    let (asked_width, asked_height) = (width, height);
    width = keep(asked_width, asked_height, old_height, old_width);
    height = keep(asked_height, asked_width, old_width, old_height);
    let filter = match call.text("upscale_method").as_str() {
        "nearest-exact" => FilterType::Nearest,
        "bicubic" => FilterType::CatmullRom,
        "lanczos" => FilterType::Lanczos3,
        _ => FilterType::Triangle,
    };
    let center = call.text("crop") == "center";
    let scaled = source.iter().map(|picture| {
        if center {
            imageops::resize(&cropped(picture, width, height), width, height, filter)
        } else {
            imageops::resize(picture, width, height, filter)
        }
    });
    Ok(images(scaled.collect()))
}

/// The largest middle part with the wanted proportions.
fn cropped(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (old_width, old_height) = picture.dimensions();
    let (wide, high) = (
        u64::from(old_width) * u64::from(height),
        u64::from(old_height) * u64::from(width),
    );
    let part = |value: u64, by: u32| {
        u32::try_from(value / u64::from(by.max(1)))
            .unwrap_or(1)
            .max(1)
    };
    let (new_width, new_height) = if wide > high {
        (part(high, height), old_height)
    } else {
        (old_width, part(wide, width))
    };
    imageops::crop_imm(
        picture,
        (old_width - new_width) / 2,
        (old_height - new_height) / 2,
        new_width,
        new_height,
    )
    .to_image()
}

pub(super) fn invert(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let mut pictures = call.images("image")?.as_ref().clone();
    for picture in &mut pictures {
        imageops::invert(picture);
    }
    Ok(images(pictures))
}

pub(super) fn from_mask(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    match call.values("mask").first() {
        Some(Value::Mask(mask)) => {
            let picture = RgbImage::from_fn(mask.width(), mask.height(), |x, y| {
                Rgb([mask.get_pixel(x, y).0[0]; 3])
            });
            Ok(images(vec![picture]))
        }
        _ => Err(Failure::Raised(
            "AttributeError",
            "'NoneType' object has no attribute 'reshape'".to_owned(),
        )),
    }
}

/// Tells the size to everybody: ComfyUI sends this text without naming a client.
pub(super) fn size(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let pictures = call.images("image")?;
    let (width, height) = pictures.first().map_or((0, 0), RgbImage::dimensions);
    let count = pictures.len();
    call.reporter.text(
        &format!("width: {width}, height: {height}\n batch size: {count}"),
        true,
    );
    let slot = |number: Json| vec![Value::Plain(number)];
    Ok(Outcome {
        slots: vec![slot(width.into()), slot(height.into()), slot(count.into())],
        ui: None,
    })
}

pub(super) fn images(pictures: Vec<RgbImage>) -> Outcome {
    Outcome::one(Value::Images(Arc::new(pictures)))
}
