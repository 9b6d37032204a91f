//! Whether the certificate of the gateway is to be trusted: one that the whole web trusts is, else
//! only the one with the fingerprint that the person gave.

use super::fingerprint::Fingerprint;
use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use std::sync::Arc;

/// What makes a certificate good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// One of the authorities that browsers know has signed it.
    Public,
    /// It, or the authority that has signed it and comes along, has this fingerprint.
    Pinned(Fingerprint),
}

/// The message about a refused certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What to compare with Sentinel's own pages: of the authority where Sentinel made one, else of
    /// the certificate itself.
    pub(crate) fingerprint: Fingerprint,
    /// Why.
    pub(crate) reason: RefusedReason,
}

/// Why a certificate was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RefusedReason {
    /// No known authority has signed it.
    Unknown,
    /// It is not the one whose fingerprint was given.
    OtherFingerprint,
    /// It is for other names, has ended, or the like.
    NotValid(String),
}

/// Verifies certificates, and remembers the last that it refused: rustls' errors do not hold it.
#[derive(Debug)]
pub(super) struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    refused: Mutex<Option<Refused>>,
}

impl Verifier {
    /// Settings for TLS that ask this verifier, and the verifier.
    pub(super) fn config(trust: Trust) -> Result<(Arc<ClientConfig>, Arc<Self>), Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(Self {
            trust,
            provider: Arc::clone(&provider),
            refused: Mutex::default(),
        });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok((Arc::new(config), verifier))
    }

    /// The last certificate that was refused, once.
    pub(super) fn take_refused(&self) -> Option<Refused> {
        self.refused.lock().take()
    }

    /// Whether these authorities vouch for the certificate, its names and its dates.
    fn vouched_for(
        &self,
        roots: RootCertStore,
        chain: &Chain<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(chain.leaf, chain.others, name, &[], now)
    }

    fn judge(
        &self,
        chain: &Chain<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, (RefusedReason, Error)> {
        match self.trust {
            Trust::Public => {
                let roots = RootCertStore {
                    roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
                };
                self.vouched_for(roots, chain, name, now)
            }
            // Its own key is what is trusted; names and dates say nothing more.
            Trust::Pinned(pin) if Fingerprint::of(chain.leaf) == pin => {
                Ok(ServerCertVerified::assertion())
            }
            Trust::Pinned(pin) => {
                let mut others = chain.others.iter();
                let Some(authority) = others.find(|other| Fingerprint::of(other) == pin) else {
                    let error = CertificateError::ApplicationVerificationFailure.into();
                    return Err((RefusedReason::OtherFingerprint, error));
                };
                let mut roots = RootCertStore::empty();
                roots
                    .add(authority.clone())
                    .and_then(|()| self.vouched_for(roots, chain, name, now))
            }
        }
        .map_err(|error| {
            let reason = match &error {
                Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                    RefusedReason::Unknown
                }
                other => RefusedReason::NotValid(other.to_string()),
            };
            (reason, error)
        })
    }
}

/// What a server shows of itself.
struct Chain<'chain> {
    leaf: &'chain CertificateDer<'chain>,
    others: &'chain [CertificateDer<'chain>],
}

impl Chain<'_> {
    /// The certificate that Sentinel's pages show the fingerprint of.
    fn shown(&self) -> Fingerprint {
        let authority = self.others.last().filter(|other| is_own_authority(other));
        Fingerprint::of(authority.unwrap_or(self.leaf))
    }
}

/// Whether a certificate is an authority that has signed itself.
fn is_own_authority(certificate: &[u8]) -> bool {
    x509_parser::parse_x509_certificate(certificate)
        .is_ok_and(|(_, parsed)| parsed.is_ca() && parsed.subject() == parsed.issuer())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = Chain { leaf, others };
        self.judge(&chain, name, now).map_err(|(reason, error)| {
            *self.refused.lock() = Some(Refused {
                fingerprint: chain.shown(),
                reason,
            });
            error
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use time::{Duration, OffsetDateTime};

    struct Made {
        leaf: CertificateDer<'static>,
        authority: CertificateDer<'static>,
    }

    fn make(name: &str, lasts: Duration) -> Made {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let authority = parameters.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(parameters, key);
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let now = OffsetDateTime::now_utc();
        parameters.not_before = now - Duration::days(9);
        parameters.not_after = now + lasts;
        let key = KeyPair::generate().unwrap();
        let leaf = parameters.signed_by(&key, &issuer).unwrap().der().clone();
        Made { leaf, authority }
    }

    fn judged(trust: Trust, made: &Made, name: &'static str) -> (bool, Option<Refused>) {
        let (_, verifier) = Verifier::config(trust).unwrap();
        let name = ServerName::try_from(name).unwrap();
        let others = [made.authority.clone()];
        let verified =
            verifier.verify_server_cert(&made.leaf, &others, &name, &[], UnixTime::now());
        (verified.is_ok(), verifier.take_refused())
    }

    #[test]
    fn a_certificate_counts_by_its_fingerprint_or_its_authoritys() {
        let good = make("studio.local", Duration::days(9));
        let other = make("studio.local", Duration::days(9));
        let authority = Fingerprint::of(&good.authority);
        let pinned = Trust::Pinned(authority);
        let refused = |fingerprint, reason| {
            let refused = Refused {
                fingerprint,
                reason,
            };
            (false, Some(refused))
        };

        assert_eq!(judged(pinned, &good, "studio.local"), (true, None));
        let leaf = Trust::Pinned(Fingerprint::of(&good.leaf));
        for name in ["studio.local", "127.0.0.1"] {
            assert_eq!(judged(leaf, &good, name), (true, None));
        }
        assert_eq!(
            judged(Trust::Public, &good, "studio.local"),
            refused(authority, RefusedReason::Unknown)
        );
        let others = Fingerprint::of(&other.authority);
        for trust in [pinned, leaf] {
            assert_eq!(
                judged(trust, &other, "studio.local"),
                refused(others, RefusedReason::OtherFingerprint)
            );
        }
        // The right authority beside a leaf that it has not signed proves nothing.
        let mixed = Made {
            leaf: other.leaf,
            authority: good.authority.clone(),
        };
        assert!(!judged(pinned, &mixed, "studio.local").0);
    }

    #[test]
    fn names_and_dates_count_below_an_authority() {
        let good = make("studio.local", Duration::days(9));
        let old = make("studio.local", -Duration::days(2));
        for (made, name) in [(&good, "other.local"), (&old, "studio.local")] {
            let trust = Trust::Pinned(Fingerprint::of(&made.authority));
            let (is_good, refused) = judged(trust, made, name);
            assert!(!is_good);
            let reason = refused.unwrap().reason;
            assert!(matches!(reason, RefusedReason::NotValid(_)), "{reason:?}");
        }
    }
}
