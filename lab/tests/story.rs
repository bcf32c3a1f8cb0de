//! Whole runs: real packets, real agents, a real aggregator. The same file must give the same selections in the lab
//! and in virtual time, survive a killed aggregator, and leave nothing behind when the lab itself is killed.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use leeward_engine::{
    intent::Owner,
    scenario::{Expected, Scenario},
    simulate,
};

mod support;

use support::{LAB, can_run, can_run_with};

fn scenario_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../scenarios")
        .join(name)
}

/// How many labs of one test run at once: the hosts of one keep two cores busy, and a world that is late is another world.
const AT_ONCE: usize = 1;

/// How late a lab may be here. How quickly a decision comes is for `scripts/bench outage` to measure; which one comes,
/// and in what order, is judged here, also on a machine that is busy.
const GRACE: Duration = Duration::from_secs(5);

/// A machine that keeps processes waiting so long, at whatever priority, loses probes that no network lost: a world in which that
/// happened is another world. It is said, and played again, so many times together.
const LATE: Duration = Duration::from_millis(150);
const TRIES: usize = 3;

/// Two labs on one machine would disturb each other's times.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the lab to its end and returns whether it exited with 0, what it printed, and its transcript.
fn lab(file: &Path, more: &[&str]) -> (bool, String, serde_json::Value) {
    let transcript = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new(LAB)
        .args([
            "run".as_ref(),
            file.as_os_str(),
            "--transcript".as_ref(),
            transcript.path().as_os_str(),
        ])
        .args(more)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let json = fs::read(transcript.path()).unwrap();
    (
        output.status.success(),
        printed,
        serde_json::from_slice(&json).unwrap_or_default(),
    )
}

/// What was selected for each owner, in order, from the scenario's first deadline on. Before it the agents of a real
/// world come one after the other, and those of a virtual one all at once.
type Selections = BTreeMap<String, Vec<Option<String>>>;

fn settled(
    scenario: &Scenario,
    moves: impl Iterator<Item = (Duration, String, Option<String>)>,
) -> Selections {
    let expectations = scenario.expectations.iter();
    let deadline = expectations.map(|own| own.by).min().unwrap();
    // Nothing has happened yet before the first event, however late the agents came.
    let happens = scenario.events.iter().map(|event| event.at).min();
    let deadline = (deadline + GRACE)
        .min(happens.unwrap_or(deadline))
        .max(deadline);
    let mut selections = Selections::new();
    for (at, primary, to) in moves {
        let own = selections.entry(primary).or_default();
        if at <= deadline {
            own.clear();
        }
        own.push(to);
    }
    selections
}

fn selections_of_lab(scenario: &Scenario, transcript: &serde_json::Value) -> Selections {
    let decisions = transcript["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|decision| {
            let at = Duration::from_micros(decision["seen_at_us"].as_u64().unwrap());
            let primary = decision["primary"].as_str().unwrap().to_owned();
            (at, primary, decision["to"].as_str().map(str::to_owned))
        });
    settled(scenario, decisions)
}

fn selections_of_simulation(scenario: &Scenario) -> Selections {
    let transcript = simulate::run(scenario);
    assert!(transcript.passed(), "{transcript}");
    let decisions = transcript.decisions.into_iter().map(|decision| {
        let to = decision.to.as_ref().map(ToString::to_string);
        (
            decision.at.since(simulate::START),
            decision.owner().to_string(),
            to,
        )
    });
    settled(scenario, decisions)
}

/// How late the lab's machine was: its emulator, and an ordinary process.
fn lateness(transcript: &serde_json::Value) -> Duration {
    let emulator = transcript["emulator_lateness_ns"][2].as_u64();
    let ordinary = transcript["wakeup_lateness_us"].as_u64();
    Duration::from_nanos(emulator.unwrap_or(0)).max(Duration::from_micros(ordinary.unwrap_or(0)))
}

