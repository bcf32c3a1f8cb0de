//! Checks: what agents of other regions found when they asked a service for an answer, and what that amounts to.
//!
//! Of each agent the newest result counts, until it is too old. A region of observers sees a check pass if any of its
//! agents does: one that hears the answer proves that there is one, and one that does not may be at fault itself. Among
//! the regions the majority counts:
//!
//! ```text
//!   more see it fail than pass ──▶ Fails     refused, by those who are there too
//!   as many                    ──▶ Divided   nobody can tell
//!   more see it pass           ──▶ Passes
//!   nobody said anything       ──▶ Silent    not moved to, if the check is required; no reason to leave
//! ```
//!
//! An agent that is at fault or doubts itself has no say, and one that may not ask by its own configuration says nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use leeward_common::{
    api::v1::CheckSpec,
    check::Outcome,
    id::{AgentId, CheckId, RegionId, ServiceId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    input::{CheckResult, CheckResults},
    intent::{Intents, Service},
};

/// How many observers are named in a sentence.
const NAMED: usize = 4;

/// What was found lately.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Checks {
    services: BTreeMap<ServiceId, Arc<OfService>>,
    /// Agents that have no say.
    mute: BTreeSet<AgentId>,
    /// Nothing expires before.
    next_expiry: Option<Timestamp>,
}

/// What was found of one service.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct OfService {
    #[serde(with = "crate::pairs")]
    seen: BTreeMap<(RegionId, CheckId), BTreeMap<AgentId, Observation>>,
}

/// What an agent last found.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Observation {
    region: RegionId,
    question: u64,
    outcome: Outcome,
    latency_us: u64,
    at: Timestamp,
    expires_at: Timestamp,
    detail: String,
}

impl Observation {
    /// Of two about the same the later counts; the rest makes the order of arrival irrelevant.
    fn precedence(&self) -> (Timestamp, Outcome, u64, &str) {
        (self.at, self.outcome, self.latency_us, &self.detail)
    }
}

impl Checks {
    /// Takes in results. One of a check that nobody asks for any more, that its agent was not asked for, or that is too
    /// old to count changes nothing.
    pub(crate) fn on_results(&mut self, now: Timestamp, intents: &Intents, told: &CheckResults) {
        for result in &told.results {
            self.on_result(now, intents, told, result);
        }
    }

    fn on_result(
        &mut self,
        now: Timestamp,
        intents: &Intents,
        told: &CheckResults,
        result: &CheckResult,
    ) {
        let Some(known) = intents.services.get(&result.service) else {
            return;
        };
        let Some(spec) = known.what.checks.get(&result.check) else {
            return;
        };
        let is_asked = spec.is_asked(&told.region, &result.region);
        if !is_asked || spec.question(&result.region) != Some(result.question) {
            return;
        }
        let at = now - result.age;
        let own = Observation {
            region: told.region.clone(),
            question: result.question,
            outcome: result.outcome,
            latency_us: result.latency_us,
            at,
            expires_at: at + spec.counts_for(),
            detail: result.detail.clone(),
        };
        if own.expires_at <= now {
            return;
        }
        let place = (result.region.clone(), result.check.clone());
        let service = self.services.entry(result.service.clone()).or_default();
        let seen = Arc::make_mut(service).seen.entry(place).or_default();
        let before = seen.get(&told.agent);
        let answers = |before: &&Observation| before.question == own.question;
        if before
            .filter(answers)
            .is_some_and(|before| before.precedence() >= own.precedence())
        {
            return;
        }
        let first = self
            .next_expiry
            .map_or(own.expires_at, |at| at.min(own.expires_at));
        self.next_expiry = Some(first);
        seen.insert(told.agent.clone(), own);
    }

    /// Whose say does not count from now on. Returns whether that has changed.
    pub(crate) fn set_mute(&mut self, mute: BTreeSet<AgentId>) -> bool {
        let changed = self.mute != mute;
        self.mute = mute;
        changed
    }

    /// Whether these have no say now.
    pub(crate) const fn mute(&self) -> &BTreeSet<AgentId> {
        &self.mute
    }

    /// Forgets what has expired, and services that are no more. Returns whether there was any.
    pub(crate) fn forget(&mut self, now: Timestamp, intents: &Intents) -> bool {
        let mut forgotten = false;
        let mut first: Option<Timestamp> = None;
        self.services.retain(|id, service| {
            if !intents.services.contains_key(id) {
                forgotten = true;
                return false;
            }
            let all = || service.seen.values().flat_map(BTreeMap::values);
            if all().any(|own| own.expires_at <= now) {
                forgotten = true;
                let service = Arc::make_mut(service);
                service.seen.retain(|_, seen| {
                    seen.retain(|_, own| own.expires_at > now);
                    !seen.is_empty()
                });
            }
            let own = service.seen.values().flat_map(BTreeMap::values);
            first = first.into_iter().chain(own.map(|own| own.expires_at)).min();
            !service.seen.is_empty()
        });
        self.next_expiry = first;
        forgotten
    }

    /// Before when nothing expires; `None` if there is nothing.
    pub(crate) const fn next_expiry(&self) -> Option<Timestamp> {
        self.next_expiry
    }

