//! A batch: the reports of one agent for one window, in columns.

use crate::{
    histogram::Schema,
    id::AgentId,
    report::{Report, Window},
    wire::WireError,
};

/// The reports of one agent for one window.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Batch {
    /// Who measured.
    pub agent: AgentId,
    /// Which start of the agent's process.
    pub boot_epoch: u64,
    /// From 0 in each boot epoch, without gaps.
    pub sequence: u64,
    /// The path table that the rows refer to.
    pub table: u32,
    /// The window, common to all rows.
    pub window: Window,
    /// The histograms' schema, common to all rows.
    pub schema: Schema,
    /// Rows in ascending order, each at most once. A path without a row was not probed in this window.
    pub rows: Vec<(u32, Report)>,
}

/// Encodes a batch.
///
/// # Errors
///
/// Returns [`WireError`] when the batch exceeds a limit, is out of order, or mixes schemas.
pub fn encode(_batch: &Batch) -> Result<Vec<u8>, WireError> {
    todo!()
}

/// Decodes a batch; sizes are checked before anything is allocated.
///
/// # Errors
///
/// Returns what is wrong with the bytes.
pub fn decode(_bytes: &[u8]) -> Result<Batch, WireError> {
    todo!()
}
