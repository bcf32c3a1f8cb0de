//! Packet captures: from frames to the bytes of each direction of each TCP connection, in order.
//!
//! Simple and bounded: what is missing is waited for while at most [`WAITING_MAX`] bytes wait behind it; then it counts as
//! lost, and whoever follows the stream is told. Captures in either format are read by `pcap-parser`, packets by `etherparse`.

use std::{
    collections::BTreeMap,
    io::Read,
    net::{IpAddr, SocketAddr},
};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use leeward_common::time::Timestamp;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

use super::wire::Refused;

/// The longest frame, and so the memory for reading.
const FRAME_MAX: usize = 1 << 20;

/// The most bytes of one direction that wait for one that is missing.
pub const WAITING_MAX: usize = 1 << 20;

/// The most directions of connections that are followed.
pub const STREAMS_MAX: usize = 4_096;

/// Which direction of which connection: from, to.
pub type Way = (SocketAddr, SocketAddr);

/// What one direction of a connection gives, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    /// The connection begins.
    Start,
    /// Bytes.
    Bytes(Vec<u8>),
    /// So many bytes are missing in the capture.
    Missing(u32),
    /// The connection ends.
    End,
}

/// Reads a capture, and hands over each piece of each stream with the time of the packet that completed it.
///
/// # Errors
///
/// Returns that this is no capture, or is damaged; what came before was handed over.
pub fn read<'a>(
    input: impl Read + Send + 'a,
    mut each: impl FnMut(Timestamp, Way, Piece),
) -> Result<Packets, Refused> {
    let refused =
        |error: &dyn std::fmt::Debug| Refused::new("packet capture", format!("{error:?}"));
    let mut reader = create_reader(FRAME_MAX, Filling(input)).map_err(|error| refused(&error))?;
    let mut interfaces = Vec::new();
    let mut packets = Packets::default();
    let mut streams = Streams::default();
    let mut starved = 0;
    let mut newest = Timestamp::EPOCH;
    loop {
        match reader.next() {
            Ok((consumed, block)) => {
                starved = 0;
                if let Some((at, linktype, data)) = frame(&block, &mut interfaces) {
                    packets.all += 1;
                    newest = at;
                    match segment(linktype, data) {
                        Some(segment) => {
                            packets.tcp += 1;
                            streams.take(segment, &mut |way, piece| each(at, way, piece));
                        }
                        None => packets.others += 1,
                    }
                }
                reader.consume(consumed);
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) if starved < 2 => {
                starved += 1;
                reader.refill().map_err(|error| refused(&error))?;
            }
            Err(error) => {
                streams.end(&mut |way, piece| each(newest, way, piece));
                return Err(refused(&error));
            }
        }
    }
    streams.end(&mut |way, piece| each(newest, way, piece));
    packets.refused_streams = streams.refused;
    Ok(packets)
}

/// An input that fills what it is given, as `pcap-parser` expects of its own; those that unpack give less.
struct Filling<R>(R);

impl<R: Read> Read for Filling<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        read_up_to(&mut self.0, buffer)
    }
}

/// Reads until the buffer is full or the input is over; how much that was.
///
/// # Errors
///
/// Returns why the input cannot be read.
pub fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// How many packets a capture held.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Packets {
    /// All.
    pub all: u64,
    /// Those of TCP.
    pub tcp: u64,
    /// Those that are not, or cannot be read.
    pub others: u64,
    /// Segments of connections beyond [`STREAMS_MAX`].
    pub refused_streams: u64,
}

/// The frame that a block holds, if it holds one.
fn frame<'a>(
    block: &PcapBlockOwned<'a>,
    interfaces: &mut Vec<(Linktype, u64, u64)>,
) -> Option<(Timestamp, Linktype, &'a [u8])> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let resolution = if header.is_nanosecond_precision() {
                1_000_000_000
            } else {
                1_000_000
            };
            *interfaces = vec![(header.network, 0, resolution)];
            None
        }
        PcapBlockOwned::Legacy(packet) => {
            let (linktype, _, resolution) = *interfaces.first()?;
            let micros = u64::from(packet.ts_usec) * 1_000_000 / resolution;
            let at = Timestamp::from_unix_us(u64::from(packet.ts_sec) * 1_000_000 + micros);
            Some((at, linktype, packet.data))
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            interfaces.clear();
            None
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            let offset = u64::try_from(interface.ts_offset()).unwrap_or_default();
            let resolution = interface.ts_resolution().unwrap_or(1_000_000).max(1);
            interfaces.push((interface.linktype, offset, resolution));
            None
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let (linktype, offset, resolution) = *interfaces.get(packet.if_id as usize)?;
            let ticks = u128::from(packet.ts_high) << 32 | u128::from(packet.ts_low);
            let micros = ticks * 1_000_000 / u128::from(resolution);
            let micros = u64::try_from(micros).unwrap_or(u64::MAX);
            let at =
                Timestamp::from_unix_us(micros.saturating_add(offset.saturating_mul(1_000_000)));
            let length = packet.data.len().min(packet.caplen as usize);
            Some((at, linktype, &packet.data[..length]))
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            let (linktype, ..) = *interfaces.first()?;
            Some((Timestamp::EPOCH, linktype, packet.data))
        }
        PcapBlockOwned::NG(_) => None,
    }
}

/// One TCP segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Segment<'a> {
    way: Way,
    sequence: u32,
    starts: bool,
    ends: bool,
    payload: &'a [u8],
}

