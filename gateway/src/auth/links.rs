//! One-time links by which the machine's owner comes from his window into his browser, signed in.
//! They live in memory alone, for a minute, and count from this machine only.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Life of a link.
const LINK_LIFE: Duration = Duration::from_secs(60);
/// Links that count at once; an older one gives way.
const MAX_LINKS: usize = 8;

/// The links that still count.
#[derive(Debug, Default)]
pub(crate) struct SignInLinks(Mutex<VecDeque<([u8; 32], Instant)>>);

impl SignInLinks {
    /// The code of a new link.
    pub(crate) fn make(&self, now: Instant) -> String {
        let code = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let mut links = self.0.lock();
        while links.len() >= MAX_LINKS {
            links.pop_front();
        }
        links.push_back((digest(&code), now + LINK_LIFE));
        code
    }

    /// Takes a code; it counts once.
    pub(crate) fn take(&self, code: &str, now: Instant) -> bool {
        let code = digest(code);
        let mut links = self.0.lock();
        links.retain(|(_, until)| now < *until);
        let found = links.iter().position(|(known, _)| *known == code);
        found.and_then(|index| links.remove(index)).is_some()
    }
}

fn digest(code: &str) -> [u8; 32] {
    Sha256::digest(code.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_counts_once_for_a_minute_and_few_do_at_once() {
        let links = SignInLinks::default();
        let now = Instant::now();
        let code = links.make(now);
        assert!(!links.take("", now) && !links.take(&code[1..], now));
        assert!(links.take(&code, now) && !links.take(&code, now));
        let late = links.make(now);
        assert!(!links.take(&late, now + LINK_LIFE));
        let codes: Vec<_> = (0..=MAX_LINKS).map(|_| links.make(now)).collect();
        assert!(!links.take(&codes[0], now) && links.take(&codes[1], now));
    }
}
