//! The frame around every message on a stream.
//!
//! ```text
//!  0        1        2        4            8             12
//!  ┌────────┬────────┬────────┬────────────┬─────────────┬───────────
//!  │ magic  │ type   │ 0, 0   │ length u32 │ CRC-32C u32 │ payload …      big-endian
//!  └────────┴────────┴────────┴────────────┴─────────────┴───────────
//! ```

use crate::wire::{WireError, v1};

/// Length of the header.
pub const HEADER_BYTES: usize = 12;

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

/// Reads a header and checks magic, type and length.
///
/// # Errors
///
/// Returns what is wrong with it.
pub fn parse_header(_bytes: &[u8; HEADER_BYTES]) -> Result<Header, WireError> {
    todo!()
}

/// A whole frame around an encoded batch.
#[must_use]
pub fn frame_batch(_payload: &[u8]) -> Vec<u8> {
    todo!()
}

/// A whole frame around a control message of an agent.
#[must_use]
pub fn frame_from_agent(_message: &v1::FromAgent) -> Vec<u8> {
    todo!()
}

/// A whole frame around a control message of an aggregator.
#[must_use]
pub fn frame_from_aggregator(_message: &v1::FromAggregator) -> Vec<u8> {
    todo!()
}

/// Checks the payload of a batch frame against its header and returns it.
///
/// # Errors
///
/// Returns what is wrong.
pub fn parse_batch<'a>(_header: &Header, _payload: &'a [u8]) -> Result<&'a [u8], WireError> {
    todo!()
}

/// Parses a control message of an agent; texts and lists are within their limits.
///
/// # Errors
///
/// Returns what is wrong.
pub fn parse_from_agent(_header: &Header, _payload: &[u8]) -> Result<v1::FromAgent, WireError> {
    todo!()
}

/// Parses a control message of an aggregator; texts and lists are within their limits.
///
/// # Errors
///
/// Returns what is wrong.
pub fn parse_from_aggregator(_header: &Header, _payload: &[u8]) -> Result<v1::FromAggregator, WireError> {
    todo!()
}
