//! One look at a view, and what differs from the look before.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use axum::{body::Bytes, http::HeaderValue};
use leeward_common::{
    api::v1::{Doubt, FailoverState, RegionStatus, Sentence, ServiceState, Snapshot},
    id::{AgentId, RegionId, ServiceId},
};
use leeward_engine::intent::Owner;

use super::{Event, Glance, Version};
use crate::http::{
    answer::content_tag,
    convert::{self, Moment},
};

/// What everybody who watches is told of one view.
#[derive(Debug)]
pub(super) struct Look {
    glance: Glance,
    /// With the tag of the content of each, which is the ETag of the answer.
    failovers: BTreeMap<RegionId, (HeaderValue, FailoverState)>,
    services: BTreeMap<ServiceId, ServiceState>,
    regions: BTreeMap<RegionId, RegionStatus>,
    doubts: BTreeMap<AgentId, Doubt>,
    overview: (HeaderValue, Sentence),
    /// Snapshots as they are sent: for one selection each, and for all.
    snapshots: Mutex<BTreeMap<Option<Owner>, Bytes>>,
}

impl Look {
    pub(super) fn at(glance: Glance, aggregator: &str) -> Self {
        let moment = Moment::new(&glance.view, glance.at);
        let mut failovers = BTreeMap::new();
        for primary in glance.view.policy.regions.keys() {
            let answer = convert::failover(&moment, primary);
            let tag = content_tag(&convert::content(&answer));
            failovers.insert(primary.clone(), (tag, convert::failover_state(answer)));
        }
        let overview = convert::overview(&moment, aggregator);
        let tag = content_tag(&convert::overview_content(&overview));
        let regions = convert::regions_status(&moment);
        let doubts = convert::doubts(&moment);
        let services = convert::service_states(&moment);
        Self {
            failovers,
            regions: regions
                .map(|region| (region.region_id.clone(), region))
                .collect(),
            doubts: doubts
                .map(|doubt| (doubt.agent_id.clone(), doubt))
                .collect(),
            services: services
                .map(|state| (state.service_id.clone(), state))
                .collect(),
            overview: (tag, convert::sentence(&overview)),
            snapshots: Mutex::default(),
            glance,
        }
    }

    pub(super) fn version(&self) -> Version {
        Version::of(&self.glance.view)
    }

    pub(super) const fn glance(&self) -> &Glance {
        &self.glance
    }

    /// Whether this looked at the very same view at nearly the same time.
    pub(super) fn is_of(&self, glance: &Glance) -> bool {
        std::sync::Arc::ptr_eq(&self.glance.view, &glance.view) && self.glance.at == glance.at
    }

    /// How things stand, written once for all who ask for the same.
    pub(super) fn snapshot(&self, owner: Option<&Owner>) -> Bytes {
        let mut snapshots = self
            .snapshots
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let written = snapshots.entry(owner.cloned()).or_insert_with(|| {
            let mut bytes = Vec::new();
            Event::Snapshot(self.to_snapshot(owner)).write(self.version(), &mut bytes);
            bytes.into()
        });
        written.clone()
    }

    fn to_snapshot(&self, owner: Option<&Owner>) -> Snapshot {
        let Some(owner) = owner else {
            let failovers = self.failovers.values().map(|(_, state)| state);
            return Snapshot {
                overview: Some(self.overview.1.clone()),
                failovers: failovers.cloned().collect(),
                services: self.services.values().cloned().collect(),
                regions: self.regions.values().cloned().collect(),
                doubts: self.doubts.values().cloned().collect(),
            };
        };
        let (failover, service) = match owner {
            Owner::Region(region) => (self.failovers.get(region), None),
            Owner::Service(service) => (None, self.services.get(service)),
        };
        Snapshot {
            overview: None,
            failovers: failover
                .map(|(_, state)| state.clone())
                .into_iter()
                .collect(),
            services: service.cloned().into_iter().collect(),
            regions: Vec::new(),
            doubts: Vec::new(),
        }
    }

    /// What is different from an earlier look: decisions first, since they explain the rest.
    pub(super) fn since(&self, before: &Self) -> Vec<Event> {
        let known = before.version().decision;
        let decisions = self.glance.view.decisions.iter();
        let mut events: Vec<Event> = decisions
            .filter(|decision| decision.id > known)
            .map(|decision| Event::Decision(convert::moved(decision)))
            .collect();
        // Those that were noted after the last one that the earlier look knew; of one instant it knew all or none.
        let noted = before.glance.view.hesitations.back().map(|own| own.at);
        let hesitations = self.glance.view.hesitations.iter();
        let hesitations = hesitations.filter(|own| Some(own.at) > noted);
        events.extend(hesitations.map(|own| Event::Hesitation(convert::hesitation(own))));
        let regions = self.regions.iter().filter(|(id, region)| {
            let then = before.regions.get(*id);
            then.is_none_or(|then| then.state != region.state)
        });
        events.extend(regions.map(|(_, region)| Event::Region(region.clone())));
        let begun = self
            .doubts
            .values()
            .filter(|doubt| !before.doubts.contains_key(&doubt.agent_id));
        events.extend(begun.map(|doubt| Event::Doubt(doubt.clone())));
        let ended = before
            .doubts
            .values()
            .filter(|doubt| !self.doubts.contains_key(&doubt.agent_id));
        events.extend(ended.map(|doubt| {
            Event::Doubt(Doubt {
                doubted: false,
                ..doubt.clone()
            })
        }));
        let failovers = self.failovers.iter().filter(|(primary, (tag, _))| {
            before
                .failovers
                .get(*primary)
                .is_none_or(|(then, _)| then != tag)
        });
        events.extend(failovers.map(|(_, (_, state))| Event::Failover(state.clone())));
        let services = self.services.iter();
        let services = services.filter(|(id, state)| before.services.get(*id) != Some(*state));
        events.extend(services.map(|(_, state)| Event::Service(state.clone())));
        if self.overview.0 != before.overview.0 {
            events.push(Event::Overview(self.overview.1.clone()));
        }
        events
    }
}
