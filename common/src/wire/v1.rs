//! Control messages of major version 1. MessagePack maps with field names; unknown fields are ignored, absent ones
//! that are `default` take their default, so either side may grow. Texts for people are cut to their limit when
//! written; all limits are checked when read.

use std::net::IpAddr;

use serde::{Deserialize, Serialize, Serializer};

use crate::{
    bgp::Prefix,
    check::{MAX_BODY, MAX_URL, Outcome},
    id::{AgentId, CheckId, RegionId, ServiceId, TargetId},
    report::{Path, ProbeKind},
    wire::{WireError, at_most, limits},
};

/// The oldest and the newest version of the control messages that this build speaks. The major version is the ALPN name;
/// these are steps within it. Agent and aggregator speak the newest that both know. Where they have none in common, the
/// aggregator refuses the hello with [`RefuseCode::Version`].
///
/// 1: the first. 2: batches of earlier boot epochs, credit, and refused sequences.
pub const VERSIONS: [u16; 2] = [1, 2];

/// From this version on an aggregator takes batches of earlier boot epochs.
pub const VERSION_BACKLOG: u16 = 2;

/// The newest version in both ranges; `None` if there is none.
#[must_use]
pub fn common_version(ours: [u16; 2], theirs: [u16; 2]) -> Option<u16> {
    let newest = ours[1].min(theirs[1]);
    (newest >= ours[0].max(theirs[0])).then_some(newest)
}

/// What an agent says on the control stream.
#[derive(Clone, Debug, PartialEq)]
pub enum FromAgent {
    /// First message of a connection.
    Hello(Hello),
    /// A new path table; batches refer to its rows.
    Paths(Paths),
    /// The mesh is in force, apart from what was refused.
    MeshApplied(MeshApplied),
    /// How the agent itself fares; every few seconds.
    Status(AgentStatus),
    /// What came of checks. Sent only to an aggregator whose mesh asks for some: an older one would not understand it.
    CheckResults(CheckResults),
}

/// What an aggregator says on the control stream.
#[derive(Clone, Debug, PartialEq)]
pub enum FromAggregator {
    /// Answer to a hello.
    Welcome(Welcome),
    /// The connection is refused or ended, and why.
    Refuse(Refuse),
    /// Whom to probe.
    Mesh(Mesh),
    /// A path table is durable: batches may refer to it.
    PathsDurable(PathsDurable),
    /// Batches are durable: the agent may forget them.
    Durable(Durable),
    /// Something to find out now. Sent only to an agent whose hello takes orders.
    Order(Order),
}

/// Who connects.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hello {
    /// The agent; must equal the certificate's.
    pub agent: AgentId,
    /// Its region; must equal the certificate's.
    pub region: RegionId,
    /// Random, chosen at each start of the agent's process: sequences begin anew with it.
    pub boot_epoch: u64,
    /// Addresses on which the agent answers probes.
    pub addresses: Vec<IpAddr>,
    /// TCP port on which the agent answers SYN probes.
    pub answer_port: u16,
    /// UDP port of the agent's STAMP reflector, 0 if it has none. `None` from an agent that knows nothing of STAMP: it
    /// would not understand a mesh with such probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp_port: Option<u16>,
    /// Whether it takes orders, and answers each by a finding.
    #[serde(default, skip_serializing_if = "is_false")]
    pub orders: bool,
    /// Build of the agent, for people.
    #[serde(default, serialize_with = "text")]
    pub build: String,
    /// The oldest and the newest version of these messages that the agent speaks; see [`VERSIONS`].
    #[serde(default = "first_versions", skip_serializing_if = "are_first")]
    pub versions: [u16; 2],
    /// Boot epochs before this one of which batches still wait. From version 2 on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backlog: Vec<u64>,
}

/// The hello is accepted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Welcome {
    /// The aggregator's name.
    #[serde(serialize_with = "text")]
    pub aggregator: String,
    /// Of this boot epoch every sequence below this is durable; 0 if none.
    pub durable_below: u64,
    /// Whether it takes findings.
    #[serde(default, skip_serializing_if = "is_false")]
    pub findings: bool,
    /// The version of these messages that both sides speak from here on: the newest that both know.
    #[serde(default = "first_version", skip_serializing_if = "is_first")]
    pub version: u16,
    /// The same of those boot epochs in [`Hello::backlog`] whose batches are taken on this connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backlog: Vec<KnownEpoch>,
    /// See [`Durable::credit`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<u32>,
}

