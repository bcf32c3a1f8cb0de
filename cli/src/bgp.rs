//! `leeward bgp`: what routers tell of the prefixes that regions are reached by.

use leeward_common::{
    api::v1::{BgpEvents, BgpPeers, BgpPrefix, BgpPrefixes, Defined, Reach, ReachSpec, Reaches},
    bgp::Standing,
};

use crate::{
    args::{BgpCommand, Cli, ReachCommand},
    capacity,
    client::Client,
    exit::{Exit, Failure},
    output::{Output, Tone},
    service,
    table::{Cell, Table},
    words,
};

/// Runs `leeward bgp`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(cli: &Cli, out: &Output, command: &BgpCommand) -> Result<Exit, Failure> {
    let client = Client::new(&cli.global)?;
    match command {
        BgpCommand::Prefixes => prefixes(&client, out),
        BgpCommand::Peers => peers(&client, out),
        BgpCommand::Reach { command: None } => reaches(&client, out),
        BgpCommand::Reach {
            command: Some(command),
        } => change_reach(cli, &client, out, command),
        BgpCommand::Events { limit } => events(&client, out, *limit),
    }
}

fn reaches(client: &Client, out: &Output) -> Result<Exit, Failure> {
    let told: Reaches = client.ask("/v1/bgp/reach")?;
    let mut table = Table::new()
        .left("region")
        .left("prefixes")
        .left("origins")
        .left("who");
    for own in &told.regions {
        let prefixes: Vec<_> = own.prefixes.iter().map(ToString::to_string).collect();
        let origins: Vec<_> = own
            .origins
            .iter()
            .map(|origin| format!("AS{origin}"))
            .collect();
        table.row(vec![
            Cell::from(own.region_id.to_string()),
            Cell::from(match prefixes.is_empty() {
                true => "learned from agents' addresses".to_owned(),
                false => prefixes.join(" "),
            }),
            Cell::from(origins.join(" ")),
            Cell::from(own.who.clone().unwrap_or_else(|| "-".to_owned())),
        ]);
    }
    out.list(&told, &told.regions, "", &table)?;
    Ok(Exit::Done)
}

fn change_reach(
    cli: &Cli,
    client: &Client,
    out: &Output,
    command: &ReachCommand,
) -> Result<Exit, Failure> {
    match command {
        ReachCommand::Set {
            region,
            prefixes,
            origins,
            why,
            how,
        } => {
            let spec = ReachSpec {
                prefixes: prefixes.clone(),
                origins: origins.clone(),
                why: why.clone(),
            };
            capacity::check(&Defined::Reach(region.clone(), spec.clone()))?;
            if how.dry_run {
                return capacity::dry(out, &spec);
            }
            let path = format!("/v1/bgp/reach/{region}");
            let reach: Reach = client.put(&path, &spec, how.if_version)?;
            out.one(&reach, |_| {
                format!(
                    "{region} is reached by what was said (change {})\n",
                    reach.version
                )
            })?;
            Ok(Exit::Done)
        }
        ReachCommand::Unset { region, why, how } => {
            let path = format!("/v1/bgp/reach/{region}");
            service::remove(cli, out, &path, &format!("reach {region}"), why, how)
        }
    }
}

fn prefixes(client: &Client, out: &Output) -> Result<Exit, Failure> {
    let told: BgpPrefixes = client.ask("/v1/bgp/prefixes")?;
    let mut table = Table::new()
        .left("prefix")
        .left("region")
        .left("agent")
        .right("visible")
        .right("gone")
        .left("origins")
        .left("RPKI")
        .right("withdrawn")
        .right("changed")
        .right("penalty");
    for own in &told.prefixes {
        let origins: Vec<_> = own
            .origins
            .iter()
            .map(|origin| format!("AS{origin}"))
            .collect();
        let gone = match (own.gone, own.visible) {
            (0, _) => Tone::Plain,
            (_, 0) => Tone::Bad,
            _ => Tone::Warn,
        };
        table.row(vec![
            Cell::from(own.prefix.clone()),
            Cell::from(own.region_id.to_string()),
            Cell::from(own.agent_id.to_string()),
            Cell::from(own.visible.to_string()),
            Cell::new(gone, own.gone.to_string()),
            Cell::from(origins.join(" ")),
            validity(own),
            Cell::from(own.withdrawals.to_string()),
            Cell::from(own.path_changes.to_string()),
            Cell::from(own.penalty_slow.to_string()),
        ]);
    }
    out.list(&told, &told.prefixes, "", &table)?;
    if told.prefixes.is_empty() {
        out.talk("no feed shows a watched prefix");
    }
    tell_left_out(out, told.left_out);
    Ok(Exit::Done)
}

/// Says that these are not all.
fn tell_left_out(out: &Output, left_out: u64) {
    if left_out > 0 {
        out.talk(&format!(
            "{left_out} more were told and are no longer remembered"
        ));
    }
}

/// The worst that is known of a prefix's routes.
fn validity(own: &BgpPrefix) -> Cell {
    match (own.invalid, own.not_found, own.valid) {
        (0, 0, 0) => Cell::from("-".to_owned()),
        (0, 0, _) => Cell::from("valid".to_owned()),
        (0, ..) => Cell::from("not found".to_owned()),
        (invalid, ..) => Cell::new(Tone::Bad, format!("{invalid} invalid")),
    }
}

fn peers(client: &Client, out: &Output) -> Result<Exit, Failure> {
    let told: BgpPeers = client.ask("/v1/bgp/peers")?;
    let mut table = Table::new()
        .left("feed")
        .left("agent")
        .left("standing")
        .left("since")
        .right("AS")
        .right("updates")
        .right("announced")
        .right("withdrawn");
    for own in &told.peers {
        let (tone, standing) = match own.standing {
            Standing::Loading => (Tone::Warn, "loading"),
            Standing::Believed => (Tone::Plain, "believed"),
            Standing::Lost => (Tone::Bad, "lost"),
            Standing::Untrusted => (Tone::Bad, "untrusted"),
        };
        table.row(vec![
            Cell::from(own.feed.clone()),
            Cell::from(own.agent_id.to_string()),
            Cell::new(tone, standing),
            Cell::from(words::date_time(own.since)),
            Cell::from(own.system.to_string()),
            Cell::from(own.updates.to_string()),
            Cell::from(own.announced.to_string()),
            Cell::from(own.withdrawn.to_string()),
        ]);
    }
    out.list(&told, &told.peers, "", &table)?;
    if told.peers.is_empty() {
        out.talk("no agent listens to a router");
    }
    tell_left_out(out, told.left_out);
    Ok(Exit::Done)
}

fn events(client: &Client, out: &Output, limit: u32) -> Result<Exit, Failure> {
    let told: BgpEvents = client.ask(&format!("/v1/bgp/events?limit={limit}"))?;
    let mut table = Table::new()
        .left("when")
        .left("prefix")
        .left("kind")
        .left("feed")
        .left("agent")
        .left("what");
    for own in &told.events {
        table.row(vec![
            Cell::from(words::date_time(own.at)),
            Cell::from(own.prefix.clone().unwrap_or_else(|| "-".to_owned())),
            Cell::from(own.kind.clone()),
            Cell::from(own.feed.clone()),
            Cell::from(own.agent_id.to_string()),
            Cell::from(own.detail.clone()),
        ]);
    }
    out.list(&told, &told.events, "", &table)?;
    if told.events.is_empty() {
        out.talk("nothing happened that is remembered");
    }
    Ok(Exit::Done)
}
