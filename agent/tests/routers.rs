//! Real routers as peers and as sources of BMP, each between namespaces of its own.
//!
//! ```text
//!   namespace a: 10.99.1.1, the agent's part ── veth ── namespace b: 10.99.1.2, a router from Debian (AS 65101)
//! ```
//!
//! Each test makes its namespaces, runs itself again inside the first, starts a router in the second and looks what is
//! told while routes come and go and the router dies. Without the router it says SKIPPED.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use leeward_agent::{bgp::watch::Told, config::Bgp};
use leeward_common::bgp::{Change, FeedChange, Routing, What};

mod peering;

use peering::{Agent, Router, WATCHED, inside, ip, is_down, is_loaded, is_returned, is_withdrawn};

/// What every peer must show: its table is no news, a withdrawal is one and a return another, and its death is no withdrawal.
fn a_peer_is_heard(agent: &mut Agent, router: &mut Router, withdraw: &str, announce: &str) {
    agent.until("the table is there", router, is_loaded);
    assert!(agent.changes().is_empty(), "{:?}", agent.events);
    router.tell(withdraw);
    agent.until("the withdrawal", router, is_withdrawn);
    router.tell(announce);
    agent.until("the return", router, is_returned);
    assert_eq!(agent.changes().len(), 2, "{:?}", agent.events);
    router.kill();
    agent.until("the loss of the feed", router, is_down);
    assert_eq!(
        agent.changes().len(),
        2,
        "a feed that is lost withdraws nothing: {:?}",
        agent.events
    );
}

/// What nobody looked for when it was announced is sent once more when somebody does, and learned: an aggregator tells of an
/// agent at 192.0.2.7.
fn a_prefix_is_learned(mut agent: Agent, router: &Router, withdraw: impl FnOnce()) {
    agent.until("the table is there", router, is_loaded);
    agent.told.send_replace(Some(Told {
        addresses: [("192.0.2.7".parse().unwrap(), "dub".parse().unwrap())].into(),
        ..Told::default()
    }));
    let is_seen = |routing: &Routing| {
        let mut windows = routing.windows.iter();
        windows.any(|own| own.prefix.to_string() == WATCHED && own.sight.visible == 1)
    };
    agent.until_told("the prefix is learned", router, is_seen);
    assert!(agent.changes().is_empty(), "{:?}", agent.events);
    withdraw();
    agent.until("the withdrawal", router, is_withdrawn);
}

fn watching_nothing(config: &mut Bgp) {
    config.watch.clear();
}

#[test]
fn bird_is_asked_for_its_table_once_more() {
    let test = "bird_is_asked_for_its_table_once_more";
    let Some(namespace) = inside(test, &["/usr/sbin/bird", "/usr/sbin/birdc"]) else {
        return;
    };
    let agent = Agent::listen(watching_nothing);
    let files = [("bird.conf", &*BIRD.replace("GUARDS", ""))];
    let router = Router::start(&namespace, &files, "bird -f -c @/bird.conf -s @/bird.ctl");
    a_prefix_is_learned(agent, &router, || {
        router.tell("birdc -s @/bird.ctl disable s4");
    });
}

#[test]
fn gobgp_is_asked_for_its_table_once_more() {
    let test = "gobgp_is_asked_for_its_table_once_more";
    let Some(namespace) = inside(test, &["/usr/bin/gobgpd", "/usr/bin/gobgp"]) else {
        return;
    };
    let agent = Agent::listen(watching_nothing);
    let command = "gobgpd -f @/gobgpd.toml --api-hosts 127.0.0.1:50051";
    let router = Router::start(&namespace, &[("gobgpd.toml", GOBGP)], command);
    router.tell("gobgp global rib add 192.0.2.0/24");
    a_prefix_is_learned(agent, &router, || {
        router.tell("gobgp global rib del 192.0.2.0/24");
    });
}

#[test]
fn frr_is_asked_for_its_table_once_more() {
    let test = "frr_is_asked_for_its_table_once_more";
    let Some(namespace) = inside(test, &["/usr/lib/frr/bgpd", "/usr/bin/vtysh"]) else {
        return;
    };
    let agent = Agent::listen(watching_nothing);
    let router = Router::start(&namespace, &[("frr.conf", FRR)], FRR_COMMAND);
    a_prefix_is_learned(agent, &router, || {
        router.tell(&frr("no network 192.0.2.0/24"));
    });
}

