//! The routes of one feed, compactly: which prefix goes by which AS path.
//!
//! A full table has 1.3 million routes by some 263,000 paths. So a path is kept once and known by a number, and prefixes
//! are sorted by their length into hash tables from address to number: 9 bytes and some room for one of IPv4, 21 for one of
//! IPv6. That of several routes to one prefix (RFC 7911) each is a route of its own is what a failed link is inferred from
//! ([`super::inference`]).

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::update::{AsPath, Hop, Nlri};

/// What stands for a set of systems, or any system that is unknown: 0 is nobody's number (RFC 7607).
pub const UNKNOWN: u32 = 0;

/// A path, by its place.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PathId(u32);

/// A link between two systems, the one nearer to the feed first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Link {
    /// The system that is nearer.
    pub near: u32,
    /// The one behind it.
    pub far: u32,
}

/// The routes of one feed.
#[derive(Debug, Default)]
pub struct Table {
    /// By length.
    v4: Vec<HashMap<u32, PathId>>,
    v6: Vec<HashMap<[u32; 4], PathId>>,
    /// Those that have an identifier.
    several: BTreeMap<(IpNet, u32), PathId>,
    paths: Paths,
    routes: usize,
    /// What the hash tables take.
    room: usize,
}

impl Table {
    /// How many routes there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.routes
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.routes == 0
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.room + self.several.len() * 64 + self.paths.bytes
    }

    /// The number of a path, which is kept from now on. Whoever asks holds it once.
    pub fn intern(&mut self, path: &AsPath) -> PathId {
        self.paths.intern(path)
    }

    /// Holds a path once more.
    pub fn hold(&mut self, path: PathId) {
        self.paths.entry(path).holders += 1;
    }

    /// Holds a path once less. The last one who did loses it.
    pub fn release(&mut self, path: PathId) {
        self.paths.release(path);
    }

    /// The systems of a path that is held, prepending included.
    #[must_use]
    pub fn systems(&self, path: PathId) -> &[u32] {
        &self.paths.all[path.0 as usize].systems
    }

    /// The links of a path that is held.
    pub fn links(&self, path: PathId) -> impl Iterator<Item = Link> + '_ {
        links(self.systems(path))
    }

    /// The paths that routes have now, with how many.
    pub fn used(&self) -> impl Iterator<Item = (PathId, u32)> + '_ {
        let all = (0..).zip(&self.paths.all);
        all.filter_map(|(at, path)| (path.routes > 0).then_some((PathId(at), path.routes)))
    }

    /// The path of a route.
    #[must_use]
    pub fn get(&self, nlri: &Nlri) -> Option<PathId> {
        if nlri.path_id != 0 {
            return self.several.get(&(nlri.prefix, nlri.path_id)).copied();
        }
        self.plain(&nlri.prefix)
    }

    /// The paths of all routes to a prefix.
    pub fn paths(&self, prefix: &IpNet) -> impl Iterator<Item = PathId> + '_ {
        let several = self.several.range((*prefix, 0)..=(*prefix, u32::MAX));
        let several = several.map(|(_, path)| *path);
        self.plain(prefix).into_iter().chain(several)
    }

    fn plain(&self, prefix: &IpNet) -> Option<PathId> {
        match prefix {
            IpNet::V4(prefix) => {
                let of = self.v4.get(usize::from(prefix.prefix_len()))?;
                of.get(&prefix.network().to_bits()).copied()
            }
            IpNet::V6(prefix) => {
                let of = self.v6.get(usize::from(prefix.prefix_len()))?;
                of.get(&words(prefix.network().to_bits())).copied()
            }
        }
    }

    /// Puts a route there, by a path that somebody holds; the path that it had, which the caller holds since.
    pub fn insert(&mut self, nlri: &Nlri, path: PathId) -> Option<PathId> {
        let entry = self.paths.entry(path);
        entry.holders += 1;
        entry.routes += 1;
        let before = match (nlri.path_id, &nlri.prefix) {
            (0, IpNet::V4(prefix)) => {
                let of = of_length(&mut self.v4, prefix.prefix_len());
                insert(of, prefix.network().to_bits(), path, &mut self.room)
            }
            (0, IpNet::V6(prefix)) => {
                let of = of_length(&mut self.v6, prefix.prefix_len());
                insert(of, words(prefix.network().to_bits()), path, &mut self.room)
            }
            (id, prefix) => self.several.insert((*prefix, id), path),
        };
        match before {
            Some(before) => self.paths.entry(before).routes -= 1,
            None => self.routes += 1,
        }
        before
    }

    /// Takes a route away; its path, which the caller holds since.
    pub fn remove(&mut self, nlri: &Nlri) -> Option<PathId> {
        let before = match (nlri.path_id, &nlri.prefix) {
            (0, IpNet::V4(prefix)) => {
                let of = self.v4.get_mut(usize::from(prefix.prefix_len()))?;
                of.remove(&prefix.network().to_bits())
            }
            (0, IpNet::V6(prefix)) => {
                let of = self.v6.get_mut(usize::from(prefix.prefix_len()))?;
                of.remove(&words(prefix.network().to_bits()))
            }
            (id, prefix) => self.several.remove(&(*prefix, id)),
        }?;
        self.routes -= 1;
        self.paths.entry(before).routes -= 1;
        Some(before)
    }

    /// The longest prefix that holds an address, and the path of its route. A route to everywhere tells nothing about an
    /// address and is none.
    #[must_use]
    pub fn longest(&self, address: IpAddr) -> Option<(u8, PathId)> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (1..=longest).rev().find_map(|length| {
            let prefix = IpNet::new(address, length).ok()?.trunc();
            let plain = self.plain(&prefix);
            let several = || {
                let mut of = self.several.range((prefix, 0)..=(prefix, u32::MAX));
                of.next().map(|(_, path)| *path)
            };
            plain.or_else(several).map(|path| (length, path))
        })
    }

    /// The system that announced what a path leads to, if that is known.
    #[must_use]
    pub fn origin(&self, path: PathId) -> Option<u32> {
        let last = self.systems(path).last().copied();
        last.filter(|system| *system != UNKNOWN)
    }
}

