//! BGP messages from bytes: the seam over `rustbgpd-wire`, the one parser of live sessions and of what BMP carries.
//!
//! A session's own routes are judged as a speaker judges them (RFC 7606: a malformed attribute makes a withdrawal). What
//! a monitored router tells is judged as hearsay: the router has judged it already, so a message that cannot be read says
//! nothing, and above all no withdrawal.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use bytes::Bytes;
use ipnet::IpNet;
use rustbgpd_wire::{
    Afi, DecodeError, EXTENDED_MAX_MESSAGE_LEN, MAX_MESSAGE_LEN, Message, OpenMessage, Safi,
    attribute::{AsPathSegment, PathAttribute},
    nlri::Prefix,
    update::RevisedParsedUpdate,
    validate::{ErrorDisposition, validate_update_attributes},
};

use super::update::{AsPath, Attributes, Family, Hop, Nlri, Update};

/// The length of the header of every BGP message (RFC 4271, section 4.1).
pub const HEADER: usize = 19;

/// How the two speakers of a session agreed to write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Dialect {
    /// AS numbers have four octets (RFC 6793).
    pub four_octet_as: bool,
    /// IPv4 prefixes carry a path identifier (RFC 7911).
    pub add_path_v4: bool,
    /// IPv6 prefixes carry one.
    pub add_path_v6: bool,
    /// Who speaks.
    pub speaker: Speaker,
}

/// Whose routes they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Speaker {
    /// The peer's of a session of our own, with another system.
    External,
    /// The peer's of a session of our own, with our own system.
    Internal,
    /// A monitored router's, or a recording's.
    Hearsay,
}

impl Dialect {
    /// How today's speakers write when nothing else is known.
    #[must_use]
    pub const fn usual(speaker: Speaker) -> Self {
        Self {
            four_octet_as: true,
            add_path_v4: false,
            add_path_v6: false,
            speaker,
        }
    }

    /// How the sender of `theirs` writes to the sender of `ours`.
    #[must_use]
    pub fn agreed(theirs: &OpenMessage, ours: &OpenMessage, speaker: Speaker) -> Self {
        use rustbgpd_wire::Capability::{AddPath, FourOctetAs};
        let four = |open: &OpenMessage| {
            let mut capabilities = open.capabilities.iter();
            capabilities.any(|capability| matches!(capability, FourOctetAs { .. }))
        };
        let paths = |open: &OpenMessage, afi, other: rustbgpd_wire::AddPathMode| {
            let families = open
                .capabilities
                .iter()
                .filter_map(|capability| match capability {
                    AddPath(families) => Some(families),
                    _ => None,
                });
            families.flatten().any(|family| {
                let mode = family.send_receive;
                (family.afi, family.safi) == (afi, Safi::Unicast)
                    && (mode == other || mode == rustbgpd_wire::AddPathMode::Both)
            })
        };
        let add_path = |afi| {
            paths(theirs, afi, rustbgpd_wire::AddPathMode::Send)
                && paths(ours, afi, rustbgpd_wire::AddPathMode::Receive)
        };
        Self {
            four_octet_as: four(theirs) && four(ours),
            add_path_v4: add_path(Afi::Ipv4),
            add_path_v6: add_path(Afi::Ipv6),
            speaker,
        }
    }

    fn add_path_families(&self) -> Vec<(Afi, Safi)> {
        let mut families = Vec::new();
        if self.add_path_v4 {
            families.push((Afi::Ipv4, Safi::Unicast));
        }
        if self.add_path_v6 {
            families.push((Afi::Ipv6, Safi::Unicast));
        }
        families
    }
}

/// Why a message was not understood.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Refused {
    /// What it was taken for.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl Refused {
    /// A refusal in words.
    pub fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self {
            what,
            why: why.into(),
        }
    }
}