const BIRD: &str = "log stderr all;
router id 10.99.1.2;
protocol device {}
protocol static s4 { ipv4; route 192.0.2.0/24 blackhole; route 198.51.100.0/24 blackhole; }
protocol bgp agent {
  local 10.99.1.2 as 65101; neighbor 10.99.1.1 as 65000;
  hold time 9; connect delay time 1; GUARDS
  ipv4 { import none; export where source = RTS_STATIC; next hop self; };
}
";

#[test]
fn bird_is_heard() {
    let Some(namespace) = inside("bird_is_heard", &["/usr/sbin/bird", "/usr/sbin/birdc"]) else {
        return;
    };
    let mut agent = Agent::listen(|_| ());
    let files = [("bird.conf", &*BIRD.replace("GUARDS", ""))];
    let mut router = Router::start(&namespace, &files, "bird -f -c @/bird.conf -s @/bird.ctl");
    let [withdraw, announce] =
        ["disable", "enable"].map(|what| format!("birdc -s @/bird.ctl {what} s4"));
    a_peer_is_heard(&mut agent, &mut router, &withdraw, &announce);
}

#[test]
fn bird_is_heard_with_signed_segments_from_the_link_only() {
    let test = "bird_is_heard_with_signed_segments_from_the_link_only";
    let Some(namespace) = inside(test, &["/usr/sbin/bird", "/usr/sbin/birdc"]) else {
        return;
    };
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("key");
    std::fs::write(&key, "s3cret\n").unwrap();
    let mut agent = Agent::listen(|config| {
        config.peers[0].gtsm = true;
        config.peers[0].signature_key = Some(key);
    });
    let guards = "password \"s3cret\"; ttl security on;";
    let files = [("bird.conf", &*BIRD.replace("GUARDS", guards))];
    let mut router = Router::start(&namespace, &files, "bird -f -c @/bird.conf -s @/bird.ctl");
    let [withdraw, announce] =
        ["disable", "enable"].map(|what| format!("birdc -s @/bird.ctl {what} s4"));
    a_peer_is_heard(&mut agent, &mut router, &withdraw, &announce);
}

/// Routes of IPv6 alone, which are in attributes (RFC 4760).
#[test]
fn bird_is_heard_with_ipv6() {
    let test = "bird_is_heard_with_ipv6";
    let Some(namespace) = inside(test, &["/usr/sbin/bird", "/usr/sbin/birdc"]) else {
        return;
    };
    let mut agent = Agent::listen(|config| {
        config.watch[0].prefix = "2001:db8:1::/48".parse().unwrap();
    });
    let config = BIRD
        .replace("GUARDS", "")
        .replace(
            "ipv4; route 192.0.2.0/24 blackhole; route 198.51.100.0/24 blackhole;",
            "ipv6; route 2001:db8:1::/48 blackhole; route 2001:db8:2::/48 blackhole;",
        )
        .replace("ipv4 {", "ipv6 {")
        .replace("next hop self", "next hop address 2001:db8::2");
    let files = [("bird.conf", &*config)];
    let mut router = Router::start(&namespace, &files, "bird -f -c @/bird.conf -s @/bird.ctl");
    let [withdraw, announce] =
        ["disable", "enable"].map(|what| format!("birdc -s @/bird.ctl {what} s4"));
    a_peer_is_heard(&mut agent, &mut router, &withdraw, &announce);
}

const GOBGP: &str = r#"[global.config]
  as = 65101
  router-id = "10.99.1.2"
[[neighbors]]
  [neighbors.config]
    neighbor-address = "10.99.1.1"
    peer-as = 65000
  [neighbors.timers.config]
    connect-retry = 1
    hold-time = 9
    keepalive-interval = 3
"#;

const GOBGP_BMP: &str = "[[bmp-servers]]
  [bmp-servers.config]
    address = \"10.99.1.1\"
    port = 11019
    route-monitoring-policy = \"local-rib\"
";

#[test]
fn gobgp_is_heard() {
    let Some(namespace) = inside("gobgp_is_heard", &["/usr/bin/gobgpd", "/usr/bin/gobgp"]) else {
        return;
    };
    let mut agent = Agent::listen(|_| ());
    let command = "gobgpd -f @/gobgpd.toml --api-hosts 127.0.0.1:50051";
    let mut router = Router::start(&namespace, &[("gobgpd.toml", GOBGP)], command);
    router.tell("gobgp global rib add 192.0.2.0/24");
    a_peer_is_heard(
        &mut agent,
        &mut router,
        "gobgp global rib del 192.0.2.0/24",
        "gobgp global rib add 192.0.2.0/24",
    );
}

