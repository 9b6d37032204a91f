//! Looking at files and uploading pictures.

use super::Asked;
use crate::answer::{self, Refusal};
use crate::assets::Place;
use crate::body;
use crate::files;
use crate::json::{Json, json};
use crate::multipart::{Form, Part};
use crate::nodes::png_bytes;
use crate::state::Engine;
use axum::body::Body;
use axum::response::Response;
use http::{StatusCode, header};
use image::{DynamicImage, ImageReader, RgbaImage};
use std::io::Cursor;
use std::path::{Path, PathBuf};

pub(super) async fn view(engine: &Engine, asked: &Asked) -> Response {
    let Some(given) = asked.query("filename") else {
        return answer::empty(StatusCode::NOT_FOUND);
    };
    if given.starts_with("blake3:") {
        let known = engine.assets.lock().with_hash(given).cloned();
        return match known.and_then(|row| Some((row.name, row.place?.path))) {
            Some((name, path)) => {
                let kind = files::kind(&path).unwrap_or("application/octet-stream");
                active_or_not(&path, &name, kind, asked).await
            }
            None => answer::empty(StatusCode::NOT_FOUND),
        };
    }
    let (name, annotated) = engine.annotated(given);
    if name.is_empty() || name.starts_with('/') || name.contains("..") {
        return answer::empty(StatusCode::BAD_REQUEST);
    }
    let by_type = || engine.directory(asked.query("type").unwrap_or("output"));
    let Some(root) = annotated.or_else(by_type) else {
        return answer::empty(StatusCode::BAD_REQUEST);
    };
    let directory = files::join(root, asked.query("subfolder").unwrap_or_default());
    if !directory.starts_with(root) {
        return answer::empty(StatusCode::FORBIDDEN);
    }
    let base = files::base_name(name);
    let path = directory.join(base);
    if base.is_empty() || !path.is_file() {
        return answer::empty(StatusCode::NOT_FOUND);
    }
    let channel = asked.query("channel").unwrap_or("rgba").to_owned();
    let preview = asked.query("preview").map(str::to_owned);
    let mut response = if preview.is_some() || matches!(channel.as_str(), "rgb" | "a") {
        let source = path.clone();
        let made =
            tokio::task::spawn_blocking(move || convert(&source, preview.as_deref(), &channel))
                .await;
        match made {
            Ok(Some((kind, bytes))) => answer::with_body(StatusCode::OK, Some(kind), bytes.into()),
            _ => return answer::broken(),
        }
    } else {
        let kind = files::kind(&path).unwrap_or("application/octet-stream");
        return active_or_not(&path, base, kind, asked).await;
    };
    answer::set(
        &mut response,
        header::CONTENT_DISPOSITION,
        &format!("filename=\"{base}\""),
    );
    response
}

/// Answers a file as it is. What a browser would run on the page's own origin comes as a download, except a
/// drawing that the page shows as a picture, where nothing in it runs.
async fn active_or_not(path: &Path, base: &str, kind: &str, asked: &Asked) -> Response {
    let base = base.replace('\\', "\\\\").replace('"', "\\\"");
    let active = files::is_active(kind);
    let as_picture = kind == "image/svg+xml"
        && asked
            .headers
            .get("sec-fetch-dest")
            .is_some_and(|value| value == "image");
    let (kind, disposition) = if active && !as_picture {
        (
            "application/octet-stream",
            format!("attachment; filename=\"{base}\""),
        )
    } else {
        (kind, format!("filename=\"{base}\""))
    };
    let mut response = files::serve(path, &asked.method, &asked.headers, Some(kind)).await;
    answer::set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    answer::set(&mut response, header::CONTENT_DISPOSITION, &disposition);
    if active {
        answer::set(&mut response, header::VARY, "Sec-Fetch-Dest");
        answer::set(&mut response, header::CACHE_CONTROL, "no-store");
    }
    response
}

