//! What a configuration file may say, and what is told of one that is wrong.

use super::*;

const SAMPLE: &str = include_str!("../../agent.sample.toml");
const LEAST: &str = r#"
        region = "eu-west-1"
        agent = "eu-west-1-a"
        allowed_networks = ["10.0.0.0/8", "2001:db8::/32"]
        [credentials]
        ca = "ca.pem"
        certificate = "agent.pem"
        key = "agent.key"
        [[aggregator]]
        address = "aggregator.example.net:8610"
    "#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(
        &Document {
            file: "agent.toml",
            text,
        },
        Path::new("/etc/leeward"),
    )
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

/// Every commented-out key (`# key = value`) and table of the sample, made real.
fn uncommented(text: &str) -> String {
    let is_key = |line: &str| {
        line.split_once(" = ")
            .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let live = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if is_key(rest) || rest.starts_with('[') => rest.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(live).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_sample_shows_the_defaults() {
    let sample = parse(SAMPLE).unwrap();
    assert_eq!(sample, parse(LEAST).unwrap());
    let text = uncommented(SAMPLE);
    for key in [
        "max_probes_per_second",
        "status_listen",
        "waiting_memory_mib",
        "syn_source_ports",
        "max_reflections_per_second",
    ] {
        assert!(
            text.contains(&format!("\n{key} = ")),
            "{key} is not in the sample"
        );
    }
    let mut shown = parse(&text).unwrap();
    assert_eq!(shown.aggregators[0].name.take().as_deref(), Some("main"));
    let mesh_key = shown.stamp.mesh_key.take();
    assert_eq!(mesh_key, Some("/etc/leeward/mesh.key".into()));
    let ca = shown.checks.ca.take();
    assert_eq!(ca.as_deref(), Some(Path::new("/etc/leeward/checks-ca.pem")));
    shown.checks.allowed.key = "allowed_networks";
    let bgp = std::mem::replace(&mut shown.bgp, sample.bgp.clone());
    assert!(bgp.is_enabled() && !sample.bgp.is_enabled());
    assert_eq!((bgp.window, bgp.watch.len()), (sample.bgp.window, 2));
    assert_eq!(bgp.peers[0].session.hold_time, Duration::from_secs(9));
    assert_eq!(bgp.extent, sample.bgp.extent);
    assert_eq!(
        bgp.peers[0].signature_key.as_deref(),
        Some(Path::new("/etc/leeward/peer.key"))
    );
    assert_eq!(bgp.rpki_caches, ["rpki.example.net:323"]);
    let ris_live = bgp.ris_live.unwrap();
    assert_eq!(
        (ris_live.place.port, ris_live.silent_for),
        (443, Duration::from_secs(60))
    );
    assert_eq!(
        (bgp.relations.transit_free.len(), bgp.relations.peers.len()),
        (3, 1)
    );
    let directory = shown.spool.directory.take();
    let usual = Path::new("/var/lib/leeward-agent/spool");
    assert_eq!(directory.as_deref(), Some(usual));
    assert_eq!(shown, sample);
}

#[test]
fn what_is_wrong_with_routing_is_said_with_its_place() {
    let with = |text: &str| format!("{LEAST}\n{text}");
    for (text, expected) in [
        (
            "[bgp]\nlisten = \"0.0.0.0:179\"",
            "bgp.listen is given without bgp.system and bgp.router_id",
        ),
        (
            "[bgp]\nhold_time = \"2s\"",
            "bgp.hold_time is 2s; use whole seconds, \"3s\" or more",
        ),
        ("[bgp]\nwindow = \"1h\"", "bgp.window must lie between"),
        (
            "[[bgp.peer]]\naddress = \"192.0.2.1\"\nsystem = 1",
            "no place where it connects; add bgp.listen",
        ),
        (
            "[[bgp.watch]]\nregion = \"a\"\nprefixes = [\"192.0.2.1/24\"]",
            "\"192.0.2.1/24\" is not a prefix; write",
        ),
        (
            "[[bgp.watch]]\nregion = \"a\"\nprefixes = [\"192.0.2.0/24\", \"192.0.2.0/24\"]",
            "192.0.2.0/24 is watched twice",
        ),
        ("[bgp]\nbmp_routers = [\"x\"]", "\"x\" is not a network"),
        (
            "[bgp.rpki]\ncaches = [\"rpki.example.net\"]",
            "bgp.rpki.caches holds \"rpki.example.net\"; write host and port",
        ),
        (
            "[bgp.ris_live]\nurl = \"https://ris-live.ripe.net/\"",
            "bgp.ris_live.url is \"https://ris-live.ripe.net/\"; write one like",
        ),
        (
            "[bgp.ris_live]\nurl = \"wss://ris-live.ripe.net/\"\nsilent_for = \"1s\"",
            "bgp.ris_live.silent_for must lie between",
        ),
        (
            "[bgp]\ntable = \"some\"",
            "unknown variant `some`, expected `watched` or `full`",
        ),
        (
            "[bgp]\nmax_prefixes = 0",
            "bgp.max_prefixes is 0; use 1 to 100000000",
        ),
        (
            "[bgp]\nmax_table_mib = 0",
            "bgp.max_table_mib is 0; use 1 to 1048576",
        ),
    ] {
        let error = parse(&with(text)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.at.is_some(), "{error}");
    }
}

#[test]
fn a_spool_that_makes_no_sense_is_refused_with_its_place() {
    for (given, expected) in [
        (
            "[spool]\nmax_mib = 1",
            "spool.max_mib is 1; use 16 to 1048576",
        ),
        (
            "[spool]\nmax_age = '3d'",
            "spool.max_age is 259200s; use 60s to 86400s",
        ),
        (
            "[spool]\nwrite_after = '1ms'",
            "spool.write_after is 1ms; use 100ms to 600s",
        ),
        ("[spool]\nsync = 'yes'", "spool.sync is \"yes\"; use"),
        (
            "[uplink]\nforget_when = 'some'",
            "uplink.forget_when is \"some\"; use",
        ),
    ] {
        let text = error(&format!("{LEAST}\n{given}"));
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn the_sample_documents_every_key() {
    for key in [
        "region",
        "agent",
        "allowed_networks",
        "max_probes_per_second",
        "addresses",
        "answer_port",
        "syn_source_ports",
        "status_listen",
        "ca",
        "certificate",
        "key",
        "address",
        "name",
        "keep_alive",
        "idle_timeout",
        "waiting_memory_mib",
        "allow",
        "concurrency",
        "max_per_second",
    ] {
        assert!(
            uncommented(SAMPLE).contains(&format!("\n{key} = ")),
            "{key}"
        );
    }
}

#[test]
fn credentials_are_relative_to_their_directory() {
    let config = parse(LEAST).unwrap();
    assert_eq!(config.credentials.ca, Path::new("/etc/leeward/ca.pem"));
    let absolute = LEAST.replace("\"agent.key\"", "\"/run/agent.key\"");
    assert_eq!(
        parse(&absolute).unwrap().credentials.key,
        Path::new("/run/agent.key")
    );
}

#[test]
fn what_is_wrong_is_said_with_place_and_remedy() {
    let cases = [
        ("regoin = \"x\"", "agent.toml:2:1: unknown field `regoin`"),
        (
            "max_probes_per_second = 0",
            "agent.toml:2:25: max_probes_per_second is 0; use 1 to 1000000",
        ),
        (
            "max_probes_per_second = \"1\"",
            "agent.toml:2:25: invalid type: string \"1\", expected u32",
        ),
        (
            "answer_port = 70000",
            "agent.toml:2:15: invalid value: integer `70000`, expected u16",
        ),
        (
            "answer_port = 0",
            "agent.toml:2:15: answer_port is 0; use 1 to 65535",
        ),
        (
            "addresses = [\"0.0.0.0\"]",
            "agent.toml:2:14: addresses holds 0.0.0.0, which no host has",
        ),
        (
            "addresses = [\"10.0.0.1\", \"10.0.0.1\"]",
            "agent.toml:2:26: addresses holds 10.0.0.1 twice",
        ),
        (
            "syn_source_ports = [5, 4]",
            "agent.toml:2:20: syn_source_ports is [5, 4]; use first and last",
        ),
        (
            "status_listen = \"0.0.0.0:9620\"",
            "agent.toml:2:17: status_listen is 0.0.0.0:9620; it is served without",
        ),
        (
            "status_listen = \"here\"",
            "agent.toml:2:17: status_listen is \"here\"; write address and port",
        ),
        (
            "uplink = { keep_alive = \"5s\" }",
            "agent.toml:2:25: uplink.keep_alive is 5s; use at least",
        ),
        (
            "uplink = { keep_alive = 5 }",
            "agent.toml:2:25: invalid type: integer `5`, expected a string",
        ),
        (
            "uplink = { idle_timeout = \"1h\" }",
            "agent.toml:2:27: uplink.idle_timeout must lie between",
        ),
        (
            "uplink = { waiting_memory_mib = 0 }",
            "agent.toml:2:33: uplink.waiting_memory_mib is 0; use 1",
        ),
        (
            "checks = { concurrency = 0 }",
            "agent.toml:2:26: checks.concurrency is 0; use 1 to 256",
        ),
        (
            "checks = { allow = [\"10.0.0.1/8\"] }",
            "agent.toml:2:21: \"10.0.0.1/8\" is not a network",
        ),
    ];
    for (line, expected) in cases {
        let error = error(&format!("\n{line}{LEAST}"));
        assert!(error.starts_with(expected), "{line}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn networks_and_aggregators_are_checked_where_they_stand() {
    let cases = [
        (
            "10.0.0.0/8",
            "10.0.0.0/33",
            "agent.toml:4:29: \"10.0.0.0/33\" is not a network",
        ),
        (
            "10.0.0.0/8",
            "10.0.0.1/8",
            "agent.toml:4:29: \"10.0.0.1/8\" is not a network",
        ),
        (
            "aggregator.example.net:8610",
            "aggregator.example.net",
            "agent.toml:10:19: \"aggregator.example.net\" is not host and port",
        ),
        (
            "aggregator.example.net:8610",
            "2001:db8::1:8610",
            "agent.toml:10:19: \"2001:db8::1:8610\" is not host",
        ),
        (
            "\"eu-west-1\"",
            "\"EU\"",
            "agent.toml:2:18: \"EU\" is not a region id; use 1 to 63",
        ),
    ];
    for (from, to, expected) in cases {
        let error = error(&LEAST.replace(from, to));
        assert!(error.starts_with(expected), "{error}");
    }
    let twice = format!("{LEAST}\n[[aggregator]]\naddress = \"aggregator.example.net:8610\"\n");
    assert!(
        error(&twice)
            .contains("agent.toml:13:11: aggregator aggregator.example.net:8610 is given twice")
    );
}

#[test]
fn what_is_missing_is_said() {
    let none = LEAST.replace("allowed_networks", "# allowed_networks");
    assert!(error(&none).starts_with("agent.toml: allowed_networks is missing; list the networks"));
    let none = LEAST
        .replace("[[aggregator]]", "")
        .replace("address = ", "# ");
    assert!(
        error(&none).starts_with("agent.toml: no [[aggregator]] is given"),
        "{}",
        error(&none)
    );
    let none = LEAST.replace("region = ", "# ");
    assert!(
        error(&none).contains("missing field `region`"),
        "{}",
        error(&none)
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nonexistent/agent.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("/nonexistent/agent.toml: cannot be read: No such file"),
        "{error}"
    );
}

#[test]
fn addresses_of_all_forms_are_split() {
    assert_eq!(
        split_address("[2001:db8::1]:8610"),
        Some(("2001:db8::1".to_owned(), 8610))
    );
    assert_eq!(
        split_address("192.0.2.1:1"),
        Some(("192.0.2.1".to_owned(), 1))
    );
    for bad in [
        "", ":1", "a:0", "a:65536", "[::1:1", "::1:1", "a b:1", "[a]:1",
    ] {
        assert_eq!(split_address(bad), None, "{bad}");
    }
}
