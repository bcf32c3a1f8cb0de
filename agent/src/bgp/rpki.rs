//! Who may announce what: validated payloads of Route Origin Authorizations, and origin validation (RFC 6811).
//!
//! The whole Internet has some 700,000 payloads. They lie in sorted arrays, 12 bytes for one of IPv4 and 24 for one of IPv6, so
//! that a full set takes some 10 MB; a trie takes four times as much, and what is looked up (the routes to a handful of watched
//! prefixes) asks for no more speed than one binary search for each length that occurs.
//!
//! A set is whole or it is none: [`Change`] gathers what a cache sends, and only its End of Data makes the next set of it.

use ipnet::IpNet;
use leeward_common::bgp::{ALLOWED_MAX, Allowed, Prefix, Validity};

/// The most payloads that are kept. A cache that has more is not used: half a set would make valid routes invalid.
pub const PAYLOADS_MAX: usize = 2_000_000;

/// The most systems that a covering prefix is looked through for, so that a hostile cache costs no time.
const EACH_MAX: usize = 1_024;

/// An address as its leading bits, left-aligned.
trait Bits: Copy + Ord {
    const WIDTH: u8;

    /// The same with nothing beyond this length.
    fn cut(self, length: u8) -> Self;
}

impl Bits for u32 {
    const WIDTH: u8 = 32;

    fn cut(self, length: u8) -> Self {
        let beyond = Self::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        self & !beyond
    }
}

impl Bits for u128 {
    const WIDTH: u8 = 128;

    fn cut(self, length: u8) -> Self {
        let beyond = Self::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        self & !beyond
    }
}

/// A payload. Sorted by prefix, so that those of one prefix lie together.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Payload<A> {
    address: A,
    length: u8,
    length_max: u8,
    system: u32,
}

/// 128 bits that are aligned as four bytes are: without this a payload of IPv6 would take 32 bytes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Six([u8; 16]);

impl Bits for Six {
    const WIDTH: u8 = 128;

    fn cut(self, length: u8) -> Self {
        Self(u128::from_be_bytes(self.0).cut(length).to_be_bytes())
    }
}

/// The payloads of one family.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Family<A> {
    payloads: Vec<Payload<A>>,
    /// Which lengths occur.
    lengths: [bool; 129],
}

impl<A> Default for Family<A> {
    fn default() -> Self {
        Self {
            payloads: Vec::new(),
            lengths: [false; 129],
        }
    }
}

impl<A: Bits> Family<A> {
    /// What is authorized for prefixes that cover this one, or are it.
    fn covering(&self, address: A, length: u8) -> impl Iterator<Item = &Payload<A>> {
        let lengths =
            (0..=length.min(A::WIDTH)).filter(|length| self.lengths[usize::from(*length)]);
        lengths.flat_map(move |length| {
            let wanted = (address.cut(length), length);
            let of = |own: &Payload<A>| (own.address, own.length);
            let first = self.payloads.partition_point(|own| of(own) < wanted);
            let rest = self.payloads[first..].iter();
            rest.take_while(move |own| of(own) == wanted).take(EACH_MAX)
        })
    }

    /// The set without what is withdrawn and with what is announced.
    fn change(&self, mut withdrawn: Vec<Payload<A>>, mut announced: Vec<Payload<A>>) -> Self {
        withdrawn.sort_unstable();
        announced.sort_unstable();
        let kept = self
            .payloads
            .iter()
            .filter(|own| withdrawn.binary_search(own).is_err());
        let mut payloads = Vec::with_capacity(self.payloads.len() + announced.len());
        let mut announced = announced.into_iter().peekable();
        for own in kept {
            while let Some(new) = announced.next_if(|new| new < own) {
                payloads.push(new);
            }
            payloads.push(*own);
        }
        payloads.extend(announced);
        payloads.dedup();
        payloads.shrink_to_fit();
        let mut lengths = [false; 129];
        for own in &payloads {
            lengths[usize::from(own.length)] = true;
        }
        Self { payloads, lengths }
    }
}

/// A whole set of payloads.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Roas {
    v4: Family<u32>,
    v6: Family<Six>,
}

