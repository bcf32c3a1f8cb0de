//! Single facts, and a model: whatever the network does, every probe ends as an independent account says it must.

use std::net::IpAddr;

use leeward_common::{histogram::Schema, id::TargetId, report::Path};
use proptest::prelude::*;

use super::*;
use crate::{
    probe::{
        stamp::{ErrorEstimate, Format, Request, Stamp},
        tcp_syn::Kind,
    },
    prober::counters::StampSource,
};

const MS: u64 = 1_000_000;
const EXPIRY: Duration = Duration::from_millis(300);
const INTERVAL: Duration = Duration::from_millis(20);
const WINDOW_NS: u64 = 100 * MS;
/// Wall clock minus monotonic clock before any step.
const OFFSET_NS: u64 = 1_700_000_000_000_000_000;
const PORT: u16 = 443;
const FIRST_PORT: u16 = 61_000;

fn planned(kind: ProbeKind, address: &str) -> PlannedPath {
    let target = TargetId::parse("t").unwrap();
    PlannedPath {
        path: Path {
            target,
            kind,
            region: None,
        },
        address: address.parse().unwrap(),
        port: PORT,
    }
}

fn plan_of(paths: Vec<PlannedPath>) -> Plan {
    let window = Duration::from_nanos(WINDOW_NS);
    Plan {
        version: 1,
        interval: INTERVAL,
        window,
        expiry: EXPIRY,
        schema: Schema::TwoDigits,
        silence: None,
        flows: 1,
        paths,
    }
}

fn plan() -> Plan {
    plan_of(vec![
        planned(ProbeKind::Icmp, "192.0.2.1"),
        planned(ProbeKind::Icmp, "2001:db8::1"),
        planned(ProbeKind::TcpSyn, "192.0.2.1"),
        planned(ProbeKind::TcpSyn, "2001:db8::1"),
        planned(ProbeKind::Stamp, "192.0.2.1"),
        planned(ProbeKind::Stamp, "2001:db8::1"),
    ])
}

/// Paths of that plan.
const ROWS: usize = 6;

fn key() -> TokenKey {
    TokenKey::new([3; 16])
}

fn wall(mono_ns: u64) -> Timestamp {
    Timestamp::from_unix_us((OFFSET_NS + mono_ns) / 1_000)
}

fn tracker_of(plan: &Plan) -> Tracker {
    let mut tracker = Tracker::new(key(), FIRST_PORT, 8, wall(0));
    tracker.replan(wall(0), &[], plan);
    tracker
}

fn departure(at_ns: u64) -> Departure {
    Departure {
        mono_ns: at_ns,
        wall_ns: OFFSET_NS + at_ns,
        clock_era: 0,
    }
}

fn arrival(at_ns: u64) -> Arrival {
    Arrival {
        mono_ns: at_ns,
        stamp_ns: Some(OFFSET_NS + at_ns),
        card_ns: None,
        clock_era: 0,
    }
}

fn echo(leaving: &Leaving) -> Echo {
    Echo {
        ident: key().ident_of(leaving.flow),
        identity: leaving.identity,
    }
}

fn tcp(leaving: &Leaving, kind: Kind) -> tcp_syn::Answer {
    tcp_syn::Answer {
        kind,
        port: leaving.port,
        source_port: leaving.source_port,
        acknowledged: leaving.identity.syn_sequence().wrapping_add(1),
    }
}

fn quoted(leaving: &Leaving, whole: bool) -> Quoted {
    let echo = echo(leaving);
    match leaving.kind {
        ProbeKind::Icmp => Quoted::Echo {
            to: leaving.address,
            ident: echo.ident,
            sequence: leaving.identity.echo_sequence(),
            checksum: if leaving.address.is_ipv4() {
                key().echo_checksum(leaving.flow)
            } else {
                0
            },
            identity: whole.then_some(leaving.identity),
        },
        ProbeKind::TcpSyn => Quoted::Syn {
            to: leaving.address,
            source_port: leaving.source_port,
            port: leaving.port,
            sequence: leaving.identity.syn_sequence(),
        },
        ProbeKind::Stamp => Quoted::Stamp {
            to: leaving.address,
            source_port: 50_000,
            port: leaving.port,
            start: request(leaving)
                .encode(None)
                .first_chunk()
                .copied()
                .filter(|_| whole),
        },
    }
}

fn request(leaving: &Leaving) -> Request {
    Request {
        sequence: directions::request_number(leaving.nth),
        time: Stamp::of(Format::Ntp, leaving.identity.sent_ns),
        error: ErrorEstimate::unknown(Format::Ntp),
        ssid: key().ssid(leaving.identity.slot),
    }
}

/// What a reflector that got every request replies, having taken so long.
fn reflected(leaving: &Leaving, received_ns: u64, dwell_ns: u64) -> stamp::Reply {
    stamp::Reply {
        sequence: leaving.nth,
        time: Stamp::of(Format::Ptp, received_ns + dwell_ns),
        received: Stamp::of(Format::Ptp, received_ns),
        error: ErrorEstimate::unknown(Format::Ptp),
        request: request(leaving),
        ttl: 64,
    }
}

fn peer(leaving: &Leaving) -> SocketAddr {
    SocketAddr::new(leaving.address, leaving.port)
}

fn reply(tracker: &mut Tracker, leaving: &Leaving, arrival: Arrival) {
    match leaving.kind {
        ProbeKind::Icmp => tracker.on_echo(leaving.address, &echo(leaving), arrival),
        ProbeKind::TcpSyn => tracker.on_tcp(leaving.address, &tcp(leaving, Kind::SynAck), arrival),
        ProbeKind::Stamp => {
            let reply = reflected(leaving, leaving.identity.sent_ns, 0);
            tracker.on_stamp(leaving.flow, peer(leaving), &reply, arrival);
        }
    }
}

