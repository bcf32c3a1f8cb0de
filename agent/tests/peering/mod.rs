//! Two namespaces, a router in one, and the agent's part that listens to it in the other.

use std::{
    net::IpAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use leeward_agent::{
    bgp::{
        live::{Bound, start_answering},
        session,
        systems::{self, Systems},
        watch::{Told, Watched},
    },
    config::{Bgp, BgpPeer},
};
use leeward_common::{
    bgp::{Change, FeedChange, Routing, What},
    finding::Finding,
};
use leeward_testing::skipped;
use tokio::sync::{mpsc, watch};

/// Tells the run inside from the one outside.
const INSIDE: &str = "LEEWARD_TEST_ROUTERS_INSIDE";

pub const WATCHED: &str = "192.0.2.0/24";

/// The longest that anything may take: routers wait for seconds before they connect, and a feed that shows a router's
/// choice must have been quiet for ten.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn ip(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments.split(' ')).stdin(Stdio::null());
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Two namespaces that vanish with this.
struct Namespaces(String);

impl Namespaces {
    fn new(test: &str) -> Option<Self> {
        let short: String = test.split('_').map(|word| &word[..1]).collect();
        let name = format!("lw-{}-{short}", std::process::id());
        let made = Self(name);
        let (a, b) = (made.a(), made.b());
        if !ip(&format!("netns add {a}")) || !ip(&format!("netns add {b}")) {
            return None;
        }
        for step in [
            format!("-n {a} link add va type veth peer name vb netns {b}"),
            format!("-n {a} addr add 10.99.1.1/24 dev va"),
            format!("-n {a} link set va up"),
            format!("-n {a} link set lo up"),
            format!("-n {b} addr add 10.99.1.2/24 dev vb"),
            format!("-n {b} link set vb up"),
            format!("-n {b} link set lo up"),
        ] {
            assert!(ip(&step), "ip {step}");
        }
        Some(made)
    }

    fn a(&self) -> String {
        format!("{}-a", self.0)
    }

    fn b(&self) -> String {
        format!("{}-b", self.0)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.a()));
        ip(&format!("netns del {}", self.b()));
    }
}

/// Runs the test of this name again inside fresh namespaces, if there are these programs; in the run inside, the name of
/// the namespace of the router.
pub fn inside(test: &str, programs: &[&str]) -> Option<String> {
    if let Ok(router) = std::env::var(INSIDE) {
        return Some(router);
    }
    if let Some(missing) = programs.iter().find(|program| !Path::new(program).exists()) {
        skipped(test, &format!("{missing} is not installed (scripts/setup)"));
        return None;
    }
    let Some(namespaces) = Namespaces::new(test) else {
        skipped(test, "needs root and `ip netns`");
        return None;
    };
    let status = Command::new("ip")
        .args(["netns", "exec", &namespaces.a()])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, namespaces.b())
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed inside its namespace");
    None
}

/// A router that dies with this.
pub struct Router {
    child: Child,
    namespace: String,
    directory: tempfile::TempDir,
}

impl Router {
    /// Starts a program; `@` in its arguments and files stands for its directory.
    pub fn start(namespace: &str, files: &[(&str, &str)], command: &str) -> Self {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        // Routers that give up their privileges must still reach it.
        std::fs::set_permissions(
            directory.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::write(
                &path,
                text.replace('@', &directory.path().to_string_lossy()),
            )
            .unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .unwrap();
        }
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let child = command_in(namespace, directory.path(), command)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            child,
            namespace: namespace.to_owned(),
            directory,
        }
    }

    /// Tells it to do something, until it does.
    pub fn tell(&self, command: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = command_in(&self.namespace, self.directory.path(), command)
                .output()
                .unwrap();
            if output.status.success() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{command}: {output:?}\n{}",
                self.log()
            );
            std::thread::yield_now();
        }
    }

    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        log.lines().rev().take(30).collect::<Vec<_>>().join("\n")
    }

    /// It is gone from one moment to the next.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn command_in(namespace: &str, directory: &Path, command: &str) -> Command {
    let command = command.replace('@', &directory.to_string_lossy());
    // `exec` throughout, so that the child is the router itself.
    let mut inside = Command::new("ip");
    inside.args([
        "netns",
        "exec",
        namespace,
        "sh",
        "-c",
        &format!("exec {command}"),
    ]);
    inside.current_dir(directory);
    inside
}

