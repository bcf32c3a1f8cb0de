//! Who this agent is, and whom it believes.
//!
//! Everything that can be known before the first connection is checked when the files are read: that they are there,
//! that the key belongs to the certificate, that the certificate names this agent and region, that it is valid now,
//! and that the authority issued it. What is left for the handshake is the other side: an aggregator must hold a
//! certificate of the same authority, valid for the host that was dialled, whose URI says that it is an aggregator.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use leeward_common::{
    id::{AgentId, RegionId},
    time::Timestamp,
    wire::{AGENT_URI_PREFIX, AGGREGATOR_URI_PREFIX, ALPN_V1},
};
use rustls::{
    CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::config::CredentialPaths;

/// This agent's identity and the authority that it trusts.
pub struct Credentials {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    expires_at: Timestamp,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Credentials that cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read.
    #[error("{}: cannot be read by this process (user and mode, or the path in [credentials])", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds nothing of its kind.
    #[error("{}: holds no {what} in PEM form", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A file is damaged.
    #[error("{}: is damaged: {why}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        why: String,
    },
    /// The certificate's time is over.
    #[error("{}: expired at {at}; issue a new certificate for this agent", .path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// When.
        at: Timestamp,
    },
    /// The certificate's time has not come.
    #[error("{}: is valid only from {at}; is this host's clock right?", .path.display())]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// When.
        at: Timestamp,
    },
    /// The certificate is somebody else's.
    #[error("{}: is for {found}, but the configuration makes this {expected}; correct region and agent, or issue a certificate for them", .path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// Another key.
    #[error("{}: is not the key of {}", .key.display(), .certificate.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's.
        certificate: PathBuf,
    },
    /// The authority did not issue the certificate.
    #[error("{}: was not issued for clients by the authority in {}", .certificate.display(), .ca.display())]
    Untrusted {
        /// The certificate's file.
        certificate: PathBuf,
        /// The authority's.
        ca: PathBuf,
        /// What the verifier says.
        source: rustls::Error,
    },
}

impl Credentials {
    /// Reads and checks the credentials of an agent.
    ///
    /// # Errors
    ///
    /// Returns the first thing that is wrong, with its file and what to do.
    pub fn load(
        now: Timestamp,
        paths: &CredentialPaths,
        region: &RegionId,
        agent: &AgentId,
    ) -> Result<Self, CredentialError> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(read_roots(&paths.ca)?);
        let chain = read_certificates(&paths.certificate)?;
        let key = read_key(&paths.key)?;
        let expires_at = check_certificate(now, &paths.certificate, &chain[0], region, agent)?;
        check_key(&provider, paths, &chain, &key)?;
        check_issuer(now, &provider, paths, &roots, &chain)?;
        Ok(Self {
            provider,
            roots,
            chain,
            key,
            expires_at,
        })
    }

    /// When the certificate stops being valid.
    #[must_use]
    pub const fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// Whether these are the very same credentials.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.chain == other.chain && self.key == other.key && self.roots.roots == other.roots.roots
    }

    /// TLS towards an aggregator of this name, or towards any if there is none.
    ///
    /// # Panics
    ///
    /// Never: what can fail was checked by [`Self::load`].
    #[must_use]
    pub fn client_config(&self, aggregator: Option<&str>) -> rustls::ClientConfig {
        let webpki =
            WebPkiServerVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
                .build()
                .expect("there is at least one root and no revocation list");
        let expected = aggregator.map(|name| format!("{AGGREGATOR_URI_PREFIX}{name}"));
        let mut config = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider speaks TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AggregatorVerifier { webpki, expected }))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .expect("certificate and key belong together");
        config.alpn_protocols = vec![ALPN_V1.to_vec()];
        // A resumed session would not show its certificates again, so an expired one would live on.
        config.resumption = Resumption::disabled();
        config
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialError> {
    std::fs::read(path).map_err(|source| CredentialError::Read {
        path: path.to_owned(),
        source,
    })
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let bytes = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(CredentialError::Missing {
            path: path.to_owned(),
            what: "certificate",
        }),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(damaged(path, &error)),
    }
}

pub(crate) fn read_roots(path: &Path) -> Result<RootCertStore, CredentialError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| damaged(path, &error))?;
    }
    Ok(roots)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CredentialError> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => CredentialError::Missing {
            path: path.to_owned(),
            what: "private key",
        },
        error => damaged(path, &error),
    })
}

