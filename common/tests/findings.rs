//! Findings on the wire: golden bytes, kinds of later builds, and what is refused.

#![allow(clippy::unwrap_used, reason = "tests")]

use leeward_common::{
    bgp::{
        ALLOWED_MAX, Allowed, Change, Counts, FailedLink, FeedChange, FeedState, Invalid, LeakSign,
        Leaks, MoreSpecific, Outside, Prefix, PrefixWindow, REPORT_MAX, Routing, RoutingEvent,
        Sight, Standing, Unsure, Validities, Validity, What,
    },
    finding::{
        Bandwidth, Declined, Finding,
        bandwidth::Quantity,
        flows,
        trace::{self, Answer, End, HOPS, Hint, Hop, Label, PathMtu, Says, Strays},
    },
    id::RegionId,
    time::Timestamp,
    wire::{
        WireError,
        findings::{Findings, decode, frame, parse},
        frame::{HEADER_BYTES, parse_batch, parse_header},
        limits,
    },
};
use proptest::prelude::*;

fn findings(found: Vec<Finding>) -> Findings {
    Findings {
        agent: "iad-1".parse().unwrap(),
        boot_epoch: 7,
        sequence: 18,
        at: Timestamp::from_unix_us(300),
        findings: found,
    }
}

fn reread(findings: &Findings) -> Result<Findings, WireError> {
    let frame = frame(findings);
    let (header, payload) = frame.split_first_chunk::<HEADER_BYTES>().unwrap();
    parse(&parse_header(header)?, payload)
}

fn declined() -> Finding {
    Finding::Declined(Declined {
        order: 9,
        reason: "no".to_owned(),
    })
}

fn bandwidth() -> Bandwidth {
    Bandwidth {
        target: "dub-1.v4".parse().unwrap(),
        region: Some("dub".parse().unwrap()),
        at: Timestamp::from_unix_us(200),
        order: Some(7),
        heavy: false,
        capacity_upper: Some(Quantity {
            method: "trains".to_owned(),
            bps: 1_000,
            low_bps: 900,
            high_bps: 1_100,
            samples: 5,
            bytes: 300,
            doubt: None,
        }),
        available_est: Some(Quantity {
            method: "paced".to_owned(),
            bps: 10,
            low_bps: 9,
            high_bps: 11,
            samples: 6,
            bytes: 301,
            doubt: Some("no".to_owned()),
        }),
        goodput_seen: None,
        bytes: 601,
        took_us: 500,
        note: String::new(),
    }
}

/// What is journaled today must be readable for ever: these bytes never change.
#[test]
fn golden_bytes_of_bandwidth() {
    let findings = findings(vec![Finding::Bandwidth(Box::new(bandwidth()))]);
    let payload = b"\x85\xa5agent\xa5iad-1\xaaboot_epoch\x07\xa8sequence\x12\xa2at\xcd\x01\x2c\xa8findings\x91\
        \x81\xa9bandwidth\x88\xa6target\xa8dub-1.v4\xa6region\xa3dub\xa2at\xcc\xc8\xa5order\x07\
        \xaecapacity_upper\x86\xa6method\xa6trains\xa3bps\xcd\x03\xe8\xa7low_bps\xcd\x03\x84\xa8high_bps\xcd\x04\x4c\
        \xa7samples\x05\xa5bytes\xcd\x01\x2c\
        \xadavailable_est\x87\xa6method\xa5paced\xa3bps\x0a\xa7low_bps\x09\xa8high_bps\x0b\
        \xa7samples\x06\xa5bytes\xcd\x01\x2d\xa5doubt\xa2no\
        \xa5bytes\xcd\x02\x59\xa7took_us\xcd\x01\xf4";
    let frame = frame(&findings);
    assert_eq!(
        frame[HEADER_BYTES..].escape_ascii().to_string(),
        payload.escape_ascii().to_string()
    );
    assert_eq!(decode(payload).unwrap(), findings);
    assert_eq!(reread(&findings).unwrap(), findings);
}

