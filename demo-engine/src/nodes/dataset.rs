//! The data set nodes: folders of pictures and texts. They leave the directories of the
//! engine only with the fault `unchecked-paths`, as the real ones did before 2026.

use super::{Call, Failure, Outcome, Value, load, save};
use crate::files;
use crate::json::Json;
use image::RgbImage;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PICTURES: &[&str] = &["png", "jpg", "jpeg", "webp"];

pub(super) fn load(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let folder = inside(call, &call.engine.options.input, &call.text("folder"))?;
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

/// The folder of a name, if it leads nowhere else.
fn inside(call: &Call<'_>, root: &Path, name: &str) -> Result<PathBuf, Failure> {
    let folder = files::join(root, name);
    if call.engine.options.faults.unchecked_paths || files::is_within(root, &folder) {
        return Ok(folder);
    }
    let name = Json::Text(name.to_owned()).python_repr();
    Err(Failure::value(format!(
        "Invalid folder name {name}: resolves outside of {}",
        root.display()
    )))
}

pub(super) fn save(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let folder = inside(call, &call.engine.options.output, &call.text("folder_name"))?;
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

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes)
        .map_err(|error| Failure::Raised("OSError", format!("{error}: '{}'", path.display())))
}

pub(super) fn load_training(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let root = call.engine.options.base.join("datasets");
    let folder = inside(call, &root, &call.text("folder_name"))?;
    Err(Failure::value(format!(
        "No shard files found in {}",
        folder.display()
    )))
}
