//! A router's BMP stream (RFC 7854, 8671, 9069): cut into messages by their length, and what these say.
//!
//! ```text
//!   bytes ──▶ Frames ──one message──▶ Station ──▶ (Feed, Event)…
//! ```
//!
//! BMP has no marker to find the next message by, so the framing is our own and trusts only the length: a message that
//! cannot be read is refused and counted, and the stream goes on. Only a length that cannot be meant ends it. The headers
//! are read by `bgpkit-parser`, the routes by [`super::wire`], in the dialect that the neighbours' OPENs agreed on.
//!
//! The router's time stamps are not used at all: some routers stamp in whole seconds, some with the time of their boot.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use bgpkit_parser::{
    models::AsnLength,
    parser::bmp::messages::{
        BmpMsgType, BmpPeerType, BmpPerPeerHeader, InitiationTlvType, PeerDownReason, PerPeerFlags,
        parse_initiation_message, parse_peer_down_notification, parse_per_peer_header,
    },
};
use bytes::{Buf as _, Bytes, BytesMut};

use super::{
    peer::{Down, Event, Feed, View},
    wire::{self, Dialect, Refused, Speaker},
};

/// The length of the common header: version, length, type.
const HEADER: usize = 6;

/// The longest message that is looked at: two OPENs or an UPDATE of 65,535 bytes each, and what is around them.
pub const MESSAGE_MAX: usize = 256 * 1024;

/// A length beyond this is no length: the stream cannot be followed.
pub const LENGTH_MAX: usize = 16 * 1024 * 1024;

/// The most neighbours that one router may show. Their number is the router's to choose, our memory is ours.
pub const NEIGHBOURS_MAX: usize = 4_096;

/// Why a stream cannot be followed any further.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a BMP stream: {0}")]
pub struct Lost(String);

/// What the framing gives.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Frame {
    /// A message with its common header.
    Message(Bytes),
    /// A message of this many bytes that was longer than [`MESSAGE_MAX`]; it is passed over.
    TooLong(usize),
}

/// A stream that is cut into messages.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
    /// Bytes of a message that is too long, still to come.
    passing_over: usize,
}

impl Frames {
    /// Takes what was read. At most [`MESSAGE_MAX`] bytes wait for the rest of their message.
    pub fn push(&mut self, bytes: &[u8]) {
        let skipped = self.passing_over.min(bytes.len());
        self.passing_over -= skipped;
        self.buffer.extend_from_slice(&bytes[skipped..]);
    }

    /// The next message, if it is complete.
    ///
    /// # Errors
    ///
    /// Returns that the stream is lost.
    pub fn pop(&mut self) -> Result<Option<Frame>, Lost> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let version = header[0];
        if !(3..=4).contains(&version) {
            return Err(Lost(format!(
                "a message says that its version is {version}"
            )));
        }
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if !(HEADER..=LENGTH_MAX).contains(&length) {
            return Err(Lost(format!("a message says that it has {length} bytes")));
        }
        if length > MESSAGE_MAX {
            let here = length.min(self.buffer.len());
            self.buffer.advance(here);
            self.passing_over = length - here;
            return Ok(Some(Frame::TooLong(length)));
        }
        if self.buffer.len() < length {
            return Ok(None);
        }
        Ok(Some(Frame::Message(self.buffer.split_to(length).freeze())))
    }
}

/// What a message was, for whoever counts them.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// A router introduces itself.
    Initiation,
    /// It says goodbye.
    Termination,
    /// A neighbour is up.
    PeerUp,
    /// A neighbour is down.
    PeerDown,
    /// Routes.
    RouteMonitoring,
    /// The router's own counters.
    Statistics,
    /// A copy of what a neighbour sent.
    Mirroring,
}

/// What a message says.
#[derive(Debug)]
pub struct Told {
    /// What it was.
    pub kind: Kind,
    /// What happened on which feeds.
    pub events: Vec<(Feed, Event)>,
    /// What is odd about it, if anything.
    pub odd: Option<String>,
}

