//! What rollups cost in bytes and time, how long a history takes, and how large a store of 400 days becomes.
//!
//! One region's agent reports about its links each second, as agents do; the journal of an hour is folded into rollups. Sizes are
//! those of RocksDB's files after a compaction, keys and all. Histories are read from a day of another, smaller agent.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use leeward_aggregator::{
    config::Retention,
    history::{
        plan::Plan,
        read::{LIMITS as HISTORY, Link, read},
    },
    rollup::step::{LIMITS, ROWS, step},
    store::{
        Read, Store, Writes,
        key::{Column, Epoch, Position},
        record::v1,
        rocks::Rocks,
    },
};
use leeward_benches::{
    figure::{Figures, Target},
    samples::Random,
};
use leeward_common::{
    histogram::Schema,
    id::{AgentId, RegionId, TargetId},
    report::{Class, Counts, Path, ProbeKind, Report, Rtt, Window},
    tally::Tally,
    time::Timestamp,
    wire::batch::{self, Batch},
};

/// Links of one agent.
const LINKS: u32 = 100;

/// Regions that they lead to.
const REGIONS: u32 = 10;

/// The links that the extrapolation speaks of, and for how many days.
const MANY_LINKS: f64 = 10_000.0;
const DAYS: f64 = 400.0;

/// Where time begins: a full day.
const BASE: Timestamp = Timestamp::from_unix_us(1_699_920_000_000_000);

/// How links are: each has a round-trip time of its own from 1 to 250 ms, about which its probes spread.
#[derive(Clone, Copy, Debug)]
struct Spread {
    name: &'static str,
    /// Deviation of the time's logarithm: 0.01 is 1 %.
    sigma: f64,
    /// Share of lost probes.
    loss: f64,
}

/// A quiet link, an ordinary one, and what it costs at worst.
const SPREADS: [Spread; 3] = [
    Spread {
        name: "1 %",
        sigma: 0.01,
        loss: 0.0,
    },
    Spread {
        name: "5 %",
        sigma: 0.05,
        loss: 0.001,
    },
    Spread {
        name: "20 %, lossy",
        sigma: 0.20,
        loss: 0.02,
    },
];

/// Probes of a link in a second.
const PROBES: u32 = 10;

fn main() -> anyhow::Result<()> {
    let mut figures = Figures::new("store");
    for spread in SPREADS {
        size(&mut figures, spread)?;
    }
    histories(&mut figures)?;
    figures.print();
    Ok(())
}

/// The median round-trip time of a link.
fn base_us(link: u32, links: u32) -> f64 {
    1_000.0 * 250f64.powf(f64::from(link) / f64::from(links))
}

/// What the probes of each link find in a second.
fn second(random: &mut Random, links: u32, spread: Spread) -> Vec<Report> {
    let link = |link: u32| {
        let base = base_us(link, links);
        let probes = (0..PROBES).map(|_| {
            let rtt = base * (spread.sigma * random.normal()).exp();
            (random.even() >= spread.loss).then_some(rtt as u32)
        });
        report(probes.collect::<Vec<_>>())
    };
    (0..links).map(link).collect()
}

