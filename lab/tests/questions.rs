//! What an operator asks goes all the way: the command line, the aggregator, the order to an agent, real packets over an
//! emulated link, the finding back, and the words that are printed.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

mod support;

use support::{LAB, can_run};

/// What the link of `worlds/questions.toml` carries, bits per second.
const RATE_BPS: f64 = 20e6;

/// A lab that stays, ended when dropped.
struct Lab {
    process: Child,
    server: String,
    token: String,
}

impl Lab {
    fn start() -> Self {
        let world = Path::new(env!("CARGO_MANIFEST_DIR")).join("worlds/questions.toml");
        let mut process = Command::new(LAB)
            .args(["run", "--stay", "--api", "127.0.0.1:0"])
            .arg(world)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let server = lines.by_ref().find_map(|line| {
            let line = line.ok()?;
            let (_, server) = line.split_once("the API is on ")?;
            Some(server.trim().to_owned())
        });
        let server = server.expect("the lab did not stay");
        let token = lines.by_ref().find_map(|line| {
            let line = line.ok()?;
            let (_, token) = line.split_once("LEEWARD_TOKEN=")?;
            Some(token.split(' ').next()?.to_owned())
        });
        let token = token.expect("the lab told no token");
        // Its words are read to the end, so that it never waits for somebody to read them.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            server,
            token,
        }
    }

    /// What `leeward` prints; its exit code may say that what it prints is in doubt.
    fn ask(&self, arguments: &[&str]) -> String {
        let cli = Path::new(LAB).with_file_name("leeward");
        let output = Command::new(cli)
            .args(arguments)
            .args(["--server", &self.server])
            .env("LEEWARD_TOKEN", &self.token)
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let failed = String::from_utf8_lossy(&output.stderr);
        assert!(!printed.is_empty(), "{arguments:?}: {failed}");
        printed
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ask(&[arguments, &["--output", "json"]].concat())).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let interrupt = Command::new("kill")
            .args(["-INT", &self.process.id().to_string()])
            .status();
        assert!(interrupt.is_ok_and(|status| status.success()));
        let _ = self.process.wait();
    }
}

#[test]
fn traces_bandwidth_and_flows_are_asked_for_and_come_back() {
    if !can_run("traces_bandwidth_and_flows_are_asked_for_and_come_back") {
        return;
    }
    let lab = Lab::start();

    let trace = lab.json(&["trace", "a", "b"]);
    assert_eq!(trace["from"], "a", "{trace}");
    assert_eq!(trace["address"], "10.2.0.1", "{trace}");
    assert_eq!(trace["hops"].as_array().unwrap().len(), 1, "{trace}");
    assert_eq!(trace["mtu"]["bytes"], 1_500, "{trace}");

    let measured = lab.json(&["bandwidth", "a", "b", "--heavy"]);
    let quantities = measured["bandwidth"].as_array().unwrap();
    let goodput = quantities
        .iter()
        .find(|own| own["quantity"] == "goodput_seen")
        .unwrap_or_else(|| panic!("{measured}"));
    let bps = goodput["bits_per_second"].as_f64().unwrap();
    // Of what passes some is headers; and the link loses a little. What a busy host hands over late counts into the next fifth
    // of a second.
    assert!(
        (0.7 * RATE_BPS..=1.05 * RATE_BPS).contains(&bps),
        "{measured}"
    );

    // Flows are told of each half minute; a path that loses nothing need not be told of.
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let link = lab.json(&["link", "a", "b"]);
        let flows = link["flows"].as_array().map_or(0, Vec::len);
        if flows > 0 {
            assert_eq!(
                link["flows"][0]["flows"].as_array().unwrap().len(),
                4,
                "{link}"
            );
            break;
        }
        assert!(Instant::now() < deadline, "no account of flows: {link}");
        std::thread::sleep(Duration::from_millis(500));
    }
}
