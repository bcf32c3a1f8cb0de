//! Files of definitions: `[[service]]`, `[[offer]]`, `[[reservation]]`, `[[override]]` and `[[reach]]`, for people who keep them
//! under version control.
//!
//! An entry is what the API takes as a body, with its `id` beside it. A fault of a value is found after the entry was
//! read as a whole, so every entry remembers the place of each of its members.

use std::{collections::BTreeMap, ops::Range};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue, ValueDeserializer},
};

use crate::{
    api::v1::{Defined, Fault},
    config::{ConfigError, Document},
};

/// What one file may say.
const KINDS: [&str; 5] = ["service", "offer", "reservation", "override", "reach"];

/// One entry of a file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it defines; sound by itself.
    pub defined: Defined,
    /// Where the entry begins, and where each member of it is, by its path.
    places: BTreeMap<String, Range<usize>>,
}

impl Entry {
    /// An error about a member of this entry.
    #[must_use]
    pub fn error(&self, document: &Document<'_>, fault: &Fault) -> ConfigError {
        // A member that is missing has no place; what it should be in has one.
        let mut path = fault.path.as_str();
        let place = loop {
            match (self.places.get(path), path.rsplit_once('.')) {
                (Some(place), _) => break place.clone(),
                (None, Some((parent, _))) => path = parent,
                (None, None) => break self.place(),
            }
        };
        let (noun, id) = (self.defined.noun(), self.defined.id());
        document.error(place, format!("{noun} {id}: {fault}"))
    }

    /// Where the entry is named.
    #[must_use]
    pub fn place(&self) -> Range<usize> {
        self.places.get("id").cloned().unwrap_or_default()
    }
}

/// Reads a file of definitions.
///
/// # Errors
///
/// Returns the first thing that is wrong, with its place: syntax, an unknown key, a value out of range, an id that is
/// defined twice.
pub fn parse(document: &Document<'_>) -> Result<Vec<Entry>, ConfigError> {
    let root = DeTable::parse(document.text)
        .map_err(|error| located(document, 0..0, &error))?
        .into_inner();
    let mut entries: Vec<Entry> = Vec::new();
    for (key, value) in root {
        let Some(kind) = KINDS
            .into_iter()
            .find(|kind| *kind == key.get_ref().as_ref())
        else {
            let message = format!(
                "unknown key `{}`; a file of definitions holds [[service]], [[offer]], [[reservation]], [[override]] and [[reach]]",
                key.get_ref()
            );
            return Err(document.error(key.span(), message));
        };
        let span = value.span();
        let DeValue::Array(items) = value.into_inner() else {
            let message = format!("`{kind}` is no list of tables; write [[{kind}]]");
            return Err(document.error(span, message));
        };
        for item in items {
            let entry = entry(document, kind, item)?;
            let twin = entries.iter().find(|other| {
                (other.defined.noun(), other.defined.id())
                    == (entry.defined.noun(), entry.defined.id())
            });
            if twin.is_some() {
                let message = format!("{kind} {} is defined twice", entry.defined.id());
                return Err(document.error(entry.place(), message));
            }
            entries.push(entry);
        }
    }
    Ok(entries)
}

fn entry(
    document: &Document<'_>,
    kind: &str,
    item: Spanned<DeValue<'_>>,
) -> Result<Entry, ConfigError> {
    let span = item.span();
    let DeValue::Table(mut table) = item.into_inner() else {
        return Err(document.error(span, format!("this is no table; write [[{kind}]]")));
    };
    let mut places = BTreeMap::new();
    note_table(&mut table, "", &mut places);
    let Some((_, id)) = table.remove_entry("id") else {
        return Err(document.error(span, format!("this {kind} has no id; add id = \"…\"")));
    };
    let value = Spanned::new(span.clone(), DeValue::Table(table));
    let defined = match kind {
        "service" => Defined::Service(read(document, id)?, read(document, value)?),
        "offer" => Defined::Offer(read(document, id)?, read(document, value)?),
        "reservation" => Defined::Reservation(read(document, id)?, read(document, value)?),
        "override" => Defined::Override(read(document, id)?, read(document, value)?),
        _ => Defined::Reach(read(document, id)?, read(document, value)?),
    };
    let entry = Entry { defined, places };
    match entry.defined.check() {
        Ok(()) => Ok(entry),
        Err(fault) => Err(entry.error(document, &fault)),
    }
}

fn read<T: DeserializeOwned>(
    document: &Document<'_>,
    value: Spanned<DeValue<'_>>,
) -> Result<T, ConfigError> {
    let span = value.span();
    T::deserialize(ValueDeserializer::from(value)).map_err(|error| located(document, span, &error))
}

fn located(document: &Document<'_>, within: Range<usize>, error: &toml::de::Error) -> ConfigError {
    let message = error.message().trim_end().replace('\n', "; ");
    document.error(error.span().unwrap_or(within), message)
}

/// Notes the place of every member, and takes times for the texts that they are in JSON.
fn note_table(table: &mut DeTable<'_>, prefix: &str, places: &mut BTreeMap<String, Range<usize>>) {
    for (key, value) in table.iter_mut() {
        let path = match prefix {
            "" => key.get_ref().to_string(),
            prefix => format!("{prefix}.{}", key.get_ref()),
        };
        places.insert(path.clone(), value.span());
        note(value.get_mut(), &path, places);
    }
}

