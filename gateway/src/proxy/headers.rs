//! What of the headers passes the gateway, in either direction.

use crate::access::FORWARDING_HEADERS;
use crate::auth::{
    API_KEY_HEADER, BROWSER_COOKIE_NAME, COOKIE_NAME, PROOF_HEADER, is_token_shaped,
};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, COOKIE, EXPECT, HOST, HeaderName, ORIGIN,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SEC_WEBSOCKET_EXTENSIONS, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue};

/// Headers of one connection only (RFC 9110 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Names a ComfyUI user in multi-user mode and is believed without proof: never a client's.
const COMFY_USER: HeaderName = HeaderName::from_static("comfy-user");

/// How a browser came to ask. The gateway has judged that (`access::origin`), and ComfyUI from 0.19
/// on answers every `cross-site` with an empty 403, a visit by link included. `Sec-Fetch-Dest` stays:
/// without it ComfyUI sends SVG pictures as downloads.
const FETCH_METADATA: [HeaderName; 3] = [
    HeaderName::from_static("sec-fetch-site"),
    HeaderName::from_static("sec-fetch-mode"),
    HeaderName::from_static("sec-fetch-user"),
];

/// Makes a client's headers fit for ComfyUI: nothing of our credentials, of the connection, or of
/// what a client may have forged; Host and Origin are the engine's, because ComfyUI refuses others.
///
/// Returns the protocol of an upgrade that the client asks for.
pub(super) fn clean_request(headers: &mut HeaderMap, engine: &HeaderValue) -> Option<HeaderValue> {
    let upgrade = wanted_upgrade(headers);
    remove_hop_by_hop(headers);
    for name in FORWARDING_HEADERS.iter().chain(&FETCH_METADATA) {
        headers.remove(name);
    }
    for name in [AUTHORIZATION, EXPECT, COMFY_USER, PROOF_HEADER] {
        headers.remove(name);
    }
    remove_our_cookies(headers);
    remove_our_api_key(headers);
    if headers.contains_key(ORIGIN) {
        let origin = [b"http://", engine.as_bytes()].concat();
        match HeaderValue::from_bytes(&origin) {
            Ok(origin) => headers.insert(ORIGIN, origin),
            Err(_) => headers.remove(ORIGIN),
        };
    }
    if upgrade.is_some() {
        // Compressed frames could not be looked at; over loopback nothing is gained by it.
        headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    }
    headers.insert(HOST, engine.clone());
    upgrade
}

/// The protocol of an upgrade that is asked for.
pub(crate) fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    if asks {
        headers.get(UPGRADE).cloned()
    } else {
        None
    }
}

