//! The frame around every message on a stream.
//!
//! ```text
//!  0        1        2        4            8             12
//!  ┌────────┬────────┬────────┬────────────┬─────────────┬───────────
//!  │ magic  │ type   │ 0, 0   │ length u32 │ CRC-32C u32 │ payload …      big-endian
//!  └────────┴────────┴────────┴────────────┴─────────────┴───────────
//! ```
//!
//! A reader takes [`HEADER_BYTES`], hands them to [`parse_header`], and only then makes room for the payload: the
//! length is within the limit of its type. Control messages are MessagePack maps with field names. Their parser
//! reserves little on the word of an announced length (serde stops at 1 MiB), so what a message can make it allocate
//! is bounded by that and by the bytes that came.

use serde::{Serialize, de::DeserializeOwned};

use crate::wire::{WireError, limits, v1};

/// Length of the header.
pub const HEADER_BYTES: usize = 12;

/// The first byte of every frame.
pub const MAGIC: u8 = b'L';

/// How deep a control message may nest. The deepest of ours is three: a map, its list, a map in it; one more for an
/// address. The rest is room for fields of newer builds, which are skipped.
const NESTING: usize = 16;

/// Type numbers: below 16 from an agent, below 32 from an aggregator, from 32 on a unidirectional stream.
pub mod number {
    /// [`super::v1::Hello`].
    pub const HELLO: u8 = 1;
    /// [`super::v1::Paths`].
    pub const PATHS: u8 = 2;
    /// [`super::v1::MeshApplied`].
    pub const MESH_APPLIED: u8 = 3;
    /// [`super::v1::AgentStatus`].
    pub const STATUS: u8 = 4;
    /// [`super::v1::CheckResults`].
    pub const CHECK_RESULTS: u8 = 5;
    /// [`super::v1::Welcome`].
    pub const WELCOME: u8 = 17;
    /// [`super::v1::Refuse`].
    pub const REFUSE: u8 = 18;
    /// [`super::v1::Mesh`].
    pub const MESH: u8 = 19;
    /// [`super::v1::PathsDurable`].
    pub const PATHS_DURABLE: u8 = 20;
    /// [`super::v1::Durable`].
    pub const DURABLE: u8 = 21;
    /// [`super::v1::Order`].
    pub const ORDER: u8 = 22;
    /// [`crate::wire::batch::Batch`].
    pub const BATCH: u8 = 33;
    /// [`crate::wire::findings::Findings`].
    pub const FINDINGS: u8 = 34;
}

/// The header of a frame, its length already within the limit of its type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// The type number.
    pub message_type: u8,
    /// Length of the payload.
    pub length: usize,
    /// CRC-32C of the payload.
    pub checksum: u32,
}

/// The largest payload of a type, and its name for people.
const fn kind(message_type: u8) -> Option<(&'static str, usize)> {
    Some(match message_type {
        number::HELLO => ("hello", limits::SMALL_CONTROL_BYTES),
        number::PATHS => ("path table", limits::CONTROL_BYTES),
        number::MESH_APPLIED => ("answer to a mesh", limits::CONTROL_BYTES),
        number::STATUS => ("agent status", limits::SMALL_CONTROL_BYTES),
        number::CHECK_RESULTS => ("check results", limits::CONTROL_BYTES),
        number::WELCOME => ("welcome", limits::SMALL_CONTROL_BYTES),
        number::REFUSE => ("refusal", limits::SMALL_CONTROL_BYTES),
        number::MESH => ("mesh", limits::CONTROL_BYTES),
        number::PATHS_DURABLE => ("path table acknowledgement", limits::SMALL_CONTROL_BYTES),
        number::DURABLE => ("batch acknowledgement", limits::DURABLE_BYTES),
        number::ORDER => ("order", limits::SMALL_CONTROL_BYTES),
        number::BATCH => ("batch", limits::BATCH_BYTES),
        number::FINDINGS => ("findings", limits::FINDINGS_BYTES),
        _ => return None,
    })
}

/// Reads a header and checks magic, type and length.
///
/// # Errors
///
/// Returns what is wrong with it.
pub fn parse_header(bytes: &[u8; HEADER_BYTES]) -> Result<Header, WireError> {
    let [magic, message_type, reserved @ ..] = *bytes;
    let [r0, r1, l0, l1, l2, l3, c0, c1, c2, c3] = reserved;
    if magic != MAGIC {
        return Err(WireError::Magic {
            first: magic,
            expected: MAGIC,
        });
    }
    let (what, limit) = kind(message_type).ok_or(WireError::UnknownType(message_type))?;
    if [r0, r1] != [0, 0] {
        return Err(malformed("frame header", "its reserved bytes are not zero"));
    }
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    if length > limit {
        return Err(WireError::TooLarge {
            what,
            have: length,
            limit,
        });
    }
    Ok(Header {
        message_type,
        length,
        checksum: u32::from_be_bytes([c0, c1, c2, c3]),
    })
}

/// A whole frame around an encoded batch.
#[must_use]
pub fn frame_batch(payload: &[u8]) -> Vec<u8> {
    frame(number::BATCH, payload)
}