fn damaged(path: &Path, why: &impl ToString) -> CredentialError {
    CredentialError::Damaged {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

/// Checks name and time of the agent's certificate and returns when it expires.
fn check_certificate(
    now: Timestamp,
    path: &Path,
    certificate: &CertificateDer<'_>,
    region: &RegionId,
    agent: &AgentId,
) -> Result<Timestamp, CredentialError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| damaged(path, &error))?;
    let at = |seconds: i64| {
        Timestamp::from_unix_us(
            u64::try_from(seconds)
                .unwrap_or(0)
                .saturating_mul(1_000_000),
        )
    };
    let not_before = at(parsed.validity().not_before.timestamp());
    let not_after = at(parsed.validity().not_after.timestamp());
    if not_after < now {
        return Err(CredentialError::Expired {
            path: path.to_owned(),
            at: not_after,
        });
    }
    if now < not_before {
        return Err(CredentialError::NotYetValid {
            path: path.to_owned(),
            at: not_before,
        });
    }
    let expected = format!("{AGENT_URI_PREFIX}{region}/{agent}");
    let uris = uris(&parsed);
    if uris.contains(&expected) {
        return Ok(not_after);
    }
    let found = if uris.is_empty() {
        "nobody (it carries no URI)".to_owned()
    } else {
        uris.join(", ")
    };
    Err(CredentialError::Identity {
        path: path.to_owned(),
        found,
        expected,
    })
}

fn check_key(
    provider: &CryptoProvider,
    paths: &CredentialPaths,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<(), CredentialError> {
    let signing = provider.key_provider.load_private_key(key.clone_key());
    let signing = signing.map_err(|error| damaged(&paths.key, &error))?;
    CertifiedKey::new(chain.to_vec(), signing)
        .keys_match()
        .map_err(|_| CredentialError::KeyMismatch {
            key: paths.key.clone(),
            certificate: paths.certificate.clone(),
        })
}

/// Verifies the agent's certificate as an aggregator will.
fn check_issuer(
    now: Timestamp,
    provider: &Arc<CryptoProvider>,
    paths: &CredentialPaths,
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
) -> Result<(), CredentialError> {
    let untrusted = |source| CredentialError::Untrusted {
        certificate: paths.certificate.clone(),
        ca: paths.ca.clone(),
        source,
    };
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| untrusted(rustls::Error::General(error.to_string())))?;
    let now = UnixTime::since_unix_epoch(Duration::from_micros(now.as_unix_us()));
    verifier
        .verify_client_cert(&chain[0], &chain[1..], now)
        .map_err(untrusted)?;
    Ok(())
}

fn uris(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri).collect()
}

/// The usual verification, and that the certificate is an aggregator's.
#[derive(Debug)]
struct AggregatorVerifier {
    webpki: Arc<WebPkiServerVerifier>,
    /// The URI that it must carry; `None` for any aggregator's.
    expected: Option<String>,
}

/// A certificate of the right authority that is not an aggregator's.
#[derive(thiserror::Error)]
#[error("the certificate is for {found}, not for {expected}")]
struct NotTheAggregator {
    found: String,
    expected: String,
}

/// As text, because rustls shows the errors of others by their debug form.
impl std::fmt::Debug for NotTheAggregator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl AggregatorVerifier {
    fn check_identity(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let uris = uris(&parsed);
        let accepted = |uri: &String| match &self.expected {
            Some(expected) => uri == expected,
            None => uri.starts_with(AGGREGATOR_URI_PREFIX),
        };
        if uris.iter().any(accepted) {
            return Ok(());
        }
        let found = if uris.is_empty() {
            "nobody (it carries no URI)".to_owned()
        } else {
            uris.join(", ")
        };
        let expected = self
            .expected
            .clone()
            .unwrap_or_else(|| format!("{AGGREGATOR_URI_PREFIX}…"));
        let error = OtherError(Arc::new(NotTheAggregator { found, expected }));
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(
            error,
        )))
    }
}

