//! What an engine takes over from the one before it, where it knows nothing else of the past: what people asked for, what
//! was selected, and how many decisions there were. It measures anew; it does not start anybody anew.

use std::collections::BTreeMap;

use leeward_common::{id::RegionId, time::Timestamp};

use crate::{
    decision::{Share, Unserved},
    intent::{Intents, Owner},
    view::{SelectionView, View},
};

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inheritance {
    /// Services, capacity and overrides.
    pub intents: Intents,
    /// The number of the last decision; 0 if there was none.
    pub last_decision: u64,
    /// What was selected.
    pub selections: BTreeMap<Owner, Inherited>,
}

/// A selection that was made before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inherited {
    /// The selected region; `None` if no candidate was left.
    pub selected: Option<RegionId>,
    /// Since when.
    pub since: Timestamp,
    /// The selection before.
    pub previous: Option<RegionId>,
    /// The decision that made it so.
    pub decision: Option<u64>,
    /// For a service, by which shares it runs where.
    pub assignment: Vec<Share>,
    /// For a service, what of it runs nowhere.
    pub unserved: Option<Unserved>,
}

impl Inheritance {
    /// What the engine of this view leaves behind.
    #[must_use]
    pub fn of(view: &View) -> Self {
        let regions = view.selections.iter();
        let regions = regions.map(|(id, own)| (Owner::Region(id.clone()), own));
        let services = view.services.iter();
        let services = services.map(|(id, own)| (Owner::Service(id.clone()), own));
        let selections = regions.chain(services);
        Self {
            intents: (*view.intents).clone(),
            last_decision: view.last_decision,
            selections: selections
                .filter_map(|(owner, own)| Some((owner, Inherited::of(own)?)))
                .collect(),
        }
    }
}

impl Inherited {
    /// `None` where nothing was decided yet.
    fn of(view: &SelectionView) -> Option<Self> {
        Some(Self {
            selected: view.selected.clone(),
            since: view.since?,
            previous: view.previous.clone(),
            decision: view.decision,
            assignment: view.assignment.clone(),
            unserved: view.unserved.clone(),
        })
    }
}
