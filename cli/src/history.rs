//! `leeward link A B --history 6h`: what a link did over a span of time, point by point.

use std::time::Duration;

use leeward_common::{
    api::v1::{HistoryPoint, HistoryRtt, LinkHistory, When},
    config::Span,
    id::RegionId,
    ratio::Ratio,
};

use crate::{
    args::Cli,
    client::{Client, escaped},
    exit::{Exit, Failure},
    output::{Output, Tone},
    table::{Cell, Table},
    words,
};

/// Points of a table that says nothing of its step, about as many as a screen has lines.
const GOOD_POINTS: u64 = 30;

/// Steps that people find natural, seconds.
const STEPS: [u64; 16] = [
    1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400,
];

/// Steps are low to high.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const PLAIN_BARS: [char; 8] = ['_', '.', ',', '-', '=', '+', '*', '#'];

/// Runs `leeward link A B --history SPAN`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(
    cli: &Cli,
    out: &Output,
    (from, to): (&RegionId, &RegionId),
    (span, step, until): (Span, Option<Span>, Option<When>),
) -> Result<Exit, Failure> {
    let (start, end) = times(span.0, until);
    let step = step.unwrap_or_else(|| good_step(span.0));
    let query = format!(
        "start={}&end={}&step={}",
        escaped(&start),
        escaped(&end),
        escaped(&step.to_string().replace(' ', ""))
    );
    let path = format!("/v1/links/{from}/{to}/history?{query}");
    let history: LinkHistory = Client::new(&cli.global)?.ask(&path)?;
    out.list(
        &history,
        &history.points,
        &head(out, &history),
        &table(&history),
    )?;
    if history.unreadable > 0 {
        out.talk(&format!(
            "{} stored records of this span cannot be read: leeward-aggregator store verify names them",
            history.unreadable
        ));
    }
    if history.points.is_empty() {
        return Ok(Exit::NotEnoughKnown);
    }
    Ok(out.verdict(history.points.iter().all(|point| point.unanswered == 0)))
}

/// From when until when, as the API reads it.
fn times(span: Duration, until: Option<When>) -> (String, String) {
    let ago = |span: Duration| format!("-{}", Span(span)).replace(' ', "");
    match until {
        Some(When::At(until)) => ((until - span).to_string(), until.to_string()),
        Some(When::Ago(before)) => (ago(before + span), ago(before)),
        None => (ago(span), "now".to_owned()),
    }
}

fn good_step(span: Duration) -> Span {
    let mut steps = STEPS.into_iter();
    let good = steps.find(|step| span.as_secs() / step <= GOOD_POINTS);
    let days = span.as_secs().div_ceil(GOOD_POINTS).div_ceil(86_400);
    Span(Duration::from_secs(good.unwrap_or(days * 86_400)))
}

fn head(out: &Output, history: &LinkHistory) -> String {
    let LinkHistory {
        from,
        to,
        start,
        end,
        step_ms,
        source,
        points,
        ..
    } = history;
    let mut text = format!(
        "{from} -> {to}, {} to {} UTC, {} a point, from {}\n",
        words::date_time(*start),
        words::date_time(*end),
        words::span(Duration::from_millis(*step_ms)),
        match source.as_str() {
            "raw" => "windows",
            "minute" => "sums of minutes",
            _ => "sums of hours",
        }
    );
    if points.is_empty() {
        text.push_str("nobody reported about this link in this time\n");
        return text;
    }
    let median = |point: &HistoryPoint| Some(f64::from(*middle(point)?));
    let loss = |point: &HistoryPoint| point.loss_ratio.map(Ratio::get);
    for (name, line) in [
        ("p50 ", spark(out, history, &median)),
        ("loss", spark(out, history, &loss)),
    ] {
        text.push_str(&format!("{name} {line}\n"));
    }
    text
}

fn middle(point: &HistoryPoint) -> Option<&u32> {
    point.rtt.as_ref()?.quantiles_us.first()
}

/// One character for each point, blank where nobody reported; the scale is from the smallest to the largest.
fn spark(
    out: &Output,
    history: &LinkHistory,
    value: &dyn Fn(&HistoryPoint) -> Option<f64>,
) -> String {
    /// Wider than any screen nobody reads it.
    const MOST: u64 = 400;
    let bars = if out.ascii { PLAIN_BARS } else { BARS };
    let step_us = history.step_ms.max(1) * 1_000;
    let start_us = history.start.0.as_unix_us();
    let length = history.end.0.as_unix_us().saturating_sub(start_us) / step_us;
    let values: Vec<_> = history.points.iter().filter_map(value).collect();
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut line = vec![' '; length.min(MOST) as usize];
    for point in &history.points {
        let at = point.start.0.as_unix_us().saturating_sub(start_us) / step_us;
        if let (Some(value), Some(place)) = (value(point), line.get_mut(at as usize)) {
            let share = if high > low {
                (value - low) / (high - low)
            } else {
                0.0
            };
            *place = bars[(share * 7.0).round() as usize % 8];
        }
    }
    line.into_iter().collect()
}

fn table(history: &LinkHistory) -> Table {
    let mut table = Table::new()
        .left("start")
        .right("answered")
        .right("unanswered")
        .right("loss")
        .right("min")
        .right("mean")
        .right("p50")
        .right("p90")
        .right("p99")
        .right("max");
    for point in &history.points {
        let rtt = |pick: &dyn Fn(&HistoryRtt) -> Option<f64>| {
            let told = point.rtt.as_ref().and_then(pick);
            Cell::from(told.map_or_else(|| "-".to_owned(), words::milliseconds))
        };
        let quantile = |at: usize| {
            rtt(&move |rtt: &HistoryRtt| rtt.quantiles_us.get(at).map(|us| f64::from(*us)))
        };
        let tone = if point.unanswered == 0 {
            Tone::Plain
        } else {
            Tone::Warn
        };
        let loss = point
            .loss_ratio
            .map_or_else(|| "?".to_owned(), |loss| words::percent(loss.get()));
        table.row(vec![
            words::date_time(point.start).into(),
            point.answered.to_string().into(),
            Cell::new(tone, point.unanswered.to_string()),
            Cell::new(tone, loss),
            rtt(&|rtt| Some(f64::from(rtt.min_us))),
            rtt(&|rtt| Some(rtt.mean_us)),
            quantile(0),
            quantile(1),
            quantile(2),
            rtt(&|rtt| Some(f64::from(rtt.max_us))),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_without_a_step_has_about_a_screen_of_points() {
        for (span, step) in [
            (60, 2),
            (3_600, 120),
            (21_600, 900),
            (86_400, 3_600),
            (400 * 86_400, 14 * 86_400),
        ] {
            let span = Duration::from_secs(span);
            assert_eq!(good_step(span).0.as_secs(), step, "{span:?}");
        }
    }

    #[test]
    fn times_are_as_the_api_reads_them() {
        let span = Duration::from_secs(5_400);
        let own = |start: &str, end: &str| (start.to_owned(), end.to_owned());
        assert_eq!(times(span, None), own("-1h30m", "now"));
        let before = When::Ago(Duration::from_secs(60));
        assert_eq!(times(span, Some(before)), own("-1h31m", "-1m"));
        let at = When::parse("2026-11-20T03:00:00Z").unwrap();
        let expected = own("2026-11-20T01:30:00.000Z", "2026-11-20T03:00:00.000Z");
        assert_eq!(times(span, Some(at)), expected);
    }
}
