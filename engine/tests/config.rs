//! What the reader of a policy or a scenario says about values that cannot stand: where, and what to write instead.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use leeward_common::id::{AgentId, RegionId};
use leeward_engine::scenario::Scenario;

const HEAD: &str = r#"name = "x"
duration = "60s"
[[region]]
id = "virginia"
latitude = 36.67
longitude = -78.39
[[region]]
id = "oregon"
latitude = 47.23
longitude = -119.85
"#;

const LINK: &str = "[[link]]\nbetween = [\"virginia\", \"oregon\"]\nrtt = \"68ms\"\n";

fn read(tail: &str) -> Result<Scenario, String> {
    let text = format!("{HEAD}{LINK}{tail}");
    Scenario::parse("x.toml", &text).map_err(|error| error.to_string())
}

fn error(tail: &str) -> String {
    read(tail).unwrap_err()
}

#[test]
fn every_wrong_value_is_named_with_its_place_and_what_to_write() {
    // The tail begins in line 14.
    let cases = [
        (
            "[probing]\nintervall = \"1s\"",
            "15:1: unknown field `intervall`",
        ),
        (
            "[probing]\ninterval = \"50\"",
            "15:12: \"50\" is not a span of time",
        ),
        (
            "[probing]\ninterval = \"2h\"",
            "15:12: 7200s is out of range; write 1ms to 60s",
        ),
        (
            "[probing]\nwindow = \"7s\"",
            "15:10: window 7s does not divide a minute",
        ),
        (
            "[probing]\ndigits = 4",
            "15:10: digits is 4; it must be 2 or 3",
        ),
        ("[probing]\nkinds = []", "15:9: kinds must name"),
        (
            "[policy.steadiness]\nmargin = 0.5",
            "15:10: 0.5 is out of range; write 1 to 1000",
        ),
        ("[policy.weights]\nloss = nan", "15:8: NaN is out of range"),
        (
            "[[region]]\nid = \"oregon\"\nlatitude = 0\nlongitude = 0",
            "15:6: region oregon is already defined above",
        ),
        (
            "[[region]]\nid = \"Oslo\"\nlatitude = 0\nlongitude = 0",
            "15:6: \"Oslo\" is not a region id",
        ),
        (
            "[[region]]\nid = \"oslo\"\nlatitude = 91.0\nlongitude = 0",
            "16:12: 91 is out of range; write -90 to 90",
        ),
        (
            "[[failover]]\nprimary = \"virgina\"",
            "15:11: region virgina is not defined; did you mean virginia?",
        ),
        (
            "[[failover]]\nprimary = \"tokyo\"",
            "15:11: region tokyo is not defined; regions are oregon, virginia",
        ),
        (
            "[[failover]]\nprimary = \"virginia\"\ncandidates = [\"virginia\"]",
            "16:15: virginia cannot stand in for itself",
        ),
        (
            "[[failover]]\nprimary = \"virginia\"\ncandidates = [\"oregon\", \"oregon\"]",
            "16:25: candidate oregon is named twice",
        ),
        (
            "[[failover]]\nprimary = \"virginia\"\nweights = { virginia = 2.0 }",
            "16:13: virginia is no candidate of virginia; candidates are oregon",
        ),
        (
            "[[failover]]\nprimary = \"virginia\"\n[[failover]]\nprimary = \"virginia\"",
            "17:11: failover of primary virginia is already defined above",
        ),
        (
            "[[link]]\nfrom = \"oregon\"",
            "a link is either between = [a, b] with rtt, or from and to with delay",
        ),
        (
            "[[link]]\nfrom = \"oregon\"\nto = \"virginia\"\ndelay = \"1ms\"",
            "link oregon->virginia is defined twice",
        ),
        (
            "[[event]]\nat = \"61s\"\nsay = \"x\"",
            "15:6: 61s is after the scenario's end at 60s",
        ),
        ("[[event]]\nat = \"1s\"", "the event does nothing"),
        (
            "[[event]]\nat = \"1s\"\nset = { loss = 0.1 }",
            "links and set belong together",
        ),
        (
            "[[event]]\nat = \"1s\"\nlinks = [\"a>b\"]\nset = { loss = 0.1 }",
            "16:10: \"a>b\" is no link; write \"a->b\"",
        ),
        (
            "[[event]]\nat = \"1s\"\nlinks = [\"*->*\"]\nset = { loss = 8 }",
            "8 is not a ratio; use a number from 0 to 1",
        ),
        (
            "[[event]]\nat = \"1s\"\nlinks = [\"*->*\"]\nset = { rate = \"fast\" }",
            "\"fast\" is not a rate; write \"64kbit\"",
        ),
        (
            "[[event]]\nat = \"1s\"\nregion_down = \"oregn\"",
            "16:15: region oregn is not defined; did you mean oregon?",
        ),
        (
            "[[event]]\nat = \"1s\"\nagent_stop = \"oregon-2\"",
            "16:14: agent oregon-2 does not exist; agents are oregon-1, virginia-1",
        ),
        (
            "[policy.routing]\nmax_factor = 0.5",
            "15:14: 0.5 is out of range; write 1 to 1000000",
        ),
        (
            "[[event]]\nat = \"1s\"\nrouting = { feeds = [\"r\"], change = \"lost\" }",
            "feed r is not defined; add a [[feed]]",
        ),
        (
            "[[event]]\nat = \"1s\"\nsignal = { source = \"s\", region = \"oregon\", metric = \"health\", value = 1.0, ttl = \"1s\" }",
            "signal source s is not defined; add a [[signal_source]]",
        ),
        (
            "[[event]]\nat = \"1s\"\nlinks = [\"oregon-1->virgina-1\"]\nset = { loss = 0.1 }",
            "16:10: region virgina-1 is not defined; did you mean virginia?",
        ),
        (
            "[[event]]\nat = \"1s\"\nlinks = [\"*->*\"]\nset = { loss = 0.1 }\nover = \"2h\"",
            "18:8: 7200s is too long; write at most 3600s",
        ),
        (
            "[[event]]\nat = \"1s\"\nclock = { agent = \"oregon-1\" }",
            "16:9: a clock is either ahead or behind",
        ),
        (
            "[[event]]\nat = \"1s\"\nlift_override = \"works\"",
            "16:17: override works is put nowhere in this scenario",
        ),
        (
            "[[service]]\nid = \"shop\"\nhome = \"tokyo\"",
            "14:1: region tokyo is not defined",
        ),
        (
            "[[service]]\nid = \"shop\"\nhome = \"oregon\"\nlimits = { loss_ratio = 8 }",
            "14:1: service shop: limits.loss_ratio is 8",
        ),
        (
            "[[override]]\nid = \"works\"\nrule = \"drain\"\nuntil = \"9s\"",
            "14:1: override works: region is missing",
        ),
        (
            "[[offer]]\nregion = \"oregon\"\namounts = { vcpu = 1 }",
            "14:1: the table has no id",
        ),
        (
            "[[expect]]\nservice = \"shop\"\nselected = \"oregon\"\nby = \"9s\"",
            "15:11: service shop is put nowhere in this scenario",
        ),
        (
            "[[expect]]\nprimary = \"oregon\"\nmoves = 0\nby = \"9s\"",
            "14:1: moves are counted from since until until",
        ),
        (
            "[[expect]]\nprimary = \"oregon\"\nstate = \"up\"\nby = \"9s\"",
            "14:1: expect what is selected for a primary or a service",
        ),
        (
            "[[expect]]\nprimary = \"virginia\"\nselected = \"oregon\"\nby = \"9s\"\nuntil = \"5s\"",
            "17:6: since, by and until must follow each other",
        ),
    ];
    for (tail, expected) in cases {
        let error = error(tail);
        assert!(
            error.starts_with("x.toml") && error.contains(expected),
            "{tail}\n{error}"
        );
    }
}

