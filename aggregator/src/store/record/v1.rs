//! Version 1 of everything on disk. These types never change, apart from fields with a default.

use std::net::IpAddr;

use leeward_common::{
    api::v1::{AuditEntry, Defined},
    audit::{self, Hash},
    id::{AgentId, OfferId, OverrideId, RegionId, ReservationId, ServiceId, SourceId},
    report::{Path, ProbeKind},
    time::Timestamp,
};
use leeward_engine::{
    decision::Decision,
    input::{Metric, Signal, Subject},
    intent::Change,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

mod check;

pub use check::{CheckResult, Checked};

use crate::{
    intent::{Asked, Condition, Thing, What},
    mesh,
    store::StoreError,
};

mod anchor;
mod mark;
mod shadow;

pub use anchor::{Anchor, Definition, Definitions, Part, Selected, Unserved};
pub use mark::{At, BatchAt, Checksum, Mark, UnderWay};
pub use shadow::Shadow;

/// Encodes any record.
pub(crate) fn encode(record: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(record).expect("records hold nothing that MessagePack cannot express")
}

/// Decodes any record.
///
/// # Errors
///
/// Returns [`StoreError::Malformed`] when the bytes are none.
pub(crate) fn decode<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, StoreError> {
    rmp_serde::from_slice(bytes).map_err(|error| StoreError::Malformed {
        what,
        why: error.to_string(),
    })
}

/// One thing that arrived; in column `journal`, under the `now` that the engine saw.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// Everything that a replay from here needs to know of what was before; the first record of each hour and of each
    /// process. Retention cuts the journal in front of one.
    Anchor(Anchor),
    /// A batch of reports.
    Batch(Batch),
    /// An agent's session began.
    Connected(Registration),
    /// An agent's session ended.
    Disconnected(Disconnected),
    /// A signal was injected.
    Signal(SignalRecord),
    /// A policy came into force.
    Policy(Policy),
    /// A service, an offer, a reservation or an override was changed.
    Change(Changed),
    /// Results of checks came from an agent.
    CheckResults(Checked),
    /// An agent told what it found out beside its windows: its region and the message's own bytes,
    /// [`leeward_common::wire::findings`].
    Findings(Batch),
}

/// A change. A definition is kept in the form of the API, which only ever grows by optional members.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Changed {
    /// Who asked for it.
    pub who: String,
    /// Why.
    pub why: String,
    /// What it changed.
    pub what: Amended,
}

/// What a change changed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Amended {
    Put(Box<Defined>),
    RemoveService(ServiceId),
    RemoveOffer(OfferId),
    RemoveReservation(ReservationId),
    LiftOverride(OverrideId),
    RemoveReach(RegionId),
}

/// One entry of the audit log; in column `audit`, under its sequence. See [`leeward_common::audit`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Audited {
    /// When.
    pub at_us: u64,
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
    /// What was done.
    pub what: String,
    /// To what.
    pub about: String,
    /// As of which change; 0 where it is none.
    pub version: u64,
    /// What it is from then on.
    pub detail: String,
    /// The hash of the entry before.
    #[serde(with = "serde_bytes")]
    pub previous: [u8; 32],
    /// The hash of this entry.
    #[serde(with = "serde_bytes")]
    pub hash: [u8; 32],
}

/// A policy, as the text that it was parsed from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Policy {
    /// The policy sections of the config file.
    pub toml: String,
}

/// A batch, as it came.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Batch {
    /// The agent's region, from its certificate.
    pub region: RegionId,
    /// The batch's own bytes, [`leeward_common::wire::batch`].
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// What an agent registered.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Registration {
    /// The agent.
    pub agent: AgentId,
    /// Its region.
    pub region: RegionId,
    /// Which start of its process.
    pub boot_epoch: u64,
    /// Where it answers probes.
    pub addresses: Vec<IpAddr>,
    /// Where it answers SYN probes.
    pub answer_port: u16,
    /// UDP port of its STAMP reflector; `None` from agents that know nothing of STAMP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp_port: Option<u16>,
    /// Its build, for people.
    pub build: String,
    /// When it was last known to be connected; only in column `registrations`.
    #[serde(default)]
    pub seen_us: u64,
}

/// An agent's session ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Disconnected {
    /// The agent.
    pub agent: AgentId,
}

