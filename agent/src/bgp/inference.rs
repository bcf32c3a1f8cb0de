//! Which link between two systems failed, from the first routes that one feed loses.
//!
//! After T. Holterbach et al., "SWIFT: Predictive Fast Reroute", SIGCOMM 2017. When a link fails, a router withdraws the
//! prefixes behind it one after the other, which takes long; but the first few already have the link in common. A *burst* is
//! so many routes lost within [`WINDOW`] ([`threshold`]): withdrawn, or moved to a longer path. Of each link that at least half
//! of what was lost had, and has no longer:
//!
//! ```text
//!   withdrawal share  WS = Σ√n of lost routes that had it / Σ√n of all lost routes
//!   path share        PS = lost routes that had it / (these + routes that still have it)
//!   fit                  = (WS³ · PS)^¼
//! ```
//!
//! where n routes went by the same path and go by the same one since: those of one origin come and go together, so they tell
//! less than as many of different ones (SWIFT counts each in full, and full tables have so many that it matters little). The best fit is named if it is good enough. It is looked for again as more is lost, and told again only if it is
//! another link. Moves to paths that are as long or shorter count only in that their routes no longer have the link: so routes
//! look that return to a better way.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use leeward_common::time::Timestamp;

use super::{
    table::{Link, PathId, Table},
    update::Nlri,
};

/// Losses that are no further apart than this belong together.
pub const WINDOW: Duration = Duration::from_secs(10);

/// A burst is over after this long, whatever goes on: withdrawals take minutes to be everywhere.
pub const BURST_MAX: Duration = Duration::from_secs(5 * 60);

/// It is looked for again this long after it was.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// So many lost routes begin a burst of a full table (SWIFT: of ten seconds in a month of all of RouteViews' and RIS' sessions one in
/// ten thousand had more). A smaller table needs fewer: a [`SHARE`]th of it, and at least [`LEAST`].
const MOST: usize = 1_500;
const LEAST: usize = 10;
const SHARE: usize = 500;

/// The most lost routes of a burst that are looked at: long before, the answer has settled.
const LOST_MAX: usize = 100_000;

/// A link of a worse fit is not named.
pub const FIT_LEAST: f64 = 0.4;

/// How many lost routes begin a burst in a table of this size.
#[must_use]
pub const fn threshold(routes: usize) -> usize {
    let share = routes / SHARE;
    match share {
        ..LEAST => LEAST,
        MOST.. => MOST,
        _ => share,
    }
}

/// A link that most likely failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failure {
    /// The link.
    pub link: Link,
    /// How well it fits, 0 to 1.
    pub fit: f64,
    /// Lost routes that had it.
    pub lost: u32,
    /// Routes that still have it.
    pub remaining: u32,
    /// Other links that fit as well.
    pub alike: u32,
}

/// What one feed loses.
#[derive(Debug, Default)]
pub struct Inference {
    /// The path that each lost route had, which is held.
    lost: HashMap<Nlri, PathId>,
    /// When they were lost; empty while there is a burst.
    order: VecDeque<(Timestamp, Nlri)>,
    burst: Option<Burst>,
}

#[derive(Debug)]
struct Burst {
    began: Timestamp,
    /// When something was lost last.
    last: Timestamp,
    looked: Timestamp,
    /// Whether anything changed since.
    is_news: bool,
    /// It is looked for when so many are lost.
    next: usize,
    named: Option<Link>,
}

impl Inference {
    /// The link that is named now.
    #[must_use]
    pub fn named(&self) -> Option<Link> {
        self.burst.as_ref()?.named
    }

    /// A route that had this path, which the caller holds and gives away, goes by `after` since, or is withdrawn.
    pub fn on_change(
        &mut self,
        now: Timestamp,
        table: &mut Table,
        nlri: &Nlri,
        before: PathId,
        after: Option<PathId>,
    ) {
        let is_lost = match after {
            None => true,
            Some(after) => {
                let (before, after) = (table.systems(before), table.systems(after));
                after.len() > before.len() && !is_prepended(before, after)
            }
        };
        if let Some(burst) = &mut self.burst {
            burst.is_news = true;
        }
        if !is_lost || self.lost.contains_key(nlri) || self.lost.len() >= LOST_MAX {
            table.release(before);
            return;
        }
        self.lost.insert(*nlri, before);
        match &mut self.burst {
            Some(burst) => burst.last = now,
            None => {
                self.order.push_back((now, *nlri));
                self.forget_old(now, table);
                if self.lost.len() >= threshold(table.len() + self.lost.len()) {
                    self.order = VecDeque::new();
                    self.burst = Some(Burst {
                        began: now,
                        last: now,
                        looked: now,
                        is_news: true,
                        next: 0,
                        named: None,
                    });
                }
            }
        }
    }

