//! The aggregator's HTTP API, asked from inside its namespace and passed on to the outside.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use leeward_common::{api::v1, id::RegionId, report::ProbeKind, time::Timestamp};
use serde::de::DeserializeOwned;

use crate::net::Namespace;

/// Where the aggregator serves its API, in its namespace.
pub const API_PORT: u16 = 8611;

/// Where services are.
pub const SERVICES: &str = "/v1/services";
/// Where offers of capacity are.
pub const OFFERS: &str = "/v1/capacity/offers";
/// Where overrides are.
pub const OVERRIDES: &str = "/v1/overrides";
/// Where it is said by which prefixes regions are reached.
const REACHES: &str = "/v1/bgp/reach";
/// Where reservations are.
const RESERVATIONS: &str = "/v1/capacity/reservations";

const TIMEOUT: Duration = Duration::from_secs(5);

/// An answer larger than this is not one of ours.
const LARGEST_ANSWER: u64 = 64 << 20;

/// The API of the aggregator in one namespace.
#[derive(Clone, Debug)]
pub struct Api {
    namespace: Namespace,
    token: Arc<str>,
}

impl Api {
    /// The API in this namespace; writes carry the token.
    #[must_use]
    pub fn new(namespace: Namespace, token: &str) -> Self {
        Self {
            namespace,
            token: token.into(),
        }
    }

    /// Whether the aggregator is ready.
    #[must_use]
    pub fn ready(&self) -> bool {
        matches!(self.ask("GET", "/readyz", None), Ok((200, _)))
    }

    /// What is selected for a primary.
    ///
    /// # Errors
    ///
    /// Returns why there is no answer.
    pub fn failover(&self, primary: &str) -> anyhow::Result<v1::Failover> {
        self.get(&format!("/v1/failover/{primary}"))
    }

    /// At most `limit` of the newest decisions, newest first.
    ///
    /// # Errors
    ///
    /// Returns why there is no answer.
    pub fn decisions(&self, limit: u32) -> anyhow::Result<Vec<v1::Decision>> {
        let path = format!("/v1/decisions?limit={limit}");
        Ok(self.get::<v1::Decisions>(&path)?.decisions)
    }

    /// The agents.
    ///
    /// # Errors
    ///
    /// Returns why there is no answer.
    pub fn agents(&self) -> anyhow::Result<Vec<v1::Agent>> {
        Ok(self.get::<v1::Agents>("/v1/agents")?.agents)
    }

    /// The regions.
    ///
    /// # Errors
    ///
    /// Returns why there is no answer.
    pub fn regions(&self) -> anyhow::Result<Vec<v1::Region>> {
        Ok(self.get::<v1::Regions>("/v1/regions")?.regions)
    }

    /// The feeds that agents hear.
    ///
    /// # Errors
    ///
    /// Returns why there is no answer.
    pub fn bgp_peers(&self) -> anyhow::Result<Vec<v1::BgpPeer>> {
        Ok(self.get::<v1::BgpPeers>("/v1/bgp/peers")?.peers)
    }

    /// A link as it is now, with its last windows.
    ///
    /// # Errors
    ///
    /// Returns why there is no answer.
    pub fn link(&self, from: &RegionId, to: &RegionId) -> anyhow::Result<v1::Link> {
        self.get(&format!("/v1/links/{from}/{to}"))
    }

    /// What a link did from `start` to `end`, by one kind of probe, as one point.
    ///
    /// # Errors
    ///
    /// Returns why there is no answer.
    pub fn history(
        &self,
        [from, to]: [&RegionId; 2],
        kind: ProbeKind,
        [start, end]: [Timestamp; 2],
        quantiles: &[f64],
    ) -> anyhow::Result<v1::LinkHistory> {
        let step = one_point(start, end).as_secs();
        let quantiles: Vec<String> = quantiles.iter().map(f64::to_string).collect();
        let quantiles = quantiles.join(",");
        self.get(&format!(
            "/v1/links/{from}/{to}/history?kind={kind}&start={start}&end={end}&step={step}s&quantiles={quantiles}"
        ))
    }

    /// Injects a signal.
    ///
    /// # Errors
    ///
    /// Returns why it was refused.
    pub fn signal(&self, signal: &v1::NewSignal) -> anyhow::Result<()> {
        self.write("POST", "/v1/signals", Some(&serde_json::to_vec(signal)?))
    }

    /// Puts a service, an offer, a reservation or an override.
    ///
    /// # Errors
    ///
    /// Returns why it was refused.
    pub fn put(&self, defined: &v1::Defined) -> anyhow::Result<()> {
        let (nouns, body) = match defined {
            v1::Defined::Service(_, spec) => (SERVICES, serde_json::to_vec(spec)?),
            v1::Defined::Offer(_, spec) => (OFFERS, serde_json::to_vec(spec)?),
            v1::Defined::Reservation(_, spec) => (RESERVATIONS, serde_json::to_vec(spec)?),
            v1::Defined::Override(_, spec) => (OVERRIDES, serde_json::to_vec(spec)?),
            v1::Defined::Reach(_, spec) => (REACHES, serde_json::to_vec(spec)?),
        };
        self.write("PUT", &format!("{nouns}/{}", defined.id()), Some(&body))
    }

