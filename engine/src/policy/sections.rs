//! The TOML sections of a policy: raw, as written, and their conversion into a valid [`Policy`].
//!
//! `aggregator.toml` and a scenario embed these sections as fields of their own struct, since serde's `flatten` would
//! lose the refusal of unknown keys and the places of values.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use leeward_common::{
    bgp::Prefix,
    config::{ConfigError, Document, Span, Spanned},
    deadline,
    histogram::Schema,
    id::{RegionId, SourceId, TargetId},
    report::ProbeKind,
    wire::limits,
};
use serde::Deserialize;

use super::{
    CapacityRules, Doubt, Evidence, Failback, Failover, OutsideTarget, Policy, Probing, Region,
    RoutingRules, SignalSource, Steadiness, Weights, defaults,
};

/// All sections of a policy, as written.
#[derive(Clone, Debug, Default)]
pub struct Sections {
    /// `[[region]]`
    pub region: Vec<RegionSection>,
    /// `[[failover]]`
    pub failover: Vec<FailoverSection>,
    /// `[probing]`
    pub probing: ProbingSection,
    /// `[policy]`
    pub policy: PolicySection,
    /// `[[target]]`
    pub target: Vec<TargetSection>,
    /// `[[signal_source]]`
    pub signal_source: Vec<SignalSourceSection>,
}

/// `[[region]]`: a place that can serve.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionSection {
    /// Its id.
    pub id: Spanned<RegionId>,
    /// Degrees north, -90..=90.
    pub latitude: Spanned<f64>,
    /// Degrees east, -180..=180.
    pub longitude: Spanned<f64>,
    /// Relative capacity, above 0.
    pub capacity: Option<Spanned<f64>>,
    /// Free labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What it shares with others that can fail; none twice, none empty.
    #[serde(default)]
    pub risk_groups: Vec<Spanned<String>>,
    /// The prefixes that it is reached by; none twice, none in two regions.
    #[serde(default)]
    pub prefixes: Vec<Spanned<Prefix>>,
    /// The systems that may announce these.
    #[serde(default)]
    pub origins: Option<Spanned<BTreeSet<u32>>>,
}

/// `[[failover]]`: who may stand in for a primary region.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailoverSection {
    /// The primary.
    pub primary: Spanned<RegionId>,
    /// The candidates; every other region where absent.
    pub candidates: Option<Vec<Spanned<RegionId>>>,
    /// Multipliers of the baseline weight by candidate, above 0.
    #[serde(default)]
    pub weights: BTreeMap<Spanned<RegionId>, Spanned<f64>>,
}

/// `[probing]`: how the mesh is probed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProbingSection {
    /// Time between two probes of one path.
    pub interval: Option<Spanned<Span>>,
    /// Length of a window; must divide a minute.
    pub window: Option<Spanned<Span>>,
    /// How long a probe may stay unanswered before it is lost.
    pub expiry: Option<Spanned<Span>>,
    /// The probe kinds.
    pub kinds: Option<Spanned<Vec<ProbeKind>>>,
    /// Significant digits of round-trip times: 2 or 3.
    pub digits: Option<Spanned<u8>>,
    /// As how many flows each path is probed: 1 to 8.
    pub flows: Option<Spanned<u8>>,
}

/// `[policy]`: the numbers of a decision.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicySection {
    /// Decisions are evaluated at multiples of this.
    pub evaluate_every: Option<Spanned<Span>>,
    /// `[policy.evidence]`
    pub evidence: EvidenceSection,
    /// `[policy.doubt]`
    pub doubt: DoubtSection,
    /// `[policy.weights]`
    pub weights: WeightsSection,
    /// `[policy.steadiness]`
    pub steadiness: SteadinessSection,
    /// `[policy.capacity]`
    pub capacity: CapacitySection,
    /// `[policy.routing]`
    pub routing: RoutingSection,
}

/// `[policy.evidence]`; see [`Evidence`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `Evidence`")]
pub struct EvidenceSection {
    pub memory: Option<Spanned<Span>>,
    pub stale_after: Option<Spanned<Span>>,
    pub down_after: Option<Spanned<Span>>,
    pub down_probes: Option<Spanned<u32>>,
    pub min_probes: Option<Spanned<u32>>,
    pub predict: Option<bool>,
}

