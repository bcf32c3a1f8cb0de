//! A policy written out: every value in force, defaults too, as the sections that people write; and two policies
//! compared value by value.
//!
//! Everything is made from how a policy serialises, so that a value that is added to it is written out and compared
//! without a word here.

use std::{collections::BTreeMap, time::Duration};

use leeward_common::config::Span;
use serde::Deserialize;
use toml::{Table, Value};

use super::Policy;

/// The sections of a policy, in the order of a configuration file.
pub const SECTIONS: [&str; 6] = [
    "region",
    "failover",
    "probing",
    "target",
    "policy",
    "signal_source",
];

/// Sections that are lists of tables, and the member of each that tells them apart.
const LISTS: [(&str, &str); 4] = [
    ("region", "id"),
    ("failover", "primary"),
    ("target", "id"),
    ("signal_source", "id"),
];

/// The sections of a policy alone, if this is a whole configuration file; anything else is left as its author wrote it.
#[must_use]
pub fn only_sections(text: String) -> String {
    match text.parse::<Table>() {
        // Only a whole file says who the aggregator is.
        Ok(mut table) if table.contains_key("credentials") => {
            table.retain(|key, _| SECTIONS.contains(&key));
            table.to_string()
        }
        _ => text,
    }
}

/// A value that is not the same in two policies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Difference {
    /// Which, like `policy.steadiness.margin` or `region.us-east.capacity`.
    pub parameter: String,
    /// What the one says, as TOML; `None` if it has no such value.
    pub one: Option<String>,
    /// What the other says.
    pub other: Option<String>,
}

impl Policy {
    /// The sections of a configuration file that say this policy, with every default spelt out.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut sections = self.sections();
        for (section, key) in LISTS {
            let Some(Value::Table(entries)) = sections.remove(section) else {
                continue;
            };
            let entry = |(id, entry)| {
                let mut entry = match entry {
                    Value::Table(entry) => entry,
                    _ => Table::new(),
                };
                entry.insert(key.to_owned(), Value::String(id));
                Value::Table(entry)
            };
            let entries: Vec<_> = entries.into_iter().map(entry).collect();
            if !entries.is_empty() {
                sections.insert(section.to_owned(), Value::Array(entries));
            }
        }
        sections.to_string()
    }

    /// Every value by its name, like `policy.steadiness.margin`, as TOML.
    #[must_use]
    pub fn parameters(&self) -> BTreeMap<String, String> {
        let mut parameters = BTreeMap::new();
        flatten("", Value::Table(self.sections()), &mut parameters);
        parameters
    }

    /// What another policy says otherwise, in the order of the names.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let (mut ours, mut theirs) = (self.parameters(), other.parameters());
        ours.retain(|parameter, value| match theirs.get(parameter) {
            Some(same) if same == value => theirs.remove(parameter).is_none(),
            _ => true,
        });
        let mut names: Vec<String> = ours.keys().chain(theirs.keys()).cloned().collect();
        names.sort_unstable();
        names.dedup();
        let difference = |parameter: String| Difference {
            one: ours.remove(&parameter),
            other: theirs.remove(&parameter),
            parameter,
        };
        names.into_iter().map(difference).collect()
    }

    /// The sections, those that are lists by what tells their entries apart.
    fn sections(&self) -> Table {
        let own = Table::try_from(self).expect("a policy holds nothing that TOML cannot express");
        let (mut sections, mut rest) = (Table::new(), Table::new());
        for (name, value) in own {
            let value = spans(value);
            let _ = match name.as_str() {
                "regions" => sections.insert("region".to_owned(), value),
                "failovers" => sections.insert("failover".to_owned(), value),
                "signal_sources" => sections.insert("signal_source".to_owned(), value),
                "targets" => sections.insert("target".to_owned(), by_id(value)),
                "probing" => sections.insert("probing".to_owned(), self.digits(value)),
                _ => rest.insert(name, value),
            };
        }
        sections.insert("policy".to_owned(), Value::Table(rest));
        sections
    }

    /// People say how many digits they want, not which schema has them.
    fn digits(&self, mut probing: Value) -> Value {
        if let Value::Table(probing) = &mut probing {
            probing.remove("schema");
            let digits = match self.probing.schema {
                leeward_common::histogram::Schema::TwoDigits => 2,
                leeward_common::histogram::Schema::ThreeDigits => 3,
            };
            probing.insert("digits".to_owned(), Value::Integer(digits));
        }
        probing
    }
}

