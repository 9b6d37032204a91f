//! Nodes that write pictures into the output and temp directories.

use super::{Call, Failure, Outcome, Value};
use crate::files::{self, normalise};
use crate::json::{Json, json};
use image::{ImageEncoder as _, RgbImage};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use time::OffsetDateTime;

pub(super) fn image(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let prefix = call.text("filename_prefix");
    let directory = call.engine.options.output.clone();
    save(call, &directory, &prefix, "output")
}

pub(super) fn preview(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let prefix = format!("ComfyUI_temp_{}", call.prefix);
    let directory = call.engine.options.temp.clone();
    save(call, &directory, &prefix, "temp")
}

fn save(call: &Call<'_>, directory: &Path, prefix: &str, kind: &str) -> Result<Outcome, Failure> {
    let pictures = call.images("images")?;
    let place = Place::find(directory, prefix, pictures.first())?;
    let texts = metadata(call);
    let mut shown = Vec::new();
    for (index, picture) in pictures.iter().enumerate() {
        let stem = place.stem.replace("%batch_num%", &index.to_string());
        let name = format!("{stem}_{:05}_.png", place.counter + index);
        let bytes = png_bytes(picture, picture.dimensions(), png::ColorType::Rgb, &texts)?;
        place.write(&name, &bytes)?;
        shown.push(json!({ "filename": name, "subfolder": place.subfolder, "type": kind }));
    }
    let mut ui = json!({});
    ui.set("images", shown);
    Ok(Outcome::shown_and(ui, Value::Images(pictures)))
}

pub(super) fn text(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let text = call.text("text");
    let place = Place::find(
        &call.engine.options.output,
        &call.text("filename_prefix"),
        None,
    )?;
    let extension = call.text("format");
    let name = format!("{}_{:05}.{extension}", place.stem, place.counter);
    let pretty = serde_json::from_str::<serde_json::Value>(&text)
        .ok()
        .filter(|_| extension == "json")
        .and_then(|value| serde_json::to_string_pretty(&value).ok());
    place.write(&name, pretty.as_ref().unwrap_or(&text).as_bytes())?;
    let mut ui = json!({ "text": [text] });
    ui.set(
        "files",
        json!([{ "filename": name, "subfolder": place.subfolder, "type": "output" }]),
    );
    Ok(Outcome::shown_and(ui, Value::Plain(text.into())))
}

pub(super) fn animated_webp(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let pictures = call.images("images")?;
    let place = Place::find(
        &call.engine.options.output,
        &call.text("filename_prefix"),
        pictures.first(),
    )?;
    // One frame is what the encoder at hand can do; more would add nothing to what this engine is for.
    let mut bytes = Vec::new();
    if let Some(picture) = pictures.first() {
        image::codecs::webp::WebPEncoder::new_lossless(&mut bytes)
            .write_image(
                picture,
                picture.width(),
                picture.height(),
                image::ExtendedColorType::Rgb8,
            )
            .map_err(|error| Failure::value(error.to_string()))?;
    }
    animated(&place, "webp", &bytes, pictures)
}

pub(super) fn animated_png(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let pictures = call.images("images")?;
    let place = Place::find(
        &call.engine.options.output,
        &call.text("filename_prefix"),
        pictures.first(),
    )?;
    let mut bytes = Vec::new();
    if let Some(first) = pictures.first() {
        let encode = |bytes: &mut Vec<u8>| -> Result<(), png::EncodingError> {
            let mut encoder = png::Encoder::new(bytes, first.width(), first.height());
            encoder.set_color(png::ColorType::Rgb);
            if pictures.len() > 1 {
                encoder.set_animated(u32::try_from(pictures.len()).unwrap_or(1), 0)?;
                let milliseconds = (1000.0 / call.number("fps").max(0.1)) as u16;
                encoder.set_frame_delay(milliseconds, 1000)?;
            }
            let mut writer = encoder.write_header()?;
            for picture in pictures.iter() {
                writer.write_image_data(picture)?;
            }
            writer.finish()
        };
        encode(&mut bytes).map_err(|error| Failure::value(error.to_string()))?;
    }
    animated(&place, "png", &bytes, pictures)
}

fn animated(
    place: &Place,
    extension: &str,
    bytes: &[u8],
    pictures: Arc<Vec<RgbImage>>,
) -> Result<Outcome, Failure> {
    let name = format!("{}_{:05}_.{extension}", place.stem, place.counter);
    place.write(&name, bytes)?;
    let ui = json!({
        "images": [{ "filename": name, "subfolder": place.subfolder, "type": "output" }],
    });
    Ok(Outcome::shown_and(ui, Value::Images(pictures)))
}

/// Where the next picture of a prefix goes.
#[derive(Debug)]
struct Place {
    directory: PathBuf,
    subfolder: String,
    stem: String,
    counter: usize,
}

