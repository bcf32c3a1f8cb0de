//! The binary as an operator and a service manager meet it. Loopback only; no aggregator is there, so nothing is probed.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    string::Ia5String,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// A directory with a configuration and credentials.
struct Installation {
    directory: tempfile::TempDir,
    status_port: u16,
}

impl Installation {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(Vec::new()).unwrap();
        leaf.subject_alt_names = vec![SanType::URI(
            Ia5String::try_from("leeward://agent/eu/eu-a").unwrap(),
        )];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let leaf_pem = leaf
            .signed_by(&key, &Issuer::new(ca, ca_key))
            .unwrap()
            .pem();
        let installation = Self {
            directory,
            status_port: leeward_testing::free_port(),
        };
        installation.write("ca.pem", &ca_pem);
        installation.write("agent.pem", &leaf_pem);
        installation.write("agent.key", &key.serialize_pem());
        installation.write("agent.toml", &installation.config());
        installation
    }

    fn config(&self) -> String {
        format!(
            "region = \"eu\"\nagent = \"eu-a\"\nallowed_networks = [\"127.0.0.0/8\"]\nanswer_port = {}\nstatus_listen = \"127.0.0.1:{}\"\n\
             [credentials]\nca = \"ca.pem\"\ncertificate = \"agent.pem\"\nkey = \"agent.key\"\n\
             [[aggregator]]\naddress = \"127.0.0.1:9\"\n",
            leeward_testing::free_port(),
            self.status_port
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leeward-agent"));
        command.arg("--config").arg(self.path("agent.toml"));
        command
            .env_remove("CREDENTIALS_DIRECTORY")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC");
        command
    }

    fn check(&self) -> Output {
        self.command().arg("--check").output().unwrap()
    }
}

/// The one line that a failed check prints.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn a_good_configuration_passes_the_check() {
    let installation = Installation::new();
    let output = installation.check();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("agent.toml: ok\n"));
}

#[test]
fn what_is_wrong_is_one_line_and_exit_code_two() {
    let installation = Installation::new();
    installation.write(
        "agent.toml",
        &installation.config().replace("answer_port", "answerport"),
    );
    assert!(
        complaint(&installation.check()).contains("agent.toml:4:1: unknown field `answerport`")
    );
    installation.write("agent.toml", &installation.config());
    std::fs::remove_file(installation.path("agent.key")).unwrap();
    let text = complaint(&installation.check());
    assert!(
        text.contains("agent.key: cannot be read by this process") && text.contains("No such file"),
        "{text}"
    );
    std::fs::remove_file(installation.path("agent.toml")).unwrap();
    assert!(complaint(&installation.check()).contains("agent.toml: cannot be read: No such file"));
}

#[test]
fn credentials_come_from_the_service_managers_directory() {
    let installation = Installation::new();
    let elsewhere = tempfile::tempdir().unwrap();
    for name in ["ca.pem", "agent.pem", "agent.key"] {
        std::fs::rename(installation.path(name), elsewhere.path().join(name)).unwrap();
    }
    assert_eq!(installation.check().status.code(), Some(2));
    let output = installation
        .command()
        .arg("--check")
        .env("CREDENTIALS_DIRECTORY", elsewhere.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A child that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// The next notification that begins with `what`.
fn notified(socket: &UnixDatagram, what: &str) {
    let until = Instant::now() + DEADLINE;
    let mut message = [0; 256];
    while Instant::now() < until {
        if let Ok(length) = socket.recv(&mut message)
            && message[..length].starts_with(what.as_bytes())
        {
            return;
        }
    }
    panic!("the service manager was not told {what}");
}

fn page(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn service_manager(directory: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(directory.join("notify")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    socket
}

#[test]
fn a_running_agent_is_ready_healthy_watched_reloaded_and_stopped() {
    let installation = Installation::new();
    let manager = service_manager(installation.directory.path());
    let mut command = installation.command();
    command
        .env("NOTIFY_SOCKET", installation.path("notify"))
        .env("WATCHDOG_USEC", "2000000");
    let mut agent = Running(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut stderr = agent.0.stderr.take().unwrap();
    if !raw_sockets_are_allowed() {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        assert!(text.contains("CAP_NET_RAW"), "{text}");
        leeward_testing::skipped(
            "a_running_agent_is_ready_…",
            "this process may not open raw sockets",
        );
        return;
    }
    notified(&manager, "READY=1");
    notified(&manager, "WATCHDOG=1");
    let health = page(installation.status_port, "/healthz");
    assert!(health.starts_with("HTTP/1.1 200 OK"), "{health}");
    assert!(health.contains("aggregators connected: 0 of 1"), "{health}");
    let metrics = page(installation.status_port, "/metrics");
    assert!(
        metrics.contains("leeward_agent_aggregator_connected{aggregator=\"127.0.0.1:9\"} 0\n"),
        "{metrics}"
    );
    let held = std::fs::read_to_string(format!("/proc/{}/status", agent.0.id())).unwrap();
    assert!(held.contains("CapPrm:\t0000000000000000\n"), "{held}");
    signal(&agent.0, "HUP");
    notified(&manager, "WATCHDOG=1");
    signal(&agent.0, "TERM");
    notified(&manager, "STOPPING=1");
    let ended = agent.0.wait().unwrap();
    let mut log = String::new();
    stderr.read_to_string(&mut log).unwrap();
    assert!(ended.success(), "{log}");
    assert!(log.contains("reloaded"), "{log}");
}

/// CAP_NET_RAW is bit 13 of the effective set.
fn raw_sockets_are_allowed() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"))
        .unwrap();
    u64::from_str_radix(effective, 16).unwrap() >> 13 & 1 == 1
}
