//! A peer that is made up, well-behaved and not.

use proptest::prelude::*;
use rustbgpd_wire::{AddPathFamily, encode_message};

use super::*;
use crate::bgp::update::Family;

fn peer() -> Peer {
    Peer {
        address: IpAddr::from([10, 0, 0, 2]),
        system: 64_501,
        own_system: 64_500,
        router_id: Ipv4Addr::new(10, 0, 0, 1),
        hold_time: Duration::from_secs(9),
    }
}

fn open(system: u16, hold_time: u16) -> Vec<u8> {
    open_with(system, hold_time, &[])
}

fn open_with(system: u16, hold_time: u16, more: &[Capability]) -> Vec<u8> {
    let mut capabilities = vec![
        Capability::MultiProtocol {
            afi: Afi::Ipv4,
            safi: Safi::Unicast,
        },
        Capability::FourOctetAs { asn: system.into() },
        Capability::RouteRefresh,
    ];
    capabilities.extend_from_slice(more);
    let open = OpenMessage {
        version: 4,
        my_as: system,
        hold_time,
        bgp_identifier: Ipv4Addr::new(10, 0, 0, 2),
        capabilities,
    };
    encode_message(&Message::Open(open)).unwrap().to_vec()
}

fn keepalive() -> Vec<u8> {
    encode_message(&Message::Keepalive).unwrap().to_vec()
}

/// An UPDATE of AS 64501 that announces 198.51.100.0/24, with this ORIGIN.
fn announcement(origin: u8) -> Vec<u8> {
    let body = [
        0, 0, 0, 20, 0x40, 1, 1, origin, 0x40, 2, 6, 2, 1, 0, 0, 0xfb, 0xf5, 0x40, 3, 4, 192, 0, 2,
        1, 24, 198, 51, 100,
    ];
    let mut message = vec![0xff; 16];
    message.extend([0, 47, 2]);
    message.extend(body);
    message
}

fn kinds(sent: &[u8]) -> Vec<u8> {
    let (mut rest, mut kinds) = (sent, Vec::new());
    while let Ok(Some(length)) = wire::next_length(rest, false) {
        kinds.push(rest[18]);
        rest = &rest[length..];
    }
    kinds
}

fn established(now: Instant) -> Session {
    established_with(now, &[])
}

fn established_with(now: Instant, more: &[Capability]) -> Session {
    let (mut session, step) = Session::accept(now, &peer());
    assert_eq!(kinds(&step.send), [1], "an OPEN");
    let step = session.receive(now, &open_with(64_501, 90, more));
    assert_eq!(kinds(&step.send), [4], "a KEEPALIVE");
    let step = session.receive(now, &keepalive());
    assert_eq!(step.events, [Event::Up { system: 64_501 }]);
    assert!(session.is_established());
    assert_eq!(step.send, end_of_rib(Afi::Ipv4, Safi::Unicast));
    session
}

#[test]
fn ends_of_tables_are_asked_for_and_nothing_is_kept_for_anybody() {
    let (_, step) = Session::accept(Instant::now(), &peer());
    let Ok(Message::Open(open)) = wire::message(&step.send, false) else {
        panic!("no OPEN");
    };
    let restart = open.capabilities.iter().filter_map(|own| match own {
        Capability::GracefulRestart { families, .. } => Some(families.len()),
        _ => None,
    });
    assert_eq!(restart.collect::<Vec<_>>(), [0]);
    assert!(
        !open
            .capabilities
            .contains(&Capability::EnhancedRouteRefresh)
    );
}

/// All that is ever sent as an UPDATE says that nothing will be announced.
#[test]
fn golden_the_end_of_an_empty_table() {
    let mut v4 = vec![0xff; 16];
    v4.extend([0, 23, 2, 0, 0, 0, 0]);
    let mut v6 = vec![0xff; 16];
    v6.extend([0, 29, 2, 0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1]);
    assert_eq!(end_of_rib(Afi::Ipv4, Safi::Unicast), v4);
    assert_eq!(end_of_rib(Afi::Ipv6, Safi::Unicast), v6);
    for (bytes, family) in [(v4, Family::V4), (v6, Family::V6)] {
        let Ok(Message::Update(update)) = wire::message(&bytes, false) else {
            panic!("{bytes:?} is no UPDATE");
        };
        let update = wire::routes(&update, &Dialect::usual(Speaker::External)).unwrap();
        assert_eq!(update.end_of_table, Some(family));
        assert!(update.announced.is_empty() && update.withdrawn.is_empty());
    }
}

