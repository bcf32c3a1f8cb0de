//! The seam: golden messages, faults of attributes, and what two parsers make of the same UPDATEs.

use std::net::Ipv4Addr;

use bgpkit_parser::{models::AsnLength, parser::bgp::messages::parse_bgp_message};
use proptest::prelude::*;
use rustbgpd_wire::{AddPathFamily, AddPathMode, Capability};

use super::*;
use crate::bgp::mrt;

const EXTERNAL: Dialect = Dialect::usual(Speaker::External);
const HEARSAY: Dialect = Dialect::usual(Speaker::Hearsay);

/// An UPDATE of these parts.
fn framed(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(u16::try_from(withdrawn.len()).unwrap().to_be_bytes());
    body.extend(withdrawn);
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    body.extend(nlri);
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(HEADER + body.len()).unwrap().to_be_bytes());
    message.push(2);
    message.extend(body);
    message
}

fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![flags | 0x10, code];
    bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
    bytes.extend(value);
    bytes
}

fn as_path(systems: &[u32]) -> Vec<u8> {
    let mut value = vec![2, u8::try_from(systems.len()).unwrap()];
    value.extend(systems.iter().flat_map(|system| system.to_be_bytes()));
    attribute(0x40, 2, &value)
}

fn usual_attributes(systems: &[u32]) -> Vec<u8> {
    let next_hop = attribute(0x40, 3, &Ipv4Addr::new(192, 0, 2, 1).octets());
    [attribute(0x40, 1, &[0]), as_path(systems), next_hop].concat()
}

fn prefixes(nlris: &[Nlri]) -> Vec<String> {
    nlris.iter().map(|nlri| nlri.prefix.to_string()).collect()
}

#[test]
fn an_announcement_is_read_with_its_path_and_communities() {
    let communities = attribute(0xc0, 8, &[0xff, 0xff, 0x02, 0x9a, 0xff, 0xff, 0, 0]);
    let attributes = [usual_attributes(&[64_501, 64_500]), communities].concat();
    let bytes = framed(&[16, 10, 2], &attributes, &[24, 198, 51, 100]);
    for dialect in [EXTERNAL, HEARSAY] {
        let update = update(&bytes, &dialect).unwrap();
        assert_eq!(prefixes(&update.announced), ["198.51.100.0/24"]);
        assert_eq!(prefixes(&update.withdrawn), ["10.2.0.0/16"]);
        assert_eq!(update.attributes.path, AsPath::sequence(&[64_501, 64_500]));
        assert!(update.attributes.blackholed && update.attributes.shutting_down);
        assert_eq!((update.malformed, update.end_of_table), (None, None));
    }
}

#[test]
fn ipv6_is_announced_and_withdrawn_by_attributes() {
    let mut reach = vec![0, 2, 1, 16];
    reach.extend([
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0,
    ]);
    reach.extend([32, 0x20, 0x01, 0x0d, 0xb8]);
    let attributes = [
        attribute(0x40, 1, &[0]),
        as_path(&[1, 2]),
        attribute(0x80, 14, &reach),
    ]
    .concat();
    let announced = update(&framed(&[], &attributes, &[]), &EXTERNAL).unwrap();
    assert_eq!(prefixes(&announced.announced), ["2001:db8::/32"]);
    let unreach = attribute(0x80, 15, &[0, 2, 1, 32, 0x20, 0x01, 0x0d, 0xb8]);
    let withdrawn = update(&framed(&[], &unreach, &[]), &EXTERNAL).unwrap();
    assert_eq!(prefixes(&withdrawn.withdrawn), ["2001:db8::/32"]);
}

#[test]
fn the_end_of_each_table_is_told() {
    let end = |attributes: &[u8]| {
        update(&framed(&[], attributes, &[]), &EXTERNAL)
            .unwrap()
            .end_of_table
    };
    assert_eq!(end(&[]), Some(Family::V4));
    assert_eq!(end(&attribute(0x80, 15, &[0, 2, 1])), Some(Family::V6));
    assert_eq!(end(&attribute(0x80, 15, &[0, 1, 1])), Some(Family::V4));
    assert_eq!(end(&attribute(0x80, 15, &[0, 1, 128])), None);
}

