//! `agent.toml`: what an operator says to one agent.
//!
//! The raw structs mirror the file and stay private; [`Config`] holds only valid values. Every error names file, line
//! and column and says what to write instead. `agent.sample.toml` documents each key and is tested against the
//! defaults below.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use leeward_common::{
    config::{ConfigError, Document, Span, Spanned},
    id::{AgentId, RegionId},
    wire::limits,
};
use serde::Deserialize;

use crate::{
    admission::{Admission, InvalidNetwork, Network},
    bandwidth::surveyor::Limits,
    spool::{AGGREGATORS_MAX, Policy},
};

mod bandwidth;
mod bgp;
mod checks;
mod spool;
mod stamp;

use bgp::RawBgp;
pub use bgp::{Bgp, Peer as BgpPeer};
pub use checks::Checks;
use checks::RawChecks;
pub use spool::Spool;
pub use stamp::Stamp;

/// A valid configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// The region that this agent stands in.
    pub region: RegionId,
    /// Its name.
    pub agent: AgentId,
    /// Whom it may probe, and how fast.
    pub admission: Admission,
    /// Where others reach it; empty to use the address from which it talks to each aggregator.
    pub addresses: Vec<IpAddr>,
    /// The TCP port that answers SYN probes.
    pub answer_port: u16,
    /// Source ports of its own SYN probes.
    pub syn_source_ports: RangeInclusive<u16>,
    /// Where `/metrics` and `/healthz` are served; loopback.
    pub status_listen: SocketAddr,
    /// Its identity.
    pub credentials: CredentialPaths,
    /// Where the reports go; at least one.
    pub aggregators: Vec<Aggregator>,
    /// How the connections behave.
    pub uplink: Uplink,
    /// Batches that wait on disk.
    pub spool: Spool,
    /// The STAMP reflector.
    pub stamp: Stamp,
    /// What it may ask of services, and how fast.
    pub checks: Checks,
    /// Which prefixes are watched, and which routers are listened to.
    pub bgp: Bgp,
    /// What measuring bandwidth may cost.
    pub bandwidth: Limits,
}

/// Files that hold this agent's identity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CredentialPaths {
    /// The certificate authority's certificate.
    pub ca: PathBuf,
    /// The agent's certificate, followed by intermediate ones if there are any.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// One aggregator.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Aggregator {
    /// DNS name or address; the name that its certificate must be valid for.
    pub host: String,
    /// UDP port.
    pub port: u16,
    /// The name that its certificate must carry; `None` accepts any aggregator of the authority.
    pub name: Option<String>,
}

/// `host:port`, with an IPv6 address in brackets.
impl std::fmt::Display for Aggregator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// How the connections behave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Uplink {
    /// A packet at least this often.
    pub keep_alive: Duration,
    /// A connection that is silent for this long is dead.
    pub idle_timeout: Duration,
    /// Memory for batches that are not durable, in bytes.
    pub waiting_bytes: usize,
    /// How many aggregators must have a batch before it is forgotten.
    pub forget_when: Policy,
    /// What carries the connections.
    pub carry: Carry,
    /// While TLS carries a connection, QUIC is tried this often.
    pub retry_quic: Duration,
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Carry {
    /// QUIC; TLS over TCP where nobody answers that.
    #[default]
    Auto,
    /// QUIC only.
    Quic,
    /// TLS over TCP only.
    Tls,
}

mod defaults {
    use std::{
        net::{Ipv4Addr, SocketAddr},
        time::Duration,
    };

