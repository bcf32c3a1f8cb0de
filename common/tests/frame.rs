//! Frames and control messages: golden bytes for every type, and what is refused.

#![allow(clippy::unwrap_used, reason = "tests")]

use leeward_common::{
    check::{MAX_BODY, MAX_URL, Outcome},
    report::{Path, ProbeKind},
    wire::{
        WireError,
        frame::{
            HEADER_BYTES, Header, MAGIC, frame_batch, frame_from_agent, frame_from_aggregator,
            number, parse_batch, parse_from_agent, parse_from_aggregator, parse_header,
        },
        limits,
        v1::{
            AgentStatus, Check, CheckResult, CheckResults, Durable, FromAgent, FromAggregator,
            Hello, KnownEpoch, Mesh, MeshApplied, Order, Paths, PathsDurable, Refuse, RefuseCode,
            RefusedTarget, Target, TraceOrder, Welcome, common_version,
        },
    },
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// MessagePack as a person would write it: `{N`, `[N`, texts in quotes, numbers as hexadecimal bytes.
fn golden(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in text.split_whitespace() {
        match word.split_at(1) {
            ("{", count) => bytes.push(0x80 | count.parse::<u8>().unwrap()),
            ("[", count) => bytes.push(0x90 | count.parse::<u8>().unwrap()),
            ("'", text) => {
                let text = text.trim_end_matches('\'');
                bytes.push(0xa0 | text.len() as u8);
                bytes.extend(text.bytes());
            }
            _ => bytes.extend(
                (0..word.len())
                    .step_by(2)
                    .map(|at| u8::from_str_radix(&word[at..at + 2], 16).unwrap()),
            ),
        }
    }
    bytes
}

fn split(frame: &[u8]) -> (Header, &[u8]) {
    let (header, payload) = frame.split_first_chunk::<HEADER_BYTES>().unwrap();
    (parse_header(header).unwrap(), payload)
}

fn with_header(message_type: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![MAGIC, message_type, 0, 0];
    frame.extend((payload.len() as u32).to_be_bytes());
    frame.extend(crc32c::crc32c(payload).to_be_bytes());
    frame.extend(payload);
    frame
}

fn hello() -> Hello {
    Hello {
        agent: "iad-1".parse().unwrap(),
        region: "iad".parse().unwrap(),
        boot_epoch: 0x0123_4567_89ab_cdef,
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        answer_port: 4_000,
        stamp_port: None,
        orders: false,
        build: "0.1.0".to_owned(),
        versions: [1, 1],
        backlog: Vec::new(),
    }
}

fn mesh() -> Mesh {
    Mesh {
        version: 7,
        interval_us: 100_000,
        window_us: 1_000_000,
        expiry_us: 3_000_000,
        schema: 1,
        silence_probes: 4,
        silence_us: 500_000,
        flows: leeward_common::wire::v1::FLOWS,
        targets: vec![Target {
            id: "dub-1".parse().unwrap(),
            region: None,
            address: "192.0.2.2".parse().unwrap(),
            kinds: vec![ProbeKind::Icmp, ProbeKind::TcpSyn],
            port: 0,
            stamp_port: 0,
        }],
        checks: Vec::new(),
        watch: Vec::new(),
    }
}

fn check() -> Check {
    Check {
        service: "shop".parse().unwrap(),
        check: "api".parse().unwrap(),
        region: "dub".parse().unwrap(),
        question: 7,
        url: "tcp://192.0.2.1:80".to_owned(),
        status: [200, 299],
        body: None,
        timeout_us: 2_000_000,
        interval_us: 10_000_000,
    }
}

fn check_result(detail: &str) -> CheckResults {
    CheckResults {
        results: vec![CheckResult {
            service: "shop".parse().unwrap(),
            check: "api".parse().unwrap(),
            region: "dub".parse().unwrap(),
            question: 7,
            outcome: Outcome::NotAllowed,
            latency_us: 1,
            age_us: 2,
            detail: detail.to_owned(),
        }],
    }
}

fn applied(reason: &str) -> MeshApplied {
    let refused = RefusedTarget {
        target: "x".parse().unwrap(),
        reason: reason.to_owned(),
    };
    MeshApplied {
        version: 7,
        refused: vec![refused],
    }
}

fn refuse(reason: &str) -> Refuse {
    Refuse {
        code: RefuseCode::UnknownRegion,
        reason: reason.to_owned(),
    }
}

fn from_agent() -> [(FromAgent, &'static str); 5] {
    [
        (
            FromAgent::Hello(hello()),
            "{6 'agent' 'iad-1' 'region' 'iad' 'boot_epoch' cf0123456789abcdef
             'addresses' [2 {1 'V4' [4 ccc0 00 02 01
                            {1 'V6' dc0010 20 01 0d ccb8 00 00 00 00 00 00 00 00 00 00 00 01
             'answer_port' cd0fa0 'build' '0.1.0'",
        ),
        (
            FromAgent::Paths(Paths {
 boot_epoch: None,
                table: 1,
                paths: vec![Path {
                    target: "dub-1".parse().unwrap(),
                    kind: ProbeKind::TcpSyn,
                    region: Some("dub".parse().unwrap()),
                }],
            }),
            "{2 'table' 01 'paths' [1 {3 'target' 'dub-1' 'kind' 'tcp_syn' 'region' 'dub'",
        ),
        (
            FromAgent::MeshApplied(applied("no-route")),
            "{2 'version' 07 'refused' [1 {2 'target' 'x' 'reason' 'no-route'",
        ),
        (
            FromAgent::Status(AgentStatus { scheduled: 300, stamps: "icmp:kernel".to_owned(), ..Default::default() }),
            "{11 'scheduled' cd012c 'sent' 00 'not_sent' 00 'local_drop' 00 'send_lateness_p99_us' 00 'strays' 00
             'batches_waiting' 00 'batches_dropped' 00 'resident_bytes' 00 'cpu_us' 00 'stamps' 'icmp:kernel'",
        ),
        (
            FromAgent::CheckResults(check_result("why")),
            "{1 'results' [1 {8 'service' 'shop' 'check' 'api' 'region' 'dub' 'question' 07 'outcome' 'not_allowed'
             'latency_us' 01 'age_us' 02 'detail' 'why'",
        ),
    ]
}

fn from_aggregator() -> [(FromAggregator, &'static str); 8] {
    [
        (
            FromAggregator::Welcome(Welcome { aggregator: "agg-1".to_owned(), durable_below: 5, findings: false, version: 1, backlog: Vec::new(), credit: None }),
            "{2 'aggregator' 'agg-1' 'durable_below' 05",
        ),
        (
            FromAggregator::Refuse(refuse("unknown")),
            "{2 'code' 'unknown_region' 'reason' 'unknown'",
        ),
        (
            FromAggregator::Mesh(mesh()),
            "{8 'version' 07 'interval_us' ce000186a0 'window_us' ce000f4240 'expiry_us' ce002dc6c0 'schema' 01 'silence_probes' 04 'silence_us' ce0007a120
             'targets' [1 {5 'id' 'dub-1' 'region' c0 'address' {1 'V4' [4 ccc0 00 02 02 'kinds' [2 'icmp' 'tcp_syn'
                           'port' 00",
        ),
        (
            FromAggregator::Mesh(Mesh { targets: Vec::new(), checks: vec![check()], ..mesh() }),
            "{9 'version' 07 'interval_us' ce000186a0 'window_us' ce000f4240 'expiry_us' ce002dc6c0 'schema' 01 'silence_probes' 04 'silence_us' ce0007a120
             'targets' [0 'checks' [1 {8 'service' 'shop' 'check' 'api' 'region' 'dub' 'question' 07 'url' 'tcp://192.0.2.1:80'
             'status' [2 ccc8 cd012b 'timeout_us' ce001e8480 'interval_us' ce00989680",
        ),
        (FromAggregator::PathsDurable(PathsDurable { table: 1, boot_epoch: None }), "{1 'table' 01"),
        (
            FromAggregator::Durable(Durable { sequences: vec![17, 300], ..Durable::default() }),
            "{1 'sequences' [2 11 cd012c",
        ),
        (
            FromAggregator::Welcome(Welcome { aggregator: "agg-1".to_owned(), durable_below: 5, findings: true, version: 1, backlog: Vec::new(), credit: None }),
            "{3 'aggregator' 'agg-1' 'durable_below' 05 'findings' c3",
        ),
        (
            FromAggregator::Order(Order {
                order: 300,
                trace: Some(TraceOrder { target: "dub-1".parse().unwrap(), kind: ProbeKind::TcpSyn, mtu: true }), bandwidth: None,
            }),
            "{2 'order' cd012c 'trace' {3 'target' 'dub-1' 'kind' 'tcp_syn' 'mtu' c3",
        ),
    ]
}

#[test]
fn golden_bytes_of_an_agent() {
    for ((message, text), number) in from_agent().into_iter().zip([1, 2, 3, 4, 5]) {
        let expected = with_header(number, &golden(text));
        assert_eq!(
            hex(&frame_from_agent(&message)),
            hex(&expected),
            "{message:?}"
        );
        let (header, payload) = split(&expected);
        assert_eq!(parse_from_agent(&header, payload).unwrap(), message);
        assert!(matches!(
            parse_from_aggregator(&header, payload),
            Err(WireError::UnknownType(_))
        ));
        assert!(matches!(
            parse_batch(&header, payload),
            Err(WireError::UnknownType(_))
        ));
    }
}

#[test]
fn golden_bytes_of_an_aggregator() {
    for ((message, text), number) in from_aggregator()
        .into_iter()
        .zip([17, 18, 19, 19, 20, 21, 17, 22])
    {
        let expected = with_header(number, &golden(text));
        assert_eq!(
            hex(&frame_from_aggregator(&message)),
            hex(&expected),
            "{message:?}"
        );
        let (header, payload) = split(&expected);
        assert_eq!(parse_from_aggregator(&header, payload).unwrap(), message);
        assert!(matches!(
            parse_from_agent(&header, payload),
            Err(WireError::UnknownType(_))
        ));
    }
}

#[test]
fn golden_bytes_of_a_batch_frame() {
    // The check value of CRC-32C is that of the nine digits (RFC 3720 uses the same polynomial).
    let frame = frame_batch(b"123456789");
    assert_eq!(hex(&frame), "4c21000000000009e3069283313233343536373839");
    let (header, payload) = split(&frame);
    assert_eq!(parse_batch(&header, payload).unwrap(), b"123456789");
}

#[test]
fn a_header_is_refused_before_its_payload_is_read() {
    let header = |change: fn(&mut [u8; HEADER_BYTES])| {
        let mut header = [MAGIC, number::HELLO, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0];
        change(&mut header);
        parse_header(&header)
    };
    assert_eq!(header(|_| ()).unwrap().length, 9);
    assert!(matches!(
        header(|header| header[0] = b'G'),
        Err(WireError::Magic { first: b'G', .. })
    ));
    assert!(matches!(
        header(|header| header[1] = 0),
        Err(WireError::UnknownType(0))
    ));
    assert!(matches!(
        header(|header| header[1] = 35),
        Err(WireError::UnknownType(35))
    ));
    assert!(matches!(
        header(|header| header[3] = 1),
        Err(WireError::Malformed { .. })
    ));
    let error = header(|header| header[4] = 0xff).unwrap_err().to_string();
    assert_eq!(error, "hello of 4278190089 exceeds the limit of 16384");
}

#[test]
fn a_payload_must_be_the_one_that_was_announced() {
    let frame = frame_batch(b"columns");
    let (header, payload) = split(&frame);
    let error = parse_batch(&header, &payload[1..]).unwrap_err();
    assert!(
        matches!(
            error,
            WireError::Truncated {
                have: 6,
                need: 7,
                ..
            }
        ),
        "{error}"
    );
    let longer = [payload, &[0]].concat();
    assert!(matches!(
        parse_batch(&header, &longer),
        Err(WireError::Malformed { .. })
    ));
    let mut changed = payload.to_vec();
    changed[3] ^= 1;
    assert!(matches!(
        parse_batch(&header, &changed),
        Err(WireError::Checksum { .. })
    ));
}

fn refused(message_type: u8, payload: &[u8]) -> String {
    let frame = with_header(message_type, payload);
    let (header, payload) = split(&frame);
    match message_type {
        0..=16 => parse_from_agent(&header, payload).unwrap_err().to_string(),
        _ => parse_from_aggregator(&header, payload)
            .unwrap_err()
            .to_string(),
    }
}

#[test]
fn what_is_no_message_is_refused() {
    let cases = [
        (number::PATHS_DURABLE, "", "not a MessagePack map"),
        (number::PATHS_DURABLE, "[1 01", "not a MessagePack map"),
        (number::PATHS_DURABLE, "{0", "missing field `table`"),
        (
            number::PATHS_DURABLE,
            "{1 'table'",
            "malformed path table acknowledgement",
        ),
        (
            number::PATHS_DURABLE,
            "{1 'table' 'x'",
            "malformed path table acknowledgement",
        ),
        (
            number::PATHS_DURABLE,
            "{2 'table' 01 'table' 02",
            "duplicate field `table`",
        ),
        (
            number::PATHS_DURABLE,
            "{1 'table' 01 00",
            "bytes follow its end",
        ),
        (
            number::PATHS,
            "{2 'table' 01 'paths' [1 {2 'target' 'A' 'kind' 'icmp'",
            "\"A\" is not a target id",
        ),
        (
            number::PATHS,
            "{2 'table' 01 'paths' [1 {2 'target' 'a' 'kind' 'udp'",
            "udp",
        ),
        // Lengths that are not there: nothing may be made room for on their word.
        (
            number::DURABLE,
            "{1 'sequences' ddffffffff 01",
            "malformed batch acknowledgement",
        ),
        (
            number::WELCOME,
            "{1 'aggregator' dbffffffff 61",
            "malformed welcome",
        ),
        (
            number::PATHS_DURABLE,
            "dfffffffff 'table' 01",
            "malformed path table acknowledgement",
        ),
    ];
    for (message_type, text, word) in cases {
        let error = refused(message_type, &golden(text));
        assert!(
            error.contains(word),
            "{text}: {error:?} does not say {word:?}"
        );
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| {
        let mut payload = golden("{2 'table' 01 'later'");
        payload.extend(std::iter::repeat_n(0x91, depth));
        payload.push(0);
        payload
    };
    let frame = with_header(number::PATHS_DURABLE, &nested(8));
    let (header, payload) = split(&frame);
    assert!(parse_from_aggregator(&header, payload).is_ok());
    assert!(refused(number::PATHS_DURABLE, &nested(10_000)).contains("depth limit"));
}

/// What version 2 added to messages of version 1, and that version 1 is what is read where it is absent.
#[test]
fn golden_bytes_of_version_2() {
    let said = FromAgent::Hello(Hello {
        addresses: Vec::new(),
        versions: [1, 2],
        backlog: vec![7],
        ..hello()
    });
    let text = "{8 'agent' 'iad-1' 'region' 'iad' 'boot_epoch' cf0123456789abcdef 'addresses' [0 'answer_port' cd0fa0
                'build' '0.1.0' 'versions' [2 01 02 'backlog' [1 07";
    assert_eq!(
        hex(&frame_from_agent(&said)),
        hex(&with_header(number::HELLO, &golden(text)))
    );
    let said = FromAgent::Paths(Paths {
        table: 1,
        boot_epoch: Some(7),
        paths: Vec::new(),
    });
    let text = "{3 'table' 01 'boot_epoch' 07 'paths' [0";
    assert_eq!(
        hex(&frame_from_agent(&said)),
        hex(&with_header(number::PATHS, &golden(text)))
    );
    let heard = [
        (
            number::WELCOME,
            FromAggregator::Welcome(Welcome {
                aggregator: "a".to_owned(),
                durable_below: 5,
                findings: false,
                version: 2,
                backlog: vec![KnownEpoch {
                    boot_epoch: 7,
                    durable_below: 9,
                }],
                credit: Some(28),
            }),
            "{5 'aggregator' 'a' 'durable_below' 05 'version' 02 'backlog' [1 {2 'boot_epoch' 07 'durable_below' 09 'credit' 1c",
        ),
        (
            number::PATHS_DURABLE,
            FromAggregator::PathsDurable(PathsDurable {
                table: 1,
                boot_epoch: Some(7),
            }),
            "{2 'table' 01 'boot_epoch' 07",
        ),
        (
            number::DURABLE,
            FromAggregator::Durable(Durable {
                sequences: vec![17],
                boot_epoch: Some(7),
                refused: vec![17],
                reason: "old".to_owned(),
                credit: Some(1),
            }),
            "{5 'sequences' [1 11 'boot_epoch' 07 'refused' [1 11 'reason' 'old' 'credit' 01",
        ),
    ];
    for (number, message, text) in heard {
        let frame = with_header(number, &golden(text));
        assert_eq!(hex(&frame_from_aggregator(&message)), hex(&frame));
        let (header, payload) = split(&frame);
        assert_eq!(parse_from_aggregator(&header, payload).unwrap(), message);
    }
}

#[test]
fn the_newest_version_that_both_know_is_spoken() {
    assert_eq!(common_version([1, 2], [1, 1]), Some(1));
    assert_eq!(common_version([1, 2], [2, 9]), Some(2));
    assert_eq!(common_version([1, 2], [3, 9]), None);
    assert_eq!(common_version([4, 5], [1, 3]), None);
}

#[test]
fn a_message_may_grow() {
    let grown = golden("{3 'aggregator' 'agg-1' 'durable_below' 05 'later' [2 {1 'a' 01 'b'");
    let frame = with_header(number::WELCOME, &grown);
    let (header, payload) = split(&frame);
    assert!(parse_from_aggregator(&header, payload).is_ok());

    let shrunk = golden("{1 'sent' 09");
    let frame = with_header(number::STATUS, &shrunk);
    let (header, payload) = split(&frame);
    let expected = FromAgent::Status(AgentStatus {
        sent: 9,
        ..Default::default()
    });
    assert_eq!(parse_from_agent(&header, payload).unwrap(), expected);

    let later = golden("{2 'code' 'of_a_newer_build' 'reason' 'x'");
    let frame = with_header(number::REFUSE, &later);
    let (header, payload) = split(&frame);
    let expected = FromAggregator::Refuse(Refuse {
        code: RefuseCode::Other,
        reason: "x".to_owned(),
    });
    assert_eq!(parse_from_aggregator(&header, payload).unwrap(), expected);
}

#[test]
fn lists_have_limits() {
    let too_large = |frame: Vec<u8>| {
        let (header, payload) = split(&frame);
        let error = match header.message_type {
            0..=16 => parse_from_agent(&header, payload).unwrap_err(),
            _ => parse_from_aggregator(&header, payload).unwrap_err(),
        };
        match error {
            WireError::TooLarge { what, limit, .. } => (what, limit),
            other => panic!("{other}"),
        }
    };
    let addresses = vec!["192.0.2.1".parse().unwrap(); limits::ADDRESSES + 1];
    let frame = frame_from_agent(&FromAgent::Hello(Hello {
        addresses,
        ..hello()
    }));
    assert_eq!(too_large(frame), ("list of addresses", limits::ADDRESSES));

    let path = Path {
        target: "x".parse().unwrap(),
        kind: ProbeKind::Icmp,
        region: None,
    };
    let frame = frame_from_agent(&FromAgent::Paths(Paths {
        boot_epoch: None,
        table: 1,
        paths: vec![path; limits::PATHS + 1],
    }));
    assert_eq!(too_large(frame), ("path table", limits::PATHS));

    let refused = vec![applied("x").refused.swap_remove(0); limits::TARGETS + 1];
    let frame = frame_from_agent(&FromAgent::MeshApplied(MeshApplied {
        version: 1,
        refused,
    }));
    assert_eq!(
        too_large(frame),
        ("list of refused targets", limits::TARGETS)
    );

    let targets = vec![mesh().targets.swap_remove(0); limits::TARGETS + 1];
    let frame = frame_from_aggregator(&FromAggregator::Mesh(Mesh { targets, ..mesh() }));
    assert_eq!(too_large(frame), ("mesh", limits::TARGETS));

    let checks = vec![check(); limits::CHECKS + 1];
    let frame = frame_from_aggregator(&FromAggregator::Mesh(Mesh { checks, ..mesh() }));
    assert_eq!(too_large(frame), ("list of checks", limits::CHECKS));
    let results = vec![check_result("").results.swap_remove(0); limits::CHECKS + 1];
    let frame = frame_from_agent(&FromAgent::CheckResults(CheckResults { results }));
    assert_eq!(too_large(frame), ("list of check results", limits::CHECKS));
    for (long, what, limit) in [
        (
            Check {
                url: "u".repeat(MAX_URL + 1),
                ..check()
            },
            "URL of a check",
            MAX_URL,
        ),
        (
            Check {
                body: Some("b".repeat(MAX_BODY + 1)),
                ..check()
            },
            "text of a check",
            MAX_BODY,
        ),
    ] {
        let checks = vec![long];
        let frame = frame_from_aggregator(&FromAggregator::Mesh(Mesh { checks, ..mesh() }));
        assert_eq!(too_large(frame), (what, limit));
    }

    let mut wide = mesh();
    wide.targets[0].kinds = vec![ProbeKind::Icmp; limits::KINDS + 1];
    assert_eq!(
        too_large(frame_from_aggregator(&FromAggregator::Mesh(wide))),
        ("list of probe kinds", limits::KINDS)
    );

    let sequences = vec![1; limits::SEQUENCES + 1];
    let frame = frame_from_aggregator(&FromAggregator::Durable(Durable {
        sequences,
        ..Durable::default()
    }));
    assert_eq!(too_large(frame), ("acknowledgement", limits::SEQUENCES));
}

/// What is added for STAMP: absent from messages of those who do not know it, and these bytes from those who do.
#[test]
fn a_reflectors_port_is_announced_in_these_bytes() {
    let with = |stamp_port| {
        frame_from_agent(&FromAgent::Hello(Hello {
            stamp_port,
            ..hello()
        }))
    };
    let field = b"\xaastamp_port";
    let holds = |frame: &[u8], bytes: &[u8]| frame.windows(bytes.len()).any(|at| at == bytes);
    assert!(!holds(&with(None), field));
    assert!(holds(&with(Some(0)), b"\xaastamp_port\x00"));
    assert!(holds(&with(Some(862)), b"\xaastamp_port\xcd\x03\x5e"));
    for stamp_port in [None, Some(0), Some(862)] {
        let frame = with(stamp_port);
        let (header, payload) = split(&frame);
        let read = parse_from_agent(&header, payload).unwrap();
        assert!(matches!(read, FromAgent::Hello(hello) if hello.stamp_port == stamp_port));
    }
    let mut reflecting = mesh();
    reflecting.targets[0].kinds = vec![ProbeKind::Stamp];
    reflecting.targets[0].stamp_port = 862;
    let frame = frame_from_aggregator(&FromAggregator::Mesh(reflecting.clone()));
    assert!(holds(&frame, b"\xa5kinds\x91\xa5stamp"));
    assert!(holds(&frame, b"\xaastamp_port\xcd\x03\x5e"));
    let (header, payload) = split(&frame);
    let read = parse_from_aggregator(&header, payload).unwrap();
    assert_eq!(read, FromAggregator::Mesh(reflecting));
    let plain = frame_from_aggregator(&FromAggregator::Mesh(mesh()));
    assert!(!holds(&plain, field));
}

/// The largest honest message of each type with a list passes.
#[test]
fn the_largest_messages_are_within_their_length() {
    let long = "x".repeat(63);
    let path = Path {
        target: long.parse().unwrap(),
        kind: ProbeKind::TcpSyn,
        region: Some(long.parse().unwrap()),
    };
    let refused = RefusedTarget {
        target: long.parse().unwrap(),
        reason: "r".repeat(2_000),
    };
    let target = Target {
        id: long.parse().unwrap(),
        region: Some(long.parse().unwrap()),
        address: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(),
        kinds: vec![ProbeKind::TcpSyn; limits::KINDS],
        port: u16::MAX,
        stamp_port: u16::MAX,
    };
    let question = Check {
        service: long.parse().unwrap(),
        check: long.parse().unwrap(),
        region: long.parse().unwrap(),
        question: u64::MAX,
        url: "u".repeat(MAX_URL),
        status: [u16::MAX; 2],
        body: Some("b".repeat(MAX_BODY)),
        timeout_us: u64::MAX,
        interval_us: u64::MAX,
    };
    let answer = CheckResult {
        service: long.parse().unwrap(),
        check: long.parse().unwrap(),
        region: long.parse().unwrap(),
        question: u64::MAX,
        latency_us: u64::MAX,
        age_us: u64::MAX,
        ..check_result(&"d".repeat(2_000)).results.swap_remove(0)
    };
    let agent = [
        FromAgent::CheckResults(CheckResults {
            results: vec![answer; limits::CHECKS],
        }),
        FromAgent::Paths(Paths {
            boot_epoch: None,
            table: u32::MAX,
            paths: vec![path; limits::PATHS],
        }),
        FromAgent::MeshApplied(MeshApplied {
            version: u64::MAX,
            refused: vec![refused; limits::TARGETS],
        }),
        FromAgent::Hello(Hello {
            agent: long.parse().unwrap(),
            region: long.parse().unwrap(),
            addresses: vec![target.address; limits::ADDRESSES],
            build: "b".repeat(2_000),
            versions: [2, u16::MAX],
            backlog: vec![u64::MAX; limits::EPOCHS],
            ..hello()
        }),
    ];
    for message in agent {
        let frame = frame_from_agent(&message);
        let (header, payload) = split(&frame);
        parse_from_agent(&header, payload).unwrap();
    }
    let aggregator = [
        FromAggregator::Mesh(Mesh {
            targets: vec![target; limits::TARGETS],
            checks: vec![question; limits::CHECKS],
            ..mesh()
        }),
        FromAggregator::Durable(Durable {
            sequences: vec![u64::MAX; limits::SEQUENCES],
            boot_epoch: Some(u64::MAX),
            refused: Vec::new(),
            reason: "r".repeat(2_000),
            credit: Some(u32::MAX),
        }),
        FromAggregator::Welcome(Welcome {
            aggregator: "a".repeat(2_000),
            durable_below: u64::MAX,
            findings: true,
            version: u16::MAX,
            backlog: vec![
                KnownEpoch {
                    boot_epoch: u64::MAX,
                    durable_below: u64::MAX
                };
                limits::EPOCHS
            ],
            credit: Some(u32::MAX),
        }),
    ];
    for message in aggregator {
        let frame = frame_from_aggregator(&message);
        let (header, payload) = split(&frame);
        parse_from_aggregator(&header, payload).unwrap();
    }
}

#[test]
fn texts_are_cut_when_written_and_checked_when_read() {
    let frame = frame_from_aggregator(&FromAggregator::Refuse(refuse(&"ä".repeat(1_000))));
    let (header, payload) = split(&frame);
    let expected = FromAggregator::Refuse(refuse(&"ä".repeat(limits::TEXT_BYTES / 2)));
    assert_eq!(parse_from_aggregator(&header, payload).unwrap(), expected);

    let frame = frame_from_agent(&FromAgent::MeshApplied(applied(&format!(
        "x{}",
        "ä".repeat(200)
    ))));
    let (header, payload) = split(&frame);
    let expected = FromAgent::MeshApplied(applied(&format!("x{}", "ä".repeat(127))));
    assert_eq!(parse_from_agent(&header, payload).unwrap(), expected);

    let mut long = golden("{2 'code' 'limit' 'reason' da0401");
    long.extend([b'x'; limits::TEXT_BYTES + 1]);
    assert_eq!(
        refused(number::REFUSE, &long),
        "reason of 1025 exceeds the limit of 1024"
    );
}