/// A neighbour of the monitored router.
type Neighbour = (IpAddr, u64, bool);

/// One monitored router.
#[derive(Debug)]
pub struct Station {
    source: IpAddr,
    neighbours: BTreeMap<Neighbour, Session>,
    /// What the router calls itself.
    pub name: Option<String>,
}

#[derive(Debug)]
struct Session {
    system: u32,
    dialect: Dialect,
    /// The same for what the router sends to the neighbour.
    out: Dialect,
    /// Whether the OPENs said so.
    is_agreed: bool,
    views: BTreeSet<View>,
}

impl Station {
    /// A router that has just connected from this address.
    #[must_use]
    pub const fn new(source: IpAddr) -> Self {
        Self {
            source,
            neighbours: BTreeMap::new(),
            name: None,
        }
    }

    /// Reads one message.
    ///
    /// # Errors
    ///
    /// Returns why it says nothing to us.
    pub fn read(&mut self, message: &Bytes) -> Result<Told, Refused> {
        let refused = |why: String| Refused::new("BMP message", why);
        let kind = message.get(HEADER - 1).copied().unwrap_or(u8::MAX);
        if message.first() != Some(&3) {
            return Err(refused("its version is not 3".to_owned()));
        }
        let kind = BmpMsgType::try_from(kind)
            .map_err(|_| refused(format!("its type {kind} is unknown")))?;
        let mut body = message.slice(HEADER..);
        match kind {
            BmpMsgType::InitiationMessage => {
                self.introduce(&mut body);
                Ok(told(Kind::Initiation))
            }
            BmpMsgType::TerminationMessage => Ok(told(Kind::Termination)),
            BmpMsgType::StatisticsReport => Ok(told(Kind::Statistics)),
            BmpMsgType::RouteMirroringMessage => Ok(told(Kind::Mirroring)),
            BmpMsgType::PeerUpNotification => {
                let header = header(&mut body, "Peer Up")?;
                self.up(&header, &mut body)
            }
            BmpMsgType::PeerDownNotification => {
                let header = header(&mut body, "Peer Down")?;
                self.down(&header, &mut body)
            }
            BmpMsgType::RouteMonitoring => {
                let header = header(&mut body, "Route Monitoring")?;
                self.routes(&header, &body)
            }
        }
    }

    /// The stream is gone: so is every feed on it.
    pub fn lose(&mut self) -> Vec<(Feed, Event)> {
        let neighbours = std::mem::take(&mut self.neighbours);
        let lost = |(neighbour, session): (Neighbour, Session)| {
            let source = self.source;
            let feeds = session.views.into_iter();
            feeds.map(move |view| (feed(source, neighbour, view), Event::Down(Down::SourceLost)))
        };
        neighbours.into_iter().flat_map(lost).collect()
    }

    fn introduce(&mut self, body: &mut Bytes) {
        let Ok(initiation) = parse_initiation_message(body) else {
            return;
        };
        let mut names = initiation
            .tlvs
            .into_iter()
            .filter(|tlv| tlv.info_type == InitiationTlvType::SysName);
        self.name = names.next().map(|tlv| {
            tlv.info
                .chars()
                .filter(|char| !char.is_control())
                .take(64)
                .collect()
        });
    }