/// `[policy.doubt]`; see [`Doubt`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `Doubt`")]
pub struct DoubtSection {
    pub unsent: Option<Spanned<f64>>,
    pub lateness: Option<Spanned<Span>>,
    pub overflow: Option<Spanned<f64>>,
    pub clock_step: Option<Spanned<Span>>,
    pub lasts: Option<Spanned<Span>>,
}

/// `[policy.weights]`; see [`Weights`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `Weights`")]
pub struct WeightsSection {
    pub distance_scale_km: Option<Spanned<f64>>,
    pub distance: Option<Spanned<f64>>,
    pub capacity: Option<Spanned<f64>>,
    pub latency_scale: Option<Spanned<Span>>,
    pub latency_p50: Option<Spanned<f64>>,
    pub latency_p99: Option<Spanned<f64>>,
    pub jitter_scale: Option<Spanned<Span>>,
    pub jitter: Option<Spanned<f64>>,
    pub loss: Option<Spanned<f64>>,
    pub bandwidth_scale_bps: Option<Spanned<f64>>,
    pub bandwidth: Option<Spanned<f64>>,
    pub floor: Option<Spanned<f64>>,
}

/// `[policy.steadiness]`; see [`Steadiness`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `Steadiness`")]
pub struct SteadinessSection {
    pub margin: Option<Spanned<f64>>,
    pub confirm: Option<Spanned<Span>>,
    pub caution: Option<Spanned<f64>>,
    pub switching_cost: Option<Spanned<Span>>,
    pub dwell: Option<Spanned<Span>>,
    pub failback: Option<Failback>,
    pub failback_confirm: Option<Spanned<Span>>,
    pub failback_margin: Option<Spanned<f64>>,
    pub flap_limit: Option<Spanned<f64>>,
    pub flap_half_life: Option<Spanned<Span>>,
    pub moves_per_hour: Option<Spanned<u32>>,
    pub storm_moves: Option<Spanned<u32>>,
    pub silence: Option<Spanned<Span>>,
    pub hold_first: Option<Spanned<Span>>,
    pub hold_max: Option<Spanned<Span>>,
    pub forget_after: Option<Spanned<Span>>,
}

/// `[policy.capacity]`; see [`CapacityRules`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `CapacityRules`")]
pub struct CapacitySection {
    pub reserve: Option<Spanned<f64>>,
}

/// `[policy.routing]`; see [`RoutingRules`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `RoutingRules`")]
pub struct RoutingSection {
    pub lasts: Option<Spanned<Span>>,
    pub max_factor: Option<Spanned<f64>>,
    pub leave: Option<bool>,
}

/// `[[target]]`: an address of nobody's agent that agents probe too.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSection {
    /// Its id.
    pub id: Spanned<TargetId>,
    /// Its address.
    pub address: IpAddr,
    /// How to probe it; as the mesh where absent.
    pub kinds: Option<Spanned<Vec<ProbeKind>>>,
    /// Port of TCP SYN probes.
    pub port: Option<Spanned<u16>>,
    /// Whose agents probe it; all where absent.
    #[serde(default)]
    pub from: Vec<Spanned<RegionId>>,
    /// The region that it stands in, if it is evidence about one.
    pub region: Option<Spanned<RegionId>>,
}

/// `[[signal_source]]`: who may inject signals.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalSourceSection {
    /// Its id.
    pub id: Spanned<SourceId>,
    /// The most that it may multiply or divide a network weight by, at least 1.
    pub max_factor: Option<Spanned<f64>>,
    /// The longest time to live that it may ask for.
    pub max_ttl: Option<Spanned<Span>>,
}

impl Sections {
    /// Checks every value and fills in the defaults.
    ///
    /// # Errors
    ///
    /// Returns the place of the first value that cannot stand, and what to write instead.
    pub fn into_policy(self, document: &Document<'_>) -> Result<Policy, ConfigError> {
        let check = Check { document };
        let probing = check.probing(self.probing)?;
        let regions = check.regions(self.region)?;
        Ok(Policy {
            failovers: check.failovers(self.failover, &regions)?,
            targets: check.targets(self.target, &regions, &probing)?,
            signal_sources: check.signal_sources(self.signal_source)?,
            evaluate_every: check.span(
                self.policy.evaluate_every,
                defaults::EVALUATE_EVERY,
                Duration::from_millis(1)..=Duration::from_secs(60),
            )?,
            evidence: check.evidence(self.policy.evidence, &probing)?,
            doubt: check.doubt(self.policy.doubt)?,
            weights: check.weights(self.policy.weights)?,
            steadiness: check.steadiness(self.policy.steadiness)?,
            capacity: CapacityRules {
                reserve: check.number(
                    self.policy.capacity.reserve,
                    defaults::CAPACITY_RESERVE,
                    0.0..=0.99,
                )?,
            },
            routing: check.routing(self.policy.routing)?,
            regions,
            probing,
        })
    }
}