impl Place {
    fn find(root: &Path, prefix: &str, first: Option<&RgbImage>) -> Result<Self, Failure> {
        let prefix = fill_in(prefix, first);
        let path = normalise(Path::new(&prefix));
        let stem = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let subfolder = path
            .parent()
            .map(|parent| parent.to_string_lossy().into_owned())
            .unwrap_or_default();
        if prefix.contains('\0') {
            return Err(Failure::value("embedded null byte"));
        }
        let directory = root.join(&subfolder);
        if !files::is_within(root, &directory) {
            return Err(Failure::Raised(
                "Exception",
                format!(
                    "**** ERROR: Saving image outside the output folder is not allowed.\n full_output_folder: {}\n         output_dir: {}",
                    normalise(&directory).display(),
                    root.display(),
                ),
            ));
        }
        fs::create_dir_all(&directory).map_err(|error| os_error(&error, &directory))?;
        let counter = next_number(&directory, &stem);
        Ok(Self {
            directory,
            subfolder,
            stem,
            counter,
        })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.directory.join(name);
        fs::write(&path, bytes).map_err(|error| os_error(&error, &path))
    }
}

/// One more than the largest number among the files that begin with `stem_`.
fn next_number(directory: &Path, stem: &str) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let rest = name.strip_prefix(stem)?.strip_prefix('_')?;
            Some(
                rest.split(['.', '_'])
                    .next()
                    .and_then(|digits| digits.parse::<usize>().ok())
                    .unwrap_or(0),
            )
        })
        .max()
        .unwrap_or(0)
        + 1
}

/// Fills in what the server knows: size and time. `%date:…%` and `%Node.widget%` are the page's business.
fn fill_in(prefix: &str, first: Option<&RgbImage>) -> String {
    if !prefix.contains('%') {
        return prefix.to_owned();
    }
    let now = OffsetDateTime::now_utc();
    let (width, height) = first.map_or((0, 0), RgbImage::dimensions);
    prefix
        .replace("%width%", &width.to_string())
        .replace("%height%", &height.to_string())
        .replace("%year%", &now.year().to_string())
        .replace("%month%", &format!("{:02}", u8::from(now.month())))
        .replace("%day%", &format!("{:02}", now.day()))
        .replace("%hour%", &format!("{:02}", now.hour()))
        .replace("%minute%", &format!("{:02}", now.minute()))
        .replace("%second%", &format!("{:02}", now.second()))
}

/// The text chunks of a saved picture: the prompt and whatever the page sent along.
fn metadata(call: &Call<'_>) -> Vec<(String, String)> {
    if !call.engine.options.metadata {
        return Vec::new();
    }
    let mut texts = vec![("prompt".to_owned(), call.prompt.dump())];
    for (key, value) in call
        .extra_pnginfo
        .and_then(Json::as_object)
        .unwrap_or_default()
    {
        texts.push((key.clone(), value.dump()));
    }
    texts
}

/// Encodes a PNG with text chunks.
pub(crate) fn png_bytes(
    pixels: &[u8],
    (width, height): (u32, u32),
    color: png::ColorType,
    texts: &[(String, String)],
) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let encode = |bytes: &mut Vec<u8>| -> Result<(), png::EncodingError> {
        let mut encoder = png::Encoder::new(bytes, width, height);
        encoder.set_color(color);
        encoder.set_compression(png::Compression::Fast);
        for (key, text) in texts {
            encoder.add_text_chunk(key.clone(), text.clone())?;
        }
        encoder.write_header()?.write_image_data(pixels)
    };
    encode(&mut bytes).map_err(|error| Failure::value(error.to_string()))?;
    Ok(bytes)
}

fn os_error(error: &io::Error, path: &Path) -> Failure {
    let number = error.raw_os_error().unwrap_or(5);
    let text = match number {
        2 => "No such file or directory",
        13 => "Permission denied",
        20 => "Not a directory",
        28 => "No space left on device",
        36 => "File name too long",
        _ => "Input/output error",
    };
    let kind = match number {
        2 => "FileNotFoundError",
        13 => "PermissionError",
        20 => "NotADirectoryError",
        _ => "OSError",
    };
    Failure::Raised(
        kind,
        format!("[Errno {number}] {text}: '{}'", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::{fill_in, next_number};
    use std::fs;

    #[test]
    fn counts_on_from_the_largest() {
        let directory = std::env::temp_dir().join(format!("demo-engine-{}", uuid::Uuid::new_v4()));
        assert!(fs::create_dir_all(&directory).is_ok());
        assert_eq!(next_number(&directory, "a"), 1);
        for name in ["a_00001_.png", "a_00041_.webp", "a_x_.png", "ab_00099_.png"] {
            assert!(fs::write(directory.join(name), "").is_ok());
        }
        assert_eq!(next_number(&directory, "a"), 42);
        assert!(fs::remove_dir_all(&directory).is_ok());
    }

    #[test]
    fn fills_in_only_what_the_server_knows() {
        let picture = image::RgbImage::new(3, 2);
        assert_eq!(
            fill_in("%width%x%height%_%date:yyyy%_%Node.x%", Some(&picture)),
            "3x2_%date:yyyy%_%Node.x%"
        );
    }
}