    fn up(&mut self, header: &BmpPerPeerHeader, body: &mut Bytes) -> Result<Told, Refused> {
        let neighbour = neighbour(header);
        if !self.neighbours.contains_key(&neighbour) && self.neighbours.len() >= NEIGHBOURS_MAX {
            return Err(Refused::new(
                "BMP Peer Up",
                format!("more than {NEIGHBOURS_MAX} neighbours"),
            ));
        }
        let system = u32::from(header.peer_asn);
        let mut odd = None;
        let (dialect, out, is_agreed) = match opens(body) {
            Ok((sent, received)) => {
                let (mut dialect, mut out) = match header.peer_type {
                    // Both OPENs are made up by the router (RFC 9069, section 5.2): what either says holds.
                    BmpPeerType::LocalRib => (
                        Dialect::agreed(&sent, &received, Speaker::Hearsay),
                        Dialect::agreed(&sent, &received, Speaker::Hearsay),
                    ),
                    _ => (
                        Dialect::agreed(&received, &sent, Speaker::Hearsay),
                        Dialect::agreed(&sent, &received, Speaker::Hearsay),
                    ),
                };
                // How paths are written is said by a flag of each message (RFC 7854, section 4.2).
                dialect.four_octet_as = true;
                out.four_octet_as = true;
                (dialect, out, true)
            }
            Err(error) => {
                odd = Some(format!(
                    "its OPENs cannot be read ({error}); it is taken for a usual one"
                ));
                let usual = Dialect::usual(Speaker::Hearsay);
                (usual, usual, false)
            }
        };
        let views = self
            .neighbours
            .remove(&neighbour)
            .map(|session| session.views)
            .unwrap_or_default();
        let source = self.source;
        let event = |view: &View| (feed(source, neighbour, *view), Event::Up { system });
        let events = views.iter().map(event).collect();
        self.neighbours.insert(
            neighbour,
            Session {
                system,
                dialect,
                out,
                is_agreed,
                views,
            },
        );
        Ok(Told {
            kind: Kind::PeerUp,
            events,
            odd,
        })
    }

    fn down(&mut self, header: &BmpPerPeerHeader, body: &mut Bytes) -> Result<Told, Refused> {
        let neighbour = neighbour(header);
        let cause = match parse_peer_down_notification(body) {
            Ok(notification) => cause(notification.reason),
            // Whatever the reason is, the neighbour is down.
            Err(_) => Down::SessionLost("for a reason that is unknown".to_owned()),
        };
        let Some(session) = self.neighbours.remove(&neighbour) else {
            // Some routers say so of neighbours that never were up.
            return Ok(Told {
                odd: Some("a neighbour is down that was never up".to_owned()),
                ..told(Kind::PeerDown)
            });
        };
        let source = self.source;
        let event = |view| (feed(source, neighbour, view), Event::Down(cause.clone()));
        Ok(Told {
            events: session.views.into_iter().map(event).collect(),
            ..told(Kind::PeerDown)
        })
    }

    fn routes(&mut self, header: &BmpPerPeerHeader, body: &Bytes) -> Result<Told, Refused> {
        let neighbour = neighbour(header);
        let mut told = told(Kind::RouteMonitoring);
        if !self.neighbours.contains_key(&neighbour) {
            if self.neighbours.len() >= NEIGHBOURS_MAX {
                return Err(Refused::new(
                    "BMP Route Monitoring",
                    format!("more than {NEIGHBOURS_MAX} neighbours"),
                ));
            }
            // Some routers tell of their Loc-RIB without saying that it is up.
            told.odd = Some("routes of a neighbour that was not said to be up".to_owned());
        }
        let session = self.neighbours.entry(neighbour).or_insert_with(|| Session {
            system: u32::from(header.peer_asn),
            dialect: Dialect::usual(Speaker::Hearsay),
            out: Dialect::usual(Speaker::Hearsay),
            is_agreed: false,
            views: BTreeSet::new(),
        });
        let view = view(header);
        let dialect = match view {
            View::Out => session.out,
            _ => session.dialect,
        };
        let dialect = Dialect {
            four_octet_as: header.asn_length() == AsnLength::Bits32,
            ..dialect
        };
        let update = read(body, &dialect, session.is_agreed)?;
        let feed = feed(self.source, neighbour, view);
        if session.views.insert(view) {
            told.events.push((
                feed,
                Event::Up {
                    system: session.system,
                },
            ));
        }
        told.events.push((feed, Event::Update(update)));
        Ok(told)
    }
}

