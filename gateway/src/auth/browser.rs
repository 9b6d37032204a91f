//! The cookie by which a browser that has signed in before is known again. It opens nothing: it only
//! keeps what strangers fail at from its user.

use super::credentials::cookies_named;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

/// Name of the cookie.
pub(crate) const BROWSER_COOKIE_NAME: &str = "sentinel_browser";
/// Seconds for which a browser is known after a sign-in.
const LIFE: u32 = 365 * 24 * 3600;
/// Characters of 32 random bytes.
const LENGTH: usize = 43;

/// What a browser is known by.
pub(super) struct Browser(String);

impl Browser {
    /// The browser that sent these headers, if it has such a cookie.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        cookies_named(headers, BROWSER_COOKIE_NAME)
            .next()
            .filter(|value| value.len() == LENGTH)
            .map(|value| Self(value.to_owned()))
    }

    /// A browser that is not known yet.
    pub(super) fn new() -> Self {
        Self(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
    }

    /// What is written down of it.
    pub(super) fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// The cookie with its attributes.
    pub(super) fn cookie(&self, is_https: bool) -> HeaderValue {
        let secure = if is_https { "; Secure" } else { "" };
        let text = format!(
            "{BROWSER_COOKIE_NAME}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age={LIFE}{secure}",
            self.0
        );
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}