fn counts(tracker: &mut Tracker, end_ns: u64, row: u32) -> Counts {
    let (_, rows) = tracker.close(end_ns);
    tracker.begin(Begin::Following);
    rows.iter()
        .find(|(of, _)| *of == row)
        .map(|(_, report)| report.counts)
        .unwrap_or_default()
}

use leeward_common::report::Counts;

#[test]
fn a_syn_by_a_port_that_was_used_before_first_ends_what_the_earlier_one_began() {
    let mut plan = plan_of(vec![
        planned(ProbeKind::TcpSyn, "192.0.2.1"),
        planned(ProbeKind::Icmp, "192.0.2.1"),
    ]);
    plan.flows = 3;
    let mut tracker = tracker_of(&plan);
    let mut last = std::collections::BTreeMap::new();
    for nth in 0..60 {
        let leaving = tracker.depart(0, departure(nth * 20 * MS));
        assert_eq!(leaving.reset, last.get(&leaving.source_port).copied());
        let next = leaving.identity.syn_sequence().wrapping_add(1);
        last.insert(leaving.source_port, next);
        assert_eq!(tracker.depart(1, departure(nth * 20 * MS)).reset, None);
    }
    assert_eq!(last.len(), 3);
}

#[test]
fn an_answer_from_elsewhere_or_with_another_token_is_a_stray_and_no_sample() {
    let plan = plan();
    let mut tracker = tracker_of(&plan);
    let elsewhere: IpAddr = "203.0.113.9".parse().unwrap();
    let probe = tracker.depart(0, departure(MS));
    let syn = tracker.depart(2, departure(MS));
    tracker.on_echo(elsewhere, &echo(&probe), arrival(2 * MS));
    let mut forged = echo(&probe);
    forged.identity.token ^= 1;
    tracker.on_echo(probe.address, &forged, arrival(2 * MS));
    let mut old = echo(&probe);
    old.identity = key().identity(0, probe.identity.sequence, 5);
    tracker.on_echo(probe.address, &old, arrival(2 * MS));
    tracker.on_echo(
        probe.address,
        &Echo {
            ident: 1,
            ..echo(&probe)
        },
        arrival(2 * MS),
    );
    tracker.on_echo(
        probe.address,
        &Echo {
            identity: key().identity(77, 0, 5),
            ..forged
        },
        arrival(2 * MS),
    );
    tracker.on_tcp(elsewhere, &tcp(&syn, Kind::SynAck), arrival(2 * MS));
    for kind in [Kind::SynAck, Kind::Reset] {
        let acknowledged = syn.identity.syn_sequence().wrapping_add(2);
        tracker.on_tcp(
            syn.address,
            &tcp_syn::Answer {
                acknowledged,
                ..tcp(&syn, kind)
            },
            arrival(2 * MS),
        );
    }
    let other_port = tcp_syn::Answer {
        source_port: syn.source_port + 1,
        ..tcp(&syn, Kind::Reset)
    };
    tracker.on_tcp(syn.address, &other_port, arrival(2 * MS));
    let counters = tracker.counters();
    assert_eq!((counters.ended(), counters.stamps), (0, [0; 4]));
    assert_eq!(counters.strays_of(Stray::WrongAddress), 2);
    assert_eq!(counters.strays_of(Stray::WrongToken), 4);
    assert_eq!(counters.strays_of(Stray::UnknownProbe), 2);
    assert_eq!(counters.strays_of(Stray::Foreign), 1);
}

#[test]
fn errors_find_their_probe_with_and_without_the_quoted_payload() {
    let plan = plan();
    let mut tracker = tracker_of(&plan);
    for (row, whole, found) in [
        (0, true, true),
        (0, false, true),
        (1, true, true),
        (1, false, false),
        (2, true, true),
        (3, true, true),
    ] {
        let before = tracker.counters().of(Class::IcmpError);
        let probe = tracker.depart(row, departure(MS));
        tracker.on_error(&quoted(&probe, whole), arrival(2 * MS));
        assert_eq!(
            tracker.counters().of(Class::IcmpError) - before,
            u64::from(found),
            "row {row}, whole: {whole}"
        );
    }
    assert_eq!(tracker.counters().strays_of(Stray::ErrorUnattributed), 1);
}

#[test]
fn a_forged_error_ends_no_probe() {
    let plan = plan();
    let mut tracker = tracker_of(&plan);
    let probe = tracker.depart(0, departure(MS));
    let syn = tracker.depart(2, departure(MS));
    let Quoted::Echo {
        to,
        ident,
        sequence,
        checksum,
        ..
    } = quoted(&probe, false)
    else {
        unreachable!()
    };
    let wrong_sum = Quoted::Echo {
        to,
        ident,
        sequence,
        checksum: checksum ^ 1,
        identity: None,
    };
    let mut identity = probe.identity;
    identity.token ^= 1;
    let wrong_token = Quoted::Echo {
        to,
        ident,
        sequence,
        checksum,
        identity: Some(identity),
    };
    let Quoted::Syn {
        to,
        source_port,
        port,
        sequence,
    } = quoted(&syn, true)
    else {
        unreachable!()
    };
    let wrong_syn = Quoted::Syn {
        to,
        source_port,
        port,
        sequence: sequence.wrapping_sub(1),
    };
    // One about the reset after our SYN is no forgery, and ends no probe either.
    let of_reset = Quoted::Syn {
        to,
        source_port,
        port,
        sequence: sequence.wrapping_add(1),
    };
    for forged in [wrong_sum, wrong_token, wrong_syn, of_reset] {
        tracker.on_error(&forged, arrival(2 * MS));
    }
    assert_eq!(
        (
            tracker.counters().ended(),
            tracker.counters().strays_of(Stray::ErrorUnattributed)
        ),
        (0, 3)
    );
}

