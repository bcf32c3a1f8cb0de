//! `leeward trace A B`: the route of a link, traced now, as people know it from traceroute and mtr.

use std::time::{Duration, Instant};

use leeward_common::{
    api::v1::{
        NewTrace, OrderState, OrderedTrace, Trace, TraceAnswer, TraceEnd, TraceHop, TraceMtu,
        TraceOutcome, Traces,
    },
    finding::trace::Says,
};

use crate::{
    args::{Cli, Format, TraceOptions},
    client::Client,
    exit::{Exit, Failure},
    output::{Output, Tone},
    table::{Align, Cell, Table},
    words,
};

/// How long a trace may take: thirty hops that say nothing, and a black hole behind them, take half as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one question waits for the answer: less than any timeout that makes sense.
const WAIT: Duration = Duration::from_secs(4);

/// Runs `leeward trace A B`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(cli: &Cli, out: &Output, options: &TraceOptions) -> Result<Exit, Failure> {
    let client = Client::new(&cli.global)?;
    let trace = match options.last || options.changes {
        true => last(&client, options)?,
        false => Some(traced(&client, out, cli, options)?),
    };
    let Some(trace) = trace else {
        let (from, to) = (&options.from, &options.to);
        let failure = format!("no route from {from} to {to} was traced lately");
        return Err(
            Failure::new(Exit::NotEnoughKnown, failure).step(format!("leeward trace {from} {to}"))
        );
    };
    match out.format {
        Format::Table | Format::Wide if options.changes => out.text(&changes(&trace))?,
        Format::Table | Format::Wide => out.text(&text(out, &trace))?,
        _ => out.list(&trace, &trace.hops, "", &table(&trace.hops))?,
    }
    Ok(out.verdict(trace.end == TraceEnd::Reached))
}

/// The newest route that is known.
fn last(client: &Client, options: &TraceOptions) -> Result<Option<Trace>, Failure> {
    let (from, to) = (&options.from, &options.to);
    let known: Traces = client.ask(&format!("/v1/traces?from={from}&to={to}&limit=1"))?;
    Ok(known.traces.into_iter().next())
}

/// Orders a trace and waits for it.
fn traced(
    client: &Client,
    out: &Output,
    cli: &Cli,
    options: &TraceOptions,
) -> Result<Trace, Failure> {
    let wanted = NewTrace {
        from: options.from.clone(),
        to: options.to.clone(),
        kind: options.kind,
        agent: options.agent.clone(),
        mtu: !options.no_mtu,
    };
    let ordered: OrderedTrace = client.send("/v1/traces", &wanted, None)?;
    let OrderedTrace {
        order,
        agent,
        target,
        kind,
    } = &ordered;
    out.talk(&format!("{agent} traces the route to {target} by {kind} …"));
    let wait = WAIT.min(cli.global.timeout.0 / 2).as_secs().max(1);
    let until = Instant::now() + PATIENCE;
    loop {
        let path = format!("/v1/traces/{order}?wait={wait}s");
        let outcome: TraceOutcome = client.ask(&path)?;
        match (outcome.state, outcome.trace) {
            (OrderState::Done, Some(trace)) => return Ok(trace),
            (OrderState::Declined, _) => {
                let reason = outcome.reason.unwrap_or_default();
                return Err(Failure::new(
                    Exit::Failed,
                    format!("{agent} declines: {reason}"),
                ));
            }
            _ if Instant::now() >= until => {
                let failure = format!("{agent} has not told of order {order} for a minute");
                return Err(Failure::new(Exit::TimedOut, failure).step(format!(
                    "leeward trace {} {} --last",
                    options.from, options.to
                )));
            }
            _ => {}
        }
    }
}

fn text(out: &Output, trace: &Trace) -> String {
    let to = trace.to.as_ref().map_or("outside", |to| to.as_str());
    let mut text = format!(
        "{} to {to}: from {} to {} ({}) by {}, {} UTC\n",
        trace.from,
        trace.agent,
        trace.target,
        trace.address,
        trace.kind,
        words::date_time(trace.at)
    );
    text.push_str(&table(&trace.hops).render(out, out.format == Format::Wide));
    text.push_str(&format!("{}\n", trace.detail));
    if let Some(mtu) = &trace.mtu {
        text.push_str(&largest(out, mtu));
    }
    text.push_str(&changes(trace));
    text
}

