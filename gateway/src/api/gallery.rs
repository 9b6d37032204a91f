//! Everybody's own pictures, videos and sounds.

use super::{Answer, Body, Done};
use crate::access::origins::Origins;
use crate::app::App;
use crate::auth::SignedIn;
use crate::clock::rfc3339;
use crate::gallery::{
    Cursor, GalleryError, Item, MAX_DELETED, MediaKind, OutputDirectory, RelativePath, Wanted,
    has_thumbnail, shown_as,
};
use crate::http::{ApiError, RequestContext, file};
use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Items of a page, if not said.
const PAGE: usize = 60;
/// Items of a page at most.
const MAX_PAGE: usize = 500;
/// Nothing of it may run, and nothing else may show it.
const POLICY: &str = "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; \
    frame-ancestors 'none'";
/// RFC 8187: what stands as it is in `filename*`.
const ATTRIBUTE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');
/// What stands as it is in a query.
const QUERY: &AsciiSet = &ATTRIBUTE.remove(b'/');

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct ListQuery {
    /// At most so many, 60 if not said.
    limit: Option<usize>,
    /// `next` of the page before.
    before: Option<String>,
    /// `image`, `video`, `audio` or `other` alone.
    #[param(value_type = Option<String>)]
    kind: Option<MediaKind>,
}

/// A file in the gallery.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ItemView {
    /// Below the output directory.
    path: String,
    name: String,
    folder: String,
    kind: MediaKind,
    bytes: u64,
    modified_at: String,
    /// Address of the file.
    view: String,
    /// Address of a small picture.
    thumbnail: Option<String>,
}

impl ItemView {
    fn of(item: &Item, origins: &Origins) -> Self {
        let path = item.path();
        let query = utf8_percent_encode(path.as_str(), QUERY);
        let modified = item.modified();
        Self {
            path: path.to_string(),
            name: path.name().to_owned(),
            folder: path.folder().to_owned(),
            kind: item.kind,
            bytes: item.bytes,
            modified_at: rfc3339(i64::try_from(modified / 1_000_000_000).unwrap_or_default()),
            view: origins.address(&format!("/sentinel/api/gallery/file?path={query}")),
            // Another picture under the same name has another address.
            thumbnail: has_thumbnail(item).then(|| {
                let address =
                    format!("/sentinel/api/gallery/thumbnail?path={query}&v={modified:x}");
                origins.address(&address)
            }),
        }
    }
}

/// A page of the gallery.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GalleryView {
    /// Newest first.
    items: Vec<ItemView>,
    /// Value for `before` to get the next page.
    next: Option<String>,
    /// Of all files, also those of other pages and kinds.
    total_bytes: u64,
    /// False when there are more files than Sentinel looks through.
    complete: bool,
}

/// The output directory that somebody may see.
fn directory(app: &App, signed_in: &SignedIn) -> Result<PathBuf, ApiError> {
    if !app.engines.is_separate() && !signed_in.has_admin_rights() {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "shared_engine",
            "All users share one ComfyUI, so nobody has pictures of his own. An admin can give everybody one of his own.",
        ));
    }
    match app.output_directory(&signed_in.account.id) {
        OutputDirectory::Own(path) | OutputDirectory::Shared(path) => Ok(path),
        OutputDirectory::Unknown => Err(ApiError::new(
            StatusCode::CONFLICT,
            "output_unknown",
            "Sentinel learns where ComfyUI puts its pictures when it starts ComfyUI. Please start it once.",
        )),
    }
}

fn path(text: Option<&str>) -> Result<RelativePath, ApiError> {
    let text = text.ok_or_else(|| ApiError::missing_field("path"))?;
    Ok(RelativePath::parse(text)?)
}

