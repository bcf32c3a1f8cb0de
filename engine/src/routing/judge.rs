//! What the evidence comes to, seen from somewhere: how much less a region weighs, and whether no way to it is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use leeward_common::{
    bgp::Prefix,
    id::{AgentId, RegionId},
    time::Timestamp,
};

use super::{Account, Noted, RoutingEvidence, Seen, Withdrawal};
use crate::{policy::RoutingRules, verdict::words::time_of_day};

/// So many peers of route collectors must tell the same before it counts, and they must be heard by so many collectors.
const OUTSIDE_FEEDS: usize = 3;
const OUTSIDE_COLLECTORS: usize = 2;

/// From where a region is judged.
#[derive(Clone, Copy, Debug)]
pub enum Observers<'a> {
    /// One region: over the link from there.
    Region(&'a RegionId),
    /// All of these together.
    Regions(&'a BTreeSet<&'a RegionId>),
    /// All but this one, if any.
    AllBut(Option<&'a RegionId>),
}

impl Observers<'_> {
    fn are(&self, observer: &RegionId) -> bool {
        match self {
            Self::Region(own) => *own == observer,
            Self::Regions(all) => all.contains(observer),
            Self::AllBut(out) => *out != Some(observer),
        }
    }
}

/// What routers tell against one region.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outlook {
    /// That no way to it is left, in words: which prefix, who withdrew it when, who heard that.
    pub withdrawn: Option<String>,
    /// Since when; `None` unless it is withdrawn.
    pub since: Option<Timestamp>,
    /// How much there is against it, 0..=1.
    pub severity: f64,
    /// What that is, in words, prefix by prefix.
    pub words: Vec<String>,
}

impl Outlook {
    /// What it adds to the logarithm of a weight; never above 0.
    #[must_use]
    pub fn log_value(&self, rules: &RoutingRules) -> f64 {
        -self.severity.clamp(0.0, 1.0) * rules.max_factor.max(1.0).ln()
    }
}

impl RoutingEvidence {
    /// What routers tell against a region as it is judged from somewhere. What the region itself hears of its own prefixes
    /// says nothing.
    #[must_use]
    pub fn outlook(&self, rules: &RoutingRules, from: Observers<'_>, region: &RegionId) -> Outlook {
        let mut outlook = Outlook::default();
        let Some(prefixes) = self.against.get(region) else {
            return outlook;
        };
        for (prefix, accounts) in prefixes {
            self.judge(rules, from, region, (prefix, accounts), &mut outlook);
        }
        outlook
    }

    /// A prefix by which packets may still come. One around the prefix may carry all of them, one within it some. And a prefix
    /// that was learned is where one agent stands: another way to the region is another way.
    fn other_way(
        &self,
        region: &RegionId,
        prefix: &Prefix,
        accounts: &[(&AgentId, &Account)],
        counts: impl Fn(&RegionId) -> bool,
    ) -> Option<&Prefix> {
        let mut withdrawing = accounts
            .iter()
            .filter(|(_, own)| !own.withdrawals.is_empty());
        let is_learned = withdrawing.all(|(_, own)| own.learned);
        let shows = |(other, of): &(&Prefix, &Arc<BTreeMap<AgentId, Seen>>)| {
            let overlaps = other.covers(prefix) || prefix.covers(other);
            *other != prefix
                && of.values().any(|own| {
                    let is_same = is_learned && own.region.as_ref() == Some(region);
                    own.shows && counts(&own.observer) && (overlaps || is_same)
                })
        };
        self.seen.iter().find(shows).map(|(other, _)| other)
    }

