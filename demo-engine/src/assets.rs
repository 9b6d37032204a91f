//! The asset list: rows for files, as a scan finds them. Rows made by a scan belong to nobody and are seen
//! and changed by everybody.

use crate::json::{Json, json};
use std::path::{Path, PathBuf};

/// One row.
#[derive(Clone, Debug)]
pub(crate) struct Asset {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) tags: Vec<String>,
    pub(crate) metadata: Json,
    pub(crate) created: String,
    pub(crate) updated: String,
    pub(crate) used: String,
}

/// All rows.
#[derive(Debug, Default)]
pub(crate) struct Assets {
    rows: Vec<Asset>,
}

impl Assets {
    /// Adds rows for the files below a directory that have none yet.
    pub(crate) fn scan(&mut self, tag: &str, root: &Path) {
        let now = crate::log::stamp();
        for name in crate::userdata::list(root, true) {
            let path = root.join(&name);
            if self.rows.iter().any(|row| row.path == path) {
                continue;
            }
            let mut parts: Vec<&str> = name.split('/').collect();
            let file = parts.pop().unwrap_or_default().to_owned();
            let mut tags = vec![tag.to_owned()];
            tags.extend(parts.into_iter().map(str::to_owned));
            self.rows.push(Asset {
                id: uuid::Uuid::new_v4().to_string(),
                size: std::fs::metadata(&path).map_or(0, |metadata| metadata.len()),
                metadata: json!({ "filename": name }),
                name: file,
                path,
                tags,
                created: now.clone(),
                updated: now.clone(),
                used: now.clone(),
            });
        }
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

    /// Tags with how often they occur, the most frequent first.
    pub(crate) fn tags(&self) -> Vec<(String, usize)> {
        let mut counts: Vec<(String, usize)> = Vec::new();
        for tag in self.rows.iter().flat_map(|row| &row.tags) {
            match counts.iter_mut().find(|(known, _)| known == tag) {
                Some((_, count)) => *count += 1,
                None => counts.push((tag.clone(), 1)),
            }
        }
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        counts
    }
}

impl Asset {
    /// As the list shows it.
    pub(crate) fn row(&self) -> Json {
        json!({
            "id": self.id,
            "name": self.name,
            "size": self.size,
            "tags": self.tags,
            "created_at": self.created,
            "updated_at": self.updated,
            "last_access_time": self.used,
        })
    }

    /// As it shows by itself.
    pub(crate) fn detail(&self) -> Json {
        let mut detail = json!({
            "id": self.id,
            "name": self.name,
            "asset_hash": null,
            "size": self.size,
            "mime_type": null,
            "tags": self.tags,
        });
        detail.set("user_metadata", self.metadata.clone());
        detail.set("preview_id", Json::Null);
        detail.set("created_at", self.created.as_str());
        detail.set("last_access_time", self.used.as_str());
        detail
    }

    /// After a change.
    pub(crate) fn changed(&self) -> Json {
        let mut changed =
            json!({ "id": self.id, "name": self.name, "asset_hash": null, "tags": self.tags });
        changed.set("user_metadata", self.metadata.clone());
        changed.set("updated_at", self.updated.as_str());
        changed
    }
}
