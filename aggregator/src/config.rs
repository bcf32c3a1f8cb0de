//! `aggregator.toml`: what an operator says to the aggregator.
//!
//! The raw structs mirror the file and stay private; [`Config`] holds only valid values, and the certificates that it
//! names are read and checked with it, so that `--check` finds what a start would. `aggregator.sample.toml` documents
//! each key and is tested against the defaults below. The policy sections are the engine's own
//! ([`leeward_engine::policy`]).

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use leeward_common::{
    audit,
    config::{ConfigError, Document, Span, Spanned},
    id::SourceId,
};
use leeward_engine::policy::{
    FailoverSection, Policy, PolicySection, ProbingSection, RegionSection, SECTIONS, Sections,
    SignalSourceSection, TargetSection,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use serde::Deserialize;

use crate::{
    ingest::{identity, limits::Limits},
    intent::{CONFIGURATION, FILE},
    shadow::ShadowFile,
};

mod limits;

/// What holds where the file says nothing.
pub mod defaults {
    use super::{Duration, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    /// Where agents connect; UDP, all addresses of both families.
    pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 8610);
    /// Where the HTTP API listens.
    pub const API_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8611);
    /// Where the store is.
    pub const DATA_DIR: &str = "/var/lib/leeward-aggregator";
    /// How far back the journal reaches.
    pub const JOURNAL_RETENTION: Duration = Duration::from_secs(48 * 3600);
    /// How far back rollups of minutes reach.
    pub const MINUTE_RETENTION: Duration = Duration::from_secs(30 * 86_400);
    /// How far back rollups of hours reach.
    pub const HOUR_RETENTION: Duration = Duration::from_secs(400 * 86_400);
    /// How far ahead an override may end.
    pub const MAX_OVERRIDE: Duration = Duration::from_secs(30 * 86_400);
}

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The aggregator's name.
    pub name: String,
    /// Where agents connect.
    pub listen: SocketAddr,
    /// Where agents connect over TCP, where UDP does not get through; `None` if they cannot.
    pub listen_tcp: Option<SocketAddr>,
    /// How much one agent may ask, and who may ask nothing.
    pub limits: Limits,
    /// Where the store is.
    pub data_dir: PathBuf,
    /// How far back what it keeps reaches.
    pub retention: Retention,
    /// TLS towards agents: our certificate, and the authority that theirs must come from.
    pub tls: Arc<rustls::ServerConfig>,
    /// The HTTP API.
    pub api: Api,
    /// Where files of definitions are, if people keep them in files.
    pub definitions_dir: Option<PathBuf>,
    /// What decisions depend on.
    pub policy: PolicyText,
    /// Another policy, which only records what it would do.
    pub shadow: Option<ShadowFile>,
}

/// How far back what the aggregator keeps of measurements reaches, each at least as far as the one before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retention {
    /// The journal, with every window as it came. What is not in the rollups yet stays beyond it.
    pub journal: Duration,
    /// Rollups of minutes.
    pub minutes: Duration,
    /// Rollups of hours.
    pub hours: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            journal: defaults::JOURNAL_RETENTION,
            minutes: defaults::MINUTE_RETENTION,
            hours: defaults::HOUR_RETENTION,
        }
    }
}

/// The HTTP API.
#[derive(Clone, Debug)]
pub struct Api {
    /// Where it listens.
    pub listen: SocketAddr,
    /// TLS with the configured certificate; always present when `listen` is not loopback.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Who may do what.
    pub tokens: Vec<Token>,
    /// How far ahead an override may end.
    pub max_override: Duration,
}

/// One bearer token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Token {
    /// Its holder, for logs and for the audit.
    pub name: String,
    /// SHA-256 of the token's text.
    pub sha256: [u8; 32],
    /// What its holder may do.
    pub role: Role,
    /// The signal sources that its holder may speak for; empty for all.
    pub sources: Vec<SourceId>,
}

/// What the holder of a token may do; each role may also do what the ones before it may.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read.
    Viewer,
    /// Inject signals.
    Injector,
    /// Change anything.
    Operator,
}

/// A policy and the text that it was parsed from: the text is what the journal keeps, so that a policy of last month
/// can be read by the build of today.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyText {
    /// The policy.
    pub policy: Policy,
    /// Its sections, and nothing else of the file.
    pub toml: String,
}