fn segment(linktype: Linktype, data: &[u8]) -> Option<Segment<'_>> {
    /// Raw IP, by the two numbers that are in use for it.
    const RAW: [i32; 2] = [12, 101];
    let packet = match linktype {
        Linktype::ETHERNET => SlicedPacket::from_ethernet(data).ok()?,
        Linktype::LINUX_SLL => SlicedPacket::from_linux_sll(data).ok()?,
        Linktype::NULL | Linktype::LOOP => SlicedPacket::from_ip(data.get(4..)?).ok()?,
        // Linux cooked capture, version 2: a header of 20 bytes.
        Linktype(276) => SlicedPacket::from_ip(data.get(20..)?).ok()?,
        Linktype(raw) if RAW.contains(&raw) => SlicedPacket::from_ip(data).ok()?,
        _ => return None,
    };
    let (from, to): (IpAddr, IpAddr) = match packet.net? {
        NetSlice::Ipv4(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        NetSlice::Ipv6(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        NetSlice::Arp(_) => return None,
    };
    let TransportSlice::Tcp(tcp) = packet.transport? else {
        return None;
    };
    Some(Segment {
        way: (
            SocketAddr::new(from, tcp.source_port()),
            SocketAddr::new(to, tcp.destination_port()),
        ),
        sequence: tcp.sequence_number(),
        starts: tcp.syn(),
        ends: tcp.fin() || tcp.rst(),
        payload: tcp.payload(),
    })
}

/// The directions of all connections.
#[derive(Debug, Default)]
struct Streams {
    streams: BTreeMap<Way, Stream>,
    refused: u64,
}

/// One direction.
#[derive(Debug, Default)]
struct Stream {
    /// The next byte's number; `None` before the first.
    next: Option<u32>,
    /// What came too early, by its number.
    waiting: BTreeMap<u32, Vec<u8>>,
    waiting_bytes: usize,
    /// The SYN carried bytes, and nothing followed it so far.
    began_with_bytes: bool,
}

impl Streams {
    fn take(&mut self, segment: Segment<'_>, each: &mut impl FnMut(Way, Piece)) {
        let way = segment.way;
        if !self.streams.contains_key(&way) && self.streams.len() >= STREAMS_MAX {
            self.refused += 1;
            return;
        }
        let stream = self.streams.entry(way).or_default();
        let each = &mut |piece| each(way, piece);
        let mut sequence = segment.sequence;
        if segment.starts {
            stream.flush(each);
            sequence = sequence.wrapping_add(1);
            *stream = Stream {
                next: Some(sequence),
                ..Stream::default()
            };
            each(Piece::Start);
        } else if std::mem::take(&mut stream.began_with_bytes)
            && stream.next == Some(sequence.wrapping_add(1))
        {
            // Captures that tools make up forget that a SYN takes a number of its own.
            stream.next = Some(sequence);
        }
        stream.take(sequence, segment.payload, each);
        stream.began_with_bytes = segment.starts && !segment.payload.is_empty();
        if segment.ends {
            stream.flush(each);
            each(Piece::End);
            self.streams.remove(&way);
        }
    }

    fn end(&mut self, each: &mut impl FnMut(Way, Piece)) {
        for (way, stream) in &mut self.streams {
            stream.flush(&mut |piece| each(*way, piece));
        }
    }
}

impl Stream {
    fn take(&mut self, sequence: u32, payload: &[u8], each: &mut impl FnMut(Piece)) {
        if payload.is_empty() {
            return;
        }
        let next = *self.next.get_or_insert(sequence);
        let ahead = sequence.wrapping_sub(next);
        // Numbers go round: what is more than half the circle ahead lies behind.
        if ahead > u32::MAX / 2 {
            let behind = next.wrapping_sub(sequence) as usize;
            if behind < payload.len() {
                self.give(payload[behind..].to_vec(), each);
            }
        } else if ahead == 0 {
            self.give(payload.to_vec(), each);
        } else {
            let replaced = self.waiting.insert(sequence, payload.to_vec());
            self.waiting_bytes += payload.len();
            self.waiting_bytes -= replaced.map_or(0, |old| old.len());
        }
        self.advance(each);
        while self.waiting_bytes > WAITING_MAX {
            self.give_up(each);
            self.advance(each);
        }
    }

    fn give(&mut self, bytes: Vec<u8>, each: &mut impl FnMut(Piece)) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.next = self.next.map(|next| next.wrapping_add(length));
        each(Piece::Bytes(bytes));
    }

    /// Gives what waited and is due.
    fn advance(&mut self, each: &mut impl FnMut(Piece)) {
        while let Some(next) = self.next {
            let due = self.waiting.keys().copied().find(|sequence| {
                let ahead = sequence.wrapping_sub(next);
                ahead == 0 || ahead > u32::MAX / 2
            });
            let Some(sequence) = due else {
                return;
            };
            let payload = self.waiting.remove(&sequence).unwrap_or_default();
            self.waiting_bytes -= payload.len();
            let behind = next.wrapping_sub(sequence) as usize;
            if behind < payload.len() {
                self.give(payload[behind..].to_vec(), each);
            }
        }
    }

    /// What is missing before the nearest that waits is lost.
    fn give_up(&mut self, each: &mut impl FnMut(Piece)) {
        let Some(next) = self.next else {
            return;
        };
        let nearest = self
            .waiting
            .keys()
            .map(|sequence| sequence.wrapping_sub(next))
            .min();
        if let Some(missing) = nearest {
            each(Piece::Missing(missing));
            self.next = Some(next.wrapping_add(missing));
        }
    }

    fn flush(&mut self, each: &mut impl FnMut(Piece)) {
        while !self.waiting.is_empty() {
            self.give_up(each);
            self.advance(each);
        }
    }
}

#[cfg(test)]
#[path = "pcap/tests.rs"]
mod tests;
