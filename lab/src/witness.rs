//! What somebody in the middle sees of probes: the account that an agent's own is compared with. [pure]
//!
//! The router tells of every packet when it took it from a host and when it handed it over. A reply carries what its
//! request is known by, so every probe is followed from its agent to the target and back: whether the request or the
//! reply was lost, how long both were under way, and what arrived out of order. The time that a target takes to
//! answer is in none of this, nor is that of the hosts' own stacks.
//!
//! Probes are recognised as a packet capture would, by the bytes that RFC 792, RFC 4443, RFC 9293 and RFC 8762 define; of
//! the agent's own additions only the eight bytes by which it numbers its echo requests are looked at.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use hdrhistogram::Histogram;
use leeward_common::report::ProbeKind;

/// The port of reflectors (RFC 8762 section 4.1).
const STAMP_PORT: u16 = 862;

/// Lengths of STAMP packets without and with authentication (RFC 8762 sections 4.2 and 4.3).
const STAMP_OPEN: usize = 44;
const STAMP_SEALED: usize = 112;

/// Probes of which the end is awaited; of more, the account would be incomplete, and says so.
const FLIGHTS_MAX: usize = 1 << 20;

/// Transit beyond this is recorded as this: a minute, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// Who asks whom, and how.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Asked {
    /// The prober's address.
    pub from: IpAddr,
    /// The target's address.
    pub to: IpAddr,
    /// The kind of probe.
    pub kind: ProbeKind,
}

/// A packet of a probe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Sighting {
    asked: Asked,
    is_reply: bool,
    /// What routers hash beside the addresses: a port, or an identifier.
    flow: u16,
    /// What the probe is known by within its flow.
    id: u64,
    /// The place among those that were sent this way, as its sender counts: a reflector counts anew.
    order: u64,
}

/// What was seen of the probes of one path.
#[derive(Clone, Debug)]
pub struct Account {
    /// Requests that left the prober's host.
    pub sent: u64,
    /// Probes of which a reply came back to the prober's host.
    pub answered: u64,
    /// Replies beyond the first.
    pub repeated: u64,
    /// Probes whose request a link lost.
    pub lost_forward: u64,
    /// Probes whose request arrived, and of whose replies a link lost all.
    pub lost_backward: u64,
    /// Probes whose request arrived at a host that sent no reply.
    pub not_answered: u64,
    /// Probes still under way when the account ended.
    pub open: u64,
    /// Requests that arrived after one that was sent later (RFC 4737 section 3), and replies likewise.
    pub reordered: [u64; 2],
    /// Of answered probes, how long the request and the first reply were under way together, nanoseconds.
    pub transit: Histogram<u64>,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            sent: 0,
            answered: 0,
            repeated: 0,
            lost_forward: 0,
            lost_backward: 0,
            not_answered: 0,
            open: 0,
            reordered: [0; 2],
            transit: Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds in order"),
        }
    }
}

/// A probe whose reply has not been handed over.
#[derive(Clone, Copy, Debug)]
struct Flight {
    taken: Instant,
    request: Fate,
    reply: Fate,
    /// When the reply that counts was taken from the target's host.
    reply_taken: Option<Instant>,
}

/// What became of a request, or of the replies to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    NotSent,
    UnderWay,
    Lost,
    Arrived(Instant),
}

/// Follows probes.
#[derive(Debug, Default)]
pub struct Witness {
    accounts: BTreeMap<Asked, Account>,
    flights: BTreeMap<(Asked, u16, u64), Flight>,
    /// By path, flow and direction the sequence number expected next.
    expected: BTreeMap<(Asked, u16, bool), u64>,
    /// Probes that there was no room to follow.
    pub not_followed: u64,
}

impl Witness {
    /// A host sent a packet; a link took it or lost it.
    pub fn taken(&mut self, packet: &[u8], at: Instant, lost: bool) {
        let Some(seen) = sight(packet) else { return };
        let fate = if lost { Fate::Lost } else { Fate::UnderWay };
        let key = (seen.asked, seen.flow, seen.id);
        if seen.is_reply {
            // Of several replies the first that is not lost is what counts.
            if let Some(flight) = self.flights.get_mut(&key)
                && flight.reply != Fate::UnderWay
            {
                flight.reply = fate;
                flight.reply_taken = Some(at);
            }
            return;
        }
        if self.flights.len() == FLIGHTS_MAX {
            self.not_followed += 1;
            return;
        }
        self.accounts.entry(seen.asked).or_default().sent += 1;
        let flight = Flight {
            taken: at,
            request: fate,
            reply: Fate::NotSent,
            reply_taken: None,
        };
        self.flights.insert(key, flight);
    }