#[test]
fn the_time_that_a_reflector_took_is_left_out() {
    let plan = plan();
    let mut tracker = tracker_of(&plan);
    // Its clock is an hour ahead; it took 3 of 10 ms, and left 4 for the way there.
    let ahead_ns = 3_600_000 * MS;
    for (at, dwell_ns) in [(MS, 3 * MS), (20 * MS, 3 * MS), (40 * MS, 11 * MS)] {
        let leaving = tracker.depart(4, departure(at));
        let received_ns = leaving.identity.sent_ns + 4 * MS + ahead_ns;
        let reply = reflected(&leaving, received_ns, dwell_ns);
        tracker.on_stamp(leaving.flow, peer(&leaving), &reply, arrival(at + 10 * MS));
    }
    let (_, rows) = tracker.close(WINDOW_NS);
    let report = &rows[0].1;
    // Nobody takes longer than the whole way: then nothing is left out, and its times are not believed.
    let rtt = &report.rtt;
    assert_eq!(
        (rtt.min_us, rtt.max_us, rtt.sum_us),
        (7_000, 10_000, 24_000)
    );
    let one_way = report.counts.one_way.unwrap();
    for direction in [one_way.forward, one_way.backward] {
        assert_eq!(
            (direction.variation.pairs, direction.variation.max_us),
            (1, 0)
        );
    }
    assert_eq!(tracker.counters().reflections_disbelieved, 1);
}

#[test]
fn a_stamp_reply_must_bring_back_the_very_nanosecond() {
    let plan = plan();
    let mut tracker = tracker_of(&plan);
    let leaving = tracker.depart(4, departure(MS));
    let other = tracker.depart(5, departure(MS));
    let reply = reflected(&leaving, leaving.identity.sent_ns, 0);
    let spoil = |spoil: fn(&mut Request)| {
        let mut reply = reply;
        spoil(&mut reply.request);
        reply
    };
    let from = peer(&leaving);
    let later = spoil(|request| request.time.0 += 1);
    let unsent = spoil(|request| request.sequence += 3);
    let skipped = spoil(|request| request.sequence = 1);
    let nobodys = spoil(|request| request.ssid = 0);
    let mut others = reply;
    others.request.ssid = key().ssid(other.identity.slot);
    tracker.on_stamp(0, from, &later, arrival(2 * MS));
    for unknown in [unsent, skipped, nobodys] {
        tracker.on_stamp(0, from, &unknown, arrival(2 * MS));
    }
    let elsewhere: IpAddr = "203.0.113.9".parse().unwrap();
    for wrong in [
        SocketAddr::new(elsewhere, PORT),
        SocketAddr::new(from.ip(), PORT + 1),
    ] {
        tracker.on_stamp(0, wrong, &reply, arrival(2 * MS));
    }
    tracker.on_stamp(0, from, &others, arrival(2 * MS));
    let counters = *tracker.counters();
    assert_eq!(counters.strays_of(Stray::WrongToken), 1);
    assert_eq!(counters.strays_of(Stray::UnknownProbe), 3);
    assert_eq!(counters.strays_of(Stray::WrongAddress), 3);
    assert_eq!(counters.ended(), 0);
    tracker.on_stamp(0, from, &reply, arrival(2 * MS));
    assert_eq!(tracker.counters().of(Class::Replied), 1);
}

#[test]
fn what_never_left_is_no_loss_of_a_direction() {
    let plan = plan();
    let mut tracker = tracker_of(&plan);
    let first = tracker.depart(4, departure(1));
    reply(&mut tracker, &first, arrival(MS));
    let refused = tracker.depart(4, departure(2 * MS));
    tracker.refused_locally(4, refused.identity.sequence);
    let _lost = tracker.depart(4, departure(4 * MS));
    let last = tracker.depart(4, departure(6 * MS));
    // The second request that arrived: one of three did not leave, so one was lost on its way there.
    let mut second = reflected(&last, last.identity.sent_ns, 0);
    second.sequence = 1;
    tracker.on_stamp(last.flow, peer(&last), &second, arrival(8 * MS));
    let counts = counts(&mut tracker, 400 * MS, 4);
    let one_way = counts.one_way.unwrap();
    assert_eq!(counts.of(Class::Lost), 1);
    assert_eq!((one_way.forward.lost, one_way.backward.lost), (1, 0));
    assert_eq!((one_way.lost_unknown, one_way.lost_pending), (0, 0));
}

#[test]
fn a_second_reply_in_a_later_window_is_a_repeat() {
    let plan = plan();
    let mut tracker = tracker_of(&plan);
    let probe = tracker.depart(0, departure(MS));
    reply(&mut tracker, &probe, arrival(2 * MS));
    assert_eq!(counts(&mut tracker, WINDOW_NS, 0).of(Class::Replied), 1);
    reply(&mut tracker, &probe, arrival(WINDOW_NS + MS));
    assert_eq!(counts(&mut tracker, 2 * WINDOW_NS, 0).ended(), 0);
    assert_eq!(tracker.counters().strays_of(Stray::Repeated), 1);
}

