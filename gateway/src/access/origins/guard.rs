//! The guard against foreign pages in a user's browser: the Host must be a name of ours (DNS
//! rebinding), and a request that a page of another origin made is refused (cross-site requests
//! and WebSockets; ports of one host are the same *site*, so SameSite cookies do not do it).

use super::HostNames;
use super::names::canonical;
use crate::access::client_ip::FORWARDING_HEADERS;
use crate::access::{Caller, ClientIp, TrustedProxies, caller_of};
use http::header::{HOST, HeaderName, ORIGIN, REFERER};
use http::uri::Authority;
use http::{HeaderMap, Method};
use std::net::{IpAddr, SocketAddr};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
/// Longest part of a foreign origin that a refusal shows, characters.
const MAX_SHOWN: usize = 200;
/// Port of Ollama, whose helpers are the extensions that change the Origin of every site.
const OLLAMA: &str = ":11434";

/// What the guard looks at.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'request> {
    /// Method.
    pub method: &'request Method,
    /// Headers.
    pub headers: &'request HeaderMap,
    /// That of an absolute-form request line.
    pub authority: Option<&'request Authority>,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// Who sent it, as far as the network tells.
    pub caller: &'request Caller,
    /// Whether this connection is encrypted.
    pub is_tls: bool,
    /// A page elsewhere may lead here by a link: reading changes nothing.
    pub is_page_visit: bool,
    /// Any page may read it: a public file, or what a ticket in the address is for.
    pub is_for_any_page: bool,
}

impl Asked<'_> {
    /// Whether the browser speaks HTTPS.
    pub fn is_https(&self) -> bool {
        self.is_tls || self.caller.forwarded_https == Some(true)
    }
}

/// The setting that lets a refused request in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKey {
    /// The name belongs to this machine.
    AllowedHosts,
    /// The proxy may say who asks.
    TrustedProxies,
}

impl RefusalKey {
    /// As in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::AllowedHosts => "allowed_hosts",
            Self::TrustedProxies => "trusted_proxies",
        }
    }
}

/// Why the guard refused, with what a person needs to know to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No or several or unreadable Host headers, or one that differs from the request line.
    #[error("the Host header is missing, doubled or not a host name")]
    BadHost,
    /// A name that is not ours.
    #[error("called by a host name that is not on the list")]
    ForeignHost {
        /// The name.
        name: String,
    },
    /// It would pass if the proxy that sent it were trusted.
    #[error("sent through a proxy that is not trusted")]
    UntrustedProxy {
        /// Its address.
        proxy: ClientIp,
    },
    /// Sent by our own page, but something in the browser has changed its Origin.
    #[error("the Origin header was changed in the browser")]
    ChangedOrigin {
        /// What it was changed to.
        origin: String,
    },
    /// A page of another origin sent it.
    #[error("sent by a page of another origin")]
    ForeignOrigin {
        /// That origin, if it was told.
        origin: Option<String>,
    },
}

impl Refusal {
    /// For programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadHost => "bad_host",
            Self::ForeignHost { .. } => "foreign_host",
            Self::UntrustedProxy { .. } => "untrusted_proxy",
            Self::ChangedOrigin { .. } => "changed_origin",
            Self::ForeignOrigin { .. } => "foreign_origin",
        }
    }

    /// The setting that would let the request in, and what belongs into it.
    pub fn remedy(&self) -> Option<(RefusalKey, String)> {
        match self {
            Self::ForeignHost { name } => Some((RefusalKey::AllowedHosts, name.clone())),
            Self::UntrustedProxy { proxy } => {
                let whole = if proxy.address().is_ipv4() { 32 } else { 128 };
                Some((RefusalKey::TrustedProxies, format!("{proxy}/{whole}")))
            }
            Self::BadHost | Self::ChangedOrigin { .. } | Self::ForeignOrigin { .. } => None,
        }
    }

    /// What the request told of its origin.
    pub fn origin(&self) -> Option<&str> {
        match self {
            Self::ChangedOrigin { origin } => Some(origin),
            Self::ForeignOrigin { origin } => origin.as_deref(),
            Self::BadHost | Self::ForeignHost { .. } | Self::UntrustedProxy { .. } => None,
        }
    }
}

