//! A real cache of authorizations (StayRTR from Debian), a router that announces by BMP, and what the agent makes of both.
//! All of it over loopback. Without the cache it says SKIPPED.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use leeward_agent::{
    bgp::{
        live::{Bound, start},
        watch::Watched,
    },
    config::Bgp,
};
use leeward_common::{
    bgp::{Change, FeedChange, PrefixWindow, Validities, Validity, What},
    finding::Finding,
};
use socket2::{Domain, Socket, Type};
use tokio::{sync::mpsc, time::timeout};

const CACHE: &str = "/usr/bin/stayrtr";

/// The longest that anything may take: the cache looks into its file every second.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port that only who means to can listen on, as long as the socket lives: it does not listen itself.
fn port() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// A cache that reads authorizations from a file, and dies with this.
struct Cache {
    child: Child,
}

impl Cache {
    fn start(address: SocketAddr, file: &Path) -> Self {
        let child = Command::new(CACHE)
            .args(["-bind", &address.to_string(), "-cache"])
            .arg(file)
            .args(["-metrics.addr", "", "-checktime=false", "-refresh", "1"])
            .args(["-rtr.refresh", "1", "-rtr.expire", "600"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child }
    }

    /// As by `kill -9`.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Writes the file of the cache: who may announce the watched prefix, among many others who may announce others. The new one
/// takes the place of the old at once.
fn authorize(file: &Path, systems: &[u32]) {
    let one = |prefix: String, system: u32| {
        format!(r#"{{"prefix":"{prefix}","maxLength":24,"asn":"AS{system}","ta":"test"}}"#)
    };
    let mut roas: Vec<_> = (0..20_000_u32)
        .map(|n| one(format!("10.{}.{}.0/24", n / 256, n % 256), 64_999))
        .collect();
    roas.extend(
        systems
            .iter()
            .map(|system| one("192.0.2.0/24".to_owned(), *system)),
    );
    let text = format!(
        r#"{{"metadata":{{"buildtime":"2026-01-01T00:00:00Z"}},"roas":[{}]}}"#,
        roas.join(",")
    );
    let written = file.with_extension("new");
    std::fs::write(&written, text).unwrap();
    std::fs::rename(written, file).unwrap();
}

/// A message of BMP of a neighbour, before policy: an UPDATE.
fn monitored(update: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 10];
    body.extend([0; 12]);
    body.extend([10, 9, 9, 9, 0, 0, 0xfb, 0xf5, 10, 9, 9, 9]);
    body.extend([0; 8]);
    body.extend([0xff; 16]);
    body.extend(u16::try_from(19 + update.len()).unwrap().to_be_bytes());
    body.push(2);
    body.extend(update);
    let mut message = vec![3];
    message.extend(u32::try_from(6 + body.len()).unwrap().to_be_bytes());
    message.push(0);
    message.extend(body);
    message
}

/// 192.0.2.0/24 by way of AS64501 from a system that two bytes hold.
fn announcement(system: u16) -> Vec<u8> {
    let [high, low] = system.to_be_bytes();
    let mut update = vec![0, 0, 0, 24, 0x40, 1, 1, 0];
    update.extend([0x40, 2, 10, 2, 2, 0, 0, 0xfb, 0xf5, 0, 0, high, low]);
    update.extend([0x40, 3, 4, 192, 0, 2, 1, 24, 192, 0, 2]);
    // The attributes' length, now that they are there.
    let attributes = update.len() - 4 - 4;
    update[2..4].copy_from_slice(&u16::try_from(attributes).unwrap().to_be_bytes());
    monitored(&update)
}

fn end_of_table() -> Vec<u8> {
    monitored(&[0, 0, 0, 0])
}

/// An agent that listens to a router and to a cache.
struct Agent {
    router: TcpStream,
    found: mpsc::Receiver<Finding>,
    told: Vec<Change>,
    runtime: tokio::runtime::Runtime,
}

impl Agent {
    fn new(cache: SocketAddr) -> Self {
        let (_held, listen) = port();
        let config = Bgp {
            watch: vec![Watched {
                prefix: "192.0.2.0/24".parse().unwrap(),
                region: "dub".parse().unwrap(),
                origins: [].into(),
            }],
            window: Duration::from_secs(1),
            bmp_listen: Some(listen),
            bmp_routers: vec!["127.0.0.0/8".parse().unwrap()],
            rpki_caches: vec![cache.to_string()],
            ..Bgp::default()
        };
        let (out, found) = mpsc::channel(64);
        start(&config, Bound::bind(&config).unwrap(), out).unwrap();
        let router = TcpStream::connect(listen).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            router,
            found,
            told: Vec::new(),
            runtime,
        }
    }

    fn announce(&mut self, system: u16) {
        self.router.write_all(&announcement(system)).unwrap();
    }

    /// Takes what is told until it is as wanted.
    fn until(&mut self, what: &str, mut wanted: impl FnMut(&Seen<'_>) -> bool) {
        let told = &mut self.told;
        let found = &mut self.found;
        let hear = async {
            loop {
                let Some(Finding::Routing(routing)) = found.recv().await else {
                    panic!("nothing is told any more");
                };
                let mut is_found = false;
                for event in &routing.events {
                    is_found |= wanted(&Seen::Event(&event.what));
                    if let What::Prefix { change, .. } = &event.what {
                        told.push(change.clone());
                    }
                }
                for window in &routing.windows {
                    is_found |= wanted(&Seen::Window(window));
                }
                if is_found {
                    return;
                }
            }
        };
        let found = self
            .runtime
            .block_on(async { timeout(PATIENCE, hear).await });
        assert!(
            found.is_ok(),
            "{what} did not happen within {PATIENCE:?}: {:?}",
            self.told
        );
    }

    fn until_window(&mut self, what: &str, count: impl Fn(&Validities) -> u32) {
        self.until(
            what,
            |seen| matches!(seen, Seen::Window(own) if count(&own.validities) == 1),
        );
    }

    fn until_invalid(&mut self, what: &str, was: Validity, origin: u32) {
        self.until(what, |seen| {
            let Seen::Event(What::Prefix {
                change: Change::Invalid(own),
                ..
            }) = seen
            else {
                return false;
            };
            (own.was, own.origin, own.is) == (Some(was), Some(origin), Validity::InvalidOrigin)
        });
    }

    fn invalid(&self) -> usize {
        let invalid = |change: &&Change| matches!(change, Change::Invalid(_));
        self.told.iter().filter(invalid).count()
    }
}

enum Seen<'a> {
    Event(&'a What),
    Window(&'a PrefixWindow),
}

#[test]
fn a_real_cache_is_believed_while_it_is_there() {
    if !Path::new(CACHE).exists() {
        leeward_testing::skipped(
            "a_real_cache_is_believed_while_it_is_there",
            &format!("{CACHE} is not installed (scripts/setup)"),
        );
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file: PathBuf = directory.path().join("authorizations.json");
    authorize(&file, &[64_500]);
    let (_held, address) = port();
    let mut agent = Agent::new(address);
    agent.announce(64_500);
    agent.router.write_all(&end_of_table()).unwrap();
    agent.until("the table", |seen| {
        matches!(seen, Seen::Event(What::Feed(FeedChange::Loaded)))
    });
    agent.until_window("a route of which nobody knows", |own| own.unknown);
    let mut cache = Cache::start(address, &file);
    agent.until_window("a valid route", |own| own.valid);
    // By an announcement.
    agent.announce(64_666);
    agent.until_invalid("an invalid announcement", Validity::Valid, 64_666);
    agent.until_window("an invalid route", |own| own.invalid_origin);
    agent.announce(64_500);
    agent.until_window("a valid route again", |own| own.valid);
    // By an authorization, sent as what changed.
    authorize(&file, &[64_501]);
    agent.until_invalid("an authorization taken away", Validity::Valid, 64_500);
    authorize(&file, &[64_501, 64_500]);
    agent.until_window("an authorization given back", |own| own.valid);
    // Who dies says nothing more, and what it said counts no more.
    cache.kill();
    agent.until_window("the death of the cache", |own| own.unknown);
    agent.announce(64_666);
    agent.until(
        "another origin",
        |seen| matches!(seen, Seen::Window(own) if own.origins == [64_666]),
    );
    authorize(&file, &[64_500]);
    // Its next life begins with another set, which makes the route invalid; that is a fact and no news.
    let before = agent.invalid();
    let _cache = Cache::start(address, &file);
    agent.until_window("the next life of the cache", |own| own.invalid_origin);
    assert_eq!((before, agent.invalid()), (2, 2), "{:?}", agent.told);
}