#[test]
fn texts_of_bandwidth_are_bounded() {
    let mut long = bandwidth();
    long.note = "x".repeat(limits::TEXT_BYTES + 1);
    let told = findings(vec![Finding::Bandwidth(Box::new(long))]);
    assert!(matches!(
        reread(&told),
        Err(WireError::TooLarge { what: "note", .. })
    ));
}

/// What is journaled today must be readable for ever: these bytes never change.
#[test]
fn golden_bytes() {
    let mut trace = trace::sample(&["10.0.0.1"]);
    trace.hops[0].answers[0].labels = vec![Label {
        label: 5,
        class: 1,
        ttl: 9,
    }];
    trace.mtu = Some(PathMtu {
        bytes: 1_400,
        local: 1_500,
        hinted: Some(Hint {
            bytes: 1_400,
            from: "10.0.0.1".parse().unwrap(),
        }),
        black_hole: false,
        probes: 6,
    });
    let findings = findings(vec![Finding::Trace(Box::new(trace)), declined()]);
    let payload = b"\x85\xa5agent\xa5iad-1\xaaboot_epoch\x07\xa8sequence\x12\xa2at\xcd\x01\x2c\xa8findings\x92\
        \x81\xa5trace\x8b\xa5order\x07\xa6target\xa8dub-1.v4\xa6region\xa3dub\xa4kind\xa4icmp\
        \xa7address\x81\xa2V4\x94\xcc\xc0\x00\x02\x09\xa5began\xce\x00\x0f\x42\x40\xa7took_us\xcd\x01\xf4\
        \xa4hops\x91\x83\xa3ttl\x01\xa4sent\x03\xa7answers\x91\x84\xa4from\x81\xa2V4\x94\x0a\x00\x00\x01\
        \xa4says\xa7reached\xa7rtts_us\x92\xcd\x01\x2c\xcc\xc8\xa6labels\x91\x83\xa5label\x05\xa5class\x01\xa3ttl\x09\
        \xa3end\xa7reached\xa3mtu\x85\xa5bytes\xcd\x05\x78\xa5local\xcd\x05\xdc\
        \xa6hinted\x82\xa5bytes\xcd\x05\x78\xa4from\x81\xa2V4\x94\x0a\x00\x00\x01\xaablack_hole\xc2\xa6probes\x06\
        \xa6strays\x83\xa9truncated\x00\xa7foreign\x00\xa6forged\x00\
        \x81\xa8declined\x82\xa5order\x09\xa6reason\xa2no";
    let frame = frame(&findings);
    assert_eq!(
        frame[HEADER_BYTES..].escape_ascii().to_string(),
        payload.escape_ascii().to_string()
    );
    assert_eq!(frame[..2], *b"L\x22");
    assert_eq!(decode(payload).unwrap(), findings);
    assert_eq!(reread(&findings).unwrap(), findings);
    let (header, payload) = frame.split_first_chunk::<HEADER_BYTES>().unwrap();
    let refused = parse_batch(&parse_header(header).unwrap(), payload);
    assert!(matches!(refused, Err(WireError::UnknownType(34))));
}

/// These never change either.
#[test]
fn golden_bytes_of_flows() {
    let mut flows = flows::sample("dub-1.v4", 2, 40);
    flows.flows[1] = flows::Flow::default();
    let findings = findings(vec![Finding::Flows(Box::new(flows))]);
    let payload = b"\x85\xa5agent\xa5iad-1\xaaboot_epoch\x07\xa8sequence\x12\xa2at\xcd\x01\x2c\xa8findings\x91\
        \x81\xa5flows\x87\xa6target\xa8dub-1.v4\xa6region\xa3dub\xa4kind\xa5stamp\
        \xa7address\x81\xa2V4\x94\xcc\xc0\x00\x02\x09\xa4from\xce\x01\xc9\xc3\x80\xa5until\xce\x03\x93\x87\x00\
        \xa5flows\x92\x86\xa5ended\x64\xa4lost\x28\xa4late\x01\xaalost_pairs\x0a\
        \xaartt_min_us\xcd\x02\xbc\xabrtt_mean_us\xcd\x03\x84\
        \x86\xa5ended\x00\xa4lost\x00\xa4late\x00\xaalost_pairs\x00\xaartt_min_us\xc0\xabrtt_mean_us\xc0";
    let frame = frame(&findings);
    assert_eq!(
        frame[HEADER_BYTES..].escape_ascii().to_string(),
        payload.escape_ascii().to_string()
    );
    assert_eq!(decode(payload).unwrap(), findings);
    let many = flows::sample("dub-1.v4", flows::FLOWS + 1, 0);
    let refused = reread(&self::findings(vec![Finding::Flows(Box::new(many))]));
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("list of flows of 17")
    );
}

