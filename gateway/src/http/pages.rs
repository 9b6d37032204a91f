//! Our own pages and their files, embedded in the binary.

use super::context::RequestContext;
use super::error::ApiError;
use crate::access::origins::Site;
use crate::app::App;
use crate::auth::SignedIn;
use crate::supervisor::EngineState;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, RETRY_AFTER,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rust_embed::RustEmbed;
use serde_json::{Value, json};
use std::borrow::Cow;

#[derive(RustEmbed)]
#[folder = "../ui/dist"]
#[allow_missing = true]
struct Files;

const STATE_MARK: &str = "<!--sentinel:state-->";
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
    font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// Seconds after which an API client should ask again while an engine starts.
const RETRY_SECONDS: u64 = 2;
/// Marks answers of ours whose JSON may be shown as a page.
const MAX_EXPLAINED: usize = 16 * 1024;
const QUERY_VALUE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b'<')
    .add(b'>');

/// What the window shows: a file of the pages by its path below `/sentinel/`, as it is served over
/// the network; the management app's page with what it is told about itself.
pub fn file_of_window(path: &str) -> Option<Cow<'static, [u8]>> {
    let file = Files::get(path)?;
    if path != "index.html" {
        return Some(file.data);
    }
    let state = json!({ "page": "management", "version": env!("CARGO_PKG_VERSION") });
    Some(Cow::Owned(with_state(&file.data, &state).into_bytes()))
}

/// A page of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    Login,
    Register,
    GenerateToken,
    Join,
    Trust,
    Account,
    Gallery,
}

impl Page {
    fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Register => "register",
            Self::GenerateToken => "generate_token",
            Self::Join => "join",
            Self::Trust => "trust",
            Self::Account => "account",
            Self::Gallery => "gallery",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Login | Self::Register | Self::GenerateToken | Self::Join | Self::Trust => {
                "sign-in.html"
            }
            Self::Account => "account.html",
            Self::Gallery => "gallery.html",
        }
    }
}

/// Addresses a link elsewhere may lead to: reading them changes nothing.
pub(crate) fn may_be_visited_from_elsewhere(path: &str) -> bool {
    matches!(
        path,
        "/" | "/login"
            | "/register"
            | "/generate_token"
            | "/sentinel/"
            | "/sentinel/account"
            | "/sentinel/gallery"
            | "/join"
            | "/trust"
    )
}

/// Whether a path without a session is answered by the sign-in page: ComfyUI's page and ours; and,
/// when the browser itself says that a person goes there, a picture to which a link leads and a
/// custom node's page. All else is for programs.
pub(crate) fn is_page(path: &str, is_navigation: bool) -> bool {
    matches!(
        path,
        "/" | "/index.html" | "/sentinel/" | "/sentinel/account" | "/sentinel/gallery"
    ) || is_navigation
        && (matches!(path, "/view" | "/api/view") || crate::proxy::is_of_custom_node(path))
}

/// Whether a path is one of our files, which are public and the same for all.
pub(super) fn is_asset(path: &str) -> bool {
    path.starts_with("/sentinel/assets/")
}

/// What plain HTTP is still told when HTTPS is forced: how to trust our certificate.
pub(super) fn is_told_in_clear(method: &Method, uri: &Uri) -> bool {
    let path = uri.path();
    matches!(*method, Method::GET | Method::HEAD)
        // Another spelling may mean another path.
        && matches!(crate::proxy::normalise(uri), Ok(None))
        && (matches!(path, "/trust" | "/trust/certificate.crt")
            || is_asset(path))
}

/// Shows a page.
pub(crate) fn show(
    app: &App,
    page: Page,
    context: &RequestContext,
    signed_in: Option<&SignedIn>,
) -> Response {
    render(
        StatusCode::OK,
        page.file(),
        &state(app, page.name(), context, signed_in),
    )
}

