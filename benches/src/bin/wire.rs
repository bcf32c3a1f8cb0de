//! What a window costs on the wire and in time, beside HdrHistogram's own encoding of the same samples.
//!
//! A window is one path's report: counts, minimum, maximum, sum and histogram. The peer's bytes and times are of the
//! histogram alone, in its V2 form without compression, which for so few samples is smaller and faster than with.

use hdrhistogram::{
    Histogram as Hdr,
    serialization::{Deserializer, Serializer, V2Serializer},
};
use leeward_benches::{
    figure::{Figures, Target},
    measure::{nanoseconds, nanoseconds_beside},
    samples::{Shape, batch, windows},
};
use leeward_common::{
    histogram::{MAX_US, Schema},
    tally::Tally,
    wire::batch::{decode, encode, open},
};

/// A region's mesh at 10 Hz: the shape that the targets speak of.
const STEADY: Shape = Shape {
    paths: 1_000,
    probes: 10,
    base_us: (70_000.0, 70_000.0),
    sigma: 0.01,
    loss: 0.0,
};

const SHAPES: [(&str, Shape); 5] = [
    ("1,000 x 10, 70 ms", STEADY),
    (
        "1,000 x 10, 1-250 ms",
        Shape {
            base_us: (1_000.0, 250_000.0),
            ..STEADY
        },
    ),
    (
        "1,000 x 10, 1-250 ms, 5 %, lossy",
        Shape {
            base_us: (1_000.0, 250_000.0),
            sigma: 0.05,
            loss: 0.02,
            ..STEADY
        },
    ),
    (
        "1,000 x 100, 70 ms",
        Shape {
            probes: 100,
            ..STEADY
        },
    ),
    (
        "100 x 10, 70 ms",
        Shape {
            paths: 100,
            ..STEADY
        },
    ),
];

fn main() -> anyhow::Result<()> {
    let mut figures = Figures::new("wire");
    for (schema, digits, limit) in [(Schema::TwoDigits, 2, 10.0), (Schema::ThreeDigits, 3, 16.0)] {
        for (name, shape) in SHAPES {
            let windows = windows(1, shape);
            let bytes = encode(&batch(schema, &windows))?.len() as f64 / f64::from(shape.paths);
            let theirs: usize = windows
                .iter()
                .map(|window| v2(&hdr(digits, window)).len())
                .sum();
            let figure = figures
                .figure(format!("size, {digits} digits, {name}"), bytes, "B/window")
                .beside("HDR V2", theirs as f64 / f64::from(shape.paths));
            let has_target = name == SHAPES[0].0;
            figures.push(if has_target {
                figure.target(Target::AtMost(limit))
            } else {
                figure
            });
        }
        times(&mut figures, schema, digits)?;
    }
    figures.print();
    Ok(())
}

fn times(figures: &mut Figures, schema: Schema, digits: u8) -> anyhow::Result<()> {
    let windows = windows(2, STEADY);
    let batch = batch(schema, &windows);
    let bytes = encode(&batch)?;
    let hdrs: Vec<_> = windows.iter().map(|window| hdr(digits, window)).collect();
    let v2s: Vec<_> = hdrs.iter().map(v2).collect();
    let per_window = |ns: f64| ns / f64::from(STEADY.paths);
    let mut push = |name: &str, (ours, theirs): (f64, f64), peer: &str, target: Option<f64>| {
        let figure = figures
            .figure(
                format!("{name}, {digits} digits"),
                per_window(ours),
                "ns/window",
            )
            .beside(peer, per_window(theirs));
        figures.push(match target {
            Some(limit) => figure.target(Target::AtMost(limit)),
            None => figure,
        });
    };

    let encoded = nanoseconds_beside(
        || encode(&batch),
        || hdrs.iter().map(|hdr| v2(hdr).len()).sum::<usize>(),
    );
    push("encode", encoded, "HDR V2", None);
    let decoded = nanoseconds_beside(
        || decode(&bytes),
        || v2s.iter().map(|v2| read(v2).len()).sum::<u64>(),
    );
    push("decode", decoded, "HDR V2", None);
    // As an aggregator makes its rollups: row by row, into each path's last minute, as full as ten windows make it.
    let mut rollups = rollups(schema);
    let mut dense: Vec<_> = hdrs.clone();
    let merged = nanoseconds_beside(
        || merge(&mut rollups, &bytes),
        || {
            dense
                .iter_mut()
                .zip(&v2s)
                .for_each(|(into, v2)| into.add(read(v2)).expect("the same range"));
        },
    );
    push("decode + merge", merged, "HDR V2 + add", Some(60.0));
    let alone = nanoseconds(|| {
        rollups.iter_mut().zip(&batch.rows).for_each(|(into, row)| {
            into.add(&row.1.rtt).expect("the same schema");
        });
    });
    let add = nanoseconds(|| {
        dense
            .iter_mut()
            .zip(&hdrs)
            .for_each(|(into, hdr)| into.add(hdr).expect("the same range"));
    });
    push("merge", (alone, add), "HDR add", None);
    Ok(())
}

fn rollups(schema: Schema) -> Vec<Tally> {
    let mut rollups = vec![Tally::new(schema); STEADY.paths as usize];
    for seed in 10..20 {
        let window = leeward_benches::samples::batch(schema, &windows(seed, STEADY));
        for (into, (_, report)) in rollups.iter_mut().zip(&window.rows) {
            into.add(&report.rtt).expect("the same schema");
        }
    }
    rollups
}

fn merge(rollups: &mut [Tally], bytes: &[u8]) {
    let unread = open(bytes).expect("bytes that encode made");
    let read = unread.rows(|row, report| {
        rollups[row as usize]
            .add(&report.rtt)
            .expect("the same schema");
    });
    read.expect("bytes that encode made");
}

fn hdr(digits: u8, window: &[Option<u32>]) -> Hdr<u32> {
    let mut hdr =
        Hdr::new_with_bounds(1, MAX_US.into(), digits).expect("a range that HdrHistogram allows");
    for rtt_us in window.iter().flatten() {
        hdr.record(u64::from(*rtt_us).clamp(1, MAX_US.into()))
            .expect("within the range");
    }
    hdr
}

fn v2(hdr: &Hdr<u32>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    V2Serializer::new()
        .serialize(hdr, &mut bytes)
        .expect("a Vec takes any bytes");
    bytes
}

fn read(v2: &[u8]) -> Hdr<u32> {
    Deserializer::new()
        .deserialize(&mut &v2[..])
        .expect("bytes that HdrHistogram made")
}
