//! The batch decoder against bytes of any kind: it neither panics nor allocates beyond its limits, and what it accepts
//! is read again as it was. `BOLERO_RANDOM_ITERATIONS` runs more rounds.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::alloc::System;

use cap::Cap;
use leeward_common::{
    histogram::Schema,
    report::{Class, Direction, OneWay, Variation},
    wire::{
        batch::{decode, encode, peek},
        limits,
    },
};
use support::{batch, report};

/// The largest batch is 8 MiB of inflated columns, as much in buckets, and 16,384 reports of about 180 bytes: 19 MiB.
/// Twice over, since one may be dropped while another is read by a second test, and what the tests need themselves.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, 48 << 20);

const ROUNDS: usize = 20_000;

fn accept(bytes: &[u8]) {
    let Ok(batch) = decode(bytes) else { return };
    peek(bytes).expect("what is a batch has a prelude");
    let again = encode(&batch).expect("what was read can be written");
    assert_eq!(decode(&again).unwrap(), batch);
}

/// Batches to start from: without rows, with one of each kind, with many alike.
fn seeds() -> Vec<Vec<u8>> {
    let schema = Schema::TwoDigits;
    let replied = |rtts: &[u32]| {
        let ends: Vec<_> = rtts.iter().map(|&rtt| (Class::Replied, rtt)).collect();
        report(schema, &ends, rtts.len() as u32, 0, 1)
    };
    let every: Vec<_> = Class::ALL
        .into_iter()
        .map(|class| (class, 70_000))
        .collect();
    let rows = vec![
        (0, report(schema, &every, 8, 2, 0)),
        (1, replied(&[])),
        (2, replied(&[250])),
        (5, replied(&[70_000, 71_000])),
        (
            6,
            replied(&[1, 70_000, 70_001, 70_002, 70_003, 70_004, 60_000_000]),
        ),
    ];
    let alike = (0..200)
        .map(|row| (row, replied(&[70_000, 70_100, 71_000])))
        .collect();
    let mut directed = replied(&[70_000, 70_400]);
    let variation = Variation {
        pairs: 2,
        sum_us: 700,
        max_us: 400,
    };
    let direction = Direction {
        lost: 1,
        reordered: 3,
        variation,
    };
    directed.counts.one_way = Some(OneWay {
        forward: direction,
        backward: Direction::default(),
        lost_unknown: 0,
        lost_pending: 7,
    });
    let directed = vec![(0, replied(&[])), (4, directed)];
    [Vec::new(), rows, alike, directed]
        .into_iter()
        .map(|rows| encode(&batch("agent-1", schema, rows)).unwrap())
        .collect()
}

#[test]
fn any_bytes() {
    bolero::check!()
        .with_iterations(ROUNDS)
        .for_each(|bytes: &[u8]| accept(bytes));
}

#[test]
fn almost_a_batch() {
    let seeds = seeds();
    bolero::check!()
        .with_iterations(ROUNDS)
        .with_type::<(u8, u16, Vec<(u16, u8)>)>()
        .for_each(|(seed, cut, edits)| {
            let mut bytes = seeds[usize::from(*seed) % seeds.len()].clone();
            if *cut < 256 {
                bytes.truncate(usize::from(*cut));
            }
            for (at, byte) in edits.iter().take(4) {
                if let Some(place) = (usize::from(*at)).checked_rem(bytes.len()) {
                    bytes[place] = *byte;
                }
            }
            accept(&bytes);
        });
}

/// Columns and bits of any kind behind a prelude that is right, so that the columns themselves are read.
#[test]
fn a_prelude_and_any_columns() {
    let prelude = prelude();
    bolero::check!()
        .with_iterations(ROUNDS)
        .with_type::<(u16, Vec<u8>, Vec<u8>)>()
        .for_each(|(rows, columns, bits)| {
            // Constant columns stand for those that were not drawn: 19 in format 2, 31 in format 3.
            let (format, constant) = [(2, 19), (3, 31)][usize::from(*rows % 2)];
            let columns: Vec<u8> = columns
                .iter()
                .copied()
                .chain([0; 62].into_iter().take(2 * constant))
                .collect();
            let length = (columns.len() as u32).to_be_bytes();
            let mut bytes = prelude.clone();
            bytes[0] = format;
            bytes.extend(u32::from(*rows % 20_000).to_be_bytes());
            bytes.extend(length.iter().chain(&length));
            bytes.extend(columns.iter().chain(bits));
            accept(&bytes);
        });
}

/// A few bytes that ask for the most: every row of the largest table with 256 buckets, all out of constant columns.
#[test]
fn a_bomb_is_refused() {
    let mut columns = vec![0, 0, 0, 0]; // no gaps between rows, nothing scheduled
    columns.extend([0, 0xff, 0xff, 0xff, 0xff, 0x0f]); // 2^32 - 1 replied
    columns.extend([0; 18]); // of the seven other classes, overdue and open: none
    columns.extend([0, 0xff, 0x01]); // 255 buckets and the last
    columns.extend([0; 12]); // the first slot is 0, the next follows at once, ...
    let mut bytes = prelude();
    bytes.extend((limits::PATHS as u32).to_be_bytes());
    bytes.extend((columns.len() as u32).to_be_bytes());
    bytes.extend((columns.len() as u32).to_be_bytes());
    bytes.extend(&columns);
    let error = decode(&bytes).unwrap_err().to_string();
    assert!(
        error.contains("row 4096: the batch has too many buckets"),
        "{error}"
    );
}

/// The prelude of a batch that is not packed, up to the number of rows.
fn prelude() -> Vec<u8> {
    let mut bytes = seeds().swap_remove(0);
    bytes[1] = 0;
    bytes.truncate(4 + "agent-1".len() + 8 + 8 + 4 + 8 + 4 + 4 + 1);
    bytes
}
