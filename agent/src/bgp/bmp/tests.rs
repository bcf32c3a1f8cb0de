//! A router that is made up, and streams that no router sends.

use super::*;

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// A message of this type.
fn framed(kind: u8, body: &[u8]) -> Bytes {
    let mut message = vec![3];
    message.extend(u32::try_from(HEADER + body.len()).unwrap().to_be_bytes());
    message.push(kind);
    message.extend(body);
    message.into()
}

/// The header of a neighbour, 10.9.9.9 of AS 64501.
fn per_peer(kind: u8, flags: u8) -> Vec<u8> {
    let mut header = vec![kind, flags];
    header.extend([0; 8]);
    header.extend([0; 12]);
    header.extend([10, 9, 9, 9]);
    header.extend(64_501u32.to_be_bytes());
    header.extend([10, 9, 9, 9]);
    header.extend([0; 8]);
    header
}

fn bgp(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

/// An OPEN that can do 4-octet numbers and sends or receives several paths of IPv4.
fn open(mode: u8) -> Vec<u8> {
    let capabilities = [65, 4, 0, 0, 0xfb, 0xf5, 69, 4, 0, 1, 1, mode];
    let mut body = vec![4, 0xfb, 0xf5, 0, 90, 10, 0, 0, 1, 14, 2, 12];
    body.extend(capabilities);
    bgp(1, &body)
}

fn peer_up(kind: u8, sent: u8, received: u8) -> Bytes {
    let mut body = per_peer(kind, 0);
    body.extend([0; 16]);
    body.extend([0, 179, 0, 179]);
    body.extend(open(sent));
    body.extend(open(received));
    framed(3, &body)
}

fn monitoring(flags: u8, update: &[u8]) -> Bytes {
    framed(0, &[per_peer(0, flags), bgp(2, update)].concat())
}

/// An UPDATE that announces 198.51.100.0/24 by AS 64501.
const ANNOUNCEMENT: [u8; 32] = [
    0, 0, 0, 20, 0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfb, 0xf5, 0x40, 3, 4, 192, 0, 2, 1, 24,
    198, 51, 100, 0, 0, 0, 0,
];

fn announcement() -> &'static [u8] {
    &ANNOUNCEMENT[..28]
}

fn station() -> Station {
    let mut station = Station::new(SOURCE);
    station.read(&peer_up(0, 0, 0)).unwrap();
    station
}

#[test]
fn a_stream_is_cut_by_its_lengths_however_it_arrives() {
    let messages = [
        framed(4, &[]),
        monitoring(0x40, announcement()),
        framed(5, &[1, 2, 3]),
    ];
    let stream = messages.concat();
    for size in 1..stream.len() {
        let (mut frames, mut got) = (Frames::default(), Vec::new());
        for chunk in stream.chunks(size) {
            frames.push(chunk);
            while let Some(frame) = frames.pop().unwrap() {
                got.push(frame);
            }
        }
        assert_eq!(got, messages.clone().map(Frame::Message));
    }
}

#[test]
fn a_message_that_is_too_long_is_passed_over_and_the_stream_goes_on() {
    let long = framed(0, &vec![7; MESSAGE_MAX]);
    let next = framed(4, &[]);
    let stream = [&long[..], &next[..]].concat();
    let (mut frames, mut got) = (Frames::default(), Vec::new());
    for chunk in stream.chunks(10_000) {
        frames.push(chunk);
        while let Some(frame) = frames.pop().unwrap() {
            got.push(frame);
        }
        assert!(frames.buffer.len() <= MESSAGE_MAX);
    }
    assert_eq!(got, [Frame::TooLong(long.len()), Frame::Message(next)]);
}

#[test]
fn a_length_that_cannot_be_meant_ends_the_stream() {
    for bytes in [
        [3, 0, 0, 0, 5, 0],
        [3, 0xff, 0, 0, 0, 0],
        [9, 0, 0, 0, 6, 4],
    ] {
        let mut frames = Frames::default();
        frames.push(&bytes);
        assert!(frames.pop().is_err());
    }
}

#[test]
fn routes_are_told_of_the_feed_that_their_flags_name() {
    let mut station = station();
    for (flags, view) in [
        (0, View::PrePolicy),
        (0x40, View::PostPolicy),
        (0x10, View::Out),
    ] {
        let told = station.read(&monitoring(flags, announcement())).unwrap();
        let [
            (up, Event::Up { system: 64_501 }),
            (feed, Event::Update(update)),
        ] = &told.events[..]
        else {
            panic!("{:?}", told.events);
        };
        assert_eq!((feed.view, feed.source, up), (view, SOURCE, feed));
        assert_eq!(update.announced[0].prefix.to_string(), "198.51.100.0/24");
        assert_eq!(told.odd, None);
    }
    let again = station.read(&monitoring(0, announcement())).unwrap();
    assert_eq!(again.events.len(), 1);
}

#[test]
fn several_paths_are_read_if_both_opens_agree() {
    let mut station = Station::new(SOURCE);
    station.read(&peer_up(0, 1, 2)).unwrap();
    let mut update = announcement()[..24].to_vec();
    update.extend([0, 0, 0, 7, 24, 198, 51, 100]);
    let told = station.read(&monitoring(0, &update)).unwrap();
    let Some((_, Event::Update(update))) = told.events.last() else {
        panic!("no update");
    };
    assert_eq!(
        (
            update.announced[0].path_id,
            update.announced[0].prefix.to_string()
        ),
        (7, "198.51.100.0/24".to_owned())
    );
}

