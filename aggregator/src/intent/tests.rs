//! What people define comes back as they defined it.

use std::collections::{BTreeMap, BTreeSet};

use leeward_common::{
    api::v1::CheckSpec,
    check::CheckUrl,
    id::{CheckId, ResourceId},
};
use proptest::{collection, option, prelude::*};

use super::*;

fn region() -> impl Strategy<Value = RegionId> {
    "[a-z][a-z0-9-]{0,8}".prop_map(|text| RegionId::parse(&text).unwrap())
}

fn service_id() -> impl Strategy<Value = ServiceId> {
    "[a-z][a-z0-9-]{0,8}".prop_map(|text| ServiceId::parse(&text).unwrap())
}

fn resource() -> impl Strategy<Value = ResourceId> {
    "[a-z]{1,6}".prop_map(|text| ResourceId::parse(&text).unwrap())
}

/// Thousandths, which every text form keeps exactly.
fn number() -> impl Strategy<Value = f64> {
    (1_u32..1_000_000).prop_map(|thousandths| f64::from(thousandths) / 1_000.0)
}

fn span() -> impl Strategy<Value = Span> {
    (1_u64..50_000_000_000).prop_map(|ns| Span(Duration::from_nanos(ns)))
}

fn time() -> impl Strategy<Value = Time> {
    (0_u64..4_000_000_000_000_000).prop_map(|us| Time(Timestamp::from_unix_us(us)))
}

fn amounts() -> impl Strategy<Value = BTreeMap<ResourceId, f64>> {
    collection::btree_map(resource(), number(), 1..4)
}

fn labels() -> impl Strategy<Value = BTreeMap<String, BTreeSet<String>>> {
    let values = collection::btree_set("[a-zA-Z .]{1,6}", 1..3);
    collection::btree_map("[a-z.]{1,6}", values, 0..3)
}

fn weights_spec() -> impl Strategy<Value = WeightsSpec> {
    let exponent = || (0_u32..100_000).prop_map(|thousandths| f64::from(thousandths) / 1_000.0);
    let floor = (1_u32..999).prop_map(|thousandths| f64::from(thousandths) / 1_000.0);
    let scale = || (1_u32..90_000).prop_map(f64::from);
    let exponents = collection::vec(exponent(), 7);
    (exponents, scale(), scale(), span(), span(), floor).prop_map(
        |(exponents, distance, bandwidth, latency_scale, jitter_scale, floor)| WeightsSpec {
            distance_scale_km: distance,
            distance: exponents[0],
            capacity: exponents[1],
            latency_scale,
            latency_p50: exponents[2],
            latency_p99: exponents[3],
            jitter_scale,
            jitter: exponents[4],
            loss: exponents[5],
            bandwidth_scale_bps: bandwidth,
            bandwidth: exponents[6],
            floor,
        },
    )
}

fn profile() -> impl Strategy<Value = ServiceProfile> {
    prop_oneof![
        Just(ServiceProfile::Balanced),
        Just(ServiceProfile::Latency),
        Just(ServiceProfile::Loss),
        Just(ServiceProfile::Bandwidth),
        weights_spec().prop_map(|own| ServiceProfile::Custom(Box::new(own))),
    ]
}

fn limits() -> impl Strategy<Value = ServiceLimits> {
    let loss = (0_u32..=1_000).prop_map(|thousandths| f64::from(thousandths) / 1_000.0);
    let spans = (option::of(span()), option::of(span()), option::of(span()));
    let bps = (1_u32..u32::MAX).prop_map(f64::from);
    (spans, option::of(loss), option::of(bps)).prop_map(
        |((latency_p50, latency_p99, jitter), loss_ratio, bandwidth_bps)| ServiceLimits {
            latency_p50,
            latency_p99,
            jitter,
            loss_ratio,
            bandwidth_bps,
        },
    )
}

fn why() -> impl Strategy<Value = String> {
    "[a-zA-Z\"'# é]{0,12}"
}

fn check_spec() -> impl Strategy<Value = CheckSpec> {
    let url = "https://[a-z]{1,9}[.]example(:[1-9][0-9]{0,3})?/[a-z?=&/]{0,9}";
    let url = url.prop_map(|text: String| CheckUrl::parse(&text).unwrap());
    let times = (1_u64..=10, 10_u64..=600);
    (
        collection::btree_map(region(), url, 1..4),
        (100_u16..300, 300_u16..600),
        option::of("[a-z\"# é]{1,9}"),
        times,
        any::<bool>(),
    )
        .prop_map(|(at, status, body, times, required)| CheckSpec {
            status: [status.0, status.1],
            body,
            timeout: Span(Duration::from_secs(times.0)),
            interval: Span(Duration::from_secs(times.1)),
            required,
            ..CheckSpec::of(at)
        })
}