    fn judge(
        &self,
        rules: &RoutingRules,
        from: Observers<'_>,
        region: &RegionId,
        (prefix, accounts): (&Prefix, &BTreeMap<AgentId, Account>),
        outlook: &mut Outlook,
    ) {
        let seen = self.seen.get(prefix);
        let hearing = || seen.into_iter().flat_map(|of| of.iter());
        // Who hears routers over there judges for itself; for all others the whole world does.
        let is_own = |observer: &RegionId| from.are(observer) && observer != region;
        let has_own = accounts.values().any(|own| is_own(&own.observer))
            || hearing().any(|(_, seen)| is_own(&seen.observer))
            || self.partly.values().any(|own| is_own(&own.observer));
        let counts = |observer: &RegionId| match has_own {
            true => is_own(observer),
            false => observer != region,
        };
        let mut accounts: Vec<_> = accounts.iter().collect();
        accounts.retain(|(_, own)| counts(&own.observer));
        let withdrawing = accounts
            .iter()
            .filter(|(_, own)| !own.withdrawals.is_empty());
        let is_withdrawing = |agent: &AgentId| withdrawing.clone().any(|(own, _)| *own == agent);
        let sources: BTreeSet<_> = withdrawing
            .clone()
            .flat_map(|(agent, own)| own.sources(agent))
            .collect();
        let others = withdrawing.clone().map(|(_, own)| own.others);
        let others = others.fold(0, u32::saturating_add);
        let hearing = hearing().filter(|(_, own)| counts(&own.observer));
        let elsewhere = hearing.filter(|(agent, _)| !is_withdrawing(agent));
        let showing = elsewhere.clone().filter(|(_, own)| own.shows).count();
        let left = showing.saturating_add(others as usize);
        if !sources.is_empty() {
            // The mean over all agents who hear of it, so that nobody weighs more for hearing more feeds.
            let agents = withdrawing.clone().count() + elsewhere.count();
            let share: f64 = withdrawing.clone().map(|(_, own)| own.share()).sum();
            outlook.severity = outlook.severity.max(share / agents as f64);
            let other_way = match left {
                0 => self.other_way(region, prefix, &accounts, counts),
                _ => None,
            };
            let is_partly = self.partly.values().any(|own| counts(&own.observer));
            let rest = rest(left, other_way, is_partly);
            let words = withdrawn(prefix, &accounts, &rest);
            let enough = match (has_own, from) {
                (true, Observers::Region(_)) => 1,
                _ => 2,
            };
            let is_gone = left == 0 && other_way.is_none() && !is_partly;
            if is_gone && sources.len() >= enough && rules.leave && outlook.withdrawn.is_none() {
                outlook.withdrawn = Some(words.clone());
                let at = accounts
                    .iter()
                    .flat_map(|(_, own)| own.withdrawals.values());
                outlook.since = at.map(|own| own.at).max();
            }
            outlook.words.push(words);
        }
        for (_, own) in accounts {
            // Of feeds that tell the same the worst, and of these the newest.
            let order =
                |a: &&Noted, b: &&Noted| (a.severity.total_cmp(&b.severity)).then(a.at.cmp(&b.at));
            let worst = |told: &'_ BTreeMap<String, Noted>| told.values().max_by(order).cloned();
            let told = own.told.values().filter_map(worst);
            for noted in own.signs.values().cloned().chain(told) {
                outlook.severity = outlook.severity.max(noted.severity);
                outlook.words.push(format!("{prefix}: {}", noted.words));
            }
            for heard in own.outside.values() {
                let collectors: BTreeSet<_> = heard.values().map(|own| &own.collector).collect();
                let newest = heard
                    .values()
                    .map(|own| &own.noted)
                    .max_by_key(|own| own.at);
                if let Some(newest) = newest
                    && heard.len() >= OUTSIDE_FEEDS
                    && collectors.len() >= OUTSIDE_COLLECTORS
                {
                    outlook.severity = outlook.severity.max(newest.severity);
                    outlook.words.push(format!(
                        "{prefix}: {}, as {} peers of {} route collectors tell",
                        newest.words,
                        heard.len(),
                        collectors.len()
                    ));
                }
            }
        }
    }
}

/// What is left of ways to a prefix that was withdrawn.
fn rest(left: usize, other_way: Option<&Prefix>, is_partly: bool) -> String {
    match (left, other_way) {
        (0, Some(other)) => format!("no other route is left, but {other} is still shown"),
        (0, None) if is_partly => {
            "no other route is known, but agents may show more than is remembered".to_owned()
        }
        (0, None) => "no other route is left".to_owned(),
        (1, _) => "one still shows a route".to_owned(),
        (left, _) => format!("{left} still show a route"),
    }
}

/// `198.51.100.0/24 was withdrawn by 10.0.0.2 at 03:12:07 UTC (its path was 64501 64500), as virginia-1 hears; no other route
/// is left`.
fn withdrawn(prefix: &Prefix, accounts: &[(&AgentId, &Account)], rest: &str) -> String {
    /// So many are named.
    const NAMED: usize = 3;
    let mut all: Vec<(Timestamp, &Withdrawal)> = Vec::new();
    let mut agents = Vec::new();
    for (agent, own) in accounts {
        all.extend(own.withdrawals.values().map(|own| (own.at, own)));
        if !own.withdrawals.is_empty() {
            agents.push(agent.as_str());
        }
    }
    all.sort_by_key(|(at, own)| (*at, own.source));
    let path = |own: &Withdrawal| {
        let malformed = match own.malformed {
            true => " by a malformed attribute",
            false => "",
        };
        match own.path.as_str() {
            "" => malformed.to_owned(),
            path => format!("{malformed} (its path was {path})"),
        }
    };
    let words: Vec<_> = all
        .iter()
        .take(NAMED)
        .map(|(at, own)| format!("by {} at {}{}", own.source, time_of_day(*at), path(own)))
        .collect();
    let more = match all.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let hears = match agents.as_slice() {
        [one] => format!("as {one} hears"),
        all => format!("as {} agents hear", all.len()),
    };
    format!(
        "{prefix} was withdrawn {}{more}, {hears}; {rest}",
        words.join(", ")
    )
}
