//! The thread that measures bandwidth, one link at a time.
//!
//! A thread of its own, that steps back behind the others: a train must never hold up a probe. It measures what was ordered
//! first, else the link whose last estimate is the oldest, whenever the budget holds a whole estimate. One link at a
//! time means that no two measurements share this host's uplink. It ends when its handle is dropped.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use leeward_common::{
    finding::{
        Declined, Finding,
        bandwidth::{Bandwidth, Name},
    },
    id::{RegionId, TargetId},
    report::ProbeKind,
    time::{Clock as _, SystemClock},
};
use tokio::sync::mpsc;
use tracing::{debug, info};

use super::{
    budget::Budget,
    exchange::{Exchange, rest},
    heavy,
    survey::{self, Survey},
};
use crate::{
    net::{clock::monotonic_ns, wake},
    probe::stamp::Key,
    prober::{Family, PlannedPath},
    random::Random,
};

/// Orders that wait. One beyond it is declined.
const ORDERS_MAX: usize = 8;
/// An order that the budget makes wait for longer is declined; it would be forgotten by who gave it.
const WAIT_MAX: Duration = Duration::from_secs(20 * 60);
/// After a link that did not answer, others come first, and it for this long not at all.
const UNANSWERED_FOR: Duration = Duration::from_secs(600);

/// How bandwidth is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Whether links are measured without an order.
    pub measure: bool,
    /// Bits per second that may be spent on one link, on average.
    pub link_bps: u64,
    /// Bits per second that may be spent on all links together, on average.
    pub uplink_bps: u64,
    /// Whether heavy tests are made and taken.
    pub heavy: bool,
    /// The most that a heavy test sends, bits per second.
    pub heavy_bps: u64,
}

impl Default for Limits {
    /// Two links at once can each get what a whole estimate costs within a quarter of an hour; heavy tests only where the
    /// operator says so.
    fn default() -> Self {
        Self {
            measure: true,
            link_bps: 16_000,
            uplink_bps: 64_000,
            heavy: false,
            heavy_bps: 500_000_000,
        }
    }
}

/// A link that may be measured: a target with a reflector, which the plan probes anyway.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// The target.
    pub target: TargetId,
    /// Where it stands; `None` for an outside target.
    pub region: Option<RegionId>,
    /// Where its reflector answers.
    pub address: SocketAddr,
}

/// The links that a plan has.
#[must_use]
pub fn links(paths: &[PlannedPath]) -> Vec<Link> {
    let link = |own: &PlannedPath| Link {
        target: own.path.target.clone(),
        region: own.path.region.clone(),
        address: SocketAddr::new(own.address, own.port),
    };
    let stamp = paths.iter().filter(|own| own.path.kind == ProbeKind::Stamp);
    let mut links: Vec<_> = stamp.map(link).collect();
    // Several flows to one target are one link.
    links.dedup_by(|a, b| a.target == b.target);
    links
}

/// Something to measure now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SurveyErrand {
    /// The order's number.
    pub order: u64,
    /// The target.
    pub target: TargetId,
    /// Whether by a heavy test.
    pub heavy: bool,
}

/// What was measured since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SurveyCounters {
    /// Estimates.
    pub estimates: u64,
    /// What they cost, bytes of IP packets, replies included.
    pub bytes: u64,
    /// Heavy tests.
    pub heavy_tests: u64,
    /// What they cost.
    pub heavy_bytes: u64,
    /// Packets that answered nothing.
    pub strays: u64,
}

#[derive(Debug, Default)]
struct Figures {
    estimates: AtomicU64,
    bytes: AtomicU64,
    heavy_tests: AtomicU64,
    heavy_bytes: AtomicU64,
    strays: AtomicU64,
}

/// What the thread is asked for.
#[derive(Debug, Default)]
struct Asked {
    links: Option<Vec<Link>>,
    orders: VecDeque<SurveyErrand>,
    stopping: bool,
}

#[derive(Debug, Default)]
struct Shared {
    asked: Mutex<Asked>,
    changed: Condvar,
    figures: Figures,
    newest: Mutex<Newest>,
}

/// The newest of each quantity of each link that is to be trusted, bits per second.
pub type Newest = BTreeMap<(TargetId, Name), u64>;

