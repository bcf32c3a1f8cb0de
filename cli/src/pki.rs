//! `leeward pki`: the certificate authority of an installation, and the certificates of its agents and aggregators.
//!
//! An identity is a URI in the certificate's subject alternative name: `leeward://agent/<region>/<agent>` or
//! `leeward://aggregator/<name>`. An aggregator's certificate also carries the host names and addresses under which
//! agents reach it. Nothing is ever overwritten: a key that was handed out must not silently become another one.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{ErrorKind, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use leeward_common::{
    id::{AgentId, RegionId},
    time::{Clock, SystemClock},
    wire::{AGENT_URI_PREFIX, AGGREGATOR_URI_PREFIX},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use crate::{
    args::{IssueCommand, PkiCommand},
    exit::{Exit, Failure},
    output::Output,
};

/// How far back a certificate is valid: hosts whose clocks run late must be able to use it at once.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";

/// Runs `leeward pki …`.
///
/// # Errors
///
/// Returns why no certificate was made; files that exist are left as they are.
pub fn run(out: &Output, command: &PkiCommand) -> Result<Exit, Failure> {
    let written = match command {
        PkiCommand::Init { directory, days } => init(directory, *days)?,
        PkiCommand::Issue {
            command: IssueCommand::Agent { region, id, files },
        } => {
            let identity = format!("{AGENT_URI_PREFIX}{region}/{id}");
            let usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let leaf = Leaf {
                stem: format!("agent-{id}"),
                common_name: id.to_string(),
                identity,
                hosts: &[],
                usages,
            };
            issue(&files.directory, files.days, &leaf)?
        }
        PkiCommand::Issue {
            command: IssueCommand::Aggregator { name, hosts, files },
        } => {
            let identity = format!("{AGGREGATOR_URI_PREFIX}{name}");
            let usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let leaf = Leaf {
                stem: format!("aggregator-{name}"),
                common_name: name.to_string(),
                identity,
                hosts,
                usages,
            };
            issue(&files.directory, files.days, &leaf)?
        }
    };
    for path in &written {
        out.line(&path.display().to_string())?;
    }
    if let PkiCommand::Init { directory, .. } = command {
        let directory = directory.display();
        out.talk(&format!(
            "Made a certificate authority. Keep {CA_KEY} where nobody else can read it; hosts need only {CA_CERTIFICATE}.\n\
             next: leeward pki issue aggregator --dir {directory} --name NAME --host HOST\n      \
             leeward pki issue agent --dir {directory} --region REGION --id AGENT"
        ));
    }
    Ok(Exit::Done)
}

/// Makes the directory and the authority in it.
fn init(directory: &Path, days: u32) -> Result<Vec<PathBuf>, Failure> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(anyhow::Error::from(error)
                .context(format!("cannot make {}", directory.display()))
                .into());
        }
        _ => {}
    }
    let key = KeyPair::generate().context("cannot make a key")?;
    let mut params = params("Leeward certificate authority", days)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params
        .self_signed(&key)
        .context("cannot sign the authority's certificate")?;
    write_pair(directory, "ca", &certificate.pem(), &key)
}

/// What one certificate is to say.
struct Leaf<'a> {
    stem: String,
    common_name: String,
    identity: String,
    hosts: &'a [Host],
    usages: Vec<ExtendedKeyUsagePurpose>,
}

fn issue(directory: &Path, days: u32, leaf: &Leaf<'_>) -> Result<Vec<PathBuf>, Failure> {
    let issuer = authority(directory)?;
    let key = KeyPair::generate().context("cannot make a key")?;
    let mut params = params(&leaf.common_name, days)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages.clone_from(&leaf.usages);
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names.push(SanType::URI(
        leaf.identity.clone().try_into().context("identity")?,
    ));
    for host in leaf.hosts {
        params.subject_alt_names.push(match host {
            Host::Address(address) => SanType::IpAddress(*address),
            Host::Name(name) => SanType::DnsName(name.clone().try_into().context("host name")?),
        });
    }
    let certificate = params
        .signed_by(&key, &issuer)
        .context("cannot sign the certificate")?;
    write_pair(directory, &leaf.stem, &certificate.pem(), &key)
}