#[test]
fn a_kind_of_a_later_build_is_passed_over() {
    let mut payload =
        b"\x85\xa5agent\xa5iad-1\xaaboot_epoch\x07\xa8sequence\x12\xa2at\x05\xa8findings\x92"
            .to_vec();
    payload.extend(b"\x81\xa6beacon\x82\xa1x\x01\xa1y\x93\x01\x02\x03");
    payload.extend(b"\x81\xa8declined\x83\xa5order\x09\xa6reason\xa2no\xa5later\x01");
    let found = decode(&payload).unwrap().findings;
    assert_eq!(found, [Finding::Unknown, declined()]);
    assert_eq!(found[0].order(), None);
    assert_eq!(found[1].order(), Some(9));
}

#[test]
fn what_is_too_long_is_refused() {
    let refused = |found| reread(&findings(found)).unwrap_err().to_string();
    let trace = |change: fn(&mut trace::Trace)| {
        let mut trace = trace::sample(&["10.0.0.1"]);
        change(&mut trace);
        refused(vec![Finding::Trace(Box::new(trace))])
    };
    assert!(refused(vec![declined(); limits::FINDINGS + 1]).contains("list of findings of 17"));
    assert!(
        trace(|trace| trace.hops = vec![trace.hops[0].clone(); HOPS + 1]).contains("list of hops")
    );
    let answer = |change: fn(&mut Answer)| {
        let mut trace = trace::sample(&["10.0.0.1"]);
        change(&mut trace.hops[0].answers[0]);
        refused(vec![Finding::Trace(Box::new(trace))])
    };
    assert!(answer(|answer| answer.rtts_us = vec![1; 17]).contains("round-trip times"));
    assert!(
        answer(|answer| answer.labels = vec![
            Label {
                label: 1,
                class: 0,
                ttl: 1
            };
            9
        ])
        .contains("label stack")
    );
    assert!(trace(|trace| trace.end = End::NotSent("x".repeat(300))).contains("error of 300"));
    assert!(
        trace(|trace| trace.hops[0].answers = vec![trace.hops[0].answers[0].clone(); 17])
            .contains("answers")
    );
    let declined = Finding::Declined(Declined {
        order: 1,
        reason: "x".repeat(257),
    });
    assert!(refused(vec![declined]).contains("reason of 257"));
}

#[test]
fn the_largest_finding_fits_its_frame() {
    let answer = Answer {
        from: "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(),
        says: Says::OtherUnreachable,
        rtts_us: vec![u32::MAX; 1],
        labels: vec![
            Label {
                label: 0xf_ffff,
                class: 7,
                ttl: 255
            };
            trace::LABELS
        ],
        asn: Some(u32::MAX),
    };
    let hop = Hop {
        ttl: 255,
        sent: 16,
        answers: vec![answer; 3],
    };
    let mut trace = trace::sample(&["10.0.0.1"]);
    trace.hops = vec![hop; HOPS];
    let found = findings(vec![Finding::Trace(Box::new(trace))]);
    let length = frame(&found).len();
    assert!(length < limits::FINDINGS_BYTES, "{length}");
    assert_eq!(reread(&found).unwrap(), found);
}

