//! Words that several findings use.

use leeward_common::{id::RegionId, time::Timestamp};

use super::name;
use crate::intent::Owner;

/// Where an owner's selection is: `virginia fails over to oregon`, `shop still runs in oregon`.
pub(super) fn is_at(owner: &Owner, adverb: &str, place: Option<&RegionId>) -> String {
    let place = name(place);
    let adverb = match adverb {
        "" => String::new(),
        adverb => format!("{adverb} "),
    };
    match owner {
        Owner::Region(region) => format!("{region} {adverb}fails over to {place}"),
        Owner::Service(service) if place == "nowhere" => format!("{service} {adverb}runs nowhere"),
        Owner::Service(service) => format!("{service} {adverb}runs in {place}"),
    }
}

/// `a, b and 3 more`.
pub(super) fn short_list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [one, two] => format!("{one} and {two}"),
        [one, two, three] => format!("{one}, {two} and {three}"),
        [one, two, rest @ ..] => format!("{one}, {two} and {} more", rest.len()),
    }
}

/// `is` or `are`.
pub(super) const fn is_or_are(count: usize) -> &'static str {
    match count {
        1 => "is",
        _ => "are",
    }
}

pub(super) fn plural(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

pub(super) fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

/// `03:12:07 UTC`.
pub(crate) fn time_of_day(time: Timestamp) -> String {
    let text = time.to_string();
    format!("{} UTC", text.get(11..19).unwrap_or(&text))
}
