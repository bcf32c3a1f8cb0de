//! Accepting a mesh: the agent's own word on whom it probes.
//!
//! An aggregator says whom to probe; the agent decides whether it will. A target outside the configured networks
//! ([`crate::admission`]), or one that would exceed the rate cap, is refused with a reason: a compromised aggregator
//! must not turn agents into weapons. [`Union`] keeps the newest mesh of each aggregator and joins them into one plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use leeward_common::{
    bgp::Prefix,
    histogram::Schema,
    id::TargetId,
    report::{Path, ProbeKind},
    silence::Rule,
    wire::{limits, v1},
};

use crate::{
    admission::Admission,
    bgp::watch::{Told, Watched},
    flow::FLOWS,
    prober::{Plan, PlannedPath},
};

/// What a mesh says beside its targets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rhythm {
    /// Time between two probes of one path.
    pub interval: Duration,
    /// Length of a window.
    pub window: Duration,
    /// How long a probe may stay unanswered before it is lost.
    pub expiry: Duration,
    /// The histograms' schema.
    pub schema: Schema,
    /// When a path that falls silent is reported before its window ends; `None` if never.
    pub silence: Option<Rule>,
    /// As how many flows each path is probed.
    pub flows: u8,
}

impl Rhythm {
    /// A plan of this rhythm.
    #[must_use]
    pub fn plan(self, version: u64, paths: Vec<PlannedPath>) -> Plan {
        let Self {
            interval,
            window,
            expiry,
            schema,
            silence,
            flows,
        } = self;
        Plan {
            version,
            interval,
            window,
            expiry,
            schema,
            silence,
            flows,
            paths,
        }
    }
}

/// The shortest time between two probes of one path: a hundred per second tell more than any decision needs.
pub const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// The longest expiry: every probe in flight holds state.
pub const EXPIRY_MAX: Duration = Duration::from_secs(60);

/// A mesh that makes no sense.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidMesh {
    /// A number out of range.
    #[error("mesh {version}: {field} is {value}; {allowed}")]
    Number {
        /// Of which mesh.
        version: u64,
        /// Which number.
        field: &'static str,
        /// What it is.
        value: u64,
        /// What it may be.
        allowed: &'static str,
    },
    /// A target twice.
    #[error("mesh {version}: target {target} is in it twice")]
    Duplicate {
        /// Of which mesh.
        version: u64,
        /// The target.
        target: TargetId,
    },
}

/// Checks a mesh as far as it does not depend on this agent's configuration.
///
/// # Errors
///
/// Returns what makes no sense. No honest aggregator sends such a mesh.
pub fn check(mesh: &v1::Mesh) -> Result<Rhythm, InvalidMesh> {
    let wrong = |field, value, allowed| InvalidMesh::Number {
        version: mesh.version,
        field,
        value,
        allowed,
    };
    let (interval, window) = (
        Duration::from_micros(mesh.interval_us),
        Duration::from_micros(mesh.window_us),
    );
    let expiry = Duration::from_micros(mesh.expiry_us);
    let minute = Duration::from_secs(60);
    if !(INTERVAL_MIN..=minute).contains(&interval) {
        return Err(wrong(
            "interval_us",
            mesh.interval_us,
            "10000 to 60000000 are allowed",
        ));
    }
    if !(Duration::from_millis(100)..=minute).contains(&window) || 60_000_000 % mesh.window_us != 0
    {
        return Err(wrong(
            "window_us",
            mesh.window_us,
            "100000 to 60000000, dividing a minute, are allowed",
        ));
    }
    if expiry < INTERVAL_MIN || expiry > EXPIRY_MAX {
        return Err(wrong(
            "expiry_us",
            mesh.expiry_us,
            "10000 to 60000000 are allowed",
        ));
    }
    if !FLOWS.contains(&mesh.flows) {
        return Err(wrong("flows", mesh.flows.into(), "1 to 8 are allowed"));
    }
    let Some(schema) = Schema::from_number(mesh.schema) else {
        return Err(wrong(
            "schema",
            u64::from(mesh.schema),
            "1 and 2 are known here",
        ));
    };
    let after = Duration::from_micros(mesh.silence_us);
    if after > 10 * minute {
        return Err(wrong(
            "silence_us",
            mesh.silence_us,
            "up to 600000000 are allowed",
        ));
    }
    let silence = (mesh.silence_probes > 0).then_some(Rule {
        probes: mesh.silence_probes,
        after,
    });
    let mut seen = BTreeSet::new();
    match mesh.targets.iter().find(|target| !seen.insert(&target.id)) {
        Some(twice) => Err(InvalidMesh::Duplicate {
            version: mesh.version,
            target: twice.id.clone(),
        }),
        None => Ok(Rhythm {
            interval,
            window,
            expiry,
            schema,
            silence,
            flows: mesh.flows,
        }),
    }
}

