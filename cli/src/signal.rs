//! `leeward signal …`: measurements that others inject.

use leeward_common::api::v1::{Metric, NewSignal, Signal, Signals, Time};

use crate::{
    args::{Cli, MetricName, PushOptions, SignalCommand},
    client::Client,
    exit::{Exit, Failure},
    output::Output,
    table::Table,
    words,
};

/// Runs `leeward signal …`.
///
/// # Errors
///
/// Returns why there is no answer, or why the signal was refused.
pub fn run(cli: &Cli, out: &Output, command: &SignalCommand) -> Result<Exit, Failure> {
    match command {
        SignalCommand::Ls => {
            let signals: Signals = Client::new(&cli.global)?.ask("/v1/signals")?;
            out.list(&signals, &signals.signals, "", &table(&signals.signals))?;
        }
        SignalCommand::Push(options) => push(cli, out, options)?,
    }
    Ok(Exit::Done)
}

fn push(cli: &Cli, out: &Output, options: &PushOptions) -> Result<(), Failure> {
    let signal = NewSignal {
        source: options.source.clone(),
        region: options.region.clone(),
        from: options.from.clone(),
        to: options.to.clone(),
        service: options.service.clone(),
        metric: match options.metric {
            MetricName::Health => Metric::Health,
            MetricName::LatencyUs => Metric::LatencyUs,
            MetricName::LossRatio => Metric::LossRatio,
            MetricName::BandwidthBps => Metric::BandwidthBps,
            MetricName::ReplicationLagUs => Metric::ReplicationLagUs,
        },
        value: options.value,
        observed_at: options.observed_at.map(Time),
        ttl_ms: u64::try_from(options.ttl.0.as_millis()).unwrap_or(u64::MAX),
    };
    if options.dry_run {
        out.talk("nothing was sent; this would be:");
        return out.one(&signal, |_| {
            format!("{}\n", serde_json::to_string(&signal).unwrap_or_default())
        });
    }
    let key = options.idempotency_key.as_deref();
    let accepted: Signal = Client::new(&cli.global)?.send("/v1/signals", &signal, key)?;
    out.one(&accepted, |_| {
        format!(
            "{} says {} of {} is {} until {} UTC\n",
            accepted.source,
            accepted.metric,
            subject(&accepted),
            accepted.value,
            words::time_of_day(accepted.expires_at)
        )
    })
}

fn subject(signal: &Signal) -> String {
    match (&signal.region, &signal.from, &signal.to) {
        (Some(region), ..) => match &signal.service {
            Some(service) => format!("{service} in {region}"),
            None => region.to_string(),
        },
        (None, Some(from), Some(to)) => format!("{from} to {to}"),
        _ => "?".to_owned(),
    }
}

fn table(signals: &[Signal]) -> Table {
    let mut table = Table::new()
        .left("source")
        .left("about")
        .left("metric")
        .right("value")
        .left("observed")
        .left("until");
    for signal in signals {
        table.row(vec![
            signal.source.as_str().into(),
            subject(signal).into(),
            signal.metric.as_str().into(),
            signal.value.to_string().into(),
            words::date_time(signal.observed_at).into(),
            words::date_time(signal.expires_at).into(),
        ]);
    }
    table
}