/// Plays a scenario in the lab and in virtual time: the owners that it expects something of must go the same way.
/// Where it expects nothing, chance may decide. Returns what the lab printed, and its transcript.
fn goes_as_in_virtual_time(name: &str) -> Result<(String, serde_json::Value), String> {
    for more in (0..TRIES).rev() {
        match goes_once_as_in_virtual_time(name) {
            Ok(went) => return Ok(went),
            Err((why, late)) if more > 0 && late > LATE => leeward_testing::tell(format_args!(
                "{name} is played again, as the machine kept processes waiting for {late:?}:\n{why}"
            )),
            Err((why, _)) => return Err(why),
        }
    }
    unreachable!("the last time returns")
}

/// The same once; why not, and how late the machine was.
fn goes_once_as_in_virtual_time(
    name: &str,
) -> Result<(String, serde_json::Value), (String, Duration)> {
    let file = scenario_file(name);
    let scenario = Scenario::parse(name, &fs::read_to_string(&file).unwrap()).unwrap();
    let (as_expected, printed, transcript) = lab(&file, &["--grace", &GRACE.as_secs().to_string()]);
    let late = lateness(&transcript);
    if !as_expected {
        let why = format!("{name} went otherwise than expected:\n{printed}");
        return Err((why, late));
    }
    let (real, virtual_) = (
        selections_of_lab(&scenario, &transcript),
        selections_of_simulation(&scenario),
    );
    let expectations = scenario.expectations.iter();
    let owners: BTreeSet<_> = expectations
        .filter_map(|expectation| match &expectation.what {
            Expected::Selected { owner, .. } => Some(owner),
            Expected::Moves { owner, .. } => owner.as_ref(),
            Expected::State { .. } => None,
        })
        .map(Owner::to_string)
        .collect();
    for owner in &owners {
        let (real, virtual_) = (real.get(owner), virtual_.get(owner));
        if real != virtual_ {
            let why =
                format!("{name}: {owner} went {real:?}, in virtual time {virtual_:?}:\n{printed}");
            return Err((why, late));
        }
    }
    Ok((printed, transcript))
}