/// Whether anything is announced or withdrawn.
fn says_anything(sent: &[u8]) -> bool {
    let ends = [
        end_of_rib(Afi::Ipv4, Safi::Unicast),
        end_of_rib(Afi::Ipv6, Safi::Unicast),
    ];
    let mut rest = sent;
    while let Ok(Some(length)) = wire::next_length(rest, false) {
        if rest[18] == 2 && !ends.iter().any(|end| rest[..length] == end[..]) {
            return true;
        }
        rest = &rest[length..];
    }
    false
}

#[test]
fn a_peer_that_introduces_itself_is_heard_and_nothing_is_announced_to_it() {
    let now = Instant::now();
    let mut session = established(now);
    // In pieces, as they come.
    let bytes = announcement(0);
    let (first, second) = bytes.split_at(20);
    assert!(session.receive(now, first).events.is_empty());
    let step = session.receive(now, second);
    assert!(matches!(&step.events[..], [Event::Update(update)] if update.announced.len() == 1));
    let mut sent = step.send;
    let end = [vec![0xff; 16], vec![0, 23, 2, 0, 0, 0, 0]].concat();
    let step = session.receive(now, &end);
    assert!(
        matches!(&step.events[..], [Event::Update(update)] if update.end_of_table == Some(Family::V4))
    );
    sent.extend(step.send);
    assert!(!says_anything(&sent), "an UPDATE was sent");
}

#[test]
fn the_shorter_hold_time_holds_and_a_silent_peer_is_lost() {
    let now = Instant::now();
    let mut session = established(now);
    assert_eq!(
        (session.keepalive_deadline(), session.hold_deadline()),
        (
            Some(now + Duration::from_secs(3)),
            Some(now + Duration::from_secs(9))
        ),
        "a third of nine"
    );
    assert!(session.remind(now + Duration::from_secs(2)).send.is_empty());
    let step = session.remind(now + Duration::from_secs(3));
    assert_eq!(kinds(&step.send), [4]);
    assert!(session.expire(now + Duration::from_secs(8)).close.is_none());
    let step = session.expire(now + Duration::from_secs(9));
    assert_eq!(kinds(&step.send), [3], "a NOTIFICATION");
    assert!(
        matches!(&step.events[..], [Event::Down(Down::SessionLost(why))] if why.contains("hold time"))
    );
    assert!(step.close.is_some());
}

/// So many routes to 198.51.100.0/24 by paths 1, 2, … (RFC 7911).
fn by_paths(count: u32) -> Vec<u8> {
    let plain = announcement(0);
    let routes = (1..=count).flat_map(|id| [&id.to_be_bytes()[..], &[24, 198, 51, 100]].concat());
    let mut message = plain[..43].to_vec();
    message.extend(routes);
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    message[16..18].copy_from_slice(&length);
    message
}

#[test]
fn several_routes_to_a_prefix_and_long_messages_are_read_of_a_peer_that_can_send_them() {
    let now = Instant::now();
    let (_, step) = Session::accept(now, &peer());
    let Ok(Message::Open(ours)) = wire::message(&step.send, false) else {
        panic!("no OPEN");
    };
    let paths = |afi, send_receive| AddPathFamily {
        afi,
        safi: Safi::Unicast,
        send_receive,
    };
    let both = [Afi::Ipv4, Afi::Ipv6].map(|afi| paths(afi, AddPathMode::Receive));
    let offered = |own: &Capability| ours.capabilities.contains(own);
    assert!(offered(&Capability::AddPath(both.to_vec())), "{ours:?}");
    assert!(offered(&Capability::ExtendedMessage), "{ours:?}");
    let sends = Capability::AddPath(vec![paths(Afi::Ipv4, AddPathMode::Send)]);
    let mut session = established_with(now, &[sends.clone(), Capability::ExtendedMessage]);
    // 65,531 bytes (RFC 8654), in pieces.
    let message = by_paths(8_186);
    let (first, second) = message.split_at(60_000);
    assert!(session.receive(now, first).events.is_empty());
    let step = session.receive(now, second);
    let [Event::Update(update)] = &step.events[..] else {
        panic!("{:?}", step.close);
    };
    assert!(update.announced.iter().map(|own| own.path_id).eq(1..=8_186));
    // One that has only the former may send no long messages, and one that only receives several routes sends single ones.
    let mut session = established_with(now, &[sends]);
    let step = session.receive(now, &by_paths(500));
    assert!(matches!(&step.events[..], [Event::Update(update)] if update.announced.len() == 500));
    assert!(session.receive(now, &by_paths(600)).close.is_some());
    let receives = Capability::AddPath(vec![paths(Afi::Ipv4, AddPathMode::Receive)]);
    let mut session = established_with(now, &[receives]);
    let step = session.receive(now, &announcement(0));
    assert!(
        matches!(&step.events[..], [Event::Update(update)] if update.announced[0].path_id == 0)
    );
}

