//! `leeward region …`: what the operator says of the regions and how they fare.

use std::fmt::Write;

use leeward_common::{
    api::v1::{Region, Regions, State},
    id::{AgentId, RegionId},
};

use crate::{
    args::{Cli, RegionCommand},
    client::Client,
    exit::{Exit, Failure},
    output::Output,
    table::{Align, Table},
    words,
};

/// Runs `leeward region …`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(cli: &Cli, out: &Output, command: &RegionCommand) -> Result<Exit, Failure> {
    let client = Client::new(&cli.global)?;
    match command {
        RegionCommand::Ls => {
            let regions: Regions = client.ask("/v1/regions")?;
            out.list(&regions, &regions.regions, "", &table(&regions.regions))?;
            Ok(out.verdict(
                regions
                    .regions
                    .iter()
                    .all(|region| region.state == State::Ok),
            ))
        }
        RegionCommand::Show { region } => {
            let region: Region = client.ask(&format!("/v1/regions/{region}"))?;
            out.one(&region, |out| text(out, &region))?;
            Ok(out.verdict(region.state == State::Ok))
        }
    }
}

fn table(regions: &[Region]) -> Table {
    let mut table = Table::new()
        .left("region")
        .left("state")
        .right("agents")
        .right("capacity")
        .left("goes to")
        .wide("latitude", Align::Right)
        .wide("longitude", Align::Right)
        .wide("labels", Align::Left)
        .left("why");
    for region in regions {
        table.row(vec![
            region.region_id.as_str().into(),
            words::state(region.state),
            format!("{}/{}", region.fresh_agents, region.agents.len()).into(),
            region.capacity.to_string().into(),
            region
                .selected_region
                .as_ref()
                .map_or("none", |region| region.as_str())
                .into(),
            region.latitude.to_string().into(),
            region.longitude.to_string().into(),
            labels(region).into(),
            region.detail.as_str().into(),
        ]);
    }
    table
}

fn labels(region: &Region) -> String {
    let labels: Vec<String> = region
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(" ")
}

fn text(out: &Output, region: &Region) -> String {
    let state = out.paint(words::tone(region.state), region.state.as_str());
    let mut text = format!("{} is {state}: {}\n\n", region.region_id, region.detail);
    let mut line = |label: &str, value: &str| {
        let value = if value.is_empty() { "none" } else { value };
        let _ = writeln!(text, "  {label:<10}  {value}");
    };
    line(
        "since",
        &region.since.map_or_else(
            || "the start".to_owned(),
            |since| format!("{} UTC", words::date_time(since)),
        ),
    );
    line(
        "position",
        &format!("{} north, {} east", region.latitude, region.longitude),
    );
    line("capacity", &region.capacity.to_string());
    line("labels", &labels(region));
    let agents: Vec<&str> = region.agents.iter().map(AgentId::as_str).collect();
    let heard = format!(
        "{} ({} heard of lately)",
        agents.join(" "),
        region.fresh_agents
    );
    line("agents", if agents.is_empty() { "" } else { &heard });
    let candidates: Vec<&str> = region
        .potential_failover_regions
        .iter()
        .map(RegionId::as_str)
        .collect();
    line("candidates", &candidates.join(" "));
    line(
        "goes to",
        region
            .selected_region
            .as_ref()
            .map_or("none", |region| region.as_str()),
    );
    let _ = writeln!(
        text,
        "\n  next: leeward failover explain {}",
        region.region_id
    );
    text
}
