//! A peer for ingest: Debian's Prometheus, taking samples by remote write (version 1 of its protocol).
//!
//! Protocol Buffers of the three messages that are needed are written by hand; the format is
//! <https://prometheus.io/docs/specs/prw/remote_write_spec/>.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::process;

/// A running Prometheus with nothing to scrape.
#[derive(Debug)]
pub struct Prometheus {
    _directory: TempDir,
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// Returns why it cannot be run.
    pub fn start() -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("leeward-bench-")?;
        let config = directory.path().join("prometheus.yml");
        std::fs::write(&config, "global: {}\n")?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--web.enable-remote-write-receiver")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("it cannot be run; it is in Debian's package prometheus")?;
        let this = Self {
            _directory: directory,
            child,
            address,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while this.post(&write_request(0, 1, 1)).is_err() {
            ensure!(Instant::now() < deadline, "it did not become ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(this)
    }

    /// Has it take so many requests of `series` samples each. Returns how many samples that were and the CPU time that
    /// it took.
    ///
    /// # Errors
    ///
    /// Returns why it refused.
    pub fn take(&self, requests: u32, series: u32) -> anyhow::Result<(u64, Duration)> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
        let bodies: Vec<_> = (0..requests)
            .map(|at| write_request(at, series, now + i64::from(at)))
            .collect();
        let before = process::cpu(self.child.id())?;
        let mut connection = Connection::open(self.address)?;
        bodies.iter().try_for_each(|body| connection.post(body))?;
        let spent = process::cpu(self.child.id())? - before;
        Ok((u64::from(requests) * u64::from(series), spent))
    }

    fn post(&self, body: &[u8]) -> anyhow::Result<()> {
        Connection::open(self.address)?.post(body)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn post(&mut self, body: &[u8]) -> anyhow::Result<()> {
        let stream = self.0.get_mut();
        write!(
            stream,
            "POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n\
             Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )?;
        stream.write_all(body)?;
        let (mut status, mut length) = (String::new(), 0);
        self.0.read_line(&mut status)?;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().context("no length")?;
            }
        }
        let mut said = vec![0; length];
        self.0.read_exact(&mut said)?;
        let said = String::from_utf8_lossy(&said);
        ensure!(status.contains(" 20"), "{} {said}", status.trim_end());
        Ok(())
    }
}

/// A `WriteRequest` of `series` time series with one sample each, compressed as the protocol asks.
fn write_request(agent: u32, series: u32, at_ms: i64) -> Vec<u8> {
    let mut request = Vec::new();
    for path in 0..series {
        let mut one = Vec::new();
        let labels = [
            ("__name__", "rtt_p50_us".to_owned()),
            ("agent", format!("a{}", agent % 8)),
            ("path", path.to_string()),
        ];
        for (name, value) in labels {
            let mut label = Vec::new();
            bytes_field(&mut label, 1, name.as_bytes());
            bytes_field(&mut label, 2, value.as_bytes());
            bytes_field(&mut one, 1, &label);
        }
        let mut sample = vec![1 << 3 | 1];
        sample.extend(f64::from(80_000 + path).to_le_bytes());
        sample.push(2 << 3);
        varint(&mut sample, at_ms as u64);
        bytes_field(&mut one, 2, &sample);
        bytes_field(&mut request, 1, &one);
    }
    snap::raw::Encoder::new()
        .compress_vec(&request)
        .expect("far below snappy's limit of 4 GiB")
}

fn bytes_field(into: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    into.push(number << 3 | 2);
    varint(into, bytes.len() as u64);
    into.extend(bytes);
}

fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}