#[test]
fn gobgp_is_monitored() {
    let Some(namespace) = inside("gobgp_is_monitored", &["/usr/bin/gobgpd", "/usr/bin/gobgp"])
    else {
        return;
    };
    let mut agent = Agent::listen(|config| config.peers.clear());
    let config = format!("{GOBGP}{GOBGP_BMP}");
    let command = "gobgpd -f @/gobgpd.toml --api-hosts 127.0.0.1:50051";
    let mut router = Router::start(&namespace, &[("gobgpd.toml", &config)], command);
    router.tell("gobgp global rib add 192.0.2.0/24");
    a_peer_is_heard(
        &mut agent,
        &mut router,
        "gobgp global rib del 192.0.2.0/24",
        "gobgp global rib add 192.0.2.0/24",
    );
}

const EXABGP: &str = "process ctl { run /usr/bin/tail -n +1 -f @/commands; encoder text; }
neighbor 10.99.1.1 {
  router-id 10.99.1.2; local-address 10.99.1.2; local-as 65101; peer-as 65000; hold-time 9;
  family { ipv4 unicast; }
  api { processes [ ctl ]; }
  static { route 192.0.2.0/24 next-hop self as-path [ 65101 64500 ]; }
}
";
const EXABGP_COMMAND: &str = "env exabgp.daemon.user=root exabgp.daemon.drop=false exabgp.api.cli=false exabgp.api.ack=false exabgp @/exa.conf";

#[test]
fn exabgp_is_heard() {
    let Some(namespace) = inside("exabgp_is_heard", &["/usr/sbin/exabgp"]) else {
        return;
    };
    let mut agent = Agent::listen(|_| ());
    let files = [("exa.conf", EXABGP), ("commands", "")];
    let mut router = Router::start(&namespace, &files, EXABGP_COMMAND);
    let say = |what: &str| format!("sh -c 'echo \"{what}\" >> @/commands'");
    a_peer_is_heard(
        &mut agent,
        &mut router,
        &say("withdraw route 192.0.2.0/24 next-hop self"),
        &say("announce route 192.0.2.0/24 next-hop self as-path [ 65101 64500 ]"),
    );
}

/// All that RFC 7606 and hijackers have in store, from a router that can be made to say it.
#[test]
fn what_exabgp_injects_is_told_for_what_it_is() {
    let test = "what_exabgp_injects_is_told_for_what_it_is";
    let Some(namespace) = inside(test, &["/usr/sbin/exabgp"]) else {
        return;
    };
    let mut agent = Agent::listen(|config| config.watch[0].origins = [64_500].into());
    let files = [("exa.conf", EXABGP), ("commands", "")];
    let router = Router::start(&namespace, &files, EXABGP_COMMAND);
    let say = |what: &str| router.tell(&format!("sh -c 'echo \"{what}\" >> @/commands'"));
    let by = |path: &str| {
        say(&format!(
            "announce route 192.0.2.0/24 next-hop self as-path [ {path} ]"
        ));
    };
    agent.until("the table is there", &router, is_loaded);
    // Prepended and longer, twice.
    by("65101 65101 64500");
    by("65101 65101 64510 64500");
    agent.until("exploration", &router, |what| {
        matches!(
            what,
            What::Prefix {
                change: Change::Exploring { paths: 2, .. },
                ..
            }
        )
    });
    let origin = |to: u32| move |what: &What| matches!(what, What::Prefix { change: Change::OriginChanged { to: own, .. }, .. } if *own == Some(to));
    by("65101 64666");
    agent.until("another origin", &router, origin(64_666));
    by("65101 64500");
    agent.until("the origin of before", &router, origin(64_500));
    say("announce route 192.0.2.128/25 next-hop self as-path [ 65101 64666 ]");
    agent.until("a stranger's part", &router, |what| {
        matches!(what, What::Prefix { change: Change::MoreSpecific(part), .. } if part.origin == Some(64_666))
    });
    for _ in 0..3 {
        say("withdraw route 192.0.2.0/24 next-hop self");
        agent.until("a withdrawal", &router, is_withdrawn);
        by("65101 64500");
        agent.until("a return", &router, is_returned);
    }
    agent.until_told("the flaps' figure of merit", &router, |routing| {
        routing.windows.iter().any(|own| own.penalty_slow >= 3_000)
    });
    // A MULTI_EXIT_DISC of two bytes: treated as a withdrawal (RFC 7606, section 7.4), and the session stays.
    say(
        "announce route 192.0.2.0/24 next-hop self as-path [ 65101 64500 ] attribute [ 0x04 0x80 0x0101 ]",
    );
    agent.until(
        "what a malformed attribute withdraws",
        &router,
        is_withdrawn,
    );
    agent.until_told("that it was malformed", &router, |routing| {
        routing.windows.iter().any(|own| own.counts.malformed == 1)
    });
    by("65101 64500");
    agent.until("the return", &router, is_returned);
    assert!(!agent.events.iter().any(is_down), "{:#?}", agent.events);
    let asked = ["192.0.2.7", "203.0.113.1"].map(|address| address.parse().unwrap());
    assert_eq!(agent.systems.of(asked.to_vec()), [Some(64_500), None]);
}

