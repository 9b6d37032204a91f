//! What strangers and editors write: paths, forwarding headers, address lists, settings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sentinel_gateway::access::{ClientIp, TrustedProxies, caller_of, check_address_list};
use sentinel_gateway::config::Settings;
use sentinel_gateway::proxy::{is_manager_path, normalise};
use std::net::SocketAddr;

fuzz_target!(|data: &[u8]| {
    if let Ok(uri) = http::Uri::try_from(data) {
        if let Ok(changed) = normalise(&uri) {
            let normal = changed.unwrap_or_else(|| uri.clone());
            assert!(matches!(normalise(&normal), Ok(None)), "the one form is its own form");
            is_manager_path(normal.path());
        }
    }
    if let Ok(value) = http::HeaderValue::from_bytes(data) {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-forwarded-for", value);
        let peer = SocketAddr::from(([203, 0, 113, 9], 1));
        let untrusted = caller_of(peer, &headers, &TrustedProxies::default());
        assert_eq!(untrusted.address, ClientIp::new(peer.ip()), "an untrusted peer is itself");
        let trusted = TrustedProxies::new(vec!["203.0.113.0/24".parse().unwrap()]);
        assert!(!caller_of(peer, &headers, &trusted).is_local, "a forwarded request is never local");
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = check_address_list(text);
        let _ = Settings::default().set(text);
        if let Ok(settings) = Settings::parse(text) {
            let _ = settings.config();
        }
    }
});