/// What is durable of an earlier boot epoch.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct KnownEpoch {
    /// The boot epoch.
    pub boot_epoch: u64,
    /// Of it every sequence below this is durable; 0 if none.
    pub durable_below: u64,
}

/// The connection ends.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Refuse {
    /// A stable word for programs.
    pub code: RefuseCode,
    /// A sentence for people: what is wrong and what to do.
    #[serde(serialize_with = "text")]
    pub reason: String,
}

/// Why a connection was refused or ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefuseCode {
    /// The hello or a batch names another agent or region than the certificate.
    Identity,
    /// The region is not configured here.
    UnknownRegion,
    /// A message could not be understood.
    Malformed,
    /// A limit was exceeded.
    Limit,
    /// A newer connection of the same agent took over.
    Superseded,
    /// The two sides have no version of the control messages in common.
    Version,
    /// The agent is on the aggregator's deny-list.
    Denied,
    /// The aggregator stops or cannot store.
    Unavailable,
    /// A code of a newer build.
    #[serde(other)]
    Other,
}

/// Whom to probe.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Mesh {
    /// Grows with each change; an agent keeps the newest.
    pub version: u64,
    /// Time between two probes of one path, microseconds.
    pub interval_us: u64,
    /// Length of a window, microseconds; must divide a minute.
    pub window_us: u64,
    /// How long a probe may stay unanswered before it is lost, microseconds.
    pub expiry_us: u64,
    /// Histogram schema by number.
    pub schema: u8,
    /// A path on which so many probes in a row are unanswered, and nothing was answered for [`Self::silence_us`], is
    /// reported before its window ends; 0 if none is.
    #[serde(default)]
    pub silence_probes: u32,
    /// See [`Self::silence_probes`]; microseconds.
    #[serde(default)]
    pub silence_us: u64,
    /// As how many flows each path is probed, 1 to 8. An agent of an older build chooses itself.
    #[serde(default = "flows", skip_serializing_if = "is_usual")]
    pub flows: u8,
    /// The targets.
    pub targets: Vec<Target>,
    /// What to ask of services. An agent of an older build passes it over, and its silence is what is known then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// By which prefixes regions are reached, where that is declared. Of the others an agent may learn it from the
    /// addresses of its targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watch: Vec<Watch>,
}

/// The prefixes that a region is reached by.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Watch {
    /// The region.
    pub region: RegionId,
    /// The prefixes.
    pub prefixes: Vec<Prefix>,
    /// The systems that may announce them and their parts; empty if that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<u32>,
}

/// What to ask of a service.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Check {
    /// The service.
    pub service: ServiceId,
    /// Which of its checks.
    pub check: CheckId,
    /// The region that the answer stands for.
    pub region: RegionId,
    /// A number for what is asked, sent back with what came of it.
    pub question: u64,
    /// What is asked, as [`crate::check::CheckUrl`] reads it. A text, so that one of a newer build costs one check only.
    pub url: String,
    /// The first and the last status of a page that is well.
    pub status: [u16; 2],
    /// A text that a page must hold; `None` to read no page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// How long everything may take, microseconds.
    pub timeout_us: u64,
    /// How often to ask, microseconds.
    pub interval_us: u64,
}

/// What came of checks.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CheckResults {
    /// One by one.
    pub results: Vec<CheckResult>,
}

/// What came of one check.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CheckResult {
    /// The service.
    pub service: ServiceId,
    /// Which of its checks.
    pub check: CheckId,
    /// The region that the answer stands for.
    pub region: RegionId,
    /// The number of what was asked.
    pub question: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took, microseconds.
    pub latency_us: u64,
    /// How long before this message it ended, microseconds, by a clock that nobody sets.
    pub age_us: u64,
    /// The outcome in words, for people; empty if there is nothing to add.
    #[serde(default, serialize_with = "reason")]
    pub detail: String,
}

