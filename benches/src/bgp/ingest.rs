//! How many UPDATEs a core takes in: read, looked up and remembered.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufReader, Write as _},
    net::IpAddr,
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use bgpkit_parser::BgpkitParser;
use leeward_agent::bgp::{
    mrt::Recording,
    observer::Observer,
    peer::{Event, Feed},
    tables::Extent,
    watch::{Watched, Watchlist},
    wire::{self, Dialect, Speaker},
};
use leeward_common::time::Timestamp;

use super::{corpus, peers};
use crate::{
    figure::{Figures, Target},
    measure::median,
    process,
};

/// Messages of the corpus, and of how many prefixes they are.
const MESSAGES: usize = 400_000;
const PREFIXES: u32 = 200_000;

/// Prefixes that are watched, of these.
pub const WATCHED: u32 = 10_000;

/// Routes of the table that GoBGP takes too.
const DUMPED: u32 = 200_000;

const ROUNDS: usize = 3;

/// The watch-list: every so manieth prefix.
#[must_use]
pub fn watchlist(watched: u32, of: u32) -> Watchlist {
    let mut list = Watchlist::default();
    for at in 0..watched {
        let watched = Watched {
            prefix: corpus::prefix(at * (of / watched), false),
            region: "dub".parse().expect("an id"),
            origins: BTreeSet::new(),
        };
        list.add(watched).expect("each prefix is watched once");
    }
    list
}

/// An observer with a table that counts, and the feed whose it is.
#[must_use]
pub fn observer(is_full: bool) -> (Observer, Feed) {
    let extent = Extent {
        is_full,
        ..Extent::default()
    };
    (
        Observer::new(watchlist(WATCHED, PREFIXES)).keeping(extent),
        Feed::session(IpAddr::from([192, 0, 2, 1])),
    )
}

fn at(micros: u64) -> Timestamp {
    Timestamp::from_unix_us(1_700_000_000_000_000 + micros)
}

/// CPU time of some work of this process.
fn cpu_of(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let own = std::process::id();
    let before = process::cpu(own)?;
    work()?;
    Ok(process::cpu(own)? - before)
}

/// Reads, looks up and remembers all messages, as of one session.
fn take_in(messages: &[Vec<u8>], is_full: bool) -> anyhow::Result<Duration> {
    let (mut observer, feed) = observer(is_full);
    let dialect = Dialect::usual(Speaker::External);
    observer.on(
        at(0),
        &feed,
        &Event::Up {
            system: corpus::PEER,
        },
    );
    observer.on(
        at(0),
        &feed,
        &leeward_agent::bgp::peer::end_of_table(leeward_agent::bgp::update::Family::V4),
    );
    observer.pass(at(11_000_000));
    observer.pass(at(22_000_000));
    cpu_of(|| {
        for (number, message) in (0..).zip(messages) {
            let update = wire::update(message, &dialect)?;
            // A million a second of virtual time, so that windows and ticks have their share.
            let now = at(22_000_000 + number);
            observer.on(now, &feed, &Event::Update(update));
            if number % 1_000 == 0 {
                drop(observer.take_events());
            }
        }
        Ok(())
    })
}

/// The same of a recording.
fn replay(recording: &Path, is_full: bool) -> anyhow::Result<(Duration, u64)> {
    let (mut observer, _) = observer(is_full);
    let mut count = 0;
    let cpu = cpu_of(|| {
        for record in Recording::new(open(recording)?).flatten() {
            for (feed, event) in &record.events {
                count += u64::from(matches!(event, Event::Update(_)));
                observer.on(record.at, feed, event);
            }
            if count.is_multiple_of(1_000) {
                drop(observer.take_events());
            }
        }
        Ok(())
    })?;
    Ok((cpu, count))
}

fn open(recording: &Path) -> anyhow::Result<Box<dyn std::io::Read>> {
    let file = BufReader::new(
        File::open(recording).with_context(|| format!("open {}", recording.display()))?,
    );
    let is_packed = recording.extension().is_some_and(|ending| ending == "gz");
    Ok(match is_packed {
        true => Box::new(flate2::read::MultiGzDecoder::new(file)),
        false => Box::new(file),
    })
}

/// bgpkit-parser alone, into its own messages.
fn bgpkit(recording: &Path) -> anyhow::Result<Duration> {
    cpu_of(|| {
        let parser = BgpkitParser::from_reader(open(recording)?);
        let records = parser.into_record_iter().count();
        anyhow::ensure!(records > 0, "bgpkit-parser read nothing");
        Ok(())
    })
}

fn per_second(
    count: f64,
    mut cpu: impl FnMut() -> anyhow::Result<Duration>,
) -> anyhow::Result<f64> {
    let rounds = (0..ROUNDS).map(|_| cpu().map(|cpu| count / cpu.as_secs_f64()));
    let rounds = rounds.collect::<anyhow::Result<Vec<_>>>()?;
    median(rounds).context("no rounds")
}

