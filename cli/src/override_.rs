//! `leeward drain`, `pin`, `forbid`, `freeze` and `leeward override …`: an operator knows better, until it expires.

use anyhow::Context;
use leeward_common::{
    api::v1::{Defined, Override, OverrideRule, OverrideSpec, Overrides, Time},
    id::{OverrideId, RegionId, ServiceId},
    time::{Clock as _, SystemClock},
};

use crate::{
    args::{Cli, Command, OverrideCommand, Terms},
    capacity::{check, dry},
    client::Client,
    exit::{Exit, Failure},
    output::Output,
    service,
    table::{Align, Table},
    words,
};

/// Runs `leeward override …`.
///
/// # Errors
///
/// Returns why there is no answer, or why nothing was lifted.
pub fn run(cli: &Cli, out: &Output, command: Option<&OverrideCommand>) -> Result<Exit, Failure> {
    match command {
        None | Some(OverrideCommand::Ls) => {
            let overrides: Overrides = Client::new(&cli.global)?.ask("/v1/overrides")?;
            out.list(
                &overrides,
                &overrides.overrides,
                "",
                &table(&overrides.overrides),
            )?;
        }
        Some(OverrideCommand::Show { id }) => {
            let own: Override = Client::new(&cli.global)?.ask(&format!("/v1/overrides/{id}"))?;
            out.one(&own, |_| format!("{}\n", own.summary))?;
        }
        Some(OverrideCommand::Lift { id, why, how }) => {
            let path = format!("/v1/overrides/{id}");
            return service::remove(cli, out, &path, &format!("override {id}"), why, how);
        }
    }
    Ok(Exit::Done)
}

/// Runs `leeward drain`, `pin`, `forbid` and `freeze`.
///
/// # Errors
///
/// Returns why nothing is overridden.
pub fn give(cli: &Cli, out: &Output) -> Result<Exit, Failure> {
    let Some((spec, terms)) = spec(&cli.command) else {
        return Err(Failure::new(Exit::Usage, "this command overrides nothing"));
    };
    // What is wrong by itself does not depend on the id.
    let id = terms
        .id
        .clone()
        .map_or_else(|| OverrideId::parse("new"), Ok);
    let id = id.map_err(|error| Failure::new(Exit::Usage, error))?;
    check(&Defined::Override(id, spec.clone()))?;
    if terms.dry_run {
        return dry(out, &spec);
    }
    let client = Client::new(&cli.global)?;
    let given: Override = match &terms.id {
        Some(id) => client.put(&format!("/v1/overrides/{id}"), &spec, None)?,
        None => client.send("/v1/overrides", &spec, Some(&key()?))?,
    };
    out.one(&given, |_| {
        format!(
            "{}\n\n  lift it: leeward override lift {}\n",
            given.summary, given.override_id
        )
    })?;
    Ok(Exit::Done)
}

fn spec(command: &Command) -> Option<(OverrideSpec, &Terms)> {
    let (rule, region, service, primary, suspect, terms) = match command {
        Command::Drain {
            region,
            suspect,
            terms,
        } => (
            OverrideRule::Drain,
            Some(region),
            None,
            None,
            *suspect,
            terms,
        ),
        Command::Pin {
            region,
            owner,
            terms,
        } => {
            let (service, primary) = (owner.service.as_ref(), owner.primary.as_ref());
            (
                OverrideRule::Pin,
                Some(region),
                service,
                primary,
                false,
                terms,
            )
        }
        Command::Forbid {
            region,
            owner,
            terms,
        } => {
            let (service, primary) = (owner.service.as_ref(), owner.primary.as_ref());
            (
                OverrideRule::Forbid,
                Some(region),
                service,
                primary,
                false,
                terms,
            )
        }
        Command::Freeze {
            service,
            primary,
            terms,
        } => {
            let (service, primary) = (service.as_ref(), primary.as_ref());
            (OverrideRule::Freeze, None, service, primary, false, terms)
        }
        _ => return None,
    };
    let lasting = terms.lasting.map(|span| SystemClock.now() + span.0);
    let spec = OverrideSpec {
        rule,
        region: region.cloned(),
        service: service.cloned(),
        primary_region: primary.cloned(),
        suspect,
        until: Time(terms.until.or(lasting)?),
        why: terms.why.clone(),
    };
    Some((spec, terms))
}

/// Another for each call, so that a repetition on the way is none.
fn key() -> Result<String, Failure> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).context("the system has no random numbers")?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn table(overrides: &[Override]) -> Table {
    let mut table = Table::new()
        .left("id")
        .left("rule")
        .left("region")
        .left("whose")
        .left("until")
        .left("who")
        .wide("since", Align::Left)
        .wide("version", Align::Right)
        .left("why");
    for own in overrides {
        let spec = &own.spec;
        let service = spec.service.as_ref().map(ServiceId::as_str);
        let whose = service.or(spec.primary_region.as_ref().map(RegionId::as_str));
        table.row(vec![
            own.override_id.as_str().into(),
            spec.rule.as_str().into(),
            spec.region
                .as_ref()
                .map_or("", |region| region.as_str())
                .into(),
            whose.unwrap_or("everybody").into(),
            words::date_time(spec.until).into(),
            own.who.as_str().into(),
            words::date_time(own.at).into(),
            own.version.to_string().into(),
            spec.why.as_str().into(),
        ]);
    }
    table
}