/// One target of a mesh.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Target {
    /// Its id.
    pub id: TargetId,
    /// Where it stands; `None` for an outside target.
    pub region: Option<RegionId>,
    /// Its address.
    pub address: IpAddr,
    /// How to probe it.
    pub kinds: Vec<ProbeKind>,
    /// Port of TCP SYN probes.
    pub port: u16,
    /// UDP port of STAMP probes; 0 if they are not among the kinds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stamp_port: u16,
}

/// The answer to a mesh.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MeshApplied {
    /// Of which mesh.
    pub version: u64,
    /// Targets that this agent does not probe.
    pub refused: Vec<RefusedTarget>,
}

/// A target that an agent does not probe, and why.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RefusedTarget {
    /// The target.
    pub target: TargetId,
    /// The reason: outside the allowed networks, over the rate cap, no socket of its family.
    #[serde(serialize_with = "reason")]
    pub reason: String,
}

/// A path table.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Paths {
    /// Its number, from 1, unique within the boot epoch.
    pub table: u32,
    /// Whose table it is; absent for the connection's own boot epoch. Another one only from version 2 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_epoch: Option<u64>,
    /// Row by row.
    pub paths: Vec<Path>,
}

/// A path table is durable.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PathsDurable {
    /// Its number.
    pub table: u32,
    /// Whose table it is; absent for the connection's own boot epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_epoch: Option<u64>,
}

/// Batches are settled: the agent may forget them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Durable {
    /// Their sequences.
    pub sequences: Vec<u64>,
    /// Whose sequences; absent for the connection's own boot epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_epoch: Option<u64>,
    /// Those among them that were refused and are not stored: sent again they would be refused again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<u64>,
    /// Why the first of those was refused, for people.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        serialize_with = "text"
    )]
    pub reason: String,
    /// How many batches the agent may have under way from now on, at least 1; absent where the aggregator does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<u32>,
}

/// Something to find out now. An agent that does not know what is asked declines, as it does when its own limits forbid it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Order {
    /// Its number, sent back with the finding that answers it.
    pub order: u64,
    /// Trace a route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceOrder>,
    /// Measure how much a link carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<BandwidthOrder>,
}

/// Measure how much the way to a target carries.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BandwidthOrder {
    /// The target, one of the agent's mesh that it probes by STAMP.
    pub target: TargetId,
    /// By a heavy test, which the agent's file must allow; else by trains, within its budget.
    #[serde(default, skip_serializing_if = "is_false")]
    pub heavy: bool,
}

/// Trace the route of a path.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TraceOrder {
    /// The target, one of the agent's mesh.
    pub target: TargetId,
    /// By which probes; one of the kinds that the mesh asks for.
    pub kind: ProbeKind,
    /// Whether to look for the largest packet that comes through as well.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mtu: bool,
}

/// How the agent itself fares. Counters run since its start.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct AgentStatus {
    /// Probes scheduled.
    pub scheduled: u64,
    /// Probes sent.
    pub sent: u64,
    /// Probes not sent in time or forbidden by the rate cap.
    pub not_sent: u64,
    /// Probes dropped by this host's kernel.
    pub local_drop: u64,
    /// How late probes left, 99th percentile of the last status period, microseconds.
    pub send_lateness_p99_us: u64,
    /// Packets that answered no probe of ours: wrong token, address or form.
    pub strays: u64,
    /// Batches waiting to be acknowledged.
    pub batches_waiting: u64,
    /// Batches given up because there was no room for them, or because they were too old.
    pub batches_dropped: u64,
    /// Batches that aggregators refused for their window: too old, or in the future.
    #[serde(skip_serializing_if = "is_nothing")]
    pub batches_refused: u64,
    /// Batches that were merged into longer windows because there was no room for them.
    #[serde(skip_serializing_if = "is_nothing")]
    pub batches_coarsened: u64,
    /// Batches waiting on the agent's disk.
    #[serde(skip_serializing_if = "is_nothing")]
    pub batches_on_disk: u64,
    /// Records of the spool on disk that were damaged and could not be served.
    #[serde(skip_serializing_if = "is_nothing")]
    pub spool_damaged: u64,
    /// What is wrong with the spool's disk, for people; empty if nothing is.
    #[serde(skip_serializing_if = "String::is_empty", serialize_with = "text")]
    pub spool_trouble: String,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// CPU time used, microseconds.
    pub cpu_us: u64,
    /// Where time stamps come from, one word per probe kind, for people.
    #[serde(serialize_with = "text")]
    pub stamps: String,
}

