//! `leeward service …`: what runs somewhere, and where it should.

use std::{fmt::Write, fs, path::Path};

use leeward_common::{
    api::v1::{Defined, Removed, Service, ServiceFailover, ServiceLine, Services, Share, State},
    config::Document,
    definitions,
    id::ServiceId,
};

use crate::{
    args::{Cli, How, ServiceCommand},
    client::Client,
    exit::{Exit, Failure},
    output::Output,
    table::{Align, Table},
    words,
};

/// Runs `leeward service …`.
///
/// # Errors
///
/// Returns why there is no answer, or why nothing was changed.
pub fn run(cli: &Cli, out: &Output, command: &ServiceCommand) -> Result<Exit, Failure> {
    match command {
        ServiceCommand::Ls => {
            let services: Services = Client::new(&cli.global)?.ask("/v1/services")?;
            out.list(
                &services,
                &services.services,
                "",
                &table(&services.services),
            )?;
            let mut states = services.services.iter().map(|service| service.state);
            Ok(out.verdict(states.all(|state| state == State::Ok)))
        }
        ServiceCommand::Show { service } => {
            let service: Service =
                Client::new(&cli.global)?.ask(&format!("/v1/services/{service}"))?;
            out.one(&service, |_| text(&service))?;
            Ok(Exit::Done)
        }
        ServiceCommand::Put { file, how } => put(cli, out, file, how),
        ServiceCommand::Delete { service, why, how } => {
            let path = format!("/v1/services/{service}");
            remove(cli, out, &path, &format!("service {service}"), why, how)
        }
        ServiceCommand::Failover { service } => failover(cli, out, service),
    }
}

/// Removes what is under a path, and says so.
pub(crate) fn remove(
    cli: &Cli,
    out: &Output,
    path: &str,
    thing: &str,
    why: &str,
    how: &How,
) -> Result<Exit, Failure> {
    let client = Client::new(&cli.global)?;
    if how.dry_run {
        // That it is there is a question and changes nothing.
        let _: serde_json::Value = client.ask(path)?;
        out.talk(&format!("nothing was removed; this would remove {thing}"));
        return Ok(Exit::Done);
    }
    let removed: Removed = client.delete(path, why, how.if_version)?;
    out.one(&removed, |_| {
        format!("{thing} is removed (change {})\n", removed.version)
    })?;
    if let Some(file) = &removed.file {
        out.talk(&format!(
            "{file} still defines it: it comes back with the next reload unless it leaves the file too"
        ));
    }
    Ok(Exit::Done)
}

fn put(cli: &Cli, out: &Output, file: &Path, how: &How) -> Result<Exit, Failure> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => Exit::NotFound,
            _ => Exit::Failed,
        };
        Failure::new(exit, format!("cannot read {name}: {error}"))
    })?;
    let document = Document {
        file: &name,
        text: &text,
    };
    let entries = definitions::parse(&document)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let mut services = Vec::new();
    for entry in entries {
        match entry.defined {
            Defined::Service(id, spec) => services.push((id, spec)),
            other => {
                let what = format!("{name} also defines the {} {}", other.noun(), other.id());
                return Err(Failure::new(Exit::Usage, what)
                    .step("put files of services only; definitions_dir of aggregator.toml takes all kinds"));
            }
        }
    }
    if services.is_empty() {
        return Err(
            Failure::new(Exit::Usage, format!("{name} defines no service"))
                .step("write [[service]] with id and home"),
        );
    }
    if how.if_version.is_some() && services.len() > 1 {
        return Err(
            Failure::new(Exit::Usage, "--if-version is about one service")
                .step(format!("{name} defines {}", services.len())),
        );
    }
    if how.dry_run {
        out.talk("nothing was sent; this would be:");
        let specs: std::collections::BTreeMap<_, _> = services.into_iter().collect();
        out.one(&specs, |_| {
            let text = serde_json::to_string_pretty(&specs).unwrap_or_default();
            format!("{text}\n")
        })?;
        return Ok(Exit::Done);
    }
    let client = Client::new(&cli.global)?;
    let mut answers: Vec<Service> = Vec::new();
    for (id, spec) in &services {
        answers.push(client.put(&format!("/v1/services/{id}"), spec, how.if_version)?);
    }
    let mut table = Table::new().left("service").right("version").left("home");
    for service in &answers {
        table.row(vec![
            service.service_id.as_str().into(),
            service.version.to_string().into(),
            service.spec.home.as_str().into(),
        ]);
    }
    out.list(&answers, &answers, "", &table)?;
    Ok(Exit::Done)
}

