//! One question: resolve, look whether that may be asked, connect, and read as much of the answer as is asked for.
//!
//! Everything together has one deadline; each step says what it did not finish in time.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use http_body_util::BodyExt as _;
use hyper::{Request, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use leeward_common::{
    check::{CheckUrl, Outcome, Scheme},
    wire::v1,
};
use rustls::{RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::Allowed;
use crate::{admission, credentials};

/// Addresses of one name that are tried.
const ADDRESSES_TRIED: usize = 4;

/// How much of a page is looked through.
const BODY_BYTES: usize = 64 << 10;

/// How much room the head of an answer has.
const HEAD_BYTES: usize = 64 << 10;

/// The longest time for an answer, whatever is asked for.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// What came of a question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) detail: String,
}

impl Answer {
    fn new(outcome: Outcome, detail: impl Into<String>) -> Self {
        Self {
            outcome,
            detail: detail.into(),
        }
    }
}

/// Asks.
pub(super) struct Asker {
    tls: TlsConnector,
}

impl Asker {
    /// One that believes the public authorities, and those in the file.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the file.
    pub(super) fn new(ca: Option<&Path>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        if let Some(file) = ca {
            let own = credentials::read_roots(file)
                .context("cannot use the authorities of [checks] ca")?;
            roots.extend(own.roots.iter().cloned());
        }
        let mut tls =
            rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .context("TLS has no usual versions")?
                .with_root_certificates(roots)
                .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A resumed session would not show its certificate again, and an expired one would pass.
        tls.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            tls: TlsConnector::from(Arc::new(tls)),
        })
    }

    /// Asks once.
    pub(super) async fn ask(&self, allowed: &Allowed, check: &v1::Check) -> Answer {
        match self.attempt(allowed, check).await {
            Ok(()) => Answer::new(Outcome::Ok, ""),
            Err(answer) => answer,
        }
    }

    async fn attempt(&self, allowed: &Allowed, check: &v1::Check) -> Result<(), Answer> {
        let url = CheckUrl::parse(&check.url).map_err(|_| {
            let detail = format!("{} is nothing that this build can ask", check.url);
            Answer::new(Outcome::NotAllowed, detail)
        })?;
        let limit = Duration::from_micros(check.timeout_us).min(TIMEOUT_MAX);
        let deadline = Instant::now() + limit;
        let addresses = addresses(&url, allowed, deadline).await?;
        let stream = connect(&addresses, deadline).await?;
        let want = Want {
            url: &url,
            check,
            deadline,
        };
        match url.scheme() {
            Scheme::Tcp => Ok(()),
            Scheme::Http => want.page(stream).await,
            Scheme::Https => want.page(self.secure(&url, stream, deadline).await?).await,
        }
    }

    async fn secure(
        &self,
        url: &CheckUrl,
        stream: TcpStream,
        deadline: Instant,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, Answer> {
        let name = ServerName::try_from(url.host().to_owned())
            .map_err(|_| Answer::new(Outcome::Tls, "no certificate can bear its name"))?;
        let secured = within(deadline, "TLS", self.tls.connect(name, stream)).await?;
        secured.map_err(|error| Answer::new(Outcome::Tls, error.to_string()))
    }
}

/// The addresses that may be asked; what forbids it if there is none.
async fn addresses(
    url: &CheckUrl,
    allowed: &Allowed,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, Answer> {
    let found: Vec<SocketAddr> = match url.host().parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, url.port())],
        Err(_) => {
            let lookup = tokio::net::lookup_host((url.host(), url.port()));
            let unknown = |why: &str| Answer::new(Outcome::Dns, format!("its name {why}"));
            match timeout_at(deadline, lookup).await {
                Err(_) => return Err(unknown("was not resolved in time")),
                Ok(Err(_)) => return Err(unknown("is not resolved")),
                Ok(Ok(found)) => found.collect(),
            }
        }
    };
    let refusal =
        |address: &SocketAddr| admission::refusal(&allowed.networks, allowed.key, address.ip());
    let may: Vec<_> = found
        .iter()
        .filter(|address| refusal(address).is_none())
        .take(ADDRESSES_TRIED)
        .copied()
        .collect();
    match (may.is_empty(), found.first()) {
        (false, _) => Ok(may),
        (true, Some(first)) => {
            let why = refusal(first).unwrap_or_default();
            Err(Answer::new(Outcome::NotAllowed, why))
        }
        (true, None) => Err(Answer::new(Outcome::Dns, "its name has no address")),
    }
}

