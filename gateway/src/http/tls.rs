//! Certificates: the owner's own files, or a local authority and a leaf made here for all names and
//! addresses of this machine.

use crate::files::{self, Fingerprint, Rereading};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;

/// Life of the authority.
const AUTHORITY_LIFE: Duration = Duration::days(3650);
/// Life of the leaf: browsers refuse more than 825 days from a private authority.
const LEAF_LIFE: Duration = Duration::days(397);
/// The leaf is made anew when it has less than this left.
const LEAF_RENEWAL: Duration = Duration::days(30);

/// Why there is no encryption.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot read or write {path}")]
    Io {
        /// The file.
        path: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// A file holds no certificate or key.
    #[error("{path} holds no usable certificate or key: {fault}")]
    Pem {
        /// The file.
        path: String,
        /// What is wrong.
        fault: String,
    },
    /// A certificate could not be made.
    #[error("a certificate could not be made")]
    Make(#[from] rcgen::Error),
    /// Certificate and key do not fit.
    #[error("the certificate and its key do not fit together")]
    Rustls(#[from] rustls::Error),
}

/// Where certificate and key come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// Made here, kept in this directory, for these names and addresses.
    Made {
        /// Directory of the files.
        directory: PathBuf,
        /// Host names.
        names: Vec<String>,
        /// Addresses.
        addresses: Vec<IpAddr>,
    },
    /// The owner's own PEM files.
    Files {
        /// Certificate chain.
        certificate: PathBuf,
        /// Key.
        key: PathBuf,
    },
}

impl CertificateSource {
    fn fingerprints(&self) -> [Fingerprint; 2] {
        match self {
            Self::Files { certificate, key } => {
                [Fingerprint::of(certificate), Fingerprint::of(key)]
            }
            Self::Made { directory, .. } => [
                Fingerprint::of(&directory.join(LEAF)),
                Fingerprint::of(&directory.join(LEAF_KEY)),
            ],
        }
    }
}

/// What people are told of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Whether it was made here, so that devices must be told to trust it.
    pub is_made: bool,
    /// SHA-256 of what a device is told to trust: our authority, or the owner's certificate.
    pub sha256: String,
    /// Names and addresses it is for.
    pub names: Vec<String>,
    /// When it ends, seconds since 1970; one that was made here is renewed before.
    pub expires_at: i64,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    facts: CertificateFacts,
}

/// Encryption in force; replaced without a restart.
#[derive(Debug)]
pub struct Tls {
    source: CertificateSource,
    current: ArcSwap<Loaded>,
    seen: Mutex<Rereading<[Fingerprint; 2]>>,
}

impl Tls {
    /// Loads or makes the certificate.
    pub fn open(source: CertificateSource) -> Result<Self, TlsError> {
        let seen = source.fingerprints();
        let current = ArcSwap::from_pointee(load(&source)?);
        // What was made here has other ones now, and is as it was made.
        let seen = match source {
            CertificateSource::Made { .. } => source.fingerprints(),
            CertificateSource::Files { .. } => seen,
        };
        let seen = Mutex::new(Rereading::after(seen));
        Ok(Self {
            source,
            current,
            seen,
        })
    }

    /// Where certificate and key come from.
    pub fn source(&self) -> &CertificateSource {
        &self.source
    }

    /// What to hand to the handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// What people are told of the certificate.
    pub fn facts(&self) -> CertificateFacts {
        self.current.load().facts.clone()
    }

    /// The authority that signs what is made here, as PEM: what a device is told to trust.
    pub fn authority(&self) -> Result<Option<String>, TlsError> {
        match &self.source {
            CertificateSource::Made { directory, .. } => read(&directory.join(AUTHORITY)),
            CertificateSource::Files { .. } => Ok(None),
        }
    }