/// The length that the header of the next message names; `None` while there are fewer than [`HEADER`] bytes.
///
/// # Errors
///
/// Returns that this is no header of a BGP message: the stream cannot be followed any further.
pub fn next_length(bytes: &[u8], extended: bool) -> Result<Option<usize>, DecodeError> {
    let most = most(extended);
    // An unknown type ends no stream: its length is known.
    match rustbgpd_wire::peek_message_length(bytes, most) {
        Ok(length) => Ok(length.map(usize::from)),
        Err(error @ DecodeError::UnknownMessageType(_)) => {
            let length = u16::from_be_bytes([bytes[16], bytes[17]]);
            match (19..=most).contains(&length) {
                true => Ok(Some(usize::from(length))),
                false => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

const fn most(extended: bool) -> u16 {
    match extended {
        true => EXTENDED_MAX_MESSAGE_LEN,
        false => MAX_MESSAGE_LEN,
    }
}

/// Reads one message, which must be all of `bytes`.
///
/// # Errors
///
/// Returns why it cannot be read.
pub fn message(bytes: &[u8], extended: bool) -> Result<Message, DecodeError> {
    let mut bytes = Bytes::copy_from_slice(bytes);
    rustbgpd_wire::decode_message(&mut bytes, most(extended))
}

/// Reads one message that must be an UPDATE.
///
/// # Errors
///
/// Returns why it cannot be read.
pub fn update(bytes: &[u8], dialect: &Dialect) -> Result<Update, Refused> {
    match message(bytes, true).map_err(|error| Refused::new("BGP message", error.to_string()))? {
        Message::Update(update) => {
            routes(&update, dialect).map_err(|error| Refused::new("BGP UPDATE", error.to_string()))
        }
        _ => Err(Refused::new("BGP UPDATE", "another message")),
    }
}

/// What an UPDATE says.
///
/// # Errors
///
/// Returns why the prefixes cannot be read. On a session of our own that ends the session (RFC 7606, section 3 (j)).
pub fn routes(
    update: &rustbgpd_wire::UpdateMessage,
    dialect: &Dialect,
) -> Result<Update, DecodeError> {
    let parsed = update.parse_revised(
        dialect.four_octet_as,
        dialect.speaker == Speaker::Internal,
        dialect.add_path_v4,
        &dialect.add_path_families(),
    )?;
    let mut routes = gather(&parsed);
    let is_bare = update.withdrawn_routes.is_empty()
        && update.path_attributes.is_empty()
        && update.nlri.is_empty();
    if is_bare {
        routes.end_of_table = Some(Family::V4);
    }
    let fault = fault(&parsed, &routes, dialect, !update.nlri.is_empty());
    match (fault, dialect.speaker) {
        (None, _) => {}
        (Some(fault), Speaker::Hearsay) => {
            if !routes.announced.is_empty() {
                return Err(DecodeError::MalformedField {
                    message_type: "UPDATE",
                    detail: fault,
                });
            }
        }
        (Some(fault), Speaker::External | Speaker::Internal) => {
            let announced = std::mem::take(&mut routes.announced);
            routes.withdrawn.extend(announced);
            routes.malformed = Some(fault);
        }
    }
    Ok(routes.normal())
}

fn gather(parsed: &RevisedParsedUpdate) -> Update {
    let mut update = Update::default();
    let own =
        |entry: &rustbgpd_wire::nlri::Ipv4NlriEntry| nlri(Prefix::V4(entry.prefix), entry.path_id);
    update
        .withdrawn
        .extend(parsed.update.withdrawn.iter().filter_map(own));
    update
        .announced
        .extend(parsed.update.announced.iter().filter_map(own));
    let (mut path, mut spoken, mut marked) = (AsPath::default(), BTreeSet::new(), None);
    for attribute in &parsed.update.attributes {
        match attribute {
            PathAttribute::AsPath(segments) => path = as_path(segments),
            PathAttribute::Communities(communities)
            | PathAttribute::CommunitiesPartial(communities) => {
                spoken = communities.iter().copied().collect();
            }
            PathAttribute::OnlyToCustomer(system)
            | PathAttribute::OnlyToCustomerPartial(system) => marked = Some(*system),
            PathAttribute::MpReachNlri(reach) => match family(reach.afi, reach.safi) {
                Some(_) => {
                    let entries = reach.announced.iter();
                    update
                        .announced
                        .extend(entries.filter_map(|entry| nlri(entry.prefix, entry.path_id)));
                }
                None => update.others = true,
            },
            PathAttribute::MpUnreachNlri(unreach) => match family(unreach.afi, unreach.safi) {
                Some(family) => {
                    let entries = unreach.withdrawn.iter();
                    update
                        .withdrawn
                        .extend(entries.filter_map(|entry| nlri(entry.prefix, entry.path_id)));
                    if unreach.withdrawn.is_empty() && parsed.update.attributes.len() == 1 {
                        update.end_of_table = Some(family);
                    }
                }
                None => update.others = true,
            },
            _ => {}
        }
    }
    update.attributes = Arc::new(Attributes::new(path, &spoken).marked(marked));
    update
}

fn family(afi: Afi, safi: Safi) -> Option<Family> {
    match (afi, safi) {
        (Afi::Ipv4, Safi::Unicast) => Some(Family::V4),
        (Afi::Ipv6, Safi::Unicast) => Some(Family::V6),
        _ => None,
    }
}

fn nlri(prefix: Prefix, path_id: u32) -> Option<Nlri> {
    let (address, length) = match prefix {
        Prefix::V4(prefix) => (IpAddr::V4(prefix.addr), prefix.len),
        Prefix::V6(prefix) => (IpAddr::V6(prefix.addr), prefix.len),
    };
    let prefix = IpNet::new(address, length).ok()?.trunc();
    Some(Nlri { prefix, path_id })
}

fn as_path(path: &rustbgpd_wire::attribute::AsPath) -> AsPath {
    let mut hops = Vec::new();
    for segment in &path.segments {
        match segment {
            AsPathSegment::AsSequence(systems) => hops.extend(systems.iter().copied().map(Hop::As)),
            AsPathSegment::AsSet(systems) => hops.push(Hop::set(systems.iter().copied())),
        }
    }
    AsPath::new(hops)
}

/// What makes withdrawals of the announcements, if anything does. An AS_SET does not: RFC 9774 forbids to spread it, and
/// we spread nothing; whoever told us uses the route.
fn fault(
    parsed: &RevisedParsedUpdate,
    routes: &Update,
    dialect: &Dialect,
    has_body: bool,
) -> Option<String> {
    let counts = |error: &DecodeError| !matches!(error, DecodeError::ProhibitedAsSet { .. });
    let malformed = parsed.malformed.iter().find(|fault| {
        fault.disposition >= ErrorDisposition::TreatAsWithdraw && counts(&fault.error)
    });
    if let Some(fault) = malformed {
        return Some(format!("attribute {}: {}", fault.type_code, fault.error));
    }
    if dialect.speaker == Speaker::Hearsay {
        return None;
    }
    let checked = validate_update_attributes(
        &parsed.update.attributes,
        !routes.announced.is_empty(),
        has_body,
        dialect.speaker == Speaker::External,
    );
    let fault = checked.err()?;
    (fault.disposition >= ErrorDisposition::TreatAsWithdraw).then(|| {
        format!(
            "its attributes are not valid (UPDATE error, subcode {})",
            fault.subcode
        )
    })
}

#[cfg(test)]
#[path = "wire/tests.rs"]
mod tests;
