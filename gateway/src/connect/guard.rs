//! Who may use the door: programs of this computer. A web page in this person's browser may not,
//! whatever it sends: its Host is not the door's (DNS rebinding), or its Origin is not, or the browser
//! says that another site asks.

use http::header::{HOST, HeaderName, ORIGIN, REFERER};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use std::net::SocketAddr;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const DEFAULT_PORT: u16 = 80;

/// Why a request is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// CONNECT and TRACE are not for ComfyUI.
    Method,
    /// The request line does not name a path alone.
    Form,
    /// Called by another name than its own.
    Host,
    /// Sent by a web page of another origin.
    Page,
}

impl Refusal {
    /// Status, type and message of the answer.
    pub(super) fn answer(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "sentineld connect does not serve this method.",
            ),
            Self::Form => (
                StatusCode::BAD_REQUEST,
                "bad_request_target",
                "sentineld connect is no HTTP proxy: the request must name a path alone.",
            ),
            Self::Host => (
                StatusCode::FORBIDDEN,
                "foreign_host",
                "sentineld connect answers only when it is called 127.0.0.1, localhost or [::1], with its port.",
            ),
            Self::Page => (
                StatusCode::FORBIDDEN,
                "foreign_page",
                "sentineld connect is for programs: a web page of another address may not use it.",
            ),
        }
    }
}

/// Names by which the door may be called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    address: SocketAddr,
}

impl Names {
    /// Of a door that listens here.
    pub(super) fn of(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Whether this is `127.0.0.1`, `localhost`, `[::1]` or the address it listens on, with its port.
    fn contains(&self, authority: &Authority) -> bool {
        let name = authority.host();
        let own = match self.address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        };
        let has_name = ["127.0.0.1", "localhost", "[::1]", own.as_str()]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known));
        has_name && port_of(authority) == Some(self.address.port())
    }
}

/// The port of an authority; `None` when what stands after the host is no port.
fn port_of(authority: &Authority) -> Option<u16> {
    match authority.as_str().strip_prefix(authority.host())? {
        "" => Some(DEFAULT_PORT),
        port => port.strip_prefix(':')?.parse().ok(),
    }
}

/// Decides whether a request is passed on.
pub(super) fn judge(names: Names, head: &Parts) -> Result<(), Refusal> {
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::Method);
    }
    let is_path = head.uri.scheme().is_none()
        && head.uri.authority().is_none()
        && head.uri.path().starts_with('/');
    if !is_path {
        return Err(Refusal::Form);
    }
    let host = only(&head.headers, &HOST)
        .and_then(authority_of)
        .filter(|host| names.contains(host))
        .ok_or(Refusal::Host)?;
    if is_of_a_foreign_page(&head.headers, &host) {
        return Err(Refusal::Page);
    }
    Ok(())
}

/// The value of a header that may stand there once.
fn only<'headers>(
    headers: &'headers HeaderMap,
    name: &HeaderName,
) -> Option<&'headers HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

fn authority_of(value: &HeaderValue) -> Option<Authority> {
    value
        .to_str()
        .ok()?
        .parse::<Authority>()
        .ok()
        .filter(|authority| !authority.as_str().contains('@'))
}

/// Whether a page of another origin, or of another name of the door, sent it. A request with none of
/// these headers comes from a program.
fn is_of_a_foreign_page(headers: &HeaderMap, host: &Authority) -> bool {
    let is_foreign_site = headers
        .get_all(SEC_FETCH_SITE)
        .iter()
        .any(|site| site != "same-origin" && site != "none");
    let is_foreign = |name: &HeaderName| {
        headers
            .get_all(name)
            .iter()
            .any(|url| !url.to_str().is_ok_and(|url| is_own(url, host)))
    };
    is_foreign_site || is_foreign(&ORIGIN) || is_foreign(&REFERER)
}