fn tokens<'headers>(
    headers: &'headers HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'headers str> {
    let lines = headers
        .get_all(name)
        .into_iter()
        .filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// Removes what is of one connection only.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let is_plain = headers
        .get(CONNECTION)
        .is_none_or(|value| value == "keep-alive" || value == "close");
    if !is_plain {
        let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
            .filter_map(|token| token.parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

const OUR_COOKIES: [&str; 2] = [COOKIE_NAME, BROWSER_COOKIE_NAME];

/// Other programs' cookies of this host pass; ours do not.
fn remove_our_cookies(headers: &mut HeaderMap) {
    if !headers.contains_key(COOKIE) {
        return;
    }
    let kept: Vec<String> = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .map(str::trim)
        .filter(|pair| {
            pair.split('=')
                .next()
                .is_some_and(|name| !OUR_COOKIES.contains(&name.trim()))
                && !pair.is_empty()
        })
        .map(str::to_owned)
        .collect();
    headers.remove(COOKIE);
    if let Ok(value) = HeaderValue::from_str(&kept.join("; "))
        && !value.is_empty()
    {
        headers.insert(COOKIE, value);
    }
}

/// A custom node's key for another service passes; our API token does not.
fn remove_our_api_key(headers: &mut HeaderMap) {
    if !headers.contains_key(API_KEY_HEADER) {
        return;
    }
    let kept: Vec<HeaderValue> = headers
        .get_all(API_KEY_HEADER)
        .iter()
        .filter(|value| {
            value
                .to_str()
                .is_ok_and(|value| !is_token_shaped(value.trim()))
        })
        .cloned()
        .collect();
    headers.remove(API_KEY_HEADER);
    for value in kept {
        headers.append(API_KEY_HEADER, value);
    }
}

/// Makes ComfyUI's headers fit for the client: nothing of the connection, no cookie of our name,
/// and no shared caching of what is personal.
pub(super) fn clean_response(headers: &mut HeaderMap, path: &str, is_separate: bool) {
    remove_hop_by_hop(headers);
    // None was asked for.
    headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    // No answer to it would reach the engine, and a browser would send what is typed with every
    // request from then on.
    headers.remove(WWW_AUTHENTICATE);
    if headers.contains_key(SET_COOKIE) {
        let kept: Vec<HeaderValue> = headers
            .get_all(SET_COOKIE)
            .iter()
            .filter(|value| !sets_our_cookie(value))
            .cloned()
            .collect();
        headers.remove(SET_COOKIE);
        for value in kept {
            headers.append(SET_COOKIE, value);
        }
    }
    if !is_shared(path) {
        make_private(headers, is_separate);
    }
}

fn sets_our_cookie(value: &HeaderValue) -> bool {
    let name = value
        .as_bytes()
        .split(|byte| *byte == b'=')
        .next()
        .unwrap_or_default();
    OUR_COOKIES
        .iter()
        .any(|ours| name.trim_ascii() == ours.as_bytes())
}

/// Files of ComfyUI and its nodes, the same for everybody.
fn is_shared(path: &str) -> bool {
    const SHARED: [&str; 8] = [
        "/assets/",
        "/scripts/",
        "/extensions/",
        "/fonts/",
        "/cursor/",
        "/docs/",
        "/templates/",
        "/lib/",
    ];
    SHARED.iter().any(|folder| path.starts_with(folder))
}

/// Two people at one browser, or behind one caching proxy, must not see each other's pictures
/// under the same URL: stored by that browser alone, and asked for again each time. Where users are
/// separate the same URL is another file for each of them, so it is not stored at all.
fn make_private(headers: &mut HeaderMap, is_separate: bool) {
    let says = |words: &[&str]| {
        headers
            .get(CACHE_CONTROL)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| words.iter().any(|word| value.contains(word)))
    };
    if is_separate {
        if !says(&["no-store"]) {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        }
    } else if !says(&["no-store", "private"]) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        headers
    }

    #[test]
    fn x5_nothing_of_ours_or_forged_reaches_comfyui() {
        let mut headers = map(&[
            ("host", "studio:8189"),
            ("cookie", "a=1; jwt_token=secret; sentinel_browser=x; b=2"),
            ("cookie", "jwt_token=other"),
            ("authorization", "Bearer secret"),
            ("comfy-user", "alice"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("via", "1.1 x"),
            ("x-sentinel-proof", "p"),
            ("x-api-key", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"),
            ("x-api-key", "key-of-another-service"),
            ("proxy-authorization", "Basic c2VjcmV0"),
            ("connection", "keep-alive, x-private"),
            ("x-private", "1"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("origin", "http://studio:8189"),
            ("range", "bytes=0-1"),
            ("content-encoding", "gzip"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-user", "?1"),
            ("sec-fetch-dest", "image"),
        ]);
        assert_eq!(
            clean_request(&mut headers, &HeaderValue::from_static("127.0.0.1:9")),
            None
        );
        let expected = map(&[
            ("host", "127.0.0.1:9"),
            ("cookie", "a=1; b=2"),
            ("origin", "http://127.0.0.1:9"),
            ("range", "bytes=0-1"),
            ("content-encoding", "gzip"),
            ("x-api-key", "key-of-another-service"),
            ("sec-fetch-dest", "image"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn an_upgrade_is_found_in_a_list() {
        let mut headers = map(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-extensions", "permessage-deflate"),
        ]);
        assert_eq!(
            clean_request(&mut headers, &HeaderValue::from_static("h")).unwrap(),
            "websocket"
        );
        assert!(!headers.contains_key(SEC_WEBSOCKET_EXTENSIONS));
        let mut headers = map(&[("sec-websocket-extensions", "permessage-deflate")]);
        clean_response(&mut headers, "/ws", true);
        assert!(!headers.contains_key(SEC_WEBSOCKET_EXTENSIONS));
        let mut headers = map(&[("connection", "keep-alive"), ("upgrade", "websocket")]);
        assert_eq!(
            clean_request(&mut headers, &HeaderValue::from_static("h")),
            None
        );
    }

    #[test]
    fn r18_personal_answers_are_private() {
        for (path, before, after) in [
            ("/view", None, Some("private, no-cache")),
            (
                "/api/userdata/x.png",
                Some("public, max-age=86400"),
                Some("private, no-cache"),
            ),
            ("/api/x", Some("no-store"), Some("no-store")),
            ("/assets/index.js", Some("no-cache"), Some("no-cache")),
            (
                "/assets/logo.png",
                Some("public, max-age=86400"),
                Some("public, max-age=86400"),
            ),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(before) = before {
                headers.insert(CACHE_CONTROL, HeaderValue::from_static(before));
            }
            clean_response(&mut headers, path, false);
            assert_eq!(
                headers
                    .get(CACHE_CONTROL)
                    .map(|value| value.to_str().unwrap()),
                after,
                "{path}"
            );
        }
        let mut headers = map(&[("cache-control", "private, max-age=9")]);
        clean_response(&mut headers, "/view", true);
        assert_eq!(headers[CACHE_CONTROL], "private, no-store");
        let mut headers = map(&[
            ("set-cookie", "jwt_token=evil; Path=/"),
            ("set-cookie", "sentinel_browser=evil; Path=/"),
            ("set-cookie", "other=1"),
            ("www-authenticate", "Basic realm=\"node\""),
        ]);
        clean_response(&mut headers, "/", false);
        assert!(!headers.contains_key(WWW_AUTHENTICATE));
        assert_eq!(
            headers.get_all(SET_COOKIE).iter().collect::<Vec<_>>(),
            ["other=1"]
        );
    }
}
