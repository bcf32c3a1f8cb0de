//! One event: its name, its data, and the bytes of a server-sent event (HTML Living Standard, section 9.2).

use std::fmt;

use leeward_common::{
    api::v1::{
        Doubt, FailoverState, Hesitation, Moved, RegionStatus, Reset, Sentence, ServiceState,
        Snapshot,
    },
    time::Timestamp,
};
use leeward_engine::{intent::Owner, view::View};
use serde::Serialize;

use crate::store::key::Position;

/// The newest decision: its number and its time. The time tells apart decisions of another store.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::http) struct Version {
    pub(in crate::http) decision: u64,
    pub(in crate::http) at: Timestamp,
}

impl Version {
    /// The version of a view.
    pub(in crate::http) fn of(view: &View) -> Self {
        view.decisions
            .back()
            .map_or_else(Self::default, |newest| Self {
                decision: newest.id,
                at: newest.at,
            })
    }

    /// Reads what [`fmt::Display`] wrote.
    pub(in crate::http) fn parse(text: &str) -> Option<Self> {
        let (decision, at) = text.split_once('-')?;
        let number = |text: &str| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
            is_plain.then(|| text.parse::<u64>().ok()).flatten()
        };
        Some(Self {
            decision: number(decision)?,
            at: Timestamp::from_unix_us(number(at)?),
        })
    }

    /// Where the store has the decision; `None` before the first one.
    pub(in crate::http) fn position(self) -> Option<Position> {
        let counter = u32::try_from(self.decision).ok().filter(|id| *id > 0)?;
        Some(Position {
            time: self.at,
            counter,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.decision, self.at.as_unix_us())
    }
}

/// One event.
#[derive(Clone, Debug)]
pub(in crate::http) enum Event {
    Reset(Reset),
    Snapshot(Snapshot),
    Decision(Moved),
    Failover(FailoverState),
    Service(ServiceState),
    Region(RegionStatus),
    Doubt(Doubt),
    Hesitation(Hesitation),
    Overview(Sentence),
}

impl Event {
    /// The version that it names: its own, if it tells of a decision. So a client that has got half of what happened at
    /// once comes again for the other half.
    fn version(&self, newest: Version) -> Version {
        match self {
            Self::Decision(moved) => Version {
                decision: moved.decision_id,
                at: moved.decided_at.0,
            },
            _ => newest,
        }
    }

    /// Whose selection it is about; `None` if it is about none.
    pub(in crate::http) fn owner(&self) -> Option<Owner> {
        match self {
            Self::Decision(moved) => Some(match &moved.service_id {
                Some(service) => Owner::Service(service.clone()),
                None => Owner::Region(moved.primary_region.clone()),
            }),
            Self::Failover(state) => Some(Owner::Region(state.line.primary_region.clone())),
            Self::Service(state) => Some(Owner::Service(state.service_id.clone())),
            Self::Hesitation(own) => {
                let service = own.service_id.clone().map(Owner::Service);
                service.or_else(|| own.primary_region.clone().map(Owner::Region))
            }
            _ => None,
        }
    }

    /// The name that a client listens for.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Reset(_) => "reset",
            Self::Snapshot(_) => "snapshot",
            Self::Decision(_) => "decision",
            Self::Failover(_) => "failover",
            Self::Service(_) => "service",
            Self::Region(_) => "region",
            Self::Doubt(_) => "doubt",
            Self::Hesitation(_) => "hesitation",
            Self::Overview(_) => "overview",
        }
    }

    /// Appends the event, told of a view whose newest decision is `newest`. JSON holds no line break, so that the data is one line.
    pub(in crate::http) fn write(&self, newest: Version, into: &mut Vec<u8>) {
        let version = self.version(newest);
        into.extend_from_slice(format!("id: {version}\nevent: {}\ndata: ", self.name()).as_bytes());
        match self {
            Self::Reset(data) => json(data, into),
            Self::Snapshot(data) => json(data, into),
            Self::Decision(data) => json(data, into),
            Self::Failover(data) => json(data, into),
            Self::Service(data) => json(data, into),
            Self::Region(data) => json(data, into),
            Self::Doubt(data) => json(data, into),
            Self::Hesitation(data) => json(data, into),
            Self::Overview(data) => json(data, into),
        }
        into.extend_from_slice(b"\n\n");
    }
}

fn json(data: &impl Serialize, into: &mut Vec<u8>) {
    serde_json::to_writer(into, data).expect("records with names for keys are valid JSON");
}

#[cfg(test)]
mod tests {
    use leeward_common::api::v1::State;

    use super::*;

    #[test]
    fn an_event_is_written_as_browsers_read_it() {
        let event = Event::Overview(Sentence {
            summary: "All is\nwell.".to_owned(),
            state: State::Ok,
            stale: false,
        });
        let version = Version {
            decision: 17,
            at: Timestamp::from_unix_us(5),
        };
        let mut bytes = Vec::new();
        event.write(version, &mut bytes);
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "id: 17-5\nevent: overview\ndata: {\"summary\":\"All is\\nwell.\",\"state\":\"ok\",\"stale\":false}\n\n"
        );
    }

    #[test]
    fn a_version_is_read_as_it_was_written() {
        let version = Version {
            decision: 17,
            at: Timestamp::from_unix_us(1_763_000_000_000_000),
        };
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        for text in [
            "",
            "17",
            "-",
            "17-",
            "-5",
            "+17-5",
            "17-5-5",
            "17 -5",
            "99999999999999999999-1",
        ] {
            assert_eq!(Version::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn any_text_is_a_version_or_none() {
        bolero::check!().with_type().for_each(|text: &String| {
            if let Some(version) = Version::parse(text) {
                assert_eq!(Version::parse(&version.to_string()), Some(version));
            }
        });
    }
}