#[test]
fn a_retransmitted_syn_ack_is_no_duplicate() {
    let plan = Plan {
        window: Duration::from_secs(10),
        expiry: Duration::from_secs(5),
        ..plan()
    };
    let mut tracker = tracker_of(&plan);
    let probe = tracker.depart(2, departure(MS));
    for again in [2 * MS, 1_002 * MS, 3_002 * MS] {
        reply(&mut tracker, &probe, arrival(again));
    }
    let counts = counts(&mut tracker, 10_000 * MS, 2);
    assert_eq!(
        (counts.of(Class::Replied), counts.of(Class::Duplicate)),
        (1, 0)
    );
    assert_eq!(tracker.counters().strays_of(Stray::Repeated), 2);
}

#[test]
fn what_goes_unanswered_while_a_queue_overflows_is_not_the_networks_loss() {
    let plan = plan();
    let mut tracker = tracker_of(&plan);
    tracker.depart(0, departure(MS));
    tracker.depart(2, departure(MS));
    tracker.overflowed(ProbeKind::Icmp, Family::V4, 5 * MS, 3);
    tracker.depart(0, departure(20 * MS));
    let (_, rows) = tracker.close(500 * MS);
    assert_eq!(
        (
            rows[0].1.counts.of(Class::LocalDrop),
            rows[0].1.counts.of(Class::Lost)
        ),
        (1, 1)
    );
    assert_eq!(
        rows[1].1.counts.of(Class::Lost),
        1,
        "another socket's queue"
    );
}

#[test]
fn an_answer_read_late_but_stamped_in_time_is_in_time() {
    let plan = plan();
    let mut tracker = tracker_of(&plan);
    let probe = tracker.depart(0, departure(MS));
    // INITIAL is longer than the expiry here, so the deadline is the expiry.
    let read_late = Arrival {
        mono_ns: 299 * MS,
        ..arrival(10 * MS)
    };
    reply(&mut tracker, &probe, read_late);
    assert_eq!(counts(&mut tracker, 300 * MS, 0).of(Class::Replied), 1);
}

#[test]
fn a_round_trip_is_the_cards_where_both_its_stamps_are_there_and_can_be_one() {
    /// The card's clock, which nobody sets.
    const CARD_NS: u64 = 7_000_000_000;
    let mut tracker = tracker_of(&plan());
    // When the card says that a probe left 1 ms, and its answer came 10 ms, after the clock's begin; and what is told then.
    let cases = [
        (
            Some(MS + 20_000),
            Some(11 * MS - 30_000),
            (10 * MS - 50_000, StampSource::Card),
        ),
        (None, Some(11 * MS), (10 * MS, StampSource::KernelBoth)),
        (Some(MS), None, (10 * MS, StampSource::KernelBoth)),
        // Another card's clock, before and behind; or more than a host can take.
        (Some(MS), Some(90 * MS), (10 * MS, StampSource::KernelBoth)),
        (
            Some(20 * MS),
            Some(11 * MS),
            (10 * MS, StampSource::KernelBoth),
        ),
        (
            Some(4 * MS),
            Some(8 * MS),
            (10 * MS, StampSource::KernelBoth),
        ),
        (
            Some(MS),
            Some(11 * MS + 2_500),
            (10 * MS + 2_500, StampSource::Card),
        ),
    ];
    for (left_ns, came_ns, (rtt_ns, source)) in cases {
        let probe = tracker.depart(0, departure(MS));
        let Identity { slot, sequence, .. } = probe.identity;
        tracker.stamp(slot, sequence, OFFSET_NS + MS).unwrap();
        if let Some(left_ns) = left_ns {
            tracker.stamp_by_card(slot, sequence, CARD_NS + left_ns);
        }
        let before = tracker.counters().stamps;
        let arrival = Arrival {
            card_ns: came_ns.map(|ns| CARD_NS + ns),
            ..arrival(11 * MS)
        };
        reply(&mut tracker, &probe, arrival);
        let case = format!("{left_ns:?} {came_ns:?}");
        let after = tracker.counters().stamps;
        assert_eq!(
            after[source as usize],
            before[source as usize] + 1,
            "{case}"
        );
        let (_, rows) = tracker.close(12 * MS);
        tracker.begin(Begin::Following);
        assert_eq!(
            u64::from(rows[0].1.rtt.max_us),
            rtt_ns.div_ceil(1_000),
            "{case}"
        );
    }
    // A probe that is not under way, or that nobody sent, is stamped in vain.
    tracker.stamp_by_card(99, 0, 1);
    tracker.stamp_by_card(0, 9_999, 1);
}

#[test]
fn a_stamp_that_cannot_be_the_probes_is_refused() {
    let plan = plan();
    let mut tracker = tracker_of(&plan);
    let probe = tracker.depart(0, departure(MS));
    let Identity { slot, sequence, .. } = probe.identity;
    assert_eq!(
        tracker.stamp(slot, sequence, OFFSET_NS + MS - 1),
        Err(UnfitStamp)
    );
    assert_eq!(
        tracker.stamp(slot, sequence + 1, OFFSET_NS + MS),
        Err(UnfitStamp)
    );
    assert_eq!(tracker.stamp(99, sequence, OFFSET_NS + MS), Err(UnfitStamp));
    assert_eq!(
        tracker.stamp(slot, sequence, OFFSET_NS + MS + 5_000),
        Ok(())
    );
    reply(&mut tracker, &probe, arrival(2 * MS));
    let (_, rows) = tracker.close(WINDOW_NS);
    assert_eq!(
        rows[0].1.rtt.min_us, 995,
        "from the kernel's stamp, not from ours"
    );
    assert_eq!(tracker.counters().stamps, [1, 0, 0, 0]);
}