    /// Removes what is at this path.
    ///
    /// # Errors
    ///
    /// Returns why it was refused.
    pub fn remove(&self, nouns: &str, id: &str) -> anyhow::Result<()> {
        self.write("DELETE", &format!("{nouns}/{id}"), None)
    }

    fn write(&self, method: &str, path: &str, body: Option<&[u8]>) -> anyhow::Result<()> {
        match self.ask(method, path, Some(body.unwrap_or_default()))? {
            (200..300, _) => Ok(()),
            (status, body) => {
                let said = String::from_utf8_lossy(&body).into_owned();
                bail!("{method} {path} was refused with {status}: {said}")
            }
        }
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let (status, body) = self.ask("GET", path, None)?;
        if status != 200 {
            bail!(
                "GET {path} was answered with {status}: {}",
                String::from_utf8_lossy(&body)
            );
        }
        serde_json::from_slice(&body)
            .with_context(|| format!("GET {path} was answered with odd JSON"))
    }

    fn ask(&self, method: &str, path: &str, body: Option<&[u8]>) -> anyhow::Result<(u16, Vec<u8>)> {
        // A socket belongs to the namespace that it was made in, whoever uses it afterwards.
        let mut stream = self.namespace.run(connect)?;
        // HTTP/1.0: the answer ends where the connection does, and is never chunked.
        let mut request = format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\n");
        if let Some(body) = body {
            request += &format!(
                "Authorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
                self.token,
                body.len()
            );
        }
        stream.write_all((request + "\r\n").as_bytes())?;
        stream.write_all(body.unwrap_or_default())?;
        let mut answer = Vec::new();
        stream.take(LARGEST_ANSWER).read_to_end(&mut answer)?;
        split(&answer).with_context(|| format!("{method} {path} was not answered in HTTP"))
    }

    /// Passes connections to `listen`, outside, on to the API. Returns the address that it listens on.
    ///
    /// # Errors
    ///
    /// Returns why it cannot listen there.
    pub fn publish(&self, listen: SocketAddr) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind(listen).with_context(|| {
            format!("cannot listen on {listen}; choose another address with --api 127.0.0.1:PORT")
        })?;
        let address = listener.local_addr()?;
        let namespace = self.namespace.clone();
        // The listener stays outside; what this thread connects to is inside. It ends with the process.
        thread::Builder::new().name("api".into()).spawn(move || {
            if namespace.enter().is_ok() {
                listener
                    .incoming()
                    .flatten()
                    .for_each(|outside| pass_on(&outside));
            }
        })?;
        Ok(address)
    }
}

/// A step so long that its points, which begin at its multiples, hold the whole span in one; and no whole number of
/// minutes, so that the point is made from windows and not from sums of minutes, which come later.
fn one_point(start: Timestamp, end: Timestamp) -> Duration {
    let holds = |step: &Duration| start.floor(*step) + *step >= end;
    (end.since(start).as_secs() + 2..)
        .filter(|secs| !secs.is_multiple_of(60))
        .map(Duration::from_secs)
        .find(holds)
        .expect("some step is longer than the time since 1970")
}

fn connect() -> io::Result<TcpStream> {
    let address = (Ipv4Addr::LOCALHOST, API_PORT).into();
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Copies both ways until both sides have ended. The outer side is dropped when the aggregator does not answer.
fn pass_on(outside: &TcpStream) {
    let Ok(inside) = connect() else { return };
    let _ = inside.set_read_timeout(None);
    let _ = outside.set_nodelay(true);
    for (from, to) in [(outside, &inside), (&inside, outside)] {
        let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else {
            return;
        };
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    }
}

fn split(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer[end + 4..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_point_holds_any_span_and_is_no_whole_number_of_minutes() {
        for start in (0..7_300_000).step_by(7_301) {
            let start = Timestamp::from_unix_us(1_763_000_000_000_000 + start * 1_000);
            let end = start + Duration::from_millis(61_234);
            let step = one_point(start, end);
            assert!(start.floor(step) + step >= end && !step.as_secs().is_multiple_of(60));
        }
    }

    #[test]
    fn an_answer_is_split_into_status_and_body() {
        let answer = b"HTTP/1.0 404 Not Found\r\ncontent-type: x\r\n\r\n{}\r\n\r\n";
        assert_eq!(split(answer), Some((404, b"{}\r\n\r\n".to_vec())));
        for odd in [
            &b""[..],
            b"HTTP/1.0 200 OK\r\n",
            b"what\r\n\r\n",
            b"HTTP/1.0 x\r\n\r\n",
        ] {
            assert_eq!(split(odd), None);
        }
    }
}
