//! An installation of Leeward on the lab's hosts: certificates made by the real command line, and configuration files.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use leeward_engine::scenario::Feed;
use sha2::{Digest, Sha256};

use crate::{
    speaker,
    world::{Site, World},
};

/// The aggregator's name.
const AGGREGATOR: &str = "lab";

/// The token's holder, in the aggregator's log.
const TOKEN_HOLDER: &str = "lab";

/// The sections of a scenario that the aggregator takes as they are.
const POLICY_SECTIONS: [&str; 5] = ["region", "failover", "probing", "policy", "signal_source"];

/// The networks that the lab's hosts are in.
const NETWORKS: [&str; 2] = ["10.0.0.0/8", "fd00::/8"];

/// Where the binaries are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `leeward`
    pub cli: PathBuf,
    /// `leeward-agent`
    pub agent: PathBuf,
    /// `leeward-aggregator`
    pub aggregator: PathBuf,
}

impl Binaries {
    /// Finds them in a directory, or beside the running executable.
    ///
    /// # Errors
    ///
    /// Returns which one is missing.
    pub fn find(directory: Option<&Path>) -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let beside = own.parent().unwrap_or(Path::new("."));
        let directory = fs::canonicalize(directory.unwrap_or(beside))?;
        let find = |name: &str| {
            let path = directory.join(name);
            if path.is_file() {
                return Ok(path);
            }
            bail!(
                "{} is missing; build it with cargo build --bins, or name its directory with --bin-dir",
                path.display()
            )
        };
        Ok(Self {
            cli: find("leeward")?,
            agent: find("leeward-agent")?,
            aggregator: find("leeward-aggregator")?,
        })
    }
}

/// Everything that the daemons read.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Where it is.
    pub directory: PathBuf,
    /// The token that may write.
    pub token: String,
}

impl Installation {
    /// Makes certificates and configuration files for every host in `directory`.
    ///
    /// # Errors
    ///
    /// Returns what could not be made.
    pub fn make(
        directory: &Path,
        binaries: &Binaries,
        world: &World,
        feeds: &BTreeMap<String, Feed>,
        scenario: &str,
    ) -> anyhow::Result<Self> {
        let token = random_token()?;
        let installation = Self {
            directory: directory.to_owned(),
            token,
        };
        installation.certificates(binaries, world)?;
        let text = installation.aggregator_toml(scenario)?;
        write(&installation.aggregator_config(), &text)?;
        for site in &world.agents {
            write(
                &installation.agent_config(site),
                &(installation.agent_toml(site, world) + &bgp_toml(site, feeds)),
            )?;
        }
        Ok(installation)
    }

    /// The aggregator's configuration file.
    #[must_use]
    pub fn aggregator_config(&self) -> PathBuf {
        self.directory.join("aggregator.toml")
    }

    /// An agent's configuration file.
    #[must_use]
    pub fn agent_config(&self, site: &Site) -> PathBuf {
        self.directory.join(format!("{}.toml", site.agent))
    }

    fn pki(&self) -> PathBuf {
        self.directory.join("pki")
    }

    fn certificates(&self, binaries: &Binaries, world: &World) -> anyhow::Result<()> {
        let pki = self.pki().display().to_string();
        let leeward = |arguments: &[&str]| {
            let output = Command::new(&binaries.cli).args(arguments).output();
            let output =
                output.with_context(|| format!("cannot run {}", binaries.cli.display()))?;
            if output.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("leeward {} failed: {said}", arguments.join(" "))
        };
        leeward(&["pki", "init", &pki])?;
        let [v4, v6] = world.aggregator.map(|address| address.to_string());
        leeward(&[
            "pki",
            "issue",
            "aggregator",
            "--dir",
            &pki,
            "--name",
            AGGREGATOR,
            "--host",
            &v4,
            "--host",
            &v6,
        ])?;
        for site in &world.agents {
            let (region, agent) = (site.region.as_str(), site.agent.as_str());
            leeward(&[
                "pki", "issue", "agent", "--dir", &pki, "--region", region, "--id", agent,
            ])?;
        }
        Ok(())
    }

