//! Captures that are made here, whole and torn.

use super::*;

const A: &str = "10.0.0.1:1179";
const B: &str = "10.0.0.2:179";

/// One TCP segment as an IPv4 packet without a link layer.
fn packet(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(40 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(1179u16.to_be_bytes());
    packet.extend(179u16.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    packet.extend(payload);
    packet
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 17;

/// A capture of these packets, one second apart.
fn capture(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = 0xa1b2_c3d4u32.to_le_bytes().to_vec();
    bytes.extend([
        2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 101, 0, 0, 0,
    ]);
    for (second, packet) in (1u32..).zip(packets) {
        let length = u32::try_from(packet.len()).unwrap().to_le_bytes();
        bytes.extend(second.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend([length, length].concat());
        bytes.extend(packet);
    }
    bytes
}

fn pieces(packets: &[Vec<u8>]) -> Vec<Piece> {
    let bytes = capture(packets);
    let mut pieces = Vec::new();
    let way = (A.parse().unwrap(), B.parse().unwrap());
    let read = read(&bytes[..], |_, got, piece| {
        assert_eq!(got, way);
        pieces.push(piece);
    });
    assert_eq!(read.unwrap().tcp, packets.len() as u64);
    pieces
}

fn bytes(text: &str) -> Piece {
    Piece::Bytes(text.as_bytes().to_vec())
}

#[test]
fn segments_are_put_in_order_and_repeated_ones_are_heard_once() {
    let got = pieces(&[
        packet(u32::MAX, SYN, b""),
        packet(3, ACK, b"def"),
        packet(0, ACK, b"abc"),
        packet(1, ACK, b"bcdefg"),
        packet(7, FIN, b""),
    ]);
    assert_eq!(
        got,
        [
            Piece::Start,
            bytes("abc"),
            bytes("def"),
            bytes("g"),
            Piece::End
        ]
    );
}

#[test]
fn what_a_capture_lacks_is_told_and_what_follows_is_heard() {
    let got = pieces(&[
        packet(0, SYN, b""),
        packet(1, ACK, b"ab"),
        packet(5, ACK, b"ef"),
        packet(7, FIN, b""),
    ]);
    assert_eq!(
        got,
        [
            Piece::Start,
            bytes("ab"),
            Piece::Missing(2),
            bytes("ef"),
            Piece::End
        ]
    );
}

#[test]
fn a_capture_that_was_made_up_with_bytes_in_its_first_packet_is_heard() {
    let rightly = pieces(&[packet(0, SYN, b"ab"), packet(3, ACK, b"cd")]);
    let made_up = pieces(&[
        packet(0, SYN, b"ab"),
        packet(2, ACK, b"cd"),
        packet(4, ACK, b"ef"),
    ]);
    assert_eq!(rightly, [Piece::Start, bytes("ab"), bytes("cd")]);
    assert_eq!(
        made_up,
        [Piece::Start, bytes("ab"), bytes("cd"), bytes("ef")]
    );
}

#[test]
fn no_more_waits_for_what_is_missing_than_may() {
    let mut packets = vec![packet(0, SYN, b"")];
    for index in 0..100u32 {
        packets.push(packet(10 + index * 60_000, ACK, &[7; 60_000]));
    }
    let got = pieces(&packets);
    assert_eq!(got[1], Piece::Missing(9));
    let heard: usize = got
        .iter()
        .map(|piece| {
            if let Piece::Bytes(bytes) = piece {
                bytes.len()
            } else {
                0
            }
        })
        .sum();
    assert_eq!(heard, 6_000_000);
}

#[test]
fn a_torn_capture_gives_what_it_holds() {
    let whole = capture(&[packet(0, SYN, b""), packet(1, ACK, b"abc")]);
    for length in 0..whole.len() {
        let mut heard = 0;
        // An error or not: it ends.
        _ = read(&whole[..length], |_, _, _| heard += 1);
        assert!(heard <= 2);
    }
}

#[test]
fn no_bytes_make_the_reading_of_captures_panic() {
    bolero::check!()
        .with_iterations(20_000)
        .for_each(|bytes: &[u8]| {
            _ = read(bytes, |_, _, _| ());
            let mut framed = capture(&[bytes.to_vec(), packet(1, ACK, bytes)]);
            _ = read(&framed[..], |_, _, _| ());
            framed[20] = bytes.first().copied().unwrap_or_default();
            _ = read(&framed[..], |_, _, _| ());
            for linktype in [0, 1, 12, 101, 108, 113, 276] {
                _ = segment(Linktype(linktype), bytes);
            }
        });
}