    /// Loads the owner's files again when they have changed; on an error the last good certificate
    /// stays.
    pub fn reload_if_changed(&self) -> Result<(), TlsError> {
        let now = self.source.fingerprints();
        {
            let seen = self.seen.lock();
            if !seen.is_due(&now) {
                return Ok(());
            }
        }
        let loaded = load(&self.source);
        // Also of a part that is not written yet.
        self.seen.lock().note(now, loaded.is_err());
        self.current.store(Arc::new(loaded?));
        Ok(())
    }

    /// Makes a certificate anew that ends soon.
    pub fn renew_if_needed(&self) -> Result<(), TlsError> {
        let soon = (OffsetDateTime::now_utc() + LEAF_RENEWAL).unix_timestamp();
        let is_ours = matches!(self.source, CertificateSource::Made { .. });
        if is_ours && self.current.load().facts.expires_at <= soon {
            self.current.store(Arc::new(load(&self.source)?));
        }
        Ok(())
    }
}

fn load(source: &CertificateSource) -> Result<Loaded, TlsError> {
    let (certificate, key, trusted) = match source {
        CertificateSource::Files { certificate, key } => {
            (certificate.clone(), key.clone(), certificate.clone())
        }
        CertificateSource::Made {
            directory,
            names,
            addresses,
        } => {
            make_where_needed(directory, names, addresses)?;
            (
                directory.join(LEAF),
                directory.join(LEAF_KEY),
                directory.join(AUTHORITY),
            )
        }
    };
    let config = server_config(&certificate, &key)?;
    let leaf = first_certificate(&certificate)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf)
        .map_err(|error| not_usable(&certificate, &error))?;
    let names = parsed
        .subject_alternative_name()
        .ok()
        .flatten()
        .into_iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        })
        .collect();
    Ok(Loaded {
        config,
        facts: CertificateFacts {
            is_made: matches!(source, CertificateSource::Made { .. }),
            sha256: fingerprint(&first_certificate(&trusted)?),
            names,
            expires_at: parsed.validity().not_after.timestamp(),
        },
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// As devices show it: `AB:CD:…`.
fn fingerprint(certificate: &[u8]) -> String {
    let pairs: Vec<_> = Sha256::digest(certificate)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    pairs.join(":")
}

fn first_certificate(path: &Path) -> Result<CertificateDer<'static>, TlsError> {
    CertificateDer::from_pem_file(path).map_err(|error| not_usable(path, &error))
}

fn not_usable(path: &Path, fault: &dyn std::fmt::Display) -> TlsError {
    TlsError::Pem {
        path: path.display().to_string(),
        fault: fault.to_string(),
    }
}

fn read(path: &Path) -> Result<Option<String>, TlsError> {
    files::read_optional(path).map_err(|source| TlsError::Io {
        path: path.display().to_string(),
        source,
    })
}

const AUTHORITY: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority.key";
const LEAF: &str = "certificate.pem";
const LEAF_KEY: &str = "certificate.key";
const LEAF_NAMES: &str = "certificate.names";

fn server_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .map_err(|error| not_usable(certificate, &error))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| not_usable(certificate, &error))?;
    if chain.is_empty() {
        return Err(not_usable(certificate, &"no certificate in it"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| not_usable(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn make_where_needed(
    directory: &Path,
    names: &[String],
    addresses: &[IpAddr],
) -> Result<(), TlsError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |source| TlsError::Io { path, source }
    };
    let path = |name: &str| directory.join(name);
    let _lock = files::WriteLock::acquire(&path(LEAF)).map_err(failed(&path(LEAF)))?;
    let read = |name: &str| read(&path(name));
    let write = |name: &str, text: &str| {
        files::write_atomically(&path(name), text.as_bytes()).map_err(failed(&path(name)))
    };
    let now = OffsetDateTime::now_utc();
    let (authority, is_new_authority) = match (read(AUTHORITY)?, read(AUTHORITY_KEY)?) {
        (Some(certificate), Some(key)) => (
            Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key)?)?,
            false,
        ),
        _ => {
            let key = KeyPair::generate()?;
            let parameters = authority_parameters(now);
            let certificate = parameters.self_signed(&key)?;
            write(AUTHORITY_KEY, &key.serialize_pem())?;
            write(AUTHORITY, &certificate.pem())?;
            (Issuer::new(parameters, key), true)
        }
    };
    let mut wanted: Vec<String> = names
        .iter()
        .cloned()
        .chain(addresses.iter().map(IpAddr::to_string))
        .collect();
    wanted.sort();
    wanted.dedup();
    let wanted = wanted.join("\n");
    let is_good = !is_new_authority
        && read(LEAF_NAMES)?.as_deref() == Some(wanted.as_str())
        && read(LEAF)?.is_some_and(|pem| lasts_beyond(&pem, now + LEAF_RENEWAL))
        && read(LEAF_KEY)?.is_some();
    if is_good {
        return Ok(());
    }
    let key = KeyPair::generate()?;
    let leaf = leaf_parameters(names, addresses, now)?.signed_by(&key, &authority)?;
    let chain = leaf.pem() + &read(AUTHORITY)?.unwrap_or_default();
    write(LEAF_KEY, &key.serialize_pem())?;
    write(LEAF, &chain)?;
    write(LEAF_NAMES, &wanted)
}

