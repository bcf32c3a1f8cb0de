//! The answers of one view, each written at most once.
//!
//! Answers are asked for far more often than views are published. So the first question writes the answer and all later
//! ones get its bytes, until the view is replaced or [`FRESH`] has passed: ages are part of an answer and must not
//! stand still while views do.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use leeward_common::{
    api::v1::{AuditHead, Overview},
    id::RegionId,
    time::Timestamp,
};
use leeward_engine::view::View;

use super::{
    App,
    answer::Written,
    convert::{self, Moment},
    error::Refused,
    names,
};

/// How long an answer is repeated under the same view. Shorter than the smallest age that people tell apart.
const FRESH: Duration = Duration::from_millis(100);

/// The answers of the newest view.
#[derive(Default)]
pub(super) struct Cache(ArcSwapOption<Page>);

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cache")
    }
}

/// The answers of one view at one time.
pub(super) struct Page {
    view: Arc<View>,
    at: Timestamp,
    overview: OnceLock<Written>,
    failovers: OnceLock<Written>,
    /// Of each region: its failover, and the graph as seen from there.
    regions: BTreeMap<RegionId, (OnceLock<Written>, OnceLock<Written>)>,
    /// The graph as seen from nowhere.
    graph: OnceLock<Written>,
}

impl App {
    /// The answers of now.
    pub(super) fn page(&self) -> Arc<Page> {
        let (view, now) = (self.shared.view.load(), self.shared.clock.now());
        if let Some(page) = &*self.cache.0.load()
            && page.serves(&view, now)
        {
            return Arc::clone(page);
        }
        let regions = view.policy.regions.keys();
        let page = Arc::new(Page {
            view: Arc::clone(&view),
            at: now,
            overview: OnceLock::new(),
            failovers: OnceLock::new(),
            regions: regions
                .map(|region| (region.clone(), Default::default()))
                .collect(),
            graph: OnceLock::new(),
        });
        // Two questions at once may each make a page; the later one stays and the earlier one is still right.
        self.cache.0.store(Some(Arc::clone(&page)));
        page
    }
}

impl Page {
    /// How it all fares.
    pub(super) fn overview(&self, aggregator: &str, audit: &AuditHead) -> Result<Written, Refused> {
        once(&self.overview, || {
            let answer = Overview {
                audit: audit.clone(),
                ..convert::overview(&self.moment(), aggregator)
            };
            Written::weak(&answer, &convert::overview_content(&answer))
        })
    }

    /// The failovers of all regions, on one line each.
    pub(super) fn failovers(&self) -> Result<Written, Refused> {
        once(&self.failovers, || {
            let answer = convert::failovers(&self.moment());
            Written::weak(&answer, &convert::lines_content(&answer.failovers))
        })
    }

    /// The failover of one region.
    pub(super) fn failover(&self, primary: &str) -> Result<Written, Refused> {
        let Some((region, (written, _))) = self.regions.get_key_value(primary) else {
            return Err(self.no_such(primary));
        };
        once(written, || {
            let answer = convert::failover(&self.moment(), region);
            Written::weak(&answer, &convert::content(&answer))
        })
    }

    /// The graph as seen from a region, or from nowhere.
    pub(super) fn graph(&self, from: Option<&str>) -> Result<Written, Refused> {
        let (region, written) = match from {
            None => (None, &self.graph),
            Some(name) => match self.regions.get_key_value(name) {
                Some((region, (_, written))) => (Some(region), written),
                None => return Err(self.no_such(name)),
            },
        };
        once(written, || {
            Written::strong(&convert::graph(&self.moment(), region))
        })
    }

    fn moment(&self) -> Moment<'_> {
        Moment::new(&self.view, self.at)
    }

    fn serves(&self, view: &Arc<View>, now: Timestamp) -> bool {
        Arc::ptr_eq(&self.view, view)
            && self.at <= now
            && now.since(self.at) < FRESH
            && self.moment().is_stale() == Moment::new(view, now).is_stale()
    }

    fn no_such(&self, name: &str) -> Refused {
        match names::region(&self.view.policy, name) {
            Err(refused) => refused,
            Ok(_) => unreachable!("every region of the policy has its answers"),
        }
    }
}

fn once(
    answer: &OnceLock<Written>,
    write: impl FnOnce() -> Result<Written, Refused>,
) -> Result<Written, Refused> {
    if let Some(written) = answer.get() {
        return Ok(written.clone());
    }
    write().map(|written| answer.get_or_init(|| written).clone())
}
