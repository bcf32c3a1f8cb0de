//! `leeward trace`: what people see of a route, and which exit code goes with it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Server, ok};
use leeward_common::{
    api::v1::{
        OrderState, OrderedTrace, Time, Trace, TraceAnswer, TraceChange, TraceEnd, TraceHop,
        TraceMtu, TraceOutcome, Traces,
    },
    finding::trace::Says,
    report::ProbeKind,
    time::Timestamp,
};

const LAST: &str = "/v1/traces?from=virginia&to=ireland&limit=1";

fn time() -> Time {
    Time(Timestamp::parse_rfc3339("2026-11-20T03:12:11Z").unwrap())
}

fn hop(hop: u8, addresses: &[&str], says: Says) -> TraceHop {
    let answer = |address: &&str| TraceAnswer {
        address: address.parse().unwrap(),
        says,
        rtts_us: vec![1_500, 2_500, 3_500],
        mpls: Vec::new(),
        asn: None,
    };
    let is_answered = !addresses.is_empty();
    TraceHop {
        hop,
        sent: 3,
        lost: if is_answered { 0 } else { 3 },
        rtt_best_us: is_answered.then_some(1_500),
        rtt_median_us: is_answered.then_some(2_500),
        answers: addresses.iter().map(answer).collect(),
    }
}

fn trace(end: TraceEnd) -> Trace {
    Trace {
        order: Some(17),
        agent: "vir-1".parse().unwrap(),
        from: "virginia".parse().unwrap(),
        to: Some("ireland".parse().unwrap()),
        target: "ire-1.v4".parse().unwrap(),
        address: "192.0.2.9".parse().unwrap(),
        kind: ProbeKind::TcpSyn,
        at: time(),
        took_us: 700_000,
        end,
        detail: "reached in 3 hops".to_owned(),
        hops: vec![
            hop(1, &["10.0.0.1", "10.0.0.2"], Says::TimeExceeded),
            hop(2, &[], Says::TimeExceeded),
            hop(3, &["192.0.2.9"], Says::PortUnreachable),
        ],
        mtu: Some(TraceMtu {
            bytes: 1_400,
            local_bytes: 1_500,
            hinted_bytes: None,
            hinted_by: None,
            black_hole: true,
        }),
        changes: Some(vec![TraceChange {
            hop: 1,
            before: vec!["10.0.7.1".parse().unwrap()],
            after: vec!["10.0.0.1".parse().unwrap()],
        }]),
        compared_with: Some(time()),
    }
}

fn server(state: OrderState, end: TraceEnd) -> Server {
    let ordered = OrderedTrace {
        order: 17,
        agent: "vir-1".parse().unwrap(),
        target: "ire-1.v4".parse().unwrap(),
        kind: ProbeKind::TcpSyn,
    };
    let outcome = TraceOutcome {
        order: 17,
        state,
        reason: (state == OrderState::Declined).then(|| "six a minute".to_owned()),
        trace: (state == OrderState::Done).then(|| trace(end)),
    };
    let traces = Traces {
        evaluated_at: time(),
        traces: vec![trace(end)],
    };
    Server::new(vec![
        ok("/v1/traces", &ordered),
        ok("/v1/traces/17?wait=4s", &outcome),
        ok("/v1/traces/17?wait=1s", &outcome),
        ok("/v1/traces/17?wait=2s", &outcome),
        ok("/v1/traces/17?wait=3s", &outcome),
        ok(LAST, &traces),
    ])
}

#[test]
fn a_route_is_ordered_waited_for_and_shown_hop_by_hop() {
    let server = server(OrderState::Done, TraceEnd::Reached);
    let said = server
        .leeward(&["trace", "virginia", "ireland", "--kind", "tcp_syn"])
        .expect(0);
    for word in [
        "from vir-1 to ire-1.v4 (192.0.2.9) by tcp_syn",
        "10.0.0.1",
        "10.0.0.2",
        "*",
        "1.5",
        "nobody listens on the port",
        "reached in 3 hops",
        "has 1400 bytes; the interface lets out 1500",
        "a black hole",
        "hop 1: was 10.0.7.1, is 10.0.0.1",
    ] {
        assert!(said.out.contains(word), "{word} is not in\n{}", said.out);
    }
    assert!(said.err.contains("vir-1 traces the route"), "{}", said.err);
    let requests = server.requests.lock().unwrap().clone();
    assert!(
        requests[0].contains(r#""kind":"tcp_syn""#),
        "{}",
        requests[0]
    );
    assert!(requests[0].contains(r#""mtu":true"#), "{}", requests[0]);
}

#[test]
fn the_last_route_and_its_changes_need_no_order() {
    let server = server(OrderState::Open, TraceEnd::Silent);
    let said = server
        .leeward(&["trace", "virginia", "ireland", "--last", "-o", "json"])
        .expect(0);
    assert_eq!(said.json()["hops"][2]["rtt_best_us"], 1_500);
    let said = server
        .leeward(&["trace", "virginia", "ireland", "--changes"])
        .expect(0);
    assert!(said.out.starts_with("changed since"), "{}", said.out);
    server
        .leeward(&["trace", "virginia", "ireland", "--last", "--check"])
        .expect(3);
    assert!(
        server
            .requests
            .lock()
            .unwrap()
            .iter()
            .all(|request| request.starts_with("GET"))
    );
    server
        .leeward(&["trace", "virginia", "ireland", "--kind", "udp"])
        .expect(2);
    let empty = Server::new(vec![ok(
        LAST,
        &Traces {
            evaluated_at: time(),
            traces: Vec::new(),
        },
    )]);
    empty
        .leeward(&["trace", "virginia", "ireland", "--last"])
        .expect(7);
}

#[test]
fn an_agent_that_declines_says_why() {
    let server = server(OrderState::Declined, TraceEnd::Reached);
    let said = server.leeward(&["trace", "virginia", "ireland"]).expect(1);
    assert!(
        said.err.contains("vir-1 declines: six a minute"),
        "{}",
        said.err
    );
}