/// A whole frame around a control message of an agent. Texts for people are cut to [`limits::TEXT_BYTES`]; lists
/// are the caller's to keep within their limits, or the receiver refuses the message.
#[must_use]
pub fn frame_from_agent(message: &v1::FromAgent) -> Vec<u8> {
    use v1::FromAgent as From;
    match message {
        From::Hello(hello) => frame_map(number::HELLO, hello),
        From::Paths(paths) => frame_map(number::PATHS, paths),
        From::MeshApplied(applied) => frame_map(number::MESH_APPLIED, applied),
        From::Status(status) => frame_map(number::STATUS, status),
        From::CheckResults(results) => frame_map(number::CHECK_RESULTS, results),
    }
}

/// A whole frame around a control message of an aggregator. Texts and lists as in [`frame_from_agent`].
#[must_use]
pub fn frame_from_aggregator(message: &v1::FromAggregator) -> Vec<u8> {
    use v1::FromAggregator as From;
    match message {
        From::Welcome(welcome) => frame_map(number::WELCOME, welcome),
        From::Refuse(refuse) => frame_map(number::REFUSE, refuse),
        From::Mesh(mesh) => frame_map(number::MESH, mesh),
        From::PathsDurable(durable) => frame_map(number::PATHS_DURABLE, durable),
        From::Durable(durable) => frame_map(number::DURABLE, durable),
        From::Order(order) => frame_map(number::ORDER, order),
    }
}

/// Checks the payload of a batch frame against its header and returns it.
///
/// # Errors
///
/// Returns what is wrong.
pub fn parse_batch<'a>(header: &Header, payload: &'a [u8]) -> Result<&'a [u8], WireError> {
    check_payload(header, payload)?;
    match header.message_type {
        number::BATCH => Ok(payload),
        other => Err(WireError::UnknownType(other)),
    }
}

/// Parses a control message of an agent; texts and lists are within their limits.
///
/// # Errors
///
/// Returns what is wrong.
pub fn parse_from_agent(header: &Header, payload: &[u8]) -> Result<v1::FromAgent, WireError> {
    use v1::FromAgent as From;
    check_payload(header, payload)?;
    let message = match header.message_type {
        number::HELLO => From::Hello(parse_map("hello", payload)?),
        number::PATHS => From::Paths(parse_map("path table", payload)?),
        number::MESH_APPLIED => From::MeshApplied(parse_map("answer to a mesh", payload)?),
        number::STATUS => From::Status(parse_map("agent status", payload)?),
        number::CHECK_RESULTS => From::CheckResults(parse_map("check results", payload)?),
        other => return Err(WireError::UnknownType(other)),
    };
    message.check_limits()?;
    Ok(message)
}

/// Parses a control message of an aggregator; texts and lists are within their limits.
///
/// # Errors
///
/// Returns what is wrong.
pub fn parse_from_aggregator(
    header: &Header,
    payload: &[u8],
) -> Result<v1::FromAggregator, WireError> {
    use v1::FromAggregator as From;
    check_payload(header, payload)?;
    let message = match header.message_type {
        number::WELCOME => From::Welcome(parse_map("welcome", payload)?),
        number::REFUSE => From::Refuse(parse_map("refusal", payload)?),
        number::MESH => From::Mesh(parse_map("mesh", payload)?),
        number::PATHS_DURABLE => {
            From::PathsDurable(parse_map("path table acknowledgement", payload)?)
        }
        number::DURABLE => From::Durable(parse_map("batch acknowledgement", payload)?),
        number::ORDER => From::Order(parse_map("order", payload)?),
        other => return Err(WireError::UnknownType(other)),
    };
    message.check_limits()?;
    Ok(message)
}

fn frame(message_type: u8, payload: &[u8]) -> Vec<u8> {
    // A length that does not fit is beyond every limit, and so is the largest that does.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend([MAGIC, message_type, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend(crc32c::crc32c(payload).to_be_bytes());
    frame.extend(payload);
    frame
}

pub(super) fn frame_map<T: Serialize>(message_type: u8, message: &T) -> Vec<u8> {
    let payload = rmp_serde::to_vec_named(message).expect(
        "a control message holds texts, numbers and lists only, all of which MessagePack can write",
    );
    frame(message_type, &payload)
}

pub(super) fn check_payload(header: &Header, payload: &[u8]) -> Result<(), WireError> {
    if payload.len() < header.length {
        return Err(WireError::Truncated {
            what: "frame payload",
            have: payload.len(),
            need: header.length,
        });
    }
    if payload.len() > header.length {
        return Err(malformed(
            "frame",
            "its payload is longer than its header says",
        ));
    }
    let computed = crc32c::crc32c(payload);
    if computed != header.checksum {
        return Err(WireError::Checksum {
            computed,
            announced: header.checksum,
        });
    }
    Ok(())
}

pub(super) fn parse_map<T: DeserializeOwned>(
    what: &'static str,
    mut payload: &[u8],
) -> Result<T, WireError> {
    // A struct would be read from a list as well; the names are what lets a message grow.
    if !matches!(payload, [0x80..=0x8f | 0xde | 0xdf, ..]) {
        return Err(malformed(what, "it is not a MessagePack map"));
    }
    let mut deserializer = rmp_serde::Deserializer::new(&mut payload);
    deserializer.set_max_depth(NESTING);
    let message = T::deserialize(&mut deserializer).map_err(|error| WireError::Malformed {
        what,
        why: error.to_string(),
    })?;
    if !payload.is_empty() {
        return Err(malformed(what, "bytes follow its end"));
    }
    Ok(message)
}

fn malformed(what: &'static str, why: &str) -> WireError {
    WireError::Malformed {
        what,
        why: why.to_owned(),
    }
}
