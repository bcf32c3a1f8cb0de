//! Whether services could run where they may.

use leeward_common::{
    api::v1,
    id::{RegionId, ServiceId},
};
use leeward_engine::{
    checks::{Finding, Findings},
    readiness::ReadinessState,
};

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
                    checks: checks(moment, service, region),
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

/// What agents of other regions find there.
fn checks(moment: &Moment<'_>, service: &ServiceId, region: &RegionId) -> Vec<v1::CheckStanding> {
    let view = moment.view;
    let Some(known) = view.intents.services.get(service) else {
        return Vec::new();
    };
    let found = view
        .checks
        .findings(moment.now(), service, &known.what, region);
    let standing = |own: Findings<'_>| {
        let url = own.spec.at.get(region)?.clone();
        let vantage_points = own.vantages.iter().map(|own| v1::CheckVantage {
            region_id: own.region.clone(),
            agent_id: own.agent.clone(),
            outcome: own.outcome,
            detail: own.detail.to_owned(),
            latency_us: own.latency_us,
            age_ms: super::milliseconds(own.age),
            counts: own.passes().is_some(),
        });
        Some(v1::CheckStanding {
            check_id: own.check.clone(),
            url,
            finding: match own.finding {
                Finding::Passes => v1::CheckFinding::Passes,
                Finding::Fails => v1::CheckFinding::Fails,
                Finding::Divided => v1::CheckFinding::Divided,
                Finding::Silent => v1::CheckFinding::Silent,
            },
            vantage_points: vantage_points.collect(),
        })
    };
    found.filter_map(standing).collect()
}

const fn state(state: ReadinessState) -> v1::ReadinessState {
    match state {
        ReadinessState::Ready => v1::ReadinessState::Ready,
        ReadinessState::Unknown => v1::ReadinessState::Unknown,
        ReadinessState::NotReady => v1::ReadinessState::NotReady,
    }
}
