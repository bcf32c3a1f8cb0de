//! Probes of a trace as bytes, and bytes as what they heard. [pure]
//!
//! All probes of a trace are one flow, the first of those that measure the path: the same identifier and checksum over
//! ICMP, the same ports over TCP and UDP, the same label over IPv6. Routers that share load by flow treat them alike ("Paris traceroute",
//! Augustin et al., IMC 2006). So a probe's number cannot stand where routers look for a flow:
//!
//! ```text
//!   ICMP echo    number: the sequence.  The checksum stays as it is: a word of the payload makes up for the number
//!   SYN          number: lower half of the sequence number; upper half: its token
//!   STAMP        number: lower half of the sequence number; upper half: its token
//! ```
//!
//! An answer counts if it brings back number and token. An ICMP error must quote at least eight bytes of what it is about;
//! of an echo request these are identifier, number and checksum, which are 48 bits that depend on the secret. Of a STAMP
//! request the first eight bytes say nothing, so an error that quotes no more is too short.

use std::net::{IpAddr, Ipv4Addr};

use leeward_common::{
    finding::trace::{LABELS, Label, Says},
    report::ProbeKind,
};

use crate::{
    probe::{
        NotAnAnswer, behind_ipv4, checksum,
        icmp::{self, Quoted, v4, v6},
        stamp::{
            ErrorEstimate, Format, Key, OPEN_BYTES, QUOTED_BYTES, Reply, Request, SEALED_BYTES,
            Stamp,
        },
        take, take_u16, take_u32,
        tcp_syn::{self, Syn},
        token::TokenKey,
    },
    prober::Family,
};

/// The place that probes of a trace claim to have in the prober: none of its own.
pub const SLOT: u32 = u32::MAX;

/// The place whose STAMP session is that of traces: beyond those of any plan.
const STAMP_SLOT: u32 = 65_000;

/// An echo request from its ICMP header on, without padding.
pub const ECHO_BYTES: usize = icmp::ECHO_BYTES;

/// Where the word stands that keeps the checksum as it is.
const BALANCE_AT: usize = ECHO_BYTES - 2;

/// Of the flows of a path the one that is traced.
const FLOW: u8 = 0;

/// The flow of a trace.
#[derive(Clone, Debug)]
pub struct Flow {
    /// By which probes.
    pub kind: ProbeKind,
    /// Our address. Over IPv6 the kernel knows it, and it may be unspecified.
    pub from: IpAddr,
    /// The target.
    pub to: IpAddr,
    /// Our port: of the prober's probes.
    pub source_port: u16,
    /// The target's port.
    pub port: u16,
    /// The prober's secret.
    pub key: TokenKey,
    /// Of authenticated STAMP.
    pub stamp_key: Option<Key>,
    /// Tells one trace from another, so that late answers to an earlier one are strays.
    pub nonce: u64,
}

/// What an answer says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Heard {
    /// Which probe it answers.
    pub number: u16,
    /// What it says about it.
    pub what: What,
    /// MPLS labels that the probe carried there.
    pub labels: Vec<Label>,
}

/// What an answer says about a probe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// Where it came to.
    Says(Says),
    /// That it did not fit the next link, whose size is this, in bytes; 0 where the router does not say.
    TooBig(u32),
}

/// Why a packet is no answer to a probe of the trace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stray {
    /// It quotes too little.
    Truncated,
    /// It is about something else.
    Foreign,
    /// It is about a probe of this flow, but its token is not.
    Forged,
}

impl From<NotAnAnswer> for Stray {
    fn from(why: NotAnAnswer) -> Self {
        match why {
            NotAnAnswer::Truncated => Self::Truncated,
            NotAnAnswer::Foreign => Self::Foreign,
        }
    }
}

impl Flow {
    /// A probe from its transport header on. `bytes` is how long an echo request is to be, from there on; other kinds
    /// have their length.
    #[must_use]
    pub fn probe(&self, number: u16, bytes: usize) -> Vec<u8> {
        match (self.kind, self.from, self.to) {
            (ProbeKind::Icmp, ..) => self.echo(number, bytes),
            (ProbeKind::TcpSyn, IpAddr::V4(from), IpAddr::V4(to)) => {
                self.syn(number).encode_v4(from, to).to_vec()
            }
            (ProbeKind::TcpSyn, ..) => self.syn(number).encode_v6().to_vec(),
            (ProbeKind::Stamp, ..) => self.stamp(number),
        }
    }

