//! The asset list, there with `--enable-assets`: rows for files, as a scan, an upload or a job finds them.
//! Everybody sees and changes every row; a deleted row leaves its file.
//!
//! Hashes carry the name of ComfyUI's function, but are SHA-256 here: they are compared, never recomputed by
//! others.

use crate::files;
use crate::json::{Json, json};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// More rows than this are not kept.
const MOST: usize = 10_000;

/// Where a file lies.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// `input`, `output`, `temp` or `models`.
    pub(crate) root: &'static str,
    pub(crate) path: PathBuf,
    /// The path below the root, with slashes.
    pub(crate) name: String,
}

/// One row.
#[derive(Clone, Debug)]
pub(crate) struct Asset {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Rows for known bytes have no file of their own.
    pub(crate) place: Option<Place>,
    pub(crate) size: u64,
    pub(crate) hash: Option<String>,
    pub(crate) kind: Option<&'static str>,
    pub(crate) tags: Vec<String>,
    pub(crate) metadata: Json,
    pub(crate) preview: Option<String>,
    pub(crate) picture: Option<(u32, u32)>,
    pub(crate) job: Option<String>,
    pub(crate) created: String,
    pub(crate) updated: String,
    pub(crate) used: String,
}

/// What a scan did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scan {
    pub(crate) total: usize,
    pub(crate) created: usize,
}

/// All rows.
#[derive(Debug, Default)]
pub(crate) struct Assets {
    rows: Vec<Asset>,
    /// The last scan, if there was one.
    pub(crate) scan: Option<Scan>,
}

impl Assets {
    /// Adds rows for the files below a directory that have none yet.
    pub(crate) fn scan(&mut self, root: &'static str, directory: &Path) -> Scan {
        let mut scan = Scan::default();
        for name in crate::userdata::list(directory, true) {
            let place = Place {
                root,
                path: directory.join(&name),
                name,
            };
            scan.total += 1;
            if self.at(&place.path).is_none() {
                scan.created += 1;
                self.add(place, None, &[root], false);
            }
        }
        scan
    }

    /// The row of a file that was just written, made if there is none; `None` when the list is full.
    pub(crate) fn register(
        &mut self,
        place: Place,
        name: Option<&str>,
        tags: &[&str],
    ) -> Option<&mut Asset> {
        let index = match self.rows.iter().position(|row| {
            row.place
                .as_ref()
                .is_some_and(|known| known.path == place.path)
        }) {
            Some(index) => index,
            None => {
                let mut all = tags.to_vec();
                all.push("uploaded");
                self.add(place, name, &all, true);
                self.rows.len().checked_sub(1)?
            }
        };
        self.rows.get_mut(index)
    }

    fn at(&self, path: &Path) -> Option<&Asset> {
        let is_there = |row: &&Asset| row.place.as_ref().is_some_and(|place| place.path == path);
        self.rows.iter().find(is_there)
    }

    fn add(&mut self, place: Place, name: Option<&str>, tags: &[&str], hashed: bool) {
        if self.rows.len() >= MOST {
            return;
        }
        let now = crate::log::stamp();
        let file = place.name.rsplit('/').next().unwrap_or_default();
        let content = hashed.then(|| std::fs::read(&place.path).ok()).flatten();
        let mut tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        tags.sort();
        tags.dedup();
        self.rows.push(Asset {
            id: uuid::Uuid::new_v4().to_string(),
            name: name.unwrap_or(file).to_owned(),
            size: std::fs::metadata(&place.path).map_or(0, |metadata| metadata.len()),
            hash: content.as_deref().map(hash),
            kind: files::kind(&place.path),
            tags,
            metadata: json!({ "filename": place.name }),
            preview: None,
            picture: image::image_dimensions(&place.path).ok(),
            job: None,
            place: Some(place),
            created: now.clone(),
            updated: now.clone(),
            used: now,
        });
    }

    /// A row of its own for bytes that are known already.
    pub(crate) fn copy(&mut self, hash: &str, name: &str, tags: Vec<String>) -> Option<Asset> {
        let known = self.with_hash(hash)?.clone();
        let now = crate::log::stamp();
        let row = Asset {
            id: uuid::Uuid::new_v4().to_string(),
            name: name.to_owned(),
            place: None,
            tags,
            metadata: json!({}),
            preview: None,
            job: None,
            created: now.clone(),
            updated: now.clone(),
            used: now,
            ..known
        };
        if self.rows.len() < MOST {
            self.rows.push(row.clone());
        }
        Some(row)
    }