/// A signal.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SignalRecord {
    /// Who says so.
    pub source: SourceId,
    /// The region, or the first of a link.
    pub region: RegionId,
    /// The second region of a link; `None` if it is about a region.
    #[serde(default)]
    pub to: Option<RegionId>,
    /// The service that it is about, as it is in the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceId>,
    /// Which measure.
    pub metric: MetricName,
    /// In the metric's unit.
    pub value: f64,
    /// When it was observed.
    pub observed_at_us: u64,
    /// Until when it counts.
    pub expires_at_us: u64,
    /// The injector's own key.
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

/// What a signal measures.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of `Metric`")]
pub enum MetricName {
    Health,
    LatencyUs,
    LossRatio,
    BandwidthBps,
    ReplicationLagUs,
}

/// What was decided; in column `decisions`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Decided {
    /// The decision's number.
    pub id: u64,
    /// When.
    pub at_us: u64,
    /// Whose failover; for a service, its home.
    pub primary: RegionId,
    /// The service, if the selection is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceId>,
    /// The selection before.
    pub from: Option<RegionId>,
    /// The selection from then on.
    pub to: Option<RegionId>,
    /// A stable word.
    pub reason: String,
    /// The reason in one sentence.
    pub summary: String,
    /// The whole decision with its evidence, in the shape of the build that took it. The fields above are the facts
    /// and can always be read; this one explains them to builds that understand it.
    #[serde(with = "serde_bytes")]
    pub explanation: Vec<u8>,
}

/// A serialised engine; in column `snapshots`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Snapshot {
    /// Version of the engine's state.
    pub state_version: u32,
    /// The build that wrote it.
    pub build: String,
    /// Its policy, as the text that it was parsed from.
    pub policy: Policy,
    /// The state.
    #[serde(with = "serde_bytes")]
    pub state: Vec<u8>,
}

/// A path table; in column `tables`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Table {
    /// Row by row.
    pub rows: Vec<Row>,
}

/// One row of a table. One-letter names: a table may have 16,384 rows.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Row {
    /// The target.
    pub t: leeward_common::id::TargetId,
    /// The probe kind.
    pub k: Kind,
    /// The region that the target stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r: Option<RegionId>,
}

/// A probe kind.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of `ProbeKind`")]
pub enum Kind {
    Icmp,
    TcpSyn,
    Stamp,
}

/// Which batches of a boot epoch arrived; in column `watermarks`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Watermark {
    /// Runs of sequences that arrived: first and one past the last, ascending.
    pub runs: Vec<(u64, u64)>,
    /// When the last one arrived.
    pub seen_us: u64,
}

impl From<&mesh::Registration> for Registration {
    fn from(registration: &mesh::Registration) -> Self {
        let mesh::Registration {
            agent,
            region,
            boot_epoch,
            addresses,
            answer_port,
            stamp_port,
            build,
        } = registration.clone();
        Self {
            agent,
            region,
            boot_epoch,
            addresses,
            answer_port,
            stamp_port,
            build,
            seen_us: 0,
        }
    }
}

impl From<Registration> for mesh::Registration {
    fn from(record: Registration) -> Self {
        let Registration {
            agent,
            region,
            boot_epoch,
            addresses,
            answer_port,
            stamp_port,
            build,
            seen_us: _,
        } = record;
        Self {
            agent,
            region,
            boot_epoch,
            addresses,
            answer_port,
            stamp_port,
            build,
        }
    }
}

impl From<&Signal> for SignalRecord {
    fn from(signal: &Signal) -> Self {
        let Signal {
            source,
            subject,
            metric,
            value,
            observed_at,
            expires_at,
            idempotency_key,
        } = signal.clone();
        let (region, to, service) = match subject {
            Subject::Region(region) => (region, None, None),
            Subject::Link(from, to) => (from, Some(to), None),
            Subject::Service(service, region) => (region, None, Some(service)),
        };
        let metric = match metric {
            Metric::Health => MetricName::Health,
            Metric::LatencyUs => MetricName::LatencyUs,
            Metric::LossRatio => MetricName::LossRatio,
            Metric::BandwidthBps => MetricName::BandwidthBps,
            Metric::ReplicationLagUs => MetricName::ReplicationLagUs,
        };
        Self {
            source,
            region,
            to,
            service,
            metric,
            value,
            observed_at_us: observed_at.as_unix_us(),
            expires_at_us: expires_at.as_unix_us(),
            idempotency_key,
        }
    }
}

