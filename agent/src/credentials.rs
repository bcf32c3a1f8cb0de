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

fn read_roots(path: &Path) -> Result<RootCertStore, CredentialError> {
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
#[derive(Debug, thiserror::Error)]
#[error("the certificate is for {found}, not for {expected}")]
struct NotTheAggregator {
    found: String,
    expected: String,
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
