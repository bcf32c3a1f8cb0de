//! Records that are made here, whole and torn.

use super::*;

/// A BGP4MP_MESSAGE_AS4 (RFC 6396, section 4.4.3) from 10.9.9.9, AS 64501.
fn record(update: &[u8]) -> Vec<u8> {
    let mut body = [64_501u32.to_be_bytes(), 64_500u32.to_be_bytes()].concat();
    body.extend([0, 0, 0, 1, 10, 9, 9, 9, 10, 0, 0, 1]);
    body.extend([0xff; 16]);
    body.extend(u16::try_from(19 + update.len()).unwrap().to_be_bytes());
    body.push(2);
    body.extend(update);
    let mut record = 1_000u32.to_be_bytes().to_vec();
    record.extend([0, 16, 0, 4]);
    record.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    record.extend(body);
    record
}

const ANNOUNCEMENT: [u8; 28] = [
    0, 0, 0, 20, 0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfb, 0xf5, 0x40, 3, 4, 192, 0, 2, 1, 24,
    198, 51, 100,
];

#[test]
fn an_update_is_told_of_the_peer_that_sent_it() {
    let bytes = record(&ANNOUNCEMENT);
    let records: Vec<_> = Recording::new(&bytes[..]).map(Result::unwrap).collect();
    assert_eq!(
        (records.len(), records[0].kind, records[0].at.as_unix_us()),
        (1, "UPDATE", 1_000_000_000)
    );
    let [(feed, Event::Update(update))] = &records[0].events[..] else {
        panic!("{:?}", records[0].events);
    };
    assert_eq!(feed.source.to_string(), "10.9.9.9");
    assert_eq!(update.announced[0].prefix.to_string(), "198.51.100.0/24");
    assert_eq!(update.attributes.path, AsPath::sequence(&[64_501]));
}

#[test]
fn a_torn_recording_ends_with_why() {
    let whole = [record(&ANNOUNCEMENT), record(&ANNOUNCEMENT)].concat();
    let records: Vec<_> = Recording::new(&whole[..whole.len() - 3]).collect();
    assert_eq!(records.len(), 2);
    assert!(records[0].is_ok() && records[1].is_err());
}

#[test]
fn a_length_that_nobody_has_memory_for_is_refused() {
    let mut bytes = record(&ANNOUNCEMENT);
    bytes[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
    let records: Vec<_> = Recording::new(&bytes[..]).collect();
    assert!(matches!(&records[..], [Err(_)]));
}

#[test]
fn no_bytes_make_the_reading_of_recordings_panic() {
    bolero::check!()
        .with_iterations(20_000)
        .for_each(|bytes: &[u8]| {
            Recording::new(bytes).take(100).for_each(drop);
            Recording::new(&record(bytes)[..]).take(100).for_each(drop);
            for (kind, subtype) in [
                (5, 1),
                (12, 1),
                (13, 1),
                (13, 2),
                (16, 0),
                (16, 1),
                (16, 4),
                (17, 4),
            ] {
                let mut framed = vec![0, 0, 0, 1, 0, kind, 0, subtype];
                framed.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
                framed.extend(bytes);
                Recording::new(&framed[..]).take(100).for_each(drop);
            }
        });
}
