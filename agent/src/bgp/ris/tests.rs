//! Messages as the server documents and sends them, and such as it should not.

use super::*;

const SERVER: [u8; 4] = [127, 0, 0, 1];

fn read(text: &str) -> Result<Told, Refused> {
    super::read(SERVER.into(), text)
}

fn nets(nlris: &[crate::bgp::update::Nlri]) -> Vec<String> {
    nlris.iter().map(|nlri| nlri.prefix.to_string()).collect()
}

/// A message of the manual's form with a BGP message (RFC 4271) in it: 2001:db8:1::/48 by way of AS201333, AS6762, AS174.
const UPDATE: &str = r#"{"type":"ris_message","data":{"timestamp":1636245154.8,"peer":"2001:db8::74",
"peer_asn":"201333","id":"10-183678-175313836","host":"rrc10.ripe.net","type":"UPDATE","path":[201333,6762,174],
"community":[[6762,30]],"origin":"igp","announcements":[{"next_hop":"2001:db8::74","prefixes":["2001:db8:1::/48"]}],
"raw":"FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF0052020000003B4001010040020E02030003127500001A6A000000AEC008041A6A001E800E1C0002011020010DB80000000000000000000000740030"#;

fn update() -> String {
    format!("{UPDATE}20010DB80001\"}}}}")
}

#[test]
fn golden_an_update_is_read_from_the_bgp_message_in_it() {
    let Told::Routes(feed, system, update) = read(&update()).unwrap() else {
        panic!("no routes");
    };
    assert_eq!(feed.to_string(), "2001:db8::74 at rrc10.ripe.net");
    assert_eq!((feed.source, system), (IpAddr::from(SERVER), 201_333));
    assert_eq!(nets(&update.announced), ["2001:db8:1::/48"]);
    assert_eq!(update.attributes.path.to_string(), "201333 6762 174");
}

#[test]
fn paths_of_a_session_with_short_numbers_are_read_too() {
    let with = |path: &str| {
        // ORIGIN, AS_PATH, NEXT_HOP and 198.51.100.0/24.
        let attributes = format!("40010100{path}400304C0000201");
        let length = attributes.len() / 2;
        let raw = format!(
            "{}{:04X}020000{length:04X}{attributes}18C63364",
            "FF".repeat(16),
            23 + length + 4
        );
        format!(
            r#"{{"type":"ris_message","data":{{"peer":"192.0.2.1","peer_asn":"64501","host":"rrc00","type":"UPDATE","raw":"{raw}"}}}}"#
        )
    };
    for path in ["4002060202FBF5FBF4", "40020A02020000FBF50000FBF4"] {
        let Told::Routes(_, _, update) = read(&with(path)).unwrap() else {
            panic!("no routes");
        };
        assert_eq!(update.attributes.path.to_string(), "64501 64500");
        assert_eq!(nets(&update.announced), ["198.51.100.0/24"]);
    }
}

#[test]
fn what_happens_to_sessions_is_read_as_documented_and_as_sent() {
    for kind in ["RIS_PEER_STATE", "STATE"] {
        for state in ["connected", "down", "unheard of"] {
            let text = format!(
                r#"{{"type":"ris_message","data":{{"timestamp":1,"peer":"192.0.2.1","peer_asn":"64501","id":"1","host":"rrc21.ripe.net","type":"{kind}","state":"{state}"}}}}"#
            );
            let told = read(&text).unwrap();
            match (state, &told) {
                ("connected", Told::Session(_, Event::Up { system: 64_501 }))
                | ("down", Told::Session(_, Event::Down(_)))
                | ("unheard of", Told::Else) => {}
                _ => panic!("{state}: {told:?}"),
            }
        }
    }
}

#[test]
fn what_is_no_news_of_routes_is_passed_over_and_what_cannot_be_is_refused() {
    let passed_over = [
        r#"{"type":"pong","data":null}"#,
        r#"{"type":"pong"}"#,
        r#"{"type":"ris_rrc_list","data":["rrc00","rrc01"]}"#,
        r#"{"type":"ris_subscribe_ok","data":{"subscription":{"prefix":"192.0.2.0/24"}}}"#,
        r#"{"type":"of a newer build","data":[1]}"#,
        r#"{"type":"ris_message","data":{"peer":"192.0.2.1","host":"rrc00","type":"KEEPALIVE"}}"#,
    ];
    for text in passed_over {
        assert_eq!(read(text).unwrap(), Told::Else, "{text}");
    }
    let error = r#"{"type":"ris_error","data":{"message":"Bad filter"}}"#;
    assert_eq!(read(error).unwrap(), Told::Error("Bad filter".to_owned()));
    let message = |rest: &str| format!(r#"{{"type":"ris_message","data":{{{rest}}}}}"#);
    let of = |rest: &str| message(&format!(r#""host":"rrc00","type":"UPDATE"{rest}"#));
    let long = "x".repeat(MESSAGE_MAX + 1);
    for (text, why) in [
        ("", "EOF"),
        ("[]", "invalid length"),
        ("{\"type\":1}", "invalid type"),
        (&long, "longer than"),
        (&"[".repeat(100_000), "invalid type"),
        (
            &format!("{{\"data\":{}", "[".repeat(100_000)),
            "recursion limit",
        ),
        (&message(""), "missing field"),
        (&of(r#","peer":"192.0.2.1""#), "without the BGP message"),
        (&of(r#","peer":"192.0.2.1","raw":"F""#), "Odd number"),
        (
            &of(r#","peer":"192.0.2.1","raw":"zz""#),
            "Invalid character",
        ),
        (&of(r#","peer":"192.0.2.1","raw":"FF""#), "BGP message"),
        (&of(r#","peer":"x","raw":"FF""#), "invalid IP address"),
        (
            &message(r#""host":"a b","type":"UPDATE","peer":"192.0.2.1","raw":"FF""#),
            "no name of a collector",
        ),
    ] {
        let refused = read(text).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn golden_the_watched_prefixes_are_asked_for_and_nothing_else() {
    let nets = |texts: &[&str]| texts.iter().map(|net| net.parse().unwrap()).collect();
    let wanted = Wanted {
        prefixes: nets(&["192.0.2.0/24", "2001:db8::/32"]),
        addresses: nets(&["198.51.100.7/32"]),
    };
    assert_eq!(
        questions(&wanted),
        [
            r#"{"type":"ris_subscribe","data":{"type":"UPDATE","prefix":["192.0.2.0/24","2001:db8::/32"],"moreSpecific":true,"socketOptions":{"includeRaw":true}}}"#,
            r#"{"type":"ris_subscribe","data":{"type":"UPDATE","prefix":["198.51.100.7/32"],"lessSpecific":true,"socketOptions":{"includeRaw":true}}}"#,
            r#"{"type":"ris_subscribe","data":{"type":"RIS_PEER_STATE"}}"#,
        ]
    );
    assert_eq!(ping(), r#"{"type":"ping","data":null}"#);
    let many = Wanted {
        prefixes: vec![wanted.prefixes[0]; 600],
        ..Wanted::default()
    };
    assert_eq!(questions(&many).len(), 3 + 1);
}

/// Whatever comes, nothing panics; and with it as the BGP message neither.
#[test]
fn any_text_is_read_or_refused() {
    bolero::check!()
        .with_type::<(Vec<u8>, bool)>()
        .for_each(|(bytes, is_raw)| {
            let text = match is_raw {
                true => format!("{UPDATE}{}\"}}}}", hex::encode(bytes)),
                false => String::from_utf8_lossy(bytes).into_owned(),
            };
            _ = read(&text);
        });
}
