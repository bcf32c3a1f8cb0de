//! The frame and control message decoders against bytes of any kind: they neither panic nor allocate beyond their
//! limits, and what they accept is read again as it was. `BOLERO_RANDOM_ITERATIONS` runs more rounds.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::alloc::System;

use bolero::TypeGenerator;
use cap::Cap;
use leeward_common::wire::{
    findings,
    frame::{
        HEADER_BYTES, Header, MAGIC, frame_from_agent, frame_from_aggregator, parse_from_agent,
        parse_from_aggregator, parse_header,
    },
    v1::{FromAgent, FromAggregator},
};

/// A parser reserves at most 1 MiB for a list on the word of its length, once per level of nesting; the tests'
/// harness, and several tests at once, are the rest.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, 32 << 20);

const ROUNDS: usize = 20_000;

const TYPES: [u8; 12] = [1, 2, 3, 4, 5, 17, 18, 19, 20, 21, 22, 34];

fn accept(message_type: u8, payload: &[u8]) {
    let header = Header {
        message_type,
        length: payload.len(),
        checksum: crc32c::crc32c(payload),
    };
    if let Ok(message) = parse_from_agent(&header, payload) {
        assert_eq!(reread_agent(&frame_from_agent(&message)), message);
    }
    if let Ok(message) = parse_from_aggregator(&header, payload) {
        assert_eq!(reread_aggregator(&frame_from_aggregator(&message)), message);
    }
    if let Ok(found) = findings::parse(&header, payload) {
        let frame = findings::frame(&found);
        let (header, payload) = frame.split_first_chunk::<HEADER_BYTES>().unwrap();
        let header = parse_header(header).unwrap();
        assert_eq!(findings::parse(&header, payload).unwrap(), found);
    }
}

fn reread_agent(frame: &[u8]) -> FromAgent {
    let (header, payload) = frame.split_first_chunk::<HEADER_BYTES>().unwrap();
    parse_from_agent(&parse_header(header).unwrap(), payload).unwrap()
}

fn reread_aggregator(frame: &[u8]) -> FromAggregator {
    let (header, payload) = frame.split_first_chunk::<HEADER_BYTES>().unwrap();
    parse_from_aggregator(&parse_header(header).unwrap(), payload).unwrap()
}

#[test]
fn any_header() {
    bolero::check!()
        .with_iterations(ROUNDS)
        .with_type::<(bool, [u8; HEADER_BYTES])>()
        .for_each(|(ours, bytes)| {
            let mut bytes = *bytes;
            if *ours {
                (bytes[0], bytes[2], bytes[3]) = (MAGIC, 0, 0);
            }
            if let Ok(header) = parse_header(&bytes) {
                assert!(header.length <= 4 << 20);
            }
        });
}

#[test]
fn any_payload() {
    bolero::check!()
        .with_iterations(ROUNDS)
        .with_type::<(u8, Vec<u8>)>()
        .for_each(|(number, payload)| {
            accept(TYPES[usize::from(*number) % TYPES.len()], payload);
        });
}

/// A piece of MessagePack as our messages hold it, or nearly.
#[derive(Clone, Debug, TypeGenerator)]
enum Piece {
    /// A map, its announced length possibly a lie.
    Map(u8),
    List(u8),
    HugeList(u32),
    HugeText(u32),
    Field(u8),
    Id(u8),
    Small(u8),
    Large(u64),
    Nothing,
    Raw(u8),
}

const FIELDS: [&str; 65] = [
    "agent",
    "region",
    "boot_epoch",
    "addresses",
    "answer_port",
    "build",
    "aggregator",
    "durable_below",
    "code",
    "reason",
    "version",
    "interval_us",
    "window_us",
    "expiry_us",
    "schema",
    "targets",
    "id",
    "address",
    "kinds",
    "port",
    "refused",
    "target",
    "table",
    "paths",
    "kind",
    "sequences",
    "V4",
    "V6",
    "icmp",
    "identity",
    "stamps",
    "scheduled",
    "checks",
    "service",
    "check",
    "question",
    "url",
    "status",
    "body",
    "timeout_us",
    "results",
    "outcome",
    "latency_us",
    "age_us",
    "detail",
    "order",
    "trace",
    "mtu",
    "sequence",
    "at",
    "findings",
    "declined",
    "began",
    "took_us",
    "hops",
    "end",
    "strays",
    "ttl",
    "sent",
    "answers",
    "from",
    "says",
    "rtts_us",
    "labels",
    "reached",
];