/// What this agent will probe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Admitted {
    /// How often.
    pub rhythm: Rhythm,
    /// Whom, ordered by target and kind.
    pub paths: Vec<PlannedPath>,
    /// Whom not, and why, by target.
    pub refused: BTreeMap<TargetId, String>,
}

impl Admitted {
    /// The answer to one aggregator's mesh: of the refused targets those that it asked for.
    #[must_use]
    pub fn answer_to(&self, mesh: &v1::Mesh) -> v1::MeshApplied {
        let refusal = |target: &v1::Target| {
            let reason = self.refused.get(&target.id)?;
            Some(v1::RefusedTarget {
                target: target.id.clone(),
                reason: reason.clone(),
            })
        };
        v1::MeshApplied {
            version: mesh.version,
            refused: mesh.targets.iter().filter_map(refusal).collect(),
        }
    }
}

/// The newest mesh of each aggregator. One that is out of reach keeps its mesh: probing does not end with a connection.
#[derive(Clone, Debug, Default)]
pub struct Union {
    /// In the order of the configuration.
    meshes: BTreeMap<usize, (Rhythm, v1::Mesh)>,
}

impl Union {
    /// Takes the newest mesh of an aggregator, whatever its version: one that starts anew may count from the beginning.
    ///
    /// # Errors
    ///
    /// Returns what makes no sense about it and keeps the mesh before.
    pub fn accept(&mut self, aggregator: usize, mesh: v1::Mesh) -> Result<(), InvalidMesh> {
        let rhythm = check(&mesh)?;
        self.meshes.insert(aggregator, (rhythm, mesh));
        Ok(())
    }

    /// The mesh of an aggregator, if it sent one.
    #[must_use]
    pub fn mesh_of(&self, aggregator: usize) -> Option<&v1::Mesh> {
        self.meshes.get(&aggregator).map(|(_, mesh)| mesh)
    }

    /// Every address that an aggregator names. Who is probed from here probes back: meshes are symmetric.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.meshes
            .values()
            .flat_map(|(_, mesh)| &mesh.targets)
            .map(|target| target.address.to_canonical())
            .collect()
    }

    /// Where regions are, as far as anybody says it; `None` until there is a mesh. Listening asks for nobody's leave, so targets
    /// count that are not probed.
    #[must_use]
    pub fn told(&self) -> Option<Told> {
        let meshes = || self.meshes.values().map(|(_, mesh)| mesh);
        meshes().next()?;
        let watched = |watch: &v1::Watch| {
            let origins: BTreeSet<u32> = watch.origins.iter().copied().collect();
            let own =
                |prefix: &Prefix| Watched::new(*prefix, watch.region.clone(), origins.clone());
            watch.prefixes.iter().map(own).collect::<Vec<_>>()
        };
        let mut addresses = BTreeMap::new();
        for target in meshes().flat_map(|mesh| &mesh.targets) {
            if let Some(region) = &target.region {
                let address = target.address.to_canonical();
                addresses.entry(address).or_insert_with(|| region.clone());
            }
        }
        Some(Told {
            watch: meshes()
                .flat_map(|mesh| &mesh.watch)
                .flat_map(watched)
                .collect(),
            addresses,
        })
    }

    /// Joins the meshes by target id; where two differ, the aggregator that the configuration names first wins. `None`
    /// until there is a mesh. Kinds without a socket are left out.
    #[must_use]
    pub fn admit(
        &self,
        admission: &Admission,
        supports: impl Fn(ProbeKind, &IpAddr) -> bool,
    ) -> Option<Admitted> {
        let &(rhythm, _) = self.meshes.values().next()?;
        let mut targets: BTreeMap<&TargetId, &v1::Target> = BTreeMap::new();
        for target in self.meshes.values().flat_map(|(_, mesh)| &mesh.targets) {
            targets.entry(&target.id).or_insert(target);
        }
        let caps = Caps::new(admission, rhythm);
        let mut admitted = Admitted {
            rhythm,
            paths: Vec::new(),
            refused: BTreeMap::new(),
        };
        for target in targets.into_values() {
            let address = target.address.to_canonical();
            let mut kinds: BTreeSet<ProbeKind> = target.kinds.iter().copied().collect();
            kinds.retain(|&kind| supports(kind, &address));
            let refusal = refusal(admission, target, &kinds);
            match refusal.or_else(|| caps.refusal(admitted.paths.len() + kinds.len())) {
                Some(reason) => _ = admitted.refused.insert(target.id.clone(), reason),
                None => admitted
                    .paths
                    .extend(kinds.into_iter().map(|kind| planned_path(target, kind))),
            }
        }
        Some(admitted)
    }
}

