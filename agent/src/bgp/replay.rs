//! `leeward-agent bgp replay`: recordings through the same reading, gates and measures as live feeds, and what came of it.
//!
//! A file is a packet capture (BGP or BMP within TCP) or an MRT file, plain or packed by gzip or bzip2; its first bytes tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    fs::File,
    io::{BufReader, Read, Seek as _},
    net::{IpAddr, SocketAddr},
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
use rustbgpd_wire::{Message, OpenMessage};

use super::{
    bmp::{self, Frame, Frames, Station},
    mrt,
    observer::Observer,
    pcap::{self, Piece, Way},
    peer::{Down, Event, Feed, View},
    update::Update,
    watch::{Watched, Watchlist},
    wire::{self, Dialect, Refused, Speaker},
};

/// The most different reasons for refusals that are told; more are counted together.
const REASONS_MAX: usize = 64;

/// How long a window of a recording is.
const WINDOW: Duration = Duration::from_secs(60);

/// What a file was, and what came of it.
#[derive(Debug, Default)]
pub struct Account {
    /// What it was taken for.
    pub format: &'static str,
    /// Packets, of a capture.
    pub packets: Option<pcap::Packets>,
    /// Streams of BMP that were followed to their end.
    pub bmp_streams: u64,
    /// Streams of BGP that were followed to their end.
    pub bgp_streams: u64,
    /// Streams that could not be followed to their end, and why.
    pub lost: Vec<String>,
    /// Streams of something else.
    pub other_streams: u64,
    /// Messages that were understood, by what they were.
    pub understood: BTreeMap<String, u64>,
    /// Prefixes announced.
    pub announced: u64,
    /// Prefixes withdrawn.
    pub withdrawn: u64,
    /// Announcements that malformed attributes made withdrawals of.
    pub malformed: u64,
    /// What was not understood, by the reason.
    pub refused: BTreeMap<String, u64>,
    /// What was understood but odd, by what is odd.
    pub odd: BTreeMap<String, u64>,
}

impl Account {
    fn understand(&mut self, kind: &str) {
        match self.understood.get_mut(kind) {
            Some(count) => *count += 1,
            None => _ = self.understood.insert(kind.to_owned(), 1),
        }
    }

    fn refuse(&mut self, refused: &Refused) {
        count(&mut self.refused, &refused.to_string());
    }

    fn events(&mut self, update: &Update) {
        self.announced += update.announced.len() as u64;
        self.withdrawn += update.withdrawn.len() as u64;
        if let Some(why) = &update.malformed {
            self.malformed += 1;
            count(
                &mut self.odd,
                &format!("announcement that counts as a withdrawal: {why}"),
            );
        }
    }
}

fn count(reasons: &mut BTreeMap<String, u64>, reason: &str) {
    let reason: String = reason
        .chars()
        .filter(|char| !char.is_control())
        .take(160)
        .collect();
    let is_room = reasons.len() < REASONS_MAX || reasons.contains_key(&reason);
    let reason = if is_room {
        reason
    } else {
        "other reasons".to_owned()
    };
    *reasons.entry(reason).or_default() += 1;
}

/// In words, for people.
impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  format      {}", self.format)?;
        if let Some(packets) = self.packets {
            writeln!(
                f,
                "  packets     {} of which {} TCP",
                packets.all, packets.tcp
            )?;
            writeln!(
                f,
                "  streams     {} BMP, {} BGP, {} of something else, {} lost",
                self.bmp_streams,
                self.bgp_streams,
                self.other_streams,
                self.lost.len()
            )?;
        }
        let understood: Vec<String> = self
            .understood
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        writeln!(
            f,
            "  understood  {}",
            if understood.is_empty() {
                "nothing".to_owned()
            } else {
                understood.join(", ")
            }
        )?;
        writeln!(
            f,
            "  prefixes    {} announced, {} withdrawn",
            self.announced, self.withdrawn
        )?;
        for lost in &self.lost {
            writeln!(f, "  lost        {lost}")?;
        }
        for (reason, count) in &self.refused {
            writeln!(f, "  refused     {count} x {reason}")?;
        }
        for (what, count) in &self.odd {
            writeln!(f, "  odd         {count} x {what}")?;
        }
        Ok(())
    }
}

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

