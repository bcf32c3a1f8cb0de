//! Signs that a route was passed on to whom it should not have been (RFC 7908).
//!
//! Routes go up from customers to providers, sideways once at most between peers, and then down to customers. A system without
//! a provider (transit-free, "tier 1") is the top: what goes down from one and up to another was leaked by somebody between
//! the two. And what somebody marked for customers only (RFC 9234) must not come up from a customer, nor sideways from a
//! peer who did not mark it itself. Both need to be told something: who is at the top, and what our neighbours are to us.
//! Without that there is no sign, and a sign is no proof: relations are more various than these rules.

use std::{collections::BTreeSet, net::IpAddr};

use leeward_common::bgp::LeakSign;

use super::update::{AsPath, Attributes, Hop};
use crate::admission::Network;

/// What is known of other systems.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Relations {
    /// Systems that have no provider.
    pub transit_free: BTreeSet<u32>,
    /// Neighbours that are our customers, or clients of our route server.
    pub customers: Vec<Network>,
    /// Neighbours that we exchange our customers' routes with.
    pub peers: Vec<Network>,
}

impl Relations {
    /// Why a route looks leaked that this neighbour announced, if it does. The neighbour's system is 0 if it is not known.
    #[must_use]
    pub fn sign(
        &self,
        neighbour: IpAddr,
        system: u32,
        attributes: &Attributes,
    ) -> Option<LeakSign> {
        let marked = attributes.only_to_customer;
        let breach = marked.and_then(|marked_by| {
            let heard_by = self
                .passed_up_to_us(neighbour, system, marked_by)
                .or_else(|| self.passed_up(&attributes.path, marked_by))?;
            Some(LeakSign::OnlyToCustomer {
                marked_by,
                heard_by,
            })
        });
        breach.or_else(|| self.valley(&attributes.path))
    }

    /// The neighbour that should not have announced to us what is marked (RFC 9234, section 5).
    fn passed_up_to_us(&self, neighbour: IpAddr, system: u32, marked_by: u32) -> Option<u32> {
        let is_in = |networks: &[Network]| networks.iter().any(|own| own.contains(neighbour));
        let by_peer = is_in(&self.peers) && system != 0 && system != marked_by;
        (is_in(&self.customers) || by_peer).then_some(system)
    }

    /// The system at the top that took what was marked from others than who marked it: from a customer, or sideways.
    fn passed_up(&self, path: &AsPath, marked_by: u32) -> Option<u32> {
        let hops = distinct(path);
        let marker = hops.iter().position(|hop| *hop == Some(marked_by))?;
        // A peer of the marker's hears the mark from itself.
        let beyond = hops.get(..marker.saturating_sub(1))?;
        let mut top = beyond.iter().flatten();
        top.find(|system| self.transit_free.contains(system))
            .copied()
    }

    /// Two systems at the top with others between.
    fn valley(&self, path: &AsPath) -> Option<LeakSign> {
        let (mut upper, mut through) = (None, None);
        for hop in distinct(path) {
            match (hop, upper, through) {
                // Who is in a set is not known to be between.
                (None, ..) => (upper, through) = (None, None),
                (Some(system), Some(upper), Some(through))
                    if self.transit_free.contains(&system) =>
                {
                    return (system != upper).then_some(LeakSign::Valley {
                        upper,
                        through,
                        lower: system,
                    });
                }
                (Some(system), ..) if self.transit_free.contains(&system) => {
                    (upper, through) = (Some(system), None);
                }
                // Nearest to the lower one is who passed it on.
                (Some(system), Some(_), _) => through = Some(system),
                (Some(_), None, _) => {}
            }
        }
        None
    }
}

