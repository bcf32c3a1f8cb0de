//! Routes, as agents traced them.

use std::sync::Arc;

use leeward_common::{
    api::v1::{
        OrderState, Trace, TraceAnswer, TraceChange, TraceEnd, TraceHop, TraceLabel, TraceMtu,
        TraceOutcome, Traces,
    },
    finding::trace::{self, End, Hop},
    id::RegionId,
};
use leeward_engine::found::{Answered, Traced};

use super::Moment;

/// The traces from and to these regions, the newest first; at most `limit`.
#[must_use]
pub fn traces(
    moment: &Moment<'_>,
    from: Option<&RegionId>,
    to: Option<&RegionId>,
    limit: usize,
) -> Traces {
    let found = &moment.view.found.traces;
    let wanted = |own: &&Arc<Traced>| {
        from.is_none_or(|from| *from == own.region)
            && to.is_none_or(|to| own.trace.region.as_ref() == Some(to))
    };
    let newest = found.iter().rev().filter(wanted).take(limit);
    Traces {
        evaluated_at: moment.view.now.into(),
        traces: newest.map(|traced| trace(moment, traced)).collect(),
    }
}

/// What came of an order.
#[must_use]
pub fn trace_outcome(moment: &Moment<'_>, order: u64) -> TraceOutcome {
    let (state, reason, trace) = match moment.view.found.answer(order) {
        None => (OrderState::Open, None, None),
        Some(Answered::Declined(refusal)) => {
            let reason = refusal.declined.reason.replace(char::is_control, " ");
            (OrderState::Declined, Some(reason), None)
        }
        Some(Answered::Traced(traced)) => (OrderState::Done, None, Some(trace(moment, &traced))),
    };
    TraceOutcome {
        order,
        state,
        reason,
        trace,
    }
}

/// One route, with what differs from the one before it.
fn trace(moment: &Moment<'_>, traced: &Arc<Traced>) -> Trace {
    let own = &traced.trace;
    let before = moment.view.found.before(traced);
    let change = |change: trace::Change| TraceChange {
        hop: change.ttl,
        before: change.before,
        after: change.after,
    };
    let changes = before.map(|before| own.changes_since(&before.trace));
    Trace {
        order: own.order,
        agent: traced.agent.clone(),
        from: traced.region.clone(),
        to: own.region.clone(),
        target: own.target.clone(),
        address: own.address,
        kind: own.kind,
        at: traced.at.into(),
        took_us: own.took_us,
        end: end(&own.end),
        detail: detail(own),
        hops: own.hops.iter().map(hop).collect(),
        mtu: own.mtu.as_ref().map(|mtu| TraceMtu {
            bytes: mtu.bytes,
            local_bytes: mtu.local,
            hinted_bytes: mtu.hinted.map(|hint| hint.bytes),
            hinted_by: mtu.hinted.map(|hint| hint.from),
            black_hole: mtu.black_hole,
        }),
        changes: changes.map(|all| all.into_iter().map(change).collect()),
        compared_with: before.map(|before| before.at.into()),
    }
}

fn hop(own: &Hop) -> TraceHop {
    let rtts = own.rtts_us();
    let answers = own.answers.iter().map(|answer| TraceAnswer {
        address: answer.from,
        says: answer.says,
        rtts_us: answer.rtts_us.clone(),
        mpls: answer.labels.iter().map(label).collect(),
        asn: answer.asn,
    });
    TraceHop {
        hop: own.ttl,
        sent: own.sent.into(),
        lost: u32::try_from(own.lost()).unwrap_or(u32::MAX),
        rtt_best_us: rtts.first().copied(),
        rtt_median_us: rtts.get(rtts.len() / 2).copied(),
        answers: answers.collect(),
    }
}

fn label(own: &trace::Label) -> TraceLabel {
    TraceLabel {
        label: own.label,
        class: own.class,
        ttl: own.ttl,
    }
}

const fn end(own: &End) -> TraceEnd {
    match own {
        End::Reached => TraceEnd::Reached,
        End::Unreachable => TraceEnd::Unreachable,
        End::Silent => TraceEnd::Silent,
        End::Looped => TraceEnd::Looped,
        End::NotSent(_) => TraceEnd::NotSent,
    }
}

fn detail(own: &trace::Trace) -> String {
    let hops = own.hops.len();
    let answered = own.hops.iter().rev().find_map(|hop| hop.answers.first());
    let last = answered.map_or_else(|| "nobody".to_owned(), |answer| answer.from.to_string());
    match &own.end {
        End::Reached => format!("reached in {hops} hops"),
        End::Unreachable => format!("{last} says at hop {hops} that it goes no further"),
        End::Silent => format!("{last} is the last that answers"),
        End::Looped => format!("the route comes back to {last} at hop {hops}"),
        End::NotSent(error) => format!(
            "the agent's host could not send: {}",
            error.replace(char::is_control, " ")
        ),
    }
}
