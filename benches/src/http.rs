//! Asks the aggregator's API, one question after the other over one connection, as a dashboard or a script would.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;

/// An answer that takes longer than this never comes.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that is kept.
#[derive(Debug)]
pub struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects.
    ///
    /// # Errors
    ///
    /// Returns why nobody answers there.
    pub fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)
            .with_context(|| format!("connect to {address}"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Gets a JSON document.
    ///
    /// # Errors
    ///
    /// Returns any answer but 200, and what is wrong with the document.
    pub fn get<T: DeserializeOwned>(&mut self, path: &str) -> anyhow::Result<T> {
        serde_json::from_slice(&self.bytes(path)?)
            .with_context(|| format!("GET {path} is answered with something else"))
    }

    /// Gets a document as it is.
    ///
    /// # Errors
    ///
    /// Returns any answer but 200.
    pub fn bytes(&mut self, path: &str) -> anyhow::Result<Vec<u8>> {
        let (status, body) = self.ask(path)?;
        if status != 200 {
            bail!(
                "GET {path} is answered with {status}: {}",
                String::from_utf8_lossy(&body)
            );
        }
        Ok(body)
    }

    fn ask(&mut self, path: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        write!(
            self.0.get_mut(),
            "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"
        )?;
        let status = self.line()?;
        let status = status
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .context("no status line")?;
        let mut length = 0;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().context("no length")?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, body))
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            bail!("the connection was closed");
        }
        Ok(line.trim_end().to_owned())
    }
}