    fn forget_old(&mut self, now: Timestamp, table: &mut Table) {
        while let Some((at, nlri)) = self.order.front()
            && now.since(*at) > WINDOW
        {
            if let Some(path) = self.lost.remove(nlri) {
                table.release(path);
            }
            self.order.pop_front();
        }
    }

    /// After changes, and as time passes: the link, if it is another one than was told.
    pub fn look(&mut self, now: Timestamp, table: &mut Table) -> Option<Failure> {
        let Some(burst) = &mut self.burst else {
            self.forget_old(now, table);
            return None;
        };
        if now.since(burst.last) > WINDOW || now.since(burst.began) > BURST_MAX {
            self.forget(table);
            return None;
        }
        let is_due = self.lost.len() >= burst.next || now.since(burst.looked) >= LOOK_AGAIN;
        if !burst.is_news || !is_due {
            return None;
        }
        burst.looked = now;
        burst.is_news = false;
        burst.next = self.lost.len() + self.lost.len() / 2;
        let failure = best(&self.lost, table)?;
        let is_other = burst.named.replace(failure.link) != Some(failure.link);
        is_other.then_some(failure)
    }

    /// Nothing is lost: the burst is over, or the feed cannot be believed.
    pub fn forget(&mut self, table: &mut Table) {
        for (_, path) in self.lost.drain() {
            table.release(path);
        }
        self.lost = HashMap::new();
        self.order = VecDeque::new();
        self.burst = None;
    }
}

/// Whether two paths differ in prepending alone.
fn is_prepended(one: &[u32], other: &[u32]) -> bool {
    fn bare(systems: &[u32]) -> impl Iterator<Item = &u32> {
        let mut last = None;
        systems
            .iter()
            .filter(move |system| last.replace(**system) != Some(**system))
    }
    bare(one).eq(bare(other))
}

/// The link that fits best, if any fits.
fn best(lost: &HashMap<Nlri, PathId>, table: &Table) -> Option<Failure> {
    let mut moves: BTreeMap<(PathId, Option<PathId>), u32> = BTreeMap::new();
    for (nlri, before) in lost {
        let after = table.get(nlri);
        // One that is back is not lost.
        if after != Some(*before) {
            *moves.entry((*before, after)).or_default() += 1;
        }
    }
    let total: f64 = moves.values().map(|count| f64::from(*count).sqrt()).sum();
    // By links: what they lost, and how much that tells.
    let mut had: BTreeMap<Link, (u32, f64)> = BTreeMap::new();
    let (mut links, mut kept) = (Vec::new(), Vec::new());
    for ((before, after), count) in &moves {
        kept.clear();
        kept.extend(after.iter().flat_map(|after| table.links(*after)));
        links.clear();
        for link in table.links(*before) {
            if !kept.contains(&link) && !links.contains(&link) {
                links.push(link);
                let (lost, weight) = had.entry(link).or_default();
                *lost += count;
                *weight += f64::from(*count).sqrt();
            }
        }
    }
    let mut candidates: Vec<_> = had
        .into_iter()
        .filter(|(_, (_, weight))| *weight >= total / 2.0)
        .map(|(link, (lost, weight))| (link, lost, weight, 0u32))
        .collect();
    if candidates.is_empty() {
        return None;
    }
    for (path, routes) in table.used() {
        for link in table.links(path) {
            if let Some((.., remaining)) = candidates.iter_mut().find(|(own, ..)| *own == link) {
                *remaining += routes;
            }
        }
    }
    let fits = candidates.iter().map(|&(link, lost, weight, remaining)| {
        // Sums in another order may differ in their last digit.
        let of_lost = (weight / total * 1e9).round() / 1e9;
        let of_path = f64::from(lost) / (f64::from(lost) + f64::from(remaining));
        let fit = (of_lost.powi(3) * of_path).powf(0.25);
        Failure {
            link,
            fit,
            lost,
            remaining,
            alike: 0,
        }
    });
    let fits: Vec<_> = fits.collect();
    let best = fits.iter().max_by(|a, b| a.fit.total_cmp(&b.fit))?;
    let alike = fits.iter().filter(|other| other.fit == best.fit).count() - 1;
    (best.fit >= FIT_LEAST).then_some(Failure {
        alike: u32::try_from(alike).unwrap_or(u32::MAX),
        ..*best
    })
}

#[cfg(test)]
#[path = "inference/tests.rs"]
mod tests;