    /// What the checks of a service amount to in a region.
    pub fn findings<'a>(
        &'a self,
        now: Timestamp,
        id: &ServiceId,
        service: &'a Service,
        region: &'a RegionId,
    ) -> impl Iterator<Item = Findings<'a>> {
        let seen = self.services.get(id).map(|own| &own.seen);
        service.checks.iter().filter_map(move |(check, spec)| {
            let question = spec.question(region)?;
            let place = (region.clone(), check.clone());
            let seen = seen.and_then(|seen| seen.get(&place));
            let fresh = |(_, own): &(&AgentId, &Observation)| {
                own.question == question && own.expires_at > now
            };
            let vantage = |(agent, own): (&'a AgentId, &'a Observation)| Vantage {
                region: &own.region,
                agent,
                outcome: own.outcome,
                detail: &own.detail,
                latency_us: own.latency_us,
                age: now.since(own.at),
                is_mute: self.mute.contains(agent),
            };
            let vantages = seen.into_iter().flatten().filter(fresh).map(vantage);
            Some(Findings::new(check, spec, vantages.collect()))
        })
    }
}

/// What an agent last found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Vantage<'a> {
    /// Its region.
    pub region: &'a RegionId,
    /// The agent.
    pub agent: &'a AgentId,
    /// What came of it.
    pub outcome: Outcome,
    /// The same in words; may be empty.
    pub detail: &'a str,
    /// How long it took, microseconds.
    pub latency_us: u64,
    /// How long ago.
    pub age: Duration,
    /// Whether the agent is at fault or doubts itself.
    pub is_mute: bool,
}

impl Vantage<'_> {
    /// Whether the service answers as it should; `None` if this does not count.
    #[must_use]
    pub fn passes(&self) -> Option<bool> {
        self.outcome.passes().filter(|_| !self.is_mute)
    }

    fn words(&self) -> String {
        match self.detail {
            "" => format!("{} ({})", self.region, self.outcome),
            detail => format!("{} ({detail})", self.region),
        }
    }
}

/// What the regions that ask say together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Finding {
    /// More see it answer well than not.
    Passes,
    /// More see it fail than not.
    Fails,
    /// As many see it fail as see it answer well.
    Divided,
    /// Nobody has said anything lately.
    Silent,
}

/// What a check amounts to in a region.
#[derive(Clone, Debug)]
pub struct Findings<'a> {
    /// Which check.
    pub check: &'a CheckId,
    /// What is asked.
    pub spec: &'a CheckSpec,
    /// What the regions that ask say together.
    pub finding: Finding,
    /// Who found what lately, by agent.
    pub vantages: Vec<Vantage<'a>>,
    passing: BTreeSet<&'a RegionId>,
    failing: BTreeSet<&'a RegionId>,
}

impl<'a> Findings<'a> {
    fn new(check: &'a CheckId, spec: &'a CheckSpec, vantages: Vec<Vantage<'a>>) -> Self {
        let regions = |passes: bool| -> BTreeSet<&'a RegionId> {
            let own = vantages.iter().filter(|own| own.passes() == Some(passes));
            own.map(|own| own.region).collect()
        };
        let (passing, mut failing) = (regions(true), regions(false));
        failing.retain(|region| !passing.contains(region));
        let finding = match failing.len().cmp(&passing.len()) {
            _ if failing.is_empty() && passing.is_empty() => Finding::Silent,
            std::cmp::Ordering::Greater => Finding::Fails,
            std::cmp::Ordering::Equal => Finding::Divided,
            std::cmp::Ordering::Less => Finding::Passes,
        };
        Self {
            check,
            spec,
            finding,
            vantages,
            passing,
            failing,
        }
    }

    /// Who sees what, in one sentence.
    #[must_use]
    pub fn words(&self) -> String {
        let check = self.check;
        let (bad, good) = (self.failing.len(), self.passing.len());
        let all = bad + good;
        match self.finding {
            Finding::Silent => {
                let barred = self.vantages.iter().find(|own| !own.is_mute);
                match barred {
                    Some(own) => format!("check {check}: nobody may ask: {}", own.words()),
                    None => format!("check {check}: nobody has said anything lately"),
                }
            }
            Finding::Passes => format!("check {check} passes from {good} of {all} regions"),
            Finding::Fails | Finding::Divided => {
                let mut words = format!(
                    "check {check} fails from {bad} of {all} regions: {}",
                    self.who(&self.failing, false)
                );
                if good > 0 {
                    let who: Vec<_> = self.passing.iter().map(|own| own.as_str()).collect();
                    words.push_str(&format!("; it passes from {}", some_of(&who)));
                }
                words
            }
        }
    }

    /// The regions, each with what one of its agents found.
    fn who(&self, regions: &BTreeSet<&RegionId>, passes: bool) -> String {
        let words = regions.iter().filter_map(|region| {
            let mut own = self.vantages.iter();
            let own = own.find(|own| own.region == *region && own.passes() == Some(passes))?;
            Some(own.words())
        });
        let words: Vec<_> = words.collect();
        some_of(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// The first few, and how many more there are.
fn some_of(names: &[&str]) -> String {
    match names.len().checked_sub(NAMED) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..NAMED].join(", ")),
    }
}
