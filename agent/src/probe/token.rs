//! How an answer proves that it answers *this* probe.
//!
//! A reply is believed only if it carries what nobody can compute without the process's secret: a keyed 64-bit hash
//! over the probe's place (slot), number (sequence) and send time. The secret is drawn anew at each start of the
//! process, so answers to an earlier start are recognised as strangers. Sixteen-bit identifiers, which other
//! tools rely on, run out at 65,536 probes under way and can be guessed.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::flow::{self, Rotation};

/// Session ids but 0: four times as many as a plan has paths.
const SSIDS: u64 = 65_535;
/// The bits of an ICMP identifier that tell the flow.
pub const IDENT_FLOW: u16 = flow::MAX as u16 - 1;
const STAMP_SESSIONS: &[u8] = b"stamp sessions";

/// What a probe carries, and an echo brings back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    /// Which path of the prober.
    pub slot: u32,
    /// The how-manieth probe of the path, wrapping.
    pub sequence: u32,
    /// When it left by the sender's wall clock, nanoseconds.
    pub sent_ns: u64,
    /// The keyed hash over the other three.
    pub token: u64,
}

/// The secret that keys the tokens.
#[derive(Clone, Copy)]
pub struct TokenKey {
    keys: (u64, u64),
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey(…)")
    }
}

impl TokenKey {
    /// The key of a secret.
    #[must_use]
    pub fn new(secret: [u8; 16]) -> Self {
        let whole = u128::from_le_bytes(secret);
        Self {
            keys: (whole as u64, (whole >> 64) as u64),
        }
    }

    /// The token of a probe.
    #[must_use]
    pub fn token(&self, slot: u32, sequence: u32, sent_ns: u64) -> u64 {
        let mut bytes = [0u8; 16];
        bytes[..4].copy_from_slice(&slot.to_le_bytes());
        bytes[4..8].copy_from_slice(&sequence.to_le_bytes());
        bytes[8..].copy_from_slice(&sent_ns.to_le_bytes());
        self.hash(&bytes)
    }

    /// The whole identity of a probe.
    #[must_use]
    pub fn identity(&self, slot: u32, sequence: u32, sent_ns: u64) -> Identity {
        Identity {
            slot,
            sequence,
            sent_ns,
            token: self.token(slot, sequence, sent_ns),
        }
    }

    /// The ICMP identifier of the first flow; those of the others follow it and differ in the lowest three bits. It only spares
    /// us other programs' replies; the token is what is believed.
    #[must_use]
    pub fn ident(&self) -> u16 {
        self.hash(b"icmp identifier") as u16 & !IDENT_FLOW
    }

    /// The ICMP identifier of a flow.
    #[must_use]
    pub fn ident_of(&self, flow: u8) -> u16 {
        self.ident() | u16::from(flow) & IDENT_FLOW
    }

    /// The checksum that every echo request of a flow bears over IPv4: neither of the two that mean zero, and not to be
    /// guessed.
    #[must_use]
    pub fn echo_checksum(&self, flow: u8) -> u16 {
        (self.hash(&[b'c', flow]) % 0xfffe) as u16 + 1
    }

    /// The IPv6 flow label of a flow (RFC 6437): 20 bits, not 0.
    #[must_use]
    pub fn flow_label(&self, flow: u8) -> u32 {
        (self.hash(&[b'l', flow]) % 0xf_ffff) as u32 + 1
    }

    /// The order of the flows of a path.
    #[must_use]
    pub fn rotation(&self, slot: u32, flows: u8) -> Rotation {
        let seed = [b"rota".as_slice(), &slot.to_le_bytes()].concat();
        Rotation::new(self.hash(&seed) as u32, flows)
    }

    /// The STAMP session id of a path: unlike for every path of a process, never 0, and not to be guessed.
    #[must_use]
    pub fn ssid(&self, slot: u32) -> u16 {
        let shifted = u64::from(slot).wrapping_add(self.hash(STAMP_SESSIONS) >> 1);
        (shifted % SSIDS) as u16 + 1
    }

    /// The path of a session id; it may not exist.
    #[must_use]
    pub fn slot_of(&self, ssid: u16) -> Option<u32> {
        let shifted = u64::from(ssid).checked_sub(1)?;
        let shift = (self.hash(STAMP_SESSIONS) >> 1) % SSIDS;
        Some(((shifted + SSIDS - shift) % SSIDS) as u32)
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.keys.0, self.keys.1);
        hasher.write(bytes);
        hasher.finish()
    }
}

impl Identity {
    /// What the header of an echo request says as its sequence: the token's uppermost bits. Where a router quotes only
    /// the header, this is what cannot be guessed.
    #[must_use]
    pub const fn echo_sequence(&self) -> u16 {
        (self.token >> 48) as u16
    }

    /// The sequence number of a SYN: the token's upper half. The answer acknowledges it plus one.
    #[must_use]
    pub const fn syn_sequence(&self) -> u32 {
        (self.token >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_an_identity_and_the_secret_change_the_token() {
        let key = TokenKey::new([7; 16]);
        let token = key.token(1, 2, 3);
        let others = [
            key.token(0, 2, 3),
            key.token(1, 0, 3),
            key.token(1, 2, 0),
            TokenKey::new([8; 16]).token(1, 2, 3),
        ];
        assert!(!others.contains(&token));
    }

    #[test]
    fn flows_differ_in_what_routers_hash() {
        let key = TokenKey::new([7; 16]);
        let all =
            |of: &dyn Fn(u8) -> u32| (0..8).map(of).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(all(&|flow| key.ident_of(flow).into()).len(), 8);
        assert_eq!(all(&|flow| key.echo_checksum(flow).into()).len(), 8);
        let labels = all(&|flow| key.flow_label(flow));
        assert!(labels.len() == 8 && labels.iter().all(|&label| (1..1 << 20).contains(&label)));
        assert!((0..8).all(|flow| key.ident_of(flow) & !IDENT_FLOW == key.ident()));
    }

    #[test]
    fn every_path_has_a_session_id_of_its_own() {
        let key = TokenKey::new([7; 16]);
        let mut ids = std::collections::BTreeSet::new();
        for slot in 0..65_535 {
            let ssid = key.ssid(slot);
            assert!(ssid != 0 && ids.insert(ssid));
            assert_eq!(key.slot_of(ssid), Some(slot));
        }
        assert_eq!(key.slot_of(0), None);
        assert_ne!(key.ssid(0), TokenKey::new([8; 16]).ssid(0));
    }

    #[test]
    fn a_token_is_stable_between_builds() {
        let key = TokenKey::new(*b"0123456789abcdef");
        assert_eq!(key.token(1, 2, 3), GOLDEN_TOKEN);
    }

    const GOLDEN_TOKEN: u64 = 6_021_894_483_682_356_894;
}