fn note(value: &mut DeValue<'_>, path: &str, places: &mut BTreeMap<String, Range<usize>>) {
    match value {
        DeValue::Table(table) => note_table(table, path, places),
        DeValue::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                let path = format!("{path}.{at}");
                places.insert(path.clone(), item.span());
                note(item.get_mut(), &path, places);
            }
        }
        DeValue::Datetime(time) => {
            let text = time.to_string();
            *value = DeValue::String(DeString::Owned(text));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document<'_> {
        Document {
            file: "defs.toml",
            text,
        }
    }

    fn error(text: &str) -> String {
        parse(&document(text)).unwrap_err().to_string()
    }

    const WHOLE: &str = r#"
        [[service]]
        id = "checkout"
        home = "virginia"
        candidates = ["oregon", "ireland"]
        clients = { virginia = 3, ireland = 1 }
        profile = "latency"
        limits = { latency_p99 = "120ms", loss_ratio = 0.01 }
        needs = { vcpu = 64 }
        require = { country = ["us", "ie"] }
        depends_on = ["ledger"]
        replication = "asynchronous"
        checks.api = { at = { oregon = "https://api.example/" }, body = "ok", from = ["virginia"] }
        rto = "1m"
        rpo = "10s"
        failback = "manual"

        [[offer]]
        id = "oregon-base"
        region = "oregon"
        amounts = { vcpu = 200 }

        [[reservation]]
        id = "batch"
        region = "oregon"
        amounts = { vcpu = 10 }
        until = 2026-12-01T00:00:00Z

        [[override]]
        id = "works"
        rule = "drain"
        region = "oregon"
        until = "2026-12-01T00:00:00Z"
        why = "new switches"
    "#;

    #[test]
    fn every_kind_is_read_and_a_time_may_be_written_either_way() {
        let entries = parse(&document(WHOLE)).unwrap();
        let ids: Vec<&str> = entries.iter().map(|entry| entry.defined.id()).collect();
        assert_eq!(ids.len(), 4, "{ids:?}");
        let until: Vec<String> = entries
            .iter()
            .filter_map(|entry| match &entry.defined {
                Defined::Reservation(_, spec) => Some(spec.until.to_string()),
                Defined::Override(_, spec) => Some(spec.until.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(until[0], until[1]);
    }

    #[test]
    fn a_fault_is_named_with_its_line_and_column() {
        let cases = [
            ("[[servce]]\n", "defs.toml:1:3: unknown key `servce`"),
            ("service = 3\n", "defs.toml:1:11: `service` is no list"),
            (
                "[[service]]\nhome = \"a\"\n",
                "defs.toml:1:1: this service has no id",
            ),
            (
                "[[service]]\nid = \"a\"\n",
                "defs.toml:1:1: missing field `home`",
            ),
            (
                "[[service]]\nid = \"A\"\nhome = \"a\"\n",
                "defs.toml:2:6: \"A\" is not a service id",
            ),
            (
                "[[service]]\nid = \"a\"\nhome = \"a\"\nhoem = 1\n",
                "defs.toml:4:1: unknown field `hoem`",
            ),
            (
                "[[service]]\nid = \"a\"\nhome = \"b\"\nlimits = { loss_ratio = 8 }\n",
                "defs.toml:4:25: service a: limits.loss_ratio is 8; use 0 to 1",
            ),
            (
                "[[service]]\nid = \"a\"\nhome = \"b\"\ncandidates = [\"c\", \"c\"]\n",
                "defs.toml:4:20: service a: candidates.1 names c twice",
            ),
            (
                "[[service]]\nid = \"a\"\nhome = \"b\"\n[service.checks.c]\nat = { b = \"ftp://x\" }\n",
                "defs.toml:5:12: \"ftp://x\" cannot be checked: it does not begin with http://",
            ),
            (
                "[[service]]\nid = \"a\"\nhome = \"b\"\n[service.checks.c]\nat = { b = \"tcp://x:1\" }\nbody = \"y\"\n",
                "defs.toml:6:8: service a: checks.c.body has no meaning for tcp://",
            ),
            (
                "[[service]]\nid = \"a\"\nhome = \"b\"\n[service.checks.c]\nat = { b = \"tcp://x:1\" }\ninterval = \"1h\"\n",
                "defs.toml:6:12: service a: checks.c.interval is \"1h\"; use \"1s\" to",
            ),
            (
                "[[service]]\nid = \"a\"\nhome = \"b\"\n[service.checks.c]\nat = { b = \"tcp://x:1\" }\nfrom = [\"b\"]\n",
                "defs.toml:6:8: service a: checks.c.from names only b, and a region is not checked from itself",
            ),
            (
                "[[override]]\nid = \"a\"\nrule = \"drain\"\nuntil = 2026-12-01T00:00:00Z\nwhy = \"x\"\n",
                "defs.toml:2:6: override a: region is missing, and drain needs it",
            ),
            (
                "[[offer]]\nid = \"a\"\nregion = \"b\"\namounts = { x = 1 }\n[[offer]]\nid = \"a\"\nregion = \"b\"\namounts = { x = 1 }\n",
                "defs.toml:6:6: offer a is defined twice",
            ),
        ];
        for (text, expected) in cases {
            let error = error(text);
            assert!(error.starts_with(expected), "{text}\n{error}");
        }
    }

    #[test]
    fn any_text_is_a_file_of_definitions_or_an_error() {
        bolero::check!()
            .with_iterations(5_000)
            .with_type()
            .for_each(|(at, bytes): &(u16, Vec<u8>)| {
                let mut seed = WHOLE.as_bytes().to_vec();
                let start = usize::from(*at) % seed.len();
                for (place, byte) in seed[start..].iter_mut().zip(bytes) {
                    *place = *byte;
                }
                for text in [
                    String::from_utf8_lossy(&seed),
                    String::from_utf8_lossy(bytes),
                ] {
                    let _ = parse(&document(&text));
                }
            });
    }
}