    /// The same flow by echo requests: only they can be of any size.
    #[must_use]
    pub fn by_echo(&self) -> Self {
        Self {
            kind: ProbeKind::Icmp,
            ..self.clone()
        }
    }

    fn echo(&self, number: u16, bytes: usize) -> Vec<u8> {
        let mut packet = vec![0; bytes.max(ECHO_BYTES)];
        packet[0] = match self.to {
            IpAddr::V4(_) => v4::ECHO_REQUEST,
            IpAddr::V6(_) => v6::ECHO_REQUEST,
        };
        packet[4..6].copy_from_slice(&self.ident().to_be_bytes());
        packet[6..8].copy_from_slice(&number.to_be_bytes());
        packet[8..12].copy_from_slice(&SLOT.to_be_bytes());
        packet[12..16].copy_from_slice(&u32::from(number).to_be_bytes());
        packet[16..24].copy_from_slice(&self.nonce.to_be_bytes());
        packet[24..32].copy_from_slice(&self.token(number).to_be_bytes());
        let sum = self.echo_checksum().to_be_bytes();
        let balance = checksum(&[&sum, &packet]);
        packet[BALANCE_AT..ECHO_BYTES].copy_from_slice(&balance.to_be_bytes());
        if self.to.is_ipv4() {
            packet[2..4].copy_from_slice(&sum);
        }
        packet
    }

    fn ident(&self) -> u16 {
        self.key.ident_of(FLOW)
    }

    /// The checksum of every echo request of the flow; over IPv6 the kernel adds the addresses, always the same.
    fn echo_checksum(&self) -> u16 {
        self.key.echo_checksum(FLOW)
    }

    /// The IPv6 flow label.
    #[must_use]
    pub fn label(&self) -> u32 {
        self.key.flow_label(FLOW)
    }

    fn syn(&self, number: u16) -> Syn {
        Syn {
            source_port: self.source_port,
            port: self.port,
            sequence: self.sequence(number),
            time: self.nonce as u32,
        }
    }

