//! The real binary, and a server that answers what a test tells it to.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use serde::Serialize;

/// What the binary said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Panics with everything that was said unless the exit code is this one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout:\n{}\nstderr:\n{}",
            self.out, self.err
        );
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}\n{}", self.out))
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            out: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            err: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        }
    }
}

/// The binary in a clean environment.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leeward"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// Runs the binary.
pub fn leeward(args: &[&str]) -> Said {
    command()
        .args(args)
        .output()
        .expect("the binary runs")
        .into()
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Canned {
    pub path: &'static str,
    pub status: u16,
    pub media_type: &'static str,
    pub body: String,
}

/// An answer of status 200.
pub fn ok(path: &'static str, body: &impl Serialize) -> Canned {
    let body = serde_json::to_string(body).expect("it is JSON");
    Canned {
        path,
        status: 200,
        media_type: "application/json",
        body,
    }
}

/// A problem.
pub fn problem(path: &'static str, problem: &leeward_common::api::problem::Problem) -> Canned {
    let body = serde_json::to_string(problem).expect("it is JSON");
    Canned {
        path,
        status: problem.status,
        media_type: leeward_common::api::problem::MEDIA_TYPE,
        body,
    }
}

/// A server of canned answers; it ends with the test's process.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    /// The requests so far, heads and bodies.
    pub requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn new(answers: Vec<Canned>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
        let address = listener.local_addr().expect("it has an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, seen) = (answers.clone(), Arc::clone(&seen));
                thread::spawn(move || serve(stream, &answers, &seen));
            }
        });
        Self { address, requests }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Asks this server.
    pub fn leeward(&self, args: &[&str]) -> Said {
        command()
            .args(args)
            .env("LEEWARD_SERVER", self.url())
            .output()
            .expect("the binary runs")
            .into()
    }

    pub fn last_request(&self) -> String {
        self.requests
            .lock()
            .expect("no test panicked in it")
            .last()
            .cloned()
            .unwrap_or_default()
    }
}

/// Reads one request and answers it.
pub fn serve(stream: impl Read + Write, answers: &[Canned], seen: &Mutex<Vec<String>>) {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    if stream.read_exact(&mut body).is_err() {
        return;
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    seen.lock()
        .expect("no test panicked in it")
        .push(format!("{head}\r\n{}", String::from_utf8_lossy(&body)));
    let Some(answer) = answers.iter().find(|answer| answer.path == path) else {
        return;
    };
    let Canned {
        status,
        media_type,
        body,
        ..
    } = answer;
    let _ = write!(
        stream.get_mut(),
        "HTTP/1.1 {status} X\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.get_mut().flush();
}

/// A server that accepts and says nothing.
pub fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
    let address = listener.local_addr().expect("it has an address");
    thread::spawn(move || {
        let streams: Vec<TcpStream> = listener.incoming().flatten().collect();
        drop(streams);
    });
    address
}

/// An address that nobody listens on.
pub fn closed() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
    listener.local_addr().expect("it has an address")
}