/// Whether a URL (of an `Origin` or `Referer`) is the door's, by the name that this request used.
fn is_own(url: &str, host: &Authority) -> bool {
    url.parse::<Uri>().is_ok_and(|url| {
        url.scheme_str() == Some("http")
            && url.authority().is_some_and(|other| {
                other.host().eq_ignore_ascii_case(host.host()) && port_of(other) == port_of(host)
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    type Row<'row> = (&'row str, &'row str, &'row [(&'row str, &'row str)]);

    fn judged(address: &str, (method, target, headers): Row<'_>) -> Result<(), Refusal> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        judge(Names::of(address.parse().unwrap()), &head)
    }

    const HOST: (&str, &str) = ("host", "127.0.0.1:8188");

    #[test]
    fn programs_and_the_doors_own_pages_get_in() {
        let table: &[Row<'_>] = &[
            ("GET", "/queue", &[HOST]),
            ("POST", "/prompt", &[("host", "localhost:8188")]),
            ("POST", "/prompt", &[("host", "LOCALHOST:8188")]),
            ("GET", "/ws?clientId=a", &[("host", "[::1]:8188")]),
            // As websocket-client sends it.
            ("GET", "/ws", &[HOST, ("origin", "http://127.0.0.1:8188")]),
            (
                "POST",
                "/prompt",
                &[
                    HOST,
                    ("origin", "http://127.0.0.1:8188"),
                    ("sec-fetch-site", "same-origin"),
                ],
            ),
            (
                "GET",
                "/",
                &[
                    HOST,
                    ("sec-fetch-site", "none"),
                    ("sec-fetch-mode", "navigate"),
                ],
            ),
            (
                "GET",
                "/view",
                &[HOST, ("referer", "http://127.0.0.1:8188/a?b")],
            ),
        ];
        for row in table {
            assert_eq!(judged("127.0.0.1:8188", *row), Ok(()), "{row:?}");
        }
        assert_eq!(
            judged("127.0.0.1:80", ("GET", "/", &[("host", "localhost")])),
            Ok(())
        );
        assert_eq!(
            judged("127.9.9.9:81", ("GET", "/", &[("host", "127.9.9.9:81")])),
            Ok(())
        );
        assert_eq!(
            judged("[::1]:81", ("GET", "/", &[("host", "[::1]:81")])),
            Ok(())
        );
    }

    #[test]
    fn other_names_are_refused() {
        for host in [
            "",
            "127.0.0.1",
            "127.0.0.1:8189",
            "localhost",
            "localhost.:8188",
            "localhost:8188:1",
            "localhost:x",
            "evil.example",
            "evil.example:8188",
            "127.0.0.1.evil.example:8188",
            "localhost.evil.example:8188",
            "x@127.0.0.1:8188",
            "127.1:8188",
            "2130706433:8188",
            "0.0.0.0:8188",
            "127.0.0.2:8188",
            "[::ffff:127.0.0.1]:8188",
        ] {
            let judged = judged("127.0.0.1:8188", ("GET", "/", &[("host", host)]));
            assert_eq!(judged, Err(Refusal::Host), "{host}");
        }
        for headers in [
            &[] as &[_],
            &[HOST, HOST],
            &[HOST, ("host", "evil.example")],
        ] {
            assert_eq!(
                judged("127.0.0.1:8188", ("GET", "/", headers)),
                Err(Refusal::Host)
            );
        }
        // Only the port 80 may be left out.
        assert_eq!(
            judged("127.0.0.1:80", ("GET", "/", &[HOST])),
            Err(Refusal::Host)
        );
    }

    #[test]
    fn pages_of_elsewhere_are_refused() {
        let table: &[&[(&str, &str)]] = &[
            &[HOST, ("origin", "http://evil.example")],
            &[HOST, ("origin", "null")],
            &[HOST, ("origin", "")],
            &[HOST, ("origin", "https://127.0.0.1:8188")],
            &[HOST, ("origin", "http://127.0.0.1")],
            &[HOST, ("origin", "http://127.0.0.1:3000")],
            // Another program may listen at this name.
            &[HOST, ("origin", "http://localhost:8188")],
            &[
                HOST,
                ("origin", "http://127.0.0.1:8188"),
                ("origin", "http://evil.example"),
            ],
            &[HOST, ("sec-fetch-site", "cross-site")],
            &[HOST, ("sec-fetch-site", "same-site")],
            &[HOST, ("sec-fetch-site", "")],
            &[
                HOST,
                ("sec-fetch-site", "same-origin"),
                ("sec-fetch-site", "cross-site"),
            ],
            &[
                HOST,
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
            ],
            &[
                HOST,
                ("origin", "http://127.0.0.1:8188"),
                ("sec-fetch-site", "cross-site"),
            ],
            &[HOST, ("referer", "https://evil.example/page")],
        ];
        for headers in table {
            for (method, target) in [
                ("GET", "/view"),
                ("POST", "/prompt"),
                ("GET", "/ws"),
                ("OPTIONS", "/prompt"),
            ] {
                let judged = judged("127.0.0.1:8188", (method, target, headers));
                assert_eq!(judged, Err(Refusal::Page), "{method} {headers:?}");
            }
        }
    }

    #[test]
    fn it_is_no_proxy() {
        for (method, target, expected) in [
            ("CONNECT", "127.0.0.1:8188", Refusal::Method),
            ("TRACE", "/", Refusal::Method),
            ("GET", "http://127.0.0.1:8188/queue", Refusal::Form),
            ("GET", "http://evil.example/", Refusal::Form),
            ("GET", "https://127.0.0.1:8188/", Refusal::Form),
            ("OPTIONS", "*", Refusal::Form),
            ("GET", "127.0.0.1:8188", Refusal::Form),
        ] {
            assert_eq!(
                judged("127.0.0.1:8188", (method, target, &[HOST])),
                Err(expected),
                "{method} {target}"
            );
        }
    }
}