impl From<SignalRecord> for Signal {
    fn from(record: SignalRecord) -> Self {
        let SignalRecord {
            source,
            region,
            to,
            service,
            metric,
            value,
            observed_at_us,
            expires_at_us,
            idempotency_key,
        } = record;
        let metric = match metric {
            MetricName::Health => Metric::Health,
            MetricName::LatencyUs => Metric::LatencyUs,
            MetricName::LossRatio => Metric::LossRatio,
            MetricName::BandwidthBps => Metric::BandwidthBps,
            MetricName::ReplicationLagUs => Metric::ReplicationLagUs,
        };
        let subject = match (service, to) {
            (Some(service), _) => Subject::Service(service, region),
            (None, None) => Subject::Region(region),
            (None, Some(to)) => Subject::Link(region, to),
        };
        Self {
            source,
            subject,
            metric,
            value,
            observed_at: Timestamp::from_unix_us(observed_at_us),
            expires_at: Timestamp::from_unix_us(expires_at_us),
            idempotency_key,
        }
    }
}

impl From<&Asked> for Changed {
    fn from(asked: &Asked) -> Self {
        let what = match &asked.what {
            What::Put(defined) => Amended::Put(Box::new(defined.clone())),
            What::Remove(Thing::Service(id)) => Amended::RemoveService(id.clone()),
            What::Remove(Thing::Offer(id)) => Amended::RemoveOffer(id.clone()),
            What::Remove(Thing::Reservation(id)) => Amended::RemoveReservation(id.clone()),
            What::Remove(Thing::Override(id)) => Amended::LiftOverride(id.clone()),
            What::Remove(Thing::Reach(id)) => Amended::RemoveReach(id.clone()),
        };
        Self {
            who: asked.who.clone(),
            why: asked.why.clone(),
            what,
        }
    }
}

impl From<Changed> for Change {
    fn from(record: Changed) -> Self {
        let what = match record.what {
            Amended::Put(defined) => What::Put(*defined),
            Amended::RemoveService(id) => What::Remove(Thing::Service(id)),
            Amended::RemoveOffer(id) => What::Remove(Thing::Offer(id)),
            Amended::RemoveReservation(id) => What::Remove(Thing::Reservation(id)),
            Amended::LiftOverride(id) => What::Remove(Thing::Override(id)),
            Amended::RemoveReach(id) => What::Remove(Thing::Reach(id)),
        };
        let asked = Asked {
            who: record.who,
            why: record.why,
            what,
            condition: Condition::Any,
        };
        asked.change()
    }
}

impl Audited {
    /// An entry with its hashes.
    pub(crate) fn new(entry: &AuditEntry, previous: Hash, hash: Hash) -> Self {
        let AuditEntry {
            sequence: _,
            at,
            who,
            why,
            what,
            about,
            version,
            detail,
            ..
        } = entry.clone();
        Self {
            at_us: at.0.as_unix_us(),
            who,
            why,
            what,
            about,
            version,
            detail,
            previous,
            hash,
        }
    }

    /// The entry of a key and a value; one that says what is wrong if they are none.
    pub(crate) fn entry(key: &[u8], value: &[u8]) -> AuditEntry {
        let sequence = key.try_into().map_or(0, u64::from_be_bytes);
        match decode::<Self>("audit entry", value) {
            Ok(audited) => AuditEntry {
                sequence,
                at: Timestamp::from_unix_us(audited.at_us).into(),
                who: audited.who,
                why: audited.why,
                what: audited.what,
                about: audited.about,
                version: audited.version,
                detail: audited.detail,
                previous: audit::hex(&audited.previous),
                hash: audit::hex(&audited.hash),
            },
            Err(error) => AuditEntry {
                sequence,
                at: Timestamp::EPOCH.into(),
                who: String::new(),
                why: String::new(),
                what: "unreadable".to_owned(),
                about: String::new(),
                version: 0,
                detail: error.to_string(),
                previous: String::new(),
                hash: String::new(),
            },
        }
    }
}

impl Decided {
    /// Numbers it higher.
    pub(crate) fn renumber(&mut self, by: u64) {
        self.id += by;
        if by > 0
            && let Ok(mut decision) = decode::<Decision>("decision", &self.explanation)
        {
            decision.id = self.id;
            self.explanation = encode(&decision);
        }
    }

    /// Whether an override caused it.
    #[must_use]
    pub fn is_overridden(&self) -> bool {
        self.reason == "override"
    }
}

