//! The guard against foreign pages in a user's browser: the Host must be a name of ours (DNS
//! rebinding), and a request that a page of another origin made is refused (cross-site requests
//! and WebSockets; ports of one host are the same *site*, so SameSite cookies do not do it).

use http::header::{HOST, HeaderName, ORIGIN, REFERER};
use http::uri::Authority;
use http::{HeaderMap, Method};
use std::collections::HashSet;
use std::net::IpAddr;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Host names by which this machine may be called; literal addresses always may, because no foreign
/// name resolves to them.
#[derive(Clone, Debug, Default)]
pub struct HostNames(HashSet<String>);

impl HostNames {
    /// `localhost`, the machine's own name, the shared name, each also with `.local`, and the
    /// configured ones.
    pub fn new(machine: &str, shared: &str, configured: &[String]) -> Self {
        let mut names = HashSet::from(["localhost".to_owned()]);
        for name in [machine, shared] {
            let name = canonical(name);
            if !name.is_empty() {
                names.insert(format!("{}.local", name.trim_end_matches(".local")));
                names.insert(name);
            }
        }
        names.extend(configured.iter().map(|name| canonical(name)));
        Self(names)
    }

    fn contains(&self, host: &str) -> bool {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        literal.parse::<IpAddr>().is_ok() || self.0.contains(&canonical(host))
    }
}

fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Why the guard refused; for the log, the client learns less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginFault {
    /// No or several or unreadable Host headers, or one that differs from the request line.
    #[error("Host header is missing, doubled or not a host name")]
    BadHost,
    /// A name that is not ours.
    #[error("called by a host name that is not on the list")]
    ForeignHost,
    /// A page of another origin sent it.
    #[error("sent by a page of another origin")]
    ForeignOrigin,
}

/// Checks the Host and returns it as the browser wrote it (`host` or `host:port`).
///
/// `forwarded` is what a trusted proxy says the browser asked for. `authority` is the one of an
/// absolute-form request line, which must not differ.
pub fn check_host(
    headers: &HeaderMap,
    authority: Option<&Authority>,
    forwarded: Option<&str>,
    names: &HostNames,
) -> Result<Authority, OriginFault> {
    let mut lines = headers.get_all(HOST).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err(OriginFault::BadHost);
    };
    let host: Authority = line
        .to_str()
        .ok()
        .and_then(parse_authority)
        .ok_or(OriginFault::BadHost)?;
    if authority.is_some_and(|authority| authority != &host) {
        return Err(OriginFault::BadHost);
    }
    let host = match forwarded {
        Some(forwarded) => parse_authority(forwarded).ok_or(OriginFault::BadHost)?,
        None => host,
    };
    if names.contains(host.host()) {
        Ok(host)
    } else {
        Err(OriginFault::ForeignHost)
    }
}

fn parse_authority(text: &str) -> Option<Authority> {
    text.parse::<Authority>()
        .ok()
        .filter(|authority| !authority.as_str().contains('@') && !authority.host().is_empty())
}

/// Refuses what a page of another origin sent.
///
/// - `Origin` present: it must be ours; `null` never is (a sandboxed frame sends it).
/// - `Sec-Fetch-Site` present: only `same-origin` and `none`, but a top-level navigation by GET may
///   come from anywhere (a link in a chat).
/// - else a `Referer` that is not ours, on anything but such a navigation, is refused.
///
/// A request with none of these comes from a program, which holds its own credential.
pub fn check_origin(
    method: &Method,
    headers: &HeaderMap,
    host: &Authority,
    is_https: bool,
    is_page_visit: bool,
) -> Result<(), OriginFault> {
    if let Some(origin) = headers.get(ORIGIN) {
        let ours = origin
            .to_str()
            .is_ok_and(|origin| is_same_origin(origin, host, is_https));
        return if ours {
            Ok(())
        } else {
            Err(OriginFault::ForeignOrigin)
        };
    }
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let site = headers
        .get(SEC_FETCH_SITE)
        .and_then(|site| site.to_str().ok());
    match site {
        Some("same-origin" | "none") => Ok(()),
        Some(_) => {
            let navigates = headers
                .get(SEC_FETCH_MODE)
                .is_some_and(|mode| mode == "navigate");
            if is_read && navigates && is_page_visit {
                Ok(())
            } else {
                Err(OriginFault::ForeignOrigin)
            }
        }
        None => match headers.get(REFERER).map(|referer| referer.to_str()) {
            Some(Ok(referer))
                if !(is_same_origin(referer, host, is_https) || is_read && is_page_visit) =>
            {
                Err(OriginFault::ForeignOrigin)
            }
            _ => Ok(()),
        },
    }
}