    /// A STAMP request behind its UDP header.
    fn stamp(&self, number: u16) -> Vec<u8> {
        let request = Request {
            sequence: self.sequence(number),
            time: Stamp(self.nonce),
            error: ErrorEstimate::unknown(Format::Ntp),
            ssid: self.key.ssid(STAMP_SLOT),
        };
        let payload = request.encode(self.stamp_key.as_ref());
        let length = (8 + payload.len()) as u16;
        let mut packet = Vec::with_capacity(8 + payload.len());
        packet.extend(self.source_port.to_be_bytes());
        packet.extend(self.port.to_be_bytes());
        packet.extend(length.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend_from_slice(&payload);
        if let (IpAddr::V4(from), IpAddr::V4(to)) = (self.from, self.to) {
            let [high, low] = length.to_be_bytes();
            let sum = checksum(&[&from.octets(), &to.octets(), &[0, 17, high, low], &packet]);
            // A checksum of 0 says that there is none (RFC 768).
            let sum = if sum == 0 { u16::MAX } else { sum };
            packet[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        packet
    }

    fn token(&self, number: u16) -> u64 {
        self.key.token(SLOT, u32::from(number), self.nonce)
    }

    fn sequence(&self, number: u16) -> u32 {
        (self.token(number) as u32) << 16 | u32::from(number)
    }

    /// Which probe has this sequence number.
    fn number_of(&self, sequence: u32) -> Result<u16, Stray> {
        let number = sequence as u16;
        match self.sequence(number) == sequence {
            true => Ok(number),
            false => Err(Stray::Forged),
        }
    }

    /// What a raw ICMP socket received: from the IP header on over IPv4, from the ICMPv6 header on over IPv6.
    ///
    /// # Errors
    ///
    /// Returns why it answers none of the probes.
    pub fn on_icmp(&self, from: IpAddr, bytes: &[u8]) -> Result<Heard, Stray> {
        let message = match self.to {
            IpAddr::V4(_) => behind_ipv4(bytes)?.1,
            IpAddr::V6(_) => bytes,
        };
        let [message_type, code] = take(message, 0)?;
        let is_reply = match self.to {
            IpAddr::V4(_) => message_type == v4::ECHO_REPLY,
            IpAddr::V6(_) => message_type == v6::ECHO_REPLY,
        };
        if is_reply {
            return self.on_echo_reply(from, message);
        }
        let answer = match self.to {
            IpAddr::V4(_) => icmp::parse_v4(bytes)?,
            IpAddr::V6(_) => icmp::parse_v6(bytes)?,
        };
        let icmp::Answer::Error { quoted, .. } = answer else {
            return Err(Stray::Foreign);
        };
        let number = self.number_quoted(&quoted)?;
        let what = self.meaning(from, message, message_type, code)?;
        Ok(Heard {
            number,
            what,
            labels: labels(message, self.to.is_ipv6()),
        })
    }

    fn on_echo_reply(&self, from: IpAddr, message: &[u8]) -> Result<Heard, Stray> {
        if self.kind != ProbeKind::Icmp
            || from != self.to
            || take_u16(message, 4)? != self.ident()
            || take_u32(message, 8)? != SLOT
        {
            return Err(Stray::Foreign);
        }
        let (number, token) = (take_u16(message, 6)?, take(message, 24)?);
        match u64::from_be_bytes(token) == self.token(number) {
            true => Ok(reached(number)),
            false => Err(Stray::Forged),
        }
    }

    fn number_quoted(&self, quoted: &Quoted) -> Result<u16, Stray> {
        match *quoted {
            Quoted::Echo {
                to,
                ident,
                sequence,
                checksum,
                identity,
            } if self.kind == ProbeKind::Icmp && to == self.to && ident == self.ident() => {
                match identity {
                    Some(identity) if identity.slot != SLOT => Err(Stray::Foreign),
                    Some(identity) if identity.token == self.token(sequence) => Ok(sequence),
                    None if to.is_ipv6() => Err(Stray::Truncated),
                    None if checksum == self.echo_checksum() => Ok(sequence),
                    _ => Err(Stray::Forged),
                }
            }
            Quoted::Syn {
                to,
                source_port,
                port,
                sequence,
            } if self.kind == ProbeKind::TcpSyn
                && (to, source_port, port) == (self.to, self.source_port, self.port) =>
            {
                self.number_of(sequence)
            }
            Quoted::Stamp {
                to,
                source_port,
                port,
                start,
            } if self.kind == ProbeKind::Stamp
                && (to, source_port, port) == (self.to, self.source_port, self.port) =>
            {
                let start: [u8; QUOTED_BYTES] = start.ok_or(Stray::Truncated)?;
                self.number_of(take_u32(&start, 0)?)
            }
            _ => Err(Stray::Foreign),
        }
    }

    /// What an error of this type and code says.
    fn meaning(
        &self,
        from: IpAddr,
        message: &[u8],
        message_type: u8,
        code: u8,
    ) -> Result<What, Stray> {
        let says = match (self.to.is_ipv4(), message_type, code) {
            (true, v4::TIME_EXCEEDED, 0) | (false, v6::TIME_EXCEEDED, 0) => Says::TimeExceeded,
            (true, v4::UNREACHABLE, 4) => return Ok(What::TooBig(take_u16(message, 6)?.into())),
            (false, v6::TOO_BIG, _) => return Ok(What::TooBig(take_u32(message, 4)?)),
            (true, v4::UNREACHABLE, 0 | 6 | 11) | (false, v6::UNREACHABLE, 0) => {
                Says::NetUnreachable
            }
            (true, v4::UNREACHABLE, 1 | 7 | 12) | (false, v6::UNREACHABLE, 3) => {
                Says::HostUnreachable
            }
            // Only the target itself has ports; whoever else says so stands before it and filters.
            (true, v4::UNREACHABLE, 3) | (false, v6::UNREACHABLE, 4) if from == self.to => {
                Says::PortUnreachable
            }
            (true, v4::UNREACHABLE, 3 | 9 | 10 | 13) | (false, v6::UNREACHABLE, 1 | 4 | 5 | 6) => {
                Says::Prohibited
            }
            _ => Says::OtherUnreachable,
        };
        Ok(What::Says(says))
    }

    /// What a raw TCP socket received: from the IP header on over IPv4, from the TCP header on over IPv6.
    ///
    /// # Errors
    ///
    /// Returns why it answers none of the probes.
    pub fn on_tcp(&self, from: IpAddr, bytes: &[u8]) -> Result<Heard, Stray> {
        let answer = match self.to {
            IpAddr::V4(_) => tcp_syn::parse_v4(bytes)?,
            IpAddr::V6(_) => tcp_syn::parse_v6(bytes)?,
        };
        let ports = (answer.source_port, answer.port);
        if self.kind != ProbeKind::TcpSyn
            || from != self.to
            || ports != (self.source_port, self.port)
        {
            return Err(Stray::Foreign);
        }
        self.number_of(answer.acknowledged.wrapping_sub(1))
            .map(reached)
    }

    /// What a raw UDP socket received: from the IP header on over IPv4, from the UDP header on over IPv6.
    ///
    /// # Errors
    ///
    /// Returns why it answers none of the probes.
    pub fn on_udp(&self, from: IpAddr, bytes: &[u8]) -> Result<Heard, Stray> {
        let datagram = match self.to {
            IpAddr::V4(_) => behind_ipv4(bytes)?.1,
            IpAddr::V6(_) => bytes,
        };
        let ports = (take_u16(datagram, 2)?, take_u16(datagram, 0)?);
        if self.kind != ProbeKind::Stamp
            || from != self.to
            || ports != (self.source_port, self.port)
        {
            return Err(Stray::Foreign);
        }
        let payload = datagram.get(8..).ok_or(Stray::Truncated)?;
        let reply = Reply::decode(payload, self.stamp_key.as_ref()).map_err(|_| Stray::Forged)?;
        if reply.request.ssid != self.key.ssid(STAMP_SLOT) {
            return Err(Stray::Foreign);
        }
        self.number_of(reply.request.sequence).map(reached)
    }

    /// How long a probe is from its transport header on.
    #[must_use]
    pub fn probe_bytes(&self) -> usize {
        match (self.kind, &self.stamp_key) {
            (ProbeKind::Icmp, _) => ECHO_BYTES,
            (ProbeKind::TcpSyn, _) => tcp_syn::SYN_BYTES,
            (ProbeKind::Stamp, None) => 8 + OPEN_BYTES,
            (ProbeKind::Stamp, Some(_)) => 8 + SEALED_BYTES,
        }
    }

    /// Whether the source address is needed to write a probe, and which it is.
    #[must_use]
    pub fn source_v4(&self) -> Option<Ipv4Addr> {
        match (self.kind, self.from) {
            (ProbeKind::TcpSyn | ProbeKind::Stamp, IpAddr::V4(from)) => Some(from),
            _ => None,
        }
    }

    /// The family of its packets.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(&self.to)
    }
}

const fn reached(number: u16) -> Heard {
    Heard {
        number,
        what: What::Says(Says::Reached),
        labels: Vec::new(),
    }
}

/// The label stack behind the quoted packet of an ICMP error (RFC 4884 section 7, RFC 4950); none where there is none or
/// where it is not whole.
fn labels(message: &[u8], is_v6: bool) -> Vec<Label> {
    extensions(message, is_v6)
        .and_then(label_stack)
        .unwrap_or_default()
}

/// The extension objects, if their checksum says that this is what they are.
fn extensions(message: &[u8], is_v6: bool) -> Option<&[u8]> {
    /// Where they begin when the length is not given, as before RFC 4884 (its section 5.5).
    const QUOTED: usize = 128;
    let [length] = take(message, if is_v6 { 4 } else { 5 }).ok()?;
    let word = if is_v6 { 8 } else { 4 };
    let quoted = match usize::from(length) * word {
        0 => QUOTED,
        given => given,
    };
    let structure = message.get(8 + quoted..)?;
    let [version] = take(structure, 0).ok()?;
    let is_sound = version >> 4 == 2 && structure.len() >= 8 && checksum(&[structure]) == 0;
    is_sound.then(|| &structure[4..])
}

fn label_stack(mut objects: &[u8]) -> Option<Vec<Label>> {
    const MPLS: [u8; 2] = [1, 1];
    while !objects.is_empty() {
        let length = usize::from(take_u16(objects, 0).ok()?);
        let object = objects.get(4..length)?;
        if take::<2>(objects, 2).ok()? == MPLS {
            let label = |entry: &[u8; 4]| {
                let all = u32::from_be_bytes(*entry);
                Label {
                    label: all >> 12,
                    class: (all >> 9) as u8 & 7,
                    ttl: all as u8,
                }
            };
            let (entries, _) = object.as_chunks::<4>();
            return Some(entries.iter().take(LABELS).map(label).collect());
        }
        objects = objects.get(length..)?;
    }
    None
}

#[cfg(test)]
mod tests;