#[test]
fn a_new_plan_keeps_what_stays_and_abandons_what_goes() {
    let old = plan();
    let mut tracker = tracker_of(&old);
    let stays = tracker.depart(2, departure(MS));
    let goes = tracker.depart(0, departure(MS));
    tracker.close(WINDOW_NS);
    let new = plan_of(vec![
        planned(ProbeKind::Icmp, "198.51.100.1"),
        old.paths[3].clone(),
        old.paths[2].clone(),
    ]);
    tracker.replan(wall(WINDOW_NS), &old.paths, &new);
    assert_eq!(tracker.counters().abandoned, 1);
    reply(&mut tracker, &goes, arrival(WINDOW_NS + MS));
    assert_eq!(tracker.counters().strays_of(Stray::UnknownProbe), 1);
    reply(&mut tracker, &stays, arrival(WINDOW_NS + MS));
    assert_eq!(
        tracker
            .depart(2, departure(WINDOW_NS + 2 * MS))
            .identity
            .sequence,
        stays.identity.sequence + 1
    );
    let row = counts(&mut tracker, 2 * WINDOW_NS, 2);
    assert_eq!((row.of(Class::Replied), row.scheduled, row.open), (1, 1, 1));
}

#[test]
fn a_smaller_ring_keeps_the_newest_and_the_account_holds() {
    let old = plan();
    let mut tracker = tracker_of(&old);
    for n in 0..10 {
        tracker.depart(0, departure(MS + n * 20 * MS));
    }
    assert_eq!(counts(&mut tracker, 200 * MS, 0).open, 10);
    let new = Plan {
        interval: Duration::from_millis(300),
        ..plan()
    };
    tracker.replan(wall(200 * MS), &old.paths, &new);
    let row = counts(&mut tracker, 201 * MS, 0);
    assert_eq!((row.of(Class::LocalDrop), row.open), (6, 4));
}

#[test]
fn a_path_costs_little_memory() {
    for (interval_ms, flows) in [(1_000, 1), (1_000, 4), (100, 1), (100, 4)] {
        let plan = Plan {
            interval: Duration::from_millis(interval_ms),
            expiry: Duration::from_secs(3),
            flows,
            ..plan()
        };
        let tracker = tracker_of(&plan);
        let (echo, stamp) = (tracker.bytes_of(0), tracker.bytes_of(4));
        println!(
            "interval {interval_ms} ms, {flows} flows: {echo} bytes, with a reflector {stamp}"
        );
        assert!(interval_ms < 1_000 || echo <= 512, "{echo}");
    }
}

#[test]
fn a_bad_flow_shows_in_its_own_account() {
    let plan = Plan { flows: 4, ..plan() };
    let mut tracker = tracker_of(&plan);
    let (mut now, mut left, mut taken) = (0, [[0u16; 4]; ROWS], None);
    while taken.is_none() {
        for row in 0..ROWS as u32 {
            let leaving = tracker.depart(row, departure(now + 1));
            left[row as usize][usize::from(leaving.flow)] += 1;
            assert!(
                leaving.kind != ProbeKind::TcpSyn
                    || leaving.source_port == FIRST_PORT + u16::from(leaving.flow)
            );
            // The third way of four loses everything, and the fourth takes longer.
            let rtt = MS * if leaving.flow == 3 { 3 } else { 2 };
            if leaving.flow != 2 {
                reply(&mut tracker, &leaving, arrival(now + rtt));
            }
        }
        now += 20 * MS;
        if now.is_multiple_of(WINDOW_NS) {
            tracker.close(now);
            taken = tracker.take_flows();
            tracker.begin(Begin::Following);
        }
    }
    let span = taken.unwrap();
    for (row, (flows, left)) in span.rows().zip(&left).enumerate() {
        for (flow, account) in flows.iter().enumerate() {
            let is_bad = flow == 2;
            // Those of the last expiry are still under way.
            let open = if is_bad {
                left[flow] - account.ended
            } else {
                0
            };
            assert!(
                open <= 6 && account.ended + open == left[flow],
                "{row} {flow}: {account:?}"
            );
            assert_eq!(account.lost, if is_bad { account.ended } else { 0 });
            let rtt_us = [2_000, 2_000, 0, 3_000][flow];
            assert_eq!(account.rtt_min_us, rtt_us, "{row} {flow}");
            // All pairs were lost whole, but for one that the end may have cut.
            assert!(account.lost_pairs >= account.lost / 2, "{account:?}");
        }
    }
}

#[test]
fn another_number_of_flows_begins_all_paths_anew() {
    let old = plan();
    let mut tracker = tracker_of(&old);
    let before = tracker.depart(0, departure(MS));
    let new = Plan { flows: 4, ..plan() };
    tracker.replan(wall(100 * MS), &old.paths, &new);
    assert_eq!(
        (tracker.counters().abandoned, tracker.counters().open()),
        (1, 0)
    );
    reply(&mut tracker, &before, arrival(101 * MS));
    assert_eq!(tracker.counters().strays_of(Stray::UnknownProbe), 1);
}

#[test]
fn a_connection_that_was_made_is_timed_by_the_kernel_and_one_refused_by_this_process() {
    let plan = plan();
    let mut tracker = tracker_of(&plan);
    let ends = [
        (Connected::Made { rtt_ns: 700_000 }, Class::Replied),
        (Connected::Refused, Class::Refused),
        (Connected::Unreachable, Class::IcmpError),
    ];
    for (connected, class) in ends {
        let leaving = tracker.depart(2, departure(MS));
        let probe = (leaving.identity.slot, leaving.identity.sequence);
        tracker.on_connected(probe, connected, 3 * MS);
        assert_eq!(tracker.counters().of(class), 1, "{class:?}");
        tracker.on_connected(probe, connected, 3 * MS);
    }
    let (_, rows) = tracker.close(WINDOW_NS);
    let rtt = &rows[0].1.rtt;
    assert_eq!((rtt.min_us, rtt.max_us), (700, 2_000));
    assert_eq!(tracker.counters().stamps, [1, 0, 1, 0]);
    tracker.on_connected((99, 0), Connected::Refused, 4 * MS);
    assert_eq!(tracker.counters().strays_of(Stray::UnknownProbe), 1);
}