fn refusal(
    admission: &Admission,
    target: &v1::Target,
    kinds: &BTreeSet<ProbeKind>,
) -> Option<String> {
    if let Some(reason) = admission.refusal(target.address) {
        return Some(reason);
    }
    if kinds.is_empty() {
        return Some("this agent has no socket for such probes".to_owned());
    }
    if kinds.contains(&ProbeKind::TcpSyn) && target.port == 0 {
        return Some("its TCP port is 0".to_owned());
    }
    let no_reflector = kinds.contains(&ProbeKind::Stamp) && target.stamp_port == 0;
    no_reflector.then(|| "its STAMP port is 0".to_owned())
}

/// How many paths can be probed, and what forbids more.
#[derive(Debug)]
struct Caps {
    per_second: u32,
    by_rate: usize,
    by_memory: usize,
}

impl Caps {
    fn new(admission: &Admission, rhythm: Rhythm) -> Self {
        let per_second = admission.max_probes_per_second;
        let by_rate = u128::from(per_second) * rhythm.interval.as_micros() / 1_000_000;
        let depth = rhythm.plan(0, Vec::new()).depth() as u64;
        let by_memory = usize::try_from(Plan::MAX_OPEN / depth).unwrap_or(usize::MAX);
        Self {
            per_second,
            by_rate: usize::try_from(by_rate).unwrap_or(usize::MAX),
            by_memory: by_memory.min(limits::PATHS),
        }
    }

    fn refusal(&self, paths: usize) -> Option<String> {
        if paths > self.by_rate {
            return Some(format!(
                "over this agent's cap of {} probes per second",
                self.per_second
            ));
        }
        let too_many = paths > self.by_memory;
        too_many.then(|| {
            format!(
                "beyond the {} paths that this agent can probe at this interval",
                self.by_memory
            )
        })
    }
}

