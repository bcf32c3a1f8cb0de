//! What differs between a decision as it was stored and as it was replayed, in words.

use leeward_engine::decision::Decision;

use crate::store::record::v1::{self, Decided};

/// The difference in words. At least one of the two is there.
#[must_use]
pub fn words(stored: Option<&Decided>, replayed: Option<&Decided>) -> String {
    match (stored, replayed) {
        (Some(stored), None) => format!(
            "decision {} was stored and is not taken again: {}",
            stored.id, stored.summary
        ),
        (None, Some(replayed)) => format!(
            "a decision is taken that was not stored: {}",
            replayed.summary
        ),
        (Some(stored), Some(replayed)) => between(stored, replayed),
        (None, None) => "a decision was stored and is gone by now".to_owned(),
    }
}

fn between(stored: &Decided, replayed: &Decided) -> String {
    let region = |region: &Option<leeward_common::id::RegionId>| {
        region
            .as_ref()
            .map_or_else(|| "none".to_owned(), ToString::to_string)
    };
    let facts = [
        (
            "of",
            stored.primary.to_string(),
            replayed.primary.to_string(),
        ),
        ("from", region(&stored.from), region(&replayed.from)),
        ("to", region(&stored.to), region(&replayed.to)),
        ("because", stored.reason.clone(), replayed.reason.clone()),
        ("summary", stored.summary.clone(), replayed.summary.clone()),
    ];
    for (what, then, now) in facts {
        if then != now {
            return format!(
                "decision {}: {what} {then} as stored, {now} as replayed",
                stored.id
            );
        }
    }
    let evidence = evidence(&stored.explanation, &replayed.explanation);
    format!("decision {}: the same facts, but {evidence}", stored.id)
}

fn evidence(stored: &[u8], replayed: &[u8]) -> String {
    let decode = |bytes| v1::decode::<Decision>("decision", bytes);
    let (Ok(stored), Ok(replayed)) = (decode(stored), decode(replayed)) else {
        return "the evidence was stored in the shape of another build".to_owned();
    };
    if stored.policy_version != replayed.policy_version {
        let (then, now) = (&stored.policy_version, &replayed.policy_version);
        return format!("by policy {then:?} as stored, {now:?} as replayed");
    }
    if stored.graph_version != replayed.graph_version {
        let (then, now) = (stored.graph_version, replayed.graph_version);
        return format!("upon graph version {then} as stored, {now} as replayed");
    }
    let both = stored
        .evidence
        .candidates
        .iter()
        .zip(&replayed.evidence.candidates);
    for (then, now) in both {
        if then.region != now.region {
            return format!(
                "{} as stored ranks where {} does as replayed",
                then.region, now.region
            );
        }
        if then.score != now.score {
            let (region, then, now) = (&then.region, then.score, now.score);
            return format!("the score of {region} is {then:?} as stored, {now:?} as replayed");
        }
    }
    "its evidence differs in a detail".to_owned()
}
