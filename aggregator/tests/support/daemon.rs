//! The real binary, as a process.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use super::{DEADLINE, Installation};

/// Policy of two regions.
pub const REGIONS: &str = "[[region]]\nid = 'iad'\nlatitude = 39.0\nlongitude = -77.5\n[[region]]\nid = 'dub'\nlatitude = 53.3\nlongitude = -6.3\n";

/// An operator, whose token is `secret`.
pub const TOKEN: &str = "[[api.token]]\nname = 'mara'\nrole = 'operator'\nsha256 = '2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b'\n";

/// The binary with this installation's configuration.
pub fn command(installation: &Installation) -> Command {
    command_with(&installation.config_path())
}

fn command_with(config: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leeward-aggregator"));
    command
        .arg("--config")
        .arg(config)
        .env_remove("CREDENTIALS_DIRECTORY");
    command
}

/// A process that is killed when the test is done with it.
pub struct Aggregator {
    pub child: Child,
    pub agents: SocketAddr,
    pub api: SocketAddr,
}

impl Aggregator {
    pub fn start(installation: &Installation, notify: Option<&std::path::Path>) -> Self {
        Self::start_with(&installation.config_path(), notify)
    }

    /// As [`Self::start`], with a configuration that may not be the installation's first.
    pub fn start_with(config: &std::path::Path, notify: Option<&std::path::Path>) -> Self {
        let mut command = command_with(config);
        command
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .env("LEEWARD_LOG", "info");
        if let Some(socket) = notify {
            command
                .env("NOTIFY_SOCKET", socket)
                .env("WATCHDOG_USEC", "200000");
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let listening = lines.by_ref().find_map(|line| {
            let (_, rest) = line.split_once("listening agents=")?;
            let (agents, rest) = rest.split_once(" api=")?;
            let api = rest.split(' ').next()?;
            Some((agents.parse().ok()?, api.parse().ok()?))
        });
        let (agents, api) = listening.expect("the log says where it listens");
        // Whoever writes to a closed pipe dies of it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, agents, api }
    }

    /// Asks the API by hand; status and body.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.api).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer secret\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
        (status, body)
    }

    pub fn hang_up(&self) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-HUP", &id]).status().unwrap();
        assert!(status.success());
    }

    pub fn terminate(mut self) {
        let status = Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(status.success());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Aggregator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
