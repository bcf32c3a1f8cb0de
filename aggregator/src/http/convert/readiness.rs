//! Whether services could run where they may.

use leeward_common::{
    api::v1,
    id::{RegionId, ServiceId},
};
use leeward_engine::readiness::ReadinessState;

use super::{Moment, failover};

/// Which part of it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Only this service's.
    pub service: Option<&'a ServiceId>,
    /// Only in this region.
    pub region: Option<&'a RegionId>,
    /// At most so many changes.
    pub history: usize,
}

impl Wanted<'_> {
    fn has(&self, service: &ServiceId, region: &RegionId) -> bool {
        self.service.is_none_or(|own| own == service) && self.region.is_none_or(|own| own == region)
    }
}

/// Whether services could run where they may, and what changed of it lately.
#[must_use]
pub fn readiness(moment: &Moment<'_>, wanted: Wanted<'_>) -> v1::Readiness {
    let view = moment.view;
    let mut standings = Vec::new();
    for (service, regions) in &*view.readiness {
        for (region, standing) in &**regions {
            if wanted.has(service, region) {
                standings.push(v1::Standing {
                    service_id: service.clone(),
                    region_id: region.clone(),
                    readiness: match moment.is_stale() {
                        true => v1::ReadinessState::Unknown,
                        false => state(standing.state),
                    },
                    since: standing.since.into(),
                    reasons: failover::reasons(&standing.reasons),
                });
            }
        }
    }
    let changes = view.readiness_changes.iter().rev();
    let changes = changes.filter(|change| wanted.has(&change.service, &change.region));
    let history = changes
        .take(wanted.history)
        .map(|change| v1::ReadinessChange {
            change_id: change.id,
            at: change.at.into(),
            service_id: change.service.clone(),
            region_id: change.region.clone(),
            before: change.before.map(state),
            readiness: state(change.state),
            reasons: failover::reasons(&change.reasons),
        });
    v1::Readiness {
        standings,
        history: history.collect(),
        evaluated_at: view.now.into(),
    }
}

const fn state(state: ReadinessState) -> v1::ReadinessState {
    match state {
        ReadinessState::Ready => v1::ReadinessState::Ready,
        ReadinessState::Unknown => v1::ReadinessState::Unknown,
        ReadinessState::NotReady => v1::ReadinessState::NotReady,
    }
}
