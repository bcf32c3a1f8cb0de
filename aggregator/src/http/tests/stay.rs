//! Those who stay: long polls and the stream, against the real server over real sockets.

use std::net::SocketAddr;

use leeward_common::api::{
    problem::Code,
    v1::{Decisions, Failover, Failovers, Overview, Snapshot},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use super::{
    browser::{Reply, ask, get},
    *,
};
use crate::{
    http::{App, feed, places::PER_CLIENT},
    metrics::Stay,
    store::{Writes, key::Position, record::v1::Decided},
    turn::decision_position,
};

const VIRGINIA: &str = "/v1/failover/virginia";

/// A server whose views a test publishes.
struct Server {
    aggregator: Aggregator,
    app: App,
    address: SocketAddr,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    async fn at(seconds: f64) -> Self {
        Self::with(Aggregator::at(seconds)).await
    }

    async fn with(aggregator: Aggregator) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel();
        let app = App::new(aggregator.shared.clone());
        let task = tokio::spawn(super::super::serve::serve_app(
            app.clone(),
            listener,
            async {
                let _ = ended.await;
            },
        ));
        Self {
            aggregator,
            app,
            address,
            end,
            task,
        }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        get(self.address, path, headers).await
    }

    async fn etag(&self, path: &str) -> String {
        let reply = self.get(path, &[]).await;
        assert_eq!(reply.status, 200);
        reply.header("etag").unwrap().to_owned()
    }

    /// Asks and waits; returns when the wait has begun.
    async fn wait(&self, path: &str, etag: &str) -> JoinHandle<Reply> {
        let before = self.places(Stay::Wait).0;
        let stream = ask(self.address, path, &[("if-none-match", etag)]).await;
        self.until(|| self.places(Stay::Wait).0 == before + 1).await;
        tokio::spawn(Reply::read(stream))
    }

    /// Places of this kind: taken and freed so far.
    fn places(&self, stay: Stay) -> (u64, u64) {
        let http = &self.aggregator.shared.metrics.http;
        let taken = http.places_taken.get_or_create(&stay.into()).get();
        (taken, http.places_freed.get_or_create(&stay.into()).get())
    }

    async fn until(&self, holds: impl Fn() -> bool) {
        let held = async {
            while !holds() {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, held).await.expect("it holds in the end");
    }

    /// Publishes another view, and returns when it was compared with the one before.
    async fn publish(&self, view: View) {
        let mut looks = self.app.feed.looks();
        looks.mark_unchanged();
        self.aggregator.publish(view);
        timeout(DEADLINE, looks.changed()).await.unwrap().unwrap();
    }

    async fn end(self) {
        self.end.send(()).unwrap();
        timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }
}

fn decided(view: &View) -> Vec<Decided> {
    view.decisions
        .iter()
        .map(|decision| Decided::from(&**decision))
        .collect()
}

/// An aggregator that was started again: its store has every decision of `view`, its memory only the newest.
fn restarted(mut view: View, remembered: usize) -> Aggregator {
    let mut store = Memory::default();
    let mut writes = Writes::default();
    for decision in decided(&view) {
        writes.decided(decision_position(&decision), &decision);
    }
    store.commit(&writes).unwrap();
    let decisions = Arc::make_mut(&mut view.decisions);
    decisions.drain(..decisions.len() - remembered);
    let mut aggregator = Aggregator::showing(view);
    aggregator.shared.store = store.reader();
    aggregator.router = router(App::new(aggregator.shared.clone()));
    aggregator
}

#[tokio::test]
async fn a_waiter_is_answered_when_the_answer_changes_and_not_by_a_tick_of_the_graph() {
    let server = Server::at(CALM).await;
    let etag = server.etag(VIRGINIA).await;
    let waiter = server.wait(&format!("{VIRGINIA}?wait=60s"), &etag).await;
    for tick in 1..=3 {
        server.publish(view(CALM + 0.25 * f64::from(tick))).await;
    }
    assert!(!waiter.is_finished());
    server.publish(view(LOSSY)).await;
    let reply = waiter.await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("preference-applied"), Some("wait=60"));
    assert_ne!(reply.header("etag"), Some(etag.as_str()));
    let failover: Failover = reply.json().await;
    assert_eq!(failover.selected_region.unwrap().as_str(), "frankfurt");
    assert_eq!(failover.evaluated_at.0, at(LOSSY));
}