/// Checks Host and Origin; returns the host as the browser wrote it (`host` or `host:port`).
pub(super) fn judge(asked: &Asked<'_>, names: &HostNames) -> Result<Authority, Refusal> {
    let forwarded = asked.caller.forwarded_host.as_deref();
    let host = check_host(asked.headers, asked.authority, forwarded)?;
    if !names.contains(host.host()) {
        let name = canonical(host.host());
        return Err(Refusal::ForeignHost { name });
    }
    if asked.is_for_any_page && matches!(*asked.method, Method::GET | Method::HEAD) {
        return Ok(host);
    }
    if is_own(asked, &host, asked.is_https()) {
        return Ok(host);
    }
    Err(reason(asked, &host))
}

/// Why a page that sent this is not ours, as far as the request tells.
fn reason(asked: &Asked<'_>, host: &Authority) -> Refusal {
    if would_pass_by_trust(asked) {
        let proxy = ClientIp::new(asked.peer.ip());
        return Refusal::UntrustedProxy { proxy };
    }
    let shown = |header: &HeaderName| {
        let text = asked.headers.get(header)?.to_str().ok()?;
        Some(text.chars().take(MAX_SHOWN).collect::<String>())
    };
    let origin = shown(&ORIGIN);
    if let Some(origin) = &origin
        && is_changed(asked, origin, host)
    {
        let origin = origin.clone();
        return Refusal::ChangedOrigin { origin };
    }
    let origin = origin.or_else(|| shown(&REFERER));
    Refusal::ForeignOrigin { origin }
}

/// Whether the request would pass if what its peer says of it were believed.
fn would_pass_by_trust(asked: &Asked<'_>) -> bool {
    let is_forwarded = FORWARDING_HEADERS
        .iter()
        .any(|name| asked.headers.contains_key(name));
    let is_trusted =
        asked.caller.forwarded_host.is_some() || asked.caller.forwarded_https.is_some();
    if !is_forwarded || is_trusted {
        return false;
    }
    let trusted = TrustedProxies::new(vec![asked.peer.ip().to_canonical().into()]);
    let caller = caller_of(asked.peer, asked.headers, &trusted);
    let believed = Asked {
        caller: &caller,
        ..*asked
    };
    let forwarded = caller.forwarded_host.as_deref();
    check_host(asked.headers, asked.authority, forwarded)
        .is_ok_and(|host| is_own(&believed, &host, believed.is_https()))
}

/// A browser that says by other headers that our own page asks has had its Origin changed. So it
/// has, as a rule, where the Origin is a program of the same machine: extensions that speak to such
/// programs put their address there for every site.
fn is_changed(asked: &Asked<'_>, origin: &str, host: &Authority) -> bool {
    let says_own = asked
        .headers
        .get(SEC_FETCH_SITE)
        .is_some_and(|site| site == "same-origin")
        || asked
            .headers
            .get(REFERER)
            .and_then(|referer| referer.to_str().ok())
            .is_some_and(|referer| is_same_origin(referer, host, asked.is_https()));
    let is_loopback = origin
        .parse::<http::Uri>()
        .ok()
        .and_then(|origin| origin.into_parts().authority)
        .is_some_and(|authority| {
            let name = authority.host().trim_matches(['[', ']']);
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        });
    let is_ours = {
        let name = host.host().trim_matches(['[', ']']);
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    };
    says_own || is_loopback && (!is_ours || origin.ends_with(OLLAMA))
}

/// Reads the Host, as the browser wrote it.
///
/// `forwarded` is what a trusted proxy says the browser asked for. `authority` is the one of an
/// absolute-form request line, which must not differ.
fn check_host(
    headers: &HeaderMap,
    authority: Option<&Authority>,
    forwarded: Option<&str>,
) -> Result<Authority, Refusal> {
    let mut lines = headers.get_all(HOST).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err(Refusal::BadHost);
    };
    let host: Authority = line
        .to_str()
        .ok()
        .and_then(parse_authority)
        .ok_or(Refusal::BadHost)?;
    if authority.is_some_and(|authority| authority != &host) {
        return Err(Refusal::BadHost);
    }
    match forwarded {
        Some(forwarded) => parse_authority(forwarded).ok_or(Refusal::BadHost),
        None => Ok(host),
    }
}

fn parse_authority(text: &str) -> Option<Authority> {
    text.parse::<Authority>()
        .ok()
        .filter(|authority| !authority.as_str().contains('@') && !authority.host().is_empty())
}

