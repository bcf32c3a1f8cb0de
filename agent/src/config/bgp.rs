//! `[bgp]`: the prefixes that are watched, and the routers that are listened to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use leeward_common::{
    bgp::Prefix,
    config::{ConfigError, Document, Span, Spanned},
    id::RegionId,
};
use serde::Deserialize;

use crate::{
    admission::Network,
    bgp::{
        cache,
        collectors::{Place, RisLive},
        leak::Relations,
        session,
        tables::Extent,
        watch::{Told, Watched, Watchlist},
    },
};

/// The most peers and routers that can be named.
const NAMED_MAX: usize = 64;

/// The most systems without a provider that can be named; there are some twenty.
const TRANSIT_FREE_MAX: usize = 1_024;

/// What is watched, and who is listened to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bgp {
    /// The prefixes that are declared here; those that aggregators declare come after them.
    pub watch: Vec<Watched>,
    /// Whether prefixes are learned from agents' addresses where nobody declares any.
    pub learn: bool,
    /// How long a window is.
    pub window: Duration,
    /// Where routers connect with BMP.
    pub bmp_listen: Option<SocketAddr>,
    /// The routers that may.
    pub bmp_routers: Vec<Network>,
    /// Where peers connect with BGP.
    pub listen: Option<SocketAddr>,
    /// The peers that may.
    pub peers: Vec<Peer>,
    /// Who knows who may announce what, as `host:port`, the preferred one first; empty if nobody is asked.
    pub rpki_caches: Vec<String>,
    /// What others are to each other and to us.
    pub relations: Relations,
    /// Where route collectors elsewhere are listened to.
    pub ris_live: Option<RisLive>,
    /// How much is kept of what they show.
    pub extent: Extent,
}

/// Nobody is listened to.
impl Default for Bgp {
    fn default() -> Self {
        Self {
            watch: Vec::new(),
            learn: true,
            window: defaults::WINDOW,
            bmp_listen: None,
            bmp_routers: Vec::new(),
            listen: None,
            peers: Vec::new(),
            rpki_caches: Vec::new(),
            relations: Relations::default(),
            ris_live: None,
            extent: Extent::default(),
        }
    }
}

/// A peer and how its connection is guarded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Who it is.
    pub session: session::Peer,
    /// It must be a neighbour on the link.
    pub gtsm: bool,
    /// A file that holds the key that segments are signed with.
    pub signature_key: Option<PathBuf>,
}

impl Bgp {
    /// Whether anybody is listened to.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.bmp_listen.is_some() || self.listen.is_some() || self.ris_live.is_some()
    }

    /// What is watched, after what aggregators told.
    #[must_use]
    pub fn watchlist(&self, told: &Told) -> Watchlist {
        match self.learn {
            true => Watchlist::new(&self.watch, told),
            false => Watchlist::new(
                &self.watch,
                &Told {
                    addresses: BTreeMap::new(),
                    ..told.clone()
                },
            ),
        }
    }
}

mod defaults {
    use std::time::Duration;