    pub(super) const MAX_PROBES_PER_SECOND: u32 = 1_000;
    pub(super) const ANSWER_PORT: u16 = 8_620;
    /// Directly above Linux's default range of ephemeral ports (32768 to 60999).
    pub(super) const SYN_SOURCE_PORTS: [u16; 2] = [61_000, 61_007];
    pub(super) const STATUS_LISTEN: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9_620);
    /// Batches and their acknowledgements flow every second, so silence means death: a restarted aggregator is found
    /// again within seconds, and the entries of NATs (30 s for UDP) never expire.
    pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(1);
    pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
    /// A network that lets UDP through again is found within this time, at the cost of a handshake each.
    pub(super) const RETRY_QUIC: Duration = Duration::from_secs(300);
    /// Six hours of 100 paths at one window per second, and half again.
    pub(super) const WAITING_MEMORY_MIB: u32 = 32;
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    region: RegionId,
    agent: AgentId,
    allowed_networks: Option<Vec<Spanned<String>>>,
    max_probes_per_second: Option<Spanned<u32>>,
    #[serde(default)]
    addresses: Vec<Spanned<IpAddr>>,
    answer_port: Option<Spanned<u16>>,
    syn_source_ports: Option<Spanned<[u16; 2]>>,
    status_listen: Option<Spanned<String>>,
    credentials: RawCredentials,
    #[serde(default)]
    aggregator: Vec<RawAggregator>,
    #[serde(default)]
    uplink: RawUplink,
    #[serde(default)]
    spool: spool::RawSpool,
    #[serde(default)]
    stamp: stamp::RawStamp,
    #[serde(default)]
    bandwidth: bandwidth::RawBandwidth,
    #[serde(default)]
    checks: RawChecks,
    #[serde(default)]
    bgp: RawBgp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCredentials {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAggregator {
    address: Spanned<String>,
    name: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUplink {
    keep_alive: Option<Spanned<Span>>,
    idle_timeout: Option<Spanned<Span>>,
    waiting_memory_mib: Option<Spanned<u32>>,
    forget_when: Option<Spanned<String>>,
    transport: Option<Spanned<String>>,
    retry_quic: Option<Spanned<Span>>,
}

/// Where relative credential paths are looked up: the directory of systemd's `LoadCredential=` when there is one, else
/// the one that holds the configuration file.
#[must_use]
pub fn credentials_directory(config_file: &Path) -> PathBuf {
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory),
        _ => config_file
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default(),
    }
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    ///
    /// Returns what is wrong, with its place where it has one.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            file: name.clone(),
            at: None,
            message: format!("cannot be read: {error}"),
        })?;
        Self::parse(
            &Document {
                file: &name,
                text: &text,
            },
            &credentials_directory(file),
        )
    }

    /// Parses a configuration; relative credential paths are looked up in `credentials_directory`.
    ///
    /// # Errors
    ///
    /// Returns the place and the reason.
    pub fn parse(
        document: &Document<'_>,
        credentials_directory: &Path,
    ) -> Result<Self, ConfigError> {
        let raw: RawConfig = document.parse()?;
        let RawConfig {
            region,
            agent,
            credentials,
            ..
        } = &raw;
        let admission = raw.admission(document)?;
        let checks = &raw.checks;
        Ok(Self {
            region: region.clone(),
            agent: agent.clone(),
            checks: checks.valid(document, &admission.allowed, credentials_directory)?,
            admission,
            addresses: raw.addresses(document)?,
            answer_port: port(
                document,
                raw.answer_port.as_ref(),
                "answer_port",
                defaults::ANSWER_PORT,
            )?,
            syn_source_ports: raw.syn_source_ports(document)?,
            status_listen: raw.status_listen(document)?,
            credentials: CredentialPaths {
                ca: credentials_directory.join(&credentials.ca),
                certificate: credentials_directory.join(&credentials.certificate),
                key: credentials_directory.join(&credentials.key),
            },
            aggregators: raw.aggregators(document)?,
            uplink: raw.uplink.valid(document)?,
            spool: raw.spool.valid(document)?,
            stamp: raw.stamp.valid(document, credentials_directory)?,
            bgp: raw.bgp.valid(document, credentials_directory)?,
            bandwidth: raw.bandwidth.valid(document)?,
        })
    }
}

impl RawConfig {
    fn admission(&self, document: &Document<'_>) -> Result<Admission, ConfigError> {
        let missing = |message: &str| ConfigError {
            file: document.file.to_owned(),
            at: None,
            message: message.to_owned(),
        };
        let Some(networks) = &self.allowed_networks else {
            return Err(missing(
                "allowed_networks is missing; list the networks that this agent may probe, like [\"10.0.0.0/8\"]",
            ));
        };
        let allowed = self::networks(document, networks)?;
        let max_probes_per_second = match &self.max_probes_per_second {
            None => defaults::MAX_PROBES_PER_SECOND,
            Some(rate) if (1..=1_000_000).contains(rate.get_ref()) => *rate.get_ref(),
            Some(rate) => {
                let message = format!(
                    "max_probes_per_second is {}; use 1 to 1000000",
                    rate.get_ref()
                );
                return Err(document.error(rate.span(), message));
            }
        };
        Ok(Admission {
            allowed,
            max_probes_per_second,
        })
    }