/// Whether no page of another origin sent this.
///
/// - `Origin` present: it must be ours; `null` never is (a sandboxed frame sends it).
/// - `Sec-Fetch-Site` present: only `same-origin` and `none`, but a top-level navigation by GET may
///   come from anywhere (a link in a chat).
/// - else a `Referer` that is not ours, on anything but such a navigation, is refused.
///
/// A request with none of these comes from a program, which holds its own credential.
fn is_own(asked: &Asked<'_>, host: &Authority, is_https: bool) -> bool {
    let headers = asked.headers;
    if let Some(origin) = headers.get(ORIGIN) {
        return origin
            .to_str()
            .is_ok_and(|origin| is_same_origin(origin, host, is_https));
    }
    let is_visit = matches!(*asked.method, Method::GET | Method::HEAD) && asked.is_page_visit;
    let site = headers
        .get(SEC_FETCH_SITE)
        .and_then(|site| site.to_str().ok());
    match site {
        Some("same-origin" | "none") => true,
        Some(_) => {
            is_visit
                && headers
                    .get(SEC_FETCH_MODE)
                    .is_some_and(|mode| mode == "navigate")
        }
        None => match headers.get(REFERER).map(|referer| referer.to_str()) {
            Some(Ok(referer)) => is_visit || is_same_origin(referer, host, is_https),
            _ => true,
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

    struct Scene {
        headers: HeaderMap,
        caller: Caller,
        peer: SocketAddr,
        method: Method,
        is_page_visit: bool,
        is_tls: bool,
    }

    impl Scene {
        fn new(pairs: &[(&'static str, &str)]) -> Self {
            Self::of("192.168.1.77", pairs, &[])
        }

        fn of(peer: &str, pairs: &[(&'static str, &str)], trusted: &[&str]) -> Self {
            let headers = headers(pairs);
            let peer = SocketAddr::new(peer.parse().unwrap(), 9);
            let trusted = trusted.iter().map(|network| network.parse().unwrap());
            let caller = caller_of(peer, &headers, &TrustedProxies::new(trusted.collect()));
            Self {
                headers,
                caller,
                peer,
                method: Method::POST,
                is_page_visit: false,
                is_tls: false,
            }
        }

        fn judge(&self, names: &HostNames) -> Result<Authority, Refusal> {
            self.judge_at(names, None)
        }

        fn judge_at(
            &self,
            names: &HostNames,
            authority: Option<&Authority>,
        ) -> Result<Authority, Refusal> {
            let asked = Asked {
                method: &self.method,
                headers: &self.headers,
                authority,
                peer: self.peer,
                caller: &self.caller,
                is_tls: self.is_tls,
                is_page_visit: self.is_page_visit,
                is_for_any_page: false,
            };
            judge(&asked, names)
        }
    }

    fn names() -> HostNames {
        let configured = ["comfy.example.org".to_owned()];
        HostNames::new("Studio-PC", "comfyui", &configured, Default::default())
    }

    #[test]
    fn x4_only_our_host_names() {
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
            ("host.docker.internal:8189", true),
            ("gateway.docker.internal", true),
            ("host.containers.internal:8189", true),
            ("other.docker.internal", false),
            ("host.docker.internal.evil.example", false),
            ("pc.tail1a2b3c.ts.net", false),
            ("evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("user@localhost", false),
            ("", false),
        ];
        for (host, expected) in table {
            let result = Scene::new(&[("host", host)]).judge(&names());
            assert_eq!(result.is_ok(), expected, "{host}");
        }
        let doubled = Scene::new(&[("host", "localhost"), ("host", "localhost")]);
        assert_eq!(doubled.judge(&names()), Err(Refusal::BadHost));
        assert_eq!(Scene::new(&[]).judge(&names()), Err(Refusal::BadHost));
        let other: Authority = "evil.example".parse().unwrap();
        let differs = Scene::new(&[("host", "localhost")]).judge_at(&names(), Some(&other));
        assert_eq!(differs, Err(Refusal::BadHost));
    }

    #[test]
    fn a_refusal_says_what_would_let_the_request_in() {
        let forwarded: &[(&'static str, &str)] = &[
            ("host", "comfy.example.org"),
            ("origin", "https://comfy.example.org"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
        ];
        let by_other_host: &[(&'static str, &str)] = &[
            ("host", "127.0.0.1:8189"),
            ("origin", "https://comfy.example.org"),
            ("x-forwarded-host", "comfy.example.org"),
            ("x-forwarded-proto", "https"),
        ];
        let proxy = |address: &str| Refusal::UntrustedProxy {
            proxy: ClientIp::new(address.parse().unwrap()),
        };
        let changed = |origin: &str| Refusal::ChangedOrigin {
            origin: origin.to_owned(),
        };
        let foreign = |origin: &str| Refusal::ForeignOrigin {
            origin: Some(origin.to_owned()),
        };
        let table = [
            (
                Scene::of("10.0.0.2", forwarded, &[]),
                Some(proxy("10.0.0.2")),
            ),
            (Scene::of("10.0.0.2", forwarded, &["10.0.0.2/32"]), None),
            (
                Scene::of("::ffff:10.0.0.2", forwarded, &[]),
                Some(proxy("10.0.0.2")),
            ),
            (
                Scene::of("10.0.0.2", by_other_host, &[]),
                Some(proxy("10.0.0.2")),
            ),
            (Scene::of("10.0.0.2", by_other_host, &["10.0.0.2/32"]), None),
            (
                Scene::new(&[("host", "Pc.Tail1.ts.net:8189")]),
                Some(Refusal::ForeignHost {
                    name: "pc.tail1.ts.net".to_owned(),
                }),
            ),
            (
                Scene::new(&[
                    ("host", "192.168.1.5:8189"),
                    ("origin", "http://127.0.0.1:11434"),
                ]),
                Some(changed("http://127.0.0.1:11434")),
            ),
            (
                Scene::new(&[
                    ("host", "127.0.0.1:8189"),
                    ("origin", "http://127.0.0.1:11434"),
                ]),
                Some(changed("http://127.0.0.1:11434")),
            ),
            (
                Scene::new(&[
                    ("host", "localhost:8189"),
                    ("origin", "https://changed.example"),
                    ("sec-fetch-site", "same-origin"),
                ]),
                Some(changed("https://changed.example")),
            ),
            (
                Scene::new(&[
                    ("host", "localhost:8189"),
                    ("origin", "http://localhost:9000"),
                    ("sec-fetch-site", "same-site"),
                ]),
                Some(foreign("http://localhost:9000")),
            ),
            (
                Scene::new(&[("host", "localhost"), ("origin", "https://evil.example")]),
                Some(foreign("https://evil.example")),
            ),
            (
                Scene::of(
                    "10.0.0.2",
                    &[
                        ("host", "localhost"),
                        ("origin", "https://evil.example"),
                        ("x-forwarded-for", "203.0.113.9"),
                    ],
                    &[],
                ),
                Some(foreign("https://evil.example")),
            ),
        ];
        for (scene, expected) in table {
            assert_eq!(scene.judge(&names()).err(), expected, "{:?}", scene.headers);
        }
        assert_eq!(
            proxy("10.0.0.2").remedy(),
            Some((RefusalKey::TrustedProxies, "10.0.0.2/32".to_owned()))
        );
        assert_eq!(
            proxy("fd00::2").remedy(),
            Some((RefusalKey::TrustedProxies, "fd00::2/128".to_owned()))
        );
    }

    #[test]
    fn a_public_file_is_read_from_anywhere_but_by_our_names_alone() {
        let read = |host: &str, method: Method| {
            let mut scene = Scene::new(&[("host", host), ("origin", "http://127.0.0.1:11434")]);
            scene.method = method;
            let asked = Asked {
                method: &scene.method,
                headers: &scene.headers,
                authority: None,
                peer: scene.peer,
                caller: &scene.caller,
                is_tls: false,
                is_page_visit: false,
                is_for_any_page: true,
            };
            judge(&asked, &names()).is_ok()
        };
        assert!(read("localhost", Method::GET));
        assert!(!read("localhost", Method::POST));
        assert!(!read("evil.example", Method::GET));
    }

    #[test]
    fn x1_x2_x3_foreign_pages_are_refused() {
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
            let mut scene = Scene::new(pairs);
            scene
                .headers
                .insert(HOST, HeaderValue::from_static("192.168.1.5:8189"));
            scene.method = method.parse().unwrap();
            scene.is_page_visit = *is_page_visit;
            assert_eq!(
                scene.judge(&names()).is_ok(),
                *expected,
                "{method} {pairs:?} page visit {is_page_visit}"
            );
        }
        let mut encrypted = Scene::new(&[
            ("host", "comfy.example.org"),
            ("origin", "https://comfy.example.org"),
        ]);
        encrypted.is_tls = true;
        assert!(encrypted.judge(&names()).is_ok());
    }
}