impl From<&Decision> for Decided {
    fn from(decision: &Decision) -> Self {
        Self {
            id: decision.id,
            at_us: decision.at.as_unix_us(),
            primary: decision.primary.clone(),
            service: decision.service.clone(),
            from: decision.from.clone(),
            to: decision.to.clone(),
            reason: decision.reason.code().to_owned(),
            summary: decision.summary.clone(),
            explanation: encode(decision),
        }
    }
}

impl From<&[Path]> for Table {
    fn from(paths: &[Path]) -> Self {
        let row = |path: &Path| {
            let Path {
                target,
                kind,
                region,
            } = path.clone();
            let kind = match kind {
                ProbeKind::Icmp => Kind::Icmp,
                ProbeKind::TcpSyn => Kind::TcpSyn,
                ProbeKind::Stamp => Kind::Stamp,
            };
            Row {
                t: target,
                k: kind,
                r: region,
            }
        };
        Self {
            rows: paths.iter().map(row).collect(),
        }
    }
}

impl From<Table> for Vec<Path> {
    fn from(table: Table) -> Self {
        let path = |Row { t, k, r }| {
            let kind = match k {
                Kind::Icmp => ProbeKind::Icmp,
                Kind::TcpSyn => ProbeKind::TcpSyn,
                Kind::Stamp => ProbeKind::Stamp,
            };
            Path {
                target: t,
                kind,
                region: r,
            }
        };
        table.rows.into_iter().map(path).collect()
    }
}

#[cfg(test)]
mod tests {
    use leeward_common::id::TargetId;

    use super::*;

    fn region(id: &str) -> RegionId {
        RegionId::parse(id).unwrap()
    }

    fn registration() -> Registration {
        Registration {
            agent: AgentId::parse("iad-1").unwrap(),
            region: region("iad"),
            boot_epoch: 7,
            addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            answer_port: 8612,
            stamp_port: None,
            build: "0.1.0".to_owned(),
            seen_us: 0,
        }
    }

    /// What is on disk today must be readable for ever: these bytes never change.
    #[test]
    fn golden_bytes() {
        let batch = Record::Batch(Batch {
            region: region("iad"),
            bytes: vec![1, 2, 0xff],
        });
        let bytes = b"\x81\xa5batch\x82\xa6region\xa3iad\xa5bytes\xc4\x03\x01\x02\xff";
        assert_eq!(encode(&batch), bytes);
        assert_eq!(decode::<Record>("record", bytes).unwrap(), batch);

        let found = Record::Findings(Batch {
            region: region("iad"),
            bytes: vec![1, 2, 0xff],
        });
        let bytes = b"\x81\xa8findings\x82\xa6region\xa3iad\xa5bytes\xc4\x03\x01\x02\xff";
        assert_eq!(encode(&found), bytes);
        assert_eq!(decode::<Record>("record", bytes).unwrap(), found);

        let gone = Record::Disconnected(Disconnected {
            agent: AgentId::parse("iad-1").unwrap(),
        });
        let bytes = b"\x81\xacdisconnected\x81\xa5agent\xa5iad-1";
        assert_eq!(encode(&gone), bytes);
        assert_eq!(decode::<Record>("record", bytes).unwrap(), gone);

        let watermark = Watermark {
            runs: vec![(0, 17)],
            seen_us: 5,
        };
        let bytes = b"\x82\xa4runs\x91\x92\x00\x11\xa7seen_us\x05";
        assert_eq!(encode(&watermark), bytes);
        assert_eq!(decode::<Watermark>("watermark", bytes).unwrap(), watermark);

        let table = Table {
            rows: vec![Row {
                t: TargetId::parse("a.v4").unwrap(),
                k: Kind::TcpSyn,
                r: None,
            }],
        };
        let bytes = b"\x81\xa4rows\x91\x82\xa1t\xa4a.v4\xa1k\xa7tcp_syn";
        assert_eq!(encode(&table), bytes);
        assert_eq!(decode::<Table>("table", bytes).unwrap(), table);
    }

    fn defined() -> Defined {
        Defined::Offer(
            OfferId::parse("o").unwrap(),
            leeward_common::api::v1::OfferSpec {
                region: region("iad"),
                amounts: std::iter::once((
                    leeward_common::id::ResourceId::parse("vcpu").unwrap(),
                    2.0,
                ))
                .collect(),
                until: None,
                why: "new".to_owned(),
            },
        )
    }