impl Roas {
    /// How many payloads there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.payloads.len() + self.v6.payloads.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.v4.payloads) + size_of_val(&*self.v6.payloads)
    }

    /// Whether this origin may announce this prefix. `None` is an origin that a path does not tell, since it ends in a set: it
    /// may announce nothing that somebody is authorized for (RFC 6811, section 2).
    #[must_use]
    pub fn validate(&self, prefix: &IpNet, origin: Option<u32>) -> Validity {
        let mut validity = Validity::NotFound;
        self.each_covering(prefix, |covering| {
            // System 0 announces nothing (RFC 7607).
            let named = origin.is_some_and(|origin| origin != 0 && origin == covering.system);
            let found = match (named, prefix.prefix_len() <= covering.length_max) {
                (true, true) => Validity::Valid,
                (true, false) => Validity::InvalidLength,
                (false, _) => Validity::InvalidOrigin,
            };
            validity = match (validity, found) {
                (Validity::Valid, _) | (_, Validity::Valid) => Validity::Valid,
                (Validity::InvalidLength, _) | (_, Validity::InvalidLength) => {
                    Validity::InvalidLength
                }
                _ => Validity::InvalidOrigin,
            };
        });
        validity
    }

    /// What is authorized for prefixes that cover this one, the smallest first, as many as an event names.
    #[must_use]
    pub fn allowed(&self, prefix: &IpNet) -> Vec<Allowed> {
        let mut all = Vec::new();
        self.each_covering(prefix, |covering| all.push(covering));
        all.sort_unstable_by_key(|own| (std::cmp::Reverse(own.prefix.length()), *own));
        all.truncate(ALLOWED_MAX);
        all
    }

    fn each_covering(&self, prefix: &IpNet, mut see: impl FnMut(Allowed)) {
        let length = prefix.prefix_len();
        match prefix.network() {
            std::net::IpAddr::V4(address) => {
                for own in self.v4.covering(address.to_bits(), length) {
                    see(allowed(
                        std::net::Ipv4Addr::from_bits(own.address).into(),
                        own,
                    ));
                }
            }
            std::net::IpAddr::V6(address) => {
                for own in self.v6.covering(Six(address.octets()), length) {
                    see(allowed(std::net::Ipv6Addr::from(own.address.0).into(), own));
                }
            }
        }
    }
}

fn allowed<A>(address: std::net::IpAddr, own: &Payload<A>) -> Allowed {
    Allowed {
        prefix: Prefix::new(address, own.length)
            .expect("a payload is kept without bits beyond its length"),
        length_max: own.length_max,
        system: own.system,
    }
}

/// What happens to a payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// It is there.
    Announce,
    /// It is no longer there.
    Withdraw,
}

/// What a cache sends until its End of Data.
#[derive(Debug, Default)]
pub struct Change {
    v4: [Vec<Payload<u32>>; 2],
    v6: [Vec<Payload<Six>>; 2],
}

/// There are more payloads than are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the cache has more than {PAYLOADS_MAX} payloads, which is not believed")]
pub struct TooMany;

impl Change {
    /// One payload more.
    ///
    /// # Errors
    ///
    /// Returns that there are too many.
    pub fn push(
        &mut self,
        action: Action,
        prefix: &IpNet,
        length_max: u8,
        system: u32,
    ) -> Result<(), TooMany> {
        let place = action as usize;
        if self.v4[place].len() + self.v6[place].len() >= PAYLOADS_MAX {
            return Err(TooMany);
        }
        let length = prefix.prefix_len();
        match prefix.network() {
            std::net::IpAddr::V4(address) => self.v4[place].push(Payload {
                address: address.to_bits(),
                length,
                length_max,
                system,
            }),
            std::net::IpAddr::V6(address) => self.v6[place].push(Payload {
                address: Six(address.octets()),
                length,
                length_max,
                system,
            }),
        }
        Ok(())
    }

    /// The set that this makes of another one; of none, after the cache was asked for everything.
    ///
    /// # Errors
    ///
    /// Returns that there would be too many.
    pub fn apply(self, before: &Roas) -> Result<Roas, TooMany> {
        let ([announced4, withdrawn4], [announced6, withdrawn6]) = (self.v4, self.v6);
        let after = Roas {
            v4: before.v4.change(withdrawn4, announced4),
            v6: before.v6.change(withdrawn6, announced6),
        };
        match after.len() > PAYLOADS_MAX {
            true => Err(TooMany),
            false => Ok(after),
        }
    }
}

#[cfg(test)]
#[path = "rpki/tests.rs"]
mod tests;