/// Shows a page with one further member of its state.
pub(crate) fn show_with(
    app: &App,
    page: Page,
    context: &RequestContext,
    signed_in: Option<&SignedIn>,
    (name, value): (&str, Value),
) -> Response {
    let mut state = state(app, page.name(), context, signed_in);
    state[name] = value;
    render(StatusCode::OK, page.file(), &state)
}

/// Explains a refusal to a person.
pub(crate) fn message(app: &App, context: &RequestContext, error: &ApiError) -> Response {
    let mut state = state(app, "message", context, None);
    state["message"] = json!({
        "title": error.status().canonical_reason().unwrap_or("Error"),
        "text": error.message(),
        "status": error.status().as_u16(),
    });
    render(error.status(), "sign-in.html", &state)
}

/// Answers while there is no engine to forward to.
pub(crate) fn engine_not_ready(
    app: &App,
    context: &RequestContext,
    signed_in: &SignedIn,
    wants_html: bool,
) -> Response {
    let status = app.engines.status_of(&signed_in.account.id);
    let retry = status
        .retry_in
        .map_or(RETRY_SECONDS, |wait| wait.as_secs().clamp(1, 60));
    let mut response = if wants_html {
        render(
            StatusCode::SERVICE_UNAVAILABLE,
            "waiting.html",
            &state(app, "waiting", context, Some(signed_in)),
        )
    } else {
        let (code, text) = match status.state {
            EngineState::Starting | EngineState::Ready => {
                ("engine_starting", "ComfyUI is starting.")
            }
            EngineState::Stopped | EngineState::Stopping => {
                ("engine_stopped", "ComfyUI is stopped.")
            }
            EngineState::Crashed | EngineState::Failed => {
                ("engine_crashed", "ComfyUI has crashed.")
            }
        };
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, text)
            .with("retry_after", retry)
            .into_response()
    };
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(retry));
    response
}

/// Marks a refusal of ours; ComfyUI's own answers pass as they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal;

/// Whether an answer is a refusal of ours that a person has to read.
pub(crate) fn is_ours_to_explain(response: &Response) -> bool {
    response.status().is_client_error() && response.extensions().get::<Refusal>().is_some()
}

/// Turns a refusal in JSON into a page.
pub(crate) async fn explain(app: &App, context: &RequestContext, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let Ok(bytes) = Limited::new(body, MAX_EXPLAINED).collect().await else {
        return Response::from_parts(parts, Body::empty());
    };
    let bytes = bytes.to_bytes();
    let text = serde_json::from_slice::<Value>(&bytes)
        .ok()
        .and_then(|body| Some(body.get("error")?.as_str()?.to_owned()));
    match text {
        Some(text) => message(app, context, &ApiError::new(parts.status, "refused", text)),
        None => Response::from_parts(parts, Body::from(bytes)),
    }
}

fn state(app: &App, page: &str, context: &RequestContext, signed_in: Option<&SignedIn>) -> Value {
    let awaits_first = app.accounts.awaits_first_account();
    json!({
        "page": page,
        "first_admin": awaits_first,
        "setup_code_required": awaits_first && !context.caller.is_local,
        "user": signed_in.map(|signed_in| json!({
            "username": signed_in.account.username,
            "admin": signed_in.account.admin,
        })),
        "next": null,
        "message": null,
        "invite": null,
        "certificate": null,
        "management": Files::get("index.html").is_some(),
        "version": env!("CARGO_PKG_VERSION"),
        "base": context.origins.before(Site::Management),
    })
}

/// `target?next=…`, so that a visitor comes where he wanted to go.
pub(crate) fn with_next(target: &str, wanted: &Uri) -> String {
    match wanted.path_and_query().map(http::uri::PathAndQuery::as_str) {
        None | Some("/") => target.to_owned(),
        Some(wanted) => format!("{target}?next={}", utf8_percent_encode(wanted, QUERY_VALUE)),
    }
}

