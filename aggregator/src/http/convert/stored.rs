//! Decisions of the store. Their facts can always be read; their evidence only by a build that knows its shape.

use leeward_common::{
    api::v1::{Decision, Moved, Perspective, Reason},
    time::Timestamp,
};
use leeward_engine::{decision, policy::Policy};
use serde::Deserialize;

use super::failover;
use crate::store::record::v1::{self, Decided};

/// A stored decision with its evidence, if this build can read it.
#[must_use]
pub fn stored(record: &Decided, policy: &Policy) -> Decision {
    match v1::decode::<decision::Decision>("decision", &record.explanation) {
        Ok(decision) => failover::decision(&decision, policy),
        Err(_) => {
            let Moved {
                decision_id,
                decided_at,
                primary_region,
                service_id,
                from,
                to,
                reason,
                summary,
            } = stored_moved(record);
            Decision {
                decision_id,
                decided_at,
                primary_region,
                service_id,
                from,
                to,
                reason,
                margin: None,
                summary,
                graph_version: 0,
                policy_version: String::new(),
                perspective: Perspective::Primary,
                evidence: Vec::new(),
            }
        }
    }
}

/// A stored decision without its evidence.
#[must_use]
pub fn stored_moved(record: &Decided) -> Moved {
    /// The rest weighs many times as much.
    #[derive(Deserialize)]
    struct Head {
        reason: decision::Reason,
    }
    let reason = match v1::decode::<Head>("decision", &record.explanation) {
        Ok(head) => failover::reason(&head.reason).1,
        Err(_) => Reason {
            code: record.reason.clone(),
            detail: "its evidence was written by another build, which this one cannot read"
                .to_owned(),
        },
    };
    Moved {
        decision_id: record.id,
        decided_at: Timestamp::from_unix_us(record.at_us).into(),
        primary_region: record.primary.clone(),
        service_id: record.service.clone(),
        from: record.from.clone(),
        to: record.to.clone(),
        reason,
        summary: record.summary.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_of_a_decision_can_be_read_whatever_became_of_its_evidence() {
        let record = crate::store::tests::decided(7);
        let moved = stored_moved(&record);
        assert_eq!(
            (moved.decision_id, moved.reason.code.as_str()),
            (7, "initial")
        );
        let policy = crate::http::tests::view(crate::http::tests::CALM).policy;
        let decision = stored(&record, &policy);
        assert_eq!((decision.decision_id, decision.evidence.len()), (7, 0));
        assert!(decision.reason.detail.contains("another build"));
    }
}
