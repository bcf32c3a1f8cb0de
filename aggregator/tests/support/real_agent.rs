//! The agent's binary, as a process. It is another crate's, so it is looked for beside the aggregator's.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use super::Installation;

/// The binary, or `None` after saying loudly that the test was skipped.
pub fn binary(test: &str) -> Option<PathBuf> {
    let binary =
        Path::new(env!("CARGO_BIN_EXE_leeward-aggregator")).with_file_name("leeward-agent");
    if binary.is_file() {
        return Some(binary);
    }
    leeward_testing::skipped_unless_required(
        test,
        "needs leeward-agent; build it with cargo build --bins",
    );
    None
}

/// An agent's installation: its process may be killed and started again.
pub struct RealAgent {
    pub agent: &'static str,
    binary: PathBuf,
    config: PathBuf,
    status_port: u16,
    clock: Option<Clock>,
    child: Option<Child>,
}

/// A wall clock of one process alone, which is set while it runs: libfaketime's.
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// A clock that is right, as long as this file says nothing else; `None` after saying loudly that there is no such
    /// library.
    pub fn new(test: &str, file: PathBuf) -> Option<Self> {
        let names = std::fs::read_dir("/usr/lib")
            .into_iter()
            .flatten()
            .flatten();
        let paths = names.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
        let Some(library) = paths.into_iter().find(|path| path.is_file()) else {
            leeward_testing::skipped(
                test,
                "clock jumps need libfaketime, which scripts/setup installs",
            );
            return None;
        };
        let clock = Self { library, file };
        clock.set(0);
        Some(clock)
    }

    /// From now on it is off by so many seconds.
    pub fn set(&self, off_seconds: i64) {
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{off_seconds:+}\n")).unwrap();
        std::fs::rename(next, &self.file).unwrap();
    }

    fn wind(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_CACHE_DURATION", "1")
            // Only the wall clock is ever set.
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }
}

impl RealAgent {
    /// Writes what an agent needs; `number` sets it apart from others on this host, `uplink` is of its `[uplink]`.
    pub fn install(
        installation: &Installation,
        (binary, number): (&Path, u16),
        (region, agent): (&str, &'static str),
        aggregators: &[SocketAddr],
        uplink: &str,
    ) -> Self {
        let aggregators: String = aggregators
            .iter()
            .map(|address| format!("[[aggregator]]\naddress = '{address}'\n"))
            .collect();
        let certificate = installation.authority.agent(region, agent);
        let (pem, key) = installation.write_agent(&certificate, agent);
        let directory = installation.dir.path();
        let status_port = leeward_testing::free_port();
        let first_port = 61_100 + 8 * number;
        let config = format!(
            "region = '{region}'\nagent = '{agent}'\nallowed_networks = ['127.0.0.0/8']\nanswer_port = {}\n\
             addresses = ['127.9.1.{number}']\nsyn_source_ports = [{first_port}, {}]\nstatus_listen = '127.0.0.1:{status_port}'\n\
             [credentials]\nca = '{}'\ncertificate = '{}'\nkey = '{}'\n\
             {aggregators}\
             [uplink]\nkeep_alive = '300ms'\nidle_timeout = '1s'\n{uplink}\n\
             [stamp]\nreflect = false\n\
             [spool]\ndirectory = '{}'\nwrite_after = '100ms'\n",
            leeward_testing::free_port(),
            first_port + 7,
            directory.join("ca.pem").display(),
            pem.display(),
            key.display(),
            directory.join(format!("spool-{agent}")).display(),
        );
        let name = format!("{agent}.toml");
        installation.write(&name, &config);
        Self {
            agent,
            binary: binary.to_owned(),
            config: directory.join(name),
            status_port,
            clock: None,
            child: None,
        }
    }

    /// From its next start on it goes by this clock.
    pub fn go_by(&mut self, clock: Clock) {
        self.clock = Some(clock);
    }

    /// Its clock is off by so many seconds from now on, if it has one of its own.
    pub fn set_clock(&self, off_seconds: i64) {
        if let Some(clock) = &self.clock {
            clock.set(off_seconds);
        }
    }

    pub fn start(&mut self) {
        let mut command = Command::new(&self.binary);
        command
            .arg("--config")
            .arg(&self.config)
            .env_remove("CREDENTIALS_DIRECTORY")
            .env_remove("STATE_DIRECTORY")
            .env_remove("NOTIFY_SOCKET")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(clock) = &self.clock {
            clock.wind(&mut command);
        }
        self.child = Some(command.spawn().unwrap());
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        assert_eq!(ended.code(), None, "{} ended by itself", self.agent);
    }

    /// Asks it to end (SIGTERM) and waits.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let asked = Command::new("kill").arg(child.id().to_string()).status();
        assert!(asked.unwrap().success());
        child.wait().unwrap()
    }

    /// The sum of a figure of its own over its labels; `None` while it does not answer.
    pub fn figure(&self, name: &str) -> Option<u64> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.status_port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        let name = format!("leeward_agent_{name}");
        let values = page.lines().filter_map(|line| {
            let value = line.strip_prefix(&name)?.strip_prefix([' ', '{'])?;
            value.rsplit(' ').next()?.parse::<u64>().ok()
        });
        let values: Vec<_> = values.collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}

impl Drop for RealAgent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