proptest! {
    /// Any route within the limits is read as it was written.
    #[test]
    fn what_is_written_is_read(
        rtts in prop::collection::vec(prop::collection::vec(any::<u32>(), 0..16), 0..64),
        strays in any::<(u32, u32, u32)>(),
        order in any::<Option<u64>>(),
    ) {
        let mut trace = trace::sample(&[]);
        trace.order = order;
        trace.strays = Strays { truncated: strays.0, foreign: strays.1, forged: strays.2 };
        trace.hops = rtts
            .into_iter()
            .enumerate()
            .map(|(at, rtts_us)| Hop {
                ttl: at as u8,
                sent: 16,
                answers: vec![Answer {
                    from: std::net::Ipv4Addr::from(at as u32).into(),
                    says: Says::TimeExceeded,
                    rtts_us,
                    labels: Vec::new(),
                    asn: None,
                }],
            })
            .collect();
        let found = findings(vec![Finding::Trace(Box::new(trace))]);
        prop_assert_eq!(reread(&found).unwrap(), found);
    }
}

/// A report of routing with something of everything.
fn routing() -> Routing {
    let (prefix, region) = (
        Prefix::new([192, 0, 2, 0].into(), 24).unwrap(),
        "dub".parse().unwrap(),
    );
    let source = [10, 0, 0, 1].into();
    let sight = Sight {
        visible: 1,
        gone: 2,
        gone_sources: 1,
        stuck: 0,
        unsure: Unsure::default(),
        outside: Outside::default(),
    };
    let event = |what| RoutingEvent {
        at: Timestamp::from_unix_us(1),
        feed: "10.0.0.1 session".to_owned(),
        source,
        what,
        collector: None,
    };
    let changes = [
        Change::Withdrawn {
            path: "1 2".to_owned(),
            malformed: false,
        },
        Change::OriginChanged {
            from: None,
            to: Some(64_500),
        },
        Change::MoreSpecific(MoreSpecific {
            prefix,
            origin: Some(1),
            validity: Validity::Unknown,
        }),
    ];
    let mut events: Vec<_> = changes
        .map(|change| What::Prefix {
            prefix,
            region: RegionId::clone(&region),
            change,
            sight,
            learned: false,
        })
        .map(event)
        .into();
    events.push(event(What::Feed(FeedChange::Down {
        why: "gone".to_owned(),
        watched: 3,
    })));
    Routing {
        events,
        windows: vec![PrefixWindow {
            prefix,
            region,
            start: Timestamp::from_unix_us(2),
            span_us: 10,
            counts: Counts {
                withdrawals: 1,
                ..Counts::default()
            },
            longer_max: 1,
            edit_distance_max: 2,
            exploration_max: 3,
            penalty_fast: 4,
            penalty_slow: 5,
            origins: vec![64_500],
            more_specifics: Vec::new(),
            blackholed: false,
            shutting_down: true,
            sight,
            validities: Validities::default(),
            leaks: Leaks::default(),
            over_failed_link: false,
            learned: false,
        }],
        feeds: vec![FeedState {
            feed: "10.0.0.1 session".to_owned(),
            source,
            system: 64_501,
            standing: Standing::Believed,
            since: Timestamp::from_unix_us(3),
            updates: 4,
            announced: 5,
            withdrawn: 6,
            fabricated: 7,
            collector: None,
        }],
    }
}

/// These never change either.
#[test]
fn golden_bytes_of_routing() {
    let findings = findings(vec![Finding::Routing(Box::new(routing()))]);
    let payload = include_bytes!("golden/routing.msgpack");
    let frame = frame(&findings);
    assert_eq!(
        frame[HEADER_BYTES..].escape_ascii().to_string(),
        payload.escape_ascii().to_string()
    );
    assert_eq!(decode(payload).unwrap(), findings);
}

/// Nor these, of a link that failed.
#[test]
fn golden_bytes_of_links() {
    let link = FailedLink {
        near: 64_501,
        far: 64_502,
        fit_permille: 987,
        lost: 40,
        remaining: 2,
        alike: 1,
    };
    let mut routing = routing();
    routing.events.truncate(2);
    routing.events[0].what = What::Link(link);
    let What::Prefix { change, .. } = &mut routing.events[1].what else {
        panic!("no event of a prefix");
    };
    *change = Change::OverFailedLink(link);
    routing.windows[0].over_failed_link = true;
    routing.feeds.clear();
    let findings = findings(vec![Finding::Routing(Box::new(routing))]);
    let payload = include_bytes!("golden/links.msgpack");
    let frame = frame(&findings);
    assert_eq!(
        frame[HEADER_BYTES..].escape_ascii().to_string(),
        payload.escape_ascii().to_string()
    );
    assert_eq!(decode(payload).unwrap(), findings);
}