fn failover(cli: &Cli, out: &Output, service: &ServiceId) -> Result<Exit, Failure> {
    let path = format!("/v1/services/{service}/failover");
    let failover: ServiceFailover = Client::new(&cli.global)?.ask(&path)?;
    out.list(
        &failover,
        &failover.candidates,
        &head(&failover),
        &candidates(&failover),
    )?;
    Ok(match failover.state {
        State::Pending => Exit::NotEnoughKnown,
        state => out.verdict(state == State::Ok && !failover.stale),
    })
}

fn head(failover: &ServiceFailover) -> String {
    let mut text = format!("{}\n\n", failover.summary);
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "  {label:<8}  {value}");
    };
    line("action", failover.action.as_str().to_owned());
    if let Some(waiting) = &failover.waiting {
        line("waits", waiting.detail.clone());
    }
    let mut standby = shares(&failover.standby);
    if let Some(unserved) = &failover.standby_unserved {
        let part = words::percent(unserved.share);
        let _ = write!(standby, "; {part} nowhere: {}", unserved.because);
    }
    line("standby", standby);
    for notice in &failover.notices {
        line("notice", notice.detail.clone());
    }
    for id in &failover.overrides {
        line("override", id.to_string());
    }
    let age = words::age(failover.data_age_ms);
    let agents = words::plural(u64::from(failover.vantage_points), "vantage point");
    line(
        "data",
        format!("{age} old, {agents}, policy {}", failover.policy_version),
    );
    text.push('\n');
    text
}

fn candidates(failover: &ServiceFailover) -> Table {
    let mut table = Table::new()
        .right("rank")
        .left("region")
        .right("score")
        .right("baseline")
        .right("network")
        .right("p50")
        .right("p99")
        .right("loss")
        .wide("agents", Align::Right)
        .left("why not");
    for one in &failover.candidates {
        let reasons: Vec<&str> = one.reasons.iter().map(|reason| &*reason.detail).collect();
        table.row(vec![
            one.rank
                .map_or_else(String::new, |rank| rank.to_string())
                .into(),
            one.region_id.as_str().into(),
            words::weight(one.score).into(),
            format!("{:.3}", one.baseline_weight).into(),
            words::weight(one.network_weight).into(),
            words::measured(&one.latency_p50_us, words::milliseconds),
            words::measured(&one.latency_p99_us, words::milliseconds),
            words::measured(&one.loss_ratio, words::percent),
            one.vantage_points.to_string().into(),
            reasons.join("; ").into(),
        ]);
    }
    table
}

/// Shares in words.
pub(crate) fn shares(shares: &[Share]) -> String {
    match shares {
        [] => "nowhere".to_owned(),
        [whole] if whole.share >= 1.0 => whole.region_id.to_string(),
        shares => {
            let part =
                |share: &Share| format!("{} {}", share.region_id, words::percent(share.share));
            shares.iter().map(part).collect::<Vec<_>>().join(", ")
        }
    }
}

fn table(services: &[ServiceLine]) -> Table {
    let mut table = Table::new()
        .left("service")
        .left("state")
        .left("runs in")
        .left("home")
        .right("priority")
        .wide("version", Align::Right)
        .wide("who", Align::Left)
        .left("why");
    for service in services {
        table.row(vec![
            service.service_id.as_str().into(),
            words::state(service.state),
            service
                .selected_region
                .as_ref()
                .map_or("none", |region| region.as_str())
                .into(),
            service.home.as_str().into(),
            service.priority.to_string().into(),
            service.version.to_string().into(),
            service.who.as_str().into(),
            service.summary.as_str().into(),
        ]);
    }
    table
}

/// A service in the form of a file of definitions, so that it can be edited and put again.
fn text(service: &Service) -> String {
    let spec = toml::to_string(&service.spec).unwrap_or_default();
    // Nested tables of an entry are its own only by their full name.
    let spec = spec.replace("\n[", "\n[service.");
    format!(
        "# version {} by {} at {}\n[[service]]\nid = \"{}\"\n{spec}",
        service.version, service.who, service.at, service.service_id
    )
}
