//! Which probe an answer answers: what it must know, and where it must come from.
//!
//! Whoever cannot compute a token gets a stray counted and nothing else. An echo brings the whole token back; a TCP answer
//! acknowledges half of it, at the address, port and source port of the probe; a STAMP reply brings back the session's id and
//! the exact nanosecond at which the probe left; an error quotes whatever the router
//! chose to, of which at least 45 bits depend on what only this process knows.

use std::net::{IpAddr, SocketAddr};

use leeward_common::report::ProbeKind;

use super::{
    Arrival, Line, Probe, State, Tracker,
    answered::{Answered, Reflected},
    directions,
};
use crate::{
    probe::{
        icmp::{Echo, Quoted},
        stamp::{self, Format, Stamp},
        tcp_syn,
        token::{IDENT_FLOW, Identity},
    },
    prober::counters::Stray,
};

impl Tracker {
    pub(super) fn match_echo(
        &mut self,
        from: IpAddr,
        echo: &Echo,
        arrival: Arrival,
    ) -> Result<(), Stray> {
        let Identity {
            slot,
            sequence,
            sent_ns,
            token,
        } = echo.identity;
        if echo.ident & !IDENT_FLOW != self.key.ident() {
            return Err(Stray::Foreign);
        }
        // The token first: whoever cannot compute it learns nothing from what is counted about the rest.
        if token != self.key.token(slot, sequence, sent_ns) {
            return Err(Stray::WrongToken);
        }
        // A slot may have passed to another path by now: then its place holds another probe, or none.
        let row = self.row_of(slot).ok_or(Stray::UnknownProbe)?;
        let probe = self.probe_mut(row, sequence).ok_or(Stray::UnknownProbe)?;
        if probe.wall_ns != sent_ns {
            return Err(Stray::UnknownProbe);
        }
        if self.lines[row as usize].address != from {
            return Err(Stray::WrongAddress);
        }
        self.answered(row, sequence, Answered::Reply, arrival)
    }

    pub(super) fn match_tcp(
        &mut self,
        from: IpAddr,
        answer: &tcp_syn::Answer,
        arrival: Arrival,
    ) -> Result<(), Stray> {
        let answered = match answer.kind {
            tcp_syn::Kind::SynAck => Answered::Reply,
            tcp_syn::Kind::Reset => Answered::Reset,
        };
        let mut found = Err(Stray::WrongAddress);
        for at in self.range_by_address((ProbeKind::TcpSyn, from, answer.port)) {
            let row = self.by_address[at];
            // Some hosts reset with the SYN's own number.
            let numbers = [answer.acknowledged.wrapping_sub(1), answer.acknowledged];
            let numbers = &numbers[..if answered == Answered::Reset { 2 } else { 1 }];
            let same = |identity: Identity| numbers.contains(&identity.syn_sequence());
            match self.find_syn(row, answer.source_port, same) {
                Some(sequence) => return self.answered(row, sequence, answered, arrival),
                None => found = Err(Stray::WrongToken),
            }
        }
        found
    }

    pub(super) fn match_stamp(
        &mut self,
        flow: u8,
        from: SocketAddr,
        reply: &stamp::Reply,
        arrival: Arrival,
    ) -> Result<(), Stray> {
        let (row, sequence) = self.find_stamp(flow, &reply.request)?;
        let line = &self.lines[row as usize];
        if (line.address, line.port) != (from.ip().to_canonical(), from.port()) {
            return Err(Stray::WrongAddress);
        }
        let reflected = Answered::Reflected(Reflected::new(reply));
        self.answered(row, sequence, reflected, arrival)
    }

    fn find_stamp(&self, flow: u8, request: &stamp::Request) -> Result<(u32, u32), Stray> {
        let row = self
            .key
            .slot_of(request.ssid)
            .and_then(|slot| self.row_of(slot));
        let nth = directions::sequence_of(request.sequence);
        let (row, nth) = row.zip(nth).ok_or(Stray::UnknownProbe)?;
        let sequence = self.lines[row as usize].rotation.sequence(flow, nth);
        let probe = self.probe(row, sequence).ok_or(Stray::UnknownProbe)?;
        if self.lines[row as usize].kind != ProbeKind::Stamp {
            return Err(Stray::UnknownProbe);
        }
        match request.time == Stamp::of(Format::Ntp, probe.wall_ns) {
            true => Ok((row, sequence)),
            false => Err(Stray::WrongToken),
        }
    }

