//! `leeward bandwidth A B`: how much a link carries, as it is known, or measured now.

use std::time::{Duration, Instant};

use leeward_common::{
    api::v1::{BandwidthOrder, BandwidthOrderState, LinkBandwidth, NewBandwidthOrder},
    id::RegionId,
};

use crate::{
    args::{BandwidthOptions, Cli, Format},
    client::Client,
    exit::{Exit, Failure},
    output::{Output, Tone},
    table::{Align, Cell, Table},
    words,
};

/// How long one question waits for the answer: less than any timeout that makes sense.
const WAIT: Duration = Duration::from_secs(4);

/// Runs `leeward bandwidth A B`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(cli: &Cli, out: &Output, options: &BandwidthOptions) -> Result<Exit, Failure> {
    let client = Client::new(&cli.global)?;
    let BandwidthOptions {
        from,
        to,
        heavy,
        wait,
        ..
    } = options;
    let path = format!("/v1/links/{from}/{to}/bandwidth");
    let ordered: BandwidthOrder = client.send(&path, &NewBandwidthOrder { heavy: *heavy }, None)?;
    if let Some(agent) = &ordered.agent_id {
        out.talk(&format!("{agent} measures; its budget may make it wait"));
    }
    let told = outcome(&client, &ordered, wait.0)?;
    match told.state {
        BandwidthOrderState::Measured => {}
        BandwidthOrderState::Declined => {
            let failure = format!("nothing was measured: {}", told.detail);
            return Err(Failure::new(Exit::Precondition, failure));
        }
        _ => return Err(late(from, to, told.order)),
    }
    match out.format {
        Format::Table | Format::Wide => out.text(&text(out, &told))?,
        _ => out.list(&told, &told.bandwidth, "", &table(&told.bandwidth))?,
    }
    let trusted = told.bandwidth.iter().all(|own| own.trusted);
    match told.bandwidth.is_empty() {
        true => Ok(Exit::NotEnoughKnown),
        false => Ok(out.verdict(trusted)),
    }
}

/// Waits for what comes of an order.
fn outcome(
    client: &Client,
    ordered: &BandwidthOrder,
    patience: Duration,
) -> Result<BandwidthOrder, Failure> {
    let began = Instant::now();
    loop {
        let left = patience.saturating_sub(began.elapsed()).min(WAIT);
        let ask = format!(
            "/v1/bandwidth/{}?wait={}ms",
            ordered.order,
            left.as_millis()
        );
        let told: BandwidthOrder = client.ask(&ask)?;
        if told.state != BandwidthOrderState::Waiting || left.is_zero() {
            return Ok(told);
        }
    }
}

fn late(from: &RegionId, to: &RegionId, order: u64) -> Failure {
    let failure = format!(
        "nothing came of order {order} yet: the agent's budget makes it wait, or it is away"
    );
    Failure::new(Exit::NotEnoughKnown, failure).step(format!("leeward link {from} {to}"))
}

fn text(out: &Output, told: &BandwidthOrder) -> String {
    let mut text = table(&told.bandwidth).render(out, out.format == Format::Wide);
    if !told.detail.is_empty() {
        text.push_str(&format!("{}\n", told.detail));
    }
    text.push_str(&out.paint(
        Tone::Quiet,
        &format!("{:.2} MB spent\n", told.bytes as f64 / 1e6),
    ));
    text
}

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
