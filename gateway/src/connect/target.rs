//! The address of the gateway as a person gives it.

use http::{HeaderValue, Uri};
use rustls::pki_types::ServerName;
use std::fmt;
use std::net::Ipv6Addr;

/// The gateway that the door leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    is_secure: bool,
    /// In lower case, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Value for the header Host.
    pub(super) authority: HeaderValue,
    /// Path that all requests go below, without a slash at its end: empty, or as `/comfyui`.
    pub(super) prefix: String,
}

/// Why an address cannot be the gateway's, as a sentence for the person who gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    /// Neither https nor http.
    #[error("the address of Sentinel must begin with https:// or http://")]
    Scheme,
    /// Credentials in the address are seen by everybody who sees the list of processes.
    #[error("the address must not hold a user name or password; the token comes from a file")]
    UserInfo,
    /// A query would be sent with no request.
    #[error("the address must end with the host, the port or a path, without \"?\"")]
    Query,
    /// No address at all.
    #[error("this is not the address of a Sentinel, as https://studio.local:8189 is one")]
    Address,
}

impl Target {
    /// Reads `https://host[:port][/path]`.
    pub(crate) fn parse(address: &str) -> Result<Self, TargetError> {
        let address = address.trim();
        if !address.bytes().all(|byte| byte.is_ascii_graphic()) || address.contains(['\\', '#']) {
            return Err(TargetError::Address);
        }
        let (is_secure, default_port) = match address.split_once("://") {
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => (true, 443),
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => (false, 80),
            _ => return Err(TargetError::Scheme),
        };
        let uri: Uri = address.parse().map_err(|_| TargetError::Address)?;
        let authority = uri.authority().ok_or(TargetError::Address)?;
        if authority.as_str().contains('@') {
            return Err(TargetError::UserInfo);
        }
        if uri.query().is_some() {
            return Err(TargetError::Query);
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
        let name = authority.host().to_ascii_lowercase();
        let host = match name.strip_prefix('[') {
            Some(inner) => {
                let inner = inner.strip_suffix(']').ok_or(TargetError::Address)?;
                inner
                    .parse::<Ipv6Addr>()
                    .map_err(|_| TargetError::Address)?;
                inner.to_owned()
            }
            None => name.clone(),
        };
        if ServerName::try_from(host.as_str()).is_err() {
            return Err(TargetError::Address);
        }
        let shown = if port == default_port {
            name
        } else {
            format!("{name}:{port}")
        };
        Ok(Self {
            is_secure,
            host,
            port,
            authority: HeaderValue::from_str(&shown).map_err(|_| TargetError::Address)?,
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Whether it is reached over TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// The name that its certificate must be for.
    pub(super) fn server_name(&self) -> Result<ServerName<'static>, TargetError> {
        ServerName::try_from(self.host.clone()).map_err(|_| TargetError::Address)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        let authority = self.authority.to_str().unwrap_or_default();
        write!(formatter, "{scheme}://{authority}{}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let table = [
            ("https://studio", "studio", 443, "studio", ""),
            (
                "https://Studio.local:8189/",
                "studio.local",
                8189,
                "studio.local:8189",
                "",
            ),
            (
                "HTTPS://192.168.1.5:443",
                "192.168.1.5",
                443,
                "192.168.1.5",
                "",
            ),
            (
                "http://localhost:8189",
                "localhost",
                8189,
                "localhost:8189",
                "",
            ),
            ("http://localhost:80", "localhost", 80, "localhost", ""),
            (
                "https://[FD00::1]:8189",
                "fd00::1",
                8189,
                "[fd00::1]:8189",
                "",
            ),
            (
                "https://example.org/comfyui/",
                "example.org",
                443,
                "example.org",
                "/comfyui",
            ),
            (
                " https://example.org/a/b ",
                "example.org",
                443,
                "example.org",
                "/a/b",
            ),
        ];
        for (address, host, port, authority, prefix) in table {
            let target = Target::parse(address).unwrap();
            assert_eq!(
                (
                    target.host.as_str(),
                    target.port,
                    target.authority.to_str().unwrap(),
                    target.prefix.as_str(),
                ),
                (host, port, authority, prefix),
                "{address}"
            );
            assert_eq!(target.is_secure, !address.trim().starts_with("http:"));
            assert_eq!(Target::parse(&target.to_string()), Ok(target), "{address}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let table = [
            ("studio.local:8189", TargetError::Scheme),
            ("ftp://studio", TargetError::Scheme),
            ("ws://studio", TargetError::Scheme),
            ("", TargetError::Scheme),
            ("https://bob:secret@studio", TargetError::UserInfo),
            ("https://studio/?token=1", TargetError::Query),
            ("https://studio#a", TargetError::Address),
            ("https://", TargetError::Address),
            ("https://studio:0", TargetError::Address),
            ("https://studio:99999", TargetError::Address),
            ("https://[studio]", TargetError::Address),
            ("https://stu dio", TargetError::Address),
            ("https://studio\r\nx", TargetError::Address),
            ("https://stu\\dio", TargetError::Address),
        ];
        for (address, expected) in table {
            assert_eq!(Target::parse(address), Err(expected), "{address:?}");
        }
    }
}
