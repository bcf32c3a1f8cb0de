//! The end of a window: what routing did to each watched prefix in it.

use std::{collections::BTreeSet, mem, time::Duration};

use leeward_common::{
    bgp::{NAMED_MAX, PrefixWindow, Sight},
    time::Timestamp,
};

use super::{
    super::{prefix::Standing, update::Family},
    Counting, Observer, STUCK_AFTER, prefix,
};

impl Observer {
    /// Ends the window: what routing did to each watched prefix since `start`, in the order of the watch-list.
    pub fn close_window(&mut self, now: Timestamp, start: Timestamp) -> Vec<PrefixWindow> {
        self.close_window_keeping(now, start, |_| true)
    }

    /// The same, but only those to be kept: most windows of ten thousand prefixes say nothing.
    pub fn close_window_keeping(
        &mut self,
        now: Timestamp,
        start: Timestamp,
        mut keep: impl FnMut(&PrefixWindow) -> bool,
    ) -> Vec<PrefixWindow> {
        self.pass(now);
        let feeds = Family::ALL.map(|family| self.counting_feeds(family));
        (0..self.followed.len())
            .map(|place| self.window(now, start, place, &feeds))
            .filter(|window| keep(window))
            .collect()
    }

    /// Who sees a prefix now.
    pub(super) fn sight(&self, now: Timestamp, place: usize, feeds: &Counting) -> Sight {
        let mut sight = Sight {
            unsure: self.unsure(now, place, feeds),
            ..Sight::default()
        };
        let (mut gone_sources, mut collectors) = (BTreeSet::new(), BTreeSet::new());
        for (known, route) in self.counting(place, feeds) {
            if let Some(collector) = known.feed.view.collector().copied() {
                match route.standing(known.epoch) {
                    Standing::Unknown => {}
                    Standing::Present => sight.outside.visible += 1,
                    Standing::Withdrawn => {
                        sight.outside.gone += 1;
                        collectors.insert(collector);
                    }
                }
                continue;
            }
            match route.standing(known.epoch) {
                Standing::Unknown => {}
                Standing::Present if route.is_stuck => sight.stuck += 1,
                Standing::Present => sight.visible += 1,
                Standing::Withdrawn => {
                    sight.gone += 1;
                    gone_sources.insert(known.feed.source);
                }
            }
        }
        sight.gone_sources = u32::try_from(gone_sources.len()).unwrap_or(u32::MAX);
        sight.outside.collectors = u32::try_from(collectors.len()).unwrap_or(u32::MAX);
        sight
    }

    fn window(
        &mut self,
        now: Timestamp,
        start: Timestamp,
        place: usize,
        feeds: &[Counting; 2],
    ) -> PrefixWindow {
        let feeds = &feeds[Family::of(&self.watchlist.all()[place].prefix) as usize];
        self.mark_stuck(now, place, feeds);
        let (validities, leaks) = self.signs(now, place, feeds);
        let tally = mem::take(&mut self.followed[place].tally);
        let watched = &self.watchlist.all()[place];
        let mut window = PrefixWindow {
            prefix: prefix(&watched.prefix),
            region: watched.region.clone(),
            start,
            span_us: u64::try_from(now.since(start).as_micros()).unwrap_or(u64::MAX),
            counts: tally.counts,
            longer_max: tally.longer,
            edit_distance_max: tally.edit_distance,
            exploration_max: tally.exploration,
            penalty_fast: 0,
            penalty_slow: 0,
            origins: Vec::new(),
            more_specifics: tally.more_specifics,
            blackholed: false,
            shutting_down: false,
            sight: self.sight(now, place, feeds),
            validities,
            leaks,
            over_failed_link: self.is_over_failed_link(place),
            learned: self.watchlist.is_learned(place),
        };
        let mut origins = BTreeSet::new();
        for (known, route) in self.counting(place, feeds) {
            let is_outside = known.feed.view.collector().is_some();
            if !is_outside {
                let (fast, slow) = route.penalties(now);
                window.penalty_fast = window.penalty_fast.max(fast as u32);
                window.penalty_slow = window.penalty_slow.max(slow as u32);
            }
            if route.standing(known.epoch) == Standing::Present
                && let Some(attributes) = route.attributes()
            {
                origins.extend(attributes.path.origin());
                // Wherever that is asked for elsewhere, it is not here.
                if is_outside {
                    continue;
                }
                window.blackholed |= attributes.blackholed;
                window.shutting_down |= attributes.shutting_down;
            }
        }
        window.origins = origins.into_iter().take(NAMED_MAX).collect();
        window
    }

    /// Routes that stayed when most others went, long ago (as in the incident of 2020-08-30 around AS3356).
    fn mark_stuck(&mut self, now: Timestamp, place: usize, feeds: &Counting) {
        let (mut gone, mut present, mut gone_for) = (0, Vec::new(), Duration::MAX);
        for (known, route) in self.counting(place, feeds) {
            match route.standing(known.epoch) {
                _ if known.feed.view.collector().is_some() => {}
                Standing::Unknown => {}
                Standing::Present => present.push((known.number, route.since())),
                Standing::Withdrawn => {
                    gone += 1;
                    gone_for = gone_for.min(now.since(route.since()));
                }
            }
        }
        if gone < 2 || gone < present.len() || gone_for < STUCK_AFTER {
            return;
        }
        let followed = &mut self.followed[place];
        for (number, since) in present {
            // A route that came after the others went is news, not a remainder.
            if now.since(since) > gone_for
                && let Some(route) = followed.routes.get_mut(number)
            {
                route.is_stuck = true;
            }
        }
    }
}