/// The first address that takes a connection; each gets an equal part of the time that is left.
async fn connect(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Answer> {
    let mut failure = Answer::new(Outcome::Timeout, "no connection in time");
    for (n, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let part = left / u32::try_from(addresses.len() - n).unwrap_or(u32::MAX);
        failure = match timeout(part, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Answer::new(Outcome::Refused, "connection refused")
            }
            Ok(Err(error)) => Answer::new(Outcome::Network, error.kind().to_string()),
            Err(_) => Answer::new(Outcome::Timeout, "no connection in time"),
        };
    }
    Err(failure)
}

async fn within<T>(
    deadline: Instant,
    what: &str,
    step: impl Future<Output = T>,
) -> Result<T, Answer> {
    let late = |_| Answer::new(Outcome::Timeout, format!("no {what} in time"));
    timeout_at(deadline, step).await.map_err(late)
}

/// A page that is asked for.
struct Want<'a> {
    url: &'a CheckUrl,
    check: &'a v1::Check,
    deadline: Instant,
}

impl Want<'_> {
    async fn page<S>(&self, stream: S) -> Result<(), Answer>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let odd = |error: &hyper::Error| {
            Answer::new(Outcome::Network, format!("no HTTP answer: {error}"))
        };
        let request = Request::get(self.url.path())
            .header(header::HOST, self.url.authority())
            .header(
                header::USER_AGENT,
                concat!("leeward-agent/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::ACCEPT, "*/*")
            .header(header::CONNECTION, "close")
            .body(String::new())
            .map_err(|error| Answer::new(Outcome::NotAllowed, error.to_string()))?;
        let handshake = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .handshake(TokioIo::new(stream));
        let (mut sender, connection) = within(self.deadline, "HTTP", handshake)
            .await?
            .map_err(|error| odd(&error))?;
        // Dropping the set ends the connection.
        let mut driving = JoinSet::new();
        driving.spawn(connection);
        let response = within(self.deadline, "answer", sender.send_request(request))
            .await?
            .map_err(|error| odd(&error))?;
        let (status, [first, last]) = (response.status().as_u16(), self.check.status);
        if !(first..=last).contains(&status) {
            return Err(Answer::new(Outcome::Status, format!("status {status}")));
        }
        match &self.check.body {
            Some(text) => self.holds(text.as_bytes(), response.into_body()).await,
            None => Ok(()),
        }
    }

    /// Reads until the text is found.
    async fn holds(&self, text: &[u8], mut body: Incoming) -> Result<(), Answer> {
        let mut read: Vec<u8> = Vec::new();
        while read.len() < BODY_BYTES {
            let Some(frame) = within(self.deadline, "whole page", body.frame()).await? else {
                break;
            };
            let broke = |error: hyper::Error| {
                Answer::new(Outcome::Network, format!("the page broke off: {error}"))
            };
            let Ok(data) = frame.map_err(broke)?.into_data() else {
                continue;
            };
            let seen = read.len().saturating_sub(text.len());
            let room = BODY_BYTES - read.len();
            read.extend_from_slice(&data[..data.len().min(room)]);
            if find(&read[seen..], text) {
                return Ok(());
            }
        }
        Err(Answer::new(
            Outcome::Body,
            "the page does not hold its text",
        ))
    }
}

fn find(read: &[u8], text: &[u8]) -> bool {
    text.is_empty() || read.windows(text.len()).any(|own| own == text)
}
