//! UPDATEs as full-table peers send them, made up from a seed: lengths of paths, attributes, prefixes per message and the share of
//! withdrawals and of IPv6 as collectors see them.

use std::{
    io::Write,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::samples::Random;

/// The system of the peer that sends them.
pub const PEER: u32 = 64_501;

/// Who is recorded, in recordings.
const RECORDED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The prefix of this number: most are /24, and some are IPv6 if that is wanted. No two are alike.
#[must_use]
pub fn prefix(at: u32, is_v6: bool) -> IpNet {
    match is_v6 {
        false => {
            let address = Ipv4Addr::from_bits(0x0100_0000 + (at << 8));
            IpNet::V4(Ipv4Net::new_assert(address, 24))
        }
        true => {
            let bits = (0x2a00u128 << 112) | (u128::from(at) << 80);
            IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), 48))
        }
    }
}

/// The AS path of this number: five hops on average, as in real tables.
#[must_use]
pub fn path(at: u32) -> Vec<u32> {
    let mixed = at.wrapping_mul(0x9e37_79b1);
    let mut path = vec![PEER, [1299, 3356, 174, 2914, 3257, 6453][at as usize % 6]];
    for hop in 0..mixed % 4 {
        path.push(6_000 + (mixed.rotate_left(8 * hop) % 4_000));
    }
    // All paths differ, at their ends.
    path.push(100_000 + at);
    if mixed.is_multiple_of(9) {
        path.push(100_000 + at);
    }
    path
}

/// Routes that one message tells.
#[derive(Clone, Debug, Default)]
pub struct Told<'a> {
    /// Prefixes announced, of one family.
    pub announced: &'a [IpNet],
    /// Their path.
    pub path: &'a [u32],
    /// Their communities.
    pub communities: &'a [u32],
    /// Prefixes withdrawn, of one family.
    pub withdrawn: &'a [IpNet],
}

/// A message with its header. Whoever asks keeps it within 4096 bytes.
#[must_use]
pub fn update(told: &Told<'_>) -> Vec<u8> {
    let mut attributes = Vec::new();
    let (mut withdrawn, mut announced) = (Vec::new(), Vec::new());
    if !told.announced.is_empty() {
        self::attributes(told, &mut attributes);
    }
    if let Some(IpNet::V6(_)) = told.withdrawn.first() {
        let mut unreach = vec![0, 2, 1];
        told.withdrawn
            .iter()
            .for_each(|prefix| push_prefix(&mut unreach, prefix));
        push_attribute(&mut attributes, 0x80, 15, &unreach);
    } else {
        told.withdrawn
            .iter()
            .for_each(|prefix| push_prefix(&mut withdrawn, prefix));
    }
    if let Some(IpNet::V4(_)) = told.announced.first() {
        told.announced
            .iter()
            .for_each(|prefix| push_prefix(&mut announced, prefix));
    }
    let mut body = Vec::new();
    body.extend((withdrawn.len() as u16).to_be_bytes());
    body.extend(withdrawn);
    body.extend((attributes.len() as u16).to_be_bytes());
    body.extend(attributes);
    body.extend(announced);
    message(2, &body)
}

/// A message of a type.
#[must_use]
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend((19 + body.len() as u16).to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

fn attributes(told: &Told<'_>, into: &mut Vec<u8>) {
    push_attribute(into, 0x40, 1, &[0]);
    let mut path = vec![2, told.path.len() as u8];
    told.path
        .iter()
        .for_each(|system| path.extend(system.to_be_bytes()));
    push_attribute(into, 0x40, 2, &path);
    if let Some(IpNet::V6(_)) = told.announced.first() {
        let mut reach = vec![0, 2, 1, 16];
        reach.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
        reach.push(0);
        told.announced
            .iter()
            .for_each(|prefix| push_prefix(&mut reach, prefix));
        push_attribute(into, 0x80, 14, &reach);
    } else {
        push_attribute(into, 0x40, 3, &RECORDED.octets());
    }
    if !told.communities.is_empty() {
        let all = told.communities.iter().flat_map(|own| own.to_be_bytes());
        push_attribute(into, 0xc0, 8, &all.collect::<Vec<_>>());
    }
}

fn push_attribute(into: &mut Vec<u8>, flags: u8, kind: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) => into.extend([flags, kind, length]),
        Err(_) => {
            into.extend([flags | 0x10, kind]);
            into.extend((value.len() as u16).to_be_bytes());
        }
    }
    into.extend(value);
}

fn push_prefix(into: &mut Vec<u8>, prefix: &IpNet) {
    let bytes = usize::from(prefix.prefix_len().div_ceil(8));
    into.push(prefix.prefix_len());
    match prefix {
        IpNet::V4(prefix) => into.extend(&prefix.network().octets()[..bytes]),
        IpNet::V6(prefix) => into.extend(&prefix.network().octets()[..bytes]),
    }
}

/// A day's churn in short: so many messages about prefixes of so many.
#[must_use]
pub fn churn(seed: u64, messages: usize, prefixes: u32) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    let mut below = move |limit: f64| (random.even() * limit) as u32;
    let mut all = Vec::with_capacity(messages);
    while all.len() < messages {
        let is_v6 = below(100.0) < 25;
        // A few prefixes make most of the noise.
        let limit = if below(10.0) < 7 {
            prefixes / 10
        } else {
            prefixes
        };
        let first = below(f64::from(limit));
        let count = 1 + below(4.0) * below(3.0) / 2;
        let named: Vec<_> = (0..count).map(|at| prefix(first + at, is_v6)).collect();
        let path = self::path(below(263_000.0));
        let communities: Vec<_> = (0..below(9.0)).map(|at| (1_299 << 16) + at * 77).collect();
        all.push(match below(100.0) < 12 {
            true => update(&Told {
                withdrawn: &named,
                ..Told::default()
            }),
            false => update(&Told {
                announced: &named,
                path: &path,
                communities: &communities,
                ..Told::default()
            }),
        });
    }
    all
}

