//! Which agent probes whom, and what it asks of services. [pure]
//!
//! Every agent probes the registered addresses of all agents of other regions, and the outside targets that the policy
//! gives its region; and it carries out the checks of services that concern it, where services run or could run in
//! other regions. An address keeps its target id (`<agent>.v4`, `<agent>.v6`) when it changes, so that a link's
//! history outlives a renumbering. A mesh is sent only when it differs from the one before, under a higher version.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use leeward_common::{
    id::{self, AgentId, RegionId, ServiceId, TargetId},
    report::ProbeKind,
    time::Timestamp,
    wire::{
        limits,
        v1::{Check, Mesh, Target, Watch},
    },
};
use leeward_engine::{
    intent::{Intents, Known, Reach, Service},
    policy::{Policy, Region},
};

/// Services as they are defined.
type Services = BTreeMap<ServiceId, Known<Arc<Service>>>;

/// By which prefixes regions are reached, as it is defined.
type Reaches = BTreeMap<RegionId, Known<Reach>>;

/// What an agent registered when it last connected.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Registration {
    /// The agent.
    pub agent: AgentId,
    /// Its region, from its certificate.
    pub region: RegionId,
    /// Which start of its process.
    pub boot_epoch: u64,
    /// Addresses on which it answers probes.
    pub addresses: Vec<IpAddr>,
    /// TCP port on which it answers SYN probes.
    pub answer_port: u16,
    /// UDP port of its STAMP reflector, 0 if it has none; `None` if it does not know such probes at all.
    pub stamp_port: Option<u16>,
    /// Its build, for people.
    pub build: String,
}

/// Where reflectors of others are asked (RFC 8762 section 4.1).
const STAMP_PORT: u16 = 862;

/// The longest id of an agent: its addresses' target ids must be ids too.
pub const MAX_AGENT_ID_LENGTH: usize = id::MAX_LENGTH - ".v4.15".len();

/// The meshes of all agents, as last computed.
#[derive(Debug, Default)]
pub struct Meshes {
    version: u64,
    current: BTreeMap<AgentId, Arc<Mesh>>,
}

impl Meshes {
    /// The agent's mesh.
    #[must_use]
    pub fn of(&self, agent: &AgentId) -> Option<&Arc<Mesh>> {
        self.current.get(agent)
    }

    /// Computes all meshes anew and returns those that changed. Versions grow, over restarts too, as long as the clock
    /// does not fall back by more than the time since the change before.
    pub fn update<'a>(
        &mut self,
        now: Timestamp,
        policy: &Policy,
        intents: &Intents,
        registered: impl Iterator<Item = &'a Registration> + Clone,
    ) -> Vec<(AgentId, Arc<Mesh>)> {
        let version = self.version.max(now.as_unix_us() / 1_000) + 1;
        let answering: Vec<_> = registered
            .clone()
            .flat_map(|other| own_targets(policy, other))
            .collect();
        let mut changed = Vec::new();
        let mut current = BTreeMap::new();
        for registration in registered {
            let agent = &registration.agent;
            let mesh = mesh(policy, intents, registration, &answering);
            match self.current.get(agent) {
                Some(old)
                    if (Mesh {
                        version: old.version,
                        ..mesh.clone()
                    }) == **old =>
                {
                    current.insert(agent.clone(), Arc::clone(old));
                }
                _ => {
                    let mesh = Arc::new(Mesh { version, ..mesh });
                    changed.push((agent.clone(), Arc::clone(&mesh)));
                    current.insert(agent.clone(), mesh);
                }
            }
        }
        if !changed.is_empty() {
            self.version = version;
        }
        self.current = current;
        changed
    }
}

/// The targets that an agent's own addresses are for others.
fn own_targets(policy: &Policy, registration: &Registration) -> Vec<Target> {
    let mut count = [0usize; 2];
    let mut targets = Vec::new();
    for &address in &registration.addresses {
        let family = usize::from(address.is_ipv6());
        count[family] += 1;
        let name = format!("{}.v{}", registration.agent, ["4", "6"][family]);
        let name = if count[family] == 1 {
            name
        } else {
            format!("{name}.{}", count[family])
        };
        // Too long an agent id is refused at the hello.
        let Ok(id) = TargetId::parse(&name) else {
            continue;
        };
        targets.push(reflecting(
            registration.stamp_port.unwrap_or(0),
            Target {
                id,
                region: Some(registration.region.clone()),
                address,
                kinds: policy.probing.kinds.clone(),
                port: registration.answer_port,
                stamp_port: 0,
            },
        ));
    }
    targets
}

