//! Questions to real servers on loopback, well and ill.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use leeward_common::{check::Outcome, wire::v1};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Allowed, Checker, Plan,
    ask::{Answer, Asker},
    key,
};
use crate::config::Checks;

fn allowed(networks: &[&str]) -> Allowed {
    Allowed {
        networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
        key: "checks.allow",
    }
}

fn check(url: &str) -> v1::Check {
    v1::Check {
        service: "shop".parse().unwrap(),
        check: "api".parse().unwrap(),
        region: "dub".parse().unwrap(),
        question: 7,
        url: url.to_owned(),
        status: [200, 299],
        body: None,
        timeout_us: 10_000_000,
        interval_us: 1_000_000,
    }
}

/// For servers that never answer: long enough to get as far as they let one.
fn impatient(url: &str) -> v1::Check {
    v1::Check {
        timeout_us: 300_000,
        ..check(url)
    }
}

fn holding(url: &str, text: &str) -> v1::Check {
    v1::Check {
        body: Some(text.to_owned()),
        ..check(url)
    }
}

async fn ask(check: &v1::Check) -> Answer {
    let asker = Asker::new(None).unwrap();
    asker
        .ask(&allowed(&["127.0.0.0/8", "::1/128"]), check)
        .await
}

fn answer(outcome: Outcome, detail: &str) -> Answer {
    Answer {
        outcome,
        detail: detail.to_owned(),
    }
}

/// Reads a request's head and answers with these bytes; tells of the head.
async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, reply: &[u8]) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            break;
        }
        head.extend(byte);
    }
    let _ = stream.write_all(reply).await;
    let _ = stream.shutdown().await;
    String::from_utf8(head).unwrap()
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server that answers everything with these bytes, and the heads of the requests that it got.
async fn server(reply: Vec<u8>) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (listener, address) = listen().await;
    let (heads, read) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = heads.send(converse(stream, &reply).await);
        }
    });
    (address, read)
}

fn page(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

#[tokio::test]
async fn a_page_that_is_well_is_ok_and_the_request_is_a_plain_one() {
    let (address, mut heads) = server(page("200 OK", "hello, all is well")).await;
    let url = format!("http://{address}/healthz?deep=1");
    assert_eq!(ask(&check(&url)).await, answer(Outcome::Ok, ""));
    let head = heads.recv().await.unwrap();
    assert!(
        head.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
    assert!(head.contains("user-agent: leeward-agent/"), "{head}");
    assert_eq!(
        ask(&holding(&url, "all is well")).await.outcome,
        Outcome::Ok
    );
    let other = ask(&holding(&url, "all is ill")).await;
    assert_eq!(
        other,
        answer(Outcome::Body, "the page does not hold its text")
    );
}

#[tokio::test]
async fn another_status_is_not_ok_unless_it_is_wanted() {
    let (address, _heads) = server(page("500 Oops", "")).await;
    let mut check = check(&format!("http://{address}/"));
    assert_eq!(ask(&check).await, answer(Outcome::Status, "status 500"));
    check.status = [500, 500];
    assert_eq!(ask(&check).await.outcome, Outcome::Ok);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (inside, mut heads) = server(page("200 OK", "")).await;
    let reply =
        format!("HTTP/1.1 302 Found\r\nlocation: http://{inside}/\r\ncontent-length: 0\r\n\r\n");
    let (address, _heads) = server(reply.into_bytes()).await;
    let outcome = ask(&check(&format!("http://{address}/"))).await;
    assert_eq!(outcome, answer(Outcome::Status, "status 302"));
    assert!(heads.try_recv().is_err());
}

#[tokio::test]
async fn nobody_who_listens_refuses() {
    let (listener, address) = listen().await;
    drop(listener);
    for url in [format!("http://{address}/"), format!("tcp://{address}")] {
        assert_eq!(
            ask(&check(&url)).await,
            answer(Outcome::Refused, "connection refused")
        );
    }
}

#[tokio::test]
async fn a_connection_is_enough_for_tcp_and_a_silent_server_times_out_for_http() {
    let (_listener, address) = listen().await;
    assert_eq!(
        ask(&check(&format!("tcp://{address}"))).await.outcome,
        Outcome::Ok
    );
    assert_eq!(
        ask(&impatient(&format!("http://{address}/"))).await,
        answer(Outcome::Timeout, "no answer in time")
    );
    assert_eq!(
        ask(&impatient(&format!("https://{address}/"))).await,
        answer(Outcome::Timeout, "no TLS in time")
    );
}

#[tokio::test]
async fn what_is_no_http_or_breaks_off_is_told_apart() {
    let (address, _heads) = server(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()).await;
    let odd = ask(&check(&format!("http://{address}/"))).await;
    assert_eq!(odd.outcome, Outcome::Network, "{odd:?}");
    assert!(odd.detail.starts_with("no HTTP answer: "), "{odd:?}");

    let short = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort".to_vec();
    let (address, _heads) = server(short).await;
    let broken = ask(&holding(&format!("http://{address}/"), "long")).await;
    assert_eq!(broken.outcome, Outcome::Network, "{broken:?}");
}

#[tokio::test]
async fn a_text_is_found_across_pieces_and_not_beyond_64_kib() {
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nwel\r\n3\r\ncom\r\n1\r\ne\r\n0\r\n\r\n";
    let (address, _heads) = server(chunked.to_vec()).await;
    let url = format!("http://{address}/");
    assert_eq!(ask(&holding(&url, "welcome")).await.outcome, Outcome::Ok);
    for (before, expected) in [(60_000, Outcome::Ok), (70_000, Outcome::Body)] {
        let body = format!("{}welcome", "x".repeat(before));
        let (address, _heads) = server(page("200 OK", &body)).await;
        let url = format!("http://{address}/");
        assert_eq!(
            ask(&holding(&url, "welcome")).await.outcome,
            expected,
            "{before}"
        );
    }
}

/// A TLS server with a certificate for `localhost` of an authority of its own, and that authority in a file.
async fn tls_server() -> (SocketAddr, tempfile::TempDir) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::from_params(&parameters, &authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                converse(stream, &page("200 OK", "secure")).await;
            }
        }
    });
    (address, folder)
}