fn service_spec() -> impl Strategy<Value = ServiceSpec> {
    let places = (
        region(),
        collection::btree_set(region(), 0..4),
        collection::btree_map(region(), number(), 0..3),
        collection::btree_map(region(), number(), 0..3),
    );
    let needs = collection::btree_map(resource(), number(), 0..3);
    let character = (profile(), limits(), needs, any::<bool>(), any::<u8>());
    let rules = (
        labels(),
        labels(),
        collection::btree_set("[0-9][a-z]{0,5}", 0..3),
    );
    let replication = prop_oneof![
        Just(v1::Replication::None),
        Just(v1::Replication::Asynchronous),
        Just(v1::Replication::Synchronous)
    ];
    let failback = prop_oneof![Just(v1::Failback::Automatic), Just(v1::Failback::Manual)];
    let objectives = (
        replication,
        option::of(span()),
        option::of(span()),
        option::of(failback),
    );
    let checks = collection::btree_map("[a-z]{1,5}", check_spec(), 0..2);
    (places, character, rules, (checks, objectives), why()).prop_map(
        |(places, character, rules, (checks, objectives), why)| ServiceSpec {
            home: places.0,
            candidates: places.1.into_iter().collect(),
            multipliers: places.2,
            clients: places.3,
            profile: character.0,
            limits: character.1,
            needs: character.2,
            divisible: character.3,
            priority: character.4,
            require: rules.0,
            forbid: rules.1,
            depends_on: rules
                .2
                .iter()
                .map(|text| ServiceId::parse(text).unwrap())
                .collect(),
            checks: checks
                .into_iter()
                .map(|(id, spec)| (CheckId::parse(&id).unwrap(), spec))
                .collect(),
            replication: objectives.0,
            rto: objectives.1,
            rpo: objectives.2,
            failback: objectives.3,
            why,
        },
    )
}

fn override_spec() -> impl Strategy<Value = OverrideSpec> {
    let owner = prop_oneof![
        service_id().prop_map(|id| (Some(id), None)),
        region().prop_map(|id| (None, Some(id)))
    ];
    (
        0_u8..5,
        region(),
        owner,
        any::<bool>(),
        time(),
        "[a-z]{1,9}",
    )
        .prop_map(|(rule, region, owner, suspect, until, why)| {
            let (rule, region, (service, primary_region)) = match rule {
                0 => (OverrideRule::Drain, Some(region), (None, None)),
                1 => (OverrideRule::Pin, Some(region), owner),
                2 => (OverrideRule::Forbid, Some(region), owner),
                3 => (OverrideRule::Freeze, None, owner),
                _ => (OverrideRule::Freeze, None, (None, None)),
            };
            OverrideSpec {
                rule,
                region,
                service,
                primary_region,
                suspect: suspect && rule == OverrideRule::Drain,
                until,
                why,
            }
        })
}

fn reach_spec() -> impl Strategy<Value = (RegionId, ReachSpec)> {
    let prefixes = prop::collection::btree_set(any::<u8>(), 1..4);
    let origins = prop::collection::btree_set(any::<u32>(), 0..3);
    (region(), prefixes, origins, why()).prop_map(|(region, prefixes, origins, why)| {
        let prefix = |own| format!("198.51.{own}.0/24").parse().unwrap();
        let spec = ReachSpec {
            prefixes: prefixes.into_iter().map(prefix).collect(),
            origins: origins.into_iter().collect(),
            why,
        };
        (region, spec)
    })
}

fn defined() -> impl Strategy<Value = Defined> {
    let offer = (region(), amounts(), option::of(time()), why());
    let offer = offer.prop_map(|(region, amounts, until, why)| {
        let spec = OfferSpec {
            region,
            amounts,
            until,
            why,
        };
        Defined::Offer(OfferId::parse("o").unwrap(), spec)
    });
    let reservation = (region(), option::of(service_id()), amounts(), time(), why());
    let reservation = reservation.prop_map(|(region, service, amounts, until, why)| {
        let spec = ReservationSpec {
            region,
            service,
            amounts,
            until,
            why,
        };
        Defined::Reservation(ReservationId::parse("r").unwrap(), spec)
    });
    prop_oneof![
        (service_id(), service_spec()).prop_map(|(id, spec)| Defined::Service(id, Box::new(spec))),
        offer,
        reservation,
        override_spec().prop_map(|spec| Defined::Override(OverrideId::parse("v").unwrap(), spec)),
        reach_spec().prop_map(|(region, spec)| Defined::Reach(region, spec)),
    ]
}

proptest! {
    /// What is defined comes back as it was written: through JSON, through TOML, through the journal's bytes, and
    /// through the engine.
    #[test]
    fn a_definition_survives_every_way_that_it_goes(defined in defined()) {
        prop_assert_eq!(defined.check(), Ok(()));
        let json = serde_json::to_string(&defined).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Defined>(&json).unwrap(), &defined);
        let bytes = rmp_serde::to_vec_named(&defined).unwrap();
        prop_assert_eq!(&rmp_serde::from_slice::<Defined>(&bytes).unwrap(), &defined);
        let text = toml::to_string(&match &defined {
            Defined::Service(_, spec) => toml::Table::try_from(spec),
            Defined::Offer(_, spec) => toml::Table::try_from(spec),
            Defined::Reservation(_, spec) => toml::Table::try_from(spec),
            Defined::Override(_, spec) => toml::Table::try_from(spec),
            Defined::Reach(_, spec) => toml::Table::try_from(spec),
        }.unwrap()).unwrap();
        let again = match &defined {
            Defined::Service(id, _) => Defined::Service(id.clone(), Box::new(toml::from_str(&text).unwrap())),
            Defined::Offer(id, _) => Defined::Offer(id.clone(), toml::from_str(&text).unwrap()),
            Defined::Reservation(id, _) => Defined::Reservation(id.clone(), toml::from_str(&text).unwrap()),
            Defined::Override(id, _) => Defined::Override(id.clone(), toml::from_str(&text).unwrap()),
            Defined::Reach(id, _) => Defined::Reach(id.clone(), toml::from_str(&text).unwrap()),
        };
        prop_assert_eq!(&again, &defined);
        let change = Change {
            who: "a".to_owned(),
            why: defined.why().to_owned(),
            what: Amendment::from(&defined),
        };
        let mut intents = Intents::default();
        intents.on_change(Timestamp::EPOCH, &change);
        prop_assert_eq!(Thing::of(&defined).defined(&intents), Some(defined));
    }
}
