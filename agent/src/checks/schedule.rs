//! When each check is due. [pure]
//!
//! Every agent begins at a random moment within the interval and strays from it by up to a tenth each time, so that the
//! questions of many agents neither come at once nor fall into step. No check is asked again before it was answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use leeward_common::wire::v1;
use tokio::time::Instant;

use super::{Key, key};
use crate::random::Random;

/// The shortest interval, whatever is asked for.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// When each check is due.
#[derive(Debug)]
pub(super) struct Schedule {
    random: Random,
    checks: BTreeMap<Key, Arc<v1::Check>>,
    due: BTreeSet<(Instant, Key)>,
    /// When those that are being asked were begun.
    begun: BTreeMap<Key, (Instant, Arc<v1::Check>)>,
}

impl Schedule {
    pub(super) const fn new(random: Random) -> Self {
        Self {
            random,
            checks: BTreeMap::new(),
            due: BTreeSet::new(),
            begun: BTreeMap::new(),
        }
    }

    /// Takes over what to ask. What was asked before keeps its moment; what is new gets one within its interval.
    pub(super) fn adopt(&mut self, now: Instant, checks: &BTreeMap<Key, Arc<v1::Check>>) {
        let stays = |key: &Key| self.checks.get(key) == checks.get(key);
        self.due
            .retain(|(_, key)| stays(key) && checks.contains_key(key));
        let kept: BTreeSet<Key> = self.due.iter().map(|(_, key)| key.clone()).collect();
        for (key, check) in checks {
            if kept.contains(key) || self.begun.contains_key(key) {
                continue;
            }
            let wait = self.within(interval(check));
            self.due.insert((now + wait, key.clone()));
        }
        self.checks.clone_from(checks);
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The one that is due, which is being asked from now on.
    pub(super) fn take(&mut self, now: Instant) -> Option<Arc<v1::Check>> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        let check = self.checks.get(&key)?.clone();
        self.begun.insert(key, (now, check.clone()));
        Some(check)
    }

    /// A check was answered. Returns whether that is still what is to be asked.
    pub(super) fn on_done(&mut self, now: Instant, check: &v1::Check) -> bool {
        let key = key(check);
        let began = self.begun.remove(&key).map_or(now, |(at, _)| at);
        let Some(current) = self.checks.get(&key).cloned() else {
            return false;
        };
        if *current != *check {
            self.due.insert((now, key));
            return false;
        }
        let interval = interval(check);
        let wait = interval - interval / 10 + self.within(interval / 5);
        self.due.insert((now.max(began + wait), key));
        true
    }

    /// A random part of a span.
    fn within(&mut self, span: Duration) -> Duration {
        let us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(self.random.draw() % us)
    }
}

fn interval(check: &v1::Check) -> Duration {
    Duration::from_micros(check.interval_us).clamp(INTERVAL_MIN, Duration::from_secs(3_600))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn check(name: &str, question: u64) -> Arc<v1::Check> {
        Arc::new(v1::Check {
            service: "s".parse().unwrap(),
            check: name.parse().unwrap(),
            region: "r".parse().unwrap(),
            question,
            url: "tcp://192.0.2.1:1".to_owned(),
            status: [200, 299],
            body: None,
            timeout_us: 1_000_000,
            interval_us: 10_000_000,
        })
    }

    fn plan(checks: &[Arc<v1::Check>]) -> BTreeMap<Key, Arc<v1::Check>> {
        checks.iter().map(|own| (key(own), own.clone())).collect()
    }

    #[test]
    fn a_check_is_asked_once_per_interval_give_or_take_a_tenth_and_never_twice_at_once() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Random::default());
        schedule.adopt(start, &plan(&[check("a", 1)]));
        let mut at = schedule.next().unwrap();
        assert!(at < start + SECOND * 10);
        for _ in 0..100 {
            let taken = schedule.take(at).unwrap();
            assert_eq!(
                (schedule.next(), schedule.take(at + SECOND * 60)),
                (None, None)
            );
            assert!(schedule.on_done(at + SECOND, &taken));
            let next = schedule.next().unwrap();
            assert!(
                (SECOND * 9..=SECOND * 11).contains(&(next - at)),
                "{:?}",
                next - at
            );
            at = next;
        }
    }

    #[test]
    fn what_stays_keeps_its_moment_and_what_is_no_more_is_forgotten() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Random::default());
        schedule.adopt(start, &plan(&[check("a", 1), check("b", 1)]));
        let before = schedule.due.clone();
        schedule.adopt(start + SECOND, &plan(&[check("a", 1), check("c", 1)]));
        let named = |schedule: &Schedule, name: &str| {
            let mut all = schedule.due.iter();
            all.find(|(_, key)| key.2.as_str() == name).cloned()
        };
        assert!(before.contains(&named(&schedule, "a").unwrap()));
        assert_eq!(named(&schedule, "b"), None);
        assert!(named(&schedule, "c").is_some());
    }

    #[test]
    fn an_answer_to_what_is_not_asked_any_more_does_not_count() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Random::default());
        schedule.adopt(start, &plan(&[check("a", 1)]));
        let later = start + SECOND * 10;
        let old = schedule.take(later).unwrap();
        schedule.adopt(later, &plan(&[check("a", 2)]));
        assert_eq!(schedule.next(), None, "it is still being asked");
        assert!(!schedule.on_done(later, &old));
        assert_eq!(
            schedule.next(),
            Some(later),
            "the new question is asked at once"
        );
        let new = schedule.take(later).unwrap();
        schedule.adopt(later, &BTreeMap::new());
        assert!(!schedule.on_done(later, &new));
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn no_interval_is_shorter_than_a_second() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Random::default());
        let mut hasty = (*check("a", 1)).clone();
        hasty.interval_us = 0;
        schedule.adopt(start, &plan(&[Arc::new(hasty)]));
        let taken = schedule.take(start + SECOND).unwrap();
        assert!(schedule.on_done(start + SECOND, &taken));
        assert!(schedule.next().unwrap() >= start + SECOND + SECOND * 9 / 10);
    }
}
