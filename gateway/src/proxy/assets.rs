//! Whose file an asset of ComfyUI's is. Its rows name every model of the machine (by default from 0.38
//! on), and one address streams any of them whole. So a user gets the files of their own folders; models
//! are for admins unless `model_downloads` says otherwise.
//!
//! The address tells an id and the answer no path, so the row is asked for first. A user can change its
//! tags and its name, but not `display_name`, which ComfyUI makes of the file's path: where there is one,
//! a file of this name and size has to lie in the user's own folders.

use super::Way;
use crate::engine::Places;
use crate::engine::client::{ClientError, asset_row};
use crate::http::{ApiError, chain};
use crate::store::AuditEvent;
use http::StatusCode;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Component, Path};

/// What a row says of its file.
#[derive(Debug, Default, Deserialize)]
struct Row {
    #[serde(default)]
    tags: Vec<String>,
    /// Path below input, output, temp or models.
    display_name: Option<String>,
    size: Option<u64>,
    /// Rows have it always since they have a `display_name` if their file lies in a known folder.
    updated_at: Option<String>,
}

/// What follows from the row alone.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Model,
    Own,
    /// If such a file lies in the user's own folders.
    OwnIf {
        name: String,
        size: u64,
    },
}

/// Refuses a user the file of an asset that is no file of their own.
pub(super) async fn judge(way: &Way<'_>, address: SocketAddr, id: &str) -> Result<(), ApiError> {
    let app = way.app;
    let Ok(id) = uuid::Uuid::parse_str(id) else {
        // ComfyUI has no such address.
        return Err(ApiError::not_found());
    };
    if app.config.current().model_downloads {
        return Ok(());
    }
    let user = &way.signed_in.account;
    let row: Row = match asset_row(address, &id.to_string()).await {
        Ok(answer) => serde_json::from_slice(&answer).unwrap_or_default(),
        // It says the same to the user.
        Err(ClientError::Refused(StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE)) => {
            return Ok(());
        }
        Err(error) => {
            tracing::warn!(error = %chain(&error), "ComfyUI did not tell what an asset is");
            return Err(ApiError::new(
                StatusCode::BAD_GATEWAY,
                "engine_unreachable",
                "ComfyUI did not answer. It may just be restarting.",
            )
            .retry_after(2));
        }
    };
    let is_own = match verdict(row) {
        Verdict::Model => false,
        Verdict::Own => true,
        Verdict::OwnIf { name, size } => match app.engines.places_of(&user.id) {
            Some(places) => lies_in(&places, &name, size).await,
            // Somebody else's ComfyUI, whose folders are not known.
            None => true,
        },
    };
    if is_own {
        return Ok(());
    }
    app.audit(
        AuditEvent::Refused,
        Some(&user.username),
        Some(way.context.caller.address),
        Some(&format!("/api/assets/{id}/content")),
    );
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "admin_required",
        "Only an admin may download models. An admin can allow it to everybody in the settings (model_downloads).",
    ))
}

fn verdict(row: Row) -> Verdict {
    let is_model = |tag: &String| {
        let tag = tag.to_lowercase();
        tag == "models" || tag.starts_with("model_type:")
    };
    if row.tags.iter().any(is_model) {
        return Verdict::Model;
    }
    match (row.display_name, row.size) {
        (Some(name), Some(size)) => Verdict::OwnIf { name, size },
        // In none of the known folders: a model of `extra_model_paths.yaml`.
        (None, _) if row.updated_at.is_some() => Verdict::Model,
        (Some(_), None) => Verdict::Model,
        // 0.12 tells no more.
        (None, _) if !row.tags.is_empty() => Verdict::Own,
        (None, _) => Verdict::Model,
    }
}

/// Whether a file of this name and size lies in one of these folders.
async fn lies_in(places: &Places, name: &str, size: u64) -> bool {
    let name = Path::new(name);
    if !name
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        return false;
    }
    for folder in [&places.input, &places.output, &places.temp] {
        let metadata = tokio::fs::metadata(folder.join(name)).await;
        if metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() == size) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Row {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a5_what_a_row_tells() {
        let own_if = |name: &str, size| Verdict::OwnIf {
            name: name.to_owned(),
            size,
        };
        let table = [
            (r#"{"tags":["models","checkpoints"]}"#, Verdict::Model),
            (r#"{"tags":["x","Model_Type:vae"]}"#, Verdict::Model),
            (
                r#"{"tags":["input"],"display_name":"a/b.png","size":5,"updated_at":"x"}"#,
                own_if("a/b.png", 5),
            ),
            // Its tags were taken off.
            (
                r#"{"tags":[],"display_name":"checkpoints/a","size":5,"updated_at":"x"}"#,
                own_if("checkpoints/a", 5),
            ),
            (
                r#"{"tags":["input"],"size":5,"updated_at":"x"}"#,
                Verdict::Model,
            ),
            (r#"{"tags":["input"],"size":5}"#, Verdict::Own),
            (r#"{"size":5}"#, Verdict::Model),
            ("{}", Verdict::Model),
        ];
        for (text, expected) in table {
            assert_eq!(verdict(row(text)), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a5_a_file_is_own_where_it_lies() {
        let place = tempfile::tempdir().unwrap();
        let folder = |name: &str| place.path().join(name);
        let places = Places {
            input: folder("input"),
            output: folder("output"),
            temp: folder("temp"),
            user: folder("user"),
        };
        std::fs::create_dir_all(folder("output/sub")).unwrap();
        std::fs::write(folder("output/sub/a.png"), "12345").unwrap();
        std::fs::write(folder("secret"), "12345").unwrap();
        for (name, size, expected) in [
            ("sub/a.png", 5, true),
            ("sub/a.png", 6, false),
            ("a.png", 5, false),
            ("../secret", 5, false),
            ("sub", 5, false),
        ] {
            assert_eq!(lies_in(&places, name, size).await, expected, "{name}");
        }
    }
}