/// Nor these, of feeds that nobody can believe now.
#[test]
fn golden_bytes_of_doubt() {
    let mut routing = routing();
    routing.events.truncate(1);
    routing.feeds.clear();
    let unsure = Unsure {
        feeds: 2,
        known_at: Timestamp::from_unix_us(9),
    };
    let What::Prefix { sight, change, .. } = &mut routing.events[0].what else {
        panic!("no event of a prefix");
    };
    *change = Change::Withdrawn {
        path: "1 2".to_owned(),
        malformed: true,
    };
    (sight.unsure, routing.windows[0].sight.unsure) = (unsure, unsure);
    let findings = findings(vec![Finding::Routing(Box::new(routing))]);
    let payload = include_bytes!("golden/doubt.msgpack");
    let frame = frame(&findings);
    assert_eq!(
        frame[HEADER_BYTES..].escape_ascii().to_string(),
        payload.escape_ascii().to_string()
    );
    assert_eq!(decode(payload).unwrap(), findings);
}

#[test]
fn a_report_of_routing_is_read_as_it_was_written_and_checked() {
    let report = |routing: Routing| findings(vec![Finding::Routing(Box::new(routing))]);
    let whole = report(routing());
    assert_eq!(reread(&whole).unwrap(), whole);
    let mut many = routing();
    many.windows = vec![many.windows[0].clone(); REPORT_MAX + 1];
    assert!(reread(&report(many)).is_err());
    let mut long = routing();
    long.events[0].feed = "x".repeat(limits::REASON_BYTES + 1);
    assert!(reread(&report(long)).is_err());
    let mut origins = routing();
    origins.windows[0].origins = vec![1; 9];
    assert!(reread(&report(origins)).is_err());
    let mut signs = routing();
    signs.windows[0].validities.add(Validity::InvalidLength);
    signs.windows[0].leaks.valley = 3;
    let invalid = Invalid {
        prefix: signs.windows[0].prefix,
        origin: None,
        was: Some(Validity::NotFound),
        is: Validity::InvalidOrigin,
        allowed: vec![
            Allowed {
                prefix: signs.windows[0].prefix,
                length_max: 24,
                system: 64_500,
            };
            ALLOWED_MAX
        ],
    };
    let tell = |signs: &mut Routing, told: Change| {
        let What::Prefix { change, .. } = &mut signs.events[0].what else {
            panic!("not of a prefix");
        };
        *change = told;
    };
    let sign = LeakSign::Valley {
        upper: 1,
        through: 2,
        lower: 3,
    };
    let path = "1 2 3".to_owned();
    tell(&mut signs, Change::Leaked { sign, path });
    assert_eq!(
        reread(&report(signs.clone())).unwrap(),
        report(signs.clone())
    );
    let mut too_many = invalid.clone();
    tell(&mut signs, Change::Invalid(invalid));
    assert_eq!(
        reread(&report(signs.clone())).unwrap(),
        report(signs.clone())
    );
    too_many.allowed.push(too_many.allowed[0]);
    tell(&mut signs, Change::Invalid(too_many));
    assert!(reread(&report(signs)).is_err());
    // The largest report fits into one message.
    let mut largest = routing();
    largest.events = vec![largest.events[0].clone(); REPORT_MAX];
    for event in &mut largest.events {
        event.feed = "x".repeat(limits::REASON_BYTES);
    }
    largest.windows = vec![largest.windows[0].clone(); REPORT_MAX];
    largest.feeds = vec![largest.feeds[0].clone(); REPORT_MAX];
    assert!(frame(&report(largest)).len() < limits::FINDINGS_BYTES);
}