impl FromAgent {
    /// Checks the lengths of lists and texts.
    pub(super) fn check_limits(&self) -> Result<(), WireError> {
        match self {
            Self::Hello(hello) => {
                at_most(
                    "list of addresses",
                    hello.addresses.len(),
                    limits::ADDRESSES,
                )?;
                at_most("list of boot epochs", hello.backlog.len(), limits::EPOCHS)?;
                at_most("name of a build", hello.build.len(), limits::TEXT_BYTES)
            }
            Self::Paths(paths) => at_most("path table", paths.paths.len(), limits::PATHS),
            Self::MeshApplied(applied) => {
                at_most(
                    "list of refused targets",
                    applied.refused.len(),
                    limits::TARGETS,
                )?;
                applied.refused.iter().try_for_each(|refused| {
                    at_most("reason", refused.reason.len(), limits::REASON_BYTES)
                })
            }
            Self::Status(status) => {
                let trouble = status.spool_trouble.len();
                at_most("note on the spool", trouble, limits::TEXT_BYTES)?;
                let stamps = status.stamps.len();
                at_most("note on time stamps", stamps, limits::TEXT_BYTES)
            }
            Self::CheckResults(CheckResults { results }) => {
                at_most("list of check results", results.len(), limits::CHECKS)?;
                results
                    .iter()
                    .try_for_each(|own| at_most("detail", own.detail.len(), limits::REASON_BYTES))
            }
        }
    }
}

impl FromAggregator {
    /// Checks the lengths of lists and texts.
    pub(super) fn check_limits(&self) -> Result<(), WireError> {
        match self {
            Self::Welcome(welcome) => {
                let name = welcome.aggregator.len();
                at_most("aggregator's name", name, limits::TEXT_BYTES)?;
                at_most("list of boot epochs", welcome.backlog.len(), limits::EPOCHS)
            }
            Self::Refuse(refuse) => at_most("reason", refuse.reason.len(), limits::TEXT_BYTES),
            Self::Mesh(mesh) => {
                at_most("mesh", mesh.targets.len(), limits::TARGETS)?;
                at_most("list of checks", mesh.checks.len(), limits::CHECKS)?;
                let watched = mesh.watch.iter();
                let watched = watched.map(|own| own.prefixes.len() + own.origins.len() + 1);
                at_most("watch-list", watched.sum(), limits::WATCHED)?;
                mesh.targets.iter().try_for_each(|target| {
                    at_most("list of probe kinds", target.kinds.len(), limits::KINDS)
                })?;
                mesh.checks.iter().try_for_each(|check| {
                    let body = check.body.as_deref().unwrap_or_default();
                    at_most("text of a check", body.len(), MAX_BODY)?;
                    at_most("URL of a check", check.url.len(), MAX_URL)
                })
            }
            Self::PathsDurable(_) | Self::Order(_) => Ok(()),
            Self::Durable(durable) => {
                let lists = durable.sequences.len() + durable.refused.len();
                at_most("acknowledgement", lists, limits::SEQUENCES)?;
                at_most("reason", durable.reason.len(), limits::TEXT_BYTES)
            }
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_nothing(count: &u64) -> bool {
    *count == 0
}

const fn first_version() -> u16 {
    1
}

const fn first_versions() -> [u16; 2] {
    [1, 1]
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_first(version: &u16) -> bool {
    *version == first_version()
}

fn are_first(versions: &[u16; 2]) -> bool {
    *versions == first_versions()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(port: &u16) -> bool {
    *port == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The flows of a path of which nothing is said.
pub const FLOWS: u8 = 4;

const fn flows() -> u8 {
    FLOWS
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_usual(flows: &u8) -> bool {
    *flows == FLOWS
}

/// The start of a text that fits into `limit` bytes.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    let fits = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=limit.min(text.len())).rev().find(fits).unwrap_or(0);
    &text[..end]
}

fn text<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(cut(text, limits::TEXT_BYTES))
}

fn reason<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(cut(text, limits::REASON_BYTES))
}
