//! Names that do not exist, and the ones that were meant.

use leeward_common::{
    api::problem::{Code, Problem},
    id::{RegionId, ServiceId},
};
use leeward_engine::{intent::Intents, policy::Policy};

use super::error::Refused;

/// How many near names an answer lists.
const MAX_NEAR: usize = 5;

/// The configured region of this name.
pub(super) fn region<'a>(policy: &'a Policy, name: &str) -> Result<&'a RegionId, Refused> {
    let known = policy.regions.get_key_value(name).map(|(region, _)| region);
    known.ok_or_else(|| {
        let regions = policy.regions.keys().map(RegionId::as_str);
        unknown(Code::UnknownRegion, "region", name, regions, "/v1/regions")
    })
}

/// The service of this name.
pub(super) fn service<'a>(intents: &'a Intents, name: &str) -> Result<&'a ServiceId, Refused> {
    let known = intents.services.keys().find(|id| id.as_str() == name);
    known.ok_or_else(|| {
        let services = intents.services.keys().map(ServiceId::as_str);
        unknown(
            Code::UnknownService,
            "service",
            name,
            services,
            "/v1/services",
        )
    })
}

/// That there is no such name, and the near ones.
pub(super) fn unknown<'a>(
    code: Code,
    noun: &str,
    name: &str,
    names: impl Iterator<Item = &'a str>,
    list: &str,
) -> Refused {
    problem(code, noun, name, names, list).into()
}

/// As [`unknown`], to add to.
pub(super) fn problem<'a>(
    code: Code,
    noun: &str,
    name: &str,
    names: impl Iterator<Item = &'a str>,
    list: &str,
) -> Problem {
    let names: Vec<&str> = names.collect();
    let shown: String = name.chars().take(80).collect();
    let near = near(&shown, &names);
    let what_to_do = match near.is_empty() {
        true if names.is_empty() => format!("no {noun} is known yet"),
        true => {
            let some = names
                .iter()
                .take(MAX_NEAR)
                .copied()
                .collect::<Vec<&str>>()
                .join(", ");
            let more = if names.len() > MAX_NEAR { ", …" } else { "" };
            format!("use one of {some}{more}; GET {list} lists them all")
        }
        false => format!("use one of the near names, or GET {list} for all"),
    };
    let mut problem = Problem::new(code, format!("there is no {noun} {shown:?}"), what_to_do);
    problem.near = near;
    problem
}

/// The names that resemble `text`, the nearest first.
fn near(text: &str, names: &[&str]) -> Vec<String> {
    let text = text.to_ascii_lowercase();
    let mut scored: Vec<(f64, &str)> = names
        .iter()
        .map(|name| {
            let contained = !text.is_empty() && (name.contains(&text) || text.contains(name));
            let likeness = strsim::normalized_damerau_levenshtein(&text, name);
            (
                if contained {
                    likeness.max(0.9)
                } else {
                    likeness
                },
                *name,
            )
        })
        .filter(|(likeness, _)| *likeness >= 0.5)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored
        .into_iter()
        .take(MAX_NEAR)
        .map(|(_, name)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_near_and_another_word_is_not() {
        let names = ["frankfurt", "ireland", "oregon", "virginia"];
        assert_eq!(near("virgina", &names), ["virginia"]);
        assert_eq!(near("Ireladn", &names), ["ireland"]);
        assert_eq!(near("frank", &names), ["frankfurt"]);
        assert!(near("tokyo", &names).is_empty());
        assert!(near("", &names).is_empty());
    }
}