    fn addresses(&self, document: &Document<'_>) -> Result<Vec<IpAddr>, ConfigError> {
        let mut addresses = Vec::with_capacity(self.addresses.len());
        for address in &self.addresses {
            let ip = address.get_ref().to_canonical();
            let problem = if ip.is_unspecified() || ip.is_multicast() {
                format!(
                    "addresses holds {ip}, which no host has; name the address that others reach this one by"
                )
            } else if addresses.contains(&ip) {
                format!("addresses holds {ip} twice")
            } else if addresses.len() == limits::ADDRESSES {
                format!("addresses holds more than {} entries", limits::ADDRESSES)
            } else {
                addresses.push(ip);
                continue;
            };
            return Err(document.error(address.span(), problem));
        }
        Ok(addresses)
    }

    fn syn_source_ports(
        &self,
        document: &Document<'_>,
    ) -> Result<RangeInclusive<u16>, ConfigError> {
        let [first, last] = self
            .syn_source_ports
            .as_ref()
            .map_or(defaults::SYN_SOURCE_PORTS, |ports| *ports.get_ref());
        let fits = first >= 1_024 && first <= last && last - first < 64;
        match &self.syn_source_ports {
            Some(ports) if !fits => Err(document.error(
                ports.span(),
                format!("syn_source_ports is [{first}, {last}]; use first and last of at most 64 ports from 1024 up"),
            )),
            _ => Ok(first..=last),
        }
    }

    fn status_listen(&self, document: &Document<'_>) -> Result<SocketAddr, ConfigError> {
        let Some(listen) = &self.status_listen else {
            return Ok(defaults::STATUS_LISTEN);
        };
        match listen.get_ref().parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(address),
            Ok(address) => Err(document.error(
                listen.span(),
                format!("status_listen is {address}; it is served without authentication, so use 127.0.0.1 or [::1]"),
            )),
            Err(_) => Err(document.error(
                listen.span(),
                format!("status_listen is {:?}; write address and port, like \"127.0.0.1:9620\"", listen.get_ref()),
            )),
        }
    }

    fn aggregators(&self, document: &Document<'_>) -> Result<Vec<Aggregator>, ConfigError> {
        if self.aggregator.is_empty() {
            let message = "no [[aggregator]] is given; add one with its address".to_owned();
            return Err(ConfigError {
                file: document.file.to_owned(),
                at: None,
                message,
            });
        }
        let mut aggregators: Vec<Aggregator> = Vec::with_capacity(self.aggregator.len());
        for raw in &self.aggregator {
            let aggregator = raw.valid(document)?;
            if aggregators
                .iter()
                .any(|other| (&other.host, other.port) == (&aggregator.host, aggregator.port))
            {
                return Err(document.error(
                    raw.address.span(),
                    format!("aggregator {aggregator} is given twice"),
                ));
            }
            if aggregators.len() == AGGREGATORS_MAX {
                let message =
                    format!("more than {AGGREGATORS_MAX} [[aggregator]] tables are given");
                return Err(document.error(raw.address.span(), message));
            }
            aggregators.push(aggregator);
        }
        Ok(aggregators)
    }
}

impl RawAggregator {
    fn valid(&self, document: &Document<'_>) -> Result<Aggregator, ConfigError> {
        let text = self.address.get_ref();
        let Some((host, port)) = split_address(text) else {
            return Err(document.error(
                self.address.span(),
                format!("{text:?} is not host and port; write \"aggregator.example.net:8610\", \"192.0.2.1:8610\" or \"[2001:db8::1]:8610\""),
            ));
        };
        let name = match &self.name {
            Some(name) if RegionId::parse(name.get_ref()).is_err() => {
                let message = format!(
                    "{:?} is not an aggregator's name; use the part after leeward://aggregator/ of its certificate",
                    name.get_ref()
                );
                return Err(document.error(name.span(), message));
            }
            name => name.as_ref().map(|name| name.get_ref().clone()),
        };
        Ok(Aggregator { host, port, name })
    }
}

