//! How an agent and an aggregator talk: frames on QUIC streams, limits first.
//!
//! The major version is the ALPN name, so two builds that cannot understand each other never get past the handshake.
//! The agent opens one bidirectional *control stream* and keeps it for the connection's life; control messages are
//! MessagePack maps with field names, so that either side may add a field. Each batch of reports travels on a
//! unidirectional stream of its own ([`batch`]). Both kinds of stream carry frames ([`frame`]).
//!
//! ```text
//!  agent                                   aggregator
//!    Hello ───────────── control ─────────────▶        who I am, where I answer
//!      ◀──────────────── control ───────────── Welcome  what of yours is durable; or Refuse
//!      ◀──────────────── control ───────────── Mesh     whom to probe, how often; what to ask of services
//!    MeshApplied ─────── control ─────────────▶        and what I refused to probe
//!    Paths ───────────── control ─────────────▶        table 1: row 0 is …, row 1 is …
//!      ◀──────────────── control ───────────── PathsDurable
//!    Batch ───────────── uni ─────────────────▶        table 1, sequence 17
//!      ◀──────────────── control ───────────── Durable  17
//!    CheckResults ────── control ─────────────▶        what came of asking
//!      ◀──────────────── control ───────────── Order    find something out now
//!    Findings ────────── uni ─────────────────▶        sequence 18, acknowledged as a batch is
//! ```
//!
//! An agent that does not know of checks passes over that part of a mesh; one that does sends results only to an
//! aggregator that asked for some. Findings go to an aggregator whose welcome takes them, orders to an agent whose hello
//! does. So builds with and without them talk to each other under one major version.

pub mod batch;
mod column;
pub mod findings;
pub mod frame;
mod rows;
pub mod v1;

/// The ALPN protocol name of major version 1.
pub const ALPN_V1: &[u8] = b"leeward/1";

/// The URI scheme and path of an agent's identity in its certificate's subject alternative name:
/// `leeward://agent/<region>/<agent>`.
pub const AGENT_URI_PREFIX: &str = "leeward://agent/";

/// The URI of an aggregator's identity: `leeward://aggregator/<name>`.
pub const AGGREGATOR_URI_PREFIX: &str = "leeward://aggregator/";

/// Limits checked before anything is allocated. The reasons are rounded up from the largest honest message.
pub mod limits {
    /// A control message with a list: [`PATHS`] of at most 160 bytes each, or [`TARGETS`] of at most 460 (a mesh's
    /// of 230, a refused one with its reason), or [`CHECKS`] of at most 800 beside a mesh's targets.
    pub const CONTROL_BYTES: usize = 4 << 20;
    /// A control message without a long list: a few texts of [`TEXT_BYTES`], and room for fields of newer builds.
    pub const SMALL_CONTROL_BYTES: usize = 16 << 10;
    /// An acknowledgement of batches: [`SEQUENCES`] of at most 9 bytes each, and a reason.
    pub const DURABLE_BYTES: usize = 160 << 10;
    /// A batch on the wire.
    pub const BATCH_BYTES: usize = 1 << 20;
    /// A batch after decompression.
    pub const BATCH_INFLATED_BYTES: usize = 8 << 20;
    /// Paths in one table, so rows in one batch.
    pub const PATHS: usize = 16_384;
    /// Targets in one mesh.
    pub const TARGETS: usize = 8_192;
    /// Checks in one mesh, and results in one message.
    pub const CHECKS: usize = 2_048;
    /// Regions with a watch-list, and their prefixes and origins, all together, in one mesh.
    pub const WATCHED: usize = 16_384;
    /// Filled histogram buckets in one batch: 64 for each row of the largest table. It bounds what a small batch of
    /// constant columns can make a reader allocate to 8 MiB.
    pub const BATCH_BUCKETS: usize = 1 << 20;
    /// A message of findings: a route of 64 hops with 16 answers each is 60 kB.
    pub const FINDINGS_BYTES: usize = 256 << 10;
    /// Findings in one message.
    pub const FINDINGS: usize = 16;
    /// Addresses that an agent registers.
    pub const ADDRESSES: usize = 16;
    /// Boot epochs before the present one of which batches wait.
    pub const EPOCHS: usize = 64;
    /// Probe kinds of one target.
    pub const KINDS: usize = 8;
    /// Sequences in one acknowledgement.
    pub const SEQUENCES: usize = 16_384;
    /// A text for people in a control message.
    pub const TEXT_BYTES: usize = 1_024;
    /// The reason why one target is refused; a mesh may have [`TARGETS`] of them.
    pub const REASON_BYTES: usize = 256;
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than the header announces, or than a header has.
    #[error("{what} ends after {have} bytes, {need} are needed")]
    Truncated {
        /// What was read.
        what: &'static str,
        /// Bytes that are there.
        have: usize,
        /// Bytes that should be.
        need: usize,
    },
    /// A length beyond the limit.
    #[error("{what} of {have} exceeds the limit of {limit}")]
    TooLarge {
        /// What was announced.
        what: &'static str,
        /// The announced size.
        have: usize,
        /// The largest allowed.
        limit: usize,
    },
    /// A frame that does not begin as frames do.
    #[error("not a leeward frame: it begins with {first:#04x}, not {expected:#04x}")]
    Magic {
        /// What it begins with.
        first: u8,
        /// What it should.
        expected: u8,
    },
    /// A message type that this build does not know, or that does not belong on this stream.
    #[error("message type {0} is not known here")]
    UnknownType(u8),
    /// The checksum does not match the payload.
    #[error("checksum is {computed:#010x}, the frame says {announced:#010x}")]
    Checksum {
        /// CRC-32C over the payload.
        computed: u32,
        /// What the header says.
        announced: u32,
    },
    /// The payload is not what its type says.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// The message.
        what: &'static str,
        /// The reason.
        why: String,
    },
}

/// Checks a length.
pub(crate) const fn at_most(
    what: &'static str,
    have: usize,
    limit: usize,
) -> Result<(), WireError> {
    if have > limit {
        return Err(WireError::TooLarge { what, have, limit });
    }
    Ok(())
}