#[tokio::test]
async fn every_answer_that_changes_can_be_waited_for() {
    let server = Server::at(CALM).await;
    let paths = ["/v1/failover", "/v1/overview", "/v1/decisions?limit=1"];
    let mut waiters = Vec::new();
    for path in paths {
        let etag = server.etag(path).await;
        let join = if path.contains('?') { '&' } else { '?' };
        waiters.push(server.wait(&format!("{path}{join}wait=1m"), &etag).await);
    }
    server.publish(view(CALM + 0.25)).await;
    assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
    server.publish(view(LOSSY)).await;
    let [failover, overview, decisions] = waiters.try_into().ok().unwrap();
    let failovers: Failovers = failover.await.unwrap().json().await;
    let of_virginia = failovers.failovers.last().unwrap();
    assert_eq!(
        of_virginia.line.selected_region.as_ref().unwrap().as_str(),
        "frankfurt"
    );
    let overview: Overview = overview.await.unwrap().json().await;
    assert!(
        overview
            .summary
            .contains("irginia now fails over to frankfurt"),
        "{}",
        overview.summary
    );
    let decisions: Decisions = decisions.await.unwrap().json().await;
    assert_eq!(
        decisions.decisions[0].to.as_ref().unwrap().as_str(),
        "frankfurt"
    );
}

#[tokio::test]
async fn at_the_end_of_a_wait_the_answer_is_304() {
    let server = Server::at(CALM).await;
    let etag = server.etag(VIRGINIA).await;
    let path = format!("{VIRGINIA}?wait=20ms");
    let reply = server.get(&path, &[("if-none-match", &etag)]).await;
    assert_eq!(
        (reply.status, reply.header("etag")),
        (304, Some(etag.as_str()))
    );
    let prefer = [("if-none-match", etag.as_str()), ("prefer", "wait=1")];
    let reply = server.get(VIRGINIA, &prefer).await;
    assert_eq!(
        (reply.status, reply.header("preference-applied")),
        (304, Some("wait=1"))
    );
    assert_eq!(
        server.places(Stay::Wait),
        (2, 2),
        "both places are free again"
    );
}

#[tokio::test]
async fn who_has_another_answer_does_not_wait() {
    let server = Server::at(CALM).await;
    for headers in [&[][..], &[("if-none-match", "\"another\"")]] {
        let reply = server.get(&format!("{VIRGINIA}?wait=60s"), headers).await;
        assert_eq!(reply.status, 200);
    }
    assert_eq!(server.places(Stay::Wait), (0, 0));
}

