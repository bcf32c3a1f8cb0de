//! What a stateful reflector remembers: for each session of each peer how many requests have come. Pure.
//!
//! A session is a peer's address and port and the session id of its requests (RFC 8972 section 3). Memory is bounded twice:
//! so many peers, so many sessions of each. What is full is not made room in by forgetting those that are in use: a
//! flood of invented sessions, or of invented addresses, takes nothing from those that were there before.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use crate::limiter::Limiter;

/// Peers remembered: twice as many as a mesh has targets.
pub const PEERS_MAX: usize = 16_384;
/// Sessions of one peer: an agent has one for each flow to each of our addresses, and new ones at each start.
pub const SESSIONS_PER_PEER_MAX: usize = 256;
/// Requests per second of one peer: what a mesh of the shortest interval sends to eight addresses, and some more.
pub const PEER_RATE_MAX: u32 = 1_000;
/// What was silent for this long may be forgotten where room is needed.
const IDLE_NS: u64 = 60_000_000_000;

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// Shorter than a request, or longer than any that is answered.
    Malformed,
    /// Its HMAC is not that of the mesh's key.
    Unproven,
    /// It is a reply, or comes from a reflector's port: two reflectors would answer each other for ever.
    Reply,
    /// From an address that is no peer.
    Stranger,
    /// More than one peer, or all together, may ask for.
    RateLimited,
    /// There is no room for another session.
    Full,
    /// The kernel did not take the reply.
    NotSent,
    /// A heavy test: this host takes none, or has one already.
    Heavy,
}

/// What a request is counted against. Those that load a path take nothing from those that only look at it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Allowance {
    /// Of probes.
    Probes,
    /// Of trains.
    Trains,
    /// None: who takes heavy tests limits them otherwise.
    Unlimited,
}

impl Refused {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Malformed,
        Self::Unproven,
        Self::Reply,
        Self::Stranger,
        Self::RateLimited,
        Self::Full,
        Self::NotSent,
        Self::Heavy,
    ];

    /// The name used in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unproven => "unproven",
            Self::Reply => "reply",
            Self::Stranger => "stranger",
            Self::RateLimited => "rate_limited",
            Self::Full => "full",
            Self::NotSent => "not_sent",
            Self::Heavy => "heavy",
        }
    }
}

/// All sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    all: Limiter,
    all_trains: Limiter,
    peers: HashMap<IpAddr, Peer>,
    sessions: usize,
    /// When nobody could be forgotten: no use to look again at once.
    crowded_ns: u64,
}

#[derive(Debug)]
struct Peer {
    limiter: Limiter,
    trains: Limiter,
    seen_ns: u64,
    sessions: Vec<Session>,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    port: u16,
    ssid: u16,
    /// Requests so far, wrapping.
    count: u32,
    seen_ns: u64,
}

impl Sessions {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            all: Limiter::new(per_second),
            all_trains: Limiter::new(per_second),
            peers: HashMap::new(),
            sessions: 0,
            crowded_ns: 0,
        }
    }

    /// Sessions remembered.
    pub(super) const fn len(&self) -> usize {
        self.sessions
    }

    /// A peer's request came: its number within its session, from 0.
    pub(super) fn count(
        &mut self,
        now_ns: u64,
        from: SocketAddr,
        ssid: u16,
        allowance: Allowance,
    ) -> Result<u32, Refused> {
        if !self.peers.contains_key(&from.ip()) {
            self.make_room(now_ns)?;
        }
        let peer = self.peers.entry(from.ip()).or_insert_with(|| Peer {
            limiter: Limiter::new(PEER_RATE_MAX),
            trains: Limiter::new(PEER_RATE_MAX),
            seen_ns: now_ns,
            sessions: Vec::new(),
        });
        peer.seen_ns = now_ns;
        // One peer's excess is not taken from what all may ask for.
        let is_allowed = match allowance {
            Allowance::Probes => peer.limiter.take(now_ns) && self.all.take(now_ns),
            Allowance::Trains => peer.trains.take(now_ns) && self.all_trains.take(now_ns),
            Allowance::Unlimited => true,
        };
        if !is_allowed {
            return Err(Refused::RateLimited);
        }
        let before = peer.sessions.len();
        let number = peer.count(now_ns, from.port(), ssid);
        self.sessions += peer.sessions.len() - before;
        number
    }

    fn make_room(&mut self, now_ns: u64) -> Result<(), Refused> {
        if self.peers.len() < PEERS_MAX {
            return Ok(());
        }
        if now_ns.saturating_sub(self.crowded_ns) > IDLE_NS / 60 {
            self.crowded_ns = now_ns;
            self.peers
                .retain(|_, peer| now_ns.saturating_sub(peer.seen_ns) <= IDLE_NS);
            self.sessions = self.peers.values().map(|peer| peer.sessions.len()).sum();
        }
        match self.peers.len() < PEERS_MAX {
            true => Ok(()),
            false => Err(Refused::Full),
        }
    }
}

