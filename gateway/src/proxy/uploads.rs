//! `POST /api/assets` of users who are not admins: ComfyUI puts such a file among the models or the
//! custom nodes, where it runs at the next start, if its tags say so (comfyui-api.md W5). The form
//! is read and written anew, because ComfyUI's parser can be made to see other fields than ours.

use crate::http::ApiError;
use axum::body::Body;
use axum::extract::multipart::Field;
use axum::extract::{FromRequest, Multipart, Request};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderValue, StatusCode};
use std::io;
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// Longest text field, bytes.
const MAX_TEXT: usize = 256 * 1024;
/// Fields of one form.
const MAX_FIELDS: usize = 32;
/// Pieces between reading and writing.
const QUEUE: usize = 4;
/// Text fields that ComfyUI knows; others are dropped.
const TEXT_FIELDS: [&str; 7] = [
    "hash",
    "id",
    "mime_type",
    "name",
    "preview_id",
    "tags",
    "user_metadata",
];

/// Why an upload was broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Unreadable,
    Place,
}

/// What became of the form; known once its engine has answered or the body broke off.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict(Arc<OnceLock<Fault>>);

impl Verdict {
    /// The refusal, if there was one.
    pub(super) fn refusal(&self) -> Option<ApiError> {
        Some(match self.0.get()? {
            Fault::Unreadable => ApiError::new(
                StatusCode::BAD_REQUEST,
                "bad_body",
                "The form cannot be read.",
            ),
            Fault::Place => ApiError::new(
                StatusCode::FORBIDDEN,
                "admin_required",
                "Only admins may add models or code. Choose input or output.",
            ),
        })
    }
}

/// The same upload in our own words. A field that is not allowed breaks the body off, and with it
/// the upload.
pub(super) fn checked(request: Request, tasks: &TaskTracker) -> (Request, Verdict) {
    let boundary = format!("sentinel-{}", uuid::Uuid::new_v4().simple());
    let (mut parts, body) = request.into_parts();
    let mut old = Request::new(body);
    *old.headers_mut() = parts.headers.clone();
    for name in [CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    let kind = format!("multipart/form-data; boundary={boundary}");
    if let Ok(kind) = HeaderValue::from_str(&kind) {
        parts.headers.insert(CONTENT_TYPE, kind);
    }
    let verdict = Verdict::default();
    let (pieces, mut received) = mpsc::channel::<io::Result<Bytes>>(QUEUE);
    let form = Form {
        boundary,
        pieces,
        verdict: verdict.clone(),
    };
    // Ends with the old body, or when nobody takes the new one any more.
    tasks.spawn(form.rewrite(old));
    let body = Body::from_stream(futures_util::stream::poll_fn(move |context| {
        received.poll_recv(context)
    }));
    (Request::from_parts(parts, body), verdict)
}

/// The form that is being written.
struct Form {
    boundary: String,
    pieces: mpsc::Sender<io::Result<Bytes>>,
    verdict: Verdict,
}

/// Nobody takes the new body any more, or the old one is refused.
struct Ended;

impl Form {
    async fn rewrite(self, old: Request) {
        if self.write_all(old).await.is_err() {
            let _ = self
                .pieces
                .send(Err(io::ErrorKind::InvalidData.into()))
                .await;
        }
    }

    async fn write_all(&self, old: Request) -> Result<(), Ended> {
        let is_encoded = old
            .headers()
            .get_all(CONTENT_ENCODING)
            .iter()
            .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
        if is_encoded {
            return Err(self.refuse(Fault::Unreadable));
        }
        let mut form = Multipart::from_request(old, &())
            .await
            .map_err(|_| self.refuse(Fault::Unreadable))?;
        for _ in 0..MAX_FIELDS {
            let field = form
                .next_field()
                .await
                .map_err(|_| self.refuse(Fault::Unreadable))?;
            match field {
                Some(field) => self.write(field).await?,
                None => return self.send(format!("--{}--\r\n", self.boundary)).await,
            }
        }
        Err(self.refuse(Fault::Unreadable))
    }

    async fn write(&self, mut field: Field<'_>) -> Result<(), Ended> {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            let file = plain_name(field.file_name().unwrap_or_default());
            self.send(format!(
                "--{}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{file}\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n",
                self.boundary
            ))
            .await?;
            while let Some(piece) = self.next(&mut field).await? {
                self.pieces.send(Ok(piece)).await.map_err(|_| Ended)?;
            }
            return self.send("\r\n".to_owned()).await;
        }
        let mut text = Vec::new();
        while let Some(piece) = self.next(&mut field).await? {
            if text.len() + piece.len() > MAX_TEXT {
                return Err(self.refuse(Fault::Unreadable));
            }
            text.extend_from_slice(&piece);
        }
        let text = String::from_utf8(text).map_err(|_| self.refuse(Fault::Unreadable))?;
        if !TEXT_FIELDS.contains(&name.as_str()) {
            return Ok(());
        }
        if name == "tags" && !are_harmless(&text) {
            return Err(self.refuse(Fault::Place));
        }
        self.send(format!(
            "--{}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n",
            self.boundary
        ))
        .await
    }

    async fn next(&self, field: &mut Field<'_>) -> Result<Option<Bytes>, Ended> {
        field
            .chunk()
            .await
            .map_err(|_| self.refuse(Fault::Unreadable))
    }

    async fn send(&self, text: String) -> Result<(), Ended> {
        self.pieces
            .send(Ok(Bytes::from(text)))
            .await
            .map_err(|_| Ended)
    }

    fn refuse(&self, fault: Fault) -> Ended {
        let _ = self.verdict.0.set(fault);
        Ended
    }
}