/// Own pictures, videos and sounds, newest first. Admins see the shared directory where there is one
/// ComfyUI for all.
#[utoipa::path(get, path = "/gallery", tag = "gallery", params(ListQuery),
    responses((status = 200, body = GalleryView), (status = 400), (status = 409)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    context: RequestContext,
    signed_in: SignedIn,
    Query(query): Query<ListQuery>,
) -> Answer<GalleryView> {
    let directory = directory(&app, &signed_in)?;
    let before = query
        .before
        .map(|text| {
            Cursor::parse(&text).ok_or_else(|| {
                ApiError::new(
                    StatusCode::BAD_REQUEST,
                    "bad_cursor",
                    "This page is not known.",
                )
            })
        })
        .transpose()?;
    let wanted = Wanted {
        limit: query.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE),
        before,
        kind: query.kind,
    };
    let user = &signed_in.account.id;
    let page = app.gallery.page(user, directory, wanted).await?;
    Ok(Json(GalleryView {
        items: page
            .items
            .iter()
            .map(|item| ItemView::of(item, &context.origins))
            .collect(),
        next: page.next.map(|cursor| cursor.text()),
        total_bytes: page.total_bytes,
        complete: page.is_complete,
    }))
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct FileQuery {
    /// As the list names it.
    path: Option<String>,
    /// 1: to be saved rather than shown.
    download: Option<String>,
}

/// A file, whole or in parts. Types that could run script are only ever downloaded.
#[utoipa::path(get, path = "/gallery/file", tag = "gallery", params(FileQuery),
    responses((status = 200), (status = 206), (status = 304), (status = 400), (status = 404), (status = 409), (status = 416)))]
pub(crate) async fn file(
    State(app): State<Arc<App>>,
    signed_in: SignedIn,
    Query(query): Query<FileQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let directory = directory(&app, &signed_in)?;
    let path = path(query.path.as_deref())?;
    let user = &signed_in.account.id;
    let opened = app.gallery.open(user, directory, path.clone()).await?;
    let mut response = file::answer(&headers, opened.file, opened.bytes, opened.modified)
        .await
        .map_err(GalleryError::from)?;
    let shown =
        shown_as(&path).filter(|_| !matches!(query.download.as_deref(), Some("1" | "true")));
    let how = if shown.is_some() {
        "inline"
    } else {
        "attachment"
    };
    let headers = response.headers_mut();
    if let Ok(disposition) = HeaderValue::from_str(&format!(
        "{how}; filename*=UTF-8''{}",
        utf8_percent_encode(path.name(), ATTRIBUTE)
    )) {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    protect(headers, shown.unwrap_or("application/octet-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

/// Headers of all that users' engines have made.
fn protect(headers: &mut HeaderMap, content_type: &'static str) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
    ] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct ThumbnailQuery {
    /// As the list names it.
    path: Option<String>,
}

/// A small picture of a picture, at most 320 points wide and high.
#[utoipa::path(get, path = "/gallery/thumbnail", tag = "gallery", params(ThumbnailQuery),
    responses((status = 200), (status = 304), (status = 400), (status = 404), (status = 409), (status = 503)))]
pub(crate) async fn thumbnail(
    State(app): State<Arc<App>>,
    signed_in: SignedIn,
    Query(query): Query<ThumbnailQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let directory = directory(&app, &signed_in)?;
    let path = path(query.path.as_deref())?;
    let user = &signed_in.account.id;
    let thumbnail = app.gallery.thumbnail(user, directory, path).await?;
    let tag = format!("\"{}\"", thumbnail.tag);
    let content_type = thumbnail.content_type();
    let mut response = if file::names_tag(&headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        thumbnail.bytes.into_response()
    };
    let headers = response.headers_mut();
    protect(headers, content_type);
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=86400"),
    );
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    Ok(response)
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct Delete {
    /// As the list names them.
    paths: Vec<String>,
}

/// Deletes own files; none when one of them is not there.
#[utoipa::path(delete, path = "/gallery", tag = "gallery", request_body = Delete,
    responses((status = 204), (status = 400), (status = 404), (status = 409)))]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    signed_in: SignedIn,
    Body(body): Body<Delete>,
) -> Done {
    let directory = directory(&app, &signed_in)?;
    if body.paths.len() > MAX_DELETED {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "too_many",
            format!("At most {MAX_DELETED} files can be deleted at once."),
        ));
    }
    let paths = body
        .paths
        .iter()
        .map(|text| path(Some(text)))
        .collect::<Result<Vec<_>, _>>()?;
    let user = &signed_in.account.id;
    app.gallery.delete(user, directory, paths).await?;
    Ok(StatusCode::NO_CONTENT)
}