const RULE: Rule = Rule {
    probes: 3,
    after: Duration::from_millis(50),
};

#[test]
fn a_path_that_falls_silent_is_reported_at_once_and_once() {
    let plan = Plan {
        silence: Some(RULE),
        ..plan()
    };
    let mut tracker = tracker_of(&plan);
    // Teach the path its deadline: about 101 ms for a steady round trip of one.
    let mut now = 0;
    for _ in 0..50 {
        now += 20 * MS;
        let leaving = tracker.depart(0, departure(now));
        reply(&mut tracker, &leaving, arrival(now + MS));
        let _ = tracker.close(now + MS);
        tracker.begin(Begin::Following);
        assert_eq!(tracker.look(now + MS), []);
    }
    let heard = now + MS;
    let mut last = None;
    for n in 1..=3 {
        last = Some((
            tracker.depart(0, departure(now + n * 20 * MS)),
            now + n * 20 * MS,
        ));
    }
    let (leaving, third_left) = last.unwrap();
    let look_at = tracker.next_look_ns();
    assert!(look_at >= third_left + 100 * MS && look_at < third_left + 110 * MS);
    assert_eq!(tracker.look(look_at - MS), []);
    assert_eq!(tracker.next_look_ns(), look_at, "the third deadline");
    let part = tracker.look(look_at);
    let [(0, report)] = part.as_slice() else {
        panic!("{part:?}")
    };
    let silence = report.counts.silence.unwrap();
    assert_eq!((report.counts.overdue, report.counts.open), (3, 3));
    assert_eq!(silence.unanswered, 3);
    assert_eq!(
        silence.lasts,
        Duration::from_micros((look_at - heard) / 1_000)
    );
    assert_eq!(tracker.look(look_at + MS), [], "it was told");

    let back = look_at + 5 * MS;
    reply(&mut tracker, &leaving, arrival(back));
    assert_eq!(
        tracker.look(back),
        [],
        "the return waits for the window's end"
    );
    let rest = counts(&mut tracker, back + MS, 0);
    assert_eq!(rest.silence, Some(Default::default()));
    assert_eq!((rest.scheduled, rest.of(Class::Late), rest.open), (0, 1, 2));
}

#[test]
fn a_reply_that_was_reported_early_is_not_made_a_duplicate_afterwards() {
    let plan = Plan {
        silence: Some(Rule {
            probes: 1,
            after: Duration::ZERO,
        }),
        ..plan()
    };
    let mut tracker = tracker_of(&plan);
    let replied = tracker.depart(0, departure(MS));
    reply(&mut tracker, &replied, arrival(2 * MS));
    let left = 3 * MS;
    let _lost = tracker.depart(0, departure(left));
    let part = tracker.look(left + EXPIRY.as_nanos() as u64);
    assert_eq!(part[0].1.counts.of(Class::Replied), 1);
    reply(&mut tracker, &replied, arrival(200 * MS));
    assert_eq!(tracker.counters().strays_of(Stray::Repeated), 1);
    assert_eq!(tracker.counters().of(Class::Duplicate), 0);
}

// The model.

/// What the network does to one probe.
#[derive(Clone, Debug)]
enum Fate {
    Lost,
    Refused,
    /// Replies after these delays, in microseconds.
    Replies(Vec<u32>),
    Reset(u32),
    Error(u32),
}

#[derive(Clone, Debug)]
struct Sending {
    row: u32,
    gap_us: u32,
    fate: Fate,
    stamped: bool,
}

fn fate() -> impl Strategy<Value = Fate> {
    let delay = || prop_oneof![8 => 100u32..60_000, 2 => 60_000u32..600_000];
    prop_oneof![
        2 => Just(Fate::Lost),
        1 => Just(Fate::Refused),
        8 => prop::collection::vec(delay(), 1..4).prop_map(Fate::Replies),
        1 => delay().prop_map(Fate::Reset),
        1 => delay().prop_map(Fate::Error),
    ]
}

fn sending() -> impl Strategy<Value = Sending> {
    (0..ROWS as u32, 20_000u32..30_000, fate(), any::<bool>()).prop_map(
        |(row, gap_us, fate, stamped)| Sending {
            row,
            gap_us,
            fate,
            stamped,
        },
    )
}

#[derive(Clone, Debug)]
enum Event {
    Close,
    Step(i64),
    Depart(usize),
    Answer(usize, Answered),
}

/// The independent account of one probe.
#[derive(Clone, Debug)]
struct Account {
    leaving: Leaving,
    sent_ns: u64,
    deadline_us: u64,
    era: u8,
    ended: Option<(Class, usize)>,
    overdue: bool,
}

