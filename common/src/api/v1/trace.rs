//! Routes, as agents traced them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Time;
use crate::{
    finding::trace::Says,
    id::{AgentId, RegionId, TargetId},
    report::ProbeKind,
};

/// Routes that were traced lately, the newest first.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Traces {
    /// When.
    pub evaluated_at: Time,
    /// One by one.
    pub traces: Vec<Trace>,
}

/// One traced route.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Trace {
    /// The order that it answers; `null` if nobody ordered it.
    pub order: Option<u64>,
    /// Who traced.
    pub agent: AgentId,
    /// The agent's region.
    pub from: RegionId,
    /// The target's region; `null` for a target outside of all regions.
    pub to: Option<RegionId>,
    /// The target.
    pub target: TargetId,
    /// The target's address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: IpAddr,
    /// By which probes; what is traced is the flow that these measure.
    pub kind: ProbeKind,
    /// When it was told.
    pub at: Time,
    /// How long it took, microseconds.
    pub took_us: u64,
    /// How it ended.
    pub end: TraceEnd,
    /// The same in words.
    pub detail: String,
    /// Hop by hop.
    pub hops: Vec<TraceHop>,
    /// The largest packet that comes through; `null` if that was not asked or cannot be told.
    pub mtu: Option<TraceMtu>,
    /// What differs from the trace of the same path before it; `null` if there is none.
    pub changes: Option<Vec<TraceChange>>,
    /// When the trace before it was told; `null` if there is none.
    pub compared_with: Option<Time>,
}

/// How a trace ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TraceEnd {
    /// The target answered.
    Reached,
    /// Somebody on the way said that it goes no further.
    Unreachable,
    /// Nobody answers any more.
    Silent,
    /// The route closes on itself.
    Looped,
    /// The agent's host could not send.
    NotSent,
}

/// One hop.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceHop {
    /// How many routers away, from 1.
    pub hop: u8,
    /// Probes sent.
    pub sent: u32,
    /// Probes that nobody answered.
    pub lost: u32,
    /// The shortest round-trip time, microseconds; `null` if nobody answered.
    pub rtt_best_us: Option<u32>,
    /// The median round-trip time, microseconds; `null` if nobody answered.
    pub rtt_median_us: Option<u32>,
    /// Who answered; empty if nobody did. More than one where routers share the load packet by packet.
    pub answers: Vec<TraceAnswer>,
}

/// One who answered at a hop.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceAnswer {
    /// Who.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: IpAddr,
    /// What it said.
    pub says: Says,
    /// Round-trip times, microseconds, in the order of sending.
    pub rtts_us: Vec<u32>,
    /// MPLS labels that the probe carried there, outermost first.
    pub mpls: Vec<TraceLabel>,
    /// The autonomous system of the address; `null` where it is not known.
    pub asn: Option<u32>,
}

/// One label of an MPLS stack.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceLabel {
    /// The label.
    pub label: u32,
    /// The traffic class.
    pub class: u8,
    /// The label's own time to live.
    pub ttl: u8,
}

/// The largest packet that comes through, found by sending.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceMtu {
    /// Bytes of the whole IP packet.
    pub bytes: u16,
    /// What the agent's interface lets out, bytes.
    pub local_bytes: u16,
    /// The smallest that a router said would fit, bytes; `null` if none said anything.
    pub hinted_bytes: Option<u16>,
    /// The router that said so.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub hinted_by: Option<IpAddr>,
    /// Larger packets vanish, and no router says so.
    pub black_hole: bool,
}

/// A difference to the trace before.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceChange {
    /// The hop.
    pub hop: u8,
    /// Who answered there before; empty if the route was shorter.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub before: Vec<IpAddr>,
    /// Who answers there now; empty if the route is shorter.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub after: Vec<IpAddr>,
}

/// A trace to be ordered.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewTrace {
    /// Whose agent traces.
    pub from: RegionId,
    /// To which region.
    pub to: RegionId,
    /// By which probes; of the kinds that measure the link the first of `icmp`, `tcp_syn`, `stamp` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ProbeKind>,
    /// Which agent; any that is connected if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
    /// Whether to look for the largest packet that comes through as well.
    #[serde(default)]
    pub mtu: bool,
}

/// An order that is on its way to an agent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OrderedTrace {
    /// Its number: `GET /v1/traces/{order}`.
    pub order: u64,
    /// Who traces.
    pub agent: AgentId,
    /// To which target.
    pub target: TargetId,
    /// By which probes.
    pub kind: ProbeKind,
}

/// What came of an order.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceOutcome {
    /// Its number.
    pub order: u64,
    /// How it stands.
    pub state: OrderState,
    /// Why it was declined; `null` if it was not.
    pub reason: Option<String>,
    /// The route; `null` until it is known.
    pub trace: Option<Trace>,
}

/// How an order stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OrderState {
    /// Nothing has come of it yet, or it is too old to be remembered.
    Open,
    /// The agent did it.
    Done,
    /// The agent did not.
    Declined,
}
