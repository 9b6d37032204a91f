//! What the engine says about itself and about the models it has not got.

use super::Asked;
use crate::answer;
use crate::files;
use crate::json::{Json, json};
use crate::nodes::catalogue::Catalogue;
use crate::socket;
use crate::state::Engine;
use axum::response::Response;
use http::StatusCode;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    SystemStats,
    Features,
    ObjectInfo,
    ObjectInfoOf,
    Extensions,
    Embeddings,
    Models,
    ModelsOf,
    Folders,
    FoldersOf,
    ModelPreview,
    ModelMetadata,
    Nothing,
    Subgraph,
}

/// Model folders: name, directories below `models`, directory below `output` where saved models count too.
const FOLDERS: &[(&str, &[&str], Option<&str>)] = &[
    ("checkpoints", &["checkpoints"], Some("checkpoints")),
    ("configs", &["configs"], None),
    ("loras", &["loras"], Some("loras")),
    ("vae", &["vae"], Some("vae")),
    ("text_encoders", &["text_encoders", "clip"], Some("clip")),
    (
        "diffusion_models",
        &["unet", "diffusion_models"],
        Some("diffusion_models"),
    ),
    ("clip_vision", &["clip_vision"], None),
    ("style_models", &["style_models"], None),
    ("embeddings", &["embeddings"], None),
    ("diffusers", &["diffusers"], None),
    ("vae_approx", &["vae_approx"], None),
    ("controlnet", &["controlnet", "t2i_adapter"], None),
    ("gligen", &["gligen"], None),
    ("upscale_models", &["upscale_models"], None),
    ("latent_upscale_models", &["latent_upscale_models"], None),
    ("custom_nodes", &[], None),
    ("datasets", &[], None),
    ("hypernetworks", &["hypernetworks"], None),
    ("photomaker", &["photomaker"], None),
    ("classifiers", &["classifiers"], None),
    ("model_patches", &["model_patches"], None),
    ("audio_encoders", &["audio_encoders"], None),
    ("background_removal", &["background_removal"], None),
    ("frame_interpolation", &["frame_interpolation"], None),
    ("geometry_estimation", &["geometry_estimation"], None),
    ("optical_flow", &["optical_flow"], None),
    ("detection", &["detection"], None),
];
/// Kinds of files that count as models in most folders.
const MODELS: &[&str] = &[
    ".bin",
    ".ckpt",
    ".pkl",
    ".pt",
    ".pt2",
    ".pth",
    ".safetensors",
    ".sft",
];
/// Versions of the packages that the original names.
const PACKAGES: &[(&str, &str)] = &[
    ("comfyui-frontend-package", "1.49.6"),
    ("comfyui-workflow-templates", "0.11.44"),
    ("comfyui-embedded-docs", "0.5.10"),
    ("comfy-kitchen", "0.2.31"),
    ("comfy-aimdo", "0.4.13"),
];

