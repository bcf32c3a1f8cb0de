//! The routers of a scenario: for each `[[feed]]` a real BGP speaker (ExaBGP) on the host of the agent that hears it.
//!
//! A speaker has its own address on the host's loopback device and its own system, the first of the feed's path. It announces
//! what the scenario's `[[prefix]]` tables name; what events say of it later goes through its API, as text. A session
//! that ends is a speaker that is killed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use leeward_common::bgp::Prefix;
use leeward_engine::scenario::{Feed, RoutingChange, Scenario};

use crate::{
    host::{self, Host},
    process::Process,
};

/// Where Debian has it.
const EXABGP: &str = "/usr/sbin/exabgp";

/// The system of all agents.
pub const AGENTS_SYSTEM: u32 = 64_496;

/// Where agents listen: no lab needs the right to bind 179.
pub const PORT: u16 = 1_790;

/// A private system that lengthens a path.
const DETOUR: u32 = 64_999;

/// A speaker of one feed.
#[derive(Debug)]
pub struct Speaker {
    name: String,
    source: IpAddr,
    agent: IpAddr,
    /// The feed's usual path.
    path: Vec<u32>,
    /// What it announces now, by which path.
    routes: BTreeMap<Prefix, Vec<u32>>,
    directory: PathBuf,
    process: Option<Process>,
}

/// The systems on a feed's routes, nearest first.
///
/// # Errors
///
/// Returns that there are none, or which is no number.
pub fn systems(name: &str, feed: &Feed) -> Result<Vec<u32>, String> {
    let systems = feed.path.split_whitespace().map(str::parse);
    match systems.collect::<Result<Vec<u32>, _>>() {
        Ok(path) if !path.is_empty() => Ok(path),
        _ => Err(format!(
            "feed {name} has the path {:?}; the lab needs the numbers of one system or more",
            feed.path
        )),
    }
}

/// Whether the lab can do this with real routers.
#[must_use]
pub const fn can(change: RoutingChange) -> bool {
    match change {
        RoutingChange::Withdrawn
        | RoutingChange::Returned
        | RoutingChange::Exploring(_)
        | RoutingChange::Origin(_)
        | RoutingChange::Usual
        | RoutingChange::Lost
        | RoutingChange::Up
        | RoutingChange::Loaded => true,
        // These take ten minutes, a measure and not an event, or a router with a fault.
        RoutingChange::Stuck | RoutingChange::Unstable(_) | RoutingChange::Fabricating => false,
        // Here nobody knows who may announce what, nor who has no provider.
        RoutingChange::Invalid(_) | RoutingChange::Leaked => false,
    }
}

impl Speaker {
    /// A speaker that is not started yet, on the host of its agent.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the feed, or the kernel's refusal of its address.
    pub fn new(
        name: &str,
        feed: &Feed,
        scenario: &Scenario,
        host: &Host,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        if !Path::new(EXABGP).exists() {
            bail!("{EXABGP} is missing (package exabgp); feeds need it");
        }
        let path = systems(name, feed).map_err(anyhow::Error::msg)?;
        let source = feed.source;
        host.namespace
            .run(|| host::add_to_loopback(source))
            .with_context(|| format!("cannot give {source} to the router of feed {name}"))?;
        let directory = directory.join(format!("feed-{name}"));
        fs::create_dir_all(&directory)?;
        let prefixes = scenario.prefixes.keys();
        Ok(Self {
            name: name.to_owned(),
            source,
            agent: host.v4(),
            routes: prefixes.map(|prefix| (*prefix, path.clone())).collect(),
            path,
            directory,
            process: None,
        })
    }