/// The links of a path: its neighbours that differ, without those that are unknown.
pub fn links(systems: &[u32]) -> impl Iterator<Item = Link> + '_ {
    systems.windows(2).filter_map(|pair| {
        let (near, far) = (pair[0], pair[1]);
        let is_link = near != far && near != UNKNOWN && far != UNKNOWN;
        is_link.then_some(Link { near, far })
    })
}

fn of_length<K: Eq + Hash>(
    maps: &mut Vec<HashMap<K, PathId>>,
    length: u8,
) -> &mut HashMap<K, PathId> {
    let at = usize::from(length);
    if maps.len() <= at {
        maps.resize_with(at + 1, HashMap::new);
    }
    &mut maps[at]
}

/// Inserts, and counts in `room` what the hash table grows by.
fn insert<K: Eq + Hash>(
    map: &mut HashMap<K, PathId>,
    key: K,
    path: PathId,
    room: &mut usize,
) -> Option<PathId> {
    // A seventh of its places is always empty, and each has a byte of its own.
    let takes = |map: &HashMap<K, PathId>| map.capacity() * 8 / 7 * (size_of::<(K, PathId)>() + 1);
    let before = takes(map);
    let replaced = map.insert(key, path);
    *room += takes(map) - before;
    replaced
}

const fn words(bits: u128) -> [u32; 4] {
    [
        (bits >> 96) as u32,
        (bits >> 64) as u32,
        (bits >> 32) as u32,
        bits as u32,
    ]
}

/// Paths, each once.
#[derive(Debug, Default)]
struct Paths {
    all: Vec<Path>,
    free: Vec<PathId>,
    known: HashMap<Arc<[u32]>, PathId>,
    /// What they take.
    bytes: usize,
    /// What a path is written into before it is looked up.
    scratch: Vec<u32>,
}

#[derive(Debug)]
struct Path {
    systems: Arc<[u32]>,
    /// How many routes have it, and how many hold it: these routes, and others that look at it.
    routes: u32,
    holders: u32,
}

impl Paths {
    fn intern(&mut self, path: &AsPath) -> PathId {
        self.scratch.clear();
        self.scratch.extend(path.hops().iter().map(|hop| match hop {
            Hop::As(system) => *system,
            Hop::Set(_) => UNKNOWN,
        }));
        if let Some(id) = self.known.get(&self.scratch[..]) {
            let id = *id;
            self.entry(id).holders += 1;
            return id;
        }
        let systems: Arc<[u32]> = self.scratch[..].into();
        self.bytes += bytes(&systems);
        let path = Path {
            systems: systems.clone(),
            routes: 0,
            holders: 1,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.all[id.0 as usize] = path;
                id
            }
            None => {
                // Each takes a hundred bytes: no machine holds so many that their number runs over.
                let id = PathId(u32::try_from(self.all.len()).unwrap_or(u32::MAX));
                self.all.push(path);
                id
            }
        };
        self.known.insert(systems, id);
        id
    }

    fn entry(&mut self, id: PathId) -> &mut Path {
        &mut self.all[id.0 as usize]
    }

    fn release(&mut self, id: PathId) {
        let path = self.entry(id);
        path.holders -= 1;
        if path.holders > 0 {
            return;
        }
        let systems = std::mem::replace(&mut path.systems, Arc::from([]));
        self.bytes -= bytes(&systems);
        self.known.remove(&systems);
        self.free.push(id);
    }
}

/// What a path takes: itself, its place, and where it is found.
fn bytes(systems: &[u32]) -> usize {
    const EACH: usize =
        16 + size_of::<Path>() + (size_of::<(Arc<[u32]>, PathId)>() + 1) * 8 / 7 + 16;
    EACH + size_of_val(systems)
}

#[cfg(test)]
#[path = "table/tests.rs"]
mod tests;
