//! Accepting a mesh: the agent's own word on whom it probes.
//!
//! An aggregator says whom to probe; the agent decides whether it will. A target outside the configured networks, or
//! one that would exceed the rate cap, is refused with a reason: a compromised aggregator must not turn agents into
//! weapons. [`Union`] keeps the newest mesh of each aggregator and joins them into one plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    time::Duration,
};

use leeward_common::{
    histogram::Schema,
    id::TargetId,
    report::{Path, ProbeKind},
    wire::{limits, v1},
};

/// A range of addresses: `10.0.0.0/8`, `2001:db8::/32`, or a single address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no network.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{text:?} is not a network; {remedy}")]
pub struct InvalidNetwork {
    text: String,
    remedy: String,
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let invalid = |remedy: String| InvalidNetwork {
            text: text.to_owned(),
            remedy,
        };
        let form = || {
            invalid(
                "write an address and a prefix length, like \"10.0.0.0/8\" or \"2001:db8::/32\""
                    .to_owned(),
            )
        };
        let (address, prefix) = text
            .split_once('/')
            .map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|&prefix| prefix <= longest)
                .ok_or_else(form)?,
        };
        let first = mask(address, prefix);
        if first != address {
            return Err(invalid(format!(
                "the network of that address is {first}/{prefix}"
            )));
        }
        Ok(Self { address, prefix })
    }
}

impl Network {
    const fn v4(octets: [u8; 4], prefix: u8) -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
            prefix,
        }
    }

    const fn v6(first: u16, last: u16, prefix: u8) -> Self {
        Self {
            address: IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last)),
            prefix,
        }
    }

    /// Whether the address lies in this network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && mask(address, self.prefix) == self.address
    }

    /// Whether the whole of `self` lies in `outer`.
    fn within(&self, outer: &Self) -> bool {
        self.prefix >= outer.prefix && outer.contains(self.address)
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let keep = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & keep))
        }
        IpAddr::V6(v6) => {
            let keep = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & keep))
        }
    }
}

/// Probed only when a configured network lies within one of them: `0.0.0.0/0` does not mean this host itself.
const ONLY_IF_NAMED: [(Network, &str); 4] = [
    (Network::v4([127, 0, 0, 0], 8), "a loopback address"),
    (Network::v6(0, 1, 128), "a loopback address"),
    (Network::v4([169, 254, 0, 0], 16), "a link-local address"),
    (Network::v6(0xfe80, 0, 10), "a link-local address"),
];

/// The metadata services of clouds, which hand out secrets.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Whom this agent may probe, and how fast.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Admission {
    /// Networks whose addresses may be probed.
    pub allowed: Vec<Network>,
    /// The most probes per second, all targets together.
    pub max_probes_per_second: u32,
}

impl Admission {
    /// Why this address must not be probed; `None` if it may.
    #[must_use]
    pub fn refusal(&self, address: IpAddr) -> Option<String> {
        let address = address.to_canonical();
        if METADATA.contains(&address) {
            return Some(format!(
                "{address} is a cloud's metadata service, which is never probed"
            ));
        }
        let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
        if address.is_multicast() || address.is_unspecified() || broadcast {
            return Some(format!("{address} is not the address of one host"));
        }
        let holding: Vec<_> = self
            .allowed
            .iter()
            .filter(|network| network.contains(address))
            .collect();
        if holding.is_empty() {
            return Some(format!(
                "{address} is outside this agent's allowed_networks"
            ));
        }
        let (_, what) = ONLY_IF_NAMED.iter().find(|(special, _)| {
            special.contains(address) && !holding.iter().any(|network| network.within(special))
        })?;
        Some(format!(
            "{address} is {what}, which allowed_networks does not name explicitly"
        ))
    }
}

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
    let Some(schema) = Schema::from_number(mesh.schema) else {
        return Err(wrong(
            "schema",
            u64::from(mesh.schema),
            "1 and 2 are known here",
        ));
    };
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
        }),
    }
}

/// One path to probe and where its packets go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AdmittedPath {
    /// The path.
    pub path: Path,
    /// Where its packets go.
    pub address: IpAddr,
    /// Port of TCP SYN probes.
    pub port: u16,
}

/// What this agent will probe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Admitted {
    /// How often.
    pub rhythm: Rhythm,
    /// Whom, ordered by target and kind.
    pub paths: Vec<AdmittedPath>,
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

    /// Joins the meshes by target id; where two differ, the aggregator that the configuration names first wins. `None`
    /// until there is a mesh.
    #[must_use]
    pub fn admit(&self, admission: &Admission) -> Option<Admitted> {
        let &(rhythm, _) = self.meshes.values().next()?;
        let mut targets: BTreeMap<&TargetId, &v1::Target> = BTreeMap::new();
        for target in self.meshes.values().flat_map(|(_, mesh)| &mesh.targets) {
            targets.entry(&target.id).or_insert(target);
        }
        let mut admitted = Admitted {
            rhythm,
            paths: Vec::new(),
            refused: BTreeMap::new(),
        };
        let most = paths_within(admission.max_probes_per_second, rhythm.interval);
        for target in targets.into_values() {
            let kinds: BTreeSet<ProbeKind> = target.kinds.iter().copied().collect();
            match refusal(admission, target, &kinds, admitted.paths.len(), most) {
                Some(reason) => _ = admitted.refused.insert(target.id.clone(), reason),
                None => admitted
                    .paths
                    .extend(kinds.into_iter().map(|kind| admitted_path(target, kind))),
            }
        }
        Some(admitted)
    }
}

