//! What an anchor says: the policy, who was connected, what was defined, and what was selected.

use leeward_common::{
    api::v1::Defined,
    id::{RegionId, ServiceId},
    time::Timestamp,
};
use leeward_engine::{
    decision::{self, Share},
    inherit::{Inheritance, Inherited},
    intent::{Change, Intents, Owner},
};
use serde::{Deserialize, Serialize};

use super::{Policy, Registration};
use crate::intent::{self, Thing};

/// See [`super::Record::Anchor`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Anchor {
    /// The policy in force.
    pub policy: Policy,
    /// The agents with a session.
    pub connected: Vec<Registration>,
    /// What is defined.
    #[serde(default)]
    pub defined: Definitions,
    /// The number of the last decision; 0 if there was none.
    #[serde(default)]
    pub last_decision: u64,
    /// What was selected.
    #[serde(default)]
    pub selected: Vec<Selected>,
}

/// All that is defined at some time.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Definitions {
    /// How many changes there were.
    pub version: u64,
    /// What they left.
    pub known: Vec<Definition>,
}

/// One thing, and how it came about.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Definition {
    /// Which change made it so.
    pub version: u64,
    /// Who asked for it.
    pub who: String,
    /// When.
    pub at_us: u64,
    /// What it is, and why.
    pub what: Defined,
}

/// A selection, and how it came about.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Selected {
    /// The primary region, if it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<RegionId>,
    /// The service, if it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceId>,
    /// What was selected; `None` if no candidate was left.
    pub selected: Option<RegionId>,
    /// Since when.
    pub since_us: u64,
    /// The selection before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<RegionId>,
    /// The decision that made it so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<u64>,
    /// For a service, by which shares it ran where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assignment: Vec<Part>,
    /// For a service, what of it ran nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unserved: Option<Unserved>,
}

/// A region's part of a service.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Part {
    /// The region.
    pub region: RegionId,
    /// Its part, above 0, at most 1.
    pub share: f64,
}

/// A part of a service that ran nowhere.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Unserved {
    /// Which part, above 0, at most 1.
    pub share: f64,
    /// Why.
    pub because: String,
}

impl Anchor {
    /// What is to be known of an engine that leaves this behind.
    pub(crate) fn new(policy: Policy, connected: Vec<Registration>, past: Inheritance) -> Self {
        let selected = past.selections.into_iter();
        Self {
            policy,
            connected,
            defined: (&past.intents).into(),
            last_decision: past.last_decision,
            selected: selected.map(Selected::of).collect(),
        }
    }

    /// What an engine takes over that knows nothing else.
    pub(crate) fn inheritance(&self) -> Inheritance {
        let selected = self.selected.iter().cloned();
        Inheritance {
            intents: self.defined.clone().into(),
            last_decision: self.last_decision,
            selections: selected.filter_map(Selected::inherited).collect(),
        }
    }
}

impl Selected {
    fn of((owner, past): (Owner, Inherited)) -> Self {
        let (primary, service) = match owner {
            Owner::Region(region) => (Some(region), None),
            Owner::Service(service) => (None, Some(service)),
        };
        let part = |Share { region, share }| Part { region, share };
        Self {
            primary,
            service,
            selected: past.selected,
            since_us: past.since.as_unix_us(),
            previous: past.previous,
            decision: past.decision,
            assignment: past.assignment.into_iter().map(part).collect(),
            unserved: past
                .unserved
                .map(|decision::Unserved { share, because }| Unserved { share, because }),
        }
    }

    /// `None` if it is nobody's.
    fn inherited(self) -> Option<(Owner, Inherited)> {
        let service = self.service.map(Owner::Service);
        let owner = service.or_else(|| self.primary.map(Owner::Region))?;
        let share = |Part { region, share }| Share { region, share };
        let past = Inherited {
            selected: self.selected,
            since: Timestamp::from_unix_us(self.since_us),
            previous: self.previous,
            decision: self.decision,
            assignment: self.assignment.into_iter().map(share).collect(),
            unserved: self
                .unserved
                .map(|Unserved { share, because }| decision::Unserved { share, because }),
        };
        Some((owner, past))
    }
}

impl From<&Intents> for Definitions {
    fn from(intents: &Intents) -> Self {
        let known = intent::definitions(intents).into_iter().filter_map(|what| {
            let known = Thing::of(&what).known(intents)?;
            Some(Definition {
                version: known.version,
                who: known.who.to_owned(),
                at_us: known.at.as_unix_us(),
                what,
            })
        });
        Self {
            version: intents.version,
            known: known.collect(),
        }
    }
}

