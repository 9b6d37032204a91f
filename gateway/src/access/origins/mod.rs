//! The one table of our origins: where ComfyUI and where our own pages are, as a browser sees them.
//! Redirects, the paths of cookies, links, the addresses of assets and the rules for `Host` and
//! `Origin` come from here; inside, every address is a path from the root.
//!
//! Both origins are equal so far. Whoever asks for an address already names the path alone, so the
//! table can part them.

mod base_path;
mod guard;
mod names;
mod refused;
mod tailscale;

pub use base_path::{BasePath, BasePathFault, Stripped};
pub use guard::{Asked, Refusal, RefusalKey};
pub use names::{HostNames, ReportedNames};
pub(crate) use refused::is_near;
pub use refused::{RefusedName, RefusedNames};
pub(crate) use tailscale::follow as follow_tailscale;

use super::Caller;
use http::header::{LOCATION, SET_COOKIE};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};

/// Which of our two origins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// ComfyUI's page, the gallery, and everything that is ComfyUI's.
    ComfyUi,
    /// The pages on which passwords are typed, and the management.
    Management,
}

impl Site {
    /// The origin on which a path is at home.
    pub fn of(path: &str) -> Self {
        let end = path.find(['?', '#']).unwrap_or(path.len());
        match &path[..end] {
            "/login" | "/register" | "/generate_token" | "/logout" | "/join" | "/trust"
            | "/sentinel/" | "/sentinel/account" => Self::Management,
            _ => Self::ComfyUi,
        }
    }
}

/// What the settings say of the origins.
#[derive(Clone, Debug, Default)]
pub struct OriginTable {
    names: HostNames,
    base: BasePath,
}

impl OriginTable {
    /// The table of these names and of the base path of the settings.
    pub fn new(names: HostNames, base: BasePath) -> Self {
        Self { names, base }
    }

    /// The base path of a request: of the trusted proxy that says so, else of the settings.
    pub fn base_of(&self, caller: &Caller) -> Result<BasePath, BasePathFault> {
        match &caller.forwarded_prefix {
            Some(prefix) => BasePath::parse(prefix),
            None => Ok(self.base.clone()),
        }
    }

    /// The origins as the browser that sent this request knows them, or why the request is refused.
    pub fn admit(&self, asked: &Asked<'_>, base: BasePath) -> Result<Origins, Refusal> {
        let host = guard::judge(asked, &self.names)?;
        let origin = Origin {
            is_https: asked.is_https(),
            host,
            base,
        };
        Ok(Origins {
            comfyui: origin.clone(),
            management: origin,
        })
    }
}

/// One origin and the base path in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    is_https: bool,
    host: Authority,
    base: BasePath,
}

impl Origin {
    fn url(&self) -> String {
        let scheme = if self.is_https { "https" } else { "http" };
        format!("{scheme}://{}{}", self.host, self.base)
    }
}

/// The origins as the browser of one request knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    comfyui: Origin,
    management: Origin,
}

impl Origins {
    /// Of a request that never was on the network.
    pub(crate) fn in_process() -> Self {
        let origin = Origin {
            is_https: false,
            host: Authority::from_static("localhost"),
            base: BasePath::default(),
        };
        Self {
            comfyui: origin.clone(),
            management: origin,
        }
    }

    fn of(&self, site: Site) -> &Origin {
        match site {
            Site::ComfyUi => &self.comfyui,
            Site::Management => &self.management,
        }
    }

    /// Host and port as the browser wrote them.
    pub fn host(&self) -> &Authority {
        &self.comfyui.host
    }

    /// Whether the browser speaks HTTPS.
    pub fn is_https(&self) -> bool {
        self.comfyui.is_https
    }

    /// What a page puts before a path of this site: nothing, a base path, or a whole origin.
    pub fn before(&self, site: Site) -> String {
        if self.comfyui == self.management {
            self.of(site).base.to_string()
        } else {
            self.of(site).url()
        }
    }

    /// The address of a path of ours, for redirects and pages.
    pub fn address(&self, path: &str) -> String {
        format!("{}{path}", self.before(Site::of(path)))
    }

    /// The whole URL before a path of this site, for links that leave the browser.
    pub fn url(&self, site: Site) -> String {
        self.of(site).url()
    }