/// An hour of every link, folded and compacted.
fn size(figures: &mut Figures, spread: Spread) -> anyhow::Result<()> {
    let name = spread.name;
    let dir = tempfile::tempdir()?;
    let mut store = Rocks::open(dir.path())?;
    let mut journal = Journal::new(&mut store)?;
    let mut random = Random::new(1);
    let mut sums = vec![Tally::new(Schema::TwoDigits); LINKS as usize];
    for at in 0..3_600 {
        let reports = second(&mut random, LINKS, spread);
        for (sum, report) in sums.iter_mut().zip(&reports) {
            sum.add(&report.rtt)?;
        }
        journal.append(&mut store, at, reports)?;
    }
    journal.flush(&mut store)?;
    let links = (0..).zip(&sums);
    let bits: f64 = links
        .map(|(link, sum)| information(sum, base_us(link, LINKS), spread.sigma))
        .sum();
    let least = bits / 8.0 / f64::from(LINKS);
    let began = Instant::now();
    let (reports, rows) = fold(&store)?;
    let took = began.elapsed().as_secs_f64();
    store.compact()?;
    let per_row = |column: Column| -> anyhow::Result<f64> {
        let health = store.aside().health()?;
        let size = health.columns.into_iter().find(|(own, _)| *own == column);
        Ok(size.map_or(0.0, |(_, size)| size.file_bytes as f64) / count(&store, column)? as f64)
    };
    let (minute, hour) = (per_row(Column::Minutes)?, per_row(Column::Hours)?);
    figures.push(figures.figure(format!("a minute's row, {name}"), minute, "B"));
    let figure = figures.figure(format!("an hour's row, {name}"), hour, "B");
    figures.push(figure.beside("the entropy of its counts", least));
    let gigabytes = hour * MANY_LINKS * DAYS * 24.0 / 1e9;
    let figure = figures.figure(
        format!("400 d of hours x 10,000 links, {name}"),
        gigabytes,
        "GB",
    );
    let figure = figure.beside("the entropy of the counts", gigabytes * least / hour);
    figures.push(figure.target(Target::AtMost(15.0)));
    let minutes = minute * MANY_LINKS * 30.0 * 1_440.0 / 1e9;
    let figure = figures.figure(
        format!("30 d of minutes x 10,000 links, {name}"),
        minutes,
        "GB",
    );
    figures.push(figure);
    figures.push(figures.figure(format!("fold, {name}"), reports as f64 / took, "reports/s"));
    figures.push(figures.figure(
        format!("rows written, {name}"),
        rows as f64 / took,
        "rows/s",
    ));
    Ok(())
}

/// Bits that even a code which knew the link's distribution would need for how many samples each bucket has, if it knew how many
/// there are together: the physical limit of whoever keeps them exactly.
fn information(sum: &Tally, base_us: f64, sigma: f64) -> f64 {
    let schema = sum.schema();
    let buckets = sum.buckets();
    let samples: u64 = buckets.iter().map(|own| own.1).sum();
    let density = |us: f64| {
        let deviation = (us / base_us).ln() / sigma;
        (-deviation * deviation / 2.0).exp() / (us * sigma * std::f64::consts::TAU.sqrt())
    };
    let mut buckets = buckets.into_iter().peekable();
    let bits = (1..schema.slots()).map(|slot| {
        let (low, high) = (
            f64::from(schema.lowest(slot)),
            f64::from(schema.highest(slot)) + 1.0,
        );
        // Simpson's rule.
        let inner = density(low) + 4.0 * density((low + high) / 2.0) + density(high);
        let expected = samples as f64 * (high - low) * inner / 6.0;
        let count = buckets.next_if(|own| own.0 == slot).map_or(0, |own| own.1);
        poisson_bits(count, expected)
    });
    bits.sum::<f64>() - poisson_bits(samples, samples as f64)
}

/// How surprising it is that there are so many where so many are expected.
fn poisson_bits(count: u64, expected: f64) -> f64 {
    let factorial: f64 = (1..=count).map(|number| (number as f64).ln()).sum();
    let expected = expected.max(f64::MIN_POSITIVE);
    (expected + factorial - count as f64 * expected.ln()) * std::f64::consts::LOG2_E
}

