//! What of the headers passes the door, in either direction.

use super::target::Target;
use super::token::Token;
use crate::access::FORWARDING_HEADERS;
use crate::auth::PROOF_HEADER;
use crate::proxy::{remove_hop_by_hop, wanted_upgrade};
use http::header::{
    AUTHORIZATION, COOKIE, EXPECT, HOST, HeaderName, ORIGIN, REFERER, SET_COOKIE,
    STRICT_TRANSPORT_SECURITY,
};
use http::{HeaderMap, HeaderValue};

/// Credentials of the program, which the door's replace, and what only a page would send: the door has
/// judged it, and to the gateway it is a program.
const NOT_PASSED_ON: [HeaderName; 8] = [
    AUTHORIZATION,
    COOKIE,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("comfy-user"),
    PROOF_HEADER,
    EXPECT,
    ORIGIN,
    REFERER,
];
/// Begins the names of headers in which a browser tells who asks.
const FETCH_METADATA: &str = "sec-fetch-";
/// Begins the names of headers that let pages of other addresses read an answer.
const CROSS_ORIGIN: &str = "access-control-";

/// Makes the headers of a program fit for the gateway and adds the token. Returns whether it asks for
/// a WebSocket; no other upgrade is passed on.
pub(super) fn to_gateway(headers: &mut HeaderMap, target: &Target, token: &Token) -> bool {
    let is_websocket = wanted_upgrade(headers)
        .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
    remove_hop_by_hop(headers);
    for name in FORWARDING_HEADERS.iter().chain(&NOT_PASSED_ON) {
        headers.remove(name);
    }
    remove_those_beginning_with(headers, FETCH_METADATA);
    headers.insert(HOST, target.authority.clone());
    headers.insert(AUTHORIZATION, token.header());
    is_websocket
}

/// Makes the headers of the gateway fit for a program: it never gets a session of its own.
pub(super) fn to_program(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    for name in [SET_COOKIE, STRICT_TRANSPORT_SECURITY] {
        headers.remove(name);
    }
    remove_those_beginning_with(headers, CROSS_ORIGIN);
}

/// Marks a request or an answer as the upgrade to a WebSocket.
pub(super) fn add_upgrade(headers: &mut HeaderMap) {
    headers.insert(
        http::header::CONNECTION,
        HeaderValue::from_static("Upgrade"),
    );
    headers.insert(http::header::UPGRADE, HeaderValue::from_static("websocket"));
}

fn remove_those_beginning_with(headers: &mut HeaderMap, beginning: &str) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(beginning))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
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
    fn the_doors_credential_replaces_all_others() {
        let target = Target::parse("https://studio:8189").unwrap();
        let token = Token::parse("abc").unwrap();
        let mut headers = map(&[
            ("host", "127.0.0.1:8188"),
            ("authorization", "Bearer other"),
            ("cookie", "jwt_token=other"),
            ("x-api-key", "other"),
            ("comfy-user", "alice"),
            ("x-sentinel-proof", "p"),
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("origin", "http://127.0.0.1:8188"),
            ("referer", "http://127.0.0.1:8188/"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-mode", "cors"),
            ("expect", "100-continue"),
            ("connection", "keep-alive, x-private"),
            ("x-private", "1"),
            ("transfer-encoding", "chunked"),
            ("range", "bytes=0-1"),
            ("content-type", "application/json"),
        ]);
        assert!(!to_gateway(&mut headers, &target, &token));
        assert_eq!(
            headers,
            map(&[
                ("host", "studio:8189"),
                ("authorization", "Bearer abc"),
                ("range", "bytes=0-1"),
                ("content-type", "application/json"),
            ])
        );
    }

    #[test]
    fn only_websockets_are_upgrades() {
        let target = Target::parse("https://studio").unwrap();
        let token = Token::parse("abc").unwrap();
        for (protocol, expected) in [("websocket", true), ("WebSocket", true), ("h2c", false)] {
            let mut headers = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", protocol)]);
            assert_eq!(
                to_gateway(&mut headers, &target, &token),
                expected,
                "{protocol}"
            );
            assert!(!headers.contains_key("upgrade"));
        }
    }

    #[test]
    fn no_answer_sets_a_cookie() {
        let mut headers = map(&[
            ("set-cookie", "jwt_token=a"),
            ("set-cookie", "other=b"),
            ("strict-transport-security", "max-age=1"),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("content-type", "image/png"),
        ]);
        to_program(&mut headers);
        assert_eq!(headers, map(&[("content-type", "image/png")]));
    }
}