    /// Puts the base path before what a response says in paths from the root: its redirect, and the
    /// paths of its cookies. Ours and ComfyUI's alike, because neither knows of a base path.
    pub fn translate(&self, headers: &mut HeaderMap) {
        if self.comfyui == self.management && self.comfyui.base.is_root() {
            return;
        }
        let location = headers
            .get(LOCATION)
            .and_then(|location| location.to_str().ok())
            .filter(|location| is_from_the_root(location))
            .and_then(|location| HeaderValue::from_str(&self.address(location)).ok());
        if let Some(location) = location {
            headers.insert(LOCATION, location);
        }
        if self.comfyui.base.is_root() || !headers.contains_key(SET_COOKIE) {
            return;
        }
        let cookies: Vec<HeaderValue> = headers
            .get_all(SET_COOKIE)
            .iter()
            .map(|cookie| below(cookie, &self.comfyui.base))
            .collect();
        headers.remove(SET_COOKIE);
        for cookie in cookies {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

/// `/path`, but not `//host`, which browsers take for another one, and neither `/\host`.
fn is_from_the_root(location: &str) -> bool {
    location
        .strip_prefix('/')
        .is_some_and(|rest| !rest.starts_with(['/', '\\']))
}

/// The cookie with its path below `base`.
fn below(cookie: &HeaderValue, base: &BasePath) -> HeaderValue {
    let Ok(text) = cookie.to_str() else {
        return cookie.clone();
    };
    let parts: Vec<String> = text
        .split(';')
        .enumerate()
        .map(|(index, part)| match part.trim().split_once('=') {
            Some((name, path))
                if index > 0 && name.eq_ignore_ascii_case("path") && path.starts_with('/') =>
            {
                let path = if path == "/" { "" } else { path };
                format!(" Path={base}{path}")
            }
            _ => part.to_owned(),
        })
        .collect();
    HeaderValue::from_str(&parts.join(";")).unwrap_or_else(|_| cookie.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(base: &str) -> Origins {
        let origin = Origin {
            is_https: true,
            host: Authority::from_static("studio.example"),
            base: BasePath::parse(base).unwrap(),
        };
        Origins {
            comfyui: origin.clone(),
            management: origin,
        }
    }

    #[test]
    fn addresses_lie_below_the_base_path() {
        let at_root = origins("");
        assert_eq!(at_root.address("/login?next=/x"), "/login?next=/x");
        assert_eq!(at_root.url(Site::Management), "https://studio.example");
        let below = origins("/ai");
        assert_eq!(below.address("/login?next=/x"), "/ai/login?next=/x");
        assert_eq!(below.address("/"), "/ai/");
        assert_eq!(below.before(Site::ComfyUi), "/ai");
        assert_eq!(below.url(Site::Management), "https://studio.example/ai");
    }

    #[test]
    fn two_origins_lead_to_each_other_by_whole_addresses() {
        let mut parted = origins("/ai");
        parted.management.host = Authority::from_static("studio.example:8190");
        assert_eq!(
            parted.address("/login"),
            "https://studio.example:8190/ai/login"
        );
        assert_eq!(
            parted.address("/sentinel/account?x#y"),
            "https://studio.example:8190/ai/sentinel/account?x#y"
        );
        assert_eq!(parted.address("/view"), "https://studio.example/ai/view");
    }

    #[test]
    fn redirects_and_cookies_of_a_response_are_put_below_the_base_path() {
        let table = [
            ("location", "/login", "/ai/login"),
            ("location", "/", "/ai/"),
            ("location", "//evil.example", "//evil.example"),
            ("location", "/\\evil.example", "/\\evil.example"),
            ("location", "https://other/x", "https://other/x"),
            ("location", "relative", "relative"),
            (
                "set-cookie",
                "a=b; Path=/; HttpOnly",
                "a=b; Path=/ai; HttpOnly",
            ),
            ("set-cookie", "a=b; path=/x", "a=b; Path=/ai/x"),
            ("set-cookie", "a=b; HttpOnly", "a=b; HttpOnly"),
            ("set-cookie", "path=/; Max-Age=1", "path=/; Max-Age=1"),
        ];
        for (name, before, after) in table {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(before));
            origins("/ai").translate(&mut headers);
            assert_eq!(headers[name], after, "{before}");
            let mut untouched = HeaderMap::new();
            untouched.insert(name, HeaderValue::from_static(before));
            origins("").translate(&mut untouched);
            assert_eq!(untouched[name], before, "{before}");
        }
    }
}
