//! The findings of an agent, on a unidirectional stream of their own: a MessagePack map in a frame.
//!
//! Their sequence is that of the batches, so whoever counts what arrived counts both. An agent sends them only to an
//! aggregator whose welcome says that it takes them.

use serde::{Deserialize, Serialize};

use super::{
    WireError, at_most,
    frame::{self, Header, number},
    limits,
};
use crate::{finding::Finding, id::AgentId, time::Timestamp};

/// What was found.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Findings {
    /// Who found it.
    pub agent: AgentId,
    /// Which start of the agent's process.
    pub boot_epoch: u64,
    /// In the sequence of the batches.
    pub sequence: u64,
    /// When it was told, by the agent's clock.
    pub at: Timestamp,
    /// One by one.
    pub findings: Vec<Finding>,
}

/// A whole frame around findings. Keeping lists within their limits is the caller's; beyond them the receiver refuses.
#[must_use]
pub fn frame(findings: &Findings) -> Vec<u8> {
    frame::frame_map(number::FINDINGS, findings)
}

/// Checks the payload of a frame of findings against its header and decodes it.
///
/// # Errors
///
/// Returns what is wrong.
pub fn parse(header: &Header, payload: &[u8]) -> Result<Findings, WireError> {
    frame::check_payload(header, payload)?;
    match header.message_type {
        number::FINDINGS => decode(payload),
        other => Err(WireError::UnknownType(other)),
    }
}

/// Decodes the payload of a frame of findings; lists and texts are within their limits.
///
/// # Errors
///
/// Returns what is wrong with the bytes.
pub fn decode(payload: &[u8]) -> Result<Findings, WireError> {
    at_most("findings", payload.len(), limits::FINDINGS_BYTES)?;
    let findings: Findings = frame::parse_map("findings", payload)?;
    let found = &findings.findings;
    at_most("list of findings", found.len(), limits::FINDINGS)?;
    found.iter().try_for_each(Finding::check)?;
    Ok(findings)
}