    /// A packet was handed over to the host that it was for.
    pub fn delivered(&mut self, packet: &[u8], at: Instant) {
        let Some(seen) = sight(packet) else { return };
        let key = (seen.asked, seen.flow, seen.id);
        let Some(flight) = self.flights.get_mut(&key) else {
            if seen.is_reply
                && let Some(account) = self.accounts.get_mut(&seen.asked)
            {
                account.repeated += 1;
            }
            return;
        };
        let account = self.accounts.entry(seen.asked).or_default();
        if seen.is_reply {
            if let (Fate::Arrived(arrived), Some(reply_taken)) =
                (flight.request, flight.reply_taken)
            {
                let under_way = (arrived - flight.taken) + (at - reply_taken);
                let nanos = u64::try_from(under_way.as_nanos()).unwrap_or(u64::MAX);
                account.transit.saturating_record(nanos);
            }
            account.answered += 1;
            self.flights.remove(&key);
        } else if let Fate::Arrived(_) = flight.request {
            // A copy of what has arrived.
            return;
        } else {
            flight.request = Fate::Arrived(at);
        }
        let expected = self
            .expected
            .entry((seen.asked, seen.flow, seen.is_reply))
            .or_default();
        if seen.order < *expected {
            account.reordered[usize::from(seen.is_reply)] += 1;
        } else {
            *expected = seen.order + 1;
        }
    }

    /// The accounts, with what is known of the probes that were never answered.
    #[must_use]
    pub fn finish(mut self) -> BTreeMap<Asked, Account> {
        for ((asked, ..), flight) in self.flights {
            let account = self.accounts.entry(asked).or_default();
            let count = match (flight.request, flight.reply) {
                (Fate::Lost, _) => &mut account.lost_forward,
                (Fate::Arrived(_), Fate::Lost) => &mut account.lost_backward,
                (Fate::Arrived(_), Fate::NotSent) => &mut account.not_answered,
                _ => &mut account.open,
            };
            *count += 1;
        }
        self.accounts
    }
}

/// What probe a packet belongs to; `None` if to none.
fn sight(packet: &[u8]) -> Option<Sighting> {
    let (from, to, protocol, body): (IpAddr, IpAddr, u8, &[u8]) = match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            let from = Ipv4Addr::from(array::<4>(packet, 12)?);
            let to = Ipv4Addr::from(array::<4>(packet, 16)?);
            (
                from.into(),
                to.into(),
                *packet.get(9)?,
                packet.get(header..)?,
            )
        }
        6 => {
            let from = Ipv6Addr::from(array::<16>(packet, 8)?);
            let to = Ipv6Addr::from(array::<16>(packet, 24)?);
            (from.into(), to.into(), *packet.get(6)?, packet.get(40..)?)
        }
        _ => return None,
    };
    let (kind, is_reply, flow, id, order) = match protocol {
        1 | 58 => echo(body)?,
        6 => syn(body)?,
        17 => stamp(body)?,
        _ => return None,
    };
    let (from, to) = if is_reply { (to, from) } else { (from, to) };
    Some(Sighting {
        asked: Asked { from, to, kind },
        is_reply,
        flow,
        id,
        order,
    })
}

type Seen = (ProbeKind, bool, u16, u64, u64);

fn echo(body: &[u8]) -> Option<Seen> {
    let is_reply = match body.first()? {
        8 | 128 => false,
        0 | 129 => true,
        _ => return None,
    };
    let id = u64::from_be_bytes(array(body, 8)?);
    Some((ProbeKind::Icmp, is_reply, number(body, 4)?, id, id))
}

fn syn(body: &[u8]) -> Option<Seen> {
    const SYN: u8 = 0x02;
    const RST_ACK: u8 = 0x14;
    const SYN_ACK: u8 = 0x12;
    let flags = body.get(13)? & 0x17;
    let at = |at| Some(u32::from_be_bytes(array(body, at)?));
    match flags {
        SYN => {
            let id = at(4)?.into();
            Some((ProbeKind::TcpSyn, false, number(body, 0)?, id, id))
        }
        SYN_ACK | RST_ACK => {
            let id = at(8)?.wrapping_sub(1).into();
            Some((ProbeKind::TcpSyn, true, number(body, 2)?, id, id))
        }
        _ => None,
    }
}