const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);
const MS: Duration = Duration::from_millis(1);

struct Check<'a> {
    document: &'a Document<'a>,
}

impl Check<'_> {
    fn regions(
        &self,
        sections: Vec<RegionSection>,
    ) -> Result<BTreeMap<RegionId, Region>, ConfigError> {
        let (mut regions, mut reached) = (BTreeMap::new(), BTreeMap::new());
        for section in sections {
            let (prefixes, origins) = self.reached_by(&section, &mut reached)?;
            let region = Region {
                latitude: self.number(Some(section.latitude), 0.0, -90.0..=90.0)?,
                longitude: self.number(Some(section.longitude), 0.0, -180.0..=180.0)?,
                capacity: self.number(section.capacity, defaults::CAPACITY, 1e-6..=1e6)?,
                labels: section.labels,
                risk_groups: self.risk_groups(section.risk_groups)?,
                prefixes,
                origins,
            };
            self.unique("region", &section.id, &regions)?;
            let named = |own: &Region| own.prefixes.len() + own.origins.len() + 1;
            if regions.values().map(named).sum::<usize>() + named(&region) > limits::WATCHED {
                let message = format!(
                    "regions, prefixes and origins are more than {} together, which agents cannot be told; give fewer",
                    limits::WATCHED
                );
                return Err(self.document.error(section.id.span(), message));
            }
            regions.insert(section.id.into_inner(), region);
        }
        Ok(regions)
    }

    /// The prefixes that a region is reached by, and who may announce them. `reached` are those of the regions before it.
    fn reached_by(
        &self,
        section: &RegionSection,
        reached: &mut BTreeMap<Prefix, RegionId>,
    ) -> Result<(BTreeSet<Prefix>, BTreeSet<u32>), ConfigError> {
        for written in &section.prefixes {
            let prefix = *written.get_ref();
            if let Some(other) = reached.insert(prefix, section.id.get_ref().clone()) {
                let message =
                    format!("prefix {prefix} is given twice, for {other} before; remove one");
                return Err(self.document.error(written.span(), message));
            }
            if prefix.length() == 0 {
                let message =
                    "a default route leads everywhere; give the prefix that is this region's own";
                return Err(self.document.error(written.span(), message));
            }
        }
        let prefixes = section.prefixes.iter().map(|own| *own.get_ref()).collect();
        let Some(origins) = &section.origins else {
            return Ok((prefixes, BTreeSet::new()));
        };
        if section.prefixes.is_empty() {
            let message = "origins are given without prefixes; say what they may announce";
            return Err(self.document.error(origins.span(), message));
        }
        Ok((prefixes, origins.get_ref().clone()))
    }

    fn risk_groups(&self, written: Vec<Spanned<String>>) -> Result<BTreeSet<String>, ConfigError> {
        let mut groups = BTreeSet::new();
        for group in written {
            let span = group.span();
            let group = group.into_inner();
            if group.is_empty() {
                let message = "a risk group has no name; write what is shared, such as \"as3320\"";
                return Err(self.document.error(span, message));
            }
            if !groups.insert(group.clone()) {
                let message = format!("risk group {group} is named twice; remove one");
                return Err(self.document.error(span, message));
            }
        }
        Ok(groups)
    }

    fn failovers(
        &self,
        sections: Vec<FailoverSection>,
        regions: &BTreeMap<RegionId, Region>,
    ) -> Result<BTreeMap<RegionId, Failover>, ConfigError> {
        let mut failovers = BTreeMap::new();
        for section in sections {
            let primary = self.known(&section.primary, regions)?;
            self.unique("failover of primary", &section.primary, &failovers)?;
            let mut candidates = Vec::new();
            match section.candidates {
                None => candidates.extend(regions.keys().filter(|id| **id != primary).cloned()),
                Some(written) => {
                    for id in written {
                        let candidate = self.known(&id, regions)?;
                        if candidate == primary {
                            let message = format!(
                                "{primary} cannot stand in for itself; remove it from candidates"
                            );
                            return Err(self.document.error(id.span(), message));
                        }
                        if candidates.contains(&candidate) {
                            let message = format!("candidate {candidate} is named twice");
                            return Err(self.document.error(id.span(), message));
                        }
                        candidates.push(candidate);
                    }
                }
            }
            let mut weights = BTreeMap::new();
            for (id, weight) in section.weights {
                if !candidates.contains(id.get_ref()) {
                    let message = format!(
                        "{} is no candidate of {primary}; candidates are {}",
                        id.get_ref(),
                        list(candidates.iter())
                    );
                    return Err(self.document.error(id.span(), message));
                }
                let weight = self.number(Some(weight), 1.0, 1e-6..=1e6)?;
                weights.insert(id.into_inner(), weight);
            }
            failovers.insert(
                primary,
                Failover {
                    candidates,
                    weights,
                },
            );
        }
        Ok(failovers)
    }

    fn probing(&self, section: ProbingSection) -> Result<Probing, ConfigError> {
        let interval = self.span(section.interval, defaults::INTERVAL, MS..=MS * 60_000)?;
        let window_span = section.window.as_ref().map(Spanned::span);
        let window = self.span(section.window, defaults::WINDOW, MS * 100..=MS * 60_000)?;
        if !MINUTE.as_micros().is_multiple_of(window.as_micros()) {
            let message = format!("window {window:?} does not divide a minute; write \"1s\"");
            return Err(self.document.error(window_span.unwrap_or(0..0), message));
        }
        let schema = match &section.digits {
            None => Schema::default(),
            Some(digits) => match digits.get_ref() {
                2 => Schema::TwoDigits,
                3 => Schema::ThreeDigits,
                other => {
                    let message = format!("digits is {other}; it must be 2 or 3");
                    return Err(self.document.error(digits.span(), message));
                }
            },
        };
        let flows = match &section.flows {
            None => defaults::FLOWS,
            Some(flows) if (1..=8).contains(flows.get_ref()) => *flows.get_ref(),
            Some(flows) => {
                let message = format!("flows is {}; it must be 1 to 8", flows.get_ref());
                return Err(self.document.error(flows.span(), message));
            }
        };
        Ok(Probing {
            interval,
            window,
            expiry: self.span(section.expiry, deadline::EXPIRY, MS * 100..=MS * 60_000)?,
            kinds: self.kinds(section.kinds, &[ProbeKind::Icmp])?,
            schema,
            flows,
        })
    }

    fn evidence(
        &self,
        section: EvidenceSection,
        probing: &Probing,
    ) -> Result<Evidence, ConfigError> {
        let standard = defaults::evidence(probing.interval, probing.window);
        Ok(Evidence {
            memory: self.span(
                section.memory,
                standard.memory,
                probing.window..=crate::graph::RETENTION,
            )?,
            stale_after: self.span(
                section.stale_after,
                standard.stale_after,
                probing.window..=crate::graph::RETENTION,
            )?,
            down_after: self.span(
                section.down_after,
                standard.down_after,
                MS * 10..=crate::graph::RETENTION,
            )?,
            down_probes: self.number(section.down_probes, standard.down_probes, 1..=1_000)?,
            min_probes: self.number(section.min_probes, standard.min_probes, 1..=100_000)?,
            predict: section.predict.unwrap_or(standard.predict),
        })
    }

    fn doubt(&self, section: DoubtSection) -> Result<Doubt, ConfigError> {
        let standard = defaults::doubt();
        Ok(Doubt {
            unsent: self.number(section.unsent, standard.unsent, 0.0..=1.0)?,
            lateness: self.span(section.lateness, standard.lateness, MS..=MINUTE)?,
            overflow: self.number(section.overflow, standard.overflow, 0.0..=1e6)?,
            clock_step: self.span(section.clock_step, standard.clock_step, MS..=DAY)?,
            lasts: self.span(section.lasts, standard.lasts, MS..=MINUTE * 10)?,
        })
    }

    fn weights(&self, section: WeightsSection) -> Result<Weights, ConfigError> {
        let standard = defaults::weights();
        let exponent = 0.0..=1000.0;
        Ok(Weights {
            distance_scale_km: self.number(
                section.distance_scale_km,
                standard.distance_scale_km,
                1.0..=1e6,
            )?,
            distance: self.number(section.distance, standard.distance, exponent.clone())?,
            capacity: self.number(section.capacity, standard.capacity, exponent.clone())?,
            latency_scale: self.span(
                section.latency_scale,
                standard.latency_scale,
                MS..=MS * 60_000,
            )?,
            latency_p50: self.number(
                section.latency_p50,
                standard.latency_p50,
                exponent.clone(),
            )?,
            latency_p99: self.number(
                section.latency_p99,
                standard.latency_p99,
                exponent.clone(),
            )?,
            jitter_scale: self.span(
                section.jitter_scale,
                standard.jitter_scale,
                MS..=MS * 60_000,
            )?,
            jitter: self.number(section.jitter, standard.jitter, exponent.clone())?,
            loss: self.number(section.loss, standard.loss, exponent.clone())?,
            bandwidth_scale_bps: self.number(
                section.bandwidth_scale_bps,
                standard.bandwidth_scale_bps,
                1.0..=1e15,
            )?,
            bandwidth: self.number(section.bandwidth, standard.bandwidth, exponent)?,
            floor: self.number(section.floor, standard.floor, 1e-300..=0.999)?,
        })
    }

    fn steadiness(&self, section: SteadinessSection) -> Result<Steadiness, ConfigError> {
        let standard = defaults::steadiness();
        let any = Duration::ZERO..=DAY;
        let hold_first = self.span(section.hold_first, standard.hold_first, any.clone())?;
        Ok(Steadiness {
            margin: self.number(section.margin, standard.margin, 1.0..=1000.0)?,
            confirm: self.span(section.confirm, standard.confirm, any.clone())?,
            caution: self.number(section.caution, standard.caution, 0.0..=10.0)?,
            switching_cost: self.span(
                section.switching_cost,
                standard.switching_cost,
                any.clone(),
            )?,
            dwell: self.span(section.dwell, standard.dwell, MS * 1000..=DAY)?,
            failback: section.failback.unwrap_or(standard.failback),
            failback_confirm: self.span(
                section.failback_confirm,
                hold_first * defaults::FAILBACK_HOLDS,
                any.clone(),
            )?,
            failback_margin: self.number(
                section.failback_margin,
                standard.failback_margin,
                1.0..=1000.0,
            )?,
            flap_limit: self.number(section.flap_limit, standard.flap_limit, 1.0..=1000.0)?,
            flap_half_life: self.span(
                section.flap_half_life,
                standard.flap_half_life,
                MS * 1000..=DAY,
            )?,
            moves_per_hour: self.number(
                section.moves_per_hour,
                standard.moves_per_hour,
                1..=10_000,
            )?,
            storm_moves: self.number(section.storm_moves, standard.storm_moves, 1..=100_000)?,
            silence: self.span(section.silence, standard.silence, any.clone())?,
            hold_first,
            hold_max: self.span(section.hold_max, standard.hold_max, any)?,
            forget_after: self.span(
                section.forget_after,
                standard.forget_after,
                Duration::ZERO..=DAY * 366,
            )?,
        })
    }

    fn routing(&self, section: RoutingSection) -> Result<RoutingRules, ConfigError> {
        let standard = defaults::routing();
        Ok(RoutingRules {
            lasts: self.span(section.lasts, standard.lasts, MS * 1000..=DAY)?,
            max_factor: self.number(section.max_factor, standard.max_factor, 1.0..=1e6)?,
            leave: section.leave.unwrap_or(standard.leave),
        })
    }

    fn targets(
        &self,
        sections: Vec<TargetSection>,
        regions: &BTreeMap<RegionId, Region>,
        probing: &Probing,
    ) -> Result<Vec<OutsideTarget>, ConfigError> {
        let mut targets = BTreeMap::new();
        // Reflectors stand beside agents: who has one elsewhere says so.
        let mut of_anyone = probing.kinds.clone();
        of_anyone.retain(|&kind| kind != ProbeKind::Stamp);
        if of_anyone.is_empty() {
            of_anyone.push(ProbeKind::Icmp);
        }
        for section in sections {
            let kinds = self.kinds(section.kinds, &of_anyone)?;
            let port = match &section.port {
                Some(port) => *port.get_ref(),
                None if kinds.contains(&ProbeKind::TcpSyn) => {
                    let message = format!(
                        "target {} is probed by tcp_syn and has no port; add port = 443, say",
                        section.id.get_ref()
                    );
                    return Err(self.document.error(section.id.span(), message));
                }
                None => 0,
            };
            let from: Result<_, _> = section
                .from
                .iter()
                .map(|id| self.known(id, regions))
                .collect();
            let region = section.region.as_ref().map(|id| self.known(id, regions));
            self.unique("target", &section.id, &targets)?;
            let target = OutsideTarget {
                id: section.id.get_ref().clone(),
                address: section.address,
                kinds,
                port,
                from: from?,
                region: region.transpose()?,
            };
            targets.insert(section.id.into_inner(), target);
        }
        Ok(targets.into_values().collect())
    }

    fn signal_sources(
        &self,
        sections: Vec<SignalSourceSection>,
    ) -> Result<BTreeMap<SourceId, SignalSource>, ConfigError> {
        let mut sources = BTreeMap::new();
        for section in sections {
            let source = SignalSource {
                max_factor: self.number(
                    section.max_factor,
                    defaults::SIGNAL_MAX_FACTOR,
                    1.0..=1e6,
                )?,
                max_ttl: self.span(section.max_ttl, defaults::SIGNAL_MAX_TTL, MS..=DAY * 366)?,
            };
            self.unique("signal source", &section.id, &sources)?;
            sources.insert(section.id.into_inner(), source);
        }
        Ok(sources)
    }

    fn kinds(
        &self,
        written: Option<Spanned<Vec<ProbeKind>>>,
        standard: &[ProbeKind],
    ) -> Result<Vec<ProbeKind>, ConfigError> {
        let Some(written) = written else {
            return Ok(standard.to_vec());
        };
        let mut kinds = written.get_ref().clone();
        kinds.sort_unstable();
        kinds.dedup();
        if kinds.is_empty() || kinds.len() != written.get_ref().len() {
            let message =
                "kinds must name one or more of \"icmp\", \"tcp_syn\" and \"stamp\", each once";
            return Err(self.document.error(written.span(), message));
        }
        Ok(kinds)
    }

    /// The value in its range, or the default.
    fn number<T: PartialOrd + Copy + std::fmt::Display>(
        &self,
        written: Option<Spanned<T>>,
        standard: T,
        range: std::ops::RangeInclusive<T>,
    ) -> Result<T, ConfigError> {
        let Some(written) = written else {
            return Ok(standard);
        };
        let value = *written.get_ref();
        if range.contains(&value) {
            return Ok(value);
        }
        let message = format!(
            "{value} is out of range; write {} to {}",
            range.start(),
            range.end()
        );
        Err(self.document.error(written.span(), message))
    }

    fn span(
        &self,
        written: Option<Spanned<Span>>,
        standard: Duration,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Result<Duration, ConfigError> {
        let Some(written) = written else {
            return Ok(standard);
        };
        let value = written.get_ref().0;
        if range.contains(&value) {
            return Ok(value);
        }
        let message = format!(
            "{value:?} is out of range; write {:?} to {:?}",
            range.start(),
            range.end()
        );
        Err(self.document.error(written.span(), message))
    }

    fn unique<K: Ord + std::fmt::Display, V>(
        &self,
        noun: &str,
        id: &Spanned<K>,
        taken: &BTreeMap<K, V>,
    ) -> Result<(), ConfigError> {
        if !taken.contains_key(id.get_ref()) {
            return Ok(());
        }
        let message = format!(
            "{noun} {} is already defined above; remove one",
            id.get_ref()
        );
        Err(self.document.error(id.span(), message))
    }

    fn known(
        &self,
        id: &Spanned<RegionId>,
        regions: &BTreeMap<RegionId, Region>,
    ) -> Result<RegionId, ConfigError> {
        known_region(self.document, id, regions.keys())
    }
}

/// The region of an id, or an error that names near ones.
pub(crate) fn known_region<'a>(
    document: &Document<'_>,
    id: &Spanned<RegionId>,
    regions: impl Iterator<Item = &'a RegionId> + Clone,
) -> Result<RegionId, ConfigError> {
    if regions.clone().any(|region| region == id.get_ref()) {
        return Ok(id.get_ref().clone());
    }
    let near = crate::near::nearest(id.get_ref().as_str(), regions.clone().map(RegionId::as_str));
    let message = match near {
        Some(near) => format!(
            "region {} is not defined; did you mean {near}?",
            id.get_ref()
        ),
        None if regions.clone().next().is_none() => {
            format!("region {} is not defined; add a [[region]]", id.get_ref())
        }
        None => format!(
            "region {} is not defined; regions are {}",
            id.get_ref(),
            list(regions)
        ),
    };
    Err(document.error(id.span(), message))
}

fn list<'a>(ids: impl Iterator<Item = &'a RegionId>) -> String {
    let words: Vec<_> = ids.map(RegionId::as_str).collect();
    words.join(", ")
}