/// A whole table: so many routes, a fifth of them IPv6, by so many paths. Prefixes of one path share messages, as routers pack them.
pub fn table(routes: u32, paths: u32, mut each: impl FnMut(Vec<u8>)) {
    let (v6, v4) = (routes / 5, routes - routes / 5);
    for (is_v6, routes) in [(false, v4), (true, v6)] {
        for at in 0..paths {
            let own: Vec<_> = (at..routes)
                .step_by(paths as usize)
                .map(|at| prefix(at, is_v6))
                .collect();
            if own.is_empty() {
                return;
            }
            for announced in own.chunks(200) {
                each(update(&Told {
                    announced,
                    path: &path(at),
                    communities: &[(1_299 << 16) + at % 500],
                    ..Told::default()
                }));
            }
        }
    }
}

/// Messages as an MRT recording (RFC 6396, `BGP4MP_MESSAGE_AS4`), a millisecond apart.
///
/// # Errors
///
/// Returns that it cannot be written.
pub fn record(messages: &[Vec<u8>], mut into: impl Write) -> std::io::Result<()> {
    for (at, message) in messages.iter().enumerate() {
        let seconds = 1_700_000_000 + (at / 1_000) as u32;
        into.write_all(&seconds.to_be_bytes())?;
        into.write_all(&[0, 16, 0, 4])?;
        into.write_all(&(20 + message.len() as u32).to_be_bytes())?;
        into.write_all(&PEER.to_be_bytes())?;
        into.write_all(&64_500u32.to_be_bytes())?;
        into.write_all(&[0, 0, 0, 1])?;
        into.write_all(&RECORDED.octets())?;
        into.write_all(&[192, 0, 2, 9])?;
        into.write_all(message)?;
    }
    Ok(())
}

/// A table as an MRT recording (`TABLE_DUMP_V2`) of one peer: so many routes of IPv4, by so many paths.
///
/// # Errors
///
/// Returns that it cannot be written.
pub fn dump(routes: u32, paths: u32, mut into: impl Write) -> std::io::Result<()> {
    let mut record = |subtype: u8, body: &[u8]| -> std::io::Result<()> {
        into.write_all(&1_700_000_000u32.to_be_bytes())?;
        into.write_all(&[0, 13, 0, subtype])?;
        into.write_all(&(body.len() as u32).to_be_bytes())?;
        into.write_all(body)
    };
    // The collector, no name, one peer with an AS number of four octets.
    let mut peers = vec![192, 0, 2, 9, 0, 0, 0, 1, 0x02];
    peers.extend(RECORDED.octets());
    peers.extend(RECORDED.octets());
    peers.extend(PEER.to_be_bytes());
    record(1, &peers)?;
    for at in 0..routes {
        let prefix = prefix(at, false);
        let path = path(at % paths);
        let mut attributes = Vec::new();
        self::attributes(
            &Told {
                announced: &[prefix],
                path: &path,
                communities: &[(1_299 << 16) + at % 500],
                ..Told::default()
            },
            &mut attributes,
        );
        let mut body = at.to_be_bytes().to_vec();
        push_prefix(&mut body, &prefix);
        body.extend([0, 1, 0, 0]);
        body.extend(1_700_000_000u32.to_be_bytes());
        body.extend((attributes.len() as u16).to_be_bytes());
        body.extend(attributes);
        record(2, &body)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use leeward_agent::bgp::{
        mrt::Recording,
        wire::{self, Dialect, Speaker},
    };

    use super::*;

    #[test]
    fn what_is_made_up_can_be_read() {
        let dialect = Dialect::usual(Speaker::External);
        let all = churn(1, 500, 10_000);
        for message in &all {
            let update = wire::update(message, &dialect).unwrap();
            assert_eq!(update.malformed, None);
            assert!(update.announced.len() + update.withdrawn.len() > 0);
        }
        let mut bytes = Vec::new();
        record(&all, &mut bytes).unwrap();
        assert_eq!(
            Recording::new(&bytes[..]).filter(Result::is_ok).count(),
            500
        );
    }

    #[test]
    fn a_table_has_as_many_routes_and_paths_as_was_asked() {
        let dialect = Dialect::usual(Speaker::External);
        let (mut prefixes, mut paths) = (
            std::collections::BTreeSet::new(),
            std::collections::BTreeSet::new(),
        );
        table(1_000, 90, |message| {
            let update = wire::update(&message, &dialect).unwrap();
            prefixes.extend(update.announced.iter().map(|nlri| nlri.prefix));
            paths.insert(update.attributes.path.to_string());
        });
        assert_eq!((prefixes.len(), paths.len()), (1_000, 90));
        let mut bytes = Vec::new();
        dump(50, 7, &mut bytes).unwrap();
        let entries = Recording::new(&bytes[..]).map(Result::unwrap);
        assert_eq!(entries.map(|record| record.events.len()).sum::<usize>(), 50);
    }
}