fn stamp(body: &[u8]) -> Option<Seen> {
    let packet = body.get(8..)?;
    let (from, to) = (number(body, 0)?, number(body, 2)?);
    let (is_reply, flow, at) = match packet.len() {
        _ if to == STAMP_PORT => (false, from, 0),
        STAMP_OPEN..STAMP_SEALED if from == STAMP_PORT => (true, to, 24),
        STAMP_SEALED.. if from == STAMP_PORT => (true, to, 48),
        _ => return None,
    };
    let number_at = |at| array(packet, at).map(u32::from_be_bytes);
    let (id, order) = (number_at(at)?, number_at(0)?);
    Some((ProbeKind::Stamp, is_reply, flow, id.into(), order.into()))
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A STAMP request, or the reply to it.
    fn packet(sequence: u32, is_reply: bool) -> Vec<u8> {
        let mut bytes = vec![0; 20 + 8 + STAMP_OPEN];
        bytes[0] = 0x45;
        bytes[9] = 17;
        let (a, b) = ([10, 1, 0, 1], [10, 2, 0, 1]);
        let ports = [40_000_u16, STAMP_PORT].map(u16::to_be_bytes);
        let (from, to, ports) = match is_reply {
            false => (a, b, ports),
            true => (b, a, [ports[1], ports[0]]),
        };
        bytes[12..16].copy_from_slice(&from);
        bytes[16..20].copy_from_slice(&to);
        bytes[20..24].copy_from_slice(&ports.concat());
        let at = 28 + if is_reply { 24 } else { 0 };
        bytes[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
        bytes
    }

    fn the_only(witness: Witness) -> Account {
        let accounts: Vec<Account> = witness.finish().into_values().collect();
        let [account] = accounts.try_into().expect("one path");
        account
    }

    #[test]
    fn every_probe_ends_in_one_place() {
        let (mut witness, start) = (Witness::default(), Instant::now());
        let at = |ms: u32| start + MS * ms;
        // 0 is answered, 1 is lost on its way, the reply to 2 is lost, 3 is never answered, 4 is under way.
        for sequence in 0..5 {
            witness.taken(&packet(sequence, false), at(0), sequence == 1);
        }
        for sequence in [0, 2, 3] {
            witness.delivered(&packet(sequence, false), at(10));
        }
        witness.taken(&packet(0, true), at(15), false);
        witness.taken(&packet(2, true), at(15), true);
        witness.delivered(&packet(0, true), at(35));
        let account = the_only(witness);
        let [sent, answered] = [account.sent, account.answered];
        let ends = [
            account.lost_forward,
            account.lost_backward,
            account.not_answered,
            account.open,
        ];
        assert_eq!((sent, answered, ends), (5, 1, [1; 4]));
        // The target's own five milliseconds are left out.
        assert_eq!(account.transit.max() / 100_000, 300);
    }

    #[test]
    fn copies_count_once_and_what_arrives_late_is_out_of_order() {
        let (mut witness, now) = (Witness::default(), Instant::now());
        for sequence in 0..3 {
            witness.taken(&packet(sequence, false), now, false);
        }
        for sequence in [0, 0, 2, 1, 2] {
            witness.delivered(&packet(sequence, false), now);
        }
        for sequence in [0, 0] {
            witness.taken(&packet(sequence, true), now, false);
        }
        for sequence in [0, 0] {
            witness.delivered(&packet(sequence, true), now);
        }
        let account = the_only(witness);
        assert_eq!((account.answered, account.repeated), (1, 1));
        assert_eq!(account.reordered, [1, 0]);
    }

    #[test]
    fn one_lost_copy_of_a_reply_loses_nothing() {
        let (mut witness, now) = (Witness::default(), Instant::now());
        witness.taken(&packet(7, false), now, false);
        witness.delivered(&packet(7, false), now);
        witness.taken(&packet(7, true), now, false);
        witness.taken(&packet(7, true), now, true);
        witness.delivered(&packet(7, true), now);
        let account = the_only(witness);
        assert_eq!((account.answered, account.lost_backward), (1, 0));
    }

    #[test]
    fn other_packets_and_cut_ones_are_no_probes() {
        let whole = packet(1, true);
        for length in 0..whole.len() - STAMP_OPEN + 28 {
            assert_eq!(sight(&whole[..length]), None, "{length} bytes");
        }
        let mut odd = whole;
        odd[9] = 2;
        assert_eq!(sight(&odd), None);
    }
}