impl Shared {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn newest(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the thread. Dropping it ends the thread after the train under way.
#[derive(Debug)]
pub struct Surveyor {
    shared: Arc<Shared>,
    heavy: bool,
    measures: bool,
    thread: Option<JoinHandle<()>>,
}

impl Surveyor {
    /// Starts the thread; it knows no links yet. What it finds goes to `found`.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal of a thread or of sockets.
    pub fn start(
        limits: Limits,
        key: Option<Key>,
        found: mpsc::Sender<Finding>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let v4 = Exchange::open(Family::V4, key.clone());
        let v6 = Exchange::open(Family::V6, key);
        if let (Err(error), Err(_)) = (&v4, &v6) {
            return Err(io::Error::new(error.kind(), error.to_string()));
        }
        let work = Work {
            shared: Arc::clone(&shared),
            limits,
            found,
            exchanges: [v4.ok(), v6.ok()],
            budget: Budget::new(monotonic_ns(), limits.link_bps, limits.uplink_bps),
            links: Vec::new(),
            measured_ns: BTreeMap::new(),
            heavy_ns: None,
            random: Random::default(),
        };
        let thread = std::thread::Builder::new()
            .name("bandwidth".to_owned())
            .spawn(move || work.run())?;
        Ok(Self {
            shared,
            heavy: limits.heavy,
            measures: limits.link_bps > 0 && limits.uplink_bps > 0,
            thread: Some(thread),
        })
    }

    /// Replaces the links.
    pub fn set_links(&self, links: Vec<Link>) {
        self.shared.asked().links = Some(links);
        self.shared.changed.notify_one();
    }

    /// Hands an order over.
    ///
    /// # Errors
    ///
    /// Returns why it is declined.
    pub fn order(&self, errand: SurveyErrand) -> Result<(), &'static str> {
        if errand.heavy && !self.heavy {
            return Err("this agent's file allows no heavy tests (bandwidth.heavy)");
        }
        if !errand.heavy && !self.measures {
            return Err(
                "this agent's file allows nothing to be spent on bandwidth (bandwidth.link_kbit_per_second)",
            );
        }
        let mut asked = self.shared.asked();
        if asked.orders.len() >= ORDERS_MAX {
            return Err("too many measurements wait already; try again later");
        }
        asked.orders.push_back(errand);
        drop(asked);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// The newest estimates.
    #[must_use]
    pub fn newest(&self) -> Newest {
        self.shared.newest().clone()
    }

    /// Counts so far.
    #[must_use]
    pub fn counters(&self) -> SurveyCounters {
        let figures = &self.shared.figures;
        SurveyCounters {
            estimates: figures.estimates.load(Relaxed),
            bytes: figures.bytes.load(Relaxed),
            heavy_tests: figures.heavy_tests.load(Relaxed),
            heavy_bytes: figures.heavy_bytes.load(Relaxed),
            strays: figures.strays.load(Relaxed),
        }
    }
}

impl Drop for Surveyor {
    fn drop(&mut self) {
        self.shared.asked().stopping = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that measures bandwidth panicked");
        }
    }
}

/// What the thread owns.
struct Work {
    shared: Arc<Shared>,
    limits: Limits,
    found: mpsc::Sender<Finding>,
    exchanges: [Option<Exchange>; 2],
    budget: Budget,
    links: Vec<Link>,
    /// When each link may be measured again without an order, and in which order: the longest ago first.
    measured_ns: BTreeMap<TargetId, u64>,
    heavy_ns: Option<u64>,
    random: Random,
}

/// What to do next.
enum Next {
    Measure(Link, Option<SurveyErrand>),
    Decline(SurveyErrand, String),
    Wait(Duration),
}

impl Work {
    fn run(mut self) {
        wake::step_back();
        wake::sharpen_timers();
        while self.listen() {
            match self.next() {
                Next::Wait(span) => self.wait(span),
                Next::Decline(errand, reason) => {
                    let order = errand.order;
                    self.tell(Finding::Declined(Declined { order, reason }));
                }
                Next::Measure(link, errand) => self.measure(&link, errand),
            }
        }
    }

