//! The path below which a reverse proxy shows us, such as `/comfyui`.

use http::Uri;
use http::uri::PathAndQuery;
use std::fmt;

/// Longest base path, bytes.
const MAX_LENGTH: usize = 128;
/// First segments that are addresses of ours or of ComfyUI below any base path; as a base path they
/// would make two meanings of one address.
const TAKEN: [&str; 3] = ["sentinel", "api", "ws"];

/// A base path, without a slash at the end; empty for the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BasePath(String);

/// Why a text is no base path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BasePathFault {
    /// It does not begin with one slash.
    #[error("must begin with one slash, as /comfyui does")]
    Start,
    /// A segment is empty, a dot segment, or holds more than letters, digits and `-._~`.
    #[error("may hold letters, digits, hyphens, dots, underscores and tildes between its slashes")]
    Segment,
    /// It is too long.
    #[error("must not be longer than {MAX_LENGTH} characters")]
    Length,
    /// Its first segment is an address of ours or of ComfyUI.
    #[error("must not begin with /sentinel, /api or /ws, which are addresses of their own")]
    Taken,
}

impl BasePath {
    /// Reads `/comfyui` or `/comfyui/`; the empty text and `/` are the root. Strict, because the
    /// text goes into headers and pages.
    pub fn parse(text: &str) -> Result<Self, BasePathFault> {
        let path = text.strip_suffix('/').unwrap_or(text);
        if path.is_empty() {
            return Ok(Self::default());
        }
        if path.len() > MAX_LENGTH {
            return Err(BasePathFault::Length);
        }
        let segments = path.strip_prefix('/').ok_or(BasePathFault::Start)?;
        if segments.starts_with('/') {
            return Err(BasePathFault::Start);
        }
        let is_plain = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        };
        if !segments.split('/').all(is_plain) {
            return Err(BasePathFault::Segment);
        }
        let first = segments.split('/').next().unwrap_or_default();
        if TAKEN.iter().any(|taken| first.eq_ignore_ascii_case(taken)) {
            return Err(BasePathFault::Taken);
        }
        Ok(Self(path.to_owned()))
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The text before a path of ours: empty, or `/comfyui`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A request's address without this base path, where the proxy has left it on. `None`: there is
    /// nothing to take off.
    pub fn strip(&self, uri: &Uri) -> Option<Stripped> {
        if self.is_root() {
            return None;
        }
        let rest = uri.path().strip_prefix(&self.0)?;
        if rest.is_empty() {
            return Some(Stripped::LacksSlash);
        }
        if !rest.starts_with('/') {
            return None;
        }
        let target = match uri.query() {
            Some(query) => format!("{rest}?{query}"),
            None => rest.to_owned(),
        };
        let target: PathAndQuery = target.parse().ok()?;
        Some(Stripped::Path(Uri::from(target)))
    }
}

impl fmt::Display for BasePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// An address whose base path was taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stripped {
    /// The address below it.
    Path(Uri),
    /// The base path alone: a page there needs a slash at the end, or its relative addresses lead
    /// beside it.
    LacksSlash,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn base_paths_are_read_strictly() {
        let table = [
            ("", Ok("")),
            ("/", Ok("")),
            ("/comfyui", Ok("/comfyui")),
            ("/comfyui/", Ok("/comfyui")),
            ("/user/a.b/proxy/8188/", Ok("/user/a.b/proxy/8188")),
            ("comfyui", Err(BasePathFault::Start)),
            ("//evil.example", Err(BasePathFault::Start)),
            ("http://evil.example/", Err(BasePathFault::Start)),
            ("/a//b", Err(BasePathFault::Segment)),
            ("/a//", Err(BasePathFault::Segment)),
            ("/../a", Err(BasePathFault::Segment)),
            ("/a/.", Err(BasePathFault::Segment)),
            ("/a\\b", Err(BasePathFault::Segment)),
            ("/\\evil.example", Err(BasePathFault::Segment)),
            ("/a\r\nSet-Cookie: x", Err(BasePathFault::Segment)),
            ("/a b", Err(BasePathFault::Segment)),
            ("/a%2Fb", Err(BasePathFault::Segment)),
            ("/a?b", Err(BasePathFault::Segment)),
            ("/a\"><script>", Err(BasePathFault::Segment)),
            ("/ä", Err(BasePathFault::Segment)),
            ("/a;b", Err(BasePathFault::Segment)),
            ("/sentinel", Err(BasePathFault::Taken)),
            ("/API/x", Err(BasePathFault::Taken)),
        ];
        for (text, expected) in table {
            let read = BasePath::parse(text);
            assert_eq!(
                read.as_ref().map(BasePath::as_str),
                expected.as_ref().copied(),
                "{text}"
            );
        }
        let long = format!("/{}", "a".repeat(MAX_LENGTH));
        assert_eq!(BasePath::parse(&long), Err(BasePathFault::Length));
    }

    #[test]
    fn it_is_taken_off_whole_segments_alone() {
        let base = BasePath::parse("/ai").unwrap();
        let table = [
            ("/ai/", Some("/")),
            ("/ai/view?filename=a%20b", Some("/view?filename=a%20b")),
            ("/ai//x", Some("//x")),
            ("/aix/view", None),
            ("/AI/view", None),
            ("/view", None),
            ("/", None),
        ];
        for (address, expected) in table {
            let expected = expected.map(|path: &str| Stripped::Path(path.parse().unwrap()));
            assert_eq!(base.strip(&address.parse().unwrap()), expected, "{address}");
        }
        for address in ["/ai", "/ai?x=1"] {
            let stripped = base.strip(&address.parse().unwrap());
            assert_eq!(stripped, Some(Stripped::LacksSlash), "{address}");
        }
        assert_eq!(BasePath::default().strip(&Uri::from_static("/ai/")), None);
    }

    proptest! {
        #[test]
        fn whatever_is_taken_stays_on_this_host_and_in_its_header(text in "\\PC{0,40}") {
            if let Ok(base) = BasePath::parse(&text) {
                prop_assert!(http::HeaderValue::from_str(base.as_str()).is_ok());
                prop_assert!(base.is_root() || base.as_str().starts_with('/'));
                prop_assert!(!base.as_str().starts_with("//"));
            }
        }
    }
}