#[test]
fn openbgpd_is_heard() {
    let Some(namespace) = inside("openbgpd_is_heard", &["/usr/sbin/bgpctl"]) else {
        return;
    };
    let mut agent = Agent::listen(|_| ());
    let config = "AS 65101
router-id 10.99.1.2
holdtime 9
fib-update no
socket \"@/control\"
neighbor 10.99.1.1 {
  remote-as 65000
  descr \"agent\"
}
allow to any
allow from any
";
    let mut router = Router::start(
        &namespace,
        &[("bgpd.conf", config)],
        "sh -c 'mount -t tmpfs none /run && mkdir -p /run/openbgpd && exec /usr/sbin/bgpd -dvf @/bgpd.conf'",
    );
    router.tell("bgpctl -s @/control network add 192.0.2.0/24");
    let [withdraw, announce] =
        ["delete", "add"].map(|what| format!("bgpctl -s @/control network {what} 192.0.2.0/24"));
    a_peer_is_heard(&mut agent, &mut router, &withdraw, &announce);
}

const FRR: &str = "hostname router
log stdout
router bgp 65101
 bgp router-id 10.99.1.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 timers bgp 3 9
 neighbor 10.99.1.1 remote-as 65000
 neighbor 10.99.1.1 timers connect 1
 address-family ipv4 unicast
  network 192.0.2.0/24
 exit-address-family
";

/// FRR's bgpd alone.
const FRR_COMMAND: &str = "/usr/lib/frr/bgpd -f @/frr.conf -i @/pid -z @/zserv.api --vty_socket @ -Z -S -u root -g root -M bgpd_bmp --log stdout";

fn frr(what: &str) -> String {
    format!(
        "vtysh --vty_socket @ -d bgpd -c 'configure terminal' -c 'router bgp 65101' -c 'address-family ipv4 unicast' -c '{what}'"
    )
}

#[test]
fn frr_is_heard() {
    let Some(namespace) = inside("frr_is_heard", &["/usr/lib/frr/bgpd", "/usr/bin/vtysh"]) else {
        return;
    };
    let mut agent = Agent::listen(|_| ());
    let mut router = Router::start(&namespace, &[("frr.conf", FRR)], FRR_COMMAND);
    a_peer_is_heard(
        &mut agent,
        &mut router,
        &frr("no network 192.0.2.0/24"),
        &frr("network 192.0.2.0/24"),
    );
}

/// FRR looks at how far the answer to its first segment has come.
#[test]
fn frr_is_heard_from_the_link_only() {
    let test = "frr_is_heard_from_the_link_only";
    let Some(namespace) = inside(test, &["/usr/lib/frr/bgpd", "/usr/bin/vtysh"]) else {
        return;
    };
    let mut agent = Agent::listen(|config| config.peers[0].gtsm = true);
    let guarded = FRR.replace(
        "timers connect 1\n",
        "timers connect 1\n neighbor 10.99.1.1 ttl-security hops 1\n",
    );
    let mut router = Router::start(&namespace, &[("frr.conf", &guarded)], FRR_COMMAND);
    a_peer_is_heard(
        &mut agent,
        &mut router,
        &frr("no network 192.0.2.0/24"),
        &frr("network 192.0.2.0/24"),
    );
}

/// What FRR needs to tell the truth before policy.
const TRUTHFUL: &str = "neighbor 10.98.0.2 soft-reconfiguration inbound";

