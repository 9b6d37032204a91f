//! Names of pages in a ComfyUI that several users share: each user's begin with his own id, so that
//! nobody can listen in on another's page or deafen it (comfyui-api.md R15, W8, D8).

use crate::accounts::UserId;
use http::Uri;
use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Longest name that is kept of a client's own, bytes.
const MAX_NAME: usize = 200;
/// A name goes into a query as it stands but for what has a meaning there.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// The name under which ComfyUI knows a user's page. A page adopts it from ComfyUI's first message
/// and uses it from then on, so it maps to itself.
pub(super) fn own(user: &UserId, named: Option<&str>) -> String {
    let prefix = format!("{user}.");
    match named {
        Some(name) if name.starts_with(&prefix) => name.to_owned(),
        Some(name) if !name.is_empty() => {
            let end = (0..=MAX_NAME.min(name.len()))
                .rev()
                .find(|end| name.is_char_boundary(*end))
                .unwrap_or(0);
            format!("{prefix}{}", &name[..end])
        }
        // Without a name its events would go to everybody's pages.
        _ => format!("{prefix}none"),
    }
}

/// The name in the query of `/ws`.
pub(super) fn of_query(query: Option<&str>) -> Option<String> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == "clientId").then(|| decode(value))
    })
}

/// The address of `/ws` with a user's own name and nothing else in the query.
pub(super) fn rewrite(uri: &Uri, name: &str) -> Option<PathAndQuery> {
    let name = utf8_percent_encode(name, ESCAPED);
    format!("{}?clientId={name}", uri.path()).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pages_are_their_users_own() {
        let anna = UserId::parse("anna").unwrap();
        assert_eq!(own(&anna, Some("x")), "anna.x");
        assert_eq!(own(&anna, Some("anna.x")), "anna.x");
        assert_eq!(own(&anna, Some("bert.x")), "anna.bert.x");
        assert_eq!(own(&anna, None), "anna.none");
        assert_eq!(own(&anna, Some("")), "anna.none");
        assert!(own(&anna, Some(&"ä".repeat(500))).len() <= 210);
        let uri: Uri = "/ws?a=1&client%49d=b%26c&clientId=z".parse().unwrap();
        let name = of_query(uri.query()).unwrap();
        assert_eq!(name, "b&c");
        let rewritten = rewrite(&uri, &own(&anna, Some(&name))).unwrap();
        assert_eq!(rewritten.as_str(), "/ws?clientId=anna.b%26c");
    }
}