/// Reads routes as they should be written; and, where nobody said how or the router errs, as they may be.
fn read(
    body: &Bytes,
    dialect: &Dialect,
    is_agreed: bool,
) -> Result<super::update::Update, Refused> {
    let first = match wire::update(body, dialect) {
        Ok(update) => return Ok(update),
        Err(refused) => refused,
    };
    let other_width = Dialect {
        four_octet_as: !dialect.four_octet_as,
        ..*dialect
    };
    let with_paths = Dialect {
        add_path_v4: true,
        add_path_v6: true,
        ..*dialect
    };
    let others = match is_agreed {
        true => vec![other_width],
        false => vec![with_paths, other_width],
    };
    let mut readings = others.iter().map(|other| wire::update(body, other));
    readings.find_map(Result::ok).ok_or(first)
}

fn told(kind: Kind) -> Told {
    Told {
        kind,
        events: Vec::new(),
        odd: None,
    }
}

fn header(body: &mut Bytes, of: &str) -> Result<BmpPerPeerHeader, Refused> {
    parse_per_peer_header(body)
        .map_err(|error| Refused::new("BMP per-peer header", format!("of a {of}: {error}")))
}

fn neighbour(header: &BmpPerPeerHeader) -> Neighbour {
    let is_loc_rib = header.peer_type == BmpPeerType::LocalRib;
    let address = match is_loc_rib {
        true => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        false => header.peer_ip,
    };
    (address, header.peer_distinguisher, is_loc_rib)
}

fn view(header: &BmpPerPeerHeader) -> View {
    match header.peer_flags {
        PerPeerFlags::LocalRibPeerFlags(_) => View::LocRib,
        PerPeerFlags::PeerFlags(flags) if flags.is_adj_rib_out() => View::Out,
        PerPeerFlags::PeerFlags(flags) if flags.is_post_policy() => View::PostPolicy,
        PerPeerFlags::PeerFlags(_) => View::PrePolicy,
    }
}

fn feed(source: IpAddr, (neighbour, distinguisher, _): Neighbour, view: View) -> Feed {
    Feed {
        source,
        neighbour,
        distinguisher,
        view,
    }
}

/// The OPENs of a Peer Up: what the router sent, and what it received (RFC 7854, section 4.10).
fn opens(
    body: &mut Bytes,
) -> Result<(rustbgpd_wire::OpenMessage, rustbgpd_wire::OpenMessage), String> {
    // The local address and two ports.
    const BEFORE: usize = 20;
    if body.len() < BEFORE {
        return Err("it ends before them".to_owned());
    }
    body.advance(BEFORE);
    Ok((open(body)?, open(body)?))
}

fn open(body: &mut Bytes) -> Result<rustbgpd_wire::OpenMessage, String> {
    let length = match wire::next_length(body, false) {
        Ok(Some(length)) if length <= body.len() => length,
        Ok(_) => return Err("it ends within them".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    match wire::message(&body.split_to(length), false) {
        Ok(rustbgpd_wire::Message::Open(open)) => Ok(open),
        Ok(_) => Err("another message stands there".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn cause(reason: PeerDownReason) -> Down {
    let lost = |why: &str| Down::SessionLost(why.to_owned());
    match reason {
        PeerDownReason::PeerDeConfigured => Down::NotMonitored,
        PeerDownReason::LocalSystemClosedNotificationPduFollows => {
            lost("the router ended it with a notification")
        }
        PeerDownReason::LocalSystemClosedFsmEvenFollows => lost("the router ended it"),
        PeerDownReason::RemoteSystemClosedNotificationPduFollows => {
            lost("the neighbour ended it with a notification")
        }
        PeerDownReason::RemoteSystemsClosedNoData => lost("the neighbour is gone"),
        PeerDownReason::LocalSystemClosedTlvDataFollows => lost("the router ended it"),
        PeerDownReason::Reserved => lost("for a reason that is unknown"),
    }
}

#[cfg(test)]
#[path = "bmp/tests.rs"]
mod tests;