    /// The scenario's policy, and where this aggregator listens and stores.
    fn aggregator_toml(&self, scenario: &str) -> anyhow::Result<String> {
        let mut table: toml::Table = scenario.parse().context("the scenario is not TOML")?;
        let prefixes = table.remove("prefix");
        table.retain(|section, _| POLICY_SECTIONS.contains(&section));
        if let Some(regions) = table.get_mut("region").and_then(toml::Value::as_array_mut) {
            for region in regions.iter_mut().filter_map(toml::Value::as_table_mut) {
                region.remove("agents");
            }
        }
        declare_prefixes(&mut table, prefixes.as_ref());
        let policy = toml::to_string(&table)?;
        let (pki, data) = (self.pki(), self.directory.join("aggregator"));
        let (pki, data) = (pki.display(), data.display());
        let digest = Sha256::digest(self.token.as_bytes());
        let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!(
            "name = \"{AGGREGATOR}\"\n\
             data_dir = \"{data}\"\n\
             [credentials]\n\
             ca = \"{pki}/ca.pem\"\n\
             certificate = \"{pki}/aggregator-{AGGREGATOR}.pem\"\n\
             key = \"{pki}/aggregator-{AGGREGATOR}.key\"\n\
             [[api.token]]\n\
             name = \"{TOKEN_HOLDER}\"\n\
             sha256 = \"{hash}\"\n\
             role = \"operator\"\n\
             {policy}"
        ))
    }

    fn agent_toml(&self, site: &Site, world: &World) -> String {
        let (region, agent) = (&site.region, &site.agent);
        let (pki, [address, _]) = (self.pki(), site.addresses);
        let pki = pki.display();
        let aggregator = SocketAddr::new(world.aggregator[0], 8610);
        format!(
            "region = \"{region}\"\n\
             agent = \"{agent}\"\n\
             allowed_networks = {NETWORKS:?}\n\
             addresses = [\"{address}\"]\n\
             [credentials]\n\
             ca = \"{pki}/ca.pem\"\n\
             certificate = \"{pki}/agent-{agent}.pem\"\n\
             key = \"{pki}/agent-{agent}.key\"\n\
             # An emulated link is there to be filled, up to what the emulator follows.\n\
             [bandwidth]\n\
             heavy = true\n\
             heavy_mbit_per_second = 60\n\
             [[aggregator]]\n\
             address = \"{aggregator}\"\n\
             name = \"{AGGREGATOR}\"\n"
        )
    }
}

/// The feeds that an agent hears; nothing if there are none.
fn bgp_toml(site: &Site, feeds: &BTreeMap<String, Feed>) -> String {
    let own = feeds.iter().filter(|(_, feed)| feed.agent == site.agent);
    let peers: String = own
        .filter_map(|(name, feed)| {
            let system = *speaker::systems(name, feed).ok()?.first()?;
            let source = feed.source;
            Some(format!(
                "[[bgp.peer]]\naddress = \"{source}\"\nsystem = {system}\n"
            ))
        })
        .collect();
    match peers.is_empty() {
        true => peers,
        false => format!(
            "[bgp]\n\
             window = \"1s\"\n\
             listen = \"{}\"\n\
             system = {}\n\
             router_id = \"{}\"\n\
             {peers}",
            SocketAddr::new(site.addresses[0], speaker::PORT),
            speaker::AGENTS_SYSTEM,
            site.addresses[0],
        ),
    }
}

/// What a scenario says of prefixes, as an aggregator's configuration says it: at their regions.
fn declare_prefixes(table: &mut toml::Table, prefixes: Option<&toml::Value>) {
    let prefixes = prefixes.and_then(toml::Value::as_array);
    let regions = table.get_mut("region").and_then(toml::Value::as_array_mut);
    let regions = regions
        .into_iter()
        .flatten()
        .filter_map(toml::Value::as_table_mut);
    for region in regions {
        let own = prefixes.into_iter().flatten();
        let own = own.filter(|prefix| prefix.get("region") == region.get("id"));
        let own: Vec<_> = own
            .filter_map(|prefix| prefix.get("prefix").cloned())
            .collect();
        if !own.is_empty() {
            region.insert("prefixes".to_owned(), own.into());
        }
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn random_token() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