impl Account {
    fn follow(&mut self, stream: Option<Stream>) {
        match stream.map(|stream| stream.protocol) {
            Some(Protocol::Bmp(..)) => self.bmp_streams += 1,
            Some(Protocol::Bgp(_)) => self.bgp_streams += 1,
            Some(Protocol::Other) => self.other_streams += 1,
            Some(Protocol::Lost(why)) => self.lost.push(why),
            Some(Protocol::Unknown) | None => {}
        }
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Stream {
    protocol: Protocol,
}

#[derive(Debug, Default)]
enum Protocol {
    #[default]
    Unknown,
    Bmp(Frames, Box<Station>),
    Bgp(Vec<u8>),
    Other,
    Lost(String),
}

impl Protocol {
    /// What bytes at the beginning of a message tell.
    fn of(bytes: &[u8], from: IpAddr) -> Self {
        let is_bgp = bytes.len() >= 16 && bytes[..16].iter().all(|byte| *byte == 0xff);
        let is_bmp = bytes.len() >= 6
            && matches!(bytes[0], 3 | 4)
            && usize::try_from(u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]))
                .is_ok_and(|length| (6..=bmp::MESSAGE_MAX).contains(&length))
            && bytes[5] <= 6;
        match (is_bgp, is_bmp) {
            (true, _) => Self::Bgp(Vec::new()),
            (_, true) => Self::Bmp(Frames::default(), Box::new(Station::new(from))),
            _ => Self::Other,
        }
    }
}

impl Stream {
    fn take(
        &mut self,
        way: Way,
        piece: &Piece,
        opens: &mut BTreeMap<Way, OpenMessage>,
        account: &mut Account,
    ) -> Vec<(Feed, Event)> {
        let (from, _): (SocketAddr, SocketAddr) = way;
        match piece {
            Piece::Start => {
                let events = self.lose(from.ip());
                account.follow(Some(std::mem::take(self)));
                events
            }
            Piece::End => self.lose(from.ip()),
            Piece::Missing(bytes) => {
                let missing = format!(
                    "{bytes} bytes are missing in the capture; going on at the next message"
                );
                count(&mut account.odd, &missing);
                let events = self.lose(from.ip());
                account.follow(Some(std::mem::take(self)));
                events
            }
            Piece::Bytes(bytes) => {
                // A capture may begin, or go on after a gap, within a message: that is passed over.
                if matches!(self.protocol, Protocol::Unknown | Protocol::Other) {
                    self.protocol = Protocol::of(bytes, from.ip());
                }
                self.read(way, bytes, opens, account)
            }
        }
    }

    fn read(
        &mut self,
        way: Way,
        bytes: &[u8],
        opens: &mut BTreeMap<Way, OpenMessage>,
        account: &mut Account,
    ) -> Vec<(Feed, Event)> {
        let mut events = Vec::new();
        let lost = match &mut self.protocol {
            Protocol::Bmp(frames, station) => {
                frames.push(bytes);
                follow_bmp(frames, station, account, &mut events)
            }
            Protocol::Bgp(buffer) => {
                buffer.extend_from_slice(bytes);
                follow_bgp(way, buffer, opens, account, &mut events)
            }
            _ => None,
        };
        if let Some(why) = lost {
            let way = format!("{} to {}: {why}", way.0, way.1);
            self.protocol = Protocol::Lost(way);
        }
        events
    }

