//! The route to a target, hop by hop, and the largest packet that it carries.
//!
//! A hop is a distance: what was sent with that many routers to go. Several probes go to each; each is answered or is
//! not, and by whom. An answer counts only if it quotes the very probe that it answers, so a hop that is here was there.

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{
    id::{RegionId, TargetId},
    report::ProbeKind,
    time::Timestamp,
    wire::{WireError, at_most, limits},
};

/// The most hops of a route: no route of the Internet is half as long.
pub const HOPS: usize = 64;

/// The most probes of one hop, and so the most that answered.
pub const PROBES: usize = 16;

/// The most labels of one answer (RFC 4950). Stacks of more than four are rare.
pub const LABELS: usize = 8;

/// A route, as it was found once.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Trace {
    /// The order that asked for it; `None` if nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<u64>,
    /// To whom.
    pub target: TargetId,
    /// Where the target stands; `None` for an outside target.
    #[serde(default)]
    pub region: Option<RegionId>,
    /// By which probes: those of the path of this kind, so what is traced is what is measured.
    pub kind: ProbeKind,
    /// The target's address.
    pub address: IpAddr,
    /// When it began, by the agent's clock.
    pub began: Timestamp,
    /// How long it took, microseconds.
    pub took_us: u64,
    /// Hop by hop, from the first; the last is where it ended.
    pub hops: Vec<Hop>,
    /// How it ended.
    pub end: End,
    /// The largest packet that comes through; `None` if that was not asked, or if no echo is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<PathMtu>,
    /// Packets that came and answered none of its probes.
    #[serde(default)]
    pub strays: Strays,
}

/// What was sent with so many routers to go, and what came of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hop {
    /// The time to live (IPv6: hop limit) of the probes, from 1.
    pub ttl: u8,
    /// Probes sent.
    pub sent: u8,
    /// Who answered, in the order of the first answer of each; empty if nobody did.
    pub answers: Vec<Answer>,
}

/// One who answered at a hop.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// Who.
    pub from: IpAddr,
    /// What it said.
    pub says: Says,
    /// The round-trip time of each probe that it answered, microseconds, in the order of sending.
    pub rtts_us: Vec<u32>,
    /// MPLS labels that the probe carried there, outermost first (RFC 4950).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
    /// The autonomous system of the address, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// A router on the way: the probe's time to live ended here.
    TimeExceeded,
    /// The target itself: an echo reply, a SYN/ACK or RST, a STAMP reply.
    Reached,
    /// There is no way to the network.
    NetUnreachable,
    /// The host cannot be reached.
    HostUnreachable,
    /// Nobody listens on the port; from the target itself.
    PortUnreachable,
    /// A filter on the way forbids it.
    Prohibited,
    /// Any other reason why it went no further.
    #[serde(other)]
    OtherUnreachable,
}

/// One label of an MPLS stack.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Label {
    /// The label, 20 bits.
    pub label: u32,
    /// The traffic class, 3 bits.
    pub class: u8,
    /// The label's own time to live.
    pub ttl: u8,
}

/// How a trace ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The target answered.
    Reached,
    /// The last hop said that it goes no further.
    Unreachable,
    /// Several hops in a row said nothing, or the longest route was tried.
    Silent,
    /// The last hop had answered before, nearer.
    Looped,
    /// This host could not send.
    NotSent(String),
}

/// The largest packet that comes to the target and is answered, found by sending (RFC 4821, RFC 8899): what routers say
/// about it is a hint only.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PathMtu {
    /// The largest that was answered, bytes of the whole IP packet.
    pub bytes: u16,
    /// The largest that this host's interface lets out, bytes.
    pub local: u16,
    /// The smallest that a router on the way said would fit, and who said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hinted: Option<Hint>,
    /// Larger packets vanish, and no router says so.
    pub black_hole: bool,
    /// Echo requests sent for it.
    pub probes: u16,
}

/// What a router said about the next link.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hint {
    /// What would fit, bytes.
    pub bytes: u16,
    /// The router.
    pub from: IpAddr,
}

/// Packets that looked like answers and were none. None of them is a hop.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Strays {
    /// Errors that quote too little to tell what they are about.
    pub truncated: u32,
    /// Errors and replies about something else than a probe of this trace.
    pub foreign: u32,
    /// Answers to a probe of this trace with another token, or to one that was answered before.
    pub forged: u32,
}

/// A difference between two traces to the same target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The hop.
    pub ttl: u8,
    /// Who answered there before; empty if the route was shorter.
    pub before: Vec<IpAddr>,
    /// Who answers there now; empty if the route is shorter.
    pub after: Vec<IpAddr>,
}