fn events(sendings: &[Sending], steps: &[(u64, i64)]) -> Vec<(u64, Event)> {
    let mut events = Vec::new();
    let mut times = [0u64; ROWS];
    for (at, sending) in sendings.iter().enumerate() {
        let time = &mut times[sending.row as usize];
        *time += u64::from(sending.gap_us) * 1_000;
        events.push((*time, Event::Depart(at)));
        let mut answer = |delay: u32, answered| {
            events.push((
                *time + u64::from(delay) * 1_000 + 1,
                Event::Answer(at, answered),
            ));
        };
        match &sending.fate {
            Fate::Lost | Fate::Refused => {}
            Fate::Replies(delays) => delays
                .iter()
                .for_each(|&delay| answer(delay, Answered::Reply)),
            Fate::Reset(delay) => answer(*delay, Answered::Reset),
            Fate::Error(delay) => answer(*delay, Answered::Error),
        }
    }
    let end =
        events.iter().map(|(time, _)| *time).max().unwrap_or(0) + 2 * EXPIRY.as_nanos() as u64;
    events.extend((1..=end / WINDOW_NS + 1).map(|n| (n * WINDOW_NS, Event::Close)));
    events.extend(steps.iter().map(|&(at, step)| (at, Event::Step(step))));
    events.sort_by_key(|(time, _)| *time);
    events
}

/// What a tracker reports of a row in each window, as parts; looked at every so many events, if at all.
fn parts(
    rule: Option<Rule>,
    flows: u8,
    look_every: usize,
    sendings: &[Sending],
) -> Vec<[Vec<Counts>; ROWS]> {
    let plan = Plan {
        silence: rule,
        flows,
        ..plan()
    };
    let mut tracker = tracker_of(&plan);
    let mut leavings: Vec<Option<Leaving>> = vec![None; sendings.len()];
    let mut windows = vec![<[Vec<Counts>; ROWS]>::default()];
    for (n, (now, event)) in events(sendings, &[]).into_iter().enumerate() {
        match event {
            Event::Depart(at) => {
                let leaving = tracker.depart(sendings[at].row, departure(now));
                if matches!(sendings[at].fate, Fate::Refused) {
                    tracker.refused_locally(sendings[at].row, leaving.identity.sequence);
                }
                leavings[at] = Some(leaving);
            }
            Event::Answer(at, answered) => {
                let leaving = leavings[at].unwrap();
                match answered {
                    Answered::Error => tracker.on_error(&quoted(&leaving, true), arrival(now)),
                    _ => reply(&mut tracker, &leaving, arrival(now)),
                }
            }
            Event::Close => {
                for (row, report) in tracker.close(now).1 {
                    windows.last_mut().unwrap()[row as usize].push(report.counts);
                }
                tracker.begin(Begin::Following);
                windows.push(Default::default());
            }
            Event::Step(_) => {}
        }
        if n % look_every == 0 {
            for (row, report) in tracker.look(now) {
                windows.last_mut().unwrap()[row as usize].push(report.counts);
            }
        }
    }
    windows
}

fn lost_pending(counts: &Counts) -> u64 {
    counts
        .one_way
        .map_or(0, |one_way| one_way.lost_pending.into())
}

