//! `leeward capacity …`: what regions offer, what is set aside, and what is left.

use leeward_common::{
    api::v1::{Account, Capacity, Defined, Offer, OfferSpec, Reservation, ReservationSpec, Time},
    id::{OfferId, ReservationId, ServiceId},
    time::{Clock as _, SystemClock},
};

use crate::{
    args::{AmountOptions, CapacityCommand, Cli},
    client::Client,
    exit::{Exit, Failure},
    output::{Output, Tone},
    service,
    table::{Align, Cell, Table},
    words,
};

/// Runs `leeward capacity …`.
///
/// # Errors
///
/// Returns why there is no answer, or why nothing was changed.
pub fn run(cli: &Cli, out: &Output, command: Option<&CapacityCommand>) -> Result<Exit, Failure> {
    match command {
        None | Some(CapacityCommand::Ls) => list(cli, out),
        Some(CapacityCommand::Offer(options)) => offer(cli, out, options),
        Some(CapacityCommand::Reserve { service, amounts }) => {
            reserve(cli, out, service.as_ref(), amounts)
        }
        Some(CapacityCommand::Release {
            id,
            offer,
            why,
            how,
        }) => {
            let (noun, folder) = match offer {
                true => ("offer", "offers"),
                false => ("reservation", "reservations"),
            };
            // An id of another kind would be a path of another kind.
            ReservationId::parse(id).map_err(usage)?;
            let path = format!("/v1/capacity/{folder}/{id}");
            service::remove(cli, out, &path, &format!("{noun} {id}"), why, how)
        }
    }
}

fn list(cli: &Cli, out: &Output) -> Result<Exit, Failure> {
    let capacity: Capacity = Client::new(&cli.global)?.ask("/v1/capacity")?;
    out.list(
        &capacity,
        &capacity.accounts,
        "",
        &table(&capacity.accounts),
    )?;
    if matches!(
        out.format,
        crate::args::Format::Table | crate::args::Format::Wide
    ) {
        out.text(&format!("\n{}", commitments(&capacity).render(out, true)))?;
    }
    let is_over = |account: &Account| account.free.is_some_and(|free| free < 0.0);
    Ok(out.verdict(!capacity.accounts.iter().any(is_over)))
}

fn table(accounts: &[Account]) -> Table {
    let mut table = Table::new()
        .left("region")
        .left("resource")
        .right("offered")
        .right("reserved")
        .right("used")
        .right("free")
        .wide("kept free", Align::Right);
    let number = |value: Option<f64>| value.map_or_else(|| "?".to_owned(), amount);
    for account in accounts {
        let tone = match account.free {
            Some(free) if free < 0.0 => Tone::Bad,
            _ => Tone::Plain,
        };
        table.row(vec![
            account.region_id.as_str().into(),
            account.resource_id.as_str().into(),
            number(account.offered).into(),
            amount(account.reserved).into(),
            amount(account.used).into(),
            Cell::new(tone, number(account.free)),
            amount(account.kept).into(),
        ]);
    }
    table
}

fn commitments(capacity: &Capacity) -> Table {
    let mut table = Table::new()
        .left("kind")
        .left("id")
        .left("region")
        .left("amounts")
        .left("for")
        .left("until")
        .left("who");
    let until = |until: Option<Time>| until.map_or_else(|| "-".to_owned(), words::date_time);
    let amounts = |amounts: &std::collections::BTreeMap<_, f64>| {
        let texts =
            amounts
                .iter()
                .map(|(resource, value): (&leeward_common::id::ResourceId, _)| {
                    format!("{resource}={}", amount(*value))
                });
        texts.collect::<Vec<_>>().join(" ")
    };
    for offer in &capacity.offers {
        table.row(vec![
            "offer".into(),
            offer.offer_id.as_str().into(),
            offer.spec.region.as_str().into(),
            amounts(&offer.spec.amounts).into(),
            "".into(),
            until(offer.spec.until).into(),
            offer.who.as_str().into(),
        ]);
    }
    for reservation in &capacity.reservations {
        let spec = &reservation.spec;
        table.row(vec![
            "reservation".into(),
            reservation.reservation_id.as_str().into(),
            spec.region.as_str().into(),
            amounts(&spec.amounts).into(),
            spec.service
                .as_ref()
                .map_or("", |service| service.as_str())
                .into(),
            until(Some(spec.until)).into(),
            reservation.who.as_str().into(),
        ]);
    }
    table
}

/// A number without digits that say nothing.
pub(crate) fn amount(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn offer(cli: &Cli, out: &Output, options: &AmountOptions) -> Result<Exit, Failure> {
    let id = OfferId::parse(&options.id).map_err(usage)?;
    let spec = OfferSpec {
        region: options.region.clone(),
        amounts: options.amounts.iter().cloned().collect(),
        until: until(options),
        why: options.why.clone(),
    };
    check(&Defined::Offer(id.clone(), spec.clone()))?;
    if options.how.dry_run {
        return dry(out, &spec);
    }
    let path = format!("/v1/capacity/offers/{id}");
    let offer: Offer = Client::new(&cli.global)?.put(&path, &spec, options.how.if_version)?;
    out.one(&offer, |_| {
        format!(
            "{} offers what {id} says (change {})\n",
            offer.spec.region, offer.version
        )
    })?;
    Ok(Exit::Done)
}

fn reserve(
    cli: &Cli,
    out: &Output,
    service: Option<&ServiceId>,
    options: &AmountOptions,
) -> Result<Exit, Failure> {
    let id = ReservationId::parse(&options.id).map_err(usage)?;
    let Some(until) = until(options) else {
        return Err(Failure::new(Exit::Usage, "a reservation ends some time")
            .step("--for 7d or --until TIME says when"));
    };
    let spec = ReservationSpec {
        region: options.region.clone(),
        service: service.cloned(),
        amounts: options.amounts.iter().cloned().collect(),
        until,
        why: options.why.clone(),
    };
    check(&Defined::Reservation(id.clone(), spec.clone()))?;
    if options.how.dry_run {
        return dry(out, &spec);
    }
    let path = format!("/v1/capacity/reservations/{id}");
    let reservation: Reservation =
        Client::new(&cli.global)?.put(&path, &spec, options.how.if_version)?;
    out.one(&reservation, |_| {
        let until = words::date_time(reservation.spec.until);
        let (region, version) = (&reservation.spec.region, reservation.version);
        format!("{region} keeps what {id} says until {until} UTC (change {version})\n")
    })?;
    Ok(Exit::Done)
}

fn until(options: &AmountOptions) -> Option<Time> {
    let lasting = options.lasting.map(|span| SystemClock.now() + span.0);
    options.until.or(lasting).map(Time)
}

fn usage(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, error)
}

/// What is wrong with a definition by itself is said without asking anybody.
pub(crate) fn check(defined: &Defined) -> Result<(), Failure> {
    defined.check().map_err(|fault| {
        Failure::new(Exit::Usage, format!("{} {}", fault.path, fault.detail)).step(fault.what_to_do)
    })
}

/// Shows what would be sent.
pub(crate) fn dry(out: &Output, body: &impl serde::Serialize) -> Result<Exit, Failure> {
    out.talk("nothing was sent; this would be:");
    out.one(body, |_| {
        format!("{}\n", serde_json::to_string(body).unwrap_or_default())
    })?;
    Ok(Exit::Done)
}