impl Trace {
    /// The hops at which `self` differs from a trace before it. A hop where one of the two heard nobody says nothing
    /// about the route; one where an address answered in both is the same.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<Change> {
        let longest = self.hops.len().max(before.hops.len());
        let change = |at: usize| {
            let (old, new) = (before.hops.get(at), self.hops.get(at));
            let (had, has) = (addresses(old), addresses(new));
            let ttl = old.or(new)?.ttl;
            let differs = match (old, new) {
                (Some(_), Some(_)) => {
                    !had.is_empty() && !has.is_empty() && had.iter().all(|one| !has.contains(one))
                }
                // One of the two ended before: that is news only if it ended at the target.
                (Some(_), None) => self.end == End::Reached && !had.is_empty(),
                (None, _) => before.end == End::Reached && !has.is_empty(),
            };
            differs.then_some(Change {
                ttl,
                before: had,
                after: has,
            })
        };
        (0..longest).filter_map(change).collect()
    }

    pub(super) fn check(&self) -> Result<(), WireError> {
        at_most("list of hops", self.hops.len(), HOPS)?;
        if let End::NotSent(error) = &self.end {
            at_most("error", error.len(), limits::REASON_BYTES)?;
        }
        self.hops.iter().try_for_each(Hop::check)
    }
}

impl Hop {
    /// Probes that nobody answered.
    #[must_use]
    pub fn lost(&self) -> usize {
        let answered: usize = self.answers.iter().map(|own| own.rtts_us.len()).sum();
        usize::from(self.sent).saturating_sub(answered)
    }

    /// Round-trip times, ascending, microseconds.
    #[must_use]
    pub fn rtts_us(&self) -> Vec<u32> {
        let all = self.answers.iter().flat_map(|own| own.rtts_us.iter());
        let mut all: Vec<u32> = all.copied().collect();
        all.sort_unstable();
        all
    }

    fn check(&self) -> Result<(), WireError> {
        at_most("list of answers", self.answers.len(), PROBES)?;
        self.answers.iter().try_for_each(|own| {
            at_most("list of round-trip times", own.rtts_us.len(), PROBES)?;
            at_most("label stack", own.labels.len(), LABELS)
        })
    }
}

fn addresses(hop: Option<&Hop>) -> Vec<IpAddr> {
    let all = hop.into_iter().flat_map(|hop| &hop.answers);
    let distinct: BTreeSet<IpAddr> = all.map(|own| own.from).collect();
    distinct.into_iter().collect()
}

/// An example, for tests and documents: these addresses at these hops, nobody at an empty one, and the target at the last.
///
/// # Panics
///
/// When an address is none.
#[must_use]
pub fn sample(hops: &[&str]) -> Trace {
    let hop = |(at, from): (usize, &&str)| Hop {
        ttl: at as u8 + 1,
        sent: 3,
        answers: (!from.is_empty())
            .then(|| Answer {
                from: from.parse().expect("an address"),
                says: if at + 1 == hops.len() {
                    Says::Reached
                } else {
                    Says::TimeExceeded
                },
                rtts_us: vec![300 + at as u32, 200],
                labels: Vec::new(),
                asn: None,
            })
            .into_iter()
            .collect(),
    };
    Trace {
        order: Some(7),
        target: TargetId::parse("dub-1.v4").expect("an id"),
        region: Some(RegionId::parse("dub").expect("an id")),
        kind: ProbeKind::Icmp,
        address: "192.0.2.9".parse().expect("an address"),
        began: Timestamp::from_unix_us(1_000_000),
        took_us: 500,
        hops: hops.iter().enumerate().map(hop).collect(),
        end: End::Reached,
        mtu: None,
        strays: Strays::default(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn changed(before: &[&str], after: &[&str]) -> Vec<u8> {
        let changes = sample(after).changes_since(&sample(before));
        changes.into_iter().map(|change| change.ttl).collect()
    }

    #[test]
    fn another_router_at_a_hop_is_a_change_and_a_silent_one_is_not() {
        let before = ["10.0.0.1", "10.0.1.1", "192.0.2.9"];
        assert!(changed(&before, &before).is_empty());
        assert_eq!(
            changed(&before, &["10.0.0.1", "10.0.7.1", "192.0.2.9"]),
            [2]
        );
        assert!(changed(&before, &["10.0.0.1", "", "192.0.2.9"]).is_empty());
    }

    #[test]
    fn a_longer_and_a_shorter_way_are_changes() {
        let (short, long) = (
            ["10.0.0.1", "192.0.2.9"],
            ["10.0.0.1", "10.0.1.1", "192.0.2.9"],
        );
        assert_eq!(changed(&short, &long), [2, 3]);
        assert_eq!(changed(&long, &short), [2, 3]);
    }

    #[test]
    fn loss_is_what_nobody_answered() {
        let trace = sample(&["", "10.0.0.1"]);
        let lost: Vec<_> = trace.hops.iter().map(Hop::lost).collect();
        assert_eq!(lost, [3, 1]);
        assert_eq!(trace.hops[1].rtts_us(), [200, 301]);
    }
}
