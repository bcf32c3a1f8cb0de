//! From what routers say to a score: the agent's own observer and a real engine.
//!
//! Whatever befalls feeds, no score moves; and a withdrawal that is meant moves one.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use leeward_agent::bgp::{
    observer::{Authorizations, Observer},
    peer::{Down, Event, Feed, View, end_of_table},
    rpki::{self, Roas},
    update::{AsPath, Attributes, Family, Nlri, Update},
    watch::{Watched, Watchlist},
};
use leeward_common::{bgp::Routing, finding::Finding, id::RegionId, time::Timestamp};
use leeward_engine::{
    Engine,
    effect::Effect,
    input::{Findings, Input},
    policy::RoutingRules,
    routing::Observers,
    scenario::Scenario,
    select::Ranking,
    simulate,
};
use proptest::prelude::*;

const WORLD: &str = r#"
name = "a world that is well"
seed = 1
duration = "3s"

[[region]]
id = "a"
latitude = 0.0
longitude = 0.0

[[region]]
id = "b"
latitude = 0.0
longitude = 10.0

[[region]]
id = "c"
latitude = 0.0
longitude = 20.0

[[link]]
between = ["a", "b"]
rtt = "20ms"

[[link]]
between = ["a", "c"]
rtt = "30ms"

[[link]]
between = ["b", "c"]
rtt = "20ms"
"#;

/// What `b` and `c` are reached by; nobody announces the last two.
const WATCHED: [(&str, &str); 4] = [
    ("198.51.100.0/24", "b"),
    ("203.0.113.0/24", "c"),
    ("192.0.2.0/25", "b"),
    ("192.0.2.128/25", "b"),
];

/// Who announces them.
const ORIGIN: u32 = 64_500;

const STEP: Duration = Duration::from_millis(50);

/// What befalls a feed, what is known of authorizations, or what is looked for.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Its session, or the router that it comes from, is lost.
    Lost,
    /// Its session comes up, and its table is transferred: with other paths, and with withdrawals before its end.
    Restarted { whole: bool, withdrawing: bool },
    /// Its session comes up with an empty table.
    Empty,
    /// It is asked for its table once more.
    Repeated,
    /// It withdraws what it never announced.
    Fabricating { times: u8 },
    /// Nothing, for so many seconds; a window ends.
    Quiet(u16),
    /// The cache that knows who may announce what is lost.
    CacheLost,
    /// It is back after it was lost, and says the same, or by now that nobody may announce anything.
    CacheBack { nobody: bool },
    /// It sends its whole set once more.
    CacheRepeated,
    /// All is watched, or all but the first prefix; who announced what is watched anew says so once more.
    Watched { all: bool },
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        Just(Trouble::Lost),
        any::<(bool, bool)>()
            .prop_map(|(whole, withdrawing)| Trouble::Restarted { whole, withdrawing }),
        Just(Trouble::Empty),
        Just(Trouble::Repeated),
        (1u8..6).prop_map(|times| Trouble::Fabricating { times }),
        (1u16..700).prop_map(Trouble::Quiet),
        Just(Trouble::CacheLost),
        any::<bool>().prop_map(|nobody| Trouble::CacheBack { nobody }),
        Just(Trouble::CacheRepeated),
        any::<bool>().prop_map(|all| Trouble::Watched { all }),
    ]
}

fn feed(n: usize) -> Feed {
    let source = [10, 0, 0, 1 + n as u8].into();
    let view = [
        View::Session,
        View::PostPolicy,
        View::PrePolicy,
        View::LocRib,
    ][n];
    Feed::session(source).viewed(view)
}

fn nlri(place: usize) -> Nlri {
    Nlri {
        prefix: WATCHED[place].0.parse().unwrap(),
        path_id: 0,
    }
}

fn announce(path: &[u32]) -> Event {
    Event::Update(Update {
        announced: vec![nlri(0), nlri(1)],
        attributes: Arc::new(Attributes {
            path: AsPath::sequence(path),
            ..Attributes::default()
        }),
        ..Update::default()
    })
}

fn withdraw(places: &[usize]) -> Event {
    Event::Update(Update {
        withdrawn: places.iter().map(|place| nlri(*place)).collect(),
        ..Update::default()
    })
}

fn watchlist(from: usize) -> Watchlist {
    let mut watchlist = Watchlist::default();
    for (prefix, region) in &WATCHED[from..] {
        let region = region.parse().unwrap();
        let watched = Watched::new(prefix.parse().unwrap(), region, BTreeSet::new());
        watchlist.add(watched).unwrap();
    }
    watchlist
}

/// All that is announced may be, or nothing of it.
fn authorizations(system: u32) -> Authorizations {
    let mut change = rpki::Change::default();
    for (prefix, _) in WATCHED {
        let prefix = prefix.parse().unwrap();
        change
            .push(rpki::Action::Announce, &prefix, 25, system)
            .unwrap();
    }
    Authorizations::Known(Arc::new(change.apply(&Roas::default()).unwrap()))
}