#[test]
fn a_forgotten_link_is_missed() {
    let error = Scenario::parse("x.toml", HEAD).unwrap_err().to_string();
    assert!(
        error.contains("no [[link]] from oregon to virginia"),
        "{error}"
    );
}

#[test]
fn a_scenario_that_says_little_gets_the_defaults() {
    let scenario = read("").unwrap();
    let oregon = RegionId::parse("oregon").unwrap();
    assert_eq!(scenario.policy.probing.interval, Duration::from_millis(100));
    assert_eq!(scenario.policy.regions[&oregon].capacity, 1.0);
    assert_eq!(
        scenario
            .policy
            .candidates(&RegionId::parse("virginia").unwrap()),
        std::slice::from_ref(&oregon)
    );
    assert_eq!(scenario.agents[&oregon], 1);
    assert!(
        scenario
            .links
            .values()
            .all(|link| link.delay == Duration::from_millis(34))
    );
}

#[test]
fn events_change_links_until_they_are_cleared() {
    let scenario = read(
        "[[event]]\nat = \"10s\"\nlinks = [\"oregon->*\"]\nset = { loss = 0.5, delay = \"1ms\" }\n\
         [[event]]\nat = \"30s\"\nclear = [\"*->*\"]\n\
         [[event]]\nat = \"20s\"\nregion_down = \"virginia\"\n",
    )
    .unwrap();
    let at = |secs| {
        let links = scenario.links_at(Duration::from_secs(secs));
        let link = |from: &str, to: &str| {
            let state = links[&(RegionId::parse(from).unwrap(), RegionId::parse(to).unwrap())];
            (state.loss.get(), state.delay.as_millis())
        };
        (link("oregon", "virginia"), link("virginia", "oregon"))
    };
    assert_eq!(at(9), ((0.0, 34), (0.0, 34)));
    assert_eq!(at(10), ((0.5, 1), (0.0, 34)));
    assert_eq!(at(20), ((1.0, 1), (1.0, 34)));
    // A region that is cut off stays so, whatever its links are set to.
    assert_eq!(at(30), ((1.0, 34), (1.0, 34)));
}