impl Peer {
    fn count(&mut self, now_ns: u64, port: u16, ssid: u16) -> Result<u32, Refused> {
        let known = self
            .sessions
            .iter_mut()
            .find(|session| (session.port, session.ssid) == (port, ssid));
        if let Some(session) = known {
            session.seen_ns = now_ns;
            session.count = session.count.wrapping_add(1);
            return Ok(session.count.wrapping_sub(1));
        }
        let new = Session {
            port,
            ssid,
            count: 1,
            seen_ns: now_ns,
        };
        if self.sessions.len() < SESSIONS_PER_PEER_MAX {
            self.sessions.push(new);
            return Ok(0);
        }
        let oldest = self
            .sessions
            .iter_mut()
            .min_by_key(|session| session.seen_ns);
        match oldest {
            Some(oldest) if now_ns.saturating_sub(oldest.seen_ns) > IDLE_NS => {
                *oldest = new;
                Ok(0)
            }
            _ => Err(Refused::Full),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn address(host: u32, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4((0x0a00_0000 + host).into()), port)
    }

    #[test]
    fn each_session_counts_for_itself() {
        let mut sessions = Sessions::new(1_000_000);
        let mut count =
            |host, port, ssid| sessions.count(SECOND, address(host, port), ssid, Allowance::Probes);
        assert_eq!(count(1, 1, 1), Ok(0));
        assert_eq!(count(1, 1, 1), Ok(1));
        for other in [(2, 1, 1), (1, 2, 1), (1, 1, 2)] {
            assert_eq!(count(other.0, other.1, other.2), Ok(0), "{other:?}");
        }
        assert_eq!(count(1, 1, 1), Ok(2));
        assert_eq!(sessions.len(), 4);
    }

    #[test]
    fn a_flood_of_sessions_takes_nothing_from_those_in_use() {
        let mut sessions = Sessions::new(1_000_000);
        let mut now = SECOND;
        assert_eq!(
            sessions.count(now, address(1, 1), 7, Allowance::Probes),
            Ok(0)
        );
        for ssid in 100..1_100 {
            now += SECOND / 1_000;
            let _ = sessions.count(now, address(1, 1), ssid, Allowance::Probes);
        }
        assert_eq!(sessions.len(), SESSIONS_PER_PEER_MAX);
        now += SECOND;
        assert_eq!(
            sessions.count(now, address(1, 1), 2_000, Allowance::Probes),
            Err(Refused::Full)
        );
        assert_eq!(
            sessions.count(now, address(1, 1), 7, Allowance::Probes),
            Ok(1)
        );
        // Those that nobody uses any more make room.
        now += IDLE_NS;
        assert_eq!(
            sessions.count(now, address(1, 1), 7, Allowance::Probes),
            Ok(2)
        );
        assert_eq!(
            sessions.count(now + SECOND, address(1, 1), 2_000, Allowance::Probes),
            Ok(0)
        );
        assert_eq!(
            sessions.count(now + SECOND, address(1, 1), 7, Allowance::Probes),
            Ok(3)
        );
    }

    #[test]
    fn a_flood_of_addresses_takes_nothing_from_those_in_use() {
        let mut sessions = Sessions::new(1_000_000);
        let now = SECOND;
        for host in 0..PEERS_MAX as u32 {
            assert!(
                sessions
                    .count(
                        now + u64::from(host) * 10_000,
                        address(host, 1),
                        1,
                        Allowance::Probes
                    )
                    .is_ok()
            );
        }
        let mut now = now + SECOND;
        assert_eq!(
            sessions.count(now, address(99_999, 1), 1, Allowance::Probes),
            Err(Refused::Full)
        );
        assert_eq!(
            sessions.count(now, address(5, 1), 1, Allowance::Probes),
            Ok(1)
        );
        now += IDLE_NS;
        assert_eq!(
            sessions.count(now, address(99_999, 1), 1, Allowance::Probes),
            Ok(0)
        );
        assert_eq!(
            sessions.count(now, address(5, 1), 1, Allowance::Probes),
            Ok(2)
        );
        assert_eq!(sessions.len(), 2);
    }

    #[test]
    fn a_peer_that_asks_too_often_leaves_the_others_theirs() {
        let mut sessions = Sessions::new(2_000);
        let mut refused = 0;
        for n in 0..20_000u64 {
            let now = SECOND + n * 100_000;
            refused += u64::from(
                sessions
                    .count(now, address(1, 1), 1, Allowance::Probes)
                    .is_err(),
            );
            if n % 100 == 0 {
                assert!(
                    sessions
                        .count(now, address(2, 1), 1, Allowance::Probes)
                        .is_ok()
                );
            }
        }
        // 10,000 per second for two seconds, of which 1,000 per second are allowed and a quarter may be saved up.
        assert!((17_000..18_500).contains(&refused), "{refused}");
    }

    #[test]
    fn trains_take_nothing_from_probes() {
        let mut sessions = Sessions::new(2_000);
        let mut trains = 0;
        for n in 0..2_000u64 {
            let now = SECOND + n * 1_000;
            trains += u32::from(
                sessions
                    .count(now, address(1, 2), 9, Allowance::Trains)
                    .is_ok(),
            );
        }
        assert!((240..260).contains(&trains), "{trains}");
        assert!(
            sessions
                .count(SECOND + 2_000_000, address(1, 1), 1, Allowance::Probes)
                .is_ok()
        );
    }

    proptest! {
        /// Whoever asks, however often: never more per second than allowed, and never more memory than there is room for.
        #[test]
        fn bounds_hold(
            per_second in 1u32..2_000,
            requests in prop::collection::vec((0u64..2_000_000, 0u32..20, 0u16..200, any::<u16>()), 0..2_000),
        ) {
            let mut sessions = Sessions::new(per_second);
            let (start, mut now, mut answered) = (SECOND, SECOND, 0u64);
            for (gap, host, port, ssid) in requests {
                now += gap;
                answered += u64::from(sessions.count(now, address(host, port), ssid, Allowance::Probes).is_ok());
                prop_assert!(sessions.peers.values().all(|peer| peer.sessions.len() <= SESSIONS_PER_PEER_MAX));
            }
            prop_assert_eq!(sessions.len(), sessions.peers.values().map(|peer| peer.sessions.len()).sum::<usize>());
            let share = ((now - start) as f64 / 1e9 + 0.25) * f64::from(per_second);
            prop_assert!(answered as f64 <= share + 1.0, "{} of {}", answered, share);
        }
    }
}