/// An agent of region `a` with four feeds, and an engine that it tells what it hears.
struct Rig {
    observer: Observer,
    engine: Engine,
    /// The engine's time; the agent's clock is `heard`.
    now: Timestamp,
    heard: Timestamp,
    window: Timestamp,
    up: [bool; 4],
    /// What each announced last.
    said: [Update; 4],
    /// Whether authorizations are known, and to whom they are issued.
    is_cached: bool,
    issued_to: u32,
    decisions: usize,
}

impl Rig {
    fn new(settled: &(Engine, Timestamp)) -> Self {
        let (engine, now) = settled.clone();
        let mut rig = Self {
            observer: Observer::new(watchlist(0)),
            engine,
            now,
            heard: now,
            window: now,
            up: [true; 4],
            said: [(); 4].map(|()| Update::default()),
            is_cached: true,
            issued_to: ORIGIN,
            decisions: 0,
        };
        rig.observer.authorize(now, authorizations(ORIGIN));
        for n in 0..4 {
            rig.table(n, &[64_501 + n as u32, ORIGIN], true);
        }
        rig.pass(60);
        rig.tell();
        rig
    }

    fn on(&mut self, n: usize, event: &Event) {
        self.heard = self.heard + Duration::from_millis(1);
        self.observer.on(self.heard, &feed(n), event);
        if let Event::Update(update) = event
            && !update.announced.is_empty()
        {
            self.said[n] = update.clone();
        }
    }

    fn table(&mut self, n: usize, path: &[u32], ends: bool) {
        self.on(n, &Event::Up { system: path[0] });
        self.on(n, &announce(path));
        if ends {
            self.on(n, &end_of_table(Family::V4));
        }
    }

    /// A feed says all once more: a session is asked, a stream begins anew.
    fn again(&mut self, n: usize) {
        if n > 0 {
            self.on(n, &Event::Down(Down::SourceLost));
            self.on(n, &Event::Up { system: 64_501 });
        }
        let said = self.said[n].clone();
        self.on(n, &Event::Update(said));
        if n > 0 {
            self.on(n, &end_of_table(Family::V4));
        }
    }

    fn pass(&mut self, secs: u16) {
        for _ in 0..secs.div_ceil(10) {
            self.heard = self.heard + Duration::from_secs(10);
            self.observer.pass(self.heard);
        }
    }

    fn befall(&mut self, n: usize, trouble: Trouble) {
        match trouble {
            Trouble::Lost => {
                self.on(n, &Event::Down(Down::SourceLost));
                self.up[n] = false;
            }
            Trouble::Restarted { whole, withdrawing } => {
                self.on(n, &Event::Up { system: 64_501 });
                self.on(n, &announce(&[64_501, 64_999, 64_998, ORIGIN]));
                if withdrawing {
                    self.on(n, &withdraw(&[0, 1]));
                    self.on(n, &announce(&[64_501, 64_997, ORIGIN]));
                }
                if whole {
                    self.on(n, &end_of_table(Family::V4));
                }
                self.up[n] = true;
            }
            Trouble::Empty => {
                self.on(n, &Event::Up { system: 64_501 });
                self.on(n, &end_of_table(Family::V4));
                self.up[n] = true;
                // Which it says once more when it is asked.
                self.said[n] = Update::default();
            }
            // An agent knows what it was told; only a session that is up can repeat it.
            Trouble::Repeated if self.up[n] => {
                self.on(n, &Event::Up { system: 64_501 });
                for _ in 0..3 {
                    self.on(n, &announce(&[64_501, ORIGIN]));
                }
            }
            Trouble::Fabricating { times } if self.up[n] => {
                for time in 0..times {
                    self.on(n, &withdraw(&[2 + usize::from(time % 2)]));
                }
            }
            Trouble::Repeated | Trouble::Fabricating { .. } => {}
            Trouble::CacheLost => {
                self.is_cached = false;
                self.observer.authorize(self.heard, Authorizations::Unknown);
            }
            Trouble::CacheBack { nobody } if !self.is_cached => {
                self.is_cached = true;
                self.issued_to = if nobody { 0 } else { ORIGIN };
                self.observer
                    .authorize(self.heard, authorizations(self.issued_to));
            }
            Trouble::CacheRepeated if self.is_cached => {
                self.observer
                    .authorize(self.heard, authorizations(self.issued_to));
            }
            Trouble::CacheBack { .. } | Trouble::CacheRepeated => {}
            Trouble::Watched { all } => {
                if self.observer.follow(watchlist(usize::from(!all))) {
                    for n in (0..4).filter(|n| self.up[*n]).collect::<Vec<_>>() {
                        self.again(n);
                    }
                }
            }
            Trouble::Quiet(secs) => {
                self.pass(secs);
                let windows = self.observer.close_window(self.heard, self.window);
                self.window = self.heard;
                let feeds = self.observer.feeds();
                self.hand_on(Routing {
                    windows,
                    feeds,
                    ..Routing::default()
                });
            }
        }
        self.tell();
    }

    fn tell(&mut self) {
        let events = self.observer.take_events();
        self.hand_on(Routing {
            events,
            ..Routing::default()
        });
    }

