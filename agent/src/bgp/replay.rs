//! `leeward-agent bgp replay`: recordings through the same reading, gates and measures as live feeds, and what came of it.
//!
//! A file is a packet capture (BGP or BMP within TCP) or an MRT file, plain or packed by gzip or bzip2; its first bytes tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::File,
    io::{BufReader, Read, Seek as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use ipnet::IpNet;
use leeward_common::{
    bgp::{FeedState, Prefix, PrefixWindow, RoutingEvent},
    id::RegionId,
    time::Timestamp,
};
use rustbgpd_wire::OpenMessage;

use super::{
    mrt,
    observer::Observer,
    pcap::{self, Piece, Way},
    peer::{Event, Feed},
    watch::{Watched, Watchlist},
};
use stream::Stream;

mod account;
mod stream;

pub use account::Account;

/// How long a window of a recording is.
const WINDOW: Duration = Duration::from_secs(60);

/// What replaying gives beside the account of each file.
#[derive(Debug)]
pub struct Replayed {
    /// The account of each file that could be opened.
    pub files: Vec<(PathBuf, Account)>,
    /// The windows in which something happened to a watched prefix.
    pub windows: Vec<PrefixWindow>,
    /// What would have been told at once.
    pub events: Vec<RoutingEvent>,
    /// The feeds at the end.
    pub feeds: Vec<FeedState>,
}

/// Replays files, one after the other, as one story.
///
/// # Errors
///
/// Returns which file could not be opened or read.
pub fn replay(files: &[PathBuf], watchlist: Watchlist) -> anyhow::Result<Replayed> {
    let mut player = Player::new(watchlist);
    let mut accounts = Vec::new();
    for file in files {
        let account = player
            .play(file)
            .with_context(|| format!("{} cannot be replayed", file.display()))?;
        accounts.push((file.clone(), account));
    }
    player.close();
    Ok(Replayed {
        files: accounts,
        windows: player.windows,
        events: player.events,
        feeds: player.observer.feeds(),
    })
}

/// What to replay.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A prefix to watch, like 192.0.2.0/24. Can be given several times.
    #[arg(long, value_name = "PREFIX")]
    watch: Vec<Prefix>,
    /// The recordings.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// The command: replays files, and prints what came of it. True, for there is no way to be unwell.
///
/// # Errors
///
/// Returns which file could not be opened or read.
pub fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    print!("{}", text(&arguments.watch, &arguments.files)?);
    Ok(true)
}

fn text(watch: &[Prefix], files: &[PathBuf]) -> anyhow::Result<String> {
    let region = RegionId::parse("recorded").context("the region of recordings has a name")?;
    let mut watchlist = Watchlist::default();
    for prefix in watch {
        let watched = Watched {
            prefix: IpNet::new(prefix.address(), prefix.length())?,
            region: region.clone(),
            origins: BTreeSet::new(),
        };
        // One that is given twice is watched once.
        _ = watchlist.add(watched);
    }
    replay(files, watchlist).map(|replayed| told(&replayed))
}

/// The same as text.
#[must_use]
pub fn told(replayed: &Replayed) -> String {
    let mut text = String::new();
    for (file, account) in &replayed.files {
        _ = writeln!(text, "{}\n{account}", file.display());
    }
    _ = writeln!(text, "feeds");
    for feed in &replayed.feeds {
        let FeedState {
            updates,
            announced,
            withdrawn,
            ..
        } = feed;
        _ = writeln!(
            text,
            "  {}  AS{}  {:?}, {updates} updates, {announced} announced, {withdrawn} withdrawn",
            feed.feed, feed.system, feed.standing
        );
    }
    for event in &replayed.events {
        _ = writeln!(text, "{}  {}  {:?}", event.at, event.feed, event.what);
    }
    for window in &replayed.windows {
        _ = writeln!(
            text,
            "{}  {}  {:?}  sight {:?}",
            window.start, window.prefix, window.counts, window.sight
        );
    }
    text
}

struct Player {
    observer: Observer,
    window: Option<Timestamp>,
    windows: Vec<PrefixWindow>,
    events: Vec<RoutingEvent>,
    now: Timestamp,
}

