//! Values in words and figures, the same in every command. UTC, percent and milliseconds: what people read.

use std::time::Duration;

use leeward_common::{
    api::v1::{Measured, State, Time},
    time::Timestamp,
};

use crate::{output::Tone, table::Cell};

/// The mark before a sentence.
#[must_use]
pub const fn mark(state: State) -> &'static str {
    match state {
        State::Ok => "✓",
        State::Degraded => "▲",
        State::Bad => "✕",
        State::Unknown | State::Pending => "○",
        State::Maintenance => "·",
    }
}

/// The tone of a state.
#[must_use]
pub const fn tone(state: State) -> Tone {
    match state {
        State::Ok => Tone::Plain,
        State::Degraded | State::Unknown | State::Pending => Tone::Warn,
        State::Bad => Tone::Bad,
        State::Maintenance => Tone::Quiet,
    }
}

/// A state as a cell.
#[must_use]
pub fn state(state: State) -> Cell {
    Cell::new(tone(state), state.as_str())
}

/// Microseconds as milliseconds, to three digits.
#[must_use]
pub fn milliseconds(us: f64) -> String {
    let ms = us / 1_000.0;
    match ms {
        ms if ms >= 100.0 => format!("{ms:.0} ms"),
        ms if ms >= 10.0 => format!("{ms:.1} ms"),
        ms if ms >= 0.1 => format!("{ms:.2} ms"),
        _ => format!("{us:.0} µs"),
    }
}

/// A ratio as percent. What is not zero never looks like zero.
#[must_use]
pub fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    match percent {
        percent if percent <= 0.0 => "0 %".to_owned(),
        percent if percent < 0.1 => "<0.1 %".to_owned(),
        percent if percent < 10.0 => format!("{percent:.1} %"),
        _ => format!("{percent:.0} %"),
    }
}

/// Bits per second.
#[must_use]
pub fn bandwidth(bps: f64) -> String {
    match bps {
        bps if bps >= 1e9 => format!("{:.1} Gbit/s", bps / 1e9),
        bps if bps >= 1e6 => format!("{:.1} Mbit/s", bps / 1e6),
        _ => format!("{:.0} kbit/s", bps / 1e3),
    }
}

/// A weight or score: three decimals, or "?" where it is unknown.
#[must_use]
pub fn weight(weight: Option<f64>) -> String {
    weight.map_or_else(|| "?".to_owned(), |weight| format!("{weight:.3}"))
}

/// Bounds of a weight or score: "0.412 to 0.573", or "?" where they are unknown.
#[must_use]
pub fn range(low: Option<f64>, high: Option<f64>) -> String {
    match (low, high) {
        (Some(low), Some(high)) => format!("{low:.3} to {high:.3}"),
        _ => "?".to_owned(),
    }
}

/// A measured value as a cell: "?" where it is unknown, toned where it is not sure.
#[must_use]
pub fn measured(value: &Measured, write: fn(f64) -> String) -> Cell {
    match value.value {
        Some(number) if value.state == State::Unknown => {
            Cell::new(Tone::Quiet, format!("({})", write(number)))
        }
        Some(number) => Cell::new(tone(value.state), write(number)),
        None => Cell::new(Tone::Quiet, "?"),
    }
}

/// As [`measured`], with its bounds.
#[must_use]
pub fn with_bounds(value: &Measured, write: fn(f64) -> String) -> String {
    match (value.value, value.low, value.high) {
        (Some(number), Some(low), Some(high)) => {
            format!("{} ({} to {})", write(number), write(low), write(high))
        }
        (Some(number), ..) => write(number),
        _ => "unknown".to_owned(),
    }
}

/// An age in milliseconds.
#[must_use]
pub fn age(ms: Option<u64>) -> String {
    ms.map_or_else(|| "?".to_owned(), |ms| span(Duration::from_millis(ms)))
}

/// A span of time, its largest unit or two.
#[must_use]
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", span.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A time of day, in UTC.
#[must_use]
pub fn time_of_day(time: Time) -> String {
    let text = time.to_string();
    text.get(11..19).unwrap_or(&text).to_owned()
}

/// Date and time, in UTC.
#[must_use]
pub fn date_time(time: Time) -> String {
    let text = time.to_string();
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

/// How long ago `then` was at `now`.
#[must_use]
pub fn since(then: Option<Time>, now: Timestamp) -> String {
    then.map_or_else(
        || "never".to_owned(),
        |then| format!("{} ago", span(now.since(then.0))),
    )
}

/// `1 agent`, `2 agents`.
#[must_use]
pub fn plural(count: u64, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_zero_never_looks_like_zero() {
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.000_3), "<0.1 %");
        assert_eq!(percent(0.083), "8.3 %");
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(milliseconds(40.0), "40 µs");
        assert_eq!(milliseconds(71_700.0), "71.7 ms");
    }

    #[test]
    fn a_time_is_shown_in_utc() {
        let time = Time(Timestamp::from_unix_us(1_763_000_000_250_000));
        assert_eq!(time_of_day(time), "02:13:20");
        assert_eq!(date_time(time), "2025-11-13 02:13:20");
    }

    #[test]
    fn an_unknown_value_is_a_question_mark() {
        assert_eq!(weight(None), "?");
        assert_eq!(age(None), "?");
        assert_eq!(age(Some(700)), "0.7 s");
    }
}
