//! The JSON of the HTTP API, shared by the aggregator that serves it and the command line that reads it.

pub mod v1;