/// A day of one agent, and what a history of one of its links takes.
fn histories(figures: &mut Figures) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut store = Rocks::open(dir.path())?;
    let mut journal = Journal::new(&mut store)?;
    let mut random = Random::new(2);
    for at in 0..86_400 {
        journal.append(&mut store, at, second(&mut random, REGIONS, SPREADS[1]))?;
    }
    journal.flush(&mut store)?;
    fold(&store)?;
    let end = BASE + Duration::from_secs(86_400);
    let link = Link {
        from: RegionId::parse("here")?,
        to: RegionId::parse("region-3")?,
        kind: None,
    };
    for (name, step) in [("1 s", 1), ("1 min", 60), ("1 h", 3_600)] {
        let step = Some(Duration::from_secs(step));
        let plan = Plan::new(end, &Retention::default(), (BASE, end), step)
            .map_err(|refused| anyhow::anyhow!("{}: {}", refused.why, refused.what_to_do))?;
        let mut times: Vec<f64> = Vec::new();
        for _ in 0..9 {
            let began = Instant::now();
            let found = read(&store, &link, &plan, HISTORY, &|| true)
                .map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
            anyhow::ensure!(
                found.points.len() as u64 == plan.points(),
                "a point is missing"
            );
            black_box(found);
        }
        times.sort_by(f64::total_cmp);
        figures.push(figures.figure(format!("history of 24 h at {name}, median"), times[4], "ms"));
    }
    Ok(())
}

/// Folds all that the journal holds; reports and rows.
fn fold(store: &Rocks) -> anyhow::Result<(u64, u64)> {
    let (reader, aside) = (store.reader(), store.aside());
    let (mut reports, mut rows) = (0, 0);
    let until = BASE + Duration::from_secs(2 * 86_400);
    loop {
        let done = step(&*reader, &*aside, until, (LIMITS, ROWS), &mut || true)?;
        reports += done.reports;
        rows += done.rows;
        if !done.more {
            return Ok((reports, rows));
        }
    }
}

fn count(store: &dyn Read, column: Column) -> anyhow::Result<u64> {
    let mut count = 0;
    store.scan(column, &[], &mut |_, _| {
        count += 1;
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(count)
}

/// Batches on their way to the journal, written a minute at a time.
struct Journal {
    epoch: Epoch,
    writes: Writes,
}

impl Journal {
    fn new(store: &mut Rocks) -> anyhow::Result<Self> {
        let epoch = Epoch {
            agent: AgentId::parse("here-1")?,
            boot: 1,
        };
        let path = |link: u32| {
            Ok(Path {
                target: TargetId::parse(&format!("target-{link}.v4"))?,
                kind: ProbeKind::Icmp,
                region: Some(RegionId::parse(&format!("region-{}", link % REGIONS))?),
            })
        };
        let paths = (0..LINKS).map(path).collect::<anyhow::Result<Vec<_>>>()?;
        let mut writes = Writes::default();
        writes.table(&epoch, 1, &paths);
        store.commit(&writes)?;
        Ok(Self {
            epoch,
            writes: Writes::default(),
        })
    }

    fn append(
        &mut self,
        store: &mut Rocks,
        second: u64,
        reports: Vec<Report>,
    ) -> anyhow::Result<()> {
        let window = Window {
            start: BASE + Duration::from_secs(second),
            length: Duration::from_secs(1),
        };
        let batch = Batch {
            agent: self.epoch.agent.clone(),
            boot_epoch: self.epoch.boot,
            sequence: second,
            table: 1,
            window,
            until: window.end(),
            health: None,
            schema: Schema::TwoDigits,
            rows: (0..).zip(reports).collect(),
        };
        let record = v1::Record::Batch(v1::Batch {
            region: RegionId::parse("here")?,
            bytes: batch::encode(&batch)?,
        });
        self.writes.journal(Position::at(window.end()), &record);
        if second % 60 == 59 {
            self.flush(store)?;
        }
        Ok(())
    }

    fn flush(&mut self, store: &mut Rocks) -> anyhow::Result<()> {
        Ok(store.commit(&std::mem::take(&mut self.writes))?)
    }
}

/// What an agent makes of probes: the round-trip times of those that were answered.
fn report(probes: Vec<Option<u32>>) -> Report {
    let mut report = Report {
        counts: Counts::default(),
        rtt: Rtt::empty(Schema::TwoDigits),
    };
    for probe in probes {
        report.counts.scheduled += 1;
        match probe {
            Some(rtt_us) => {
                report.rtt.record(rtt_us);
                report.counts.end(Class::Replied);
            }
            None => {
                report.counts.overdue += 1;
                report.counts.end(Class::Lost);
            }
        }
    }
    report
}