fn planned_path(target: &v1::Target, kind: ProbeKind) -> PlannedPath {
    let path = Path {
        target: target.id.clone(),
        kind,
        region: target.region.clone(),
    };
    PlannedPath {
        path,
        address: target.address.to_canonical(),
        port: match kind {
            ProbeKind::Stamp => target.stamp_port,
            ProbeKind::Icmp | ProbeKind::TcpSyn => target.port,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn admission(networks: &[&str], max_probes_per_second: u32) -> Admission {
        Admission {
            allowed: networks.iter().map(|text| text.parse().unwrap()).collect(),
            max_probes_per_second,
        }
    }

    fn every_kind(_: ProbeKind, _: &IpAddr) -> bool {
        true
    }

    fn target(id: &str, address: &str) -> v1::Target {
        v1::Target {
            id: TargetId::parse(id).unwrap(),
            region: None,
            address: address.parse().unwrap(),
            kinds: vec![ProbeKind::TcpSyn, ProbeKind::Icmp],
            port: 8620,
            stamp_port: 862,
        }
    }

    fn mesh(version: u64, targets: Vec<v1::Target>) -> v1::Mesh {
        v1::Mesh {
            version,
            interval_us: 100_000,
            window_us: 1_000_000,
            expiry_us: 3_000_000,
            schema: 1,
            silence_probes: 0,
            silence_us: 0,
            flows: 1,
            targets,
            checks: Vec::new(),
            watch: Vec::new(),
        }
    }

    fn union(meshes: Vec<v1::Mesh>) -> Union {
        let mut union = Union::default();
        for (aggregator, mesh) in meshes.into_iter().enumerate() {
            union.accept(aggregator, mesh).unwrap();
        }
        union
    }

    #[test]
    fn the_rate_cap_refuses_what_exceeds_it() {
        let targets = vec![
            target("a", "10.0.0.1"),
            target("b", "10.0.0.2"),
            target("c", "10.0.0.3"),
        ];
        let union = union(vec![mesh(1, targets.clone())]);
        // Ten probes per second and path, two paths per target: 40 per second are two targets.
        let admitted = union
            .admit(&admission(&["10.0.0.0/8"], 59), every_kind)
            .unwrap();
        assert_eq!(admitted.paths.len(), 4);
        let answer = admitted.answer_to(&mesh(1, targets));
        assert_eq!(answer.refused.len(), 1);
        assert_eq!(answer.refused[0].target.as_str(), "c");
        assert_eq!(
            answer.refused[0].reason,
            "over this agent's cap of 59 probes per second"
        );
    }

    #[test]
    fn meshes_are_joined_and_the_first_aggregator_wins() {
        let first = mesh(7, vec![target("a", "10.0.0.1"), target("b", "10.0.0.2")]);
        let second = mesh(3, vec![target("b", "10.9.9.9"), target("c", "192.0.2.1")]);
        let union = union(vec![first.clone(), second.clone()]);
        let admitted = union
            .admit(&admission(&["10.0.0.0/8"], 1_000), every_kind)
            .unwrap();
        let paths: Vec<_> = admitted
            .paths
            .iter()
            .map(|p| (p.path.target.as_str(), p.path.kind, p.address.to_string()))
            .collect();
        assert_eq!(
            paths,
            [
                ("a", ProbeKind::Icmp, "10.0.0.1".to_owned()),
                ("a", ProbeKind::TcpSyn, "10.0.0.1".to_owned()),
                ("b", ProbeKind::Icmp, "10.0.0.2".to_owned()),
                ("b", ProbeKind::TcpSyn, "10.0.0.2".to_owned()),
            ]
        );
        assert!(admitted.answer_to(&first).refused.is_empty());
        assert_eq!(admitted.answer_to(&second).refused[0].target.as_str(), "c");
    }

    #[test]
    fn where_regions_are_is_told_by_all_meshes_and_the_first_word_comes_first() {
        assert_eq!(Union::default().told(), None);
        let watch = |region: &str, prefix: &str| v1::Watch {
            region: region.parse().unwrap(),
            prefixes: vec![prefix.parse().unwrap()],
            origins: vec![64_500],
        };
        let at = |region: &str, id: &str, address: &str| v1::Target {
            region: Some(region.parse().unwrap()),
            ..target(id, address)
        };
        let first = v1::Mesh {
            watch: vec![watch("iad", "198.51.100.0/24")],
            ..mesh(
                1,
                vec![
                    at("iad", "a", "198.51.100.1"),
                    target("outside", "192.0.2.1"),
                ],
            )
        };
        let second = v1::Mesh {
            watch: vec![
                watch("fra", "198.51.100.0/24"),
                watch("fra", "203.0.113.0/24"),
            ],
            ..mesh(
                1,
                vec![
                    at("fra", "b", "198.51.100.1"),
                    at("fra", "c", "203.0.113.1"),
                ],
            )
        };
        let told = union(vec![first, second]).told().unwrap();
        let list = crate::bgp::watch::Watchlist::new(&[], &told);
        let all: Vec<_> = list
            .all()
            .iter()
            .map(|own| {
                (
                    own.prefix.to_string(),
                    own.region.as_str(),
                    own.origins.len(),
                )
            })
            .collect();
        assert_eq!(
            all,
            [
                ("198.51.100.0/24".to_owned(), "iad", 1),
                ("203.0.113.0/24".to_owned(), "fra", 1)
            ]
        );
        let addresses: Vec<_> = told
            .addresses
            .iter()
            .map(|(own, region)| (own.to_string(), region.as_str()))
            .collect();
        assert_eq!(
            addresses,
            [
                ("198.51.100.1".to_owned(), "iad"),
                ("203.0.113.1".to_owned(), "fra")
            ]
        );
    }

    #[test]
    fn kinds_without_a_socket_are_left_out() {
        let union = union(vec![mesh(
            1,
            vec![target("a", "10.0.0.1"), target("b", "2001:db8::1")],
        )]);
        let only_icmp_over_v4 =
            |kind, address: &IpAddr| kind == ProbeKind::Icmp && address.is_ipv4();
        let admitted = union
            .admit(&admission(&["0.0.0.0/0", "::/0"], 1_000), only_icmp_over_v4)
            .unwrap();
        assert_eq!(admitted.paths.len(), 1);
        assert_eq!(admitted.paths[0].path.kind, ProbeKind::Icmp);
        let (target, reason) = admitted.refused.iter().next().unwrap();
        assert_eq!(
            (target.as_str(), reason.as_str()),
            ("b", "this agent has no socket for such probes")
        );
    }

    #[test]
    fn a_plan_never_exceeds_what_the_prober_keeps_memory_for() {
        let targets = (0..4_000)
            .map(|n| target(&format!("t{n}"), "10.0.0.1"))
            .collect();
        let mut dense = mesh(1, targets);
        (dense.interval_us, dense.expiry_us) = (10_000, 60_000_000);
        let admitted = union(vec![dense])
            .admit(&admission(&["10.0.0.0/8"], 1_000_000), every_kind)
            .unwrap();
        assert!(!admitted.refused.is_empty());
        assert_eq!(admitted.rhythm.plan(1, admitted.paths).check(), Ok(()));
    }

    #[test]
    fn a_mesh_that_makes_no_sense_is_refused_whole_and_the_old_one_stays() {
        let good = mesh(1, vec![target("a", "10.0.0.1")]);
        let mut union = union(vec![good.clone()]);
        let spoiled: [fn(&mut v1::Mesh); 9] = [
            |mesh| mesh.flows = 0,
            |mesh| mesh.flows = 9,
            |mesh| mesh.interval_us = 0,
            |mesh| mesh.interval_us = u64::MAX,
            |mesh| mesh.window_us = 0,
            |mesh| mesh.window_us = 7_000_000,
            |mesh| mesh.expiry_us = u64::MAX,
            |mesh| mesh.schema = 9,
            |mesh| mesh.targets.push(mesh.targets[0].clone()),
        ];
        for spoil in spoiled {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert!(union.accept(0, bad).is_err());
            assert_eq!(union.mesh_of(0), Some(&good));
        }
    }

    proptest! {
        /// Whatever an aggregator asks for, no address outside the allowed networks is probed, nor faster than the cap.
        #[test]
        fn no_mesh_exceeds_what_is_allowed(
            addresses in prop::collection::vec(any::<[u8; 4]>(), 0..200),
            interval_us in 10_000u64..60_000_000,
            cap in 1u32..500,
        ) {
            let targets = addresses.iter().enumerate().map(|(n, &[a, b, c, d])| {
                target(&format!("t{n}"), &format!("{}.{b}.{c}.{d}", if a < 200 { 10 } else { a }))
            });
            let mut asked = mesh(1, targets.collect());
            asked.interval_us = interval_us;
            let admission = admission(&["10.0.0.0/9", "172.16.0.0/12"], cap);
            let admitted = union(vec![asked.clone()]).admit(&admission, every_kind).unwrap();
            for path in &admitted.paths {
                prop_assert!(admission.allowed.iter().any(|network| network.contains(path.address)));
            }
            let per_second = admitted.paths.len() as f64 / (interval_us as f64 / 1e6);
            prop_assert!(per_second <= f64::from(cap));
            prop_assert_eq!(admitted.paths.len() / 2 + admitted.answer_to(&asked).refused.len(), addresses.len());
        }
    }
}