/// How many paths can be probed at this interval without exceeding the rate.
fn paths_within(per_second: u32, interval: Duration) -> usize {
    let paths = u128::from(per_second) * interval.as_micros() / 1_000_000;
    usize::try_from(paths).unwrap_or(usize::MAX)
}

fn refusal(
    admission: &Admission,
    target: &v1::Target,
    kinds: &BTreeSet<ProbeKind>,
    taken: usize,
    most: usize,
) -> Option<String> {
    if let Some(reason) = admission.refusal(target.address) {
        return Some(reason);
    }
    if kinds.contains(&ProbeKind::TcpSyn) && target.port == 0 {
        return Some("its TCP port is 0".to_owned());
    }
    if taken + kinds.len() > most {
        return Some(format!(
            "over this agent's cap of {} probes per second",
            admission.max_probes_per_second
        ));
    }
    if taken + kinds.len() > limits::PATHS {
        return Some(format!(
            "beyond the {} paths that one agent can probe",
            limits::PATHS
        ));
    }
    None
}

fn admitted_path(target: &v1::Target, kind: ProbeKind) -> AdmittedPath {
    let path = Path {
        target: target.id.clone(),
        kind,
        region: target.region.clone(),
    };
    AdmittedPath {
        path,
        address: target.address.to_canonical(),
        port: target.port,
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

    fn target(id: &str, address: &str) -> v1::Target {
        v1::Target {
            id: TargetId::parse(id).unwrap(),
            region: None,
            address: address.parse().unwrap(),
            kinds: vec![ProbeKind::TcpSyn, ProbeKind::Icmp],
            port: 8620,
        }
    }

    fn mesh(version: u64, targets: Vec<v1::Target>) -> v1::Mesh {
        v1::Mesh {
            version,
            interval_us: 100_000,
            window_us: 1_000_000,
            expiry_us: 3_000_000,
            schema: 1,
            targets,
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
    fn networks_are_read_and_hold_their_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("0.0.0.0/0", "192.0.2.1", "::1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(
                network.contains(inside.parse().unwrap()),
                "{network} {inside}"
            );
            assert!(
                !network.contains(outside.parse().unwrap()),
                "{network} {outside}"
            );
        }
    }

    #[test]
    fn a_network_with_host_bits_says_which_one_is_meant() {
        let error = "10.1.2.3/8".parse::<Network>().unwrap_err().to_string();
        assert_eq!(
            error,
            "\"10.1.2.3/8\" is not a network; the network of that address is 10.0.0.0/8"
        );
        for bad in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_allowed_addresses_are_probed() {
        let admission = admission(&["10.0.0.0/8"], 100);
        assert_eq!(admission.refusal("10.1.2.3".parse().unwrap()), None);
        let reason = admission.refusal("192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(reason, "192.0.2.1 is outside this agent's allowed_networks");
        assert!(
            admission
                .refusal("::ffff:192.0.2.1".parse().unwrap())
                .is_some()
        );
        assert_eq!(admission.refusal("::ffff:10.0.0.1".parse().unwrap()), None);
    }

    #[test]
    fn everything_allowed_does_not_mean_special_addresses() {
        let admission = admission(&["0.0.0.0/0", "::/0"], 100);
        for address in [
            "127.0.0.1",
            "::1",
            "169.254.1.1",
            "fe80::1",
            "169.254.169.254",
            "fd00:ec2::254",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "0.0.0.0",
            "::",
        ] {
            assert!(
                admission.refusal(address.parse().unwrap()).is_some(),
                "{address}"
            );
        }
    }

    #[test]
    fn link_local_is_probed_when_named_but_never_a_metadata_service() {
        let admission = admission(&["169.254.0.0/16", "127.0.0.0/8", "0.0.0.0/0"], 100);
        assert_eq!(admission.refusal("169.254.1.1".parse().unwrap()), None);
        assert_eq!(admission.refusal("127.0.0.1".parse().unwrap()), None);
        assert!(
            admission
                .refusal("169.254.169.254".parse().unwrap())
                .is_some()
        );
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
        let admitted = union.admit(&admission(&["10.0.0.0/8"], 59)).unwrap();
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
        let admitted = union.admit(&admission(&["10.0.0.0/8"], 1_000)).unwrap();
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
    fn a_mesh_that_makes_no_sense_is_refused_whole_and_the_old_one_stays() {
        let good = mesh(1, vec![target("a", "10.0.0.1")]);
        let mut union = union(vec![good.clone()]);
        let spoiled: [fn(&mut v1::Mesh); 7] = [
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
            let admitted = union(vec![asked.clone()]).admit(&admission).unwrap();
            for path in &admitted.paths {
                prop_assert!(admission.allowed.iter().any(|network| network.contains(path.address)));
            }
            let per_second = admitted.paths.len() as f64 / (interval_us as f64 / 1e6);
            prop_assert!(per_second <= f64::from(cap));
            prop_assert_eq!(admitted.paths.len() / 2 + admitted.answer_to(&asked).refused.len(), addresses.len());
        }
    }
}
