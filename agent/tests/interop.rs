//! STAMP with another implementation, `stamp-suite`, in both roles and both modes. It is taken from `PATH` or from the file
//! that `LEEWARD_STAMP_SUITE` names; `cargo install stamp-suite --version 1.0.0` installs it.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod rig;

use std::process::{Child, Command, Stdio};

use leeward_agent::{
    probe::stamp::Key,
    reflector::{Reflector, ReflectorConfig, ReflectorSockets},
};
use leeward_common::report::{Class, ProbeKind};
use rig::{Rig, config, path, plan, sockets};

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A command of theirs; `None` after saying loudly that it is not there.
fn theirs(test: &str) -> Option<Command> {
    let file = std::env::var_os("LEEWARD_STAMP_SUITE").unwrap_or_else(|| "stamp-suite".into());
    let mut version = Command::new(&file);
    version.arg("--version").stdin(Stdio::null());
    match version.output() {
        Ok(output) if output.status.success() => Some(Command::new(file)),
        _ => {
            leeward_testing::skipped(
                test,
                "stamp-suite is not installed; cargo install stamp-suite --version 1.0.0, or name it in LEEWARD_STAMP_SUITE",
            );
            None
        }
    }
}

fn sealed(command: &mut Command) {
    command.args(["--auth-mode", "A", "--hmac-key", KEY]);
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn our_sender_is_answered_by_their_reflector() {
    let modes = [
        (None, true),
        (None, false),
        (Some(Key::parse(KEY).unwrap()), true),
    ];
    for ((key, stateful), seed) in modes.into_iter().zip(320..) {
        let Some(mut command) = theirs("our sender, their reflector") else {
            return;
        };
        let mut config = config(seed, 61_244..=61_245);
        config.stamp_key.clone_from(&key);
        let Some(sockets) = sockets("our sender, their reflector", &config) else {
            return;
        };
        let port = leeward_testing::free_port();
        command.args([
            "--is-reflector",
            "--local-addr",
            "127.0.0.1",
            "--local-port",
        ]);
        command.arg(port.to_string());
        if stateful {
            command.arg("--stateful-reflector");
        }
        if key.is_some() {
            sealed(&mut command);
        }
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        let _reflector = Running(command.stderr(Stdio::null()).spawn().unwrap());
        let mut plan = plan(1, vec![path(ProbeKind::Stamp, "127.0.0.1", port)]);
        plan.expiry = std::time::Duration::from_secs(2);
        let mut rig = Rig::start(sockets, config, plan);
        rig.until("50 replies", |sums| {
            sums.get(&(1, 0))
                .is_some_and(|sum| sum.of(Class::Replied) >= 50)
        });
        let (sums, counters) = rig.stop();
        let sum = &sums[&(1, 0)];
        let one_way = sum.counts.one_way.unwrap();
        // Until it listens, the kernel refuses in its name.
        assert_eq!(sum.of(Class::Lost), 0, "{sum:?}");
        assert_eq!(counters.strays_total(), 0, "{counters:#?}");
        assert!(one_way.forward.variation.pairs > 20, "{one_way:?}");
        assert!(one_way.backward.variation.pairs > 20, "{one_way:?}");
        assert_eq!(
            (one_way.forward.reordered, one_way.backward.reordered),
            (0, 0)
        );
    }
}

#[test]
fn their_sender_is_answered_by_our_reflector() {
    for (sealed_mode, format) in [(false, "NTP"), (false, "PTP"), (true, "NTP")] {
        let Some(mut command) = theirs("their sender, our reflector") else {
            return;
        };
        let config = ReflectorConfig {
            key: sealed_mode.then(|| Key::parse(KEY).unwrap()),
            reflect_for: vec!["127.0.0.0/8".parse().unwrap()],
            max_per_second: 10_000,
            heavy: false,
        };
        let reflector = Reflector::start(ReflectorSockets::bind(0).unwrap(), config).unwrap();
        command.args([
            "--remote-addr",
            "127.0.0.1",
            "--local-addr",
            "127.0.0.1",
            "--remote-port",
        ]);
        command.arg(reflector.port().to_string());
        command.args(["--count", "20", "--send-delay", "10", "--ssid", "77"]);
        command.args(["--clock-source", format, "--output-format", "json"]);
        if sealed_mode {
            sealed(&mut command);
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}\n{why}");
        for told in [
            "\"packets_sent\":20,\"packets_received\":20,\"packets_lost\":0",
            "\"last_reflector_sequence\":19",
            "\"duplicate_replies\":0,\"unknown_replies\":0,\"reordered_replies\":0",
        ] {
            assert!(text.contains(told), "{told} is not in\n{text}\n{why}");
        }
        let counters = reflector.counters();
        assert_eq!(
            (counters.reflected, counters.sessions),
            (20, 1),
            "{counters:?}"
        );
        assert_eq!(counters.refused.iter().sum::<u64>(), 0, "{counters:?}");
    }
}