fn lasts_beyond(pem: &str, moment: OffsetDateTime) -> bool {
    x509_parser::pem::parse_x509_pem(pem.as_bytes())
        .ok()
        .and_then(|(_, pem)| {
            Some(pem.parse_x509().ok()?.validity().not_after.timestamp() > moment.unix_timestamp())
        })
        .unwrap_or(false)
}

fn authority_parameters(now: OffsetDateTime) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    let host = crate::platform::host_name();
    parameters
        .distinguished_name
        .push(DnType::CommonName, format!("ComfyUI Sentinel on {host}"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.not_before = now - Duration::days(1);
    parameters.not_after = now + AUTHORITY_LIFE;
    parameters
}

fn leaf_parameters(
    names: &[String],
    addresses: &[IpAddr],
    now: OffsetDateTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(names.to_vec())?;
    parameters
        .subject_alt_names
        .extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
    let name = names.first().map_or("ComfyUI Sentinel", String::as_str);
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.not_before = now - Duration::days(1);
    parameters.not_after = now + LEAF_LIFE;
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(directory: &Path, names: &[&str]) -> CertificateSource {
        CertificateSource::Made {
            directory: directory.to_path_buf(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            addresses: vec![[192, 168, 1, 5].into(), "::1".parse().unwrap()],
        }
    }

    #[test]
    fn the_authority_stays_and_the_leaf_follows_the_names() {
        let directory = tempfile::tempdir().unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        Tls::open(made(directory.path(), &["localhost"])).unwrap();
        let (authority, leaf) = (read(AUTHORITY), read(LEAF));
        Tls::open(made(directory.path(), &["localhost"])).unwrap();
        assert_eq!(
            (read(AUTHORITY), read(LEAF)),
            (authority.clone(), leaf.clone())
        );
        Tls::open(made(directory.path(), &["localhost", "comfyui.local"])).unwrap();
        assert_eq!(read(AUTHORITY), authority);
        assert_ne!(read(LEAF), leaf);
    }

    #[test]
    fn a_bad_file_on_reload_keeps_the_last_good_certificate() {
        let directory = tempfile::tempdir().unwrap();
        Tls::open(made(directory.path(), &["localhost"])).unwrap();
        let (certificate, key) = (
            directory.path().join("own.pem"),
            directory.path().join("own.key"),
        );
        std::fs::copy(directory.path().join(LEAF), &certificate).unwrap();
        std::fs::copy(directory.path().join(LEAF_KEY), &key).unwrap();
        let tls = Tls::open(CertificateSource::Files {
            certificate: certificate.clone(),
            key,
        })
        .unwrap();
        let before = Arc::as_ptr(&tls.config());
        std::fs::write(&certificate, "nonsense").unwrap();
        assert!(tls.reload_if_changed().is_err());
        assert_eq!(before, Arc::as_ptr(&tls.config()));
    }
}
