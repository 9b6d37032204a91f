//! Uploads of users who are not admins that do more than they seem to. `POST /api/assets` puts a file
//! among the models or the custom nodes, where it runs at the next start, if its tags say so
//! (comfyui-api.md W5). `POST /upload/mask` copies the picture that it names from anywhere on the
//! machine where a path may begin with a drive or a backslash (R7 on Windows). The form is read and
//! written anew, because ComfyUI's parser can be made to see other fields than ours.

use crate::http::ApiError;
use crate::jobs::System;
use axum::body::Body;
use axum::extract::multipart::Field;
use axum::extract::{FromRequest, Multipart, Request};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderValue, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
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

/// Which of ComfyUI's forms it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UploadForm {
    /// `POST /api/assets`.
    Asset,
    /// `POST /upload/mask`.
    Mask,
}

impl UploadForm {
    /// The field with the file.
    fn file_field(self) -> &'static str {
        match self {
            Self::Asset => "file",
            Self::Mask => "image",
        }
    }

    /// Text fields that ComfyUI knows; others are dropped.
    fn text_fields(self) -> &'static [&'static str] {
        match self {
            Self::Asset => &[
                "hash",
                "id",
                "mime_type",
                "name",
                "preview_id",
                "tags",
                "user_metadata",
            ],
            Self::Mask => &["original_ref", "overwrite", "subfolder", "type"],
        }
    }

    /// What is wrong with a text field.
    fn fault(self, name: &str, text: &str) -> Option<Fault> {
        match (self, name) {
            (Self::Asset, "tags") if !are_harmless(text) => Some(Fault::Place),
            (Self::Mask, "original_ref") => source_fault(text),
            _ => None,
        }
    }
}

/// Why an upload was broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Unreadable,
    Place,
    Source,
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
            Fault::Source => ApiError::new(
                StatusCode::FORBIDDEN,
                "foreign_file",
                "Only pictures of your own input, output and temp folders can be used.",
            ),
        })
    }
}

