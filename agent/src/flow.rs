//! Flows: one path is probed as several, which routers that balance over equal paths tell apart. Pure.
//!
//! A router that has several equally good next hops chooses one by hashing what it takes for a flow: addresses and ports,
//! of ICMP the first words of its header, over IPv6 the flow label too (RFC 2992, RFC 6438). A prober with one flow
//! sees one of the ways; one that changes flow with each probe sees their average, and a bad one among four is "some loss".
//! So a path has a few flows, each constant in everything that is hashed ([`crate::probe::icmp`] says how for ICMP), and an
//! account of each ([`crate::window`]).
//!
//! ```text
//!  probe    0  1  2  3  4  5  6  7   8  9 10 11 12 13 14 15  16 …
//!  flow     2  2  3  3  0  0  1  1   1  1  0  0  3  3  2  2   …      four flows: blocks of eight
//!  nth      0  1  0  1  0  1  0  1   2  3  2  3  2  3  2  3           of its flow
//! ```
//!
//! Two probes in a row take the same flow: a pair one interval apart, of which both may be lost, tells how long losses last,
//! which probes that are far apart cannot (Sommers et al., BADABING, SIGCOMM 2005). Every block of twice as many
//! probes as flows visits each flow with one pair. Where a block begins, and in which direction it goes round, is drawn from
//! the path's seed, so that what repeats at the pace of the blocks does not always meet the same flow.

use std::ops::RangeInclusive;

/// Flows of a path. More find more of the ways and leave fewer probes for each.
pub const FLOWS: RangeInclusive<u8> = 1..=8;

/// The most flows that a path has.
pub const MAX: usize = *FLOWS.end() as usize;

/// The order in which the probes of a path take its flows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rotation {
    seed: u32,
    flows: u8,
}

/// The turn of a probe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Turn {
    /// Which flow, from 0.
    pub flow: u8,
    /// The how-manieth probe of the flow, from 0.
    pub nth: u32,
}

impl Rotation {
    /// A rotation over so many flows, within [`FLOWS`].
    #[must_use]
    pub fn new(seed: u32, flows: u8) -> Self {
        let flows = flows.clamp(*FLOWS.start(), *FLOWS.end());
        Self { seed, flows }
    }

    /// How many flows there are.
    #[must_use]
    pub const fn flows(self) -> u8 {
        self.flows
    }

    /// The most probes that a flow has among so many consecutive ones of its path.
    #[must_use]
    pub fn depth(self, probes: u32) -> u32 {
        let per_block = 2 * u32::from(self.flows);
        // Two blocks may each end, and begin, with the same flow.
        probes.min(2 * (probes / per_block + 2))
    }

    /// Whose turn a path's probe of this number is.
    #[must_use]
    pub fn turn(self, sequence: u32) -> Turn {
        let flows = u32::from(self.flows);
        let (block, within) = (sequence / (2 * flows), sequence % (2 * flows));
        let (first, step) = self.block(block);
        Turn {
            flow: ((first + step * (within / 2)) % flows) as u8,
            nth: 2 * block + within % 2,
        }
    }

    /// The number of the probe that is a flow's `nth`. Flows beyond the last are the first again.
    #[must_use]
    pub fn sequence(self, flow: u8, nth: u32) -> u32 {
        let flows = u32::from(self.flows);
        let block = nth / 2;
        let (first, step) = self.block(block);
        let ahead = u32::from(flow) % flows + flows - first;
        // A step of one less than all is a step back.
        let pair = if step == 1 {
            ahead
        } else {
            flows - ahead % flows
        } % flows;
        let within = 2 * pair + nth % 2;
        block.wrapping_mul(2 * flows).wrapping_add(within)
    }

    /// With which flow a block begins, and how far it goes from one to the next.
    fn block(self, block: u32) -> (u32, u32) {
        let flows = u32::from(self.flows);
        let drawn =
            crate::schedule::mix(u64::from(self.seed) ^ crate::schedule::mix(u64::from(block) + 1));
        let step = if drawn >> 63 == 0 || flows == 1 {
            1
        } else {
            flows - 1
        };
        ((drawn as u32 >> 1) % flows, step)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_flow_takes_every_probe() {
        let rotation = Rotation::new(7, 1);
        for sequence in (0..100).chain([u32::MAX - 1, u32::MAX]) {
            assert_eq!(
                rotation.turn(sequence),
                Turn {
                    flow: 0,
                    nth: sequence
                }
            );
            assert_eq!(rotation.sequence(0, sequence), sequence);
        }
    }

    #[test]
    fn blocks_differ_in_their_order() {
        let rotation = Rotation::new(1, 4);
        let order = |block: u32| {
            (0..8)
                .map(|n| rotation.turn(8 * block + n).flow)
                .collect::<Vec<_>>()
        };
        let orders: std::collections::BTreeSet<_> = (0..200).map(order).collect();
        assert_eq!(
            orders.len(),
            8,
            "four beginnings, two directions: {orders:?}"
        );
        assert_ne!(
            (0..50)
                .map(|n| Rotation::new(2, 4).turn(n).flow)
                .collect::<Vec<_>>(),
            (0..50).map(|n| rotation.turn(n).flow).collect::<Vec<_>>()
        );
    }

    proptest! {
        /// Every block visits every flow with one pair of consecutive probes, whose numbers within the flow follow each other.
        #[test]
        fn every_block_has_one_pair_of_every_flow(seed: u32, flows in 1u8..=8, block in 0u32..100_000_000) {
            let rotation = Rotation::new(seed, flows);
            let first = block * 2 * u32::from(flows);
            let mut seen = Vec::new();
            for pair in 0..u32::from(flows) {
                let (one, two) = (rotation.turn(first + 2 * pair), rotation.turn(first + 2 * pair + 1));
                prop_assert_eq!(one, Turn { flow: two.flow, nth: 2 * block });
                prop_assert_eq!(two.nth, 2 * block + 1);
                seen.push(one.flow);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..flows).collect::<Vec<_>>());
        }

        #[test]
        fn no_stretch_holds_more_of_a_flow_than_its_depth(
            seed: u32, flows in 1u8..=8, from in 0u32..1_000, length in 1u32..200,
        ) {
            let rotation = Rotation::new(seed, flows);
            let mut seen = [0; MAX];
            for sequence in from..from + length {
                seen[usize::from(rotation.turn(sequence).flow)] += 1;
            }
            prop_assert!(seen.iter().all(|&count| count <= rotation.depth(length)), "{seen:?}");
        }

        #[test]
        fn a_turn_leads_back_to_its_probe(seed: u32, flows in 1u8..=8, sequence: u32) {
            let rotation = Rotation::new(seed, flows);
            let Turn { flow, nth } = rotation.turn(sequence);
            prop_assert!(flow < flows);
            prop_assert_eq!(rotation.sequence(flow, nth), sequence);
        }
    }
}