impl RawUplink {
    fn valid(&self, document: &Document<'_>) -> Result<Uplink, ConfigError> {
        let span = |value: &Option<Spanned<Span>>, default| {
            value.as_ref().map_or(default, |span| span.get_ref().0)
        };
        let keep_alive = span(&self.keep_alive, defaults::KEEP_ALIVE);
        let idle_timeout = span(&self.idle_timeout, defaults::IDLE_TIMEOUT);
        if let Some(idle) = &self.idle_timeout
            && !(Duration::from_secs(1)..=Duration::from_secs(600)).contains(&idle_timeout)
        {
            return Err(document.error(
                idle.span(),
                "uplink.idle_timeout must lie between \"1s\" and \"10m\"",
            ));
        }
        if keep_alive * 3 > idle_timeout || keep_alive < Duration::from_millis(100) {
            let message = format!(
                "uplink.keep_alive is {keep_alive:?}; use at least \"100ms\" and at most a third of idle_timeout ({idle_timeout:?})"
            );
            let at = self
                .keep_alive
                .as_ref()
                .or(self.idle_timeout.as_ref())
                .map(Spanned::span);
            return Err(document.error(at.unwrap_or_default(), message));
        }
        let waiting_memory_mib = match &self.waiting_memory_mib {
            None => defaults::WAITING_MEMORY_MIB,
            Some(mib) if (1..=65_536).contains(mib.get_ref()) => *mib.get_ref(),
            Some(mib) => {
                let message = format!(
                    "uplink.waiting_memory_mib is {}; use 1 to 65536",
                    mib.get_ref()
                );
                return Err(document.error(mib.span(), message));
            }
        };
        let forget_when = spool::policy(document, self.forget_when.as_ref())?;
        let carry = match self
            .transport
            .as_ref()
            .map(|given| (given, given.get_ref().as_str()))
        {
            None | Some((_, "auto")) => Carry::Auto,
            Some((_, "quic")) => Carry::Quic,
            Some((_, "tls")) => Carry::Tls,
            Some((given, other)) => {
                let message =
                    format!("uplink.transport is {other:?}; use \"auto\", \"quic\" or \"tls\"");
                return Err(document.error(given.span(), message));
            }
        };
        let retry_quic = span(&self.retry_quic, defaults::RETRY_QUIC);
        if let Some(given) = &self.retry_quic
            && retry_quic < Duration::from_secs(1)
        {
            return Err(document.error(given.span(), "uplink.retry_quic must be at least \"1s\""));
        }
        Ok(Uplink {
            carry,
            retry_quic,
            forget_when,
            keep_alive,
            idle_timeout,
            waiting_bytes: waiting_memory_mib as usize * (1 << 20),
        })
    }
}

fn networks(
    document: &Document<'_>,
    written: &[Spanned<String>],
) -> Result<Vec<Network>, ConfigError> {
    let network = |own: &Spanned<String>| {
        let parsed = own.get_ref().parse();
        parsed.map_err(|error: InvalidNetwork| document.error(own.span(), error.to_string()))
    };
    written.iter().map(network).collect()
}

fn port(
    document: &Document<'_>,
    port: Option<&Spanned<u16>>,
    key: &str,
    default: u16,
) -> Result<u16, ConfigError> {
    match port {
        None => Ok(default),
        Some(port) if *port.get_ref() != 0 => Ok(*port.get_ref()),
        Some(port) => Err(document.error(port.span(), format!("{key} is 0; use 1 to 65535"))),
    }
}

/// Host and port of `host:port`, `1.2.3.4:port` or `[v6]:port`.
fn split_address(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|&port| port != 0)?;
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        let address: std::net::Ipv6Addr = inner.parse().ok()?;
        return Some((address.to_string(), port));
    }
    let valid = !host.contains(':') && rustls::pki_types::ServerName::try_from(host).is_ok();
    valid.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests;
