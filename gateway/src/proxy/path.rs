//! The one form of a request path. ComfyUI undoes percent-escapes of ordinary letters before it
//! matches (`/%68istory`), so a path is brought into one form first, judged in that form, and
//! forwarded in that form.

use http::uri::PathAndQuery;
use http::{Method, Uri};
use std::borrow::Cow;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// A `%` without two hexadecimal digits.
    #[error("the path holds a broken percent-escape")]
    BrokenEscape,
    /// A control character, escaped or not.
    #[error("the path holds a control character")]
    ControlCharacter,
    /// `.` or `..` as a segment, in any spelling.
    #[error("the path holds a dot segment")]
    DotSegment,
    /// No path at all.
    #[error("the request has no path")]
    NoPath,
}

/// Brings the path of a request into its one form (RFC 3986 6.2.2): escapes of unreserved
/// characters undone, other escapes in capitals, absolute form made origin form. The query stays
/// as it is. `None`: it is in that form already.
pub fn normalise(uri: &Uri) -> Result<Option<Uri>, PathFault> {
    let path = uri.path();
    if !path.starts_with('/') {
        return Err(PathFault::NoPath);
    }
    let normal = normalise_path(path)?;
    if uri.authority().is_none() && matches!(normal, Cow::Borrowed(_)) {
        return Ok(None);
    }
    let target = match uri.query() {
        Some(query) => format!("{normal}?{query}"),
        None => normal.into_owned(),
    };
    let target: PathAndQuery = target.parse().map_err(|_| PathFault::ControlCharacter)?;
    Ok(Some(Uri::from(target)))
}

fn normalise_path(path: &str) -> Result<Cow<'_, str>, PathFault> {
    let normal = if path.contains('%') {
        Cow::Owned(unescape_unreserved(path)?)
    } else {
        Cow::Borrowed(path)
    };
    if normal.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(PathFault::ControlCharacter);
    }
    if normal
        .split('/')
        .any(|segment| matches!(segment, "." | ".."))
    {
        return Err(PathFault::DotSegment);
    }
    Ok(if normal == path {
        Cow::Borrowed(path)
    } else {
        normal
    })
}

fn unescape_unreserved(path: &str) -> Result<String, PathFault> {
    let mut normal = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        normal.push_str(before);
        let digits = after.get(..2).ok_or(PathFault::BrokenEscape)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(PathFault::BrokenEscape);
        }
        let byte = u8::from_str_radix(digits, 16).map_err(|_| PathFault::BrokenEscape)?;
        if byte.is_ascii_control() {
            return Err(PathFault::ControlCharacter);
        }
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            normal.push(char::from(byte));
        } else {
            normal.push('%');
            normal.push_str(&digits.to_ascii_uppercase());
        }
        rest = &after[2..];
    }
    normal.push_str(rest);
    Ok(normal)
}

/// Puts right what a proxy has decoded: ComfyUI wants a file below `/userdata/` as one segment
/// (`workflows%2Fa.json`), and many proxies pass it on as several. `None`: there is nothing to put
/// right. Nothing but slashes changes, so what a segment says is judged as it came.
pub(crate) fn mend_userdata(method: &Method, uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let (head, below) = path
        .strip_prefix("/userdata/")
        .map(|below| ("/userdata/", below))
        .or_else(|| Some(("/api/userdata/", path.strip_prefix("/api/userdata/")?)))?;
    let segments: Vec<&str> = below.split('/').collect();
    if segments.len() < 2 || segments.contains(&"") {
        return None;
    }
    let mended = match split_of_move(method, &segments) {
        Some(at) => format!(
            "{head}{}/move/{}",
            segments[..at].join("%2F"),
            segments[at + 1..].join("%2F")
        ),
        None => format!("{head}{}", segments.join("%2F")),
    };
    if mended == path {
        return None;
    }
    let target = match uri.query() {
        Some(query) => format!("{mended}?{query}"),
        None => mended,
    };
    target.parse::<PathAndQuery>().ok().map(Uri::from)
}

/// Where `{file}/move/{dest}` parts: ComfyUI's own form with three segments, or, decoded, behind the
/// first segment that looks like a file's name. A folder may be called `move`, too.
fn split_of_move(method: &Method, segments: &[&str]) -> Option<usize> {
    if *method != Method::POST {
        return None;
    }
    if let [_, "move", _] = segments {
        return Some(1);
    }
    (1..segments.len() - 1).find(|at| segments[*at] == "move" && segments[at - 1].contains('.'))
}

/// First segments of all routes of the three generations of ComfyUI-Manager.
const MANAGER_SEGMENTS: [&str; 5] = [
    "manager",
    "customnode",
    "snapshot",
    "externalmodel",
    "comfyui_manager",
];