impl PolicyText {
    /// Parses the policy sections alone.
    ///
    /// # Errors
    ///
    /// Returns the first thing that is wrong with the text.
    pub fn parse(document: &Document<'_>) -> Result<Self, ConfigError> {
        let raw: RawPolicy = document.parse()?;
        Self::new(document, raw.sections())
    }

    fn new(document: &Document<'_>, sections: Sections) -> Result<Self, ConfigError> {
        let policy = sections.into_policy(document)?;
        let mut table: toml::Table = document.parse()?;
        table.retain(|key, _| SECTIONS.contains(&key));
        Ok(Self {
            policy,
            toml: table.to_string(),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: Option<Spanned<String>>,
    listen: Option<SocketAddr>,
    listen_tcp: Option<Spanned<String>>,
    #[serde(default)]
    limits: limits::RawLimits,
    data_dir: Option<PathBuf>,
    journal_retention: Option<Spanned<Span>>,
    minute_retention: Option<Spanned<Span>>,
    hour_retention: Option<Spanned<Span>>,
    definitions_dir: Option<PathBuf>,
    credentials: RawCredentials,
    #[serde(default)]
    api: RawApi,
    #[serde(default)]
    shadow: RawShadow,
    #[serde(default)]
    region: Vec<RegionSection>,
    #[serde(default)]
    failover: Vec<FailoverSection>,
    #[serde(default)]
    probing: ProbingSection,
    #[serde(default)]
    policy: PolicySection,
    #[serde(default)]
    target: Vec<TargetSection>,
    #[serde(default)]
    signal_source: Vec<SignalSourceSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    #[serde(default)]
    region: Vec<RegionSection>,
    #[serde(default)]
    failover: Vec<FailoverSection>,
    #[serde(default)]
    probing: ProbingSection,
    #[serde(default)]
    policy: PolicySection,
    #[serde(default)]
    target: Vec<TargetSection>,
    #[serde(default)]
    signal_source: Vec<SignalSourceSection>,
}

impl RawPolicy {
    fn sections(self) -> Sections {
        let Self {
            region,
            failover,
            probing,
            policy,
            target,
            signal_source,
        } = self;
        Sections {
            region,
            failover,
            probing,
            policy,
            target,
            signal_source,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCredentials {
    ca: Spanned<PathBuf>,
    certificate: Spanned<PathBuf>,
    key: Spanned<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawApi {
    listen: Option<Spanned<SocketAddr>>,
    certificate: Option<Spanned<PathBuf>>,
    key: Option<Spanned<PathBuf>>,
    max_override: Option<Spanned<Span>>,
    token: Vec<RawToken>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawShadow {
    policy: Option<Spanned<PathBuf>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawToken {
    name: Spanned<String>,
    sha256: Spanned<String>,
    role: Role,
    #[serde(default)]
    sources: Vec<Spanned<SourceId>>,
}

impl Config {
    /// Reads and checks a file, and the certificates that it names.
    ///
    /// # Errors
    ///
    /// Returns the first thing that is wrong, with its place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            file: file.clone(),
            at: None,
            message: format!("cannot be read: {error}"),
        })?;
        let beside = path.parent().unwrap_or(Path::new("")).to_owned();
        let folder = std::env::var_os("CREDENTIALS_DIRECTORY").map_or(beside, PathBuf::from);
        Self::parse(
            &Document {
                file: &file,
                text: &text,
            },
            &folder,
        )
    }

    /// Checks a text; relative paths of certificates are looked up in `folder`.
    ///
    /// # Errors
    ///
    /// Returns the first thing that is wrong, with its place.
    pub fn parse(document: &Document<'_>, folder: &Path) -> Result<Self, ConfigError> {
        let raw: Raw = document.parse()?;
        let files = Files { document, folder };
        let sections = RawPolicy {
            region: raw.region,
            failover: raw.failover,
            probing: raw.probing,
            policy: raw.policy,
            target: raw.target,
            signal_source: raw.signal_source,
        };
        let policy = PolicyText::new(document, sections.sections())?;
        let chain = files.certificates(&raw.credentials.certificate)?;
        Ok(Self {
            name: name(document, raw.name, &chain)?,
            listen: raw.listen.unwrap_or(defaults::LISTEN),
            listen_tcp: limits::listen_tcp(
                document,
                raw.listen_tcp.as_ref(),
                raw.listen.unwrap_or(defaults::LISTEN),
            )?,
            limits: raw.limits.valid(document)?,
            data_dir: raw
                .data_dir
                .unwrap_or_else(|| PathBuf::from(defaults::DATA_DIR)),
            retention: retention(
                document,
                raw.journal_retention,
                raw.minute_retention,
                raw.hour_retention,
            )?,
            tls: files.agent_tls(&raw.credentials, chain)?,
            api: api(document, &files, raw.api, &policy.policy)?,
            definitions_dir: raw.definitions_dir,
            shadow: match &raw.shadow.policy {
                Some(path) => Some(ShadowFile::configured(document, path, &policy.policy)?),
                None => None,
            },
            policy,
        })
    }
}

/// The configured name, which must be the certificate's if that has one.
fn name(
    document: &Document<'_>,
    written: Option<Spanned<String>>,
    chain: &[CertificateDer<'_>],
) -> Result<String, ConfigError> {
    let certified = chain
        .first()
        .and_then(|certificate| identity::aggregator_name(certificate));
    match (written, certified) {
        (Some(written), Some(certified)) if *written.get_ref() != certified => {
            let message = format!(
                "name is {:?}, but the certificate says {certified:?}; make them equal",
                written.get_ref()
            );
            Err(document.error(written.span(), message))
        }
        (Some(written), _) if written.get_ref().is_empty() => Err(document.error(
            written.span(),
            "name is empty; give the aggregator one or remove the line",
        )),
        (Some(written), _) => Ok(written.into_inner()),
        (None, certified) => Ok(certified.unwrap_or_else(|| "aggregator".to_owned())),
    }
}

fn retention(
    document: &Document<'_>,
    journal: Option<Spanned<Span>>,
    minutes: Option<Spanned<Span>>,
    hours: Option<Spanned<Span>>,
) -> Result<Retention, ConfigError> {
    const LEAST: Duration = Duration::from_secs(2 * 3600);
    let at_least = |name, written: Option<Spanned<Span>>, least: Duration, default: Duration| {
        let Some(written) = written else {
            return Ok(default.max(least));
        };
        let span = written.get_ref().0;
        if span >= least {
            return Ok(span);
        }
        let message = format!(
            "{name} is {}; the smallest allowed is \"{}\"",
            Span(span),
            Span(least)
        );
        Err(document.error(written.span(), message))
    };
    let default = Retention::default();
    let journal = at_least("journal_retention", journal, LEAST, default.journal)?;
    let minutes = at_least("minute_retention", minutes, journal, default.minutes)?;
    let hours = at_least("hour_retention", hours, minutes, default.hours)?;
    Ok(Retention {
        journal,
        minutes,
        hours,
    })
}

fn api(
    document: &Document<'_>,
    files: &Files<'_>,
    raw: RawApi,
    policy: &Policy,
) -> Result<Api, ConfigError> {
    let tls = match (&raw.certificate, &raw.key) {
        (Some(certificate), Some(key)) => Some(files.api_tls(certificate, key)?),
        (None, None) => None,
        (Some(alone), None) => {
            return Err(document.error(alone.span(), "api.certificate needs api.key beside it"));
        }
        (None, Some(alone)) => {
            return Err(document.error(alone.span(), "api.key needs api.certificate beside it"));
        }
    };
    let listen = raw
        .listen
        .as_ref()
        .map_or(defaults::API_LISTEN, |listen| *listen.get_ref());
    if let (Some(written), None) = (&raw.listen, &tls)
        && !listen.ip().to_canonical().is_loopback()
    {
        let message = format!(
            "api.listen is {listen}, beyond loopback, and there is no TLS; add api.certificate and api.key, or listen on \
             {}",
            defaults::API_LISTEN
        );
        return Err(document.error(written.span(), message));
    }
    let max_override = match &raw.max_override {
        Some(written) if written.get_ref().0.is_zero() => {
            let message = "max_override is no time at all; \"1h\" is short, \"30d\" the default";
            return Err(document.error(written.span(), message));
        }
        Some(written) => written.get_ref().0,
        None => defaults::MAX_OVERRIDE,
    };
    Ok(Api {
        listen,
        tls,
        tokens: tokens(document, raw.token, policy)?,
        max_override,
    })
}

fn tokens(
    document: &Document<'_>,
    raw: Vec<RawToken>,
    policy: &Policy,
) -> Result<Vec<Token>, ConfigError> {
    let mut names = BTreeSet::new();
    let mut tokens = Vec::new();
    for RawToken {
        name,
        sha256,
        role,
        sources,
    } in raw
    {
        let text = name.get_ref();
        if text.is_empty() || !names.insert(text.clone()) {
            let message = format!(
                "token name {text:?} is empty or taken; names tell holders apart in the logs"
            );
            return Err(document.error(name.span(), message));
        }
        if text == CONFIGURATION || text.starts_with(FILE) {
            let message =
                format!("token name {text:?} would look like a file in the audit log; use another");
            return Err(document.error(name.span(), message));
        }
        let Some(hash) = audit::parse_hex(sha256.get_ref()) else {
            let message = "sha256 must be 64 hex digits: printf %s \"$TOKEN\" | sha256sum";
            return Err(document.error(sha256.span(), message));
        };
        if let Some(unknown) = sources
            .iter()
            .find(|source| !policy.signal_sources.contains_key(source.get_ref()))
        {
            let message = format!(
                "signal source {} is not defined; add a [[signal_source]]",
                unknown.get_ref()
            );
            return Err(document.error(unknown.span(), message));
        }
        let sources = sources.into_iter().map(Spanned::into_inner).collect();
        tokens.push(Token {
            name: name.into_inner(),
            sha256: hash,
            role,
            sources,
        });
    }
    Ok(tokens)
}

/// Reads the files that a document names.
struct Files<'a> {
    document: &'a Document<'a>,
    folder: &'a Path,
}

impl Files<'_> {
    fn certificates(
        &self,
        path: &Spanned<PathBuf>,
    ) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let place = self.folder.join(path.get_ref());
        let certificates = CertificateDer::pem_file_iter(&place)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| {
                self.error(path, &format!("cannot read {}: {error}", place.display()))
            })?;
        if certificates.is_empty() {
            return Err(self.error(
                path,
                &format!("{} holds no PEM certificate", place.display()),
            ));
        }
        Ok(certificates)
    }

    fn key(&self, path: &Spanned<PathBuf>) -> Result<PrivateKeyDer<'static>, ConfigError> {
        let place = self.folder.join(path.get_ref());
        PrivateKeyDer::from_pem_file(&place).map_err(|error| {
            self.error(
                path,
                &format!("cannot read a private key in {}: {error}", place.display()),
            )
        })
    }

    fn agent_tls(
        &self,
        raw: &RawCredentials,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<Arc<rustls::ServerConfig>, ConfigError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates(&raw.ca)? {
            roots.add(certificate).map_err(|error| {
                self.error(
                    &raw.ca,
                    &format!("is no certificate of an authority: {error}"),
                )
            })?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| self.error(&raw.ca, &error.to_string()))?;
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| self.error(&raw.certificate, &error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, self.key(&raw.key)?)
            .map_err(|error| {
                self.error(
                    &raw.key,
                    &format!("does not go with the certificate: {error}"),
                )
            })?;
        tls.alpn_protocols = vec![leeward_common::wire::ALPN_V1.to_vec()];
        // A resumed session would skip the check of the agent's certificate, which may have expired since.
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        Ok(Arc::new(tls))
    }

    fn api_tls(
        &self,
        certificate: &Spanned<PathBuf>,
        key: &Spanned<PathBuf>,
    ) -> Result<Arc<rustls::ServerConfig>, ConfigError> {
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .map_err(|error| self.error(certificate, &error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(self.certificates(certificate)?, self.key(key)?)
        .map_err(|error| self.error(key, &format!("does not go with the certificate: {error}")))?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(tls))
    }

    fn error<T>(&self, at: &Spanned<T>, message: &str) -> ConfigError {
        self.document.error(at.span(), message)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Viewer => "viewer",
            Self::Injector => "injector",
            Self::Operator => "operator",
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