/// A smaller encoding or a single channel of a picture.
fn convert(path: &Path, preview: Option<&str>, channel: &str) -> Option<(&'static str, Vec<u8>)> {
    let picture = ImageReader::open(path)
        .ok()?
        .with_guessed_format()
        .ok()?
        .decode()
        .ok()?;
    let mut bytes = Vec::new();
    if let Some(preview) = preview {
        let (format, quality) = preview.split_once(';').unwrap_or((preview, "90"));
        let quality = quality.parse().unwrap_or(90);
        if format == "jpeg" && channel != "a" {
            let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality);
            picture.to_rgb8().write_with_encoder(encoder).ok()?;
            return Some(("image/jpeg", bytes));
        }
        let picture = if channel == "rgb" || !picture.color().has_alpha() {
            DynamicImage::from(picture.to_rgb8())
        } else {
            DynamicImage::from(picture.to_rgba8())
        };
        picture
            .write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::WebP)
            .ok()?;
        return Some(("image/webp", bytes));
    }
    let picture = if channel == "rgb" {
        DynamicImage::from(picture.to_rgb8())
    } else {
        let rgba = picture.to_rgba8();
        let alpha = RgbaImage::from_fn(rgba.width(), rgba.height(), |x, y| {
            image::Rgba([0, 0, 0, rgba.get_pixel(x, y).0[3]])
        });
        DynamicImage::from(alpha)
    };
    picture
        .write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png)
        .ok()?;
    Some(("image/png", bytes))
}

/// Where an upload goes, and what the answer says about it.
struct Target {
    path: PathBuf,
    name: String,
    subfolder: String,
    kind: String,
    /// The same bytes are there already.
    there: bool,
}

pub(super) async fn upload_image(engine: &Engine, asked: &Asked, body: Body) -> Response {
    let form = match read_form(engine, asked, body).await {
        Ok(form) => form,
        Err(refusal) => return *refusal,
    };
    match target(engine, &form) {
        Ok((target, part)) => {
            if !target.there && tokio::fs::write(&target.path, &part.data).await.is_err() {
                return answer::broken();
            }
            answer::json(&registered(engine, &target))
        }
        Err(refusal) => *refusal,
    }
}

/// The answer to an upload, with its row in the asset list if there is one.
fn registered(engine: &Engine, target: &Target) -> Json {
    let mut answer = named(target);
    if !engine.options.assets {
        return answer;
    }
    let root = match target.kind.as_str() {
        "output" => "output",
        _ => "input",
    };
    let below = files::join(
        Path::new("/"),
        &format!("{}/{}", target.subfolder, target.name),
    );
    let place = Place {
        root,
        path: target.path.clone(),
        name: below.to_string_lossy().trim_start_matches('/').to_owned(),
    };
    let mut assets = engine.assets.lock();
    if let Some(row) = assets.register(place, Some(&target.name), &[root]) {
        let mut asset = json!({ "id": row.id, "name": row.name });
        asset.set(
            "asset_hash",
            row.hash.as_deref().map_or(Json::Null, Json::from),
        );
        asset.set("size", row.size);
        asset.set("mime_type", row.kind.map_or(Json::Null, Json::from));
        asset.set("tags", row.tags.clone());
        answer.set("asset", asset);
    }
    answer
}

pub(super) async fn upload_mask(engine: &Engine, asked: &Asked, body: Body) -> Response {
    let form = match read_form(engine, asked, body).await {
        Ok(form) => form,
        Err(refusal) => return *refusal,
    };
    let (target, part) = match target(engine, &form) {
        Ok(found) => found,
        Err(refusal) => return *refusal,
    };
    if target.there {
        return answer::json(&named(&target));
    }
    let original = match form.text("original_ref") {
        Ok(Some(text)) => Json::parse(text).ok(),
        _ => None,
    };
    let Some(original) = original else {
        return answer::broken();
    };
    // A source that is refused or missing is not reported: the answer is the same and nothing is written.
    if let Some(source) = mask_source(engine, &original) {
        let upload = part.data.clone();
        let path = target.path.clone();
        let written = tokio::task::spawn_blocking(move || {
            let bytes = masked(&source, &upload)?;
            std::fs::write(path, bytes).ok()
        });
        if !matches!(written.await, Ok(Some(()))) {
            return answer::broken();
        }
    }
    answer::json(&named(&target))
}

async fn read_form(engine: &Engine, asked: &Asked, body: Body) -> Result<Form, Refusal> {
    let bytes = body::bytes(&asked.headers, body, engine.options.max_upload).await?;
    let kind = asked
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    Ok(Form::read(kind, &bytes))
}

