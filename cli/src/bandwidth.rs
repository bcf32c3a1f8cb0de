//! How much a link carries: three quantities, never one number.

use leeward_common::api::v1::LinkBandwidth;

use crate::{
    output::Tone,
    table::{Align, Cell, Table},
    words,
};

/// The quantities, line by line; never one number.
#[must_use]
pub fn table(all: &[LinkBandwidth]) -> Table {
    let mut table = Table::new()
        .left("bandwidth")
        .right("Mbit/s")
        .right("from")
        .right("to")
        .left("measured")
        .left("by")
        .wide("target", Align::Left)
        .wide("samples", Align::Right)
        .wide("MB", Align::Right)
        .wide("method", Align::Left)
        .left("trusted");
    for own in all {
        let mbit = |bps: u64| Cell::from(format!("{:.1}", bps as f64 / 1e6));
        let trusted = match &own.doubt {
            None => Cell::new(Tone::Plain, "yes".to_owned()),
            Some(doubt) => Cell::new(Tone::Warn, format!("no: {doubt}")),
        };
        table.row(vec![
            own.quantity.as_str().to_owned().into(),
            mbit(own.bits_per_second),
            mbit(own.low_bits_per_second),
            mbit(own.high_bits_per_second),
            words::time_of_day(own.measured_at).into(),
            own.agent_id.to_string().into(),
            own.target_id.to_string().into(),
            own.samples.to_string().into(),
            format!("{:.2}", own.bytes as f64 / 1e6).into(),
            own.method.clone().into(),
            trusted,
        ]);
    }
    table
}