/// Measures it.
///
/// # Errors
///
/// Returns what could not be measured.
pub fn measure(figures: &mut Figures, data: Option<&Path>) -> anyhow::Result<()> {
    let messages = corpus::churn(1, MESSAGES, PREFIXES);
    let mut recording = tempfile::NamedTempFile::new()?;
    corpus::record(&messages, std::io::BufWriter::new(&mut recording))?;
    recording.flush()?;
    let count = messages.len() as f64;
    let mut theirs = Vec::new();
    let dumped = per_second(count, || peers::bgpdump(recording.path()));
    theirs.push(("bgpdump, of MRT into lines", dumped));
    theirs.push((
        "bgpkit-parser, of MRT into messages",
        per_second(count, || bgpkit(recording.path())),
    ));
    for (name, is_full) in [
        (
            format!("UPDATEs per second of CPU: read, looked up among {WATCHED}, remembered"),
            false,
        ),
        ("the same, with a full table".to_owned(), true),
    ] {
        let ours = per_second(count, || take_in(&messages, is_full))?;
        for (peer, rate) in &theirs {
            let figure = figures.figure(name.clone(), ours, "1/s");
            let figure = figure.target(Target::AtLeast(500_000.0));
            match rate {
                Ok(rate) => figures.push(figure.beside(*peer, *rate)),
                Err(error) => {
                    eprintln!("SKIPPED: bgp: {peer}: {error:#}");
                    figures.push(figure);
                }
            }
        }
    }
    drop(messages);
    tables(figures)?;
    windows(figures)?;
    match data {
        Some(folder) => recorded(figures, folder),
        None => Ok(()),
    }
}

/// A dumped table, which GoBGP takes too.
fn tables(figures: &mut Figures) -> anyhow::Result<()> {
    let mut dump = tempfile::NamedTempFile::new()?;
    corpus::dump(DUMPED, 40_000, std::io::BufWriter::new(&mut dump))?;
    dump.flush()?;
    let count = f64::from(DUMPED);
    let ours = per_second(count, || Ok(replay(dump.path(), true)?.0))?;
    let name = format!("routes per second of CPU, of a dumped table of {DUMPED}");
    for (peer, cpu) in [
        ("GoBGP", peers::gobgp(dump.path())),
        ("bgpdump", peers::bgpdump(dump.path())),
    ] {
        match cpu {
            Ok(cpu) => figures.push(
                figures
                    .figure(name.clone(), ours, "1/s")
                    .beside(peer, count / cpu.as_secs_f64()),
            ),
            Err(error) => figures.skip(
                format!("{name} beside {peer}"),
                "1/s",
                &format!("{error:#}"),
            ),
        }
    }
    Ok(())
}

/// What the end of a window takes, during which nothing else is heard.
fn windows(figures: &mut Figures) -> anyhow::Result<()> {
    const FEEDS: u8 = 8;
    let mut observer = Observer::new(watchlist(WATCHED, WATCHED));
    let all: Vec<_> = (0..WATCHED).map(|at| corpus::prefix(at, false)).collect();
    let dialect = Dialect::usual(Speaker::Hearsay);
    for source in 0..FEEDS {
        let feed = Feed::session(IpAddr::from([192, 0, 2, source]));
        observer.on(
            at(0),
            &feed,
            &Event::Up {
                system: corpus::PEER,
            },
        );
        for (number, announced) in all.chunks(200).enumerate() {
            let path = corpus::path(number as u32);
            let message = corpus::update(&corpus::Told {
                announced,
                path: &path,
                ..corpus::Told::default()
            });
            observer.on(
                at(1),
                &feed,
                &Event::Update(wire::update(&message, &dialect)?),
            );
        }
    }
    observer.pass(at(11_000_000));
    observer.pass(at(22_000_000));
    observer.take_events();
    let mut now = 22_000_000;
    let nanoseconds = crate::measure::nanoseconds(|| {
        let start = at(now);
        now += 10_000_000;
        observer.close_window(at(now), start)
    });
    let name = format!("end of a window of {WATCHED} watched prefixes and {FEEDS} feeds");
    figures.push(figures.figure(name, nanoseconds / 1e6, "ms"));
    Ok(())
}

/// Recordings of real routers.
fn recorded(figures: &mut Figures, folder: &Path) -> anyhow::Result<()> {
    for recording in peers::recordings(folder)? {
        let file = recording.file_name().unwrap_or_default().display();
        let name = format!("UPDATEs per second of CPU, {file}");
        let (_, count) = replay(&recording, true)?;
        if count == 0 {
            eprintln!("SKIPPED: bgp: {file}: no recording of UPDATEs");
            continue;
        }
        let ours = per_second(count as f64, || Ok(replay(&recording, true)?.0))?;
        let figure = figures.figure(name, ours, "1/s");
        figures.push(match peers::bgpdump(&recording) {
            // It tells time in hundredths of a second.
            Ok(cpu) if cpu > Duration::ZERO => {
                figure.beside("bgpdump", count as f64 / cpu.as_secs_f64())
            }
            _ => figure,
        });
    }
    Ok(())
}