fn named(target: &Target) -> Json {
    json!({ "name": target.name, "subfolder": target.subfolder, "type": target.kind })
}

fn target<'a>(engine: &Engine, form: &'a Form) -> Result<(Target, &'a Part), Refusal> {
    let bad = || Refusal::from(answer::empty(StatusCode::BAD_REQUEST));
    let text = |name: &str| form.text(name).map_err(|_| Refusal::from(answer::broken()));
    let kind = text("type")?.unwrap_or("input").to_owned();
    let root = engine
        .directory(&kind)
        .ok_or_else(answer::broken)?
        .to_owned();
    let part = form.get("image").ok_or_else(bad)?;
    // A text field of that name has no file, which the original runs into.
    let mut name = part.filename.clone().ok_or_else(answer::broken)?;
    if name.is_empty() {
        return Err(bad());
    }
    let subfolder = text("subfolder")?.unwrap_or_default().to_owned();
    if name.contains('\0') || subfolder.contains('\0') {
        return Err(answer::broken().into());
    }
    let directory = files::join(&root, &subfolder);
    let mut path = files::join(&directory, &name);
    if !path.starts_with(&root) {
        return Err(bad());
    }
    std::fs::create_dir_all(&directory).map_err(|_| answer::broken())?;
    let overwrite = matches!(text("overwrite")?, Some("true" | "1"));
    let mut there = false;
    let given = name.clone();
    let (stem, extension) = split_extension(&given);
    for index in 1.. {
        if overwrite || !path.exists() {
            break;
        }
        if std::fs::read(&path).is_ok_and(|content| content == part.data) {
            there = true;
            break;
        }
        name = format!("{stem} ({index}){extension}");
        path = files::join(&directory, &name);
    }
    Ok((
        Target {
            path,
            name,
            subfolder,
            kind,
            there,
        },
        part,
    ))
}

/// `os.path.splitext`.
fn split_extension(name: &str) -> (&str, &str) {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let dots = name[start..].len() - name[start..].trim_start_matches('.').len();
    match name[start + dots..].rfind('.') {
        Some(dot) => name.split_at(start + dots + dot),
        None => (name, ""),
    }
}

fn mask_source(engine: &Engine, original: &Json) -> Option<PathBuf> {
    let given = original.get("filename")?.as_str()?;
    let (name, annotated) = engine.annotated(given);
    if name.is_empty() || name.starts_with('/') || name.contains("..") {
        return None;
    }
    let kind = original
        .get("type")
        .and_then(Json::as_str)
        .unwrap_or("output");
    let root = annotated.or_else(|| engine.directory(kind))?;
    let subfolder = original
        .get("subfolder")
        .and_then(Json::as_str)
        .unwrap_or_default();
    let directory = files::join(root, subfolder);
    let path = directory.starts_with(root).then(|| directory.join(name))?;
    path.is_file().then_some(path)
}

/// The colours and texts of the source with the alpha channel of the upload.
fn masked(source: &Path, upload: &[u8]) -> Option<Vec<u8>> {
    let bytes = std::fs::read(source).ok()?;
    let mut texts = Vec::new();
    if let Ok(reader) = png::Decoder::new(Cursor::new(&bytes)).read_info() {
        for chunk in &reader.info().uncompressed_latin1_text {
            texts.push((chunk.keyword.clone(), chunk.text.clone()));
        }
    }
    let mut picture = image::load_from_memory(&bytes).ok()?.to_rgba8();
    let mask = image::load_from_memory(upload).ok()?.to_rgba8();
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        if let Some(mask) = mask.get_pixel_checked(x, y) {
            pixel.0[3] = mask.0[3];
        }
    }
    png_bytes(&picture, picture.dimensions(), png::ColorType::Rgba, &texts).ok()
}

#[cfg(test)]
mod tests {
    use super::split_extension;

    #[test]
    fn splits_as_python() {
        for (name, stem, extension) in [
            ("a.png", "a", ".png"),
            ("a.b.png", "a.b", ".png"),
            ("a", "a", ""),
            (".hidden", ".hidden", ""),
            ("../x.png", "../x", ".png"),
            ("dir.d/x", "dir.d/x", ""),
        ] {
            assert_eq!(split_extension(name), (stem, extension));
        }
    }
}