    /// Takes over new links; tells whether to go on.
    fn listen(&mut self) -> bool {
        let mut asked = self.shared.asked();
        let (links, stopping) = (asked.links.take(), asked.stopping);
        drop(asked);
        if let Some(mut links) = links {
            links.retain(|link| self.exchanges[usize::from(link.address.is_ipv6())].is_some());
            let now_ns = monotonic_ns();
            let targets = links.iter().map(|link| link.target.clone());
            self.budget.set_links(now_ns, targets.clone());
            let known: std::collections::BTreeSet<_> = targets.collect();
            self.measured_ns.retain(|target, _| known.contains(target));
            let mut newest = self.shared.newest();
            newest.retain(|(target, _), _| known.contains(target));
            drop(newest);
            self.links = links;
        }
        !stopping
    }

    fn wait(&self, span: Duration) {
        let asked = self.shared.asked();
        if asked.links.is_none() && asked.orders.is_empty() && !asked.stopping {
            drop(self.shared.changed.wait_timeout(asked, span));
        } else if asked.links.is_none() && !asked.stopping {
            // Only a budget or a pause is waited for.
            drop(
                self.shared
                    .changed
                    .wait_timeout(asked, span.min(Duration::from_secs(1))),
            );
        }
    }

    fn next(&mut self) -> Next {
        let now_ns = monotonic_ns();
        let ordered = self.shared.asked().orders.pop_front();
        if let Some(errand) = ordered {
            return self.ordered(now_ns, errand);
        }
        if !self.limits.measure {
            return Next::Wait(Duration::from_secs(60));
        }
        let age = |link: &&Link| self.measured_ns.get(&link.target).copied().unwrap_or(0);
        let Some(link) = self
            .links
            .iter()
            .filter(|own| age(own) <= now_ns)
            .min_by_key(age)
        else {
            return Next::Wait(Duration::from_secs(10));
        };
        let link = link.clone();
        match self.wait_for(now_ns, &link.target) {
            Some(0) => Next::Measure(link, None),
            Some(ns) => Next::Wait(Duration::from_nanos(ns).min(Duration::from_secs(60))),
            None => Next::Wait(Duration::from_secs(60)),
        }
    }

    fn wait_for(&mut self, now_ns: u64, target: &TargetId) -> Option<u64> {
        self.budget.wait_ns(now_ns, target, survey::BYTES_MAX)
    }

    fn ordered(&mut self, now_ns: u64, errand: SurveyErrand) -> Next {
        let Some(link) = self
            .links
            .iter()
            .find(|own| own.target == errand.target)
            .cloned()
        else {
            let reason = format!(
                "this agent does not probe {} by stamp, which bandwidth needs",
                errand.target
            );
            return Next::Decline(errand, reason);
        };
        if errand.heavy {
            let since = self
                .heavy_ns
                .map(|last| Duration::from_nanos(now_ns - last));
            return match since.filter(|since| *since < heavy::APART) {
                None => Next::Measure(link, Some(errand)),
                Some(since) => {
                    let left = (heavy::APART - since).as_secs() + 1;
                    Next::Decline(
                        errand,
                        format!("heavy tests are a minute apart; try again in {left} s"),
                    )
                }
            };
        }
        match self.wait_for(now_ns, &errand.target) {
            Some(0) => Next::Measure(link, Some(errand)),
            Some(ns) if Duration::from_nanos(ns) <= WAIT_MAX => {
                self.shared.asked().orders.push_front(errand);
                Next::Wait(Duration::from_nanos(ns))
            }
            ns => {
                let saved = ns.map_or("never holds".to_owned(), |ns| {
                    format!("holds in {} s", ns / 1_000_000_000 + 1)
                });
                let reason =
                    format!("this agent's budget for bandwidth {saved} what an estimate may cost");
                Next::Decline(errand, reason)
            }
        }
    }

    fn exchange(&mut self, address: IpAddr) -> Option<&mut Exchange> {
        self.exchanges[usize::from(address.is_ipv6())].as_mut()
    }

