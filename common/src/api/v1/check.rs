//! Checks of a service: what agents of other regions ask of it, and what they found.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Fault;
use crate::{
    check::{CheckUrl, MAX_BODY, Outcome, Scheme},
    config::Span,
    id::{AgentId, CheckId, RegionId},
};

/// How many checks a service may have.
pub const MAX_CHECKS: usize = 8;

/// What agents of other regions ask of a service, and what they must hear.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CheckSpec {
    /// What is asked, by the region that it stands for; at least one. A region that is not named is not checked.
    pub at: BTreeMap<RegionId, CheckUrl>,
    /// The first and the last status of a page that is well.
    #[serde(default = "status", skip_serializing_if = "is_usual_status")]
    pub status: [u16; 2],
    /// A text that a page must hold within its first 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// How long everything may take, from the name's resolution to the answer: 100ms to 30s.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// How often each agent asks: 1s to 10m, and not below the timeout.
    #[serde(default = "interval")]
    pub interval: Span,
    /// The regions whose agents ask, none twice; every region but the one that is checked if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<RegionId>,
    /// Whether a region that nobody has checked lately is not moved to.
    #[serde(default = "required")]
    pub required: bool,
}

const fn status() -> [u16; 2] {
    [200, 299]
}

fn is_usual_status(own: &[u16; 2]) -> bool {
    *own == status()
}

const fn timeout() -> Span {
    Span(Duration::from_secs(2))
}

const fn interval() -> Span {
    Span(Duration::from_secs(10))
}

const fn required() -> bool {
    true
}

impl CheckSpec {
    /// A check of these places with everything else as usual.
    #[must_use]
    pub const fn of(at: BTreeMap<RegionId, CheckUrl>) -> Self {
        Self {
            at,
            status: status(),
            body: None,
            timeout: timeout(),
            interval: interval(),
            from: Vec::new(),
            required: required(),
        }
    }

    /// Whether agents of `observer` ask it of `region`. A region is not checked from itself: it would say that all is
    /// well while nobody reaches it.
    #[must_use]
    pub fn is_asked(&self, observer: &RegionId, region: &RegionId) -> bool {
        observer != region
            && self.at.contains_key(region)
            && (self.from.is_empty() || self.from.contains(observer))
    }

    /// For how long a result counts: three intervals, so that two may be missed, and the time of an answer.
    #[must_use]
    pub fn counts_for(&self) -> Duration {
        self.interval.0 * 3 + self.timeout.0
    }

    /// A number for what is asked in a region, so that the answer to another question is not taken for one to this;
    /// `None` for a region that is not checked.
    #[must_use]
    pub fn question(&self, region: &RegionId) -> Option<u64> {
        let (url, [first, last]) = (self.at.get(region)?, self.status);
        let body = self.body.as_deref().unwrap_or_default();
        let text = format!("{url}\n{first}-{last}\n{}\n{body}", self.timeout);
        let hash = Sha256::digest(text.as_bytes());
        Some(
            hash.iter()
                .take(8)
                .fold(0, |number, &byte| number << 8 | u64::from(byte)),
        )
    }

    /// Whether it makes sense by itself; `path` is where it stands.
    ///
    /// # Errors
    ///
    /// Returns the first member that does not, and what to write instead.
    pub(super) fn check(&self, path: &str) -> Result<(), Fault> {
        let fault = |member: &str, detail: String, what_to_do: &str| {
            Err(Fault::new(format!("{path}.{member}"), detail, what_to_do))
        };
        if self.at.is_empty() {
            let what_to_do = "name at least one region, like { ireland = \"https://host/path\" }";
            return fault("at", "is empty".to_owned(), what_to_do);
        }
        let [first, last] = self.status;
        if first > last || first < 100 || last > 599 {
            let detail = format!("is [{first}, {last}]");
            return fault("status", detail, "use the first and the last of 100 to 599");
        }
        if let Some(body) = &self.body
            && (body.is_empty() || body.len() > MAX_BODY)
        {
            let detail = format!("is empty or longer than {MAX_BODY} bytes");
            return fault("body", detail, "name a short text, or leave it out");
        }
        let is_page = self.at.values().any(|url| url.scheme() != Scheme::Tcp);
        if !is_page && (self.body.is_some() || self.status != status()) {
            let member = if self.body.is_some() {
                "body"
            } else {
                "status"
            };
            let detail = "has no meaning for tcp://, where nothing is read".to_owned();
            return fault(member, detail, "leave it out, or check a page");
        }
        let (timeout, interval) = (self.timeout, self.interval);
        let within = |span: Span, least: u64, most: u64| {
            (Duration::from_millis(least)..=Duration::from_millis(most)).contains(&span.0)
        };
        if !within(timeout, 100, 30_000) {
            let detail = format!("is \"{timeout}\"");
            return fault("timeout", detail, "use \"100ms\" to \"30s\"");
        }
        if !within(interval, 1_000, 600_000) || interval.0 < timeout.0 {
            let detail = format!("is \"{interval}\"");
            let what_to_do = "use \"1s\" to \"10m\", and not less than the timeout";
            return fault("interval", detail, what_to_do);
        }
        let mut named = self.from.iter().enumerate();
        if let Some((at, region)) = named.find(|&(at, region)| self.from[..at].contains(region)) {
            let detail = format!("names {region} twice");
            return fault(&format!("from.{at}"), detail, "name each region once");
        }
        if let [region] = &self.from[..]
            && self.at.contains_key(region)
        {
            let detail = format!("names only {region}, and a region is not checked from itself");
            return fault("from", detail, "name another region too, or leave it out");
        }
        Ok(())
    }

    /// Every region that it names, and by which member; `path` is where it stands.
    pub(super) fn regions<'a>(
        &'a self,
        path: &str,
    ) -> impl Iterator<Item = (String, &'a RegionId)> + use<'a> {
        let path = path.to_owned();
        let stem = path.clone();
        let at = self.at.keys();
        let at = at.map(move |region| (format!("{path}.at.{region}"), region));
        let from = self.from.iter().enumerate();
        at.chain(from.map(move |(at, region)| (format!("{stem}.from.{at}"), region)))
    }
}

/// What a check amounts to in a region.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckStanding {
    /// Which check.
    pub check_id: CheckId,
    /// What is asked.
    pub url: CheckUrl,
    /// What the regions that ask say together.
    pub finding: CheckFinding,
    /// Who asked, and what came of it; agents whose last answer is too old to count are not listed.
    pub vantage_points: Vec<CheckVantage>,
}

/// What the regions that ask say together.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CheckFinding {
    /// More see it answer well than not.
    Passes,
    /// More see it fail than not.
    Fails,
    /// As many see it fail as see it answer well.
    Divided,
    /// Nobody has said anything lately.
    Silent,
}

impl CheckFinding {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passes => "passes",
            Self::Fails => "fails",
            Self::Divided => "divided",
            Self::Silent => "silent",
        }
    }
}

/// What came of an agent's last question.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckVantage {
    /// The agent's region.
    pub region_id: RegionId,
    /// The agent.
    pub agent_id: AgentId,
    /// What came of it.
    pub outcome: Outcome,
    /// The same in words; empty if there is nothing to add.
    pub detail: String,
    /// How long it took, microseconds.
    pub latency_us: u64,
    /// How long ago that was, milliseconds.
    pub age_ms: u64,
    /// Whether it counts: not if the agent is at fault, doubts itself, or may not ask.
    pub counts: bool,
}