pub(super) fn answer(engine: &Engine, route: Route, asked: &Asked) -> Response {
    let catalogue = Catalogue::get();
    let missing = || answer::empty(StatusCode::NOT_FOUND);
    match route {
        Route::SystemStats => answer::json(&system_stats(engine)),
        Route::Features => answer::json(&socket::features(engine)),
        Route::ObjectInfo => {
            if engine.options.assets {
                super::assets::scan(engine, &["models", "input", "output"]);
            }
            let all = catalogue
                .names()
                .filter_map(|name| Some((name.to_owned(), catalogue.describe(engine, name)?)));
            answer::json(&Json::Object(all.collect()))
        }
        Route::ObjectInfoOf => {
            let mut shown = json!({});
            if let Some(class) = catalogue.describe(engine, asked.place(0)) {
                shown.set(asked.place(0), class);
            }
            answer::json(&shown)
        }
        Route::Extensions => answer::json(&extensions(engine).into()),
        Route::Embeddings => {
            let names = models(engine, "embeddings").into_iter().map(|(name, _)| {
                Path::new(&name)
                    .with_extension("")
                    .to_string_lossy()
                    .into_owned()
            });
            answer::json(&names.collect::<Vec<_>>().into())
        }
        Route::Models => answer::json(
            &FOLDERS
                .iter()
                .map(|folder| folder.0)
                .collect::<Vec<_>>()
                .into(),
        ),
        Route::ModelsOf if !known(asked.place(0)) => missing(),
        Route::ModelsOf => {
            let names = models(engine, asked.place(0))
                .into_iter()
                .map(|(name, _)| name);
            answer::json(&names.collect::<Vec<_>>().into())
        }
        Route::Folders => {
            let shown = FOLDERS
                .iter()
                .filter(|folder| !matches!(folder.0, "configs" | "custom_nodes"))
                .map(|folder| {
                    let mut shown = json!({ "name": folder.0 });
                    shown.set("folders", texts(&directories(engine, folder.0)));
                    shown.set("extensions", extensions_of(folder.0).to_vec());
                    shown
                });
            answer::json(&shown.collect::<Vec<_>>().into())
        }
        Route::FoldersOf if !known(asked.place(0)) => missing(),
        Route::FoldersOf => {
            let shown = models(engine, asked.place(0))
                .into_iter()
                .map(|(name, index)| {
                    let mut shown = json!({ "name": name, "pathIndex": index });
                    let path = directories(engine, asked.place(0))
                        .get(index)
                        .map(|directory| directory.join(&name));
                    let metadata = path.and_then(|path| std::fs::metadata(path).ok());
                    shown.set(
                        "modified",
                        metadata
                            .as_ref()
                            .map_or(0.0, |metadata| files::seconds(metadata.modified())),
                    );
                    shown.set(
                        "created",
                        metadata
                            .as_ref()
                            .map_or(0.0, |metadata| files::seconds(metadata.created())),
                    );
                    shown.set("size", metadata.map_or(0, |metadata| metadata.len()));
                    shown
                });
            answer::json(&shown.collect::<Vec<_>>().into())
        }
        Route::ModelPreview => answer::empty(preview(engine, asked)),
        Route::ModelMetadata => {
            metadata(engine, asked).map_or_else(missing, |metadata| answer::json(&metadata))
        }
        Route::Nothing => answer::json(&json!({})),
        Route::Subgraph => answer::json(&Json::Null),
    }
}

/// Why there is no picture for a model. No model has one here.
fn preview(engine: &Engine, asked: &Asked) -> StatusCode {
    let folders = directories(engine, asked.place(0));
    let name = asked.place(2);
    if folders.is_empty() {
        return StatusCode::NOT_FOUND;
    }
    let Ok(index) = asked.place(1).parse::<i64>() else {
        return StatusCode::BAD_REQUEST;
    };
    if name.is_empty() {
        return StatusCode::BAD_REQUEST;
    }
    let folder = usize::try_from(index).ok().and_then(|at| folders.get(at));
    match folder {
        Some(folder) if !files::is_within(folder, &folder.join(name)) => StatusCode::FORBIDDEN,
        _ => StatusCode::NOT_FOUND,
    }
}

fn system_stats(engine: &Engine) -> Json {
    let (total, free) = memory();
    let packages: Vec<Json> = PACKAGES
        .iter()
        .map(|(name, version)| json!({ "name": name, "installed": version, "required": version }))
        .collect();
    let mut stats = stats(engine, total, free);
    if let Some(system) = stats.get_mut("system") {
        let mut all = json!({});
        for (name, value) in system.as_object().unwrap_or_default() {
            if name == "python_version" {
                all.set("comfy_package_versions", packages.clone());
            }
            if name == "argv" {
                all.set("deploy_environment", "demo");
            }
            all.set(name, value.clone());
        }
        *system = all;
    }
    stats
}

fn stats(engine: &Engine, total: u64, free: u64) -> Json {
    let mut words = vec!["main.py".to_owned()];
    words.extend(engine.options.words.iter().cloned());
    json!({
        "system": {
            "os": if cfg!(windows) { "win32" } else if cfg!(target_os = "macos") { "darwin" } else { "linux" },
            "ram_total": total,
            "ram_free": free,
            "comfyui_version": "0.33.0",
            "required_frontend_version": "1.49.6",
            "installed_templates_version": "0.11.44",
            "required_templates_version": "0.11.44",
            "python_version": "none (demo engine)",
            "pytorch_version": "none (demo engine)",
            "embedded_python": false,
            "argv": words,
        },
        "devices": [{
            "name": "cpu",
            "type": "cpu",
            "index": null,
            "vram_total": total,
            "vram_free": free,
            "torch_vram_total": total,
            "torch_vram_free": free,
        }],
    })
}