/// The systems of a path, each as often as it is not repeated at once; a set is `None`.
fn distinct(path: &AsPath) -> Vec<Option<u32>> {
    let mut hops: Vec<_> = path
        .hops()
        .iter()
        .map(|hop| match hop {
            Hop::As(system) => Some(*system),
            Hop::Set(_) => None,
        })
        .collect();
    hops.dedup();
    hops
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOP: [u32; 3] = [174, 701, 3356];

    fn relations() -> Relations {
        Relations {
            transit_free: TOP.into(),
            customers: vec!["10.0.0.0/24".parse().unwrap()],
            peers: vec!["10.0.1.1".parse().unwrap()],
        }
    }

    fn sign(neighbour: [u8; 4], path: &[u32], marked: Option<u32>) -> Option<LeakSign> {
        let attributes = Attributes {
            path: AsPath::sequence(path),
            only_to_customer: marked,
            ..Attributes::default()
        };
        relations().sign(neighbour.into(), path[0], &attributes)
    }

    const ELSEWHERE: [u8; 4] = [10, 9, 9, 9];

    #[test]
    fn between_two_systems_at_the_top_nobody_else_may_be() {
        let valley = |upper, through, lower| {
            Some(LeakSign::Valley {
                upper,
                through,
                lower,
            })
        };
        for (path, expected) in [
            (&[64_501, 3356, 174, 64_500][..], None),
            (&[64_501, 3356, 3356, 64_500], None),
            (&[64_501, 3356, 64_502, 64_500], None),
            (&[64_501, 64_502, 64_500], None),
            (&[3356, 64_502, 174, 64_500], valley(3356, 64_502, 174)),
            (&[1, 3356, 2, 2, 174, 174, 5], valley(3356, 2, 174)),
            (&[3356, 2, 4, 701, 5], valley(3356, 4, 701)),
            (&[3356, 174, 2, 701, 5], valley(174, 2, 701)),
            // A loop of the same system is no valley between two.
            (&[3356, 2, 3356, 5], None),
        ] {
            assert_eq!(sign(ELSEWHERE, path, None), expected, "{path:?}");
        }
    }

    #[test]
    fn a_set_between_two_is_not_known_to_be_somebody_else() {
        let attributes = Attributes {
            path: AsPath::new(vec![Hop::As(3356), Hop::set([7, 8]), Hop::As(174)]),
            ..Attributes::default()
        };
        assert_eq!(relations().sign(ELSEWHERE.into(), 3356, &attributes), None);
    }

    #[test]
    fn what_is_marked_for_customers_must_not_come_up() {
        let breach = |marked_by, heard_by| {
            Some(LeakSign::OnlyToCustomer {
                marked_by,
                heard_by,
            })
        };
        let (customer, peer) = ([10, 0, 0, 7], [10, 0, 1, 1]);
        for (neighbour, path, marked, expected) in [
            (customer, &[64_501, 64_500][..], None, None),
            (
                customer,
                &[64_501, 64_500],
                Some(64_500),
                breach(64_500, 64_501),
            ),
            (
                customer,
                &[64_501, 64_500],
                Some(64_501),
                breach(64_501, 64_501),
            ),
            (peer, &[64_501, 64_500], Some(64_501), None),
            (
                peer,
                &[64_501, 64_500],
                Some(64_500),
                breach(64_500, 64_501),
            ),
            (ELSEWHERE, &[64_501, 64_500], Some(64_500), None),
            // At the top a peer's mark is as it should be, another's is not.
            (ELSEWHERE, &[3356, 64_500], Some(64_500), None),
            (
                ELSEWHERE,
                &[3356, 9, 64_500],
                Some(64_500),
                breach(64_500, 3356),
            ),
            (ELSEWHERE, &[8, 3356, 9, 9, 64_500], Some(9), None),
            (ELSEWHERE, &[3356, 9, 64_500], Some(7), None),
        ] {
            assert_eq!(
                sign(neighbour, path, marked),
                expected,
                "{path:?} {marked:?}"
            );
        }
    }

    proptest! {
        /// Who is told nothing sees no sign, whatever the route.
        #[test]
        fn without_relations_there_is_no_sign(
            path in prop::collection::vec(0u32..9, 1..12), marked in any::<Option<u32>>(), neighbour in any::<[u8; 4]>()
        ) {
            let attributes = Attributes {
                path: AsPath::sequence(&path),
                only_to_customer: marked,
                ..Attributes::default()
            };
            prop_assert_eq!(Relations::default().sign(neighbour.into(), path[0], &attributes), None);
        }

        /// Routes that go up, sideways once at the top, and down again show no valley.
        #[test]
        fn a_route_as_it_should_be_shows_no_sign(
            up in prop::collection::vec(1_000u32..2_000, 1..5), down in prop::collection::vec(1_000u32..2_000, 0..5),
            top in prop::sample::subsequence(TOP.to_vec(), 1..=2)
        ) {
            let path = [down, top, up].concat();
            prop_assert_eq!(sign(ELSEWHERE, &path, None), None);
        }
    }
}