#[test]
fn a_malformed_attribute_withdraws_and_the_session_stays() {
    let now = Instant::now();
    let mut session = established(now);
    let step = session.receive(now, &announcement(9));
    let [Event::Update(update)] = &step.events[..] else {
        panic!("{:?}", step.events);
    };
    assert!(
        update.malformed.is_some() && update.withdrawn.len() == 1 && update.announced.is_empty()
    );
    assert!(step.close.is_none() && session.is_established());
}

#[test]
fn a_hostile_peer_ends_its_own_session_and_is_told_why() {
    let header = |length: u16, kind: u8| {
        let mut bytes = vec![0xff; 16];
        bytes.extend(length.to_be_bytes());
        bytes.push(kind);
        bytes
    };
    let mut long_prefix = announcement(0);
    long_prefix[43] = 77;
    let cases: [(&str, Vec<u8>); 6] = [
        ("a second OPEN", open(64_501, 90)),
        ("a header of five bytes", header(5, 2)),
        ("no marker", vec![0; 19]),
        ("a message of 5000 bytes", header(5_000, 2)),
        (
            "an UPDATE that is torn",
            [header(23, 2), vec![0xff; 4]].concat(),
        ),
        ("a prefix longer than an address", long_prefix),
    ];
    for (what, bytes) in cases {
        let now = Instant::now();
        let mut session = established(now);
        let step = session.receive(now, &bytes);
        assert_eq!(kinds(&step.send), [3], "{what}");
        assert!(
            step.close.is_some() && matches!(step.events.last(), Some(Event::Down(_))),
            "{what}"
        );
        assert!(!session.is_established(), "{what}");
    }
}

#[test]
fn a_peer_of_another_system_or_without_a_hold_time_is_not_heard() {
    for bytes in [open(64_999, 90), open(64_501, 0), open(64_501, 2)] {
        let now = Instant::now();
        let (mut session, _) = Session::accept(now, &peer());
        let step = session.receive(now, &bytes);
        assert_eq!(kinds(&step.send), [3]);
        assert!(step.close.is_some() && step.events.is_empty());
    }
}

#[test]
fn a_peer_that_says_nothing_is_closed_in_time() {
    let now = Instant::now();
    let (mut session, _) = Session::accept(now, &peer());
    assert_eq!(session.hold_deadline(), Some(now + OPEN_WITHIN));
    assert!(session.expire(now + OPEN_WITHIN).close.is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever a peer sends, before and after it introduced itself: no panic, no UPDATE of ours, and bounded memory.
    #[test]
    fn no_bytes_make_a_session_announce_or_grow(
        chunks in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            Just(keepalive()),
            Just(announcement(0)),
            (any::<u8>(), 0usize..47, any::<u8>()).prop_map(|(origin, place, value)| {
                let mut bytes = announcement(origin);
                bytes[place] = value;
                bytes
            }),
        ], 0..30),
        is_up in any::<bool>(),
    ) {
        let now = Instant::now();
        let mut session = if is_up { established(now) } else { Session::accept(now, &peer()).0 };
        for chunk in &chunks {
            let step = session.receive(now, chunk);
            prop_assert!(!says_anything(&step.send));
            prop_assert!(session.buffer.len() <= 65_535);
            if step.close.is_some() {
                break;
            }
        }
    }
}

#[test]
fn a_peer_is_asked_for_its_table_once_more_in_the_families_that_were_agreed_on() {
    let now = Instant::now();
    let session = established(now);
    let step = session.ask_again();
    assert!(step.close.is_none() && step.events.is_empty());
    // Type 5, AFI 1, SAFI 1 (RFC 2918, section 3).
    let mut golden = vec![0xff; 16];
    golden.extend([0, 23, 5, 0, 1, 0, 1]);
    assert_eq!(step.send, golden);
    let (unready, _) = Session::accept(now, &peer());
    assert!(
        unready.ask_again().send.is_empty(),
        "nothing is agreed on yet"
    );
}
