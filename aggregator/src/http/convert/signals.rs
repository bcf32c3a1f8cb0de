//! Signals.

use leeward_common::api::v1;
use leeward_engine::{
    input::{Metric, Subject},
    signal::ActiveSignal,
};

use super::Moment;

/// The signals in force.
#[must_use]
pub fn signals(moment: &Moment<'_>) -> v1::Signals {
    v1::Signals {
        signals: moment.view.signals.iter().map(signal).collect(),
    }
}

/// One signal.
#[must_use]
pub fn signal(signal: &ActiveSignal) -> v1::Signal {
    let ActiveSignal {
        source,
        subject,
        metric,
        value,
        observed_at,
        expires_at,
    } = signal;
    let (region, from, to) = match subject {
        Subject::Region(region) | Subject::Service(_, region) => (Some(region.clone()), None, None),
        Subject::Link(from, to) => (None, Some(from.clone()), Some(to.clone())),
    };
    let service = match subject {
        Subject::Service(service, _) => Some(service.clone()),
        Subject::Region(_) | Subject::Link(..) => None,
    };
    v1::Signal {
        source: source.clone(),
        region,
        from,
        to,
        service,
        metric: match metric {
            Metric::Health => v1::Metric::Health,
            Metric::LatencyUs => v1::Metric::LatencyUs,
            Metric::LossRatio => v1::Metric::LossRatio,
            Metric::BandwidthBps => v1::Metric::BandwidthBps,
            Metric::ReplicationLagUs => v1::Metric::ReplicationLagUs,
        },
        value: *value,
        observed_at: (*observed_at).into(),
        expires_at: (*expires_at).into(),
    }
}