/// A span of time is a text.
fn spans(value: Value) -> Value {
    match value {
        Value::Table(table) => match span(&table) {
            Some(span) => Value::String(Span(span).to_string()),
            None => Value::Table(
                table
                    .into_iter()
                    .map(|(key, own)| (key, spans(own)))
                    .collect(),
            ),
        },
        Value::Array(items) => Value::Array(items.into_iter().map(spans).collect()),
        other => other,
    }
}

fn span(table: &Table) -> Option<Duration> {
    let is_span = table.len() == 2 && table.contains_key("secs") && table.contains_key("nanos");
    let read = || Duration::deserialize(Value::Table(table.clone())).ok();
    is_span.then(read).flatten()
}

fn by_id(list: Value) -> Value {
    let Value::Array(list) = list else {
        return list;
    };
    let entry = |entry| match entry {
        Value::Table(mut entry) => match entry.remove("id") {
            Some(Value::String(id)) => Some((id, Value::Table(entry))),
            _ => None,
        },
        _ => None,
    };
    Value::Table(list.into_iter().filter_map(entry).collect())
}

fn flatten(name: &str, value: Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let name = match name {
                    "" => key,
                    name => format!("{name}.{key}"),
                };
                flatten(&name, value, into);
            }
        }
        leaf => drop(into.insert(name.to_owned(), leaf.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    fn policy(sections: &str) -> Policy {
        let text = format!("name = \"two\"\ndescription = \"\"\nduration = \"1s\"\n{sections}");
        Scenario::parse("policy.toml", &text).unwrap().policy
    }

    const TWO: &str = "
        [[region]]
        id = 'iad'
        latitude = 39.0
        longitude = -77.5
        [[region]]
        id = 'dub'
        latitude = 53.3
        longitude = -6.3
        [[link]]
        between = ['iad', 'dub']
        rtt = '80ms'
    ";

    #[test]
    fn values_have_the_names_that_people_write() {
        let parameters = policy(TWO).parameters();
        for (name, value) in [
            ("policy.steadiness.margin", "1.15"),
            ("policy.steadiness.hold_first", "\"1m\""),
            ("policy.evaluate_every", "\"50ms\""),
            ("probing.digits", "2"),
            ("probing.kinds", "[\"icmp\"]"),
            ("region.dub.latitude", "53.3"),
        ] {
            assert_eq!(
                parameters.get(name).map(String::as_str),
                Some(value),
                "{name}"
            );
        }
    }

    #[test]
    fn two_policies_differ_in_what_one_says_otherwise_and_in_nothing_else() {
        let one = policy(TWO);
        assert_eq!(one.differences(&one), []);
        let other = policy(&format!(
            "{}\n[policy.steadiness]\nmargin = 1.3",
            TWO.replace("'dub'", "'fra'")
        ));
        let differences = one.differences(&other);
        let margin = Difference {
            parameter: "policy.steadiness.margin".to_owned(),
            one: Some("1.15".to_owned()),
            other: Some("1.3".to_owned()),
        };
        assert!(differences.contains(&margin), "{differences:?}");
        let rest = |own: &&Difference| !own.parameter.starts_with("policy.");
        for own in differences.iter().filter(rest) {
            let is_dub = own.parameter.starts_with("region.dub.");
            assert!(
                is_dub || own.parameter.starts_with("region.fra."),
                "{own:?}"
            );
            assert_eq!((own.one.is_some(), own.other.is_some()), (is_dub, !is_dub));
        }
    }
}