/// Peer type 3 (RFC 9069, section 4): no neighbour, and flags of its own.
#[test]
fn what_a_router_uses_is_a_feed_of_its_own() {
    let mut station = station();
    station.read(&monitoring(0x40, announcement())).unwrap();
    // Both OPENs are made up, and say the same.
    station.read(&peer_up(3, 3, 3)).unwrap();
    let mut update = announcement()[..24].to_vec();
    update.extend([0, 0, 0, 7, 24, 198, 51, 100]);
    for (flags, count) in [(0x80, 2), (0x40, 1)] {
        let message = [per_peer(3, flags), bgp(2, &update)].concat();
        let told = station.read(&framed(0, &message)).unwrap();
        assert_eq!((told.events.len(), told.odd), (count, None));
        let Some((feed, Event::Update(update))) = told.events.last() else {
            panic!("no update");
        };
        let own = Feed {
            neighbour: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            ..Feed::session(SOURCE).viewed(View::LocRib)
        };
        assert_eq!((*feed, update.announced[0].path_id), (own, 7));
    }
    let down = framed(2, &[per_peer(3, 0), vec![6]].concat());
    let told = station.read(&down).unwrap();
    let [(feed, Event::Down(Down::SessionLost(_)))] = &told.events[..] else {
        panic!("{:?}", told.events);
    };
    assert_eq!(feed.view, View::LocRib);
    assert_eq!(
        station.lose().len(),
        1,
        "the neighbour of before is another"
    );
}

#[test]
fn a_neighbour_that_goes_down_takes_its_feeds_along_and_a_stream_all_of_them() {
    let mut station = station();
    station.read(&monitoring(0, announcement())).unwrap();
    station.read(&monitoring(0x40, announcement())).unwrap();
    let told = station
        .read(&framed(2, &[per_peer(0, 0), vec![4]].concat()))
        .unwrap();
    assert_eq!(told.events.len(), 2);
    assert!(
        told.events
            .iter()
            .all(|(_, event)| matches!(event, Event::Down(Down::SessionLost(_))))
    );
    let again = station
        .read(&framed(2, &[per_peer(0, 0), vec![4]].concat()))
        .unwrap();
    assert!(
        again.events.is_empty() && again.odd.is_some(),
        "some routers say so of neighbours that never were up"
    );
    station.read(&monitoring(0, announcement())).unwrap();
    let lost = station.lose();
    assert!(matches!(&lost[..], [(_, Event::Down(Down::SourceLost))]));
}

#[test]
fn what_cannot_be_read_is_refused_and_the_next_message_is_read() {
    let mut station = station();
    let mut broken = announcement().to_vec();
    broken[24] = 77;
    assert!(station.read(&monitoring(0, &broken)).is_err());
    assert!(station.read(&framed(99, &[])).is_err());
    assert!(station.read(&framed(0, &[1, 2, 3])).is_err());
    assert!(station.read(&monitoring(0, announcement())).is_ok());
}

#[test]
fn a_malformed_attribute_is_never_read_as_a_withdrawal() {
    let mut station = station();
    let mut odd = announcement().to_vec();
    odd[7] = 9;
    let read = station.read(&monitoring(0, &odd));
    let events = read.map(|told| told.events).unwrap_or_default();
    assert!(
        !events.iter().any(
            |(_, event)| matches!(event, Event::Update(update) if !update.withdrawn.is_empty())
        )
    );
}

#[test]
fn a_router_shows_no_more_neighbours_than_it_may() {
    let mut station = Station::new(SOURCE);
    for neighbour in 0..=NEIGHBOURS_MAX {
        let mut header = per_peer(0, 0);
        header[22..26].copy_from_slice(&u32::try_from(neighbour).unwrap().to_be_bytes());
        let read = station.read(&framed(0, &[header, bgp(2, announcement())].concat()));
        assert_eq!(read.is_ok(), neighbour < NEIGHBOURS_MAX, "{neighbour}");
    }
}

#[test]
fn a_router_introduces_itself_by_its_name() {
    let mut station = Station::new(SOURCE);
    let told = station
        .read(&framed(4, &[0, 2, 0, 4, b'e', b'd', b'g', b'e']))
        .unwrap();
    assert_eq!(
        (told.kind, station.name.as_deref()),
        (Kind::Initiation, Some("edge"))
    );
}

#[test]
fn no_bytes_make_a_station_panic() {
    bolero::check!()
        .with_iterations(50_000)
        .for_each(|bytes: &[u8]| {
            let mut frames = Frames::default();
            for chunk in bytes.chunks(7) {
                frames.push(chunk);
                while let Ok(Some(_)) = frames.pop() {}
            }
            let mut station = station();
            let bytes = Bytes::copy_from_slice(bytes);
            _ = station.read(&bytes);
            for kind in 0..8 {
                _ = station.read(&framed(kind, &bytes));
                _ = station.read(&framed(
                    kind,
                    &[per_peer(kind % 4, 0x40), bytes.to_vec()].concat(),
                ));
            }
            _ = station.read(&monitoring(0, &bytes));
            _ = station.lose();
        });
}