    /// What is lost when this direction is.
    fn lose(&mut self, from: IpAddr) -> Vec<(Feed, Event)> {
        match &mut self.protocol {
            Protocol::Bmp(_, station) => station.lose(),
            Protocol::Bgp(_) => {
                let ended = Down::SessionLost("the connection ended".to_owned());
                vec![(recorded(from), Event::Down(ended))]
            }
            _ => Vec::new(),
        }
    }
}

fn follow_bmp(
    frames: &mut Frames,
    station: &mut Station,
    account: &mut Account,
    events: &mut Vec<(Feed, Event)>,
) -> Option<String> {
    loop {
        match frames.pop() {
            Ok(None) => return None,
            Err(lost) => return Some(lost.to_string()),
            Ok(Some(Frame::TooLong(length))) => {
                account.refuse(&Refused::new(
                    "BMP message",
                    format!("it has {length} bytes"),
                ));
            }
            Ok(Some(Frame::Message(message))) => match station.read(&message) {
                Ok(told) => {
                    account.understand(&format!("BMP {:?}", told.kind));
                    if let Some(odd) = told.odd {
                        count(&mut account.odd, &odd);
                    }
                    events.extend(told.events);
                }
                Err(refused) => account.refuse(&refused),
            },
        }
    }
}

const fn recorded(from: IpAddr) -> Feed {
    Feed::session(from).viewed(View::Recording)
}

fn follow_bgp(
    way: Way,
    buffer: &mut Vec<u8>,
    opens: &mut BTreeMap<Way, OpenMessage>,
    account: &mut Account,
    events: &mut Vec<(Feed, Event)>,
) -> Option<String> {
    let feed = recorded(way.0.ip());
    let mut done = 0;
    let lost = loop {
        let rest = &buffer[done..];
        let length = match wire::next_length(rest, true) {
            Ok(Some(length)) if length <= rest.len() => length,
            Ok(_) => break None,
            Err(error) => break Some(error.to_string()),
        };
        let bytes = &rest[..length];
        done += length;
        match wire::message(bytes, true) {
            Ok(Message::Open(open)) => {
                account.understand("BGP OPEN");
                events.push((
                    feed,
                    Event::Up {
                        system: open.four_byte_as(),
                    },
                ));
                opens.insert(way, open);
            }
            Ok(Message::Keepalive) => account.understand("BGP KEEPALIVE"),
            Ok(Message::RouteRefresh(_)) => account.understand("BGP ROUTE-REFRESH"),
            Ok(Message::Notification(_)) => {
                account.understand("BGP NOTIFICATION");
                events.push((
                    feed,
                    Event::Down(Down::SessionLost("a notification".to_owned())),
                ));
            }
            Ok(Message::Update(_)) => match read_update(way, bytes, opens) {
                Ok(update) => {
                    account.understand("BGP UPDATE");
                    events.push((feed, Event::Update(update)));
                }
                Err(refused) => account.refuse(&refused),
            },
            Ok(_) => account.refuse(&Refused::new("BGP message", "its type is unknown")),
            Err(error) => account.refuse(&Refused::new("BGP message", error.to_string())),
        }
    };
    buffer.drain(..done);
    lost
}

/// Reads an UPDATE as the two OPENs agreed; without them as is usual today, or as it was usual before.
fn read_update(
    way: Way,
    bytes: &[u8],
    opens: &BTreeMap<Way, OpenMessage>,
) -> Result<Update, Refused> {
    if let (Some(theirs), Some(ours)) = (opens.get(&way), opens.get(&(way.1, way.0))) {
        return wire::update(bytes, &Dialect::agreed(theirs, ours, Speaker::Hearsay));
    }
    let usual = Dialect::usual(Speaker::Hearsay);
    let old = Dialect {
        four_octet_as: false,
        ..usual
    };
    wire::update(bytes, &usual).or_else(|refused| wire::update(bytes, &old).map_err(|_| refused))
}

#[cfg(test)]
#[path = "replay/tests.rs"]
mod tests;
