//! What the flows of one path did: told where they are unlike, since then one report of them all hides something.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    id::{RegionId, TargetId},
    report::ProbeKind,
    time::Timestamp,
    wire::{WireError, at_most},
};

/// The most flows of a path; today's agents have at most half as many.
pub const FLOWS: usize = 16;

/// The flows of a path in a span of time.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Flows {
    /// The path's target.
    pub target: TargetId,
    /// Where the target stands; `None` for an outside target.
    #[serde(default)]
    pub region: Option<RegionId>,
    /// How it is probed.
    pub kind: ProbeKind,
    /// The target's address.
    pub address: IpAddr,
    /// When the span begins, by the agent's clock.
    pub from: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// Flow by flow.
    pub flows: Vec<Flow>,
}

/// What one flow did.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Flow {
    /// Probes that left and ended: answered in time or late, by an error, or lost.
    pub ended: u32,
    /// Of those, how many were lost.
    pub lost: u32,
    /// Of those, how many were answered late.
    pub late: u32,
    /// Pairs of consecutive probes that were both lost.
    pub lost_pairs: u32,
    /// The shortest round-trip time, microseconds; `None` without any.
    pub rtt_min_us: Option<u32>,
    /// The mean round-trip time, microseconds; `None` without any.
    pub rtt_mean_us: Option<u32>,
}

impl Flows {
    /// Whether another account is of the same path.
    #[must_use]
    pub fn is_of_path_of(&self, other: &Self) -> bool {
        (&self.target, self.kind) == (&other.target, other.kind)
    }

    /// Checks the lengths of lists.
    ///
    /// # Errors
    ///
    /// Returns [`WireError::TooLarge`] if there are too many flows.
    pub fn check(&self) -> Result<(), WireError> {
        at_most("list of flows", self.flows.len(), FLOWS)
    }
}

/// A path of so many flows of which the first lost so many of a hundred probes, for tests.
#[must_use]
pub fn sample(target: &str, flows: usize, lost: u32) -> Flows {
    let mut sample = Flows {
        target: TargetId::parse(target).expect("a target's name"),
        region: Some(RegionId::parse("dub").expect("a region's name")),
        kind: ProbeKind::Stamp,
        address: IpAddr::from([192, 0, 2, 9]),
        from: Timestamp::from_unix_us(30_000_000),
        until: Timestamp::from_unix_us(60_000_000),
        flows: vec![Flow::default(); flows],
    };
    for (flow, lost) in sample
        .flows
        .iter_mut()
        .zip(std::iter::once(lost).chain(std::iter::repeat(0)))
    {
        *flow = Flow {
            ended: 100,
            lost,
            late: 1,
            lost_pairs: lost / 4,
            rtt_min_us: Some(700),
            rtt_mean_us: Some(900),
        };
    }
    sample
}
