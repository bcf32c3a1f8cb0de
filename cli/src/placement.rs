//! `leeward placement`: what would go where if regions failed, asked before the event.

use leeward_common::{
    api::v1::{Load, Placement, PlacementQuestion, Price},
    id::RegionId,
};

use crate::{
    args::{Cli, Format},
    capacity::amount,
    client::Client,
    exit::{Exit, Failure},
    output::{Output, Tone},
    service::shares,
    table::{Align, Cell, Table},
    words,
};

/// Runs `leeward placement`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(cli: &Cli, out: &Output, failed: &[RegionId]) -> Result<Exit, Failure> {
    let question = PlacementQuestion {
        failed: failed.iter().cloned().collect(),
    };
    let placement: Placement = Client::new(&cli.global)?.send("/v1/placements", &question, None)?;
    let head = format!("{}\n\n", placement.summary);
    out.list(&placement, &placement.services, &head, &fates(&placement))?;
    if matches!(out.format, Format::Table | Format::Wide) {
        let wide = out.format == Format::Wide;
        out.text(&format!("\n{}", loads(&placement.loads).render(out, wide)))?;
    }
    let all_run = placement
        .services
        .iter()
        .all(|fate| fate.unserved.is_none());
    Ok(out.verdict(all_run))
}

fn fates(placement: &Placement) -> Table {
    let mut table = Table::new()
        .right("priority")
        .left("service")
        .left("from")
        .left("to")
        .right("unserved")
        .left("why");
    for fate in &placement.services {
        let (part, because) = match &fate.unserved {
            None => (Cell::from(""), ""),
            Some(unserved) => (
                Cell::new(Tone::Bad, words::percent(unserved.share)),
                &*unserved.because,
            ),
        };
        table.row(vec![
            fate.priority.to_string().into(),
            fate.service_id.as_str().into(),
            shares(&fate.before).into(),
            shares(&fate.after).into(),
            part,
            because.into(),
        ]);
    }
    table
}

fn loads(loads: &[Load]) -> Table {
    let mut table = Table::new()
        .left("region")
        .left("resource")
        .right("usable")
        .right("before")
        .right("after")
        .left("one more unit would")
        .wide("offered", Align::Right);
    let number = |value: Option<f64>| value.map_or_else(|| "?".to_owned(), amount);
    for load in loads {
        let is_full = load
            .usable
            .is_some_and(|usable| load.after >= usable * 0.999);
        let tone = if is_full { Tone::Warn } else { Tone::Plain };
        table.row(vec![
            load.region_id.as_str().into(),
            load.resource_id.as_str().into(),
            number(load.usable).into(),
            amount(load.before).into(),
            Cell::new(tone, amount(load.after)),
            load.price.map_or_else(String::new, worth).into(),
            number(load.offered).into(),
        ]);
    }
    table
}

fn worth(price: Price) -> String {
    match price.priority {
        Some(priority) => format!("serve {} more of priority {priority}", amount(price.serves)),
        None => format!("improve the scores by {}", amount(price.saves)),
    }
}