impl From<Definitions> for Intents {
    fn from(record: Definitions) -> Self {
        let mut intents = Self::default();
        for Definition {
            version,
            who,
            at_us,
            what,
        } in record.known
        {
            // A change takes the version after the last one.
            intents.version = version.saturating_sub(1);
            let change = Change {
                who,
                why: what.why().to_owned(),
                what: (&what).into(),
            };
            intents.on_change(Timestamp::from_unix_us(at_us), &change);
        }
        intents.version = record.version;
        intents
    }
}

#[cfg(test)]
mod tests {
    use leeward_common::id::OverrideId;

    use super::*;
    use crate::{
        intent::{Asked, Condition, What},
        store::record::v1::{Record, decode, encode},
    };

    #[test]
    fn an_anchor_from_before_there_were_definitions_is_read() {
        let anchor = b"\x81\xa6anchor\x82\xa6policy\x81\xa4toml\xa0\xa9connected\x90";
        let Record::Anchor(anchor) = decode::<Record>("record", anchor).unwrap() else {
            panic!("no anchor");
        };
        assert_eq!(anchor.defined, Definitions::default());
        assert_eq!(anchor.inheritance(), Inheritance::default());
    }

    #[test]
    fn what_is_defined_survives_an_anchor_with_its_versions() {
        let asked = |id: &str, what: fn(OverrideId) -> What| Asked {
            who: "mara".to_owned(),
            why: "new".to_owned(),
            what: what(OverrideId::parse(id).unwrap()),
            condition: Condition::Any,
        };
        let freeze = |id| {
            let spec = leeward_common::api::v1::OverrideSpec {
                rule: leeward_common::api::v1::OverrideRule::Freeze,
                region: None,
                service: None,
                primary_region: None,
                suspect: false,
                until: Timestamp::from_unix_us(1 << 50).into(),
                why: "new".to_owned(),
            };
            What::Put(Defined::Override(id, spec))
        };
        let mut intents = Intents::default();
        for (at, asked) in [
            asked("a", freeze),
            asked("b", freeze),
            asked("a", |id| What::Remove(Thing::Override(id))),
            asked("c", freeze),
            asked("d", |id| What::Remove(Thing::Override(id))),
        ]
        .iter()
        .enumerate()
        {
            intents.on_change(Timestamp::from_unix_us(at as u64), &asked.change());
        }
        let record: Definitions =
            decode("definitions", &encode(&Definitions::from(&intents))).unwrap();
        assert_eq!(Intents::from(record), intents);
    }

    #[test]
    fn what_was_selected_survives_an_anchor() {
        let region = |id| RegionId::parse(id).unwrap();
        let share = |region, share| Share { region, share };
        let primary = Inherited {
            selected: Some(region("dub")),
            since: Timestamp::from_unix_us(7),
            decision: Some(3),
            ..Inherited::default()
        };
        let service = Inherited {
            selected: Some(region("dub")),
            since: Timestamp::from_unix_us(8),
            previous: Some(region("iad")),
            decision: None,
            assignment: vec![share(region("dub"), 0.5), share(region("pdx"), 0.25)],
            unserved: Some(decision::Unserved {
                share: 0.25,
                because: "no room".to_owned(),
            }),
        };
        let shop = Owner::Service(ServiceId::parse("shop").unwrap());
        let past = Inheritance {
            intents: Intents::default(),
            last_decision: 41,
            selections: [(Owner::Region(region("iad")), primary), (shop, service)].into(),
        };
        let policy = Policy {
            toml: String::new(),
        };
        let anchor = Anchor::new(policy, Vec::new(), past.clone());
        let bytes = encode(&Record::Anchor(anchor.clone()));
        assert_eq!(
            decode::<Record>("record", &bytes).unwrap(),
            Record::Anchor(anchor.clone())
        );
        assert_eq!(anchor.inheritance(), past);
    }

    #[test]
    fn golden_bytes_of_a_selection() {
        let selected = Selected {
            primary: None,
            service: Some(ServiceId::parse("a").unwrap()),
            selected: None,
            since_us: 5,
            previous: None,
            decision: Some(2),
            assignment: vec![Part {
                region: RegionId::parse("b").unwrap(),
                share: 0.5,
            }],
            unserved: None,
        };
        let bytes = b"\x85\xa7service\xa1a\xa8selected\xc0\xa8since_us\x05\xa8decision\x02\xaaassignment\x91\x82\xa6region\xa1b\xa5share\xcb\x3f\xe0\0\0\0\0\0\0";
        assert_eq!(encode(&selected), bytes);
        assert_eq!(decode::<Selected>("selection", bytes).unwrap(), selected);
    }
}
