//! MRT recordings (RFC 6396) by `bgpkit-parser`: updates, state changes and tables, also those of the 1990s.

use std::{collections::BTreeSet, io::Read, net::IpAddr, sync::Arc};

use bgpkit_parser::{
    models::{
        AsPathSegment, Asn, AttributeValue, Attributes as Parsed, Bgp4MpEnum, BgpMessage, BgpState,
        BgpUpdateMessage, Community, LegacyBgp, MetaCommunity, MrtMessage, NetworkPrefix,
        Nlri as ParsedNlri, PeerIndexTable, Safi, TableDumpV2Message,
    },
    parser::chunk_mrt_record,
};
use leeward_common::time::Timestamp;

use super::{
    peer::{Down, Event, Feed, View},
    update::{AsPath, Attributes, Family, Hop, Nlri, Update},
    wire::Refused,
};

/// What one record says.
#[derive(Debug)]
pub struct Record {
    /// When it was recorded.
    pub at: Timestamp,
    /// What it was.
    pub kind: &'static str,
    /// What happened on which feed.
    pub events: Vec<(Feed, Event)>,
}

/// A recording, read record by record.
#[derive(Debug)]
pub struct Recording<R> {
    input: R,
    peers: Option<PeerIndexTable>,
    is_over: bool,
}

impl<R: Read> Recording<R> {
    /// A recording that is read from here.
    pub const fn new(input: R) -> Self {
        Self {
            input,
            peers: None,
            is_over: false,
        }
    }
}

/// A record that was not understood. One that cannot be passed over is the last.
impl<R: Read> Iterator for Recording<R> {
    type Item = Result<Record, Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let raw = match chunk_mrt_record(&mut self.input) {
            Ok(raw) => raw,
            Err(error) => {
                self.is_over = true;
                return match error.error {
                    bgpkit_parser::ParserError::EofExpected => None,
                    error => Some(Err(Refused::new("MRT recording", error.to_string()))),
                };
            }
        };
        let header = raw.common_header;
        let micros = u64::from(header.microsecond_timestamp.unwrap_or_default());
        let at = Timestamp::from_unix_us(u64::from(header.timestamp) * 1_000_000 + micros);
        Some(match raw.parse() {
            Ok(record) => Ok(self.told(at, record.message)),
            Err(error) => Err(Refused::new(
                "MRT record",
                format!("{:?} {}: {error}", header.entry_type, header.entry_subtype),
            )),
        })
    }
}

impl<R> Recording<R> {
    fn told(&mut self, at: Timestamp, message: MrtMessage) -> Record {
        let (kind, events) = match message {
            MrtMessage::Bgp4Mp(Bgp4MpEnum::Message(message)) => {
                said(message.peer_ip, message.bgp_message)
            }
            MrtMessage::Bgp4Mp(Bgp4MpEnum::StateChange(change)) => changed(
                change.peer_ip,
                change.peer_asn,
                change.old_state,
                change.new_state,
            ),
            MrtMessage::LegacyBgp(LegacyBgp::Message(message)) => {
                said(message.peer_ip, message.bgp_message)
            }
            MrtMessage::LegacyBgp(LegacyBgp::StateChange(change)) => changed(
                change.peer_ip,
                change.peer_asn,
                change.old_state,
                change.new_state,
            ),
            MrtMessage::TableDumpMessage(entry) => (
                "table entry",
                vec![entry_of(entry.peer_ip, entry.prefix, &entry.attributes)],
            ),
            MrtMessage::TableDumpMessageBatch(entries) => (
                "table entry",
                entries
                    .into_iter()
                    .map(|entry| entry_of(entry.peer_ip, entry.prefix, &entry.attributes))
                    .collect(),
            ),
            MrtMessage::TableDumpV2Message(TableDumpV2Message::PeerIndexTable(peers)) => {
                self.peers = Some(peers);
                ("peer table", Vec::new())
            }
            MrtMessage::TableDumpV2Message(TableDumpV2Message::RibAfi(rib)) => {
                let peers = self.peers.as_ref().map(|table| &table.id_peer_map);
                let events = rib.rib_entries.iter().filter_map(|entry| {
                    let peer = peers?.get(&entry.peer_index)?;
                    let prefix = NetworkPrefix::new(rib.prefix.prefix, entry.path_id);
                    Some(entry_of(peer.peer_ip, prefix, &entry.attributes))
                });
                ("table entry", events.collect())
            }
            MrtMessage::TableDumpV2Message(_) => ("another table", Vec::new()),
        };
        Record { at, kind, events }
    }
}

const fn feed(peer: IpAddr) -> Feed {
    Feed {
        source: peer,
        neighbour: peer,
        distinguisher: 0,
        view: View::Recording,
    }
}

