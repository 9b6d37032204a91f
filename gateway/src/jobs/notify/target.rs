//! The addresses that users set, read into what is needed to send there.

use http::Uri;
use std::fmt;
use std::net::Ipv6Addr;

/// Where a message goes. Its path is a secret and never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(super) kind: Kind,
    pub(super) is_secure: bool,
    /// In lower case, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Host and port as they were written.
    pub(super) authority: String,
    pub(super) path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ntfy,
    Webhook,
}

/// Why there is no sending to an address, as a sentence for its user.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("messages go to ntfy or to a webhook")]
    Kind,
    #[error("the address must begin with https:// or http://")]
    Scheme,
    #[error("the address must not hold a user name or password")]
    UserInfo,
    #[error("the address names no topic, as in https://ntfy.sh/topic")]
    Topic,
    #[error("this is not a valid address")]
    Address,
}

impl Target {
    /// Reads the address of a `kind`, `ntfy` or `webhook`.
    pub(crate) fn parse(kind: &str, address: &str) -> Result<Self, TargetError> {
        let kind = match kind {
            "ntfy" => Kind::Ntfy,
            "webhook" => Kind::Webhook,
            _ => return Err(TargetError::Kind),
        };
        let address = address.trim();
        if !address.bytes().all(|byte| byte.is_ascii_graphic()) || address.contains('\\') {
            return Err(TargetError::Address);
        }
        let uri: Uri = address.parse().map_err(|_| TargetError::Address)?;
        let (is_secure, default_port) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err(TargetError::Scheme),
        };
        let authority = uri.authority().ok_or(TargetError::Address)?;
        if authority.as_str().contains('@') {
            return Err(TargetError::UserInfo);
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => default_port,
            Some(port) => port
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .filter(|port| *port != 0)
                .ok_or(TargetError::Address)?,
            None => return Err(TargetError::Address),
        };
        let host = authority.host().to_ascii_lowercase();
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                let inner = inner.strip_suffix(']').ok_or(TargetError::Address)?;
                inner
                    .parse::<Ipv6Addr>()
                    .map_err(|_| TargetError::Address)?;
                inner.to_owned()
            }
            None => host,
        };
        if host.is_empty() {
            return Err(TargetError::Address);
        }
        if kind == Kind::Ntfy && uri.path().trim_matches('/').is_empty() {
            return Err(TargetError::Topic);
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            kind,
            is_secure,
            host,
            port,
            authority: authority.as_str().to_owned(),
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            },
        })
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Target")
            .field("kind", &self.kind)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let table = [
            ("ntfy", "https://ntfy.sh/secret", "ntfy.sh", 443, "/secret"),
            (
                "ntfy",
                "http://NTFY.local:8080/a?b=c#d",
                "ntfy.local",
                8080,
                "/a?b=c",
            ),
            ("webhook", "https://example.org", "example.org", 443, "/"),
            (
                "webhook",
                "https://example.org?a",
                "example.org",
                443,
                "/?a",
            ),
            (
                "webhook",
                "http://[2001:DB8::1]:81/x",
                "2001:db8::1",
                81,
                "/x",
            ),
        ];
        for (kind, address, host, port, path) in table {
            let target = Target::parse(kind, address).unwrap();
            assert_eq!(
                (target.host.as_str(), target.port, target.path.as_str()),
                (host, port, path),
                "{address}"
            );
            assert!(!format!("{target:?}").contains("secret"));
        }
        let table = [
            ("mail", "https://example.org/", TargetError::Kind),
            ("webhook", "ftp://example.org/", TargetError::Scheme),
            ("webhook", "file:///etc/passwd", TargetError::Address),
            ("webhook", "/path", TargetError::Scheme),
            ("webhook", "example.org", TargetError::Scheme),
            ("webhook", "", TargetError::Address),
            ("webhook", "https://", TargetError::Address),
            ("webhook", "https://:80/", TargetError::Address),
            ("webhook", "https://a:b@example.org/", TargetError::UserInfo),
            ("webhook", "https://a@example.org/", TargetError::UserInfo),
            ("webhook", "https://example.org:0/", TargetError::Address),
            (
                "webhook",
                "https://example.org:65536/",
                TargetError::Address,
            ),
            ("webhook", "https://example.org:/", TargetError::Address),
            ("webhook", "https://exam ple.org/", TargetError::Address),
            (
                "webhook",
                "https://example.org/\r\nx: y",
                TargetError::Address,
            ),
            (
                "webhook",
                "https://example.org\\@localhost/",
                TargetError::Address,
            ),
            ("webhook", "https://[::1%25lo]/", TargetError::Address),
            ("ntfy", "https://ntfy.sh/", TargetError::Topic),
        ];
        for (kind, address, expected) in table {
            assert_eq!(
                Target::parse(kind, address).unwrap_err(),
                expected,
                "{address}"
            );
        }
    }
}