    pub(super) fn match_error(&mut self, quoted: &Quoted, arrival: Arrival) -> Result<(), Stray> {
        let (row, sequence) = match *quoted {
            Quoted::Echo {
                to,
                ident,
                sequence,
                checksum,
                identity,
            } if ident & !IDENT_FLOW == self.key.ident() => {
                self.find_quoted_echo(to, sequence, checksum, identity)
            }
            Quoted::Echo { .. } => None,
            Quoted::Stamp {
                to,
                port,
                start: Some(start),
                ..
            } => stamp::Request::quoted(&start)
                .iter()
                .flatten()
                .find_map(|request| {
                    (0..self.flows).find_map(|flow| self.find_stamp(flow, request).ok())
                })
                .filter(|&(row, _)| {
                    let line = &self.lines[row as usize];
                    (line.address, line.port) == (to, port)
                }),
            Quoted::Stamp { start: None, .. } => None,
            Quoted::Syn {
                to,
                source_port,
                port,
                sequence,
            } => {
                let find = |number: u32| {
                    let mut rows = self
                        .range_by_address((ProbeKind::TcpSyn, to, port))
                        .map(|at| self.by_address[at]);
                    rows.find_map(|row| {
                        let same = |identity: Identity| identity.syn_sequence() == number;
                        self.find_syn(row, source_port, same)
                            .map(|sequence| (row, sequence))
                    })
                };
                let syn = find(sequence);
                // An error about the reset after a SYN says nothing that the next SYN will not.
                if syn.is_none() && find(sequence.wrapping_sub(1)).is_some() {
                    return Ok(());
                }
                syn
            }
        }
        .ok_or(Stray::ErrorUnattributed)?;
        self.answered(row, sequence, Answered::Error, arrival)
    }

    /// The probe that an error about an echo request quotes: by its token where that is quoted, else, over IPv4, by
    /// the part of it that the header holds and the checksum of its flow.
    fn find_quoted_echo(
        &self,
        to: IpAddr,
        header: u16,
        checksum: u16,
        quoted: Option<Identity>,
    ) -> Option<(u32, u32)> {
        for at in self.range_by_address((ProbeKind::Icmp, to, 0)) {
            let row = self.by_address[at];
            let slot = self.lines[row as usize].slot;
            for probe in self.ring(row) {
                if probe.state == State::Empty {
                    continue;
                }
                let identity = self.key.identity(slot, probe.sequence, probe.wall_ns);
                let flow = self.lines[row as usize].rotation.turn(probe.sequence).flow;
                let fits = match quoted {
                    Some(quoted) => quoted == identity,
                    None => to.is_ipv4() && self.key.echo_checksum(flow) == checksum,
                };
                let fits = fits && identity.echo_sequence() == header;
                if fits {
                    return Some((row, probe.sequence));
                }
            }
        }
        None
    }

    fn find_syn(&self, row: u32, source_port: u16, same: impl Fn(Identity) -> bool) -> Option<u32> {
        let Line { slot, rotation, .. } = self.lines[row as usize];
        let sent_from = |probe: &&Probe| {
            self.first_port + u16::from(rotation.turn(probe.sequence).flow) == source_port
        };
        self.ring(row)
            .iter()
            .filter(|probe| probe.state != State::Empty)
            .filter(sent_from)
            .find(|probe| same(self.key.identity(slot, probe.sequence, probe.wall_ns)))
            .map(|probe| probe.sequence)
    }

    /// Where in `by_address` the paths of this key are.
    fn range_by_address(&self, key: (ProbeKind, IpAddr, u16)) -> std::ops::Range<usize> {
        let of = |row: &u32| self.lines[*row as usize].found_by();
        let start = self.by_address.partition_point(|row| of(row) < key);
        let length = self.by_address[start..]
            .iter()
            .take_while(|row| of(row) == key)
            .count();
        start..start + length
    }
}