/// Whether a path belongs to ComfyUI-Manager, which installs code: its routes bare, under `/api`
/// and `/v2` in any order, and its page scripts. Judged more widely than ComfyUI matches: without
/// regard to case, doubled slashes, escaped slashes and backslashes.
pub fn is_manager_path(normal_path: &str) -> bool {
    let decoded = percent_encoding::percent_decode_str(normal_path).decode_utf8_lossy();
    let decoded = decoded.to_ascii_lowercase().replace('\\', "/");
    let mut segments = decoded
        .split('/')
        .map(str::trim)
        .filter(|segment| !segment.is_empty())
        .skip_while(|segment| matches!(*segment, "api" | "v2"));
    match segments.next() {
        Some("extensions") => segments
            .next()
            .is_some_and(|pack| pack.starts_with("comfyui-manager")),
        Some(first) => MANAGER_SEGMENTS.contains(&first),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(target: &str) -> Result<String, PathFault> {
        let uri: Uri = target.parse().unwrap();
        Ok(normalise(&uri)?.unwrap_or(uri).to_string())
    }

    #[test]
    fn paths_and_their_one_form() {
        let table = [
            ("/history", Ok("/history")),
            ("/%68istory", Ok("/history")),
            ("/%61pi/%68istory?x=%68", Ok("/api/history?x=%68")),
            ("/api/userdata/a%2fb%252Fc", Ok("/api/userdata/a%2Fb%252Fc")),
            ("/view;x=1", Ok("/view;x=1")),
            ("/a//b/", Ok("/a//b/")),
            ("/caf%c3%a9", Ok("/caf%C3%A9")),
            ("/a%20b", Ok("/a%20b")),
            ("/..%2Fx", Ok("/..%2Fx")),
            ("http://other/history?q", Ok("/history?q")),
            ("/a%00", Err(PathFault::ControlCharacter)),
            ("/a%0d%0aX:y", Err(PathFault::ControlCharacter)),
            ("/a%7f", Err(PathFault::ControlCharacter)),
            ("/a%", Err(PathFault::BrokenEscape)),
            ("/a%z1", Err(PathFault::BrokenEscape)),
            ("/a%+1", Err(PathFault::BrokenEscape)),
            ("/../x", Err(PathFault::DotSegment)),
            ("/a/%2e%2E/x", Err(PathFault::DotSegment)),
            ("/a/.", Err(PathFault::DotSegment)),
            ("*", Err(PathFault::NoPath)),
        ];
        for (target, expected) in table {
            assert_eq!(
                normal(target).as_deref().map_err(|fault| *fault),
                expected,
                "{target}"
            );
        }
    }

    #[test]
    fn s14_u10_every_spelling_of_the_manager() {
        let yes = [
            "/customnode/install/git_url",
            "/api/customnode/install/git_url",
            "/v2/manager/reboot",
            "/api/v2/manager/reboot",
            "/v2/api/manager/reboot",
            "/api/api/manager/reboot",
            "//manager//reboot",
            "/Manager/Reboot",
            "/manager%2Freboot",
            "/%5Cmanager%5Creboot",
            "/snapshot/remove",
            "/v2/snapshot/getlist",
            "/externalmodel/getlist",
            "/comfyui_manager/comfyui_versions",
            "/v2/comfyui_manager/comfyui_switch_version",
            "/extensions/comfyui-manager/comfyui-manager.js",
            "/extensions/ComfyUI-Manager/x.js",
            "/extensions/comfyui-manager-legacy/x.js",
            "/customnode/alternatives",
            "/manager",
        ];
        for path in yes {
            assert!(is_manager_path(path), "{path}");
        }
        for path in [
            "/",
            "/prompt",
            "/api/view",
            "/extensions",
            "/extensions/core/x.js",
            "/userdata/manager",
            "/managers",
        ] {
            assert!(!is_manager_path(path), "{path}");
        }
    }

    #[test]
    fn a_decoded_userdata_path_is_put_right() {
        let mended = |method: &Method, target: &str| {
            let uri: Uri = target.parse().unwrap();
            let uri = normalise(&uri).unwrap().unwrap_or(uri);
            mend_userdata(method, &uri).map(|uri| uri.to_string())
        };
        // Name of a file, and how a client writes it; nginx decodes that and escapes anew what must be.
        let names = [
            ("b c.json", "b%20c.json", "b%20c.json"),
            (
                "äöü 图.json",
                "%C3%A4%C3%B6%C3%BC%20%E5%9B%BE.json",
                "%C3%A4%C3%B6%C3%BC%20%E5%9B%BE.json",
            ),
            ("100%.json", "100%25.json", "100%25.json"),
            ("a+b.json", "a%2Bb.json", "a+b.json"),
            ("a#b.json", "a%23b.json", "a%23b.json"),
            ("a%2Fb.json", "a%252Fb.json", "a%252Fb.json"),
        ];
        for (name, own, decoded) in names {
            for head in ["/userdata", "/api/userdata"] {
                for method in [Method::GET, Method::POST, Method::DELETE] {
                    let expected = format!("{head}/workflows%2Fa%2F{decoded}?overwrite=true");
                    let asked = format!("{head}/workflows/a/{decoded}?overwrite=true");
                    assert_eq!(mended(&method, &asked), Some(expected), "{method} {name}");
                    let asked = format!("{head}/workflows%2Fa%2F{own}");
                    assert_eq!(mended(&method, &asked), None, "{method} {name}");
                }
                let own = format!("{head}/workflows%2F{own}/move/workflows%2Fnew%2F{own}");
                assert_eq!(mended(&Method::POST, &own), None, "{name}");
                let asked = format!("{head}/workflows/{decoded}/move/workflows/new/{decoded}");
                let expected =
                    format!("{head}/workflows%2F{decoded}/move/workflows%2Fnew%2F{decoded}");
                assert_eq!(mended(&Method::POST, &asked), Some(expected), "{name}");
            }
        }
        let table = [
            (
                Method::POST,
                "/userdata/a.json/move/b/c.json",
                Some("/userdata/a.json/move/b%2Fc.json"),
            ),
            (
                Method::POST,
                "/userdata/x/a.json/move/c.json",
                Some("/userdata/x%2Fa.json/move/c.json"),
            ),
            (Method::POST, "/userdata/a/move/b", None),
            (
                Method::GET,
                "/userdata/a/move/b",
                Some("/userdata/a%2Fmove%2Fb"),
            ),
            (
                Method::POST,
                "/userdata/workflows/move/x/a.json",
                Some("/userdata/workflows%2Fmove%2Fx%2Fa.json"),
            ),
            (
                Method::POST,
                "/userdata/w/move/a.json/move/b.json",
                Some("/userdata/w%2Fmove%2Fa.json/move/b.json"),
            ),
            (Method::GET, "/userdata", None),
            (Method::GET, "/userdata/", None),
            (Method::GET, "/userdata/a.json", None),
            (Method::GET, "/userdata//a.json", None),
            (Method::GET, "/userdata/a/", None),
            (Method::GET, "/v2/userdata/a/b", None),
            (Method::GET, "/userdatas/a/b", None),
            (Method::GET, "/api/api/userdata/a/b", None),
            (
                Method::GET,
                "/userdata/a/..%2Fb",
                Some("/userdata/a%2F..%2Fb"),
            ),
        ];
        for (method, target, expected) in table {
            assert_eq!(
                mended(&method, target).as_deref(),
                expected,
                "{method} {target}"
            );
        }
    }

    proptest! {
        #[test]
        fn mending_changes_slashes_alone(path in "/(api/)?userdata/[a-z%F2./]{0,30}") {
            if let Ok(uri) = path.parse::<Uri>()
                && let Ok(normal) = normalise(&uri)
                && let Some(mended) = mend_userdata(&Method::GET, &normal.unwrap_or(uri.clone()))
            {
                let slashes = |text: &str| text.replace("%2F", "/");
                prop_assert_eq!(slashes(mended.path()), slashes(&normalise_path(uri.path()).unwrap()));
                prop_assert_eq!(mend_userdata(&Method::GET, &mended), None);
                prop_assert_eq!(normalise(&mended).unwrap(), None);
            }
        }

        #[test]
        fn the_one_form_is_its_own_form(path in "/[a-zA-Z0-9%/._~;=+ -]{0,40}") {
            if let Ok(first) = normalise_path(&path) {
                prop_assert_eq!(normalise_path(&first).unwrap(), first.as_ref());
                let decode = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
                prop_assert_eq!(decode(&path), decode(&first));
            }
        }

        #[test]
        fn escaping_letters_hides_nothing(mask: u64) {
            let escaped: String = "customnode/install/git_url"
                .chars()
                .enumerate()
                .map(|(index, letter)| {
                    if mask >> index & 1 == 1 && letter != '/' { format!("%{:02x}", u32::from(letter)) } else { letter.to_string() }
                })
                .collect();
            let uri: Uri = format!("/{escaped}").parse().unwrap();
            let uri = normalise(&uri).unwrap().unwrap_or(uri);
            prop_assert!(is_manager_path(uri.path()));
        }
    }
}
