//! The verdict of every scenario, whenever it changes: the sentences that people are paged with, under version control.
//!
//! `LEEWARD_UPDATE_TRANSCRIPTS=1 cargo test -p leeward-engine --test verdicts` writes them anew.

#![expect(clippy::unwrap_used, reason = "tests")]

mod bench;

use std::{collections::BTreeMap, fmt::Write, fs, path::PathBuf, time::Duration};

use bench::{Bench, SECOND, START, WELL, region, service};
use leeward_common::id::{OfferId, OverrideId, ResourceId, ServiceId};
use leeward_engine::{
    Engine,
    input::Input,
    intent::{Amendment, Change, Offer, Override, Owner, Rule},
    scenario::Scenario,
    simulate,
    verdict::{Severity, Verdict, verdict},
    view::{RegionState, View, Vote},
};
use proptest::prelude::*;

fn folder(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Figures and the worst of several links change with every window: it is another sentence when the rest is.
fn gist(sentence: &str) -> String {
    let gist = sentence.split(" worst ").next().unwrap_or_default();
    let gist = gist.split(": ").next().unwrap_or_default();
    gist.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The loss as estimated is for other tests to judge.
fn without_shares(sentence: &str) -> String {
    let mut words: Vec<&str> = sentence.split(' ').collect();
    for at in 1..words.len() {
        if words[at].starts_with('%') && words[at - 1].parse::<f64>().is_ok() {
            words[at - 1] = "N";
        }
    }
    words.join(" ")
}

fn story(scenario: &Scenario) -> String {
    let mut engine = Engine::new(scenario.policy.clone());
    let (mut told, mut last) = (String::new(), String::new());
    let mut next = simulate::START;
    simulate::run_with(scenario, |at, input| {
        engine.step(at, input);
        if matches!(input, Input::Tick) && at >= next {
            next = at + Duration::from_millis(500);
            let verdict = verdict(&engine.view(), at);
            let severity = format!("{:?}", verdict.severity).to_lowercase();
            let gist = format!("{severity} {}", gist(&verdict.sentence));
            if gist != last {
                last = gist;
                let seconds = at.since(simulate::START).as_secs_f64();
                let sentence = without_shares(&verdict.sentence);
                let _ = writeln!(told, "{seconds:9.3} s  {severity:<8}  {sentence}");
            }
        }
    });
    told
}

#[test]
fn every_scenario_has_its_sentences() {
    let mut names: Vec<PathBuf> = fs::read_dir(folder("../scenarios"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    names.sort();
    let mut all = String::new();
    for path in names {
        let text = fs::read_to_string(&path).unwrap();
        let scenario = Scenario::parse(&path.to_string_lossy(), &text).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let _ = writeln!(all, "{name}\n{}", story(&scenario));
    }
    let golden = folder("tests/verdicts.txt");
    if std::env::var_os("LEEWARD_UPDATE_TRANSCRIPTS").is_some() {
        fs::write(&golden, &all).unwrap();
    }
    let known = fs::read_to_string(&golden).unwrap_or_default();
    assert!(known == all, "--- now\n{all}\n--- as committed\n{known}");
}

fn told(bench: &Bench) -> Verdict {
    let view = bench.engine.view();
    verdict(&view, view.now)
}

fn change(bench: &mut Bench, what: Amendment) {
    let change = Change {
        who: "ops".to_owned(),
        why: "new switches".to_owned(),
        what,
    };
    bench.step(bench.now(), &Input::Change(Box::new(change)));
}

fn offer(bench: &mut Bench, at: &str, units: f64) {
    let amounts = BTreeMap::from([(ResourceId::parse("units").unwrap(), units)]);
    let offer = Offer {
        region: region(at),
        amounts,
        until: None,
    };
    let id = OfferId::parse(at).unwrap();
    change(bench, Amendment::PutOffer(id, offer));
}

fn put_shop(bench: &mut Bench, home: &str) {
    let mut shop = service(home);
    shop.needs.insert(ResourceId::parse("units").unwrap(), 8.0);
    let id = ServiceId::parse("shop").unwrap();
    change(bench, Amendment::PutService(id, Box::new(shop)));
}

/// A region that nobody reaches and whose agents are silent.
fn without(lost: &'static str) -> impl Fn(&str, &str) -> Option<(u32, u32)> {
    move |from: &str, to: &str| match from.starts_with(lost) {
        true => None,
        false => Some((if to.starts_with(lost) { 0 } else { 10 }, 20_000)),
    }
}

#[test]
fn a_region_that_is_down_comes_before_all_else_and_says_where_everybody_went() {
    let mut bench = Bench::four();
    bench.run(10, WELL);
    bench.run(4, without("b"));
    let verdict = told(&bench);
    assert_eq!(verdict.severity, Severity::Bad);
    let (what, action) = (&verdict.findings[0].what, &verdict.findings[0].action);
    assert_eq!(what, "b is down");
    assert!(action.starts_with("a now fails over to "), "{action}");
    assert!(!action.contains(" to b"), "{action}");
    assert_eq!(
        verdict.findings[0].why,
        "6 of 6 observers in 3 regions see total loss"
    );
}

#[test]
fn what_runs_nowhere_is_told_beside_the_region_that_is_down() {
    let mut bench = Bench::four();
    offer(&mut bench, "a", 10.0);
    for other in ["b", "c", "d"] {
        offer(&mut bench, other, 1.0);
    }
    put_shop(&mut bench, "a");
    bench.run(10, WELL);
    bench.run(6, without("a"));
    let sentence = told(&bench).sentence;
    assert!(sentence.starts_with("A is down; shop "), "{sentence}");
}

#[test]
fn while_the_observers_are_cut_off_nothing_else_is_claimed() {
    let mut bench = Bench::four();
    bench.run(10, WELL);
    bench.run(4, |_, _| Some((0, 0)));
    let verdict = told(&bench);
    assert_eq!(verdict.severity, Severity::Unknown);
    assert!(
        verdict.sentence.starts_with(
            "Nobody can tell how any region is: every observer sees every region as lost"
        ),
        "{}",
        verdict.sentence
    );
    assert!(
        verdict
            .sentence
            .ends_with("stays as it is until somebody sees again.")
    );
}

#[test]
fn an_override_that_ends_soon_is_told_first_of_the_notes() {
    let mut bench = Bench::four();
    bench.run(10, WELL);
    for (id, at, seconds) in [("long", "c", 7_200), ("short", "d", 120)] {
        let rule = Rule::Drain {
            region: region(at),
            suspect: false,
        };
        let until = bench.now() + SECOND * seconds;
        let id = OverrideId::parse(id).unwrap();
        change(
            &mut bench,
            Amendment::PutOverride(id, Override { rule, until }),
        );
    }
    bench.run(3, WELL);
    let verdict = told(&bench);
    assert_eq!(verdict.severity, Severity::Note);
    let sentence = &verdict.sentence;
    assert!(
        sentence.contains("D is drained by ops, but only until 00:02:10 UTC: new switches."),
        "{sentence}"
    );
}

#[test]
fn a_pin_in_a_region_that_is_down_is_told_with_who_gave_it() {
    let mut bench = Bench::four();
    bench.run(5, WELL);
    let rule = Rule::Pin {
        owner: Owner::Region(region("a")),
        region: region("b"),
    };
    let until = bench.now() + SECOND * 3_600;
    let id = OverrideId::parse("pin").unwrap();
    change(
        &mut bench,
        Amendment::PutOverride(id, Override { rule, until }),
    );
    bench.run(5, WELL);
    bench.run(4, without("b"));
    let verdict = told(&bench);
    let of_a = verdict
        .findings
        .iter()
        .find(|own| own.place == "a")
        .unwrap();
    let begin = "a still fails over to b, which is down: pinned to b by ops until ";
    assert!(of_a.what.starts_with(begin), "{}", of_a.what);
}

/// What goes on for some seconds.
#[derive(Clone, Copy, Debug)]
enum Weather {
    Well,
    Lost(&'static str),
    Grey(&'static str),
    Cut(&'static str, &'static str),
    Deaf(&'static str),
    Silent(&'static str),
    NobodySees,
    NobodyReports,
}

impl Weather {
    fn becomes(self, from: &str, to: &str) -> Option<(u32, u32)> {
        let well = Some((10, 20_000));
        let touches = |region: &str| from.starts_with(region) || to.starts_with(region);
        match self {
            Self::Lost(lost) => without(lost)(from, to),
            Self::Grey(region) if touches(region) => Some((7, 20_000)),
            Self::Cut(a, b) if touches(a) && touches(b) => Some((0, 0)),
            Self::Deaf(region) if from.starts_with(region) => Some((0, 0)),
            Self::Silent(region) if from.starts_with(region) => None,
            Self::NobodySees => Some((0, 0)),
            Self::NobodyReports => None,
            _ => well,
        }
    }
}

fn weather() -> impl Strategy<Value = Weather> {
    let any = || prop::sample::select(vec!["a", "b", "c", "d"]);
    prop_oneof![
        Just(Weather::Well),
        any().prop_map(Weather::Lost),
        any().prop_map(Weather::Grey),
        (any(), any()).prop_map(|(a, b)| Weather::Cut(a, b)),
        any().prop_map(Weather::Deaf),
        any().prop_map(Weather::Silent),
        Just(Weather::NobodySees),
        Just(Weather::NobodyReports),
    ]
}

/// Why nobody may say that all is well.
fn unwell(view: &View) -> Option<String> {
    let mut agents = view.agents.values();
    if !agents.any(|agent| agent.vote == Vote::Counts) {
        return Some("nobody is heard".to_owned());
    }
    if let Some(cut_off) = &view.fail_static {
        return Some(cut_off.detail.clone());
    }
    let mut regions = view.regions.iter();
    if let Some((id, own)) = regions.find(|(_, own)| own.state != RegionState::Up) {
        return Some(format!("{id} is {:?}", own.state));
    }
    let down = |own: &leeward_engine::view::SelectionView| {
        own.unserved.is_some() || (own.since.is_some() && own.selected.is_none())
    };
    let mut services = view.services.iter();
    let unserved = services.find(|(_, own)| down(own));
    unserved.map(|(id, _)| format!("{id} is not served"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens, nobody is told that all is well while it is not, and what is told is in order.
    #[test]
    fn all_is_never_well_while_something_is_down_unserved_or_unheard(
        story in prop::collection::vec((weather(), 1_u32..8), 1..8),
        room in prop::sample::select(vec![1.0, 9.0]),
    ) {
        let mut bench = Bench::four();
        offer(&mut bench, "a", 9.0);
        for other in ["b", "c", "d"] {
            offer(&mut bench, other, room);
        }
        put_shop(&mut bench, "a");
        bench.run(6, WELL);
        for (weather, seconds) in story {
            for _ in 0..seconds {
                let view = bench.run(1, |from, to| weather.becomes(from, to));
                let verdict = verdict(&view, view.now);
                let says_well = verdict.sentence.starts_with("All ");
                prop_assert_eq!(says_well, verdict.severity <= Severity::Note);
                if let Some(why) = unwell(&view) {
                    prop_assert!(!says_well, "{}: {}", why, verdict.sentence);
                }
                let blind = usize::from(view.fail_static.is_some());
                let mut rest = verdict.findings.iter().skip(blind).map(|own| own.severity);
                let mut worst = rest.next().unwrap_or(Severity::Well);
                for next in rest {
                    prop_assert!(next <= worst, "{:?}", verdict.findings);
                    worst = next;
                }
                // It does not send anybody to a region that it calls down.
                for (id, own) in view.regions.iter() {
                    if own.state == RegionState::Down {
                        let sent = format!("now fails over to {id}");
                        prop_assert!(!verdict.sentence.contains(&sent), "{}", verdict.sentence);
                    }
                }
            }
        }
        // An old picture is not told as if it were now.
        let view = bench.engine.view();
        let later = verdict(&view, view.now + SECOND * 60);
        prop_assert_eq!(later.severity, Severity::Unknown);
        prop_assert!(view.now > START);
    }
}
