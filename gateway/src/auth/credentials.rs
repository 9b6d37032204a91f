//! How a request shows who sends it. Read once, here, into a type; nothing else looks at these
//! headers.
//!
//! - `Authorization: Bearer TOKEN` decides alone, also when the token is bad.
//! - `Authorization: Basic` with an API token as the password decides alone; the user name does not
//!   count. Without a token in it, it belongs to somebody else, such as a proxy before us.
//! - `X-API-Key: TOKEN` likewise.
//! - Any other scheme of `Authorization` is not ours and hides no cookie.
//! - The cookie is last.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{ACCEPT_LANGUAGE, AUTHORIZATION, COOKIE, HeaderName, ORIGIN, USER_AGENT};
use http::{HeaderMap, HeaderValue};
use std::borrow::Cow;
use std::fmt;

/// Name of the cookie, the original's.
pub(crate) const COOKIE_NAME: &str = "jwt_token";
/// Header of an API token, by the convention of Comfy Cloud's clients.
pub(crate) const API_KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Cookies of our name that are looked at: another program on this host may set one too.
const MAX_COOKIES: usize = 4;
/// Longest text that can be one of our tokens.
const MAX_TOKEN: usize = 4096;
/// Programs write Basic with padding and without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The way in which a request shows who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialKind {
    /// `Authorization: Bearer`.
    Bearer,
    /// `Authorization: Basic` with an API token as the password.
    Basic,
    /// `X-API-Key` of a program.
    ApiKey,
    /// `X-API-Key` of a page in a browser.
    ApiKeyOfPage,
    /// The cookie.
    Cookie,
    /// `?ticket=`.
    Ticket,
}

impl CredentialKind {
    /// Whether an admin's work can be done with it at all. Not with what a browser may send by
    /// itself, what a page holds, or what stands in an address.
    pub(crate) fn may_carry_admin_rights(self) -> bool {
        match self {
            Self::Bearer | Self::ApiKey | Self::Cookie => true,
            Self::Basic | Self::ApiKeyOfPage | Self::Ticket => false,
        }
    }

    /// Whether only an API token counts, not the token of a browser's session.
    pub(super) fn is_for_api_tokens(self) -> bool {
        matches!(self, Self::Basic | Self::ApiKey | Self::ApiKeyOfPage)
    }

    /// Whether the sender may end the session by `/logout`. An API token that stands in a program's
    /// settings, or a ticket in an address, is not given up by following a link.
    pub(super) fn may_sign_out(self) -> bool {
        matches!(self, Self::Bearer | Self::Cookie)
    }
}

/// What a request brings.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential<'request> {
    /// Nothing of ours.
    Nothing,
    /// Something of ours that cannot count, and that hides what stands beside it.
    Invalid,
    /// A token that decides alone.
    Token {
        token: Cow<'request, str>,
        kind: CredentialKind,
    },
    /// Cookies of our name; the first good one counts.
    Cookies(Vec<&'request str>),
}

/// Tokens stay out of the log.
impl fmt::Debug for Credential<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Invalid => "Invalid",
            Self::Token { .. } => "Token",
            Self::Cookies(_) => "Cookies",
        })
    }
}

impl<'request> Credential<'request> {
    /// Reads the headers. Two different tokens in headers are neither.
    pub(super) fn parse(headers: &'request HeaderMap) -> Self {
        let authorization = headers.get_all(AUTHORIZATION).iter();
        let api_keys = headers.get_all(API_KEY_HEADER).iter();
        let found = authorization
            .filter_map(|line| authorization_of(line, headers))
            .chain(api_keys.filter_map(|line| api_key_of(line, headers)));
        let mut decided: Option<Self> = None;
        for next in found {
            decided = Some(match decided {
                None => next,
                Some(first) if first.is_same_token(&next) => first,
                Some(_) => Self::Invalid,
            });
        }
        decided.unwrap_or_else(|| Self::of_cookies(headers))
    }

