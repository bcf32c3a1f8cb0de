//! `leeward watch` and `leeward explain`: a stream that breaks off is taken up again where it was.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    sync::mpsc,
    thread,
};

use common::{Said, Server, command, ok, problem};
use leeward_common::{
    api::{
        problem::{Code, Problem},
        v1::{Decision, Explanation, Failover, Reason},
    },
    id::RegionId,
};

/// What a server does with one connection.
#[derive(Clone, Copy)]
enum Turn {
    /// It tells these events and ends.
    Tell(u64, u64),
    /// It has no place.
    Full,
    /// It hangs up before it says anything.
    HangUp,
}

/// A server that serves one connection after the other; says which `Last-Event-ID` each came with.
fn streams(turns: Vec<Turn>) -> (SocketAddr, mpsc::Receiver<Option<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, saw) = mpsc::channel();
    thread::spawn(move || {
        for (turn, stream) in turns.into_iter().zip(listener.incoming()) {
            let mut stream = BufReader::new(stream.unwrap());
            let mut last = None;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                if line == "\r\n" {
                    break;
                }
                if let Some(id) = line.strip_prefix("last-event-id: ") {
                    last = Some(id.trim().to_owned());
                }
            }
            seen.send(last).unwrap();
            let answer = match turn {
                Turn::HangUp => continue,
                Turn::Full => {
                    let body =
                        Problem::new(Code::TooManyWaiting, "all places are taken", "come later");
                    let body = serde_json::to_string(&body).unwrap();
                    format!(
                        "HTTP/1.1 429 X\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    )
                }
                Turn::Tell(first, last) => {
                    let mut events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\nretry: 1\n\n:\n\n".to_owned();
                    for id in first..=last {
                        events.push_str(&decision(id));
                    }
                    // What is cut off in the middle is told again.
                    events + "id: 99-99\nevent: decision\ndata: {\"decis"
                }
            };
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (address, saw)
}

fn decision(id: u64) -> String {
    format!(
        "id: {id}-{id}000\nevent: decision\ndata: {{\"decision_id\":{id},\"decided_at\":\"2026-11-20T03:12:11Z\",\
         \"primary_region\":\"virginia\",\"from\":null,\"to\":\"oregon\",\"reason\":{{\"code\":\"down\",\"detail\":\"\"}},\
         \"summary\":\"number {id}\"}}\n\n"
    )
}

fn watch(address: SocketAddr, args: &[&str]) -> Said {
    command()
        .env("LEEWARD_SERVER", format!("http://{address}"))
        .arg("watch")
        .args(args)
        .output()
        .unwrap()
        .into()
}

#[test]
fn a_stream_that_breaks_off_is_taken_up_again_where_it_was() {
    let (address, saw) = streams(vec![
        Turn::Tell(1, 3),
        Turn::HangUp,
        Turn::Full,
        Turn::Tell(4, 4),
        Turn::Tell(5, 9),
    ]);
    let said = watch(address, &["-o", "json", "-n", "7"]).expect(0);
    let lines: Vec<serde_json::Value> = said
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ids: Vec<u64> = lines
        .iter()
        .map(|line| line["data"]["decision_id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7], "each once, in order");
    assert!(lines.iter().all(|line| line["event"] == "decision"));
    let lasts: Vec<Option<String>> = saw.iter().take(5).collect();
    let at = |id: &str| Some(id.to_owned());
    assert_eq!(
        lasts,
        [None, at("3-3000"), at("3-3000"), at("3-3000"), at("4-4000")]
    );
    assert_eq!(
        said.err.matches("the stream broke off").count(),
        4,
        "{}",
        said.err
    );
    assert!(said.err.contains("all places are taken"), "{}", said.err);
}

#[test]
fn people_read_one_line_for_each_event() {
    let (address, saw) = streams(vec![Turn::Tell(8, 8)]);
    let said = watch(address, &["--since", "7-7000", "-n", "1"]).expect(0);
    assert_eq!(said.out, "decision  8 at 03:12:11 UTC: number 8\n");
    assert_eq!(saw.recv().unwrap().as_deref(), Some("7-7000"));
}

#[test]
fn a_stream_that_was_never_there_is_not_waited_for() {
    let unknown = Problem::new(
        Code::UnknownRegion,
        "there is no region mars",
        "use another",
    );
    let server = Server::new(vec![problem("/v1/watch?primary_region=mars", &unknown)]);
    server.leeward(&["watch", "--primary", "mars"]).expect(5);
    watch(common::closed(), &[]).expect(1);
    watch(common::closed(), &["-o", "csv"]).expect(2);
}

#[test]
fn a_decision_is_explained_with_the_evidence_that_it_was_taken_on() {
    const FAILOVER: &str = include_str!("../../aggregator/src/http/tests/failover_virginia.json");
    let failover: Failover = serde_json::from_str(FAILOVER).unwrap();
    let decision = Decision {
        decision_id: 17,
        decided_at: failover.evaluated_at,
        primary_region: failover.primary_region.clone(),
        service_id: None,
        from: Some(RegionId::parse("oregon").unwrap()),
        to: Some(RegionId::parse("frankfurt").unwrap()),
        reason: Reason {
            code: "better".to_owned(),
            detail: "1.31 times the score of the selection before".to_owned(),
        },
        margin: Some(1.31),
        summary: "virginia moves to frankfurt".to_owned(),
        graph_version: 7,
        policy_version: String::new(),
        perspective: failover.perspective,
        evidence: failover.candidates.clone(),
    };
    let server = Server::new(vec![
        ok("/v1/decisions/17", &decision),
        ok(
            "/v1/failover/virginia/explanation",
            &Explanation {
                failover: failover.clone(),
                would_change_if: Vec::new(),
            },
        ),
    ]);
    let said = server.leeward(&["explain", "17"]).expect(0);
    assert!(
        said.out.starts_with("virginia moves to frankfurt\n"),
        "{}",
        said.out
    );
    assert!(
        said.out.contains("  moved      oregon to frankfurt\n"),
        "{}",
        said.out
    );
    assert!(said.out.contains("decision 17 at "), "{}", said.out);
    // The evidence is printed as that of today's answer is.
    let today = server
        .leeward(&["failover", "explain", "virginia"])
        .expect(0);
    let table = |text: &str| {
        text.lines()
            .filter(|line| line.contains("= score"))
            .collect::<String>()
    };
    assert!(!table(&said.out).is_empty());
    assert_eq!(table(&said.out), table(&today.out));
    assert_eq!(
        server
            .leeward(&["explain", "17", "-o", "json"])
            .expect(0)
            .json()["decision_id"],
        17
    );
}
