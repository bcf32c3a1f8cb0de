//! Batches: every one is read as it was written, and nothing that contradicts itself is.

mod support;

use std::time::Duration;

use leeward_common::{
    histogram::{Histogram, Schema},
    id::AgentId,
    report::{Class, Report},
    wire::{
        WireError,
        batch::{Batch, BatchKey, decode, encode, peek},
        limits,
    },
};
use proptest::prelude::*;
use support::{any_batch, batch, report};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_batch_is_read_as_it_was_written(batch in any_batch()) {
        let bytes = encode(&batch).unwrap();
        prop_assert_eq!(&decode(&bytes).unwrap(), &batch);
        let Batch { agent, boot_epoch, sequence, table, window, .. } = batch;
        prop_assert_eq!(peek(&bytes).unwrap(), BatchKey { agent, boot_epoch, sequence, table, window });
    }

    #[test]
    fn no_prefix_of_a_batch_is_one(batch in any_batch(), cut in any::<prop::sample::Index>()) {
        let bytes = encode(&batch).unwrap();
        prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