/// What must be pending after a report when so much was before it.
fn settled(pending: u64, counts: &Counts) -> u64 {
    let Some(one_way) = counts.one_way else {
        return 0;
    };
    let told = one_way.forward.lost + one_way.backward.lost + one_way.lost_unknown;
    pending + u64::from(counts.of(Class::Lost)) - u64::from(told)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Early reports take nothing away, count nothing twice, and leave the account whole from part to part.
    #[test]
    fn the_parts_of_a_window_add_up_to_the_window(
        sendings in prop::collection::vec(sending(), 1..200),
        probes in 1u32..4,
        after_ms in 0u64..100,
        look_every in 1usize..4,
        flows in 1u8..=8,
    ) {
        let rule = Rule { probes, after: Duration::from_millis(after_ms) };
        let whole = parts(None, flows, 1, &sendings);
        let cut = parts(Some(rule), flows, look_every, &sendings);
        let mut open = [0u64; ROWS];
        let mut pending = [0u64; ROWS];
        for (n, (whole, cut)) in whole.iter().zip(&cut).enumerate() {
            for row in 0..ROWS {
                let sum = |of: &dyn Fn(&Counts) -> u64| (
                    whole[row].iter().map(of).sum::<u64>(), cut[row].iter().map(of).sum::<u64>()
                );
                for of in [
                    &(|counts: &Counts| u64::from(counts.scheduled)) as &dyn Fn(&Counts) -> u64,
                    &|counts| counts.ended(),
                    &|counts| counts.answered(),
                    &|counts| u64::from(counts.of(Class::Lost) + counts.of(Class::IcmpError)),
                ] {
                    let (want, got) = sum(of);
                    prop_assert_eq!(want, got, "window {} row {}: {:?} {:?}", n, row, whole[row], cut[row]);
                }
                // An error after deadline or expiry finds its probe overdue or lost only if somebody looked in between.
                let (want, got) = sum(&|counts| u64::from(counts.overdue));
                let (errors, _) = sum(&|counts| u64::from(counts.of(Class::IcmpError)));
                prop_assert!((want..=want + errors).contains(&got), "window {} row {}", n, row);
                for part in &cut[row] {
                    open[row] = open[row] + u64::from(part.scheduled) - part.ended();
                    prop_assert_eq!(u64::from(part.open), open[row], "window {} row {}", n, row);
                    pending[row] = settled(pending[row], part);
                    prop_assert_eq!(lost_pending(part), pending[row], "window {} row {}", n, row);
                }
            }
        }
    }

    /// Loss, duplication, reordering, delay past deadline and expiry, errors, refusals, and steps of the wall clock.
    #[test]
    fn every_probe_ends_as_an_independent_account_says(
        sendings in prop::collection::vec(sending(), 1..200),
        steps in prop::collection::vec((0u64..3_000 * MS, prop_oneof![Just(-5_000_000i64), 3_000i64..10_000_000]), 0..4),
        flows in 1u8..=8,
    ) {
        let plan = Plan { flows, ..plan() };
        let mut tracker = tracker_of(&plan);
        let expiry_ns = EXPIRY.as_nanos() as u64;
        let mut accounts: Vec<Option<Account>> = vec![None; sendings.len()];
        let mut deadlines = [Deadline::default(); ROWS];
        let mut open = [0u64; ROWS];
        let mut pending = [0u64; ROWS];
        let (mut window, mut offset, mut era) = (0usize, OFFSET_NS, 0u8);
        let mut wanted = vec![[Counts::default(); ROWS]; 1];
        for (now, event) in events(&sendings, &steps) {
            match event {
                Event::Step(step) => {
                    offset = offset.wrapping_add_signed(step);
                    era += 1;
                }
                Event::Depart(at) => {
                    let Sending { row, ref fate, stamped, .. } = sendings[at];
                    let leaving = tracker.depart(row, Departure { mono_ns: now, wall_ns: offset + now, clock_era: era });
                    let deadline_us = deadlines[row as usize].after(EXPIRY).as_micros() as u64;
                    let mut account = Account { leaving, sent_ns: now, deadline_us, era, ended: None, overdue: false };
                    wanted[window][row as usize].scheduled += 1;
                    if matches!(fate, Fate::Refused) {
                        tracker.refused_locally(row, leaving.identity.sequence);
                        wanted[window][row as usize].end(Class::LocalDrop);
                        account.ended = Some((Class::LocalDrop, window));
                    } else if stamped {
                        prop_assert_eq!(tracker.stamp(leaving.identity.slot, leaving.identity.sequence, offset + now), Ok(()));
                    }
                    accounts[at] = Some(account);
                }
                Event::Answer(at, answered) => {
                    let account = accounts[at].as_mut().unwrap();
                    let leaving = account.leaving;
                    let arrival = Arrival { mono_ns: now, stamp_ns: Some(offset + now), card_ns: None, clock_era: era };
                    let is_tcp = leaving.kind == ProbeKind::TcpSyn;
                    match answered {
                        Answered::Reply | Answered::Reflected(_) => reply(&mut tracker, &leaving, arrival),
                        Answered::Reset if is_tcp => {
                            tracker.on_tcp(leaving.address, &tcp(&leaving, Kind::Reset), arrival);
                        }
                        // Nobody resets an echo request.
                        Answered::Reset => continue,
                        Answered::Error => tracker.on_error(&quoted(&leaving, true), arrival),
                    }
                    let row = sendings[at].row as usize;
                    let count = &mut wanted[window][row];
                    let rtt_ns = now - account.sent_ns;
                    let rtt_us = (rtt_ns + 500) / 1_000;
                    if let Some((class, in_window)) = account.ended {
                        if class == Class::Replied && in_window == window && answered == Answered::Reply && rtt_ns <= expiry_ns {
                            count.classes[Class::Replied as usize] -= 1;
                            count.end(Class::Duplicate);
                            account.ended = Some((Class::Duplicate, window));
                        }
                        continue;
                    }
                    let late = rtt_ns > account.deadline_us * 1_000;
                    let class = match answered {
                        Answered::Error => Class::IcmpError,
                        _ if account.era != era => Class::LocalDrop,
                        _ if rtt_ns > expiry_ns => continue,
                        _ if late => Class::Late,
                        Answered::Reset => Class::Refused,
                        Answered::Reply | Answered::Reflected(_) => Class::Replied,
                    };
                    if matches!(class, Class::Late | Class::Refused | Class::Replied) {
                        deadlines[row].on_rtt(rtt_us as u32);
                        if class == Class::Late && !account.overdue {
                            count.overdue += 1;
                        }
                    }
                    count.end(class);
                    account.ended = Some((class, window));
                }
                Event::Close => {
                    for (account, sending) in accounts.iter_mut().zip(&sendings) {
                        let Some(account) = account.as_mut().filter(|account| account.ended.is_none()) else { continue };
                        let (age, count) = (now - account.sent_ns, &mut wanted[window][sending.row as usize]);
                        if age >= account.deadline_us * 1_000 && !account.overdue {
                            account.overdue = true;
                            count.overdue += 1;
                        }
                        if age >= expiry_ns {
                            account.ended = Some((Class::Lost, window));
                            count.end(Class::Lost);
                        }
                    }
                    let (_, rows) = tracker.close(now);
                    tracker.begin(Begin::Following);
                    for row in 0..ROWS {
                        let got = rows.iter().find(|(of, _)| *of as usize == row).map(|(_, report)| report.counts);
                        let mut got = got.unwrap_or_default();
                        got.silence = None;
                        prop_assert_eq!(got.one_way.is_some(), row >= 4 && got != Counts::default());
                        if got != Counts::default() {
                            pending[row] = settled(pending[row], &got);
                            prop_assert_eq!(lost_pending(&got), pending[row], "window {} row {}", window, row);
                        }
                        got.one_way = None;
                        let mut want = wanted[window][row];
                        open[row] = open[row] + u64::from(want.scheduled) - want.ended();
                        want.open = open[row] as u32;
                        prop_assert_eq!(got, want, "window {} row {}", window, row);
                    }
                    wanted.push(Default::default());
                    window += 1;
                }
            }
        }
        let counters = tracker.counters();
        prop_assert_eq!(open, [0; ROWS], "everything has ended");
        prop_assert_eq!(counters.scheduled, sendings.len() as u64);
        prop_assert_eq!(counters.ended(), counters.scheduled);
    }
}