fn said(peer: IpAddr, message: BgpMessage) -> (&'static str, Vec<(Feed, Event)>) {
    match message {
        BgpMessage::Update(message) => (
            "UPDATE",
            vec![(feed(peer), Event::Update(update(&message)))],
        ),
        BgpMessage::Open(_) => ("OPEN", Vec::new()),
        BgpMessage::Notification(_) => ("NOTIFICATION", Vec::new()),
        BgpMessage::KeepAlive => ("KEEPALIVE", Vec::new()),
        BgpMessage::RouteRefresh(_) => ("ROUTE-REFRESH", Vec::new()),
    }
}

fn changed(
    peer: IpAddr,
    system: Asn,
    old: BgpState,
    new: BgpState,
) -> (&'static str, Vec<(Feed, Event)>) {
    let event = match (old == BgpState::Established, new == BgpState::Established) {
        (_, true) => Some(Event::Up {
            system: u32::from(system),
        }),
        (true, false) => Some(Event::Down(Down::SessionLost(format!("it is {new:?}")))),
        (false, false) => None,
    };
    (
        "state change",
        event.into_iter().map(|event| (feed(peer), event)).collect(),
    )
}

fn entry_of(peer: IpAddr, prefix: NetworkPrefix, attributes: &Parsed) -> (Feed, Event) {
    let update = Update {
        announced: vec![nlri(&prefix)],
        attributes: Arc::new(remembered(attributes)),
        ..Update::default()
    };
    (feed(peer), Event::Update(update.normal()))
}

/// What an UPDATE says, as `bgpkit-parser` read it: a second opinion beside [`super::wire`].
#[must_use]
pub fn update(message: &BgpUpdateMessage) -> Update {
    let mut update = Update {
        announced: message.announced_prefixes.iter().map(nlri).collect(),
        withdrawn: message.withdrawn_prefixes.iter().map(nlri).collect(),
        attributes: Arc::new(remembered(&message.attributes)),
        ..Update::default()
    };
    let count = message.attributes.iter().count();
    for attribute in &message.attributes {
        match attribute {
            AttributeValue::MpReachNlri(reach) => match family(reach) {
                Some(_) => update.announced.extend(reach.prefixes.iter().map(nlri)),
                None => update.others = true,
            },
            AttributeValue::MpUnreachNlri(unreach) => match family(unreach) {
                Some(family) => {
                    update.withdrawn.extend(unreach.prefixes.iter().map(nlri));
                    if unreach.prefixes.is_empty() && count == 1 {
                        update.end_of_table = Some(family);
                    }
                }
                None => update.others = true,
            },
            _ => {}
        }
    }
    if count == 0 && message.announced_prefixes.is_empty() && message.withdrawn_prefixes.is_empty()
    {
        update.end_of_table = Some(Family::V4);
    }
    update.normal()
}

fn family(nlri: &ParsedNlri) -> Option<Family> {
    match (nlri.safi == Safi::Unicast, nlri.is_ipv4(), nlri.is_ipv6()) {
        (true, true, _) => Some(Family::V4),
        (true, _, true) => Some(Family::V6),
        _ => None,
    }
}

fn nlri(prefix: &NetworkPrefix) -> Nlri {
    Nlri {
        prefix: prefix.prefix.trunc(),
        path_id: prefix.path_id.unwrap_or_default(),
    }
}

fn remembered(attributes: &Parsed) -> Attributes {
    let mut hops = Vec::new();
    for segment in attributes
        .effective_as_path()
        .iter()
        .flat_map(|path| path.iter_segments())
    {
        match segment {
            AsPathSegment::AsSequence(systems) => {
                hops.extend(systems.iter().map(|system| Hop::As(u32::from(*system))));
            }
            AsPathSegment::AsSet(systems) => {
                hops.push(Hop::set(systems.iter().map(|system| u32::from(*system))));
            }
            AsPathSegment::ConfedSequence(_) | AsPathSegment::ConfedSet(_) => {}
        }
    }
    let communities: BTreeSet<u32> = attributes
        .iter_communities()
        .filter_map(|community| match community {
            MetaCommunity::Plain(community) => Some(plain(community)),
            _ => None,
        })
        .collect();
    let marked = attributes.only_to_customer().map(u32::from);
    Attributes::new(AsPath::new(hops), &communities).marked(marked)
}

/// A community as the number that it is (RFC 1997).
fn plain(community: Community) -> u32 {
    match community {
        Community::NoExport => 0xffff_ff01,
        Community::NoAdvertise => 0xffff_ff02,
        Community::NoExportSubConfed => 0xffff_ff03,
        Community::Custom(system, value) => (u32::from(system) << 16) | u32::from(value),
    }
}

#[cfg(test)]
#[path = "mrt/tests.rs"]
mod tests;