fn params(common_name: &str, days: u32) -> Result<CertificateParams, Failure> {
    let mut params = CertificateParams::new(Vec::new()).context("certificate")?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let now = Duration::from_micros(SystemClock.now().as_unix_us());
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + now + Duration::from_secs(u64::from(days) * 24 * 3600);
    Ok(params)
}

fn authority(directory: &Path) -> Result<Issuer<'static, KeyPair>, Failure> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path).map_err(|error| {
            let exit = if error.kind() == ErrorKind::NotFound {
                Exit::NotFound
            } else {
                Exit::Failed
            };
            Failure::new(exit, format!("cannot read {}: {error}", path.display())).step(format!(
                "leeward pki init {}     makes an authority there",
                directory.display()
            ))
        })
    };
    let (certificate, key) = (read(CA_CERTIFICATE)?, read(CA_KEY)?);
    let path = directory.join(CA_KEY);
    let key = KeyPair::from_pem(&key)
        .with_context(|| format!("{} is not a private key", path.display()))?;
    let path = directory.join(CA_CERTIFICATE);
    let issuer = Issuer::from_ca_cert_pem(&certificate, key)
        .with_context(|| format!("{} is not a certificate authority's", path.display()))?;
    Ok(issuer)
}

/// Writes certificate and key, or neither.
fn write_pair(
    directory: &Path,
    stem: &str,
    certificate: &str,
    key: &KeyPair,
) -> Result<Vec<PathBuf>, Failure> {
    let certificate_path = directory.join(format!("{stem}.pem"));
    let key_path = directory.join(format!("{stem}.key"));
    write_new(&key_path, 0o600, &key.serialize_pem())?;
    if let Err(failure) = write_new(&certificate_path, 0o644, certificate) {
        let _ = fs::remove_file(&key_path);
        return Err(failure);
    }
    Ok(vec![certificate_path, key_path])
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), Failure> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let mut file = file.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            Failure::new(Exit::Precondition, format!("{} exists and is not overwritten", path.display()))
                .step("move it away first if it is really to be replaced, or choose another name or directory")
        }
        _ => Failure::new(Exit::Failed, format!("cannot make {}: {error}", path.display())),
    })?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = fs::remove_file(path);
        return Err(Failure::new(
            Exit::Failed,
            format!("cannot write {}: {error}", path.display()),
        ));
    }
    Ok(())
}

/// A host name or address under which an aggregator is reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A DNS name.
    Name(String),
}

impl std::str::FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let labels: Vec<&str> = text.split('.').collect();
        let numeric = labels
            .last()
            .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if text.len() > 253 || numeric || !labels.into_iter().all(label) {
            return Err(
                "use a DNS name like agg.example.net or an address, without a port".to_owned(),
            );
        }
        Ok(Self::Name(text.to_ascii_lowercase()))
    }
}

/// An aggregator's name: the repertoire of ids.
///
/// # Errors
///
/// Returns what is allowed.
pub fn aggregator_name(text: &str) -> Result<AgentId, String> {
    AgentId::parse(text).map_err(|error| {
        error
            .to_string()
            .replace("an agent id", "a name")
            .replace("a agent id", "a name")
    })
}

/// A region, for the command line.
///
/// # Errors
///
/// Returns what is allowed.
pub fn region(text: &str) -> Result<RegionId, String> {
    RegionId::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address() {
        assert_eq!("10.0.0.1".parse(), Ok(Host::Address([10, 0, 0, 1].into())));
        assert_eq!(
            "2001:db8::1".parse::<Host>(),
            Ok(Host::Address("2001:db8::1".parse().unwrap()))
        );
        assert_eq!(
            "Agg.Example.net".parse(),
            Ok(Host::Name("agg.example.net".to_owned()))
        );
        for text in [
            "",
            "a..b",
            "-a.b",
            "a:8610",
            "[::1]",
            "http://a",
            "10.0.0.256",
            "a b",
        ] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }
}