/// A target with a STAMP reflector on this port, or without one on port 0: then what only it could answer is left out,
/// and a target that nothing else would be left of is pinged.
fn reflecting(stamp_port: u16, mut target: Target) -> Target {
    if stamp_port == 0 {
        target.kinds.retain(|&kind| kind != ProbeKind::Stamp);
        if target.kinds.is_empty() {
            target.kinds.push(ProbeKind::Icmp);
        }
    } else if target.kinds.contains(&ProbeKind::Stamp) {
        target.stamp_port = stamp_port;
    }
    target
}

/// What the agents of a region ask of services, in a fixed order; what does not fit into a mesh is left out.
fn checks(policy: &Policy, services: &Services, observer: &RegionId) -> Vec<Check> {
    let mut checks = Vec::new();
    for (service, known) in services {
        let what = &known.what;
        if what.checks.is_empty() {
            continue;
        }
        for region in what.regions(policy) {
            for (check, spec) in &what.checks {
                if !spec.is_asked(observer, &region) {
                    continue;
                }
                let (Some(url), Some(question)) = (spec.at.get(&region), spec.question(&region))
                else {
                    continue;
                };
                checks.push(Check {
                    service: service.clone(),
                    check: check.clone(),
                    region: region.clone(),
                    question,
                    url: url.as_str().to_owned(),
                    status: spec.status,
                    body: spec.body.clone(),
                    timeout_us: us(spec.timeout.0),
                    interval_us: us(spec.interval.0),
                });
            }
        }
    }
    checks.truncate(limits::CHECKS);
    checks
}

fn mesh(
    policy: &Policy,
    intents: &Intents,
    registration: &Registration,
    answering: &[Target],
) -> Mesh {
    let region = &registration.region;
    let outside = policy
        .targets
        .iter()
        .filter(|target| target.from.is_empty() || target.from.contains(region))
        .map(|target| Target {
            id: target.id.clone(),
            region: target.region.clone(),
            address: target.address,
            kinds: target.kinds.clone(),
            port: target.port,
            stamp_port: if target.kinds.contains(&ProbeKind::Stamp) {
                STAMP_PORT
            } else {
                0
            },
        });
    let others = answering
        .iter()
        .filter(|target| target.region.as_ref() != Some(region))
        .cloned();
    let mut targets: Vec<_> = outside.chain(others).collect();
    targets.sort_unstable();
    targets.dedup_by(|a, b| a.id == b.id);
    targets.truncate(limits::TARGETS);
    if registration.stamp_port.is_none() {
        // An agent that does not know such probes would not understand their name.
        targets = targets
            .into_iter()
            .map(|target| Target {
                stamp_port: 0,
                ..reflecting(0, target)
            })
            .collect();
    }
    Mesh {
        version: 0,
        interval_us: us(policy.probing.interval),
        window_us: us(policy.probing.window),
        expiry_us: us(policy.probing.expiry),
        schema: policy.probing.schema.number(),
        silence_probes: policy.evidence.down_probes,
        silence_us: us(policy.evidence.down_after),
        flows: policy.probing.flows,
        targets,
        checks: checks(policy, &intents.services, region),
        watch: watch(policy, &intents.reaches).0,
    }
}

/// By which prefixes regions are reached, as far as that is declared: what people define goes before the configuration. With it
/// come the regions whose prefixes do not fit into a mesh any more.
pub(crate) fn watch(policy: &Policy, reaches: &Reaches) -> (Vec<Watch>, Vec<RegionId>) {
    let watch = |(region, own): (&RegionId, &Region)| {
        let (prefixes, origins) = match reaches.get(region) {
            Some(known) => (&known.what.prefixes, &known.what.origins),
            None => (&own.prefixes, &own.origins),
        };
        (!prefixes.is_empty()).then(|| Watch {
            region: region.clone(),
            prefixes: prefixes.iter().copied().collect(),
            origins: origins.iter().copied().collect(),
        })
    };
    let mut room = limits::WATCHED;
    let (mut watched, mut left_out) = (Vec::new(), Vec::new());
    for own in policy.regions.iter().filter_map(watch) {
        match room.checked_sub(own.prefixes.len() + own.origins.len() + 1) {
            Some(rest) => {
                room = rest;
                watched.push(own);
            }
            None => left_out.push(own.region),
        }
    }
    (watched, left_out)
}