/// What the agent is told.
pub struct Agent {
    pub told: watch::Sender<Option<Told>>,
    /// Whose an address is, as traces ask.
    pub systems: Systems,
    routing: mpsc::Receiver<Finding>,
    pub events: Vec<What>,
    pub counted: u64,
}

impl Agent {
    pub fn listen(change: impl FnOnce(&mut Bgp)) -> Self {
        let mut config = Bgp {
            watch: vec![Watched {
                prefix: WATCHED.parse().unwrap(),
                region: "dub".parse().unwrap(),
                origins: [].into(),
            }],
            window: Duration::from_secs(1),
            bmp_listen: Some("10.99.1.1:11019".parse().unwrap()),
            bmp_routers: vec!["10.99.1.2".parse().unwrap()],
            listen: Some("10.99.1.1:179".parse().unwrap()),
            peers: vec![BgpPeer {
                session: session::Peer {
                    address: IpAddr::from([10, 99, 1, 2]),
                    system: 65_101,
                    own_system: 65_000,
                    router_id: [10, 99, 1, 1].into(),
                    hold_time: Duration::from_secs(9),
                },
                gtsm: false,
                signature_key: None,
            }],
            ..Bgp::default()
        };
        change(&mut config);
        let (out, routing) = mpsc::channel(64);
        let (systems, questions) = systems::channel();
        let (told, telling) = watch::channel(Some(Told::default()));
        let bound = Bound::bind(&config).unwrap();
        start_answering(&config, bound, out, questions, telling).unwrap();
        Self {
            told,
            systems,
            routing,
            events: Vec::new(),
            counted: 0,
        }
    }

    /// Takes what is told until an event is as wanted.
    pub fn until(&mut self, what: &str, router: &Router, wanted: impl Fn(&What) -> bool) {
        self.until_told(what, router, |routing| {
            routing.events.iter().any(|event| wanted(&event.what))
        });
    }

    /// Takes what is told until it is as wanted.
    pub fn until_told(&mut self, what: &str, router: &Router, wanted: impl Fn(&Routing) -> bool) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let found = runtime.block_on(async {
            tokio::time::timeout(PATIENCE, async {
                loop {
                    let Some(Finding::Routing(routing)) = self.routing.recv().await else {
                        panic!("nothing is told any more");
                    };
                    for window in &routing.windows {
                        self.counted += u64::from(!window.is_quiet());
                    }
                    let found = wanted(&routing);
                    self.events
                        .extend(routing.events.into_iter().map(|event| event.what));
                    if found {
                        return;
                    }
                }
            })
            .await
        });
        assert!(
            found.is_ok(),
            "{what} did not happen within {PATIENCE:?}\n{:#?}\n{}",
            self.events,
            router.log()
        );
    }

    pub fn changes(&self) -> Vec<&Change> {
        let changes = self.events.iter().filter_map(|what| match what {
            What::Prefix { change, .. } => Some(change),
            What::Feed(_) | What::Link(_) => None,
        });
        changes.collect()
    }
}

pub fn is_loaded(what: &What) -> bool {
    matches!(what, What::Feed(FeedChange::Loaded))
}

pub fn is_withdrawn(what: &What) -> bool {
    matches!(what, What::Prefix { change: Change::Withdrawn { .. }, sight, .. } if sight.gone == 1 && sight.visible == 0)
}

pub fn is_returned(what: &What) -> bool {
    matches!(what, What::Prefix { change: Change::Returned { .. }, sight, .. } if sight.visible == 1)
}

pub fn is_down(what: &What) -> bool {
    matches!(what, What::Feed(FeedChange::Down { .. }))
}