    pub(crate) fn with_hash(&self, hash: &str) -> Option<&Asset> {
        let fits = |row: &&Asset| row.hash.as_deref() == Some(hash) && row.place.is_some();
        self.rows.iter().find(fits)
    }

    pub(crate) fn rows(&self) -> &[Asset] {
        &self.rows
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Asset> {
        self.rows.iter().find(|row| row.id == id)
    }

    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut Asset> {
        self.rows.iter_mut().find(|row| row.id == id)
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Asset> {
        let index = self.rows.iter().position(|row| row.id == id)?;
        Some(self.rows.remove(index))
    }
}

/// Tags of rows with how often they occur, the most frequent first.
pub(crate) fn count_tags(rows: &[&Asset]) -> Vec<(String, usize)> {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for tag in rows.iter().flat_map(|row| &row.tags) {
        match counts.iter_mut().find(|(known, _)| known == tag) {
            Some((_, count)) => *count += 1,
            None => counts.push((tag.clone(), 1)),
        }
    }
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts
}

/// The name of some bytes.
pub(crate) fn hash(bytes: &[u8]) -> String {
    let mut name = String::from("blake3:");
    for byte in Sha256::digest(bytes) {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

impl Asset {
    /// As it is shown; what is not known is left out.
    pub(crate) fn row(&self) -> Json {
        let mut row = json!({ "id": self.id, "name": self.name });
        let mut set = |name: &str, value: Option<Json>| {
            if let Some(value) = value {
                row.set(name, value);
            }
        };
        let text = |text: &String| Json::from(text.as_str());
        let below = self.place.as_ref().map(|place| text(&place.name));
        set("hash", self.hash.as_ref().map(text));
        set("loader_path", below.clone());
        set("display_name", below);
        set("asset_hash", self.hash.as_ref().map(text));
        set("size", Some(self.size.into()));
        set("mime_type", self.kind.map(Json::from));
        set("tags", Some(self.tags.clone().into()));
        set("preview_url", self.address().map(Json::from));
        set("preview_id", self.preview.as_ref().map(text));
        set("user_metadata", Some(self.metadata.clone()));
        set("is_immutable", Some(false.into()));
        set("metadata", self.about());
        set("job_id", self.job.as_ref().map(text));
        set("prompt_id", self.job.as_ref().map(text));
        set("created_at", Some(text(&self.created)));
        set("updated_at", Some(text(&self.updated)));
        set("last_access_time", Some(text(&self.used)));
        row
    }

    /// What the file itself tells.
    fn about(&self) -> Option<Json> {
        let mut about = json!({});
        if let (Some(_), Some(place)) = (&self.job, &self.place) {
            let ending = place.path.extension()?.to_string_lossy().into_owned();
            about.set("filename", place.name.as_str());
            about.set("content_length", self.size);
            about.set("format", ending);
            about.set("file_path", place.path.to_string_lossy().into_owned());
            about.set("content_type", self.kind?);
        }
        if let Some((width, height)) = self.picture {
            about.set("kind", "image");
            about.set("width", width);
            about.set("height", height);
        }
        (!about.as_object()?.is_empty()).then_some(about)
    }

    /// Where the page finds a picture of it.
    fn address(&self) -> Option<String> {
        let place = self.place.as_ref().filter(|place| place.root != "models")?;
        let shown = ["image/", "video/", "audio/", "text/"];
        if !shown
            .iter()
            .any(|start| self.kind.unwrap_or_default().starts_with(start))
        {
            return None;
        }
        const ESCAPED: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC
            .remove(b'.')
            .remove(b'_')
            .remove(b'-')
            .remove(b'~');
        let (folder, name) = place.name.rsplit_once('/').unwrap_or(("", &place.name));
        let escape = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
        let mut address = format!("/api/view?type={}&filename={}", place.root, escape(name));
        if !folder.is_empty() {
            let _ = write!(address, "&subfolder={}", escape(folder));
        }
        Some(address)
    }
}
