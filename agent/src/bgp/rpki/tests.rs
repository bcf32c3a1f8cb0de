//! Payloads, and what they make of routes.

use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn set(payloads: &[(&str, u8, u32)]) -> Roas {
    changed(&Roas::default(), payloads, &[])
}

fn changed(before: &Roas, announced: &[(&str, u8, u32)], withdrawn: &[(&str, u8, u32)]) -> Roas {
    let mut change = Change::default();
    for (action, payloads) in [(Action::Announce, announced), (Action::Withdraw, withdrawn)] {
        for (prefix, length_max, system) in payloads {
            change
                .push(action, &net(prefix), *length_max, *system)
                .unwrap();
        }
    }
    change.apply(before).unwrap()
}

#[test]
fn a_route_is_valid_not_found_or_invalid_as_rfc_6811_says() {
    let roas = set(&[
        ("192.0.2.0/24", 24, 64_500),
        ("192.0.0.0/16", 16, 64_501),
        ("198.51.0.0/16", 24, 64_502),
        ("203.0.113.0/24", 24, 0),
        ("2001:db8::/32", 48, 64_500),
    ]);
    for (prefix, origin, validity) in [
        ("192.0.2.0/24", Some(64_500), Validity::Valid),
        ("192.0.2.0/25", Some(64_500), Validity::InvalidLength),
        ("192.0.2.0/24", Some(64_501), Validity::InvalidLength),
        ("192.0.2.0/24", Some(64_666), Validity::InvalidOrigin),
        ("192.0.2.0/24", None, Validity::InvalidOrigin),
        ("192.0.0.0/16", Some(64_501), Validity::Valid),
        ("192.0.0.0/15", Some(64_501), Validity::NotFound),
        ("198.51.100.0/24", Some(64_502), Validity::Valid),
        ("198.51.100.0/25", Some(64_502), Validity::InvalidLength),
        ("203.0.113.0/24", Some(0), Validity::InvalidOrigin),
        ("203.0.113.0/24", Some(64_500), Validity::InvalidOrigin),
        ("10.0.0.0/8", None, Validity::NotFound),
        ("0.0.0.0/0", Some(64_500), Validity::NotFound),
        ("2001:db8:1::/48", Some(64_500), Validity::Valid),
        ("2001:db8:1:1::/64", Some(64_500), Validity::InvalidLength),
        ("2001:db8::/31", Some(64_500), Validity::NotFound),
        ("::/0", Some(1), Validity::NotFound),
    ] {
        let told = roas.validate(&net(prefix), origin);
        assert_eq!(told, validity, "{prefix} from {origin:?}");
    }
}

#[test]
fn what_is_allowed_is_named_the_smallest_prefix_first() {
    let roas = set(&[
        ("192.0.0.0/16", 20, 64_501),
        ("192.0.2.0/24", 24, 64_500),
        ("192.0.2.0/24", 25, 64_502),
        ("192.0.0.0/8", 8, 1),
        ("0.0.0.0/0", 0, 2),
        ("192.0.3.0/24", 24, 9),
    ]);
    let allowed = roas.allowed(&net("192.0.2.0/25"));
    let words: Vec<_> = allowed.iter().map(Allowed::to_string).collect();
    assert_eq!(
        words,
        [
            "AS64500 for 192.0.2.0/24",
            "AS64502 for 192.0.2.0/24 up to /25",
            "AS64501 for 192.0.0.0/16 up to /20",
            "AS1 for 192.0.0.0/8",
        ]
    );
}

#[test]
fn a_payload_takes_as_little_as_is_told() {
    let roas = set(&[("192.0.2.0/24", 24, 1), ("2001:db8::/32", 32, 1)]);
    assert_eq!((roas.len(), roas.bytes()), (2, 12 + 24));
}

/// Payloads within 10.0.0.0/24 and a few prefixes around it.
fn payload() -> impl Strategy<Value = (IpNet, u8, u32)> {
    (20u8..=32, 0u32..256, 0u8..4, 0u32..3).prop_map(|(length, low, more, system)| {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 | low);
        let net = IpNet::new(address.into(), length).unwrap().trunc();
        (net, (length + more).min(32), system)
    })
}

/// RFC 6811, section 2, word by word, over all payloads.
fn by_the_book(payloads: &[(IpNet, u8, u32)], route: &IpNet, origin: u32) -> Validity {
    let covering: Vec<_> = payloads
        .iter()
        .filter(|(prefix, ..)| prefix.contains(route))
        .collect();
    let matches = |(_, length_max, system): &&&(IpNet, u8, u32)| {
        origin != 0 && *system == origin && route.prefix_len() <= *length_max
    };
    match (
        covering.is_empty(),
        covering.iter().any(|own| matches(&own)),
    ) {
        (true, _) => Validity::NotFound,
        (false, true) => Validity::Valid,
        (false, false) => match covering.iter().any(|own| origin != 0 && own.2 == origin) {
            true => Validity::InvalidLength,
            false => Validity::InvalidOrigin,
        },
    }
}

proptest! {
    /// Sets that are changed step by step say what a search through all payloads says.
    #[test]
    fn a_set_says_what_the_rfc_says(
        steps in prop::collection::vec((any::<bool>(), prop::collection::vec(payload(), 0..12)), 1..6),
        routes in prop::collection::vec(payload(), 1..20),
    ) {
        let (mut roas, mut plain) = (Roas::default(), Vec::new());
        for (announces, payloads) in &steps {
            let mut change = Change::default();
            let action = match announces {
                true => Action::Announce,
                false => Action::Withdraw,
            };
            for payload in payloads {
                change.push(action, &payload.0, payload.1, payload.2).unwrap();
                plain.retain(|own| own != payload);
                if *announces {
                    plain.push(*payload);
                }
            }
            roas = change.apply(&roas).unwrap();
            prop_assert_eq!(roas.len(), plain.len());
            for (route, _, origin) in &routes {
                prop_assert_eq!(roas.validate(route, Some(*origin)), by_the_book(&plain, route, *origin));
            }
        }
    }
}