impl ServerCertVerifier for AggregatorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.webpki.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        self.check_identity(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::fake::{AGENT, Authority, Files, Leaf, REGION, Validity, nowhere};
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

    fn uri() -> String {
        format!("{AGENT_URI_PREFIX}{REGION}/{AGENT}")
    }

    fn error(ca: &str, leaf: &Leaf) -> String {
        Files::new(ca, leaf).load().unwrap_err().to_string()
    }

    #[test]
    fn good_credentials_are_accepted() {
        let authority = Authority::new();
        let credentials = Files::new(&authority.certificate, &authority.agent())
            .load()
            .unwrap();
        assert_eq!(
            credentials.expires_at().to_string(),
            "2200-01-01T00:00:00.000Z"
        );
        assert!(credentials.is_same(&credentials));
        let others = Files::new(&authority.certificate, &authority.agent())
            .load()
            .unwrap();
        assert!(!credentials.is_same(&others));
    }

    #[test]
    fn a_certificate_out_of_its_time_is_refused() {
        let authority = Authority::new();
        let expired = error(
            &authority.certificate,
            &authority.issue(Some(&uri()), ClientAuth, Validity::Past),
        );
        assert!(expired.ends_with("agent.pem: expired at 2020-01-02T00:00:00.000Z; issue a new certificate for this agent"), "{expired}");
        let future = error(
            &authority.certificate,
            &authority.issue(Some(&uri()), ClientAuth, Validity::Future),
        );
        assert!(future.ends_with("agent.pem: is valid only from 2199-01-01T00:00:00.000Z; is this host's clock right?"), "{future}");
    }

    #[test]
    fn somebody_elses_certificate_is_refused() {
        let authority = Authority::new();
        let leaf = authority.issue(
            Some("leeward://agent/eu-west-1/other"),
            ClientAuth,
            Validity::Now,
        );
        let error_text = error(&authority.certificate, &leaf);
        assert!(error_text.contains("is for leeward://agent/eu-west-1/other, but the configuration makes this leeward://agent/eu-west-1/eu-west-1-a"), "{error_text}");
        let error_text = error(
            &authority.certificate,
            &authority.issue(None, ClientAuth, Validity::Now),
        );
        assert!(
            error_text.contains("is for nobody (it carries no URI)"),
            "{error_text}"
        );
    }

    #[test]
    fn another_authoritys_certificate_is_refused() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let error_text = error(&ours.certificate, &theirs.agent());
        assert!(
            error_text.contains("agent.pem: was not issued for clients by the authority in"),
            "{error_text}"
        );
        let server = ours.issue(Some(&uri()), ServerAuth, Validity::Now);
        assert!(error(&ours.certificate, &server).contains("was not issued for clients"));
    }

    #[test]
    fn another_key_is_refused() {
        let authority = Authority::new();
        let leaf = Leaf {
            key: authority.agent().key,
            ..authority.agent()
        };
        let error_text = error(&authority.certificate, &leaf);
        assert!(
            error_text.contains("agent.key: is not the key of"),
            "{error_text}"
        );
    }

    #[test]
    fn files_that_are_not_what_they_should_be_are_named() {
        let authority = Authority::new();
        let good = authority.agent();
        let swapped = Leaf {
            certificate: good.key.clone(),
            key: good.certificate.clone(),
        };
        assert!(
            error(&authority.certificate, &swapped)
                .ends_with("agent.pem: holds no certificate in PEM form")
        );
        let no_key = Leaf {
            key: String::new(),
            ..good.clone()
        };
        assert!(
            error(&authority.certificate, &no_key)
                .ends_with("agent.key: holds no private key in PEM form")
        );
        assert!(error("", &good).ends_with("ca.pem: holds no certificate in PEM form"));
        let damaged = good.certificate.replace(
            "-----BEGIN CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n!!!!",
        );
        let damaged = error(
            &authority.certificate,
            &Leaf {
                certificate: damaged,
                ..good.clone()
            },
        );
        assert!(damaged.contains("agent.pem: is damaged: "), "{damaged}");
        let mut files = Files::new(&authority.certificate, &good);
        files.paths.key = nowhere().to_owned();
        let error = anyhow::Error::from(files.load().unwrap_err());
        let text = format!("{error:#}");
        assert!(
            text.starts_with("/nonexistent/leeward.pem: cannot be read by this process"),
            "{text}"
        );
        assert!(
            text.ends_with("No such file or directory (os error 2)"),
            "{text}"
        );
    }
}