/// The same upload in our own words. A field that is not allowed breaks the body off, and with it
/// the upload.
pub(super) fn checked(
    request: Request,
    kind: UploadForm,
    tasks: &TaskTracker,
) -> (Request, Verdict) {
    let boundary = format!("sentinel-{}", uuid::Uuid::new_v4().simple());
    let (mut parts, body) = request.into_parts();
    let mut old = Request::new(body);
    *old.headers_mut() = parts.headers.clone();
    for name in [CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    let content_type = format!("multipart/form-data; boundary={boundary}");
    if let Ok(content_type) = HeaderValue::from_str(&content_type) {
        parts.headers.insert(CONTENT_TYPE, content_type);
    }
    let verdict = Verdict::default();
    let (pieces, mut received) = mpsc::channel::<io::Result<Bytes>>(QUEUE);
    let form = Form {
        kind,
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
    kind: UploadForm,
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
        if name == self.kind.file_field() {
            let file = file_parameter(field.file_name().unwrap_or_default());
            self.send(format!(
                "--{}\r\nContent-Disposition: form-data; name=\"{name}\"; {file}\r\n\
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
        if !self.kind.text_fields().contains(&name.as_str()) {
            return Ok(());
        }
        if let Some(fault) = self.kind.fault(&name, &text) {
            return Err(self.refuse(fault));
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

/// ComfyUI refuses two dots and a slash in front by itself, and looks after the subfolder.
fn source_fault(text: &str) -> Option<Fault> {
    let Ok(source) = serde_json::from_str::<Value>(text) else {
        return Some(Fault::Unreadable);
    };
    let name = source["filename"].as_str()?;
    leads_away(name, System::THIS).then_some(Fault::Source)
}

/// Whether the name of a picture names a place of its own.
fn leads_away(name: &str, system: System) -> bool {
    name.starts_with(['/', '\\']) || system.has_drive(name)
}

/// A file name for a header: its last part, without control characters. Where a quote, a backslash or
/// a semicolon might end it for one parser and not for another, it is written without any.
fn file_parameter(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let letters = last.chars().filter(|letter| !letter.is_control());
    let name: String = letters.take(200).collect();
    if name.contains(['"', ';']) {
        let encoded = utf8_percent_encode(&name, NON_ALPHANUMERIC);
        format!("filename*=UTF-8''{encoded}")
    } else {
        format!("filename=\"{name}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn rewritten(kind: UploadForm, body: &str) -> (Option<String>, Option<Fault>) {
        let request = Request::builder()
            .header(CONTENT_TYPE, "multipart/form-data; boundary=x")
            .body(Body::from(body.to_owned()))
            .unwrap();
        let (request, verdict) = checked(request, kind, &TaskTracker::new());
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
            let answer = rewritten(UploadForm::Asset, &body).await;
            assert_eq!(answer, (None, Some(Fault::Place)), "{tags}");
        }
        let late = part("name=\"tags\"", "input")
            + &part("name=\"file\"; filename=\"a.py\"", "code")
            + &part("name=\"tags\"", "models")
            + "--x--\r\n";
        let answer = rewritten(UploadForm::Asset, &late).await;
        assert_eq!(answer, (None, Some(Fault::Place)));
    }

    #[tokio::test]
    async fn w2_the_form_is_written_anew() {
        let body = part("name=\"tags\"", "input,holiday")
            + &part("name=\"other\"", "dropped")
            + &part("name=\"file\"; filename=\"../a\\\"b.png\"", "bytes")
            + "--x--\r\n";
        let (text, fault) = rewritten(UploadForm::Asset, &body).await;
        let text = text.unwrap();
        assert_eq!(fault, None);
        assert!(
            text.contains("name=\"tags\"\r\n\r\ninput,holiday\r\n"),
            "{text}"
        );
        assert!(text.contains("bytes"), "{text}");
        assert!(!text.contains("dropped") && !text.contains(".."), "{text}");
        let (text, fault) = rewritten(UploadForm::Asset, "--x\r\nno form").await;
        assert_eq!((text, fault), (None, Some(Fault::Unreadable)));
    }

    #[tokio::test]
    async fn a_name_with_quotes_arrives_as_it_is_and_ends_no_header() {
        for (header, expected) in [
            (r#"filename="it\"s.png""#, "filename*=UTF-8''it%22s%2Epng"),
            (r#"filename="a;b.png""#, "filename*=UTF-8''a%3Bb%2Epng"),
            (
                r#"filename="a\"; filename=\"b.png""#,
                "filename*=UTF-8''a%22%3B%20filename%3D%22b%2Epng",
            ),
            (
                r#"filename="mom's (1) [b] 100%.png""#,
                r#"filename="mom's (1) [b] 100%.png""#,
            ),
            (r#"filename="C:/a/ä.png""#, r#"filename="ä.png""#),
        ] {
            let body = part("name=\"tags\"", "input")
                + &part(&format!("name=\"file\"; {header}"), "bytes")
                + "--x--\r\n";
            let (text, fault) = rewritten(UploadForm::Asset, &body).await;
            let text = text.unwrap();
            assert_eq!(fault, None);
            assert!(
                text.contains(&format!("name=\"file\"; {expected}\r\n")),
                "{header}: {text}"
            );
        }
    }

    #[test]
    fn r7_a_drive_counts_where_there_are_drives() {
        for name in ["c:a.png", r"C:\Users\anna\a.png"] {
            assert!(leads_away(name, System::Windows), "{name}");
            assert!(!leads_away(name, System::Unix), "{name}");
        }
        assert!(!leads_away("12:30.png", System::Windows));
    }

    #[tokio::test]
    async fn r7_masks_take_no_picture_from_elsewhere() {
        let form = |source: &str| {
            part("name=\"image\"; filename=\"m.png\"", "mask")
                + &part("name=\"original_ref\"", source)
                + "--x--\r\n"
        };
        for name in [
            r"\\\\host\\share\\a.png",
            r"\\a.png",
            r"\u002fa.png",
            "/a.png",
        ] {
            for source in [
                format!(r#"{{"filename":"{name}","type":"output"}}"#),
                format!(r#"{{"filename":"a.png","filename":"{name}"}}"#),
            ] {
                let answer = rewritten(UploadForm::Mask, &form(&source)).await;
                assert_eq!(answer, (None, Some(Fault::Source)), "{source}");
            }
        }
        let answer = rewritten(UploadForm::Mask, &form("{")).await;
        assert_eq!(answer, (None, Some(Fault::Unreadable)));
        for name in ["it's a: b.png [input]", r"sub\\a.png", "ä/b.png"] {
            let source = format!(r#"{{"filename":"{name}","subfolder":"x"}}"#);
            let (text, fault) = rewritten(UploadForm::Mask, &form(&source)).await;
            let text = text.unwrap();
            assert_eq!(fault, None, "{source}");
            assert!(
                text.contains("name=\"image\"; filename=\"m.png\""),
                "{text}"
            );
            assert!(text.contains(&source) && text.contains("mask"), "{text}");
        }
    }
}
