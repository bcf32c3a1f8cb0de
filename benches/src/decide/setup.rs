//! An engine policy from the `[policy]` and `[probing]` sections of a text and a list of regions.

use leeward_common::{config::Document, id::RegionId};
use leeward_engine::policy::{
    FailoverSection, Policy, PolicySection, ProbingSection, RegionSection, Sections,
};
use serde::Deserialize;

/// A region and where it stands.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its id.
    pub name: String,
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
}

impl Place {
    /// A region that stands nowhere in particular.
    #[must_use]
    pub fn nowhere(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            latitude: 0.0,
            longitude: 0.0,
        }
    }
}

/// Who may stand in for whom.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    /// Sections `[policy]` and `[probing]`, as in the aggregator's file.
    pub policy: &'a str,
    /// All regions.
    pub regions: Vec<Place>,
    /// The only one that anything is selected for.
    pub primary: &'a str,
    /// Its candidates with their baseline weights.
    pub candidates: Vec<(String, f64)>,
}

/// The sections that are read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    policy: PolicySection,
    #[serde(default)]
    probing: ProbingSection,
    region: Vec<RegionSection>,
    failover: Vec<FailoverSection>,
}

impl Setup<'_> {
    /// The policy.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the text.
    pub fn read(&self) -> anyhow::Result<Policy> {
        let text = self.text();
        let document = Document {
            file: "policy",
            text: &text,
        };
        let raw: Raw = document.parse()?;
        let sections = Sections {
            region: raw.region,
            failover: raw.failover,
            probing: raw.probing,
            policy: raw.policy,
            ..Sections::default()
        };
        Ok(sections.into_policy(&document)?)
    }

    fn text(&self) -> String {
        let mut text = self.policy.to_owned();
        for place in &self.regions {
            text += &format!(
                "\n[[region]]\nid = \"{}\"\nlatitude = {:?}\nlongitude = {:?}\n",
                place.name, place.latitude, place.longitude
            );
        }
        let others = self.regions.iter().map(|place| &place.name);
        for name in others.filter(|name| *name != self.primary) {
            text += &format!("\n[[failover]]\nprimary = \"{name}\"\ncandidates = []\n");
        }
        let names: Vec<_> = self
            .candidates
            .iter()
            .map(|(name, _)| format!("\"{name}\""))
            .collect();
        text += &format!(
            "\n[[failover]]\nprimary = \"{}\"\ncandidates = [{}]\n[failover.weights]\n",
            self.primary,
            names.join(", ")
        );
        for (name, weight) in &self.candidates {
            text += &format!("\"{name}\" = {weight:?}\n");
        }
        text
    }
}

/// The region of a name.
///
/// # Panics
///
/// Panics if the name is no id.
#[must_use]
pub fn region(name: &str) -> RegionId {
    RegionId::parse(name).expect("the name is an id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_becomes_a_policy_in_which_one_primary_has_candidates() {
        let setup = Setup {
            policy: "[policy.steadiness]\nmargin = 1.2\n",
            regions: ["a", "b", "c"].map(Place::nowhere).into(),
            primary: "a",
            candidates: vec![("b".to_owned(), 0.5)],
        };
        let policy = setup.read().unwrap();
        assert_eq!(policy.steadiness.margin, 1.2);
        assert_eq!(policy.candidates(&region("a")), [region("b")]);
        assert!(policy.candidates(&region("b")).is_empty());
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let setup = Setup {
            policy: "[policy]\nmargn = 1.2\n",
            regions: vec![Place::nowhere("a")],
            primary: "a",
            candidates: Vec::new(),
        };
        let error = setup.read().unwrap_err().to_string();
        assert!(
            error.contains("policy:2:1: unknown field `margn`"),
            "{error}"
        );
    }
}