#[test]
fn an_agent_at_an_end_of_a_pattern_means_flows() {
    let scenario = read(
        "[[event]]\nat = \"10s\"\nlinks = [\"oregon-1->virginia\"]\nset = { loss = 0.5 }\n\
         [[event]]\nat = \"20s\"\nclear = [\"*<->virginia-1\"]\n",
    )
    .unwrap();
    let (oregon, virginia) = (
        RegionId::parse("oregon").unwrap(),
        RegionId::parse("virginia").unwrap(),
    );
    let agent = |name| AgentId::parse(name).unwrap();
    let flow = (agent("oregon-1"), agent("virginia-1"));
    let loss = |secs| {
        let network = scenario.network_at(Duration::from_secs(secs));
        let link = network.effective(&oregon, &virginia).loss.get();
        (
            link,
            network.effective_flow(&flow, &oregon, &virginia).loss.get(),
        )
    };
    assert_eq!(loss(9), (0.0, 0.0));
    assert_eq!(loss(10), (0.0, 0.5));
    assert_eq!(loss(20), (0.0, 0.0));
}

#[test]
fn what_changes_little_by_little_arrives_in_steps() {
    let scenario = read(
        "[[event]]\nat = \"10s\"\nlinks = [\"oregon->*\"]\nset = { loss = 0.5, delay = \"134ms\" }\nover = \"10s\"\n",
    )
    .unwrap();
    let link = (
        RegionId::parse("oregon").unwrap(),
        RegionId::parse("virginia").unwrap(),
    );
    let at = |secs| {
        let state = scenario.links_at(Duration::from_secs(secs))[&link];
        ((state.loss.get() * 1e3).round(), state.delay.as_millis())
    };
    assert_eq!(
        [at(10), at(15), at(20), at(60)],
        [(0.0, 34), (250.0, 84), (500.0, 134), (500.0, 134)]
    );
    let told = scenario
        .events
        .iter()
        .filter_map(leeward_engine::scenario::Event::told);
    assert_eq!(told.count(), 1);
}
