//! How much links carry, and what came of orders to measure it.

use leeward_common::{
    api::v1::{BandwidthOrder, BandwidthOrderState, BandwidthQuantity, LinkBandwidth},
    finding::bandwidth::{Name, Quantity},
};
use leeward_engine::{found::Answered, graph::bandwidth::Gauged};

use super::Moment;

/// The quantities of one finding.
pub(super) fn quantities(gauged: &Gauged) -> impl Iterator<Item = LinkBandwidth> {
    let quantities = gauged.bandwidth.quantities();
    quantities.map(|(name, own)| quantity(gauged, name, own))
}

fn quantity(gauged: &Gauged, name: Name, own: &Quantity) -> LinkBandwidth {
    LinkBandwidth {
        quantity: match name {
            Name::CapacityUpper => BandwidthQuantity::CapacityUpper,
            Name::AvailableEst => BandwidthQuantity::AvailableEst,
            Name::GoodputSeen => BandwidthQuantity::GoodputSeen,
        },
        agent_id: gauged.agent.clone(),
        target_id: gauged.bandwidth.target.clone(),
        bits_per_second: own.bps,
        low_bits_per_second: own.low_bps,
        high_bits_per_second: own.high_bps,
        method: own.method.clone(),
        samples: own.samples,
        bytes: own.bytes,
        measured_at: gauged.at.into(),
        trusted: own.doubt.is_none(),
        doubt: own.doubt.clone(),
    }
}

/// What came of an order so far.
#[must_use]
pub fn bandwidth_order(moment: &Moment<'_>, order: u64) -> BandwidthOrder {
    let view = moment.view;
    let waiting = BandwidthOrder {
        order,
        state: BandwidthOrderState::Waiting,
        agent_id: None,
        from: None,
        to: None,
        detail: String::new(),
        bytes: 0,
        bandwidth: Vec::new(),
    };
    if let Some(gauged) = view.bandwidths.answer(order) {
        return BandwidthOrder {
            state: BandwidthOrderState::Measured,
            agent_id: Some(gauged.agent.clone()),
            from: Some(gauged.region.clone()),
            to: gauged.bandwidth.region.clone(),
            detail: gauged.bandwidth.note.clone(),
            bytes: gauged.bandwidth.bytes,
            bandwidth: quantities(gauged).collect(),
            ..waiting
        };
    }
    match view.found.answer(order) {
        Some(Answered::Declined(refusal)) => BandwidthOrder {
            state: BandwidthOrderState::Declined,
            agent_id: Some(refusal.agent.clone()),
            detail: refusal.declined.reason.clone(),
            ..waiting
        },
        Some(Answered::Traced(_)) | None => waiting,
    }
}
