//! The data set nodes: folders of pictures and texts. As the real ones they check no path at all.

use super::{Call, Failure, Outcome, Value, load, save};
use image::RgbImage;
use std::fs;
use std::sync::Arc;

const PICTURES: &[&str] = &["png", "jpg", "jpeg", "webp"];

pub(super) fn load(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let folder = call.engine.options.input.join(call.text("folder"));
    let entries = fs::read_dir(&folder).map_err(|_| {
        Failure::Raised(
            "FileNotFoundError",
            format!(
                "[Errno 2] No such file or directory: '{}'",
                folder.display()
            ),
        )
    })?;
    let mut paths: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let extension = path
                .extension()
                .map(|text| text.to_string_lossy().to_lowercase());
            extension.is_some_and(|text| PICTURES.contains(&text.as_str()))
        })
        .collect();
    paths.sort();
    let mut list = Vec::new();
    for path in paths {
        list.push(Value::Images(Arc::new(vec![load::open(&path)?.to_rgb8()])));
    }
    Ok(Outcome {
        slots: vec![list],
        ui: None,
    })
}

pub(super) fn save(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let folder = call.engine.options.output.join(call.text("folder_name"));
    let prefix = call.text("filename_prefix");
    fs::create_dir_all(&folder).map_err(|error| Failure::Raised("OSError", error.to_string()))?;
    let mut pictures: Vec<RgbImage> = Vec::new();
    for value in call.values("images") {
        if let Value::Images(batch) = value {
            pictures.extend(batch.iter().cloned());
        }
    }
    for (index, picture) in pictures.iter().enumerate() {
        let bytes = save::png_bytes(picture, picture.dimensions(), png::ColorType::Rgb, &[])?;
        write(&folder.join(format!("{prefix}_{index:05}.png")), &bytes)?;
    }
    for (index, value) in call.values("texts").iter().enumerate() {
        if let Value::Plain(text) = value {
            write(
                &folder.join(format!("{prefix}_{index:05}.txt")),
                text.python_text().as_bytes(),
            )?;
        }
    }
    Ok(Outcome::default())
}

fn write(path: &std::path::Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes)
        .map_err(|error| Failure::Raised("OSError", format!("{error}: '{}'", path.display())))
}

pub(super) fn load_training(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let folder = call.engine.options.output.join(call.text("folder_name"));
    if folder.is_dir() {
        return Err(Failure::value(format!(
            "No shard files found in {}",
            folder.display()
        )));
    }
    Err(Failure::value(format!(
        "Dataset directory not found: {}",
        folder.display()
    )))
}