fn largest(out: &Output, mtu: &TraceMtu) -> String {
    let TraceMtu {
        bytes,
        local_bytes,
        hinted_bytes,
        hinted_by,
        black_hole,
    } = mtu;
    let mut text = format!("the largest packet that comes through has {bytes} bytes");
    if bytes == local_bytes {
        text.push_str(", all that the interface lets out");
    } else {
        text.push_str(&format!("; the interface lets out {local_bytes}"));
    }
    if let (Some(hinted), Some(by)) = (hinted_bytes, hinted_by) {
        text.push_str(&format!("; {by} says {hinted}"));
    }
    text.push('\n');
    if *black_hole {
        let warning = "larger packets vanish, and no router says so: a black hole\n";
        text.push_str(&out.paint(Tone::Warn, warning));
    }
    text
}

fn changes(trace: &Trace) -> String {
    let (Some(changes), Some(before)) = (&trace.changes, trace.compared_with) else {
        return "no earlier trace of this path to compare with\n".to_owned();
    };
    let before = words::date_time(before);
    if changes.is_empty() {
        return format!("the same route as at {before} UTC\n");
    }
    let list = |addresses: &[std::net::IpAddr]| {
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        match texts.is_empty() {
            true => "nothing".to_owned(),
            false => texts.join(" or "),
        }
    };
    let mut text = format!("changed since {before} UTC:\n");
    for change in changes {
        let (was, is) = (list(&change.before), list(&change.after));
        text.push_str(&format!("  hop {}: was {was}, is {is}\n", change.hop));
    }
    text
}

fn table(hops: &[TraceHop]) -> Table {
    let mut table = Table::new()
        .right("hop")
        .left("address")
        .right("loss")
        .right("best")
        .right("median")
        .wide("sent", Align::Right)
        .wide("as", Align::Right)
        .wide("mpls", Align::Left)
        .left("");
    for hop in hops {
        let time = |us: Option<u32>| {
            us.map_or_else(|| "-".to_owned(), |us| words::milliseconds(f64::from(us)))
        };
        let lost = match hop.sent {
            0 => 0.0,
            sent => f64::from(hop.lost) / f64::from(sent),
        };
        let tone = match hop.lost {
            0 => Tone::Plain,
            _ => Tone::Quiet,
        };
        let first = hop.answers.first();
        table.row(vec![
            hop.hop.to_string().into(),
            first
                .map_or_else(|| "*".to_owned(), |own| own.address.to_string())
                .into(),
            Cell::new(tone, words::percent(lost)),
            time(hop.rtt_best_us).into(),
            time(hop.rtt_median_us).into(),
            hop.sent.to_string().into(),
            number(first).into(),
            labels(first).into(),
            first
                .map_or_else(String::new, |own| says(own.says).to_owned())
                .into(),
        ]);
        // Others at the same distance: routers that share the load packet by packet.
        for other in hop.answers.iter().skip(1) {
            table.row(vec![
                "".into(),
                other.address.to_string().into(),
                "".into(),
                time(other.rtts_us.iter().min().copied()).into(),
                "".into(),
                "".into(),
                number(Some(other)).into(),
                labels(Some(other)).into(),
                says(other.says).into(),
            ]);
        }
    }
    table
}

fn number(answer: Option<&TraceAnswer>) -> String {
    let asn = answer.and_then(|own| own.asn);
    asn.map_or_else(|| "-".to_owned(), |asn| asn.to_string())
}

fn labels(answer: Option<&TraceAnswer>) -> String {
    let labels = answer.into_iter().flat_map(|own| &own.mpls);
    let labels: Vec<String> = labels.map(|label| label.label.to_string()).collect();
    match labels.is_empty() {
        true => "-".to_owned(),
        false => labels.join("/"),
    }
}

const fn says(says: Says) -> &'static str {
    match says {
        Says::TimeExceeded | Says::Reached => "",
        Says::NetUnreachable => "says: no way to the network",
        Says::HostUnreachable => "says: the host cannot be reached",
        Says::PortUnreachable => "says: nobody listens on the port",
        Says::Prohibited => "says: prohibited",
        Says::OtherUnreachable => "says: it goes no further",
    }
}