#[test]
fn a_malformed_attribute_withdraws_on_a_session_and_says_nothing_by_hearsay() {
    let next_hop = attribute(0x40, 3, &[192, 0, 2, 1]);
    let faults = [
        (
            "an ORIGIN that does not exist",
            [attribute(0x40, 1, &[9]), as_path(&[1]), next_hop.clone()].concat(),
        ),
        (
            "no AS_PATH",
            [attribute(0x40, 1, &[0]), next_hop.clone()].concat(),
        ),
        (
            "AS 0",
            [attribute(0x40, 1, &[0]), as_path(&[1, 0]), next_hop].concat(),
        ),
        (
            "no NEXT_HOP",
            [attribute(0x40, 1, &[0]), as_path(&[1])].concat(),
        ),
    ];
    for (what, attributes) in &faults {
        let bytes = framed(&[], attributes, &[24, 198, 51, 100]);
        let session = update(&bytes, &EXTERNAL).unwrap();
        assert_eq!(prefixes(&session.withdrawn), ["198.51.100.0/24"], "{what}");
        assert!(
            session.malformed.is_some() && session.announced.is_empty(),
            "{what}"
        );
        // Never a withdrawal that the router did not tell of.
        if let Ok(heard) = update(&bytes, &HEARSAY) {
            assert!(heard.withdrawn.is_empty(), "{what}: {heard:?}");
        }
    }
}

#[test]
fn a_set_in_a_path_is_no_fault() {
    let path = attribute(0x40, 2, &[2, 1, 0, 0, 0, 1, 1, 2, 0, 0, 0, 8, 0, 0, 0, 7]);
    let next_hop = attribute(0x40, 3, &[192, 0, 2, 1]);
    let attributes = [attribute(0x40, 1, &[0]), path, next_hop].concat();
    let update = update(&framed(&[], &attributes, &[24, 198, 51, 100]), &EXTERNAL).unwrap();
    assert_eq!(update.attributes.path.to_string(), "1 {7,8}");
    assert_eq!(update.malformed, None);
}

#[test]
fn a_prefix_longer_than_its_address_ends_the_reading() {
    let bytes = framed(&[], &usual_attributes(&[1]), &[33, 10, 0, 0, 0, 0]);
    assert!(update(&bytes, &EXTERNAL).is_err());
}

#[test]
fn a_header_tells_the_length_or_that_the_stream_is_lost() {
    let bytes = framed(&[], &[], &[]);
    assert_eq!(next_length(&bytes, false), Ok(Some(23)));
    assert_eq!(next_length(&bytes[..18], false), Ok(None));
    let mut unknown = bytes.clone();
    unknown[18] = 77;
    assert_eq!(next_length(&unknown, false), Ok(Some(23)));
    let mut short = bytes.clone();
    short[17] = 5;
    assert!(next_length(&short, false).is_err());
    let mut unmarked = bytes;
    unmarked[3] = 0;
    assert!(next_length(&unmarked, false).is_err());
}

#[test]
fn paths_have_identifiers_only_if_one_sends_and_the_other_receives_them() {
    let open = |mode| OpenMessage {
        version: 4,
        my_as: 64_500,
        hold_time: 90,
        bgp_identifier: Ipv4Addr::LOCALHOST,
        capabilities: vec![
            Capability::FourOctetAs { asn: 64_500 },
            Capability::AddPath(vec![AddPathFamily {
                afi: Afi::Ipv4,
                safi: Safi::Unicast,
                send_receive: mode,
            }]),
        ],
    };
    let agreed = |theirs, ours| Dialect::agreed(&open(theirs), &open(ours), Speaker::External);
    assert!(agreed(AddPathMode::Send, AddPathMode::Receive).add_path_v4);
    assert!(agreed(AddPathMode::Both, AddPathMode::Both).add_path_v4);
    assert!(!agreed(AddPathMode::Receive, AddPathMode::Send).add_path_v4);
    assert!(!agreed(AddPathMode::Send, AddPathMode::Receive).add_path_v6);
    assert!(agreed(AddPathMode::Send, AddPathMode::Send).four_octet_as);
}

