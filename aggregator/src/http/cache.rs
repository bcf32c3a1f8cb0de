//! The failover answers of one view, each written at most once.
//!
//! Answers are asked for far more often than views are published. So the first question about a primary writes the
//! answer and all later ones get its bytes, until the view is replaced or [`FRESH`] has passed: ages are part of an
//! answer and must not stand still while views do.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use leeward_common::{id::RegionId, time::Timestamp};
use leeward_engine::view::View;

use super::answer::Written;

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
    answers: BTreeMap<RegionId, OnceLock<Written>>,
}

impl Cache {
    /// The page of this view.
    pub(super) fn page(&self, view: &Arc<View>, now: Timestamp) -> Arc<Page> {
        if let Some(page) = &*self.0.load()
            && page.serves(view, now)
        {
            return Arc::clone(page);
        }
        let answers = view
            .policy
            .regions
            .keys()
            .map(|region| (region.clone(), OnceLock::new()))
            .collect();
        let page = Arc::new(Page {
            view: Arc::clone(view),
            at: now,
            answers,
        });
        // Two questions at once may each make a page; the later one stays and the earlier one is still right.
        self.0.store(Some(Arc::clone(&page)));
        page
    }
}

impl Page {
    /// The view that the answers are from.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// The time that the answers are from.
    pub(super) fn at(&self) -> Timestamp {
        self.at
    }

    /// The answer about a region of the view, written by `write` if nobody asked before.
    pub(super) fn answer<E>(
        &self,
        region: &str,
        write: impl FnOnce() -> Result<Written, E>,
    ) -> Option<Result<Written, E>> {
        let answer = self.answers.get(region)?;
        if let Some(written) = answer.get() {
            return Some(Ok(written.clone()));
        }
        Some(write().map(|written| answer.get_or_init(|| written).clone()))
    }

    fn serves(&self, view: &Arc<View>, now: Timestamp) -> bool {
        Arc::ptr_eq(&self.view, view) && self.at <= now && now.since(self.at) < FRESH
    }
}