    fn measure(&mut self, link: &Link, errand: Option<SurveyErrand>) {
        let began_ns = monotonic_ns();
        let order = errand.as_ref().map(|own| own.order);
        let strays = self.strays();
        let found = match errand.is_some_and(|own| own.heavy) {
            true => self.load(link),
            false => self.survey(link),
        };
        let strays = self.strays() - strays;
        self.shared.figures.strays.fetch_add(strays, Relaxed);
        let Some(found) = found else { return };
        let took_us = (monotonic_ns() - began_ns) / 1_000;
        let bandwidth = Bandwidth {
            order,
            took_us,
            ..found
        };
        for (name, own) in bandwidth.quantities() {
            let key = (link.target.clone(), name);
            let mut newest = self.shared.newest();
            match own.doubt {
                None => drop(newest.insert(key, own.bps)),
                Some(_) => drop(newest.remove(&key)),
            }
        }
        debug!(target = %link.target, bytes = bandwidth.bytes, took_us, "bandwidth measured");
        self.tell(Finding::Bandwidth(Box::new(bandwidth)));
    }

    fn strays(&self) -> u64 {
        self.exchanges.iter().flatten().map(Exchange::strays).sum()
    }

    /// Train by train; `None` when the agent stops meanwhile.
    fn survey(&mut self, link: &Link) -> Option<Bandwidth> {
        let reply_bytes = self.exchange(link.address.ip())?.reply_bytes(link.address);
        let mut survey = Survey::new(reply_bytes);
        let mut out_of_budget = false;
        while let Some(train) = survey.next() {
            if self.shared.asked().stopping {
                return None;
            }
            let cost = survey.cost(&train);
            if !self.budget.take(monotonic_ns(), &link.target, cost) {
                out_of_budget = true;
                break;
            }
            let read = self.exchange(link.address.ip())?.pass(link.address, &train);
            survey.on_train(&train, read);
            let draw = (self.random.draw() >> 11) as f64 / (1u64 << 53) as f64;
            rest(survey.rest(&train, draw));
        }
        let figures = &self.shared.figures;
        figures.estimates.fetch_add(1, Relaxed);
        figures.bytes.fetch_add(survey.spent(), Relaxed);
        let mut outcome = survey.conclude();
        if out_of_budget {
            outcome.note = "the budget was used up before the end".to_owned();
        }
        let pause = match outcome.capacity_upper {
            Some(_) => Duration::ZERO,
            None => UNANSWERED_FOR,
        };
        let again_ns = monotonic_ns() + pause.as_nanos() as u64;
        self.measured_ns.insert(link.target.clone(), again_ns);
        Some(Bandwidth {
            target: link.target.clone(),
            region: link.region.clone(),
            at: SystemClock.now(),
            order: None,
            heavy: false,
            capacity_upper: outcome.capacity_upper,
            available_est: outcome.available_est,
            goodput_seen: None,
            bytes: survey.spent(),
            took_us: 0,
            note: outcome.note,
        })
    }

    /// By a heavy test.
    fn load(&mut self, link: &Link) -> Option<Bandwidth> {
        info!(target = %link.target, "heavy test begins");
        let most_bps = self.limits.heavy_bps;
        let (load, bytes) = self
            .exchange(link.address.ip())?
            .load(link.address, most_bps);
        if load.is_some() {
            self.heavy_ns = Some(monotonic_ns());
        }
        let figures = &self.shared.figures;
        figures.heavy_tests.fetch_add(1, Relaxed);
        figures.heavy_bytes.fetch_add(bytes, Relaxed);
        let (goodput, note) = match load {
            None => (
                None,
                "the other agent does not answer, or takes no heavy tests (bandwidth.heavy in its file)",
            ),
            Some(load) => match load.goodput(bytes) {
                None => (None, "too little came through to tell"),
                some => (some, ""),
            },
        };
        info!(target = %link.target, bytes, "heavy test ended");
        Some(Bandwidth {
            target: link.target.clone(),
            region: link.region.clone(),
            at: SystemClock.now(),
            order: None,
            heavy: true,
            capacity_upper: None,
            available_est: None,
            goodput_seen: goodput,
            bytes,
            took_us: 0,
            note: note.to_owned(),
        })
    }

    /// When nobody listens any more the agent stops.
    fn tell(&self, finding: Finding) {
        let _ = self.found.blocking_send(finding);
    }
}