/// Total and free memory in bytes, where the system tells.
pub(crate) fn memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':')
            .trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .ok()
    };
    (
        line("MemTotal").unwrap_or(0) * 1024,
        line("MemAvailable").unwrap_or(0) * 1024,
    )
}

/// Scripts below the front end's `extensions`.
fn extensions(engine: &Engine) -> Vec<String> {
    let Some(root) = &engine.options.front_end else {
        return Vec::new();
    };
    let mut found = crate::userdata::list(&root.join("extensions"), true);
    found.retain(|name| name.ends_with(".js"));
    found
        .iter()
        .map(|name| format!("/extensions/{name}"))
        .collect()
}

/// The names of all model folders.
pub(super) fn folders() -> impl Iterator<Item = &'static str> {
    FOLDERS.iter().map(|folder| folder.0)
}

fn known(folder: &str) -> bool {
    FOLDERS.iter().any(|(name, _, _)| *name == folder)
}

/// The directories of a model folder.
fn directories(engine: &Engine, folder: &str) -> Vec<PathBuf> {
    let Some((name, below, saved)) = FOLDERS.iter().find(|(name, _, _)| *name == folder) else {
        return Vec::new();
    };
    if matches!(*name, "custom_nodes" | "datasets") {
        return vec![engine.options.base.join(name)];
    }
    let mut directories: Vec<PathBuf> = below
        .iter()
        .map(|name| engine.options.models.join(name))
        .collect();
    directories.extend(saved.map(|name| engine.options.output.join(name)));
    directories
}

/// All model folders with their directories.
pub(super) fn folder_paths(engine: &Engine) -> Json {
    let all = FOLDERS
        .iter()
        .map(|folder| (folder.0.to_owned(), texts(&directories(engine, folder.0))));
    Json::Object(all.collect())
}

fn texts(paths: &[PathBuf]) -> Json {
    paths
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .into()
}

/// Kinds of files that count as models in a folder; none means that all do.
fn extensions_of(folder: &str) -> &'static [&'static str] {
    match folder {
        "datasets" => &[],
        "classifiers" => &[""],
        "diffusers" => &["folder"],
        _ => MODELS,
    }
}

/// Names of the owner's models in a folder.
pub(crate) fn model_names(engine: &Engine, folder: &str) -> Vec<String> {
    models(engine, folder)
        .into_iter()
        .map(|(name, _)| name)
        .collect()
}

/// Names of a folder's models and which of its directories they lie in.
fn models(engine: &Engine, folder: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let own = crate::nodes::MODELS.iter();
    found.extend(
        own.filter(|(place, _)| *place == folder)
            .map(|(_, name)| ((*name).to_owned(), 0)),
    );
    let kinds = extensions_of(folder);
    for (index, directory) in directories(engine, folder).iter().enumerate() {
        for name in crate::userdata::list(directory, true) {
            let extension = Path::new(&name)
                .extension()
                .map_or_else(String::new, |text| {
                    format!(".{}", text.to_string_lossy().to_lowercase())
                });
            if kinds.is_empty() || kinds.contains(&extension.as_str()) {
                found.push((name, index));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The texts in the head of a `.safetensors` file.
fn metadata(engine: &Engine, asked: &Asked) -> Option<Json> {
    let name = asked
        .query("filename")
        .filter(|name| name.ends_with(".safetensors"))?;
    let (_, index) = models(engine, asked.place(0))
        .into_iter()
        .find(|(known, _)| known == name)?;
    let bytes = std::fs::read(directories(engine, asked.place(0)).get(index)?.join(name)).ok()?;
    let length = usize::try_from(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)).ok()?;
    let head =
        Json::parse(std::str::from_utf8(bytes.get(8..8_usize.checked_add(length)?)?).ok()?).ok()?;
    head.get("__metadata__").cloned()
}