/// Whether tags, as one word, a list with commas or a JSON list, name no place but the user's own.
fn are_harmless(text: &str) -> bool {
    let is_plain = !text.contains(['\\', '/']) && !text.chars().any(char::is_control);
    is_plain
        && text
            .split([',', '[', ']', '"', '\''])
            .map(|tag| tag.trim().to_lowercase())
            .all(|tag| {
                !matches!(
                    tag.as_str(),
                    "models" | "custom_nodes" | "temp" | "." | ".."
                )
            })
}

/// A file name that ends no header: its last part, without quotes and control characters.
fn plain_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let is_legal = |letter: &char| !letter.is_control() && !matches!(letter, '"' | '\\');
    last.chars().filter(is_legal).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn rewritten(body: &str) -> (Option<String>, Option<Fault>) {
        let request = Request::builder()
            .header(CONTENT_TYPE, "multipart/form-data; boundary=x")
            .body(Body::from(body.to_owned()))
            .unwrap();
        let (request, verdict) = checked(request, &TaskTracker::new());
        let body = request.into_body().collect().await.ok();
        let text = body.map(|body| String::from_utf8(body.to_bytes().to_vec()).unwrap());
        (text, verdict.0.get().copied())
    }

    fn part(header: &str, value: &str) -> String {
        format!("--x\r\nContent-Disposition: form-data; {header}\r\n\r\n{value}\r\n")
    }

    #[tokio::test]
    async fn w5_uploads_into_models_break_off() {
        for tags in [
            "models",
            "models,loras",
            "[\"models\",\"custom_nodes\"]",
            " Models ",
            "[\"\\u006dodels\"]",
            "input/../models",
            "custom_nodes",
        ] {
            let body = part("name=\"tags\"", tags)
                + &part("name=\"file\"; filename=\"a.py\"", "code")
                + "--x--\r\n";
            assert_eq!(rewritten(&body).await, (None, Some(Fault::Place)), "{tags}");
        }
        let late = part("name=\"tags\"", "input")
            + &part("name=\"file\"; filename=\"a.py\"", "code")
            + &part("name=\"tags\"", "models")
            + "--x--\r\n";
        assert_eq!(rewritten(&late).await, (None, Some(Fault::Place)));
    }

    #[tokio::test]
    async fn w2_the_form_is_written_anew() {
        let body = part("name=\"tags\"", "input,holiday")
            + &part("name=\"other\"", "dropped")
            + &part("name=\"file\"; filename=\"../a\\\"b.png\"", "bytes")
            + "--x--\r\n";
        let (text, fault) = rewritten(&body).await;
        let text = text.unwrap();
        assert_eq!(fault, None);
        assert!(
            text.contains("name=\"tags\"\r\n\r\ninput,holiday\r\n"),
            "{text}"
        );
        assert!(text.contains("bytes"), "{text}");
        assert!(!text.contains("dropped") && !text.contains(".."), "{text}");
        let (text, fault) = rewritten("--x\r\nno form").await;
        assert_eq!((text, fault), (None, Some(Fault::Unreadable)));
    }
}
