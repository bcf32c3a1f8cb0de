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
    spool::AGGREGATORS_MAX,
};

mod checks;
mod stamp;

pub use checks::Checks;
use checks::RawChecks;
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
    /// The STAMP reflector.
    pub stamp: Stamp,
    /// What it may ask of services, and how fast.
    pub checks: Checks,
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
    /// Memory for batches that are not durable everywhere, in bytes.
    pub waiting_bytes: usize,
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
    stamp: stamp::RawStamp,
    #[serde(default)]
    checks: RawChecks,
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
            stamp: raw.stamp.valid(document, credentials_directory)?,
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
        Ok(Uplink {
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
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../agent.sample.toml");
    const LEAST: &str = r#"
        region = "eu-west-1"
        agent = "eu-west-1-a"
        allowed_networks = ["10.0.0.0/8", "2001:db8::/32"]
        [credentials]
        ca = "ca.pem"
        certificate = "agent.pem"
        key = "agent.key"
        [[aggregator]]
        address = "aggregator.example.net:8610"
    "#;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(
            &Document {
                file: "agent.toml",
                text,
            },
            Path::new("/etc/leeward"),
        )
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    /// Every commented-out key (`# key = value`) and table of the sample, made real.
    fn uncommented(text: &str) -> String {
        let is_key = |line: &str| {
            line.split_once(" = ")
                .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        };
        let live = |line: &str| match line.strip_prefix("# ") {
            Some(rest) if is_key(rest) || rest.starts_with('[') => rest.to_owned(),
            _ => line.to_owned(),
        };
        text.lines().map(live).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_sample_shows_the_defaults() {
        let sample = parse(SAMPLE).unwrap();
        assert_eq!(sample, parse(LEAST).unwrap());
        let text = uncommented(SAMPLE);
        for key in [
            "max_probes_per_second",
            "status_listen",
            "waiting_memory_mib",
            "syn_source_ports",
            "max_reflections_per_second",
        ] {
            assert!(
                text.contains(&format!("\n{key} = ")),
                "{key} is not in the sample"
            );
        }
        let mut shown = parse(&text).unwrap();
        assert_eq!(shown.aggregators[0].name.take().as_deref(), Some("main"));
        let mesh_key = shown.stamp.mesh_key.take();
        assert_eq!(mesh_key, Some("/etc/leeward/mesh.key".into()));
        let ca = shown.checks.ca.take();
        assert_eq!(ca.as_deref(), Some(Path::new("/etc/leeward/checks-ca.pem")));
        shown.checks.allowed.key = "allowed_networks";
        assert_eq!(shown, sample);
    }

    #[test]
    fn the_sample_documents_every_key() {
        for key in [
            "region",
            "agent",
            "allowed_networks",
            "max_probes_per_second",
            "addresses",
            "answer_port",
            "syn_source_ports",
            "status_listen",
            "ca",
            "certificate",
            "key",
            "address",
            "name",
            "keep_alive",
            "idle_timeout",
            "waiting_memory_mib",
            "allow",
            "concurrency",
            "max_per_second",
        ] {
            assert!(
                uncommented(SAMPLE).contains(&format!("\n{key} = ")),
                "{key}"
            );
        }
    }

    #[test]
    fn credentials_are_relative_to_their_directory() {
        let config = parse(LEAST).unwrap();
        assert_eq!(config.credentials.ca, Path::new("/etc/leeward/ca.pem"));
        let absolute = LEAST.replace("\"agent.key\"", "\"/run/agent.key\"");
        assert_eq!(
            parse(&absolute).unwrap().credentials.key,
            Path::new("/run/agent.key")
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_place_and_remedy() {
        let cases = [
            ("regoin = \"x\"", "agent.toml:2:1: unknown field `regoin`"),
            (
                "max_probes_per_second = 0",
                "agent.toml:2:25: max_probes_per_second is 0; use 1 to 1000000",
            ),
            (
                "max_probes_per_second = \"1\"",
                "agent.toml:2:25: invalid type: string \"1\", expected u32",
            ),
            (
                "answer_port = 70000",
                "agent.toml:2:15: invalid value: integer `70000`, expected u16",
            ),
            (
                "answer_port = 0",
                "agent.toml:2:15: answer_port is 0; use 1 to 65535",
            ),
            (
                "addresses = [\"0.0.0.0\"]",
                "agent.toml:2:14: addresses holds 0.0.0.0, which no host has",
            ),
            (
                "addresses = [\"10.0.0.1\", \"10.0.0.1\"]",
                "agent.toml:2:26: addresses holds 10.0.0.1 twice",
            ),
            (
                "syn_source_ports = [5, 4]",
                "agent.toml:2:20: syn_source_ports is [5, 4]; use first and last",
            ),
            (
                "status_listen = \"0.0.0.0:9620\"",
                "agent.toml:2:17: status_listen is 0.0.0.0:9620; it is served without",
            ),
            (
                "status_listen = \"here\"",
                "agent.toml:2:17: status_listen is \"here\"; write address and port",
            ),
            (
                "uplink = { keep_alive = \"5s\" }",
                "agent.toml:2:25: uplink.keep_alive is 5s; use at least",
            ),
            (
                "uplink = { keep_alive = 5 }",
                "agent.toml:2:25: invalid type: integer `5`, expected a string",
            ),
            (
                "uplink = { idle_timeout = \"1h\" }",
                "agent.toml:2:27: uplink.idle_timeout must lie between",
            ),
            (
                "uplink = { waiting_memory_mib = 0 }",
                "agent.toml:2:33: uplink.waiting_memory_mib is 0; use 1",
            ),
            (
                "checks = { concurrency = 0 }",
                "agent.toml:2:26: checks.concurrency is 0; use 1 to 256",
            ),
            (
                "checks = { allow = [\"10.0.0.1/8\"] }",
                "agent.toml:2:21: \"10.0.0.1/8\" is not a network",
            ),
        ];
        for (line, expected) in cases {
            let error = error(&format!("\n{line}{LEAST}"));
            assert!(error.starts_with(expected), "{line}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn networks_and_aggregators_are_checked_where_they_stand() {
        let cases = [
            (
                "10.0.0.0/8",
                "10.0.0.0/33",
                "agent.toml:4:29: \"10.0.0.0/33\" is not a network",
            ),
            (
                "10.0.0.0/8",
                "10.0.0.1/8",
                "agent.toml:4:29: \"10.0.0.1/8\" is not a network",
            ),
            (
                "aggregator.example.net:8610",
                "aggregator.example.net",
                "agent.toml:10:19: \"aggregator.example.net\" is not host and port",
            ),
            (
                "aggregator.example.net:8610",
                "2001:db8::1:8610",
                "agent.toml:10:19: \"2001:db8::1:8610\" is not host",
            ),
            (
                "\"eu-west-1\"",
                "\"EU\"",
                "agent.toml:2:18: \"EU\" is not a region id; use 1 to 63",
            ),
        ];
        for (from, to, expected) in cases {
            let error = error(&LEAST.replace(from, to));
            assert!(error.starts_with(expected), "{error}");
        }
        let twice = format!("{LEAST}\n[[aggregator]]\naddress = \"aggregator.example.net:8610\"\n");
        assert!(
            error(&twice).contains(
                "agent.toml:13:11: aggregator aggregator.example.net:8610 is given twice"
            )
        );
    }

    #[test]
    fn what_is_missing_is_said() {
        let none = LEAST.replace("allowed_networks", "# allowed_networks");
        assert!(
            error(&none).starts_with("agent.toml: allowed_networks is missing; list the networks")
        );
        let none = LEAST
            .replace("[[aggregator]]", "")
            .replace("address = ", "# ");
        assert!(
            error(&none).starts_with("agent.toml: no [[aggregator]] is given"),
            "{}",
            error(&none)
        );
        let none = LEAST.replace("region = ", "# ");
        assert!(
            error(&none).contains("missing field `region`"),
            "{}",
            error(&none)
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Config::load(Path::new("/nonexistent/agent.toml"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("/nonexistent/agent.toml: cannot be read: No such file"),
            "{error}"
        );
    }

    #[test]
    fn addresses_of_all_forms_are_split() {
        assert_eq!(
            split_address("[2001:db8::1]:8610"),
            Some(("2001:db8::1".to_owned(), 8610))
        );
        assert_eq!(
            split_address("192.0.2.1:1"),
            Some(("192.0.2.1".to_owned(), 1))
        );
        for bad in [
            "", ":1", "a:0", "a:65536", "[::1:1", "::1:1", "a b:1", "[a]:1",
        ] {
            assert_eq!(split_address(bad), None, "{bad}");
        }
    }
}