fn us(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use leeward_common::{bgp::Prefix, config::Document};
    use leeward_engine::intent::{Amendment, Change};

    use super::*;
    use crate::config::tests::policy;

    fn registration(agent: &str, region: &str, addresses: &[&str]) -> Registration {
        Registration {
            agent: AgentId::parse(agent).unwrap(),
            region: RegionId::parse(region).unwrap(),
            boot_epoch: 1,
            addresses: addresses
                .iter()
                .map(|address| address.parse().unwrap())
                .collect(),
            answer_port: 8612,
            stamp_port: None,
            build: String::new(),
        }
    }

    fn ids(mesh: &Mesh) -> Vec<&str> {
        mesh.targets
            .iter()
            .map(|target| target.id.as_str())
            .collect()
    }

    fn now(ms: u64) -> Timestamp {
        Timestamp::from_unix_us(ms * 1_000)
    }

    const REGIONS: &str = "
        [[region]]
        id = 'iad'
        latitude = 39.0
        longitude = -77.5
        [[region]]
        id = 'dub'
        latitude = 53.3
        longitude = -6.3
    ";

    #[test]
    fn stamp_is_asked_only_of_those_who_know_it_and_for_those_who_reflect() {
        let mut policy = policy(REGIONS);
        policy.probing.kinds = vec![ProbeKind::TcpSyn, ProbeKind::Stamp];
        let agents = [
            Registration {
                stamp_port: Some(862),
                ..registration("iad-1", "iad", &["192.0.2.1"])
            },
            // Probes and does not reflect; of an older build.
            Registration {
                stamp_port: Some(0),
                ..registration("iad-2", "iad", &["192.0.2.2"])
            },
            registration("dub-1", "dub", &["192.0.2.3"]),
            Registration {
                stamp_port: Some(1_862),
                ..registration("dub-2", "dub", &["192.0.2.4"])
            },
        ];
        let asked = |kinds: &[ProbeKind], meshes: &Meshes, agent: usize| -> Vec<_> {
            let mesh = meshes.of(&agents[agent].agent).unwrap();
            assert!(mesh.targets.iter().all(|target| !target.kinds.is_empty()));
            let asked = mesh.targets.iter().map(|target| {
                let asks = target.kinds.contains(&ProbeKind::Stamp);
                assert_eq!(asks, target.stamp_port != 0);
                assert_eq!(asks, target.kinds == kinds);
                (target.id.to_string(), target.stamp_port)
            });
            asked.collect()
        };
        let mut meshes = Meshes::default();
        meshes.update(now(5), &policy, &Intents::default(), agents.iter());
        let both = policy.probing.kinds.clone();
        let dub = |ports: [u16; 2]| {
            let ids = ["dub-1.v4", "dub-2.v4"].map(str::to_owned);
            ids.into_iter().zip(ports).collect::<Vec<_>>()
        };
        assert_eq!(asked(&both, &meshes, 0), dub([0, 1_862]));
        assert_eq!(asked(&both, &meshes, 1), dub([0, 1_862]));
        let of_old = asked(&both, &meshes, 2);
        assert!(of_old.iter().all(|&(_, port)| port == 0), "{of_old:?}");
        // Where nothing else is asked for, who cannot reflect is pinged.
        policy.probing.kinds = vec![ProbeKind::Stamp];
        meshes.update(now(6), &policy, &Intents::default(), agents.iter());
        assert_eq!(asked(&[ProbeKind::Stamp], &meshes, 0), dub([0, 1_862]));
        let mesh = meshes.of(&agents[0].agent).unwrap();
        assert_eq!(mesh.targets[0].kinds, [ProbeKind::Icmp]);
    }

    #[test]
    fn agents_probe_the_agents_of_other_regions() {
        let policy = policy(REGIONS);
        let agents = [
            registration("iad-1", "iad", &["192.0.2.1", "2001:db8::1"]),
            registration("iad-2", "iad", &["192.0.2.2"]),
            registration("dub-1", "dub", &["192.0.2.3", "192.0.2.4"]),
        ];
        let mut meshes = Meshes::default();
        assert_eq!(
            meshes
                .update(now(5), &policy, &Intents::default(), agents.iter())
                .len(),
            3
        );
        assert_eq!(
            ids(meshes.of(&agents[0].agent).unwrap()),
            ["dub-1.v4", "dub-1.v4.2"]
        );
        assert_eq!(
            ids(meshes.of(&agents[2].agent).unwrap()),
            ["iad-1.v4", "iad-1.v6", "iad-2.v4"]
        );
    }

    #[test]
    fn only_those_whose_mesh_changed_are_told_under_a_higher_version() {
        let policy = policy(REGIONS);
        let mut agents = vec![
            registration("iad-1", "iad", &["192.0.2.1"]),
            registration("dub-1", "dub", &["192.0.2.2"]),
        ];
        let mut meshes = Meshes::default();
        meshes.update(now(5), &policy, &Intents::default(), agents.iter());
        let before = meshes.of(&agents[0].agent).unwrap().version;
        assert!(
            meshes
                .update(now(6), &policy, &Intents::default(), agents.iter())
                .is_empty()
        );

        agents.push(registration("iad-2", "iad", &["192.0.2.9"]));
        let changed = meshes.update(now(6), &policy, &Intents::default(), agents.iter());
        let names: Vec<_> = changed.iter().map(|(agent, _)| agent.as_str()).collect();
        assert_eq!(names, ["dub-1", "iad-2"]);
        assert!(changed.iter().all(|(_, mesh)| mesh.version > before));
    }

    #[test]
    fn outside_targets_go_to_the_regions_that_they_name() {
        let policy = policy(&format!(
            "{REGIONS}
            [[target]]
            id = 'dns'
            address = '192.0.2.53'
            from = ['dub']
            "
        ));
        let agents = [
            registration("iad-1", "iad", &[]),
            registration("dub-1", "dub", &[]),
        ];
        let mut meshes = Meshes::default();
        meshes.update(now(5), &policy, &Intents::default(), agents.iter());
        assert!(ids(meshes.of(&agents[0].agent).unwrap()).is_empty());
        assert_eq!(ids(meshes.of(&agents[1].agent).unwrap()), ["dns"]);
    }

    #[test]
    fn everybody_is_told_by_which_prefixes_regions_are_reached() {
        let declared = |prefix: &str| {
            let text = REGIONS.replacen(
                "id = 'dub'",
                &format!("id = 'dub'\nprefixes = ['{prefix}']\norigins = [64500]"),
                1,
            );
            policy(&text)
        };
        let agents = [
            registration("iad-1", "iad", &[]),
            registration("dub-1", "dub", &[]),
        ];
        let mut meshes = Meshes::default();
        meshes.update(
            now(5),
            &declared("198.51.100.0/24"),
            &Intents::default(),
            agents.iter(),
        );
        let watch =
            |meshes: &Meshes, agent: usize| meshes.of(&agents[agent].agent).unwrap().watch.clone();
        assert_eq!(
            watch(&meshes, 0),
            [Watch {
                region: "dub".parse().unwrap(),
                prefixes: vec!["198.51.100.0/24".parse().unwrap()],
                origins: vec![64_500],
            }]
        );
        assert_eq!(watch(&meshes, 0), watch(&meshes, 1));
        // What people define goes before the configuration.
        let mut intents = Intents::default();
        intents.on_change(
            now(5),
            &Change {
                who: "ops".to_owned(),
                why: String::new(),
                what: Amendment::PutReach(
                    "dub".parse().unwrap(),
                    Reach {
                        prefixes: ["192.0.2.0/24".parse().unwrap()].into(),
                        origins: [].into(),
                    },
                ),
            },
        );
        let changed = meshes.update(
            now(6),
            &declared("198.51.100.0/24"),
            &intents,
            agents.iter(),
        );
        assert_eq!(changed.len(), 2);
        assert_eq!(
            watch(&meshes, 0)[0].prefixes,
            ["192.0.2.0/24".parse().unwrap()]
        );
        assert!(watch(&meshes, 0)[0].origins.is_empty());
        // Another declaration is another mesh.
        let changed = meshes.update(
            now(6),
            &declared("203.0.113.0/24"),
            &Intents::default(),
            agents.iter(),
        );
        assert_eq!(changed.len(), 2);
        assert_eq!(
            watch(&meshes, 0)[0].prefixes,
            ["203.0.113.0/24".parse().unwrap()]
        );
    }

    #[test]
    fn regions_whose_prefixes_do_not_fit_are_left_out_and_named() {
        let policy = policy(REGIONS);
        let mut intents = Intents::default();
        for (net, region) in [(10u32, "iad"), (11, "dub")] {
            let prefixes = (0..limits::WATCHED as u32 / 2 + 1).map(|at| {
                let address = Ipv4Addr::from_bits(net << 24 | at << 8);
                Prefix::new(address.into(), 24).unwrap()
            });
            let reach = Reach {
                prefixes: prefixes.collect(),
                origins: [].into(),
            };
            intents.on_change(
                now(5),
                &Change {
                    who: "ops".to_owned(),
                    why: String::new(),
                    what: Amendment::PutReach(region.parse().unwrap(), reach),
                },
            );
        }
        let (watched, left_out) = watch(&policy, &intents.reaches);
        assert_eq!((watched.len(), left_out.len()), (1, 1));
        assert_ne!(left_out[0], watched[0].region);
    }

    #[test]
    fn checks_go_to_the_regions_that_ask_and_never_to_the_one_that_is_asked_about() {
        let policy = policy(REGIONS);
        let agents = [
            registration("iad-1", "iad", &[]),
            registration("dub-1", "dub", &[]),
        ];
        let document = Document {
            file: "defs.toml",
            text: "[[service]]\nid = 's'\nhome = 'iad'\n[service.checks.api]\nat = { iad = 'tcp://192.0.2.1:80', dub = \
                   'tcp://192.0.2.2:80' }\n[[service]]\nid = 't'\nhome = 'iad'\ncandidates = ['iad']\n[service.checks.api]\n\
                   at = { iad = 'tcp://192.0.2.3:80' }\nfrom = ['dub']\n",
        };
        let mut intents = Intents::default();
        for entry in leeward_common::definitions::parse(&document).unwrap() {
            let change = Change {
                who: "a".to_owned(),
                why: String::new(),
                what: (&entry.defined).into(),
            };
            intents.on_change(now(1), &change);
        }
        let mut meshes = Meshes::default();
        meshes.update(now(5), &policy, &Intents::default(), agents.iter());
        let changed = meshes.update(now(6), &policy, &intents, agents.iter());
        assert_eq!(changed.len(), 2, "a mesh with other checks is another mesh");
        let asked = |agent: usize| -> Vec<String> {
            let mesh = meshes.of(&agents[agent].agent).unwrap();
            let words = |own: &Check| format!("{} {} {}", own.service, own.region, own.url);
            mesh.checks.iter().map(words).collect()
        };
        assert_eq!(asked(0), ["s dub tcp://192.0.2.2:80"]);
        assert_eq!(
            asked(1),
            ["s iad tcp://192.0.2.1:80", "t iad tcp://192.0.2.3:80"]
        );
        let spec = &intents.services.values().next().unwrap().what.checks;
        let question = spec.values().next().unwrap().question(&agents[1].region);
        let mesh = meshes.of(&agents[0].agent).unwrap();
        assert_eq!(Some(mesh.checks[0].question), question);
    }

    #[test]
    fn the_longest_agent_id_still_has_target_ids() {
        let agent = "a".repeat(MAX_AGENT_ID_LENGTH);
        let addresses: Vec<_> = (0..limits::ADDRESSES)
            .map(|n| format!("192.0.2.{n}"))
            .collect();
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        let targets = own_targets(&policy(REGIONS), &registration(&agent, "iad", &addresses));
        assert_eq!(targets.len(), limits::ADDRESSES);
    }
}
