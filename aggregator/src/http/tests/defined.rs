//! Services, capacity, overrides and the audit log, with a real turn behind the routes.

use leeward_common::{
    api::{
        problem::Code,
        v1::{
            Action, Audit, AuditEntry, Capacity, Offer, Override, Overrides, Placement, Readiness,
            Removed, Service, ServiceFailover, Services,
        },
    },
    audit::{Verifier, parse_hex},
};

use super::*;
use crate::{
    config::PolicyText,
    recover::recover,
    shadow,
    turn::{Outlets, Turn},
};

const CHECKOUT: &str = r#"{"home":"virginia","candidates":["oregon","ireland"],"profile":"latency",
    "limits":{"latency_p99":"250ms","loss_ratio":0.05},"needs":{"vcpu":8},"priority":1,"why":"as agreed"}"#;
const DRAIN: &str =
    r#"{"rule":"drain","region":"oregon","until":"2026-01-01T01:00:00Z","why":"new switches"}"#;

/// An aggregator with a turn thread over a store in memory.
pub(super) struct Living {
    pub(super) aggregator: Aggregator,
    store: Memory,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Living {
    pub(super) fn start() -> Self {
        let mut aggregator = Aggregator::at(CALM);
        let store = Memory::default();
        let policy = PolicyText {
            policy: Policy::clone(&aggregator.shared.view.load().policy),
            toml: String::new(),
        };
        let recovered = recover(&store, &policy).unwrap();
        let outlets = Outlets {
            view: Arc::clone(&aggregator.shared.view),
            readiness: Arc::default(),
            metrics: Arc::clone(&aggregator.shared.metrics),
            progress: Arc::default(),
        };
        let clock: Arc<dyn Clock> = Arc::<Hands>::clone(&aggregator.clock);
        let retention = crate::config::Retention::default();
        let turn = Turn::new(
            Box::new(store.clone()),
            recovered,
            clock,
            retention,
            outlets,
        );
        let shadow = shadow::Thread {
            store: store.reader(),
            view: Arc::clone(&aggregator.shared.view),
            readiness: Arc::clone(&aggregator.shared.readiness),
            metrics: Arc::clone(&aggregator.shared.metrics),
        };
        let runtime = tokio::runtime::Handle::current();
        let (shadow, shadow_thread) = shadow.start(runtime, turn.shadow()).unwrap();
        aggregator.shared.shadow = shadow;
        let (_, closed) = mpsc::channel(1);
        let arrivals = std::mem::replace(&mut aggregator.arrivals, closed);
        let runtime = tokio::runtime::Handle::current();
        let turn = std::thread::spawn(move || turn.run(&runtime, arrivals));
        aggregator.shared.store = store.reader();
        aggregator.router = router(App::new(aggregator.shared.clone()));
        Self {
            aggregator,
            store,
            threads: vec![turn, shadow_thread],
        }
    }

    pub(super) async fn stop(mut self) {
        self.aggregator.shared.turn.stop().await;
        let threads = std::mem::take(&mut self.threads);
        let join = || threads.into_iter().for_each(|own| own.join().unwrap());
        tokio::task::spawn_blocking(join).await.unwrap();
    }

    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        body: &str,
        headers: &[(&'static str, &str)],
    ) -> Answer {
        let mut request = post(path, body.to_owned()).with("authorization", "Bearer operator");
        for (name, value) in headers {
            request = request.with(name, value);
        }
        *request.body.method_mut() = method.parse().unwrap();
        self.aggregator.ask(request.body).await
    }

    pub(super) async fn put(&self, path: &str, body: &str) -> Answer {
        self.send("PUT", path, body, &[]).await
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.aggregator.get(path).await.json()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_defined_read_replaced_and_removed() {
    let living = Living::start();
    let answer = living.put("/v1/services/checkout", CHECKOUT).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.etag(), "\"1\"");
    let put: Service = answer.json();
    assert_eq!(
        (put.version, put.who.as_str(), put.spec.why.as_str()),
        (1, "operator", "as agreed")
    );
    assert_eq!(living.get::<Service>("/v1/services/checkout").await, put);
    let same = living
        .aggregator
        .get_with_etag("/v1/services/checkout", "\"1\"")
        .await;
    assert_eq!(same.status, 304);

    let list: Services = living.get("/v1/services").await;
    assert_eq!(list.version, 1);
    assert_eq!(
        list.services[0].selected_region.as_ref().unwrap().as_str(),
        "virginia"
    );
    let failover: ServiceFailover = living.get("/v1/services/checkout/failover").await;
    assert_eq!(failover.candidates.len(), 3);
    assert_eq!(failover.action, Action::None);
    assert!(
        failover
            .summary
            .starts_with("checkout runs in virginia, its home"),
        "{}",
        failover.summary
    );
    assert!(
        failover
            .standby
            .iter()
            .all(|share| share.region_id.as_str() != "virginia")
    );
    let readiness: Readiness = living.get("/v1/readiness?service=checkout").await;
    assert!(
        readiness
            .standings
            .iter()
            .all(|one| one.service_id.as_str() == "checkout")
    );

    let replaced = living
        .send(
            "PUT",
            "/v1/services/checkout",
            CHECKOUT,
            &[("if-match", "\"1\"")],
        )
        .await;
    assert_eq!(
        (replaced.status.as_u16(), replaced.etag().as_str()),
        (200, "\"2\"")
    );
    let removed = living
        .send(
            "DELETE",
            "/v1/services/checkout?why=retired",
            "",
            &[("if-match", "\"2\"")],
        )
        .await;
    assert_eq!(
        removed.json::<Removed>(),
        Removed {
            version: 3,
            file: None
        }
    );
    let gone = living
        .aggregator
        .get("/v1/services/checkout")
        .await
        .problem(404);
    assert_eq!(gone.code, Code::UnknownService);
    living.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_meanwhile_is_not_overwritten() {
    let living = Living::start();
    living.put("/v1/services/checkout", CHECKOUT).await;
    living.put("/v1/services/checkout", CHECKOUT).await;
    let path = "/v1/services/checkout";
    for (method, headers, status) in [
        ("PUT", [("if-match", "\"1\"")], 412),
        ("DELETE", [("if-match", "\"1\"")], 412),
        ("PUT", [("if-none-match", "*")], 412),
        ("PUT", [("if-match", "W/\"2\"")], 400),
        ("PUT", [("if-none-match", "\"2\"")], 400),
        ("PUT", [("if-match", "*")], 200),
        ("PUT", [("if-match", "\"3\"")], 200),
    ] {
        let answer = living.send(method, path, CHECKOUT, &headers).await;
        assert_eq!(
            answer.status,
            status,
            "{method} {headers:?} {}",
            answer.text()
        );
    }
    let conflict = living
        .send("PUT", path, CHECKOUT, &[("if-match", "\"1\"")])
        .await
        .problem(412);
    assert_eq!(conflict.code, Code::PreconditionFailed);
    assert!(
        conflict.detail.contains("by change 4"),
        "{}",
        conflict.detail
    );
    let absent = living
        .send("PUT", "/v1/services/other", CHECKOUT, &[("if-match", "*")])
        .await;
    assert_eq!(absent.problem(404).code, Code::UnknownService);
    living.stop().await;
}

/// Two hundred at once from one version: one wins, whoever it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_writers_of_one_version_one_wins() {
    let living = Arc::new(Living::start());
    living.put("/v1/services/checkout", CHECKOUT).await;
    let writers: Vec<_> = (0..200)
        .map(|_| {
            let living = Arc::clone(&living);
            tokio::spawn(async move {
                let headers = [("if-match", "\"1\"")];
                living
                    .send("PUT", "/v1/services/checkout", CHECKOUT, &headers)
                    .await
                    .status
                    .as_u16()
            })
        })
        .collect();
    let mut won = 0;
    for writer in writers {
        won += u32::from(writer.await.unwrap() == 200);
    }
    assert_eq!(won, 1);
    Arc::into_inner(living).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_that_makes_no_sense_names_the_member_and_what_to_write() {
    let living = Living::start();
    let service = "/v1/services/checkout";
    let over = "/v1/overrides/works";
    let cases = [
        (
            service,
            r#"{"home":"virgina"}"#,
            404,
            "there is no region \"virgina\"",
            "home",
        ),
        (
            service,
            r#"{"home":"virginia","clients":{"mars":1}}"#,
            404,
            "there is no region \"mars\"",
            "clients.mars",
        ),
        (
            service,
            r#"{"home":"virginia","candidates":["oregon","oregon"]}"#,
            422,
            "names oregon twice",
            "candidates.1",
        ),
        (
            service,
            r#"{"home":"virginia","limits":{"loss_ratio":8}}"#,
            422,
            "limits.loss_ratio is 8",
            "limits.loss_ratio",
        ),
        (
            service,
            r#"{"home":"virginia","limits":{"latency_p99":"0s"}}"#,
            422,
            "limits.latency_p99 is",
            "limits.latency_p99",
        ),
        (
            service,
            r#"{"home":"virginia","limits":{"latency_p99":80}}"#,
            400,
            "expected a string",
            "limits.latency_p99",
        ),
        (
            service,
            r#"{"home":"virginia","limits":{"latency_p99":"80"}}"#,
            400,
            "is not a span of time",
            "limits.latency_p99",
        ),
        (
            service,
            r#"{"home":"virginia","needs":{"vcpu":-1}}"#,
            422,
            "needs.vcpu is -1",
            "needs.vcpu",
        ),
        (
            service,
            r#"{"home":"virginia","multipliers":{"oregon":0}}"#,
            422,
            "multipliers.oregon is 0",
            "multipliers.oregon",
        ),
        (
            service,
            r#"{"home":"virginia","require":{"country":[]}}"#,
            422,
            "names no value",
            "require.country",
        ),
        (
            service,
            r#"{"home":"virginia","depends_on":["checkout"]}"#,
            422,
            "names checkout itself",
            "depends_on",
        ),
        (
            service,
            r#"{"home":"virginia","hoem":1}"#,
            400,
            "unknown field `hoem`",
            "hoem",
        ),
        (
            service,
            r#"{"home":"virginia","profile":"fast"}"#,
            400,
            "unknown variant `fast`",
            "profile",
        ),
        (service, r#"{}"#, 400, "missing field `home`", "."),
        (
            over,
            r#"{"rule":"drain","region":"oregon","until":"2026-01-01T01:00:00Z"}"#,
            400,
            "missing field `why`",
            ".",
        ),
        (
            over,
            r#"{"rule":"drain","region":"oregon","why":"x"}"#,
            400,
            "missing field `until`",
            ".",
        ),
        (
            over,
            r#"{"rule":"drain","region":"oregon","until":"2026-01-01T01:00:00Z","why":" "}"#,
            422,
            "why is empty",
            "why",
        ),
        (
            over,
            r#"{"rule":"drain","until":"2026-01-01T01:00:00Z","why":"x"}"#,
            422,
            "drain needs it",
            "region",
        ),
        (
            over,
            r#"{"rule":"pin","region":"oregon","until":"2026-01-01T01:00:00Z","why":"x"}"#,
            422,
            "whose selection",
            "service",
        ),
        (
            over,
            r#"{"rule":"pin","region":"oregon","service":"nobody","until":"2026-01-01T01:00:00Z","why":"x"}"#,
            404,
            "there is no service",
            "service",
        ),
        (
            over,
            r#"{"rule":"freeze","region":"oregon","until":"2026-01-01T01:00:00Z","why":"x"}"#,
            422,
            "no meaning for freeze",
            "region",
        ),
        (
            over,
            r#"{"rule":"drain","region":"oregon","until":"2026-02-01T01:00:00Z","why":"x"}"#,
            422,
            "further ahead than 1day",
            "until",
        ),
        (
            over,
            r#"{"rule":"drain","region":"oregon","until":"2025-01-01T01:00:00Z","why":"x"}"#,
            422,
            "and it is 2026-01-01",
            "until",
        ),
        (
            "/v1/capacity/offers/o",
            r#"{"region":"oregon","amounts":{}}"#,
            422,
            "amounts is empty",
            "amounts",
        ),
        (
            "/v1/capacity/reservations/r",
            r#"{"region":"oregon","amounts":{"vcpu":0},"until":"2026-01-02T00:00:00Z"}"#,
            422,
            "amounts.vcpu is 0",
            "amounts.vcpu",
        ),
        (
            "/v1/services/Checkout",
            CHECKOUT,
            400,
            "is not a service id",
            "",
        ),
    ];
    for (path, body, status, detail, place) in cases {
        let problem = living.put(path, body).await.problem(status);
        assert!(
            problem.detail.contains(detail),
            "{body}: {}",
            problem.detail
        );
        let at = problem.at.map(|at| at.path).unwrap_or_default();
        assert_eq!(at, place, "{body}");
    }
    let near = living
        .put(service, r#"{"home":"virgina"}"#)
        .await
        .problem(404)
        .near;
    assert_eq!(near, ["virginia"]);
    assert_eq!(living.get::<Services>("/v1/services").await.version, 0);
    living.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_operator_changes_and_a_refusal_is_in_the_audit_log() {
    let living = Living::start();
    for (token, status) in [("viewer", 403), ("injector", 403), ("nobody", 401)] {
        let request =
            post("/v1/overrides", DRAIN).with("authorization", &format!("Bearer {token}"));
        let answer = living.aggregator.ask(request.body).await;
        assert_eq!(answer.status, status, "{token}");
    }
    let unread = post("/v1/overrides", "nonsense").with("authorization", "Bearer injector");
    assert_eq!(living.aggregator.ask(unread.body).await.status, 403);
    // Whatever came before is in force when this is answered.
    living.put("/v1/services/checkout", CHECKOUT).await;
    let audit: Audit = living.get("/v1/audit?after=0").await;
    let entries: Vec<(&str, &str, &str)> = audit
        .entries
        .iter()
        .map(|entry| {
            (
                entry.who.as_str(),
                entry.what.as_str(),
                entry.about.as_str(),
            )
        })
        .collect();
    assert_eq!(
        entries,
        [
            ("viewer", "refused", "POST /v1/overrides"),
            ("injector", "refused", "POST /v1/overrides"),
            ("operator", "put", "service checkout"),
        ]
    );
    living.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_override_is_in_force_when_it_is_answered_and_a_repetition_is_the_same_one() {
    let living = Living::start();
    let key = [("idempotency-key", "drain-4711")];
    let first = living.send("POST", "/v1/overrides", DRAIN, &key).await;
    assert_eq!(first.status, 201, "{}", first.text());
    let first: Override = first.json();
    assert!(
        first.summary.starts_with(
            "oregon is drained until 2026-01-01T01:00:00.000Z, says operator: new switches"
        ),
        "{}",
        first.summary
    );
    let again = living.send("POST", "/v1/overrides", DRAIN, &key).await;
    assert_eq!(again.status, 200);
    assert_eq!(again.json::<Override>(), first);
    let other = DRAIN.replace("new", "old");
    assert_eq!(
        living
            .send("POST", "/v1/overrides", &other, &key)
            .await
            .status,
        412
    );
    let unkeyed: Override = living
        .send("POST", "/v1/overrides", DRAIN, &[])
        .await
        .json();
    assert_ne!(unkeyed.override_id, first.override_id);
    let list: Overrides = living.get("/v1/overrides").await;
    assert_eq!(list.overrides.len(), 2);
    let path = format!("/v1/overrides/{}", first.override_id);
    living
        .send("DELETE", &path, "", &[])
        .await
        .json::<Removed>();
    assert_eq!(
        living
            .get::<Overrides>("/v1/overrides")
            .await
            .overrides
            .len(),
        1
    );
    assert_eq!(
        living
            .send("DELETE", &path, "", &[])
            .await
            .problem(404)
            .code,
        Code::UnknownOverride
    );
    living.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn capacity_is_offered_reserved_and_given_back() {
    let living = Living::start();
    let offer = r#"{"region":"oregon","amounts":{"vcpu":100},"until":"2026-01-02T00:00:00Z"}"#;
    let answer = living.put("/v1/capacity/offers/base", offer).await;
    let etag = answer.etag();
    let offer: Offer = answer.json();
    let reservation = r#"{"region":"oregon","amounts":{"vcpu":30},"until":"2026-01-02T00:00:00Z"}"#;
    assert_eq!(
        living
            .put("/v1/capacity/reservations/batch", reservation)
            .await
            .status,
        201
    );
    let capacity: Capacity = living.get("/v1/capacity").await;
    assert_eq!(capacity.offers, [offer]);
    assert_eq!(capacity.reservations.len(), 1);
    living
        .send(
            "DELETE",
            "/v1/capacity/offers/base",
            "",
            &[("if-match", &etag)],
        )
        .await
        .json::<Removed>();
    assert_eq!(
        living
            .aggregator
            .get("/v1/capacity/offers/base")
            .await
            .problem(404)
            .code,
        Code::UnknownOffer
    );
    assert_eq!(
        living
            .aggregator
            .get("/v1/capacity/reservations/batc")
            .await
            .problem(404)
            .near,
        ["batch"]
    );
    living.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_log_is_paged_exported_and_shows_what_was_tampered_with() {
    let living = Living::start();
    for _ in 0..7 {
        living.put("/v1/services/checkout", CHECKOUT).await;
    }
    let newest: Audit = living.get("/v1/audit?limit=3").await;
    let sequences = |audit: &Audit| {
        audit
            .entries
            .iter()
            .map(|entry| entry.sequence)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (sequences(&newest), newest.next, newest.length),
        (vec![7, 6, 5], Some(5), 7)
    );
    let older: Audit = living.get("/v1/audit?limit=9&before=5").await;
    assert_eq!((sequences(&older), older.next), (vec![4, 3, 2, 1], None));
    let first: Audit = living.get("/v1/audit?after=0&limit=4").await;
    assert_eq!((sequences(&first), first.next), (vec![1, 2, 3, 4], Some(4)));
    let export = living
        .aggregator
        .get("/v1/audit?after=0&format=jsonl")
        .await;
    assert_eq!(export.headers[header::CONTENT_TYPE], "application/jsonl");
    let text = export.text();
    let lines: Vec<AuditEntry> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut verifier = Verifier::default();
    lines.iter().for_each(|entry| verifier.take(entry));
    assert_eq!(verifier.finish(parse_hex(&newest.head)), []);
    let metrics = living.aggregator.get("/metrics").await.text();
    assert!(
        metrics.contains("leeward_aggregator_audit_entries 7"),
        "{metrics}"
    );
    assert!(
        metrics.contains(&format!("audit_head_info{{hash=\"{}\"}} 1", newest.head)),
        "{metrics}"
    );

    // One byte of the third entry on disk.
    let mut bytes = Vec::new();
    let key = 3_u64.to_be_bytes();
    crate::store::Read::scan(
        &living.store,
        crate::store::key::Column::Audit,
        &key,
        &mut |_, value| {
            bytes = value.to_vec();
            std::ops::ControlFlow::Break(())
        },
    )
    .unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        living
            .store
            .put(crate::store::key::Column::Audit, &key, &changed);
        let audit: Audit = living.get("/v1/audit?after=0").await;
        let mut verifier = Verifier::default();
        audit.entries.iter().for_each(|entry| verifier.take(entry));
        let broken = verifier.finish(parse_hex(&newest.head));
        assert_eq!(
            broken[0].to_string(),
            "entry 3 was changed: its contents do not have its hash",
            "byte {at}: {broken:?}"
        );
    }
    for (query, word) in [
        ("?after=1&before=2", "both there"),
        ("?limit=x", "invalid digit"),
        ("?page=1", "unknown field"),
    ] {
        let problem = living
            .aggregator
            .get(&format!("/v1/audit{query}"))
            .await
            .problem(400);
        assert!(problem.detail.contains(word), "{}", problem.detail);
    }
    living.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_everything_would_go_is_known_before_the_event() {
    let living = Living::start();
    living.put("/v1/services/checkout", CHECKOUT).await;
    let ask = |body: &'static str| living.aggregator.post("/v1/placements", body);
    let placement: Placement = ask(r#"{"failed":["virginia"]}"#).await.json();
    assert_eq!(placement.services.len(), 1, "{placement:?}");
    let fate = &placement.services[0];
    assert_eq!(
        (fate.service_id.as_str(), fate.before[0].region_id.as_str()),
        ("checkout", "virginia")
    );
    assert!(
        placement
            .summary
            .starts_with("without virginia, 1 service would move"),
        "{}",
        placement.summary
    );
    let nothing: Placement = ask(r#"{"failed":["ireland"]}"#).await.json();
    assert_eq!(
        nothing.summary,
        "nothing runs in ireland: nothing would move"
    );
    for (body, status, detail) in [
        (r#"{"failed":[]}"#, 422, "failed is empty"),
        (r#"{"failed":["virgina"]}"#, 404, "there is no region"),
        (r#"{"fail":["virginia"]}"#, 400, "unknown field `fail`"),
    ] {
        let problem = ask(body).await.problem(status);
        assert!(problem.detail.contains(detail), "{}", problem.detail);
    }
    living.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_about_what_is_not_there_say_so() {
    let living = Living::start();
    assert_eq!(
        living
            .aggregator
            .get("/v1/readiness?service=x")
            .await
            .problem(404)
            .code,
        Code::UnknownService
    );
    assert_eq!(
        living
            .aggregator
            .get("/v1/readiness?region=x")
            .await
            .problem(404)
            .code,
        Code::UnknownRegion
    );
    assert_eq!(
        living
            .aggregator
            .get("/v1/services/x/failover")
            .await
            .problem(404)
            .code,
        Code::UnknownService
    );
    living.stop().await;
}
