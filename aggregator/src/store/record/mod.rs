//! What is written to disk. Frozen types by version, MessagePack with field names, so that a later build reads what
//! an earlier one wrote and may add fields. Domain types are never written as they are: conversions stand here.

pub mod v1;