impl Player {
    fn new(watchlist: Watchlist) -> Self {
        Self {
            observer: Observer::new(watchlist),
            window: None,
            windows: Vec::new(),
            events: Vec::new(),
            now: Timestamp::EPOCH,
        }
    }

    fn play(&mut self, file: &Path) -> anyhow::Result<Account> {
        let mut opened = File::open(file)?;
        let mut first = [0; 4];
        let read = pcap::read_up_to(&mut opened, &mut first)?;
        opened.rewind()?;
        let input = BufReader::new(opened);
        match first.get(..read).unwrap_or_default() {
            [0x1f, 0x8b, ..] => self.unpacked(flate2::read::MultiGzDecoder::new(input), "gzip"),
            [b'B', b'Z', b'h', ..] => {
                self.unpacked(bzip2::read::MultiBzDecoder::new(input), "bzip2")
            }
            _ => self.unpacked(input, "plain"),
        }
    }

    fn unpacked(&mut self, mut input: impl Read + Send, packing: &str) -> anyhow::Result<Account> {
        let mut first = [0; 4];
        let read = pcap::read_up_to(&mut input, &mut first)?;
        let input = std::io::Cursor::new(first[..read].to_vec()).chain(input);
        let is_capture = matches!(
            u32::from_be_bytes(first),
            0xa1b2_c3d4 | 0xd4c3_b2a1 | 0xa1b2_3c4d | 0x4d3c_b2a1 | 0x0a0d_0d0a
        );
        let mut account = match is_capture {
            true => self.capture(input),
            false => self.recording(input),
        };
        account.format = match (is_capture, packing) {
            (true, "plain") => "packet capture",
            (true, _) => "packed packet capture",
            (false, "gzip") => "MRT, gzip",
            (false, "bzip2") => "MRT, bzip2",
            (false, _) => "MRT",
        };
        Ok(account)
    }

    fn recording(&mut self, input: impl Read) -> Account {
        let mut account = Account::default();
        for record in mrt::Recording::new(input) {
            match record {
                Ok(record) => {
                    account.understand(record.kind);
                    self.on(record.at, &record.events, &mut account);
                }
                Err(refused) => account.refuse(&refused),
            }
        }
        account
    }

    fn capture(&mut self, input: impl Read + Send) -> Account {
        let mut account = Account::default();
        let mut streams: BTreeMap<Way, Stream> = BTreeMap::new();
        let mut opens: BTreeMap<Way, OpenMessage> = BTreeMap::new();
        let read = pcap::read(input, |at, way, piece| {
            let stream = streams.entry(way).or_default();
            let events = stream.take(way, &piece, &mut opens, &mut account);
            let is_over = piece == Piece::End;
            if is_over {
                account.follow(streams.remove(&way));
                opens.remove(&way);
            }
            self.on(at, &events, &mut account);
        });
        match read {
            Ok(packets) => account.packets = Some(packets),
            Err(refused) => {
                account.packets = Some(pcap::Packets::default());
                account.refuse(&refused);
            }
        }
        for stream in streams.into_values() {
            account.follow(Some(stream));
        }
        account
    }

    fn on(&mut self, at: Timestamp, events: &[(Feed, Event)], account: &mut Account) {
        // Time never runs backwards, whatever the order of files.
        self.now = self.now.max(at);
        let start = *self.window.get_or_insert(self.now);
        if self.now.since(start) >= WINDOW {
            self.close();
        }
        for (feed, event) in events {
            if let Event::Update(update) = event {
                account.events(update);
            }
            self.observer.on(self.now, feed, event);
        }
        self.events.extend(self.observer.take_events());
    }

    fn close(&mut self) {
        if let Some(start) = self.window.replace(self.now) {
            let windows = self.observer.close_window(self.now, start);
            self.windows
                .extend(windows.into_iter().filter(|window| !window.is_quiet()));
            self.events.extend(self.observer.take_events());
        }
    }
}

#[cfg(test)]
#[path = "replay/tests.rs"]
mod tests;