#[tokio::test]
async fn a_picture_that_grows_old_wakes_those_who_wait() {
    let server = Server::at(CALM).await;
    let etag = server.etag(VIRGINIA).await;
    let waiter = server.wait(&format!("{VIRGINIA}?wait=60s"), &etag).await;
    server.aggregator.wait(6.0);
    let failover: Failover = waiter.await.unwrap().json().await;
    assert!(failover.stale);
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place() {
    let server = Server::at(CALM).await;
    let etag = server.etag(VIRGINIA).await;
    let waiter = server.wait(&format!("{VIRGINIA}?wait=60s"), &etag).await;
    waiter.abort();
    server.until(|| server.places(Stay::Wait) == (1, 1)).await;
    let mut stream = server.get("/v1/watch", &[]).await;
    stream.event_named("snapshot").await;
    drop(stream);
    server.until(|| server.places(Stay::Stream) == (1, 1)).await;
}

#[tokio::test]
async fn beyond_its_share_a_client_is_told_to_come_later() {
    let server = Server::at(CALM).await;
    let mut streams = Vec::new();
    for _ in 0..PER_CLIENT {
        streams.push(server.get("/v1/watch", &[]).await);
    }
    let reply = server.get("/v1/watch", &[]).await;
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (429, Some("10"))
    );
    let problem: Problem = reply.json().await;
    assert_eq!(problem.code, Code::TooManyWaiting);
    streams.pop();
    server.until(|| server.places(Stay::Stream).1 == 1).await;
    assert_eq!(server.get("/v1/watch", &[]).await.status, 200);
    assert_eq!(
        server.get(VIRGINIA, &[]).await.status,
        200,
        "questions are answered"
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_a_problem() {
    let server = Server::at(CALM).await;
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u16, Code);
    let cases: [Case<'_>; 9] = [
        ("/v1/overview?wait=long", &[], 400, Code::MalformedParameter),
        ("/v1/failover?wait=", &[], 400, Code::MalformedParameter),
        (
            "/v1/failover/virginia?weight=1",
            &[],
            400,
            Code::MalformedParameter,
        ),
        ("/v1/decisions?wait=30", &[], 400, Code::MalformedParameter),
        (
            "/v1/decisions?wait=1s&before=3",
            &[],
            422,
            Code::InvalidRequest,
        ),
        ("/v1/decisions/last", &[], 400, Code::MalformedParameter),
        ("/v1/decisions/999", &[], 404, Code::UnknownDecision),
        (
            "/v1/watch",
            &[("last-event-id", "yesterday")],
            400,
            Code::MalformedParameter,
        ),
        (
            "/v1/watch?primary_region=mars",
            &[],
            404,
            Code::UnknownRegion,
        ),
    ];
    for (path, headers, status, code) in cases {
        let reply = server.get(path, headers).await;
        assert_eq!(
            reply.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(reply.status, status, "{path}");
        let problem: Problem = reply.json().await;
        assert_eq!(problem.code, code, "{path}");
        assert!(!problem.what_to_do.is_empty());
    }
    assert_eq!(server.places(Stay::Stream), (0, 0));
}

#[tokio::test]
async fn a_stream_begins_with_how_things_stand_and_tells_what_changes() {
    let server = Server::at(CALM).await;
    let mut stream = server.get("/v1/watch", &[]).await;
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    let first = stream.event().await.unwrap();
    assert_eq!(first.name, "snapshot");
    let snapshot: Snapshot = serde_json::from_value(first.data).unwrap();
    assert_eq!((snapshot.failovers.len(), snapshot.regions.len()), (4, 4));
    assert_eq!(
        snapshot.overview.unwrap().summary,
        "All 4 regions are reached and no link is in trouble."
    );

    server.publish(view(CALM + 0.25)).await;
    server.publish(view(LOSSY)).await;
    let moved = stream.event().await.unwrap();
    assert_eq!(moved.name, "decision", "a tick of the graph is not told");
    assert_eq!(moved.data["to"], "frankfurt");
    let id = moved.id.split_once('-').unwrap().0.to_owned();
    assert_eq!(moved.data["decision_id"].to_string(), id);
    stream.event_named("failover").await;
    let overview = stream.event_named("overview").await;
    assert!(
        overview.data["summary"]
            .as_str()
            .unwrap()
            .contains("to frankfurt")
    );

    server.publish(view(DOWN)).await;
    let region = stream.event_named("region").await;
    assert_eq!(
        (&region.data["region_id"], &region.data["state"]),
        (&"oregon".into(), &"bad".into())
    );
    let mut failover = stream.event_named("failover").await;
    while failover.data["primary_region"] != "virginia" {
        failover = stream.event_named("failover").await;
    }
    assert!(
        failover.data["refused"].to_string().contains("\"down\""),
        "{}",
        failover.data
    );
}

#[tokio::test]
async fn a_stream_of_one_primary_tells_of_nothing_else() {
    let server = Server::at(CALM).await;
    let mut stream = server.get("/v1/watch?primary_region=virginia", &[]).await;
    let snapshot = stream.event().await.unwrap();
    assert_eq!(snapshot.data["failovers"].as_array().unwrap().len(), 1);
    server.publish(view(DOWN)).await;
    server.end().await;
    let mut heard = 0;
    while let Some(event) = stream.event().await {
        assert_eq!(event.data["primary_region"], "virginia", "{event:?}");
        heard += 1;
    }
    assert!(heard >= 2, "a decision and the answer that it made");
}

#[tokio::test]
async fn a_client_that_comes_again_is_told_what_it_missed() {
    let server = Server::at(CALM).await;
    let mut stream = server.get("/v1/watch", &[]).await;
    let last = stream.event_named("snapshot").await.id;
    drop(stream);
    server.aggregator.publish(view(DOWN));
    let known: u64 = last.split_once('-').unwrap().0.parse().unwrap();
    let mut stream = server.get("/v1/watch", &[("last-event-id", &last)]).await;
    let newest = view(DOWN).decisions.back().unwrap().id;
    assert!(newest > known);
    for id in known + 1..=newest {
        let event = stream.event().await.unwrap();
        assert_eq!(
            (event.name.as_str(), event.data["decision_id"].as_u64()),
            ("decision", Some(id))
        );
    }
    assert_eq!(stream.event().await.unwrap().name, "snapshot");
}

#[tokio::test]
async fn a_client_goes_on_where_it_was_after_a_restart() {
    let all = decided(&view(DOWN));
    let server = Server::with(restarted(view(DOWN), 1)).await;
    for known in [1, 2, all.len() - 1] {
        let last = format!("{}-{}", all[known - 1].id, all[known - 1].at_us);
        let mut stream = server.get("/v1/watch", &[("last-event-id", &last)]).await;
        for decision in &all[known..] {
            let event = stream.event().await.unwrap();
            assert_eq!(event.data["decision_id"].as_u64(), Some(decision.id));
            assert_eq!(event.data["summary"], decision.summary.as_str());
            assert_eq!(event.id, format!("{}-{}", decision.id, decision.at_us));
        }
        assert_eq!(stream.event().await.unwrap().name, "snapshot");
    }
    // From before the first decision on.
    let mut stream = server.get("/v1/watch", &[("last-event-id", "0-0")]).await;
    assert_eq!(
        stream.event().await.unwrap().data["decision_id"].as_u64(),
        Some(1)
    );
}

#[tokio::test]
async fn what_cannot_be_told_again_is_said_with_a_reset() {
    let server = Server::with(restarted(view(DOWN), 1)).await;
    // Of another store, from the future, and gone.
    for last in ["2-17", "999-1763000000000000", "3-0"] {
        let mut stream = server.get("/v1/watch", &[("last-event-id", last)]).await;
        let reset = stream.event().await.unwrap();
        assert_eq!(reset.name, "reset", "{last}");
        assert_eq!(reset.data["reason"]["code"], "unknown_event");
        assert_eq!(stream.event().await.unwrap().name, "snapshot");
    }
    let resets = &server.aggregator.shared.metrics.http.resets;
    assert_eq!(resets.get(), 3);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected_and_others_are_not() {
    let server = Server::at(CALM).await;
    let slow = ask(server.address, "/v1/watch", &[]).await;
    let mut quick = server.get("/v1/watch", &[]).await;
    quick.event_named("snapshot").await;
    server.until(|| server.places(Stay::Stream).0 == 2).await;
    // The ring holds a few of these, and so do the sockets in between.
    for number in 0..40 {
        server.app.feed.shout(number, 1 << 20);
        let event = quick.event().await.unwrap();
        assert_eq!(event.data["summary"].as_str().unwrap().len(), 1 << 20);
    }
    let mut slow = Reply::read(slow).await;
    let mut heard = 0;
    while slow.event().await.is_some() {
        heard += 1;
    }
    assert!(heard < 40, "{heard} of 40 were kept for it");
    assert_eq!(server.aggregator.shared.metrics.http.slow_clients.get(), 1);
    server.app.feed.shout(41, 1);
    assert!(quick.event().await.is_some());
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_those_who_wait() {
    let server = Server::at(CALM).await;
    let etag = server.etag(VIRGINIA).await;
    let mut waiters = Vec::new();
    for _ in 0..100 {
        waiters.push(server.wait(&format!("{VIRGINIA}?wait=60s"), &etag).await);
    }
    let mut stream = server.get("/v1/watch", &[]).await;
    stream.event_named("snapshot").await;
    let places = Arc::clone(&server.app.places);
    // It would wait for a while for requests under way.
    let begun = std::time::Instant::now();
    server.end().await;
    assert!(
        begun.elapsed() < super::super::serve::DRAIN,
        "it did not have to cut anybody off"
    );
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().status, 304);
    }
    assert!(stream.event().await.is_none(), "the stream ends in order");
    assert!(!places.any());
}

#[tokio::test]
async fn decisions_page_from_memory_into_the_store() {
    let aggregator = restarted(view(DOWN), 2);
    let all: Vec<u64> = decided(&view(DOWN))
        .iter()
        .rev()
        .map(|one| one.id)
        .collect();
    let (mut paged, mut next) = (Vec::new(), "/v1/decisions?limit=3".to_owned());
    loop {
        let answer = aggregator.get(&next).await;
        let page: Decisions = answer.json();
        paged.extend(page.decisions.iter().map(|one| one.decision_id));
        assert!(
            page.decisions.iter().all(|one| one.evidence.len() == 3),
            "with their evidence"
        );
        let Some(link) = answer.headers.get("link") else {
            assert_eq!(page.next_before, None);
            break;
        };
        let link = link.to_str().unwrap();
        next = link
            .strip_prefix('<')
            .unwrap()
            .split_once(">; rel=\"next\"")
            .unwrap()
            .0
            .to_owned();
    }
    assert_eq!(paged, all);
    let of_virginia: Decisions = aggregator
        .get("/v1/decisions?primary_region=virginia&limit=1")
        .await
        .json();
    assert_eq!(of_virginia.decisions[0].primary_region.as_str(), "virginia");
    assert!(of_virginia.next_before.is_some());
}

#[tokio::test]
async fn one_decision_is_the_same_from_memory_and_from_the_store() {
    let remembers = Aggregator::at(DOWN);
    let reads = restarted(view(DOWN), 0);
    for id in 1..=view(DOWN).decisions.len() {
        let path = format!("/v1/decisions/{id}");
        let (one, other) = (remembers.get(&path).await, reads.get(&path).await);
        assert_eq!(one.status, 200);
        assert_eq!(one.body, other.body);
        assert_eq!(reads.get_with_etag(&path, &one.etag()).await.status, 304);
    }
}

#[test]
fn a_version_says_where_the_store_has_its_decision() {
    for decision in decided(&view(DOWN)) {
        let version = feed::Version::parse(&format!("{}-{}", decision.id, decision.at_us)).unwrap();
        assert_eq!(version.position(), Some(decision_position(&decision)));
    }
    assert_eq!(feed::Version::default().position(), None::<Position>);
}
