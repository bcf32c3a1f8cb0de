//! The real router over views of the real engine, which was told what virtual agents reported.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Request, StatusCode, header},
};
use http_body_util::BodyExt;
use leeward_common::{
    api::problem::Problem,
    id::SourceId,
    time::{Clock, Timestamp},
};
use leeward_engine::{
    Engine, input::Input, policy::Policy, scenario::Scenario, simulate, view::View,
};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tower::ServiceExt;

use super::{App, router};
use crate::{
    config::{Api, Role, Token},
    ingest::roster::{Roster, RosterHandle},
    metrics::Metrics,
    shadow::Window,
    shared::{Published, Readiness, Shared, State},
    store::{Store as _, memory::Memory},
    turn::{Arrival, TurnHandle},
};

mod browser;
mod defined;
mod failover;
mod faults;
mod history;
mod network;
mod overview;
mod past;
mod policies;
mod reach;
mod service;
mod signals;
mod sockets;
mod stay;
mod traces;

/// Nothing here takes longer, unless it never ends.
const DEADLINE: Duration = Duration::from_secs(10);

const WORLD: &str = include_str!("world.toml");

/// Before the first report.
const EARLY: f64 = 0.1;
/// All is well.
pub(super) const CALM: f64 = 9.0;
/// Virginia and Oregon lose packets between each other.
const LOSSY: f64 = 19.0;
/// Oregon is down.
const DOWN: f64 = 25.0;

/// What the engine knows `seconds` after the start of the world.
pub(super) fn view(seconds: f64) -> View {
    static STORY: LazyLock<Story> = LazyLock::new(|| Story::of(WORLD));
    STORY.view(seconds)
}

/// Everything that the engine is told in a world.
struct Story {
    policy: Policy,
    inputs: Vec<(Timestamp, Input)>,
}

impl Story {
    fn of(world: &str) -> Self {
        let scenario = Scenario::parse("world.toml", world).unwrap();
        let mut inputs = Vec::new();
        simulate::run_with(&scenario, |at, input| inputs.push((at, input.clone())));
        Self {
            policy: scenario.policy,
            inputs,
        }
    }

    fn view(&self, seconds: f64) -> View {
        let mut engine = Engine::new(self.policy.clone());
        for (then, input) in self
            .inputs
            .iter()
            .take_while(|(then, _)| *then <= at(seconds))
        {
            engine.step(*then, input);
        }
        engine.step(at(seconds), &Input::Tick);
        engine.view()
    }
}

fn at(seconds: f64) -> Timestamp {
    simulate::START + Duration::from_secs_f64(seconds)
}

/// A clock that stands until it is set.
#[derive(Debug)]
struct Hands(AtomicU64);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_us(self.0.load(Ordering::Acquire))
    }
}

/// An aggregator without agents, store and turn thread.
struct Aggregator {
    shared: Shared,
    clock: Arc<Hands>,
    router: Router,
    arrivals: mpsc::Receiver<Arrival>,
}

impl Aggregator {
    fn at(seconds: f64) -> Self {
        Self::showing(view(seconds))
    }

    fn showing(view: View) -> Self {
        Self::over(view, &Memory::default())
    }

    /// With a store.
    fn over(view: View, store: &Memory) -> Self {
        let clock = Arc::new(Hands(AtomicU64::new(view.now.as_unix_us())));
        let (turn, arrivals) = TurnHandle::channel();
        let readiness = Arc::new(Readiness::default());
        readiness.set(State::Ready);
        let shared = Shared {
            view: Arc::new(Published::new(view)),
            store: store.reader(),
            roster: Arc::new(ArcSwap::from_pointee(Roster::default())),
            orders: RosterHandle::channel().0,
            shadow: Window {
                setting: watch::channel(Arc::default()).1,
                standing: watch::channel(Arc::default()).1,
            },
            turn,
            metrics: Arc::new(Metrics::default()),
            api: Arc::new(Api {
                listen: ([127, 0, 0, 1], 0).into(),
                tls: None,
                tokens: Vec::new(),
                max_override: Duration::from_secs(86_400),
            }),
            retention: crate::config::Retention::default(),
            backups: Arc::new(crate::backup::Backups::new(
                std::path::Path::new("/nonexistent"),
                store.aside(),
            )),
            tokens: Arc::new(ArcSwap::from_pointee(tokens())),
            readiness,
            clock: clock.clone(),
            name: "main".into(),
        };
        Self {
            router: router(App::new(shared.clone())),
            shared,
            clock,
            arrivals,
        }
    }

    /// Time passes and nothing new is published.
    fn wait(&self, seconds: f64) {
        self.clock
            .0
            .fetch_add((seconds * 1e6) as u64, Ordering::AcqRel);
    }

    /// The engine publishes another view.
    fn publish(&self, view: View) {
        self.clock.0.store(view.now.as_unix_us(), Ordering::Release);
        self.shared.view.store(Arc::new(view));
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    async fn get_with_etag(&self, path: &str, etag: &str) -> Answer {
        self.ask(
            Request::get(path)
                .header(header::IF_NONE_MATCH, etag)
                .body(Body::empty())
                .unwrap(),
        )
        .await
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.ask(post(path, body).body).await
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request);
        let response = timeout(DEADLINE, response)
            .await
            .expect("an answer before the deadline")
            .unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }
}

/// A JSON request that more can be added to.
struct Post {
    body: Request<Body>,
}

fn post(path: &str, body: impl Into<Body>) -> Post {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    Post {
        body: request.body(body.into()).unwrap(),
    }
}

impl Post {
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.body.headers_mut().insert(name, value.parse().unwrap());
        self
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json<T: DeserializeOwned>(&self) -> T {
        assert!(self.status.is_success(), "{} {}", self.status, self.text());
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The problem, after checking that it looks as RFC 9457 wants it and says what to do.
    fn problem(&self, status: u16) -> Problem {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(
            self.headers[header::CONTENT_TYPE],
            "application/problem+json"
        );
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, status);
        assert_eq!(problem.kind, format!("/problems/{}", problem.code.as_str()));
        assert!(!problem.what_to_do.is_empty());
        problem
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn etag(&self) -> String {
        self.headers[header::ETAG].to_str().unwrap().to_owned()
    }
}

fn tokens() -> Vec<Token> {
    let token = |name: &str, role, sources: &[&str]| Token {
        name: name.to_owned(),
        sha256: Sha256::digest(name.as_bytes()).into(),
        role,
        sources: sources
            .iter()
            .map(|source| SourceId::parse(source).unwrap())
            .collect(),
    };
    vec![
        token("viewer", Role::Viewer, &[]),
        token("injector", Role::Injector, &["netops"]),
        token("operator", Role::Operator, &[]),
    ]
}

/// Compares with a file of the source tree; `LEEWARD_BLESS=1` writes it instead.
fn golden(path: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("LEEWARD_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == text,
        "{} is not what the code makes; look at what changed and run LEEWARD_BLESS=1 cargo test -p leeward-aggregator\n{}",
        path.display(),
        difference(&expected, text)
    );
}

/// The first lines that differ.
fn difference(expected: &str, text: &str) -> String {
    let (mut old, mut new) = (expected.lines(), text.lines());
    for number in 1.. {
        match (old.next(), new.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => {
                return format!(
                    "line {number}\n- {}\n+ {}",
                    a.unwrap_or_default(),
                    b.unwrap_or_default()
                );
            }
        }
    }
    String::new()
}