/// FRR that shows by BMP what a neighbour of its own (GoBGP, in the same namespace) announces before policy, with what it
/// needs to tell the truth or without.
fn frr_is_monitored(
    namespace: &str,
    truthful: &str,
    change: impl FnOnce(&mut Bgp),
) -> (Agent, Router, Router) {
    let agent = Agent::listen(|config| {
        config.peers.clear();
        change(config);
    });
    for last in [1, 2] {
        assert!(ip(&format!(
            "-n {namespace} addr add 10.98.0.{last}/24 dev lo"
        )));
    }
    let upstream = r#"[global.config]
  as = 65102
  router-id = "10.98.0.2"
  local-address-list = ["10.98.0.2"]
[[neighbors]]
  [neighbors.config]
    neighbor-address = "10.98.0.1"
    peer-as = 65101
  [neighbors.transport.config]
    local-address = "10.98.0.2"
  [neighbors.timers.config]
    connect-retry = 1
    hold-time = 9
    keepalive-interval = 3
"#;
    let command = "gobgpd -f @/gobgpd.toml --api-hosts 127.0.0.1:50051";
    let neighbour = Router::start(namespace, &[("gobgpd.toml", upstream)], command);
    neighbour.tell("gobgp global rib add 203.0.113.0/24");
    let config = format!(
        "hostname router
log stdout
router bgp 65101
 bgp router-id 10.99.1.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor 10.98.0.2 remote-as 65102
 neighbor 10.98.0.2 timers 3 9
 neighbor 10.98.0.2 timers connect 1
 neighbor 10.98.0.2 update-source 10.98.0.1
 neighbor 10.98.0.2 disable-connected-check
 bmp targets agent
  bmp monitor ipv4 unicast pre-policy
  bmp connect 10.99.1.1 port 11019 min-retry 100 max-retry 500
 exit
 address-family ipv4 unicast
  neighbor 10.98.0.2 activate
  {truthful}
 exit-address-family
"
    );
    let router = Router::start(namespace, &[("frr.conf", &config)], FRR_COMMAND);
    (agent, router, neighbour)
}

#[test]
fn frr_is_monitored_and_tells_the_truth_if_it_keeps_what_it_received() {
    let test = "frr_is_monitored_and_tells_the_truth_if_it_keeps_what_it_received";
    let Some(namespace) = inside(
        test,
        &["/usr/lib/frr/bgpd", "/usr/bin/gobgpd", "/usr/bin/gobgp"],
    ) else {
        return;
    };
    let (mut agent, mut router, neighbour) = frr_is_monitored(&namespace, TRUTHFUL, |_| ());
    neighbour.tell("gobgp global rib add 192.0.2.0/24");
    agent.until("the table is there", &router, is_loaded);
    neighbour.tell("gobgp global rib del 192.0.2.0/24");
    agent.until("the withdrawal", &router, is_withdrawn);
    neighbour.tell("gobgp global rib add 192.0.2.0/24");
    agent.until("the return", &router, is_returned);
    router.kill();
    agent.until("the loss of the feed", &router, is_down);
    assert_eq!(agent.changes().len(), 2, "{:?}", agent.events);
}

#[test]
fn frr_sends_what_it_monitors_once_more() {
    let test = "frr_sends_what_it_monitors_once_more";
    let Some(namespace) = inside(
        test,
        &["/usr/lib/frr/bgpd", "/usr/bin/gobgpd", "/usr/bin/gobgp"],
    ) else {
        return;
    };
    let (agent, router, neighbour) = frr_is_monitored(&namespace, TRUTHFUL, watching_nothing);
    neighbour.tell("gobgp global rib add 192.0.2.0/24");
    a_prefix_is_learned(agent, &router, || {
        neighbour.tell("gobgp global rib del 192.0.2.0/24");
    });
}

#[test]
fn frr_that_fabricates_withdrawals_is_not_believed() {
    let test = "frr_that_fabricates_withdrawals_is_not_believed";
    let Some(namespace) = inside(
        test,
        &["/usr/lib/frr/bgpd", "/usr/bin/gobgpd", "/usr/bin/gobgp"],
    ) else {
        return;
    };
    let (mut agent, router, neighbour) = frr_is_monitored(&namespace, "", |_| ());
    // Announcements, each of which is shown as a withdrawal.
    for last in 0..20 {
        neighbour.tell(&format!("gobgp global rib add 198.51.{last}.0/24"));
    }
    neighbour.tell("gobgp global rib add 192.0.2.0/24");
    agent.until("doubt", &router, |what| {
        matches!(what, What::Feed(FeedChange::Untrusted { .. }))
    });
    assert!(agent.changes().is_empty(), "{:?}", agent.events);
    assert_eq!(agent.counted, 0);
}