    #[test]
    fn golden_bytes_of_changes_and_of_the_audit_log() {
        let change = Record::Change(Changed {
            who: "mara".to_owned(),
            why: "new".to_owned(),
            what: Amended::Put(Box::new(defined())),
        });
        let bytes = b"\x81\xa6change\x83\xa3who\xa4mara\xa3why\xa3new\xa4what\x81\xa3put\x81\xa5offer\x92\xa1o\x83\xa6region\xa3iad\xa7amounts\x81\xa4vcpu\xcb\x40\x00\x00\x00\x00\x00\x00\x00\xa3why\xa3new";
        assert_eq!(encode(&change), bytes);
        assert_eq!(decode::<Record>("record", bytes).unwrap(), change);

        let gone = Record::Change(Changed {
            who: "mara".to_owned(),
            why: String::new(),
            what: Amended::LiftOverride(OverrideId::parse("w").unwrap()),
        });
        let bytes =
            b"\x81\xa6change\x83\xa3who\xa4mara\xa3why\xa0\xa4what\x81\xadlift_override\xa1w";
        assert_eq!(encode(&gone), bytes);
        assert_eq!(decode::<Record>("record", bytes).unwrap(), gone);

        let audited = Audited {
            at_us: 5,
            who: "a".to_owned(),
            why: String::new(),
            what: "put".to_owned(),
            about: String::new(),
            version: 1,
            detail: String::new(),
            previous: [0; 32],
            hash: [0xff; 32],
        };
        let mut bytes = b"\x89\xa5at_us\x05\xa3who\xa1a\xa3why\xa0\xa4what\xa3put\xa5about\xa0\xa7version\x01\xa6detail\xa0\xa8previous\xc4\x20".to_vec();
        bytes.extend([0; 32]);
        bytes.extend(b"\xa4hash\xc4\x20");
        bytes.extend([0xff; 32]);
        assert_eq!(encode(&audited), bytes);
        assert_eq!(decode::<Audited>("audit entry", &bytes).unwrap(), audited);
    }

    #[test]
    fn a_field_that_a_later_build_adds_is_ignored() {
        let bytes = b"\x81\xacdisconnected\x82\xa5agent\xa5iad-1\xa3why\xa4rest";
        assert!(decode::<Record>("record", bytes).is_ok());
    }

    #[test]
    fn records_and_domain_values_convert_both_ways() {
        let there = mesh::Registration::from(registration());
        assert_eq!(Registration::from(&there), registration());

        let link = Subject::Link(region("iad"), region("dub"));
        for (subject, metric) in [
            (Subject::Region(region("iad")), Metric::Health),
            (link, Metric::LossRatio),
        ] {
            let signal = Signal {
                source: SourceId::parse("netops").unwrap(),
                subject,
                metric,
                value: 0.25,
                observed_at: Timestamp::from_unix_us(1),
                expires_at: Timestamp::from_unix_us(2),
                idempotency_key: Some("k".to_owned()),
            };
            let record: SignalRecord =
                decode("signal", &encode(&SignalRecord::from(&signal))).unwrap();
            assert_eq!(Signal::from(record), signal);
        }
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error() {
        let seeds = [
            encode(&Record::Connected(registration())),
            encode(&Record::Batch(Batch {
                region: region("iad"),
                bytes: vec![0; 40],
            })),
            encode(&Record::CheckResults(check::sample())),
            encode(&Record::Change(Changed {
                who: "a".to_owned(),
                why: String::new(),
                what: Amended::Put(Box::new(defined())),
            })),
        ];
        bolero::check!()
            .with_iterations(20_000)
            .with_type()
            .for_each(|(at, bytes): &(u8, Vec<u8>)| {
                let mut seed = seeds[usize::from(*at) % seeds.len()].clone();
                let start = usize::from(*at / 2) % seed.len();
                for (place, byte) in seed[start..].iter_mut().zip(bytes) {
                    *place = *byte;
                }
                for bytes in [&seed, bytes] {
                    if let Ok(record) = decode::<Record>("record", bytes) {
                        assert!(decode::<Record>("record", &encode(&record)).is_ok());
                    }
                    let _ = decode::<Watermark>("watermark", bytes);
                    let _ = Audited::entry(bytes, bytes);
                    let _ = decode::<Table>("table", bytes);
                    let _ = decode::<Snapshot>("snapshot", bytes);
                    let _ = decode::<Decided>("decision", bytes);
                }
            });
    }
}