/// Whether a URL (of an `Origin` or `Referer`) has our scheme, host and port.
fn is_same_origin(url: &str, host: &Authority, is_https: bool) -> bool {
    let Ok(url) = url.parse::<http::Uri>() else {
        return false;
    };
    let scheme = if is_https { "https" } else { "http" };
    let default_port = if is_https { 443 } else { 80 };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
    url.scheme_str() == Some(scheme)
        && url.authority().is_some_and(|other| {
            other.host().eq_ignore_ascii_case(host.host()) && port(other) == port(host)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        map
    }

    #[test]
    fn x4_only_our_host_names() {
        let names = HostNames::new("Studio-PC", "comfyui", &["comfy.example.org".to_owned()]);
        let table = [
            ("127.0.0.1:8189", true),
            ("192.168.1.5", true),
            ("[::1]:8189", true),
            ("localhost:8189", true),
            ("LOCALHOST.", true),
            ("studio-pc:8189", true),
            ("studio-pc.local", true),
            ("comfyui.local:8189", true),
            ("comfy.example.org", true),
            ("evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("user@localhost", false),
            ("", false),
        ];
        for (host, expected) in table {
            let result = check_host(&headers(&[("host", host)]), None, None, &names);
            assert_eq!(result.is_ok(), expected, "{host}");
        }
        assert!(
            check_host(
                &headers(&[("host", "localhost"), ("host", "localhost")]),
                None,
                None,
                &names
            )
            .is_err()
        );
        assert!(check_host(&headers(&[]), None, None, &names).is_err());
        let other: Authority = "evil.example".parse().unwrap();
        assert!(
            check_host(
                &headers(&[("host", "localhost")]),
                Some(&other),
                None,
                &names
            )
            .is_err()
        );
    }

    #[test]
    fn x1_x2_x3_foreign_pages_are_refused() {
        let host: Authority = "192.168.1.5:8189".parse().unwrap();
        let ours = "http://192.168.1.5:8189";
        type Row<'row> = (&'row str, &'row [(&'static str, &'row str)], bool, bool);
        let table: &[Row<'_>] = &[
            ("POST", &[], false, true),
            ("POST", &[("origin", ours)], false, true),
            ("POST", &[("origin", "null")], false, false),
            (
                "POST",
                &[("origin", "http://192.168.1.5:9000")],
                false,
                false,
            ),
            (
                "POST",
                &[("origin", "https://192.168.1.5:8189")],
                false,
                false,
            ),
            ("POST", &[("origin", "http://evil.example")], false, false),
            ("POST", &[("referer", "http://evil.example/a")], true, false),
            ("POST", &[("sec-fetch-site", "same-site")], true, false),
            ("GET", &[("origin", "http://evil.example")], true, false),
            ("GET", &[("origin", "null")], true, false),
            (
                "GET",
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "no-cors"),
                ],
                true,
                false,
            ),
            (
                "GET",
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                ],
                true,
                true,
            ),
            (
                "GET",
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                ],
                false,
                false,
            ),
            (
                "GET",
                &[
                    ("sec-fetch-site", "same-origin"),
                    ("sec-fetch-mode", "cors"),
                ],
                false,
                true,
            ),
            (
                "GET",
                &[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")],
                false,
                true,
            ),
            (
                "GET",
                &[("referer", "http://192.168.1.5:9000/x")],
                false,
                false,
            ),
            (
                "GET",
                &[("referer", "http://192.168.1.5:8189/x")],
                false,
                true,
            ),
        ];
        for (method, pairs, is_page_visit, expected) in table {
            let result = check_origin(
                &method.parse().unwrap(),
                &headers(pairs),
                &host,
                false,
                *is_page_visit,
            );
            assert_eq!(
                result.is_ok(),
                *expected,
                "{method} {pairs:?} page visit {is_page_visit}"
            );
        }
        let public: Authority = "comfy.example.org".parse().unwrap();
        assert!(
            check_origin(
                &Method::POST,
                &headers(&[("origin", "https://comfy.example.org")]),
                &public,
                true,
                false
            )
            .is_ok()
        );
    }
}
