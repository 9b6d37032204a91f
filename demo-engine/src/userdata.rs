//! Who the users are and where their files lie.

use crate::files;
use crate::json::{Json, json};
use http::HeaderMap;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use std::path::{Path, PathBuf};

const SETTINGS: &str = "comfy.settings.json";
/// Ids that begin so are the system's own.
pub(crate) const SYSTEM: &str = "__";

/// The users.
#[derive(Debug)]
pub(crate) struct Users {
    directory: PathBuf,
    multi: bool,
    /// Id and name, in the order they came.
    known: Mutex<Vec<(String, String)>>,
}

/// The caller is nobody this engine knows.
#[derive(Debug)]
pub(crate) struct UnknownUser;

impl Users {
    pub(crate) fn new(directory: &Path, multi: bool) -> Self {
        let known = if multi {
            let text = std::fs::read_to_string(directory.join("users.json")).unwrap_or_default();
            let read = Json::parse(&text).unwrap_or(Json::Null);
            let entries = read.as_object().unwrap_or_default();
            entries
                .iter()
                .map(|(id, name)| (id.clone(), name.python_text()))
                .collect()
        } else {
            vec![("default".to_owned(), "default".to_owned())]
        };
        Self {
            directory: directory.to_owned(),
            multi,
            known: Mutex::new(known),
        }
    }

    /// The id that a request claims; there is no secret in it.
    pub(crate) fn of(&self, headers: &HeaderMap) -> Result<String, UnknownUser> {
        if !self.multi {
            return Ok("default".to_owned());
        }
        let claimed = headers
            .get("comfy-user")
            .and_then(|value| value.to_str().ok())
            .unwrap_or("default");
        let known = self.known.lock().iter().any(|(id, _)| id == claimed);
        if known && !claimed.starts_with(SYSTEM) {
            Ok(claimed.to_owned())
        } else {
            Err(UnknownUser)
        }
    }

    /// As `/users` shows them.
    pub(crate) fn shown(&self) -> Json {
        if !self.multi {
            return json!({ "storage": "server", "migrated": self.directory.join("default").exists() });
        }
        let mut shown = json!({ "storage": "server" });
        let known = self.known.lock();
        shown.set(
            "users",
            Json::Object(
                known
                    .iter()
                    .map(|(id, name)| (id.clone(), name.as_str().into()))
                    .collect(),
            ),
        );
        shown
    }

    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.known.lock().iter().any(|(_, known)| known == name)
    }

    /// Makes a profile and gives its id.
    pub(crate) fn add(&self, name: &str) -> std::io::Result<String> {
        let clean: String = name
            .chars()
            .map(|character| {
                if character.is_ascii_alphanumeric() || "-_".contains(character) {
                    character
                } else {
                    '-'
                }
            })
            .collect();
        let id = format!("{clean}_{}", uuid::Uuid::new_v4());
        let mut known = self.known.lock();
        known.push((id.clone(), name.to_owned()));
        let all = Json::Object(
            known
                .iter()
                .map(|(id, name)| (id.clone(), name.as_str().into()))
                .collect(),
        );
        std::fs::create_dir_all(&self.directory)?;
        std::fs::write(self.directory.join("users.json"), all.dump())?;
        Ok(id)
    }

    pub(crate) fn root(&self, user: &str) -> PathBuf {
        self.directory.join(user)
    }

    /// Where a user's file lies; `None` outside the user's own directory. The directory above it is made,
    /// even for a request that only reads.
    pub(crate) fn file(&self, user: &str, name: &str) -> Option<PathBuf> {
        let root = self.root(user);
        let name = if name.contains('%') {
            percent_decode_str(name).decode_utf8_lossy().into_owned()
        } else {
            name.to_owned()
        };
        let path = files::join(&root, &name);
        if !path.starts_with(&root) {
            return None;
        }
        if let Some(parent) = path.parent() {
            let _ = std::fs::create_dir_all(parent);
        }
        Some(path)
    }

    pub(crate) fn settings(&self, user: &str) -> Json {
        let text = std::fs::read_to_string(self.root(user).join(SETTINGS)).unwrap_or_default();
        Json::parse(&text)
            .ok()
            .filter(|settings| settings.as_object().is_some())
            .unwrap_or_else(|| json!({}))
    }

    pub(crate) fn save_settings(&self, user: &str, settings: &Json) -> std::io::Result<()> {
        std::fs::create_dir_all(self.root(user))?;
        std::fs::write(self.root(user).join(SETTINGS), settings.dump())
    }
}

/// Size and times of a file, as the lists show them.
pub(crate) fn information(path: &Path, shown: &str) -> Json {
    let metadata = std::fs::metadata(path).ok();
    let mut information = json!({ "path": shown });
    information.set("size", metadata.as_ref().map_or(0, std::fs::Metadata::len));
    let milliseconds = |time| (files::seconds(time) * 1000.0) as u64;
    let modified = metadata
        .as_ref()
        .map_or(0, |metadata| milliseconds(metadata.modified()));
    let created = metadata
        .as_ref()
        .map_or(modified, |metadata| milliseconds(metadata.created()));
    information.set("modified", modified);
    information.set("created", created);
    information
}

/// Files below a directory as relative names, hidden ones left out as Python's `glob` does.
pub(crate) fn list(directory: &Path, recurse: bool) -> Vec<String> {
    let mut found = Vec::new();
    collect(directory, "", recurse, &mut found);
    found
}

fn collect(directory: &Path, prefix: &str, recurse: bool, found: &mut Vec<String>) {
    let mut entries: Vec<_> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut below = Vec::new();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let shown = format!("{prefix}{name}");
        if entry.path().is_dir() {
            below.push((entry.path(), shown));
        } else {
            found.push(shown);
        }
    }
    if recurse {
        for (path, shown) in below {
            collect(&path, &format!("{shown}/"), true, found);
        }
    }
}

/// Everything below a directory, for `/v2/userdata`: directories first, each kind by its name.
pub(crate) fn tree(root: &Path, directory: &Path) -> Vec<Json> {
    let mut found = Vec::new();
    walk(root, directory, &mut found);
    found.sort_by_key(|(is_file, name, _)| (*is_file, name.to_lowercase()));
    found.into_iter().map(|(_, _, entry)| entry).collect()
}

fn walk(root: &Path, directory: &Path, found: &mut Vec<(bool, String, Json)>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let shown = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            let entry = json!({ "name": name, "path": shown, "type": "directory" });
            found.push((false, name, entry));
            walk(root, &path, found);
        } else {
            let mut entry = json!({ "name": name, "path": shown, "type": "file" });
            let metadata = std::fs::metadata(&path).ok();
            entry.set("size", metadata.as_ref().map_or(0, std::fs::Metadata::len));
            entry.set(
                "modified",
                metadata.map_or(0.0, |metadata| files::seconds(metadata.modified())),
            );
            found.push((true, name, entry));
        }
    }
}