#[test]
fn scenarios_go_in_the_lab_as_in_virtual_time() {
    if !can_run("scenarios_go_in_the_lab_as_in_virtual_time") {
        return;
    }
    let _alone = alone();
    // They last most of a minute each and need little of a core, so some at a time; the longest first.
    let names = [
        "flapping-link.toml",
        "four-regions.toml",
        "observers-cut-off.toml",
        "health-signal.toml",
        "primary-lost.toml",
        "two-regions-lost.toml",
        "aggregator-restart.toml",
        "grey-loss-one-way.toml",
        "observers-apart.toml",
        "silent-agent.toml",
        "uplinks-cut.toml",
        "region-outage.toml",
    ];
    let waiting = Mutex::new(names.into_iter());
    let next = || {
        waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next()
    };
    let work = || {
        std::iter::from_fn(next)
            .filter_map(|name| goes_as_in_virtual_time(name).err())
            .collect::<Vec<_>>()
    };
    let failures = thread::scope(|scope| {
        let workers = [(); AT_ONCE].map(|()| scope.spawn(work));
        workers.map(|worker| worker.join().unwrap()).concat()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A real router withdraws a prefix, and the selection is elsewhere before the first probe is lost.
#[test]
fn a_withdrawal_moves_the_selection_before_a_probe_is_lost() {
    if !can_run_with(
        "a_withdrawal_moves_the_selection_before_a_probe_is_lost",
        &["/usr/sbin/exabgp"],
    ) {
        return;
    }
    let _alone = alone();
    let (printed, transcript) = goes_as_in_virtual_time("withdrawn-prefix.toml").unwrap();
    let leads = transcript["leads"].as_array().unwrap();
    let leads: Vec<_> = leads
        .iter()
        .map(|own| {
            (
                own["left"].as_str().unwrap(),
                own["lead_us"].as_u64().unwrap(),
            )
        })
        .collect();
    assert!(
        matches!(leads[..], [("oregon", lead)] if lead > 0),
        "{leads:?}\n{printed}"
    );
    // Longer paths alone move nothing: probes have to find the detour first.
    goes_as_in_virtual_time("transit-leak.toml").unwrap();
    println!(
        "routing led the first lost probe by {:.2} s",
        leads[0].1 as f64 / 1e6
    );
}

/// The lab's process and all that descend from it.
fn family(root: u32) -> BTreeSet<u32> {
    let mut family = BTreeSet::from([root]);
    loop {
        let children: BTreeSet<u32> = family
            .iter()
            .flat_map(|pid| {
                fs::read_dir(format!("/proc/{pid}/task"))
                    .into_iter()
                    .flatten()
                    .flatten()
            })
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .flat_map(|text| {
                text.split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .filter_map(|pid| pid.parse().ok())
            .collect();
        let before = family.len();
        family.extend(children);
        if family.len() == before {
            return family;
        }
    }
}

/// Every network namespace that one of these processes is in or holds open.
fn namespaces_of(pids: impl IntoIterator<Item = u32>) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for pid in pids {
        let list = |name: &str| {
            fs::read_dir(format!("/proc/{pid}/{name}"))
                .into_iter()
                .flatten()
                .flatten()
        };
        found
            .extend(list("task").filter_map(|task| fs::read_link(task.path().join("ns/net")).ok()));
        let open = list("fd").filter_map(|fd| fs::read_link(fd.path()).ok());
        found.extend(open.filter(|link| link.to_string_lossy().starts_with("net:[")));
    }
    found
}

fn everyone() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Names of this namespace's devices, mounts, and what lies in the directories that a run could write to.
fn surroundings() -> Vec<String> {
    let names = |directory: &str| -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path().display().to_string())
            .collect()
    };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut all = names("/sys/class/net");
    all.extend(names("/run"));
    all.extend(mounts.lines().map(str::to_owned));
    all.sort();
    all
}

/// Starts the lab and waits until its agents are connected.
fn started_lab() -> Child {
    let mut child = Command::new(LAB)
        .arg("run")
        .arg(scenario_file("four-regions.toml"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let connected = lines.any(|line| line.is_ok_and(|line| line.contains("are connected")));
    assert!(connected, "the lab did not start");
    // Nobody reads any more: a lab that minds would die of it before its time.
    child
}

fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn nothing_is_left_after(signal: &str) {
    let before = surroundings();
    let mut child = started_lab();
    let family = family(child.id());
    assert!(
        family.len() >= 6,
        "an aggregator and four agents: {family:?}"
    );
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let mut namespaces = namespaces_of(family.clone());
    namespaces.remove(&own);
    assert!(namespaces.len() >= 5, "one for each host: {namespaces:?}");
    let killed = Command::new("sh")
        .args(["-c", &format!("kill {signal} {}", child.id())])
        .status()
        .unwrap();
    assert!(killed.success());
    child.wait().unwrap();
    // A namespace and the device in it live as long as somebody is in it or holds it open.
    let left = || -> (Vec<u32>, Vec<PathBuf>) {
        let held = namespaces_of(everyone());
        (
            family.iter().copied().filter(|pid| alive(*pid)).collect(),
            namespaces.intersection(&held).cloned().collect(),
        )
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while left() != (vec![], vec![]) {
        assert!(Instant::now() < deadline, "still there: {:?}", left());
        thread::yield_now();
    }
    assert_eq!(surroundings(), before);
}

#[test]
fn a_killed_lab_leaves_nothing_behind() {
    if can_run("a_killed_lab_leaves_nothing_behind") {
        let _alone = alone();
        nothing_is_left_after("-KILL");
    }
}

#[test]
fn an_interrupted_lab_leaves_nothing_behind() {
    if can_run("an_interrupted_lab_leaves_nothing_behind") {
        let _alone = alone();
        nothing_is_left_after("-INT");
    }
}