    fn of_cookies(headers: &'request HeaderMap) -> Self {
        let cookies: Vec<&str> = cookies_named(headers, COOKIE_NAME)
            .take(MAX_COOKIES)
            .collect();
        if cookies.is_empty() {
            Self::Nothing
        } else {
            Self::Cookies(cookies)
        }
    }

    fn is_same_token(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Token { token, .. }, Self::Token { token: other, .. }) => token == other,
            _ => false,
        }
    }
}

/// Values of the cookies of one name.
pub(super) fn cookies_named<'request>(
    headers: &'request HeaderMap,
    wanted: &'static str,
) -> impl Iterator<Item = &'request str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(move |(name, _)| *name == wanted)
        .map(|(_, value)| value)
}

/// `None`: not ours.
fn authorization_of<'request>(
    line: &'request HeaderValue,
    headers: &HeaderMap,
) -> Option<Credential<'request>> {
    let bytes = line.as_bytes().trim_ascii();
    let end = bytes.iter().position(|byte| *byte == b' ');
    let (scheme, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
    let rest = std::str::from_utf8(rest.trim_ascii()).unwrap_or_default();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(if rest.is_empty() {
            Credential::Invalid
        } else {
            Credential::Token {
                token: Cow::Borrowed(rest),
                kind: CredentialKind::Bearer,
            }
        });
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let password = password_of_basic(rest).filter(|password| is_token_shaped(password))?;
    Some(if may_be_sent_by_itself(headers) {
        Credential::Invalid
    } else {
        Credential::Token {
            token: Cow::Owned(password),
            kind: CredentialKind::Basic,
        }
    })
}

fn password_of_basic(encoded: &str) -> Option<String> {
    let decoded = String::from_utf8(BASE64.decode(encoded).ok()?).ok()?;
    let (_, password) = decoded.split_once(':')?;
    Some(password.to_owned())
}

/// A browser that knows a Basic password sends it by itself, also for pages of other sites, and
/// nothing such as `SameSite` keeps it back. So it counts only where the browser says that our own
/// page or the person asks. The door has compared an Origin with ours. Over plain HTTP some
/// requests of a browser tell nothing; then it does not count.
fn may_be_sent_by_itself(headers: &HeaderMap) -> bool {
    if headers.contains_key(ORIGIN) {
        return false;
    }
    match headers.get(SEC_FETCH_SITE) {
        Some(site) => site != "same-origin" && site != "none",
        None => {
            headers.contains_key(ACCEPT_LANGUAGE)
                && headers
                    .get(USER_AGENT)
                    .is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"))
        }
    }
}

/// `None`: a custom node's key for something else.
fn api_key_of<'request>(
    line: &'request HeaderValue,
    headers: &HeaderMap,
) -> Option<Credential<'request>> {
    let token = line.to_str().ok()?.trim();
    if !is_token_shaped(token) {
        return None;
    }
    let is_of_page = headers.contains_key(ORIGIN) || headers.contains_key(SEC_FETCH_SITE);
    Some(Credential::Token {
        token: Cow::Borrowed(token),
        kind: if is_of_page {
            CredentialKind::ApiKeyOfPage
        } else {
            CredentialKind::ApiKey
        },
    })
}