/// What the other parser makes of the same bytes.
fn second_opinion(bytes: &[u8]) -> Option<Update> {
    let mut bytes = Bytes::copy_from_slice(bytes);
    match parse_bgp_message(&mut bytes, false, &AsnLength::Bits32) {
        Ok(bgpkit_parser::models::BgpMessage::Update(message)) => Some(mrt::update(&message)),
        _ => None,
    }
}

/// No default route: behind its zero byte the other parser guesses that there are path identifiers.
fn v4() -> impl Strategy<Value = Vec<u8>> {
    (1u8..=32, any::<[u8; 4]>()).prop_map(|(length, octets)| {
        let bytes = usize::from(length.div_ceil(8));
        let address =
            u32::from_be_bytes(octets) & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        let mut nlri = vec![length];
        nlri.extend(&address.to_be_bytes()[..bytes]);
        nlri
    })
}

fn v6() -> impl Strategy<Value = Vec<u8>> {
    (1u8..=128, any::<[u8; 16]>()).prop_map(|(length, octets)| {
        let bytes = usize::from(length.div_ceil(8));
        let address = u128::from_be_bytes(octets)
            & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        let mut nlri = vec![length];
        nlri.extend(&address.to_be_bytes()[..bytes]);
        nlri
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Two parsers that share no line of code read the same routes, paths and communities.
    #[test]
    fn two_parsers_agree_on_the_same_updates(
        withdrawn in prop::collection::vec(v4(), 0..8),
        announced in prop::collection::vec(v4(), 0..8),
        reached in prop::collection::vec(v6(), 0..6),
        lost in prop::collection::vec(v6(), 0..6),
        systems in prop::collection::vec(1u32..u32::MAX, 1..12),
        set in prop::collection::vec(1u32..u32::MAX, 0..4),
        communities in prop::collection::vec(any::<u32>(), 0..6),
    ) {
        let mut path = vec![2, u8::try_from(systems.len()).unwrap()];
        path.extend(systems.iter().flat_map(|system| system.to_be_bytes()));
        if !set.is_empty() {
            path.extend([1, u8::try_from(set.len()).unwrap()]);
            path.extend(set.iter().flat_map(|system| system.to_be_bytes()));
        }
        let mut attributes = [attribute(0x40, 1, &[0]), attribute(0x40, 2, &path), attribute(0x40, 3, &[192, 0, 2, 1])].concat();
        if !communities.is_empty() {
            let value: Vec<u8> = communities.iter().flat_map(|community| community.to_be_bytes()).collect();
            attributes.extend(attribute(0xc0, 8, &value));
        }
        if !reached.is_empty() {
            let mut value = vec![0, 2, 1, 16, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
            value.extend(reached.concat());
            attributes.extend(attribute(0x80, 14, &value));
        }
        if !lost.is_empty() {
            attributes.extend(attribute(0x80, 15, &[vec![0, 2, 1], lost.concat()].concat()));
        }
        let bytes = framed(&withdrawn.concat(), &attributes, &announced.concat());
        let own = update(&bytes, &HEARSAY).unwrap();
        prop_assert_eq!(Some(own), second_opinion(&bytes));
    }
}

#[test]
fn no_bytes_make_the_reading_panic() {
    bolero::check!()
        .with_iterations(50_000)
        .for_each(|bytes: &[u8]| {
            _ = next_length(bytes, true);
            _ = message(bytes, true);
            // Behind a plausible header random bytes get further.
            let (withdrawn, attributes) = bytes.split_at(bytes.len() / 3);
            let (attributes, nlri) = attributes.split_at(attributes.len() / 2);
            let framed = framed(withdrawn, attributes, nlri);
            for dialect in [EXTERNAL, HEARSAY] {
                _ = update(&framed, &dialect);
                _ = update(
                    &framed,
                    &Dialect {
                        four_octet_as: false,
                        add_path_v4: true,
                        add_path_v6: true,
                        ..dialect
                    },
                );
            }
            let usual = self::framed(&[], &usual_attributes(&[64_501]), bytes);
            _ = update(&usual, &EXTERNAL);
        });
}