#[tokio::test]
async fn only_believed_certificates_of_the_right_name_are_ok() {
    let (address, folder) = tls_server().await;
    let named = holding(&format!("https://localhost:{}/", address.port()), "secure");
    let stranger = ask(&named).await;
    assert_eq!(stranger.outcome, Outcome::Tls, "{stranger:?}");
    let believing = Asker::new(Some(&folder.path().join("ca.pem"))).unwrap();
    let loopback = allowed(&["127.0.0.0/8", "::1/128"]);
    assert_eq!(
        believing.ask(&loopback, &named).await,
        answer(Outcome::Ok, "")
    );
    let unnamed = check(&format!("https://{address}/"));
    let misnamed = believing.ask(&loopback, &unnamed).await;
    assert_eq!(misnamed.outcome, Outcome::Tls, "{misnamed:?}");
    let (listener, plain) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
        // Until the other side gives up.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let clear = ask(&check(&format!("https://{plain}/"))).await;
    assert_eq!(clear.outcome, Outcome::Tls, "{clear:?}");
}

#[test]
fn a_file_without_authorities_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("none.pem");
    std::fs::write(&file, "nothing").unwrap();
    let error = format!("{:#}", super::check_authorities(&file).unwrap_err());
    assert!(error.contains("none.pem: holds no certificate"), "{error}");
}

#[tokio::test]
async fn addresses_that_the_operator_does_not_allow_are_never_connected_to() {
    let (address, mut heads) = server(page("200 OK", "")).await;
    let asker = Asker::new(None).unwrap();
    for networks in [&["0.0.0.0/0", "::/0"][..], &["10.0.0.0/8"], &[]] {
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            let check = check(&format!("http://{host}:{}/", address.port()));
            let answer = asker.ask(&allowed(networks), &check).await;
            assert_eq!(answer.outcome, Outcome::NotAllowed, "{host} {answer:?}");
            assert!(answer.detail.contains("checks.allow"), "{answer:?}");
        }
    }
    for address in [
        "169.254.169.254",
        "169.254.1.1",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "0.0.0.0",
    ] {
        let check = check(&format!("http://{address}/"));
        let answer = asker.ask(&allowed(&["0.0.0.0/0", "::/0"]), &check).await;
        assert_eq!(answer.outcome, Outcome::NotAllowed, "{address} {answer:?}");
    }
    assert!(heads.try_recv().is_err());
    let odd = asker
        .ask(&allowed(&["0.0.0.0/0"]), &check("gopher://a/"))
        .await;
    assert_eq!(odd.outcome, Outcome::NotAllowed);
}

#[tokio::test]
async fn a_name_that_nobody_has_is_told_apart() {
    // RFC 6761 section 6.4: names under `invalid` never exist.
    let answer = ask(&impatient("http://nobody.invalid/")).await;
    assert_eq!(answer.outcome, Outcome::Dns, "{answer:?}");
}

fn plan(checks: Vec<v1::Check>) -> Plan {
    let own = |check: v1::Check| (key(&check), Arc::new(check));
    Plan {
        checks: checks.into_iter().map(own).collect(),
        allowed: allowed(&["127.0.0.0/8"]),
    }
}

fn config(concurrency: usize) -> Checks {
    Checks {
        allowed: Allowed::default(),
        ca: None,
        concurrency,
        max_per_second: 1_000,
    }
}

/// A silent server holds each question for all of its 400 ms. Eight of them, two at once, take four times as long; all at
/// once would be over 400 ms after the last began, which is within their interval of a second.
#[tokio::test]
async fn no_more_are_asked_at_once_than_may_be() {
    let (_listener, address) = listen().await;
    let checks = (0..8).map(|n| v1::Check {
        check: format!("c{n}").parse().unwrap(),
        timeout_us: 400_000,
        ..check(&format!("http://{address}/"))
    });
    let mut checker = Checker::start(&config(2)).unwrap();
    let began = Instant::now();
    checker.plans.send_replace(plan(checks.collect()));
    let mut seen = BTreeSet::new();
    while seen.len() < 8 {
        let done = checker.done.recv().await.unwrap();
        assert_eq!(done.outcome, Outcome::Timeout, "{done:?}");
        seen.insert(done.check.check.clone());
    }
    assert!(began.elapsed() >= Duration::from_millis(1_600));
}

#[tokio::test]
async fn a_check_is_asked_again_and_again_until_it_is_not_wanted_any_more() {
    let (address, _heads) = server(page("200 OK", "")).await;
    let mut checker = Checker::start(&config(4)).unwrap();
    let first = check(&format!("http://{address}/a"));
    checker.plans.send_replace(plan(vec![first.clone()]));
    for _ in 0..2 {
        let done = checker.done.recv().await.unwrap();
        assert_eq!((done.outcome, &*done.check), (Outcome::Ok, &first));
    }
    let second = v1::Check {
        question: 8,
        ..check(&format!("http://{address}/b"))
    };
    checker.plans.send_replace(plan(vec![second.clone()]));
    // At most one answer to the first question was on its way.
    let mut done = checker.done.recv().await.unwrap();
    if *done.check == first {
        done = checker.done.recv().await.unwrap();
    }
    assert_eq!(*done.check, second);
    // Without anybody who plans the thread ends.
    drop(checker.plans);
    while checker.done.recv().await.is_some() {}
}