/// Whether a text has the form of our tokens: a JSON web token, its signature perhaps cut off.
pub(crate) fn is_token_shaped(text: &str) -> bool {
    let is_base64 = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let mut parts = text.split('.');
    let (Some(head), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    text.len() <= MAX_TOKEN
        && head.starts_with("eyJ")
        && claims.starts_with("eyJ")
        && [head, claims, signature].into_iter().all(is_base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl";
    const OTHER: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIyIn0.c2lnbmF0dXJl";

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
    }

    fn token(kind: CredentialKind) -> Credential<'static> {
        Credential::Token {
            token: Cow::Borrowed(TOKEN),
            kind,
        }
    }

    #[test]
    fn what_counts_as_a_credential_and_what_it_hides() {
        use CredentialKind::{ApiKey, ApiKeyOfPage, Basic, Bearer};
        let bearer = format!("Bearer {TOKEN}");
        let cookie = format!("jwt_token={TOKEN}");
        let cookies = || Credential::Cookies(vec![TOKEN]);
        let (empty, any) = (basic("", TOKEN), basic("bob", TOKEN));
        let unpadded = any.trim_end_matches('=').to_owned();
        let (password, other) = (basic("bob", "correct-horse-7"), basic("bob", OTHER));
        let without_name = format!("Basic {}", BASE64.encode(TOKEN));
        let chrome = "Mozilla/5.0 (X11) Chrome/1";
        let table: Vec<(Vec<(&'static str, &str)>, Credential<'_>)> = vec![
            (vec![], Credential::Nothing),
            (vec![("cookie", &cookie)], cookies()),
            (vec![("authorization", &bearer)], token(Bearer)),
            (vec![("authorization", "bearer")], Credential::Invalid),
            (
                vec![("authorization", "Bearer"), ("cookie", &cookie)],
                Credential::Invalid,
            ),
            (vec![("authorization", &empty)], token(Basic)),
            (vec![("authorization", &any)], token(Basic)),
            (vec![("authorization", &unpadded)], token(Basic)),
            (vec![("authorization", &password)], Credential::Nothing),
            (vec![("authorization", &without_name)], Credential::Nothing),
            (
                vec![("authorization", &password), ("cookie", &cookie)],
                cookies(),
            ),
            (
                vec![("authorization", "Basic ***"), ("cookie", &cookie)],
                cookies(),
            ),
            (
                vec![("authorization", "Negotiate abc"), ("cookie", &cookie)],
                cookies(),
            ),
            (
                vec![("authorization", TOKEN), ("cookie", &cookie)],
                cookies(),
            ),
            (vec![("x-api-key", TOKEN)], token(ApiKey)),
            (
                vec![("x-api-key", "of-another-service"), ("cookie", &cookie)],
                cookies(),
            ),
            (
                vec![("x-api-key", TOKEN), ("origin", "http://localhost")],
                token(ApiKeyOfPage),
            ),
            (
                vec![("x-api-key", TOKEN), ("sec-fetch-site", "same-origin")],
                token(ApiKeyOfPage),
            ),
            (
                vec![("authorization", &bearer), ("x-api-key", TOKEN)],
                token(Bearer),
            ),
            (
                vec![("authorization", &bearer), ("x-api-key", OTHER)],
                Credential::Invalid,
            ),
            (
                vec![("authorization", &bearer), ("authorization", &other)],
                Credential::Invalid,
            ),
            (
                vec![("authorization", &password), ("authorization", &bearer)],
                token(Bearer),
            ),
            (
                vec![("authorization", &any), ("sec-fetch-site", "cross-site")],
                Credential::Invalid,
            ),
            (
                vec![("authorization", &any), ("sec-fetch-site", "same-site")],
                Credential::Invalid,
            ),
            (
                vec![("authorization", &any), ("sec-fetch-site", "same-origin")],
                token(Basic),
            ),
            (
                vec![
                    ("authorization", &any),
                    ("user-agent", chrome),
                    ("accept-language", "de"),
                ],
                Credential::Invalid,
            ),
            (
                vec![
                    ("authorization", &any),
                    ("user-agent", chrome),
                    ("accept-language", "de"),
                    ("origin", "http://localhost"),
                ],
                token(Basic),
            ),
            (
                vec![("authorization", &any), ("user-agent", "Mozilla/5.0 Shell")],
                token(Basic),
            ),
        ];
        for (lines, expected) in table {
            let headers = headers(&lines);
            let found = Credential::parse(&headers);
            assert!(found == expected, "{lines:?}: {found:?}");
        }
    }

    #[test]
    fn the_form_of_a_token() {
        for text in [TOKEN, "eyJh.eyJz.", "eyJ.eyJ.x"] {
            assert!(is_token_shaped(text), "{text}");
        }
        let long = format!("{TOKEN}{}", "x".repeat(MAX_TOKEN));
        for text in [
            "",
            "secret",
            "a.b.c",
            "eyJh.eyJz",
            "eyJh.eyJz.x.y",
            "eyJh.eyJz.x y",
            &long,
        ] {
            assert!(!is_token_shaped(text), "{text}");
        }
    }
}
