//! One direction of a connection in a capture: which protocol it speaks, and what it says.

use std::{collections::BTreeMap, net::IpAddr};

use rustbgpd_wire::{Message, OpenMessage};

use super::account::{Account, count};
use crate::bgp::{
    bmp::{self, Frame, Frames, Station},
    pcap::{Piece, Way},
    peer::{Down, Event, Feed, View},
    update::Update,
    wire::{self, Dialect, Refused, Speaker},
};

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) protocol: Protocol,
}

/// What it speaks.
#[derive(Debug, Default)]
pub(super) enum Protocol {
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
    pub(super) fn take(
        &mut self,
        way: Way,
        piece: &Piece,
        opens: &mut BTreeMap<Way, OpenMessage>,
        account: &mut Account,
    ) -> Vec<(Feed, Event)> {
        let (from, _) = way;
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