    /// Starts it, if it does not run.
    ///
    /// # Errors
    ///
    /// Returns why it cannot be started.
    pub fn start(&mut self, host: &Host, logs: &Path) -> anyhow::Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let config = self.directory.join("exabgp.conf");
        fs::write(&config, self.config())?;
        fs::write(self.commands(), "")?;
        let mut command = Command::new(EXABGP);
        command
            .env("exabgp.daemon.user", "root")
            .env("exabgp.daemon.drop", "false")
            .env("exabgp.api.cli", "false")
            .env("exabgp.api.ack", "false")
            .arg(&config);
        let name = format!("feed-{}", self.name);
        self.process = Some(Process::start(&name, &mut command, host, logs)?);
        Ok(())
    }

    /// Fails if it has ended by itself.
    ///
    /// # Errors
    ///
    /// Returns how it ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.process.iter_mut().try_for_each(Process::check)
    }

    /// Something happens to it, or to what it says of these prefixes.
    ///
    /// # Errors
    ///
    /// Returns why it cannot be told.
    pub fn happen(
        &mut self,
        change: RoutingChange,
        prefixes: &[Prefix],
        host: &Host,
        logs: &Path,
    ) -> anyhow::Result<()> {
        match change {
            RoutingChange::Withdrawn => self.each(prefixes, |own, prefix| {
                own.routes.remove(&prefix);
                own.say(&format!("withdraw route {prefix} next-hop self"))
            }),
            RoutingChange::Returned | RoutingChange::Usual => self.each(prefixes, |own, prefix| {
                own.announce(prefix, own.path.clone())
            }),
            RoutingChange::Exploring(paths) => self.each(prefixes, |own, prefix| {
                for longer in 1..=paths as usize {
                    let mut path = own.path.clone();
                    path.splice(1..1, std::iter::repeat_n(DETOUR, longer));
                    own.announce(prefix, path)?;
                }
                Ok(())
            }),
            RoutingChange::Origin(to) => self.each(prefixes, |own, prefix| {
                let mut path = own.path.clone();
                path.pop();
                path.push(to);
                own.announce(prefix, path)
            }),
            RoutingChange::Lost => match self.process.take() {
                Some(process) => process.kill(),
                None => Ok(()),
            },
            RoutingChange::Up => self.start(host, logs),
            // It sends its table by itself.
            RoutingChange::Loaded => Ok(()),
            RoutingChange::Stuck
            | RoutingChange::Unstable(_)
            | RoutingChange::Fabricating
            | RoutingChange::Invalid(_)
            | RoutingChange::Leaked => {
                bail!("no real router does this at once")
            }
        }
    }

    fn each(
        &mut self,
        prefixes: &[Prefix],
        mut change: impl FnMut(&mut Self, Prefix) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        prefixes.iter().try_for_each(|prefix| change(self, *prefix))
    }

    fn announce(&mut self, prefix: Prefix, path: Vec<u32>) -> anyhow::Result<()> {
        self.say(&format!("announce {}", route(prefix, &path)))?;
        self.routes.insert(prefix, path);
        Ok(())
    }

    fn commands(&self) -> PathBuf {
        self.directory.join("commands")
    }

    fn say(&self, what: &str) -> anyhow::Result<()> {
        let mut file = File::options().append(true).open(self.commands())?;
        Ok(writeln!(file, "{what}")?)
    }

    fn config(&self) -> String {
        let routes: Vec<_> = self
            .routes
            .iter()
            .map(|(prefix, path)| route(*prefix, path) + ";")
            .collect();
        let (source, agent, commands) = (self.source, self.agent, self.commands());
        format!(
            "process events {{ run /usr/bin/tail -n +1 -f {}; encoder text; }}\n\
             neighbor {agent} {{\n\
             router-id {source}; local-address {source}; local-as {}; peer-as {AGENTS_SYSTEM};\n\
             connect {PORT}; hold-time 9;\n\
             family {{ ipv4 unicast; ipv6 unicast; }}\n\
             api {{ processes [ events ]; }}\n\
             static {{ {} }}\n\
             }}\n",
            commands.display(),
            self.path[0],
            routes.join(" ")
        )
    }
}

fn route(prefix: Prefix, path: &[u32]) -> String {
    let path: Vec<_> = path.iter().map(u32::to_string).collect();
    format!(
        "route {prefix} next-hop self as-path [ {} ]",
        path.join(" ")
    )
}