    fn hand_on(&mut self, routing: Routing) {
        let findings = Findings {
            agent: "a-1".parse().unwrap(),
            region: "a".parse().unwrap(),
            findings: vec![Finding::Routing(Box::new(routing))],
        };
        self.step(&Input::Findings(findings));
    }

    fn step(&mut self, input: &Input) {
        let effects = self.engine.step(self.now, input);
        let decided = effects.into_iter().filter_map(Effect::decision);
        self.decisions += decided.count();
    }

    /// The next evaluation.
    fn evaluate(&mut self) -> Ranking {
        self.now = self.now + STEP;
        self.step(&Input::Tick);
        let a: RegionId = "a".parse().unwrap();
        self.engine.view().ranking(&a)
    }
}

/// An engine that has seen a world that is well, and when.
fn settled() -> (Engine, Timestamp) {
    let scenario = Scenario::parse("world.toml", WORLD).unwrap();
    let mut engine = Engine::new(scenario.policy.clone());
    let mut now = Timestamp::EPOCH;
    simulate::run_with(&scenario, |at, input| {
        engine.step(at, input);
        now = at;
    });
    (engine, now)
}

#[test]
fn in_ten_thousand_cases_of_trouble_no_score_moves() {
    const STEPS: usize = 6;
    let settled = settled();
    // What the scores are while nothing happens: evidence grows old by itself.
    let mut quiet = Rig::new(&settled);
    let scores: Vec<Ranking> = (0..STEPS).map(|_| quiet.evaluate()).collect();
    assert!(scores[0].candidates.iter().all(|own| own.eligible));
    let config = ProptestConfig {
        cases: 10_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let troubles = prop::collection::vec((0usize..4, trouble()), 1..=STEPS);
    proptest!(config, |(troubles in troubles)| {
        let mut rig = Rig::new(&settled);
        for ((n, trouble), as_ever) in troubles.into_iter().zip(&scores) {
            rig.befall(n, trouble);
            prop_assert_eq!(&rig.evaluate(), as_ever, "after {:?} of feed {}", trouble, n);
        }
        prop_assert_eq!(rig.decisions, 0);
    });
}

/// Whatever befell feeds within `lasts`, no single feed takes a way that the others showed; and all of them together do.
#[test]
fn in_ten_thousand_cases_of_trouble_no_other_feeds_withdrawal_leaves_a_region() {
    let settled = settled();
    let config = ProptestConfig {
        cases: 10_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let brief = trouble().prop_map(|trouble| match trouble {
        Trouble::Quiet(secs) => Trouble::Quiet(1 + secs % 40),
        other => other,
    });
    let troubles = prop::collection::vec((0usize..4, brief), 1..=6);
    proptest!(config, |(troubles in troubles, last in 0usize..4)| {
        let mut rig = Rig::new(&settled);
        for (n, trouble) in troubles.iter().copied() {
            rig.befall(n, trouble);
        }
        // What was not watched in between nobody remembers.
        let is_watched = |own: &(usize, Trouble)| !matches!(own.1, Trouble::Watched { .. });
        let regions: &[&str] = if troubles.iter().all(is_watched) { &["b", "c"] } else { &["c"] };
        let withdrawn = |rig: &Rig| {
            let (evidence, a) = (rig.engine.view().routing.clone(), "a".parse().unwrap());
            let is_gone = |region: &&&str| {
                let region = region.parse().unwrap();
                let outlook = evidence.outlook(&RoutingRules::default(), Observers::Region(&a), &region);
                outlook.withdrawn.is_some()
            };
            regions.iter().filter(is_gone).count()
        };
        rig.on(last, &withdraw(&[0, 1]));
        rig.tell();
        rig.evaluate();
        prop_assert_eq!(withdrawn(&rig), 0, "{:?}, then a withdrawal by {}", troubles, last);
        prop_assert_eq!(rig.decisions, 0);
        rig.observer.follow(watchlist(0));
        for n in 0..4 {
            rig.table(n, &[64_501, ORIGIN], true);
        }
        // Of a choice that was larger before it is waited whether there is more.
        rig.befall(0, Trouble::Quiet(400));
        for n in 0..4 {
            rig.on(n, &withdraw(&[0, 1]));
        }
        rig.tell();
        prop_assert_eq!(withdrawn(&rig), regions.len(), "{:?}, then a withdrawal by all", troubles);
    });
}

#[test]
fn a_withdrawal_by_every_feed_moves_the_selection_and_by_one_moves_nothing() {
    let mut rig = Rig::new(&settled());
    for n in 0..4 {
        assert_eq!(rig.decisions, 0, "of {n} feeds");
        rig.on(n, &withdraw(&[0]));
        rig.tell();
        rig.evaluate();
    }
    let view = rig.engine.view();
    let mut decisions = view.decisions.iter().rev();
    let decision = decisions.find(|own| own.primary.as_str() == "a").unwrap();
    assert_eq!(decision.reason.code(), "withdrawn");
    assert!(
        decision.summary.contains("198.51.100.0/24"),
        "{}",
        decision.summary
    );
}