fn write(piece: &Piece, out: &mut Vec<u8>) {
    let text = |text: &str, out: &mut Vec<u8>| {
        out.push(0xa0 | text.len() as u8);
        out.extend(text.bytes());
    };
    match piece {
        Piece::Map(count) => out.push(0x80 | (count % 8)),
        Piece::List(count) => out.push(0x90 | (count % 8)),
        Piece::HugeList(count) => {
            out.push(0xdd);
            out.extend(count.to_be_bytes());
        }
        Piece::HugeText(count) => {
            out.push(0xdb);
            out.extend(count.to_be_bytes());
        }
        Piece::Field(at) => text(FIELDS[usize::from(*at) % FIELDS.len()], out),
        Piece::Id(at) => text(["a", "iad-1", "eu.west_2", "A"][usize::from(*at) % 4], out),
        Piece::Small(number) => out.push(number % 128),
        Piece::Large(number) => {
            out.push(0xcf);
            out.extend(number.to_be_bytes());
        }
        Piece::Nothing => out.push(0xc0),
        Piece::Raw(byte) => out.push(*byte),
    }
}

#[test]
fn almost_a_message() {
    bolero::check!()
        .with_iterations(ROUNDS)
        .with_type::<(u8, u8, Vec<Piece>)>()
        .for_each(|(number, map, pieces)| {
            let mut payload = vec![0x80 | (map % 8)];
            pieces.iter().for_each(|piece| write(piece, &mut payload));
            accept(TYPES[usize::from(*number) % TYPES.len()], &payload);
        });
}

/// Real messages with some bytes changed: most are still understood up to the change.
#[test]
fn almost_a_mesh() {
    let seeds = [seed(1), seed(19), seed(2), seed(5), seed(22), seed(34)];
    bolero::check!()
        .with_iterations(ROUNDS)
        .with_type::<(u8, Vec<(u16, u8)>)>()
        .for_each(|(number, edits)| {
            let (message_type, mut payload) = seeds[usize::from(*number) % seeds.len()].clone();
            for (at, byte) in edits.iter().take(3) {
                let place = usize::from(*at) % payload.len();
                payload[place] = *byte;
            }
            accept(message_type, &payload);
        });
}

fn seed(message_type: u8) -> (u8, Vec<u8>) {
    let json = match message_type {
        1 => {
            r#"{"agent":"iad-1","region":"iad","boot_epoch":9,"addresses":[{"V4":[1,2,3,4]}],"answer_port":1}"#
        }
        2 => r#"{"table":1,"paths":[{"target":"a","kind":"icmp","region":null}]}"#,
        5 => {
            r#"{"results":[{"service":"s","check":"c","region":"b","question":9,"outcome":"timeout","latency_us":1,
                "age_us":2,"detail":"x"}]}"#
        }
        22 => r#"{"order":9,"trace":{"target":"a","kind":"icmp","mtu":true}}"#,
        34 => {
            r#"{"agent":"a","boot_epoch":1,"sequence":2,"at":3,"findings":[{"declined":{"order":1,"reason":"x"}},
                {"trace":{"order":7,"target":"a","region":"b","kind":"stamp","address":{"V4":[1,2,3,4]},"began":5,
                "took_us":6,"hops":[{"ttl":1,"sent":3,"answers":[{"from":{"V4":[1,2,3,4]},"says":"time_exceeded",
                "rtts_us":[1,2],"labels":[{"label":1,"class":2,"ttl":3}],"asn":4}]}],"end":"reached",
                "mtu":{"bytes":1500,"local":9000,"hinted":{"bytes":1500,"from":{"V4":[1,2,3,4]}},
                "black_hole":false,"probes":9},"strays":{"forged":1}}}]}"#
        }
        _ => {
            r#"{"version":1,"interval_us":2,"window_us":3,"expiry_us":4,"schema":1,"targets":[
                {"id":"a","region":"b","address":{"V4":[1,2,3,4]},"kinds":["icmp","tcp_syn"],"port":4000}],
                "checks":[{"service":"s","check":"c","region":"b","question":9,"url":"tcp://a:1","status":[200,299],
                "body":"x","timeout_us":1,"interval_us":2}]}"#
        }
    };
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    let payload = rmp_serde::to_vec_named(&value).unwrap();
    let header = Header {
        message_type,
        length: payload.len(),
        checksum: crc32c::crc32c(&payload),
    };
    assert!(
        parse_from_agent(&header, &payload).is_ok()
            || parse_from_aggregator(&header, &payload).is_ok()
            || findings::parse(&header, &payload).is_ok()
    );
    (message_type, payload)
}