    pub(super) const WINDOW: Duration = Duration::from_secs(10);
    pub(super) const SILENT_FOR: Duration = Duration::from_secs(60);
    pub(super) const HOLD_TIME: Duration = Duration::from_secs(9);
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBgp {
    window: Option<Spanned<Span>>,
    bmp_listen: Option<SocketAddr>,
    #[serde(default)]
    bmp_routers: Vec<Spanned<String>>,
    listen: Option<Spanned<SocketAddr>>,
    system: Option<u32>,
    router_id: Option<Ipv4Addr>,
    hold_time: Option<Spanned<Span>>,
    #[serde(default)]
    table: RawTable,
    max_prefixes: Option<Spanned<usize>>,
    max_table_mib: Option<Spanned<usize>>,
    learn: Option<bool>,
    #[serde(default)]
    watch: Vec<RawWatch>,
    #[serde(default)]
    peer: Vec<RawPeer>,
    transit_free: Option<Spanned<BTreeSet<u32>>>,
    #[serde(default)]
    customer_neighbours: Vec<Spanned<String>>,
    #[serde(default)]
    peer_neighbours: Vec<Spanned<String>>,
    #[serde(default)]
    rpki: RawRpki,
    ris_live: Option<RawRisLive>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRisLive {
    url: Spanned<String>,
    silent_for: Option<Spanned<Span>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRpki {
    #[serde(default)]
    caches: Vec<Spanned<String>>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawTable {
    #[default]
    Watched,
    Full,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWatch {
    region: RegionId,
    prefixes: Vec<Spanned<String>>,
    #[serde(default)]
    origins: BTreeSet<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPeer {
    address: Spanned<IpAddr>,
    system: u32,
    #[serde(default)]
    gtsm: bool,
    signature_key: Option<PathBuf>,
}

impl RawRpki {
    fn caches(&self, document: &Document<'_>) -> Result<Vec<String>, ConfigError> {
        if let Some(cache) = self.caches.get(cache::CACHES_MAX) {
            return Err(document.error(
                cache.span(),
                format!(
                    "bgp.rpki.caches holds more than {} caches",
                    cache::CACHES_MAX
                ),
            ));
        }
        for cache in &self.caches {
            if super::split_address(cache.get_ref()).is_none() {
                let message = format!(
                    "bgp.rpki.caches holds {:?}; write host and port, like \"rpki.example.net:323\"",
                    cache.get_ref()
                );
                return Err(document.error(cache.span(), message));
            }
        }
        Ok(self
            .caches
            .iter()
            .map(|cache| cache.get_ref().clone())
            .collect())
    }
}

impl RawRisLive {
    fn valid(&self, document: &Document<'_>) -> Result<RisLive, ConfigError> {
        let Some(place) = Place::parse(self.url.get_ref()) else {
            let message = format!(
                "bgp.ris_live.url is {:?}; write one like \"wss://ris-live.ripe.net/v1/ws/?client=NAME\"",
                self.url.get_ref()
            );
            return Err(document.error(self.url.span(), message));
        };
        let silent_for = self
            .silent_for
            .as_ref()
            .map_or(defaults::SILENT_FOR, |span| span.get_ref().0);
        if let Some(written) = &self.silent_for
            && !(Duration::from_secs(10)..=Duration::from_secs(600)).contains(&silent_for)
        {
            return Err(document.error(
                written.span(),
                "bgp.ris_live.silent_for must lie between \"10s\" and \"10m\"",
            ));
        }
        Ok(RisLive { place, silent_for })
    }
}

impl RawBgp {
    pub(super) fn valid(
        &self,
        document: &Document<'_>,
        credentials: &Path,
    ) -> Result<Bgp, ConfigError> {
        let window = self
            .window
            .as_ref()
            .map_or(defaults::WINDOW, |span| span.get_ref().0);
        if let Some(written) = &self.window
            && !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&window)
        {
            return Err(document.error(
                written.span(),
                "bgp.window must lie between \"1s\" and \"5m\"",
            ));
        }
        for (key, networks) in [
            ("bmp_routers", &self.bmp_routers),
            ("customer_neighbours", &self.customer_neighbours),
            ("peer_neighbours", &self.peer_neighbours),
        ] {
            if let Some(beyond) = networks.get(NAMED_MAX) {
                return Err(document.error(
                    beyond.span(),
                    format!("bgp.{key} holds more than {NAMED_MAX} entries"),
                ));
            }
        }
        let transit_free = self.transit_free.as_ref();
        if let Some(written) = transit_free
            && written.get_ref().len() > TRANSIT_FREE_MAX
        {
            return Err(document.error(
                written.span(),
                format!("bgp.transit_free holds more than {TRANSIT_FREE_MAX} systems"),
            ));
        }
        Ok(Bgp {
            watch: self.watched(document)?,
            learn: self.learn.unwrap_or(true),
            window,
            bmp_listen: self.bmp_listen,
            bmp_routers: super::networks(document, &self.bmp_routers)?,
            listen: self.listen.as_ref().map(|listen| *listen.get_ref()),
            peers: self.peers(document, credentials)?,
            rpki_caches: self.rpki.caches(document)?,
            relations: Relations {
                transit_free: transit_free.map_or_else(BTreeSet::new, |own| own.get_ref().clone()),
                customers: super::networks(document, &self.customer_neighbours)?,
                peers: super::networks(document, &self.peer_neighbours)?,
            },
            ris_live: self
                .ris_live
                .as_ref()
                .map(|own| own.valid(document))
                .transpose()?,
            extent: self.extent(document)?,
        })
    }

    fn extent(&self, document: &Document<'_>) -> Result<Extent, ConfigError> {
        let usual = Extent::default();
        let within = |given: &Option<Spanned<usize>>, key: &str, range: RangeInclusive<usize>| {
            let Some(written) = given else {
                return Ok(None);
            };
            let value = *written.get_ref();
            match range.contains(&value) {
                true => Ok(Some(value)),
                false => {
                    let (least, most) = range.into_inner();
                    let message = format!("bgp.{key} is {value}; use {least} to {most}");
                    Err(document.error(written.span(), message))
                }
            }
        };
        let routes = within(&self.max_prefixes, "max_prefixes", 1..=100_000_000)?;
        let mib = within(&self.max_table_mib, "max_table_mib", 1..=1_048_576)?;
        Ok(Extent {
            is_full: matches!(self.table, RawTable::Full),
            routes_max: routes.unwrap_or(usual.routes_max),
            bytes_max: mib.map_or(usual.bytes_max, |mib| mib << 20),
        })
    }

    fn watched(&self, document: &Document<'_>) -> Result<Vec<Watched>, ConfigError> {
        let (mut all, mut list) = (Vec::new(), Watchlist::default());
        for watch in &self.watch {
            for written in &watch.prefixes {
                let wrong = |message: String| document.error(written.span(), message);
                let prefix: Prefix = written
                    .get_ref()
                    .parse()
                    .map_err(|error| wrong(format!("{error}")))?;
                let (region, origins) = (watch.region.clone(), watch.origins.clone());
                let watched = Watched::new(prefix, region, origins);
                list.add(watched.clone()).map_err(|watched| {
                    wrong(format!(
                        "{} is watched twice, or is one more than can be watched",
                        watched.prefix
                    ))
                })?;
                all.push(watched);
            }
        }
        Ok(all)
    }

    fn peers(&self, document: &Document<'_>, credentials: &Path) -> Result<Vec<Peer>, ConfigError> {
        let hold_time = self
            .hold_time
            .as_ref()
            .map_or(defaults::HOLD_TIME, |span| span.get_ref().0);
        if let Some(written) = &self.hold_time
            && (!(3..=65_535).contains(&hold_time.as_secs()) || hold_time.subsec_nanos() != 0)
        {
            let message =
                format!("bgp.hold_time is {hold_time:?}; use whole seconds, \"3s\" or more");
            return Err(document.error(written.span(), message));
        }
        let Some(listen) = &self.listen else {
            return match self.peer.first() {
                None => Ok(Vec::new()),
                Some(peer) => Err(document.error(
                    peer.address.span(),
                    "a [[bgp.peer]] is given but no place where it connects; add bgp.listen, like \"0.0.0.0:179\"",
                )),
            };
        };
        let (Some(own_system), Some(router_id)) = (self.system, self.router_id) else {
            let message = "bgp.listen is given without bgp.system and bgp.router_id; peers must know who we are";
            return Err(document.error(listen.span(), message));
        };
        let mut peers: Vec<Peer> = Vec::new();
        for raw in &self.peer {
            let address = raw.address.get_ref().to_canonical();
            if peers.iter().any(|peer| peer.session.address == address) {
                return Err(document.error(
                    raw.address.span(),
                    format!("the peer {address} is given twice"),
                ));
            }
            if peers.len() == NAMED_MAX {
                return Err(document.error(
                    raw.address.span(),
                    format!("more than {NAMED_MAX} [[bgp.peer]] tables are given"),
                ));
            }
            peers.push(Peer {
                session: session::Peer {
                    address,
                    system: raw.system,
                    own_system,
                    router_id,
                    hold_time,
                },
                gtsm: raw.gtsm,
                signature_key: raw
                    .signature_key
                    .as_ref()
                    .map(|file| credentials.join(file)),
            });
        }
        Ok(peers)
    }
}
