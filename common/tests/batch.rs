//! Batches: every one is read as it was written, and nothing that contradicts itself is.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use leeward_common::{
    histogram::{Histogram, Schema},
    id::AgentId,
    report::{Class, Direction, LocalHealth, OneWay, Report, Silence, Variation},
    wire::{
        WireError,
        batch::{Batch, BatchKey, decode, encode, peek},
        limits,
    },
};
use proptest::prelude::*;
use support::{any_batch, batch, report};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_batch_is_read_as_it_was_written(batch in any_batch()) {
        let bytes = encode(&batch).unwrap();
        prop_assert_eq!(&decode(&bytes).unwrap(), &batch);
        let Batch { agent, boot_epoch, sequence, table, window, until, .. } = batch;
        prop_assert_eq!(peek(&bytes).unwrap(), BatchKey { agent, boot_epoch, sequence, table, window, until });
    }

    #[test]
    fn no_prefix_of_a_batch_is_one(batch in any_batch(), cut in any::<prop::sample::Index>()) {
        let bytes = encode(&batch).unwrap();
        prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Bytes of the columns and bits of [`small`].
const COLUMNS: usize = 54;
const BITS: usize = 5;

/// Three rows: one of a steady path, one of a path that lost everything, one with a single late reply.
fn small() -> Batch {
    let schema = Schema::TwoDigits;
    let steady: Vec<_> = [70_000, 70_100, 70_900, 71_300, 69_500]
        .map(|rtt| (Class::Replied, rtt))
        .into();
    let rows = vec![
        (0, report(schema, &steady, 5, 0, 1)),
        (
            1,
            report(schema, &[(Class::Lost, 0), (Class::Lost, 0)], 5, 5, 8),
        ),
        (3, report(schema, &[(Class::Late, 1_500_000)], 5, 0, 4)),
    ];
    batch("iad-1", schema, rows)
}

/// The same with all that format 2 added: the first half of its window.
fn small_part() -> Batch {
    let mut part = small();
    part.until = part.window.start + Duration::from_millis(500);
    part.health = Some(LocalHealth {
        due: 15,
        not_sent: 1,
        send_errors: 2,
        lateness_mean_us: 80,
        lateness_max_us: 900,
        receive_overflow: 3,
        clock_step_us: 70_000,
    });
    let silences = [(0, 0), (7, 812_345), (0, 0)];
    for ((_, report), (unanswered, us)) in part.rows.iter_mut().zip(silences) {
        let lasts = Duration::from_micros(us);
        report.counts.silence = Some(Silence { unanswered, lasts });
    }
    part
}

#[test]
fn golden_bytes() {
    let golden = "
        02 00 01 05 6961642d31 0123456789abcdef 0000000000000011 00000001 000643706cbd3000 000f4240
        0007a120 01 0000000f 00000001 00000002 00000050 00000384 00000003 00011170
        00000003 0000003b 0000003b
        04000001 0005
        04050000 04000001 0000 04000200 0000 0000 0000 0000 04000500 04010804
        030300 058e14e008 04000500 01 0000 04010801 00b9ca31
        7c09ed041b";
    let bytes = encode(&small_part()).unwrap();
    assert_eq!(hex(&bytes), hex(&unhex(golden)));
    assert_eq!(decode(&unhex(golden)).unwrap(), small_part());
}

/// The same with all that format 3 added.
fn small_directed() -> Batch {
    let mut directed = small_part();
    let direction = |lost, reordered, pairs, sum_us, max_us| Direction {
        lost,
        reordered,
        variation: Variation {
            pairs,
            sum_us,
            max_us,
        },
    };
    directed.rows[0].1.counts.one_way = Some(OneWay {
        forward: direction(1, 2, 4, 900, 400),
        backward: direction(3, 0, 0, 0, 0),
        lost_unknown: 0,
        lost_pending: 0,
    });
    directed.rows[1].1.counts.one_way = Some(OneWay {
        lost_unknown: 5,
        lost_pending: 6,
        ..OneWay::default()
    });
    directed
}

#[test]
fn a_batch_that_tells_directions_apart_has_these_bytes() {
    let golden = "
        03 00 01 05 6961642d31 0123456789abcdef 0000000000000011 00000001 000643706cbd3000 000f4240
        0007a120 01 0000000f 00000001 00000002 00000050 00000384 00000003 00011170
        00000003 0000005a 0000005a
        04000001 0005
        04050000 04000001 0000 04000200 0000 0000 0000 0000 04000500 04010804
        030300 058e14e008 04000500 01 0000 04010801 00b9ca31
        04010700 030005 030100 030300 030200 0000 030400 0000 008407 01 009003 01
        7c09ed041b";
    let golden = unhex(golden);
    assert_eq!(decode(&golden).unwrap(), small_directed());
    // Its columns are worth packing; what zstd makes of them may change.
    let bytes = encode(&small_directed()).unwrap();
    let columns = golden.len() - BITS - 90;
    let packed = &bytes[columns..bytes.len() - BITS];
    assert_eq!((bytes[0], bytes[1]), (3, 1));
    assert_eq!(
        hex(&zstd::bulk::decompress(packed, 90).unwrap()),
        hex(&golden[columns..golden.len() - BITS])
    );
}

#[test]
fn a_batch_of_format_1_is_read_as_one_of_a_whole_window() {
    let golden = "
        01 00 01 05 6961642d31 0123456789abcdef 0000000000000011 00000001 000643706cbd3000 000f4240
        00000003 00000033 00000033
        04000001 0005
        04050000 04000001 0000 04000200 0000 0000 0000 0000 04000500 04010804
        030300 058e14e008 04000500 01 0000
        7c09ed041b";
    assert_eq!(decode(&unhex(golden)).unwrap(), small());
}

/// A packed batch of an earlier build is read for ever; what zstd makes of the same columns may change with it.
#[test]
fn a_packed_batch_of_old_is_read() {
    let schema = Schema::ThreeDigits;
    let rows = (0..40)
        .map(|row| {
            (
                row,
                report(schema, &[(Class::Replied, 1_000 * row); 3], 3, 0, 0),
            )
        })
        .collect();
    let batch = batch("fra-2.b", schema, rows);
    let golden = "
        01 01 02 07 6672612d322e62 0123456789abcdef 0000000000000011 00000001 000643706cbd3000 000f4240
        00000028 0000007f 0000004f
        28b52ffd207f3502004403000000030003003a00d00fd00f9808e807a404f403f403f403aa02fa01ac017e7c6e3e3e40
        3e3e3e0101290100010000010100000600b92eb8dd295c081c448e6b093002
        000cc33050a0408102050a14286200246200246200246200246200246200246200246200244219c2807102202294210c
        1827";
    assert_eq!(decode(&unhex(golden)).unwrap(), batch);
}

#[test]
fn equal_batches_have_equal_bytes() {
    let bytes = encode(&small()).unwrap();
    assert_eq!(encode(&decode(&bytes).unwrap()).unwrap(), bytes);
}

#[test]
fn a_batch_without_rows_is_one() {
    let empty = Batch {
        rows: Vec::new(),
        ..small()
    };
    assert_eq!(decode(&encode(&empty).unwrap()).unwrap(), empty);
}

#[test]
fn the_key_is_read_without_the_columns() {
    let mut bytes = encode(&small()).unwrap();
    let columns = bytes.len() - COLUMNS - BITS;
    bytes[columns..].fill(0xff);
    assert!(decode(&bytes).is_err());
    assert_eq!(
        peek(&bytes).unwrap().agent,
        AgentId::parse("iad-1").unwrap()
    );
}

/// Every way in which a batch may contradict itself, and a word of the answer.
#[test]
fn what_contradicts_itself_is_not_written() {
    type Spoil = fn(&mut Batch);
    let cases: [(Spoil, &str); 21] = [
        (|batch| batch.rows.swap(0, 1), "row 0 is out of order"),
        (|batch| batch.rows[1].0 = 0, "row 0 is out of order"),
        (
            |batch| batch.rows[2].0 = limits::PATHS as u32,
            "row 16384 is out of order or range",
        ),
        (
            |batch| batch.window.length = Duration::from_secs(7),
            "does not divide a minute",
        ),
        (
            |batch| batch.window.length = Duration::ZERO,
            "does not divide a minute",
        ),
        (
            |batch| batch.window.length = Duration::from_nanos(1_000_500),
            "does not divide a minute",
        ),
        (
            |batch| batch.window.length = Duration::from_secs(60),
            "does not begin at a multiple",
        ),
        (
            |batch| batch.until = batch.window.start - Duration::from_micros(1),
            "part of the window does not end within it",
        ),
        (
            |batch| batch.until = batch.window.end() + Duration::from_micros(1),
            "part of the window does not end within it",
        ),
        (
            |batch| {
                batch.rows[0].1.counts.silence = Some(Silence {
                    unanswered: 0,
                    lasts: Duration::from_secs(1),
                });
            },
            "row 0: its silence lasts and nothing is unanswered",
        ),
        (
            |batch| {
                let mut one_way = OneWay::default();
                one_way.backward.variation.max_us = 1;
                batch.rows[0].1.counts.one_way = Some(one_way);
            },
            "row 0: a delay variation's sum",
        ),
        (
            |batch| {
                let mut one_way = OneWay::default();
                one_way.forward.variation.pairs = 2;
                one_way.forward.variation.sum_us = 3;
                one_way.forward.variation.max_us = 1;
                batch.rows[0].1.counts.one_way = Some(one_way);
            },
            "row 0: a delay variation's sum",
        ),
        (
            |batch| batch.schema = Schema::ThreeDigits,
            "row 0: its histogram is of another schema",
        ),
        (
            |batch| batch.rows[0].1.counts.end(Class::Replied),
            "row 0: its histogram holds another number",
        ),
        (
            |batch| batch.rows[0].1.rtt.min_us = 60_000,
            "row 0: its minimum is not in its first bucket",
        ),
        (
            |batch| batch.rows[0].1.rtt.max_us = 80_000,
            "row 0: its minimum is not in its first bucket",
        ),
        (
            |batch| batch.rows[0].1.rtt.sum_us = 1,
            "row 0: its sum does not lie",
        ),
        (
            |batch| batch.rows[0].1.rtt.sum_us = u64::MAX,
            "row 0: its sum does not lie",
        ),
        (
            |batch| batch.rows[1].1.rtt.sum_us = 1,
            "row 1: it has a minimum, maximum or sum but no samples",
        ),
        (|batch| batch.rows[2].1.rtt.max_us += 1, "row 3: its s"),
        (
            |batch| batch.rows[2].1.rtt.min_us += 1,
            "row 3: its minimum exceeds its maximum",
        ),
    ];
    for (spoil, word) in cases {
        let mut batch = small();
        spoil(&mut batch);
        let error = encode(&batch).unwrap_err().to_string();
        assert!(error.contains(word), "{error:?} does not say {word:?}");
    }
}

/// Places in the golden bytes, what to put there, and a word of the answer.
#[test]
fn what_contradicts_itself_is_not_read() {
    let golden = encode(&small()).unwrap();
    let columns = golden.len() - COLUMNS - BITS;
    let cases: [(usize, u8, &str); 20] = [
        (0, 0, "its format is 0, this build reads 1 to 3"),
        (0, 4, "its format is 4, this build reads 1 to 3"),
        (1, 1, "not one zstd frame"),
        (1, 2, "its packing is 2"),
        (2, 9, "histogram schema 9 is not known"),
        (3, 0, "is not an agent id"),
        (4, b'/', "is not an agent id"),
        (36, 0x01, "does not begin at a multiple"),
        (40, 0x41, "does not divide a minute"),
        (41, 0x80, "part of the window does not end within it"),
        (45, 2, "its mark of local health is 2"),
        (46, 0x80, "number of rows"),
        (50, 0x80, "columns of a batch of"),
        (57, 0x37, "of two lengths"),
        (columns, 0x7f, "a column is cut short"),
        (columns + 3, 0x80, "the row after 2 is out of range"),
        (columns + 7, 4, "row 0: its last bucket is empty"),
        (columns + 38, 1, "row 3: it has more buckets than samples"),
        (columns + 43, 0x20, "row 3: a bucket is outside"),
        (columns + 50, 0x20, "row 0: its sum"),
    ];
    for (place, byte, word) in cases {
        let mut bytes = golden.clone();
        bytes[place] = byte;
        let error = decode(&bytes).unwrap_err().to_string();
        assert!(
            error.contains(word),
            "byte {place} = {byte:#x}: {error:?} does not say {word:?}"
        );
    }
}

#[test]
fn a_byte_more_or_less_is_not_a_batch() {
    let mut bytes = encode(&small()).unwrap();
    bytes.push(0);
    assert!(
        decode(&bytes)
            .unwrap_err()
            .to_string()
            .contains("bits follow the last row")
    );
    bytes.truncate(bytes.len() - 2);
    assert!(
        decode(&bytes)
            .unwrap_err()
            .to_string()
            .contains("row 3: the bits end")
    );
}

#[test]
fn limits_are_kept_on_both_sides() {
    let row = small().rows.swap_remove(1).1;
    let rows = (0..=limits::PATHS as u32)
        .map(|at| (at, row.clone()))
        .collect();
    let error = encode(&Batch { rows, ..small() }).unwrap_err();
    assert!(
        matches!(
            error,
            WireError::TooLarge {
                have: 16_385,
                limit: 16_384,
                ..
            }
        ),
        "{error}"
    );

    let mut wide = Histogram::new(Schema::TwoDigits);
    (0..256).for_each(|slot| wide.add(slot, 1));
    let mut report: Report = row;
    report.counts.classes[Class::Replied as usize] = 256;
    (report.rtt.max_us, report.rtt.sum_us, report.rtt.histogram) = (255, 255 * 128, wide);
    let rows = (0..4_097).map(|at| (at, report.clone())).collect();
    let error = encode(&Batch { rows, ..small() }).unwrap_err().to_string();
    assert!(error.contains("number of buckets in a batch"), "{error}");

    let error = decode(&vec![1; limits::BATCH_BYTES + 1]).unwrap_err();
    assert!(
        matches!(
            error,
            WireError::TooLarge {
                limit: limits::BATCH_BYTES,
                ..
            }
        ),
        "{error}"
    );
}

/// A frame that inflates to more than it announces stops at what was announced.
#[test]
fn inflating_is_capped() {
    let columns = [0u8; 100_000];
    let packed = zstd::bulk::compress(&columns, 1).unwrap();
    let mut bytes = encode(&small()).unwrap();
    bytes.truncate(bytes.len() - COLUMNS - BITS - 8);
    bytes[1] = 1;
    bytes.extend(99_999u32.to_be_bytes());
    bytes.extend((packed.len() as u32).to_be_bytes());
    bytes.extend(&packed);
    let error = decode(&bytes).unwrap_err().to_string();
    assert!(error.contains("cannot be inflated"), "{error}");
}
