//! What agents found when they asked services for an answer, as it is journaled.

use std::time::Duration;

use leeward_common::{
    check::Outcome,
    id::{AgentId, CheckId, RegionId, ServiceId},
};
use leeward_engine::input::{self, CheckResults};
use serde::{Deserialize, Serialize};

/// Results of checks.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Checked {
    /// The agent.
    pub agent: AgentId,
    /// Its region, from its certificate.
    pub region: RegionId,
    /// One by one.
    pub results: Vec<CheckResult>,
}

/// What came of one check.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CheckResult {
    /// The service.
    pub service: ServiceId,
    /// Which of its checks.
    pub check: CheckId,
    /// The region that was checked.
    pub region: RegionId,
    /// The number of what was asked.
    pub question: u64,
    /// What came of it; [`Outcome`] only ever grows.
    pub outcome: Outcome,
    /// How long it took.
    pub latency_us: u64,
    /// How long before the record's time it ended.
    pub age_us: u64,
    /// The outcome in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl From<&CheckResults> for Checked {
    fn from(told: &CheckResults) -> Self {
        let result = |own: &input::CheckResult| {
            let input::CheckResult {
                service,
                check,
                region,
                question,
                outcome,
                latency_us,
                age,
                detail,
            } = own.clone();
            CheckResult {
                service,
                check,
                region,
                question,
                outcome,
                latency_us,
                age_us: u64::try_from(age.as_micros()).unwrap_or(u64::MAX),
                detail,
            }
        };
        Self {
            agent: told.agent.clone(),
            region: told.region.clone(),
            results: told.results.iter().map(result).collect(),
        }
    }
}

impl From<Checked> for CheckResults {
    fn from(record: Checked) -> Self {
        let result = |own: CheckResult| {
            let CheckResult {
                service,
                check,
                region,
                question,
                outcome,
                latency_us,
                age_us,
                detail,
            } = own;
            input::CheckResult {
                service,
                check,
                region,
                question,
                outcome,
                latency_us,
                age: Duration::from_micros(age_us),
                detail,
            }
        };
        Self {
            agent: record.agent,
            region: record.region,
            results: record.results.into_iter().map(result).collect(),
        }
    }
}

/// Some, for tests.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's")]
pub(super) fn sample() -> Checked {
    Checked {
        agent: AgentId::parse("iad-1").unwrap(),
        region: RegionId::parse("iad").unwrap(),
        results: vec![CheckResult {
            service: ServiceId::parse("s").unwrap(),
            check: CheckId::parse("c").unwrap(),
            region: RegionId::parse("dub").unwrap(),
            question: 9,
            outcome: Outcome::NotAllowed,
            latency_us: 7,
            age_us: 5,
            detail: "x".to_owned(),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Record, decode, encode},
        *,
    };

    #[test]
    fn golden_bytes_of_check_results() {
        let results = Record::CheckResults(sample());
        let bytes = b"\x81\xadcheck_results\x83\xa5agent\xa5iad-1\xa6region\xa3iad\xa7results\x91\x88\xa7service\xa1s\xa5check\xa1c\xa6region\xa3dub\xa8question\x09\xa7outcome\xabnot_allowed\xaalatency_us\x07\xa6age_us\x05\xa6detail\xa1x";
        assert_eq!(encode(&results), bytes);
        assert_eq!(decode::<Record>("record", bytes).unwrap(), results);
        let told = CheckResults::from(sample());
        assert_eq!(Checked::from(&told), sample());
    }
}