fn render(status: StatusCode, file: &str, state: &Value) -> Response {
    let Some(file) = Files::get(file) else {
        let text = "This build of Sentinel lacks its pages. Build ui/ first, then the gateway.";
        return (StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
    };
    let base = state["base"].as_str().unwrap_or_default();
    let html = below(with_state(&file.data, state), base);
    let mut response = (status, html).into_response();
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    protect(headers);
    response
}

fn with_state(page: &[u8], state: &Value) -> String {
    let meta = format!(
        "<meta name=\"sentinel-state\" content=\"{}\">",
        attribute(&state.to_string())
    );
    String::from_utf8_lossy(page).replacen(STATE_MARK, &meta, 1)
}

/// The page with its addresses, which are paths from the root, below a base path.
fn below(page: String, base: &str) -> String {
    if base.is_empty() {
        page
    } else {
        page.replace("=\"/", &format!("=\"{base}/"))
    }
}

/// Headers of everything that is ours.
pub(crate) fn protect(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        HeaderName::from_static("x-frame-options"),
        HeaderValue::from_static("DENY"),
    );
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
}

pub(super) fn attribute(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '"', '<', '>', '\'']) {
        return Cow::Borrowed(text);
    }
    let escaped = text
        .replace('&', "&amp;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;");
    Cow::Owned(escaped.replace('<', "&lt;").replace('>', "&gt;"))
}

/// `GET /sentinel/assets/{*path}`.
pub(crate) async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    use http::header::{ETAG, IF_NONE_MATCH};
    let Some(file) = Files::get(&format!("assets/{path}")) else {
        return ApiError::not_found().into_response();
    };
    let tag = file
        .metadata
        .sha256_hash()
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    let tag = format!("\"{tag}\"");
    // Names with a hash never change their content; the overlay's name is fixed.
    let caching = if path == "overlay.js" {
        "no-cache"
    } else {
        "public, max-age=31536000, immutable"
    };
    let fresh = headers
        .get(IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let body = if fresh {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Body::from(file.data.into_owned()).into_response()
    };
    let mut response = body;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(&path)));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    headers.insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    response
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

/// `GET /sentinel/account`.
pub(crate) async fn account(
    axum::extract::State(app): axum::extract::State<std::sync::Arc<App>>,
    context: RequestContext,
    signed_in: SignedIn,
) -> Response {
    show(&app, Page::Account, &context, Some(&signed_in))
}

/// `GET /sentinel/gallery`.
pub(crate) async fn gallery(
    axum::extract::State(app): axum::extract::State<std::sync::Arc<App>>,
    context: RequestContext,
    signed_in: SignedIn,
) -> Response {
    show(&app, Page::Gallery, &context, Some(&signed_in))
}

/// `GET /sentinel/`.
pub(crate) async fn management(
    axum::extract::State(app): axum::extract::State<std::sync::Arc<App>>,
    context: RequestContext,
    signed_in: SignedIn,
) -> Response {
    if signed_in.account.admin && Files::get("index.html").is_some() {
        return render(
            StatusCode::OK,
            "index.html",
            &state(&app, "management", &context, Some(&signed_in)),
        );
    }
    show(&app, Page::Account, &context, Some(&signed_in))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_cannot_break_out_of_its_attribute() {
        assert_eq!(
            attribute(r#"{"a":"<b>&'"}"#),
            "{&quot;a&quot;:&quot;&lt;b&gt;&amp;&#39;&quot;}"
        );
    }

    #[test]
    fn addresses_of_a_page_lie_below_the_base_path() {
        let page = "<script src=\"/sentinel/assets/a.js\"></script><a href=\"\"></a><b x=\"a/b\">";
        assert_eq!(
            below(page.to_owned(), "/ai"),
            page.replace("/sentinel", "/ai/sentinel")
        );
        assert_eq!(below(page.to_owned(), ""), page);
    }

    #[test]
    fn the_way_back_is_kept() {
        let uri: Uri = "/view?filename=a b&x=1"
            .replace(' ', "%20")
            .parse()
            .unwrap();
        assert_eq!(
            with_next("/login", &uri),
            "/login?next=/view?filename=a%2520b%26x=1"
        );
        assert_eq!(with_next("/login", &Uri::from_static("/")), "/login");
    }
}
