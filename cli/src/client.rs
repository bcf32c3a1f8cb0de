//! Questions to the aggregator: one blocking request, one answer of the API's types, or a failure that says what to do.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    time::Duration,
};

use anyhow::Context;
use leeward_common::api::problem::{Code, Problem};
use serde::{Serialize, de::DeserializeOwned};
use ureq::{
    Agent, Body,
    http::{Response, StatusCode},
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

use crate::{
    args::Global,
    exit::{Exit, Failure},
};

/// The largest answer that is read: a graph of 200 regions is 30 MB.
const MAX_ANSWER: u64 = 64 << 20;

/// A way to one aggregator.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    server: String,
    token: Option<String>,
    timeout: Duration,
}

impl Client {
    /// As the options ask for.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the options: no URL, an unreadable token or certificate.
    pub fn new(global: &Global) -> Result<Self, Failure> {
        let server = global.server.trim_end_matches('/').to_owned();
        if !server.starts_with("http://") && !server.starts_with("https://") {
            return Err(
                Failure::new(Exit::Usage, format!("{server:?} is not a URL"))
                    .step("write it like http://127.0.0.1:8611 or https://agg.example.net:8611"),
            );
        }
        let mut tls = TlsConfig::builder();
        if let Some(path) = &global.ca {
            let pem = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let mut roots: Vec<Certificate<'static>> = Vec::new();
            for item in parse_pem(&pem) {
                if let PemItem::Certificate(certificate) =
                    item.with_context(|| format!("{} is not PEM", path.display()))?
                {
                    roots.push(certificate);
                }
            }
            if roots.is_empty() {
                return Err(Failure::new(
                    Exit::Failed,
                    format!("{} holds no certificate", path.display()),
                ));
            }
            tls = tls.root_certs(RootCerts::new_with_certs(&roots));
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(global.timeout.0))
            .user_agent(concat!("leeward/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build())
            .proxy(None)
            .max_redirects(0)
            .build()
            .new_agent();
        Ok(Self {
            agent,
            server,
            token: token(global)?,
            timeout: global.timeout.0,
        })
    }

    /// The same with so much time for an answer, unless it may take even longer.
    #[must_use]
    pub fn patient(mut self, timeout: Duration) -> Self {
        self.timeout = self.timeout.max(timeout);
        self
    }

    /// Asks for something.
    ///
    /// # Errors
    ///
    /// Returns why there is no answer.
    pub fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let mut request = self
            .agent
            .get(format!("{}{path}", self.server))
            .header("accept", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.answer(path, request.call())
    }

    /// Sends something.
    ///
    /// # Errors
    ///
    /// Returns why there is no answer.
    pub fn send<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        idempotency_key: Option<&str>,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).context("cannot write the request")?;
        let mut request = self
            .agent
            .post(format!("{}{path}", self.server))
            .config()
            .timeout_global(Some(self.timeout))
            .build()
            .header("accept", "application/json")
            .header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        self.answer(path, request.send(&body[..]))
    }

    /// Puts something under its path, if it is still the version that `if_version` says.
    ///
    /// # Errors
    ///
    /// Returns why it is not there.
    pub fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        if_version: Option<u64>,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).context("cannot write the request")?;
        let mut request = self
            .agent
            .put(format!("{}{path}", self.server))
            .header("accept", "application/json")
            .header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(version) = if_version {
            request = request.header("if-match", format!("\"{version}\""));
        }
        self.answer(path, request.send(&body[..]))
    }

    /// Removes what is under a path, if it is still the version that `if_version` says.
    ///
    /// # Errors
    ///
    /// Returns why it is still there.
    pub fn delete<T: DeserializeOwned>(
        &self,
        path: &str,
        why: &str,
        if_version: Option<u64>,
    ) -> Result<T, Failure> {
        let query = match why {
            "" => String::new(),
            why => format!("?why={}", escaped(why)),
        };
        let mut request = self
            .agent
            .delete(format!("{}{path}{query}", self.server))
            .header("accept", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(version) = if_version {
            request = request.header("if-match", format!("\"{version}\""));
        }
        self.answer(path, request.call())
    }

    /// Sends something whose answer comes line by line, for as long as it takes; each line must come within the time that
    /// an answer may take.
    ///
    /// # Errors
    ///
    /// Returns why there is no answer, or what `each` returned.
    pub fn lines<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        mut each: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let body = serde_json::to_vec(body).context("cannot write the request")?;
        let mut request = self
            .agent
            .post(format!("{}{path}", self.server))
            .config()
            .timeout_global(None)
            .timeout_connect(Some(self.timeout))
            .timeout_recv_response(Some(self.timeout))
            .build()
            .header("accept", "application/x-ndjson")
            .header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = request
            .send(&body[..])
            .map_err(|error| self.unreachable(&error))?;
        if !response.status().is_success() {
            return self.answer::<T>(path, Ok(response)).map(|_| ());
        }
        let mut reader = BufReader::new(response.into_body().into_reader());
        let mut line = Vec::new();
        loop {
            line.clear();
            (&mut reader)
                .take(MAX_ANSWER)
                .read_until(b'\n', &mut line)
                .with_context(|| format!("the answer of {} broke off", self.server))?;
            if line.is_empty() {
                return Ok(());
            }
            each(serde_json::from_slice(&line).map_err(|error| {
                let what = format!(
                    "{}{path} answered something else than expected",
                    self.server
                );
                Failure::new(Exit::Failed, format!("{what}: {error}"))
            })?)?;
        }
    }

    /// Follows a stream of events, from after `last` on if that is known.
    ///
    /// # Errors
    ///
    /// Returns why there is no stream.
    pub fn follow(
        &self,
        path: &str,
        last: Option<&str>,
        silence: Duration,
    ) -> Result<impl Read + use<>, Failure> {
        let mut request = self
            .agent
            .get(format!("{}{path}", self.server))
            .config()
            // The stream has no end; a server that says nothing for too long is gone.
            .timeout_global(None)
            .timeout_connect(Some(self.timeout))
            .timeout_recv_response(Some(self.timeout))
            .timeout_per_read(Some(silence))
            .build()
            .header("accept", "text/event-stream");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.call().map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if !status.is_success() {
            let mut bytes = Vec::new();
            let mut reader = response.into_body().into_reader().take(MAX_ANSWER);
            reader
                .read_to_end(&mut bytes)
                .with_context(|| format!("the answer of {} broke off", self.server))?;
            return Err(self.refused(path, status, &bytes));
        }
        Ok(response.into_body().into_reader())
    }

    fn answer<T: DeserializeOwned>(
        &self,
        path: &str,
        response: Result<Response<Body>, ureq::Error>,
    ) -> Result<T, Failure> {
        let response = response.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        let mut reader = response.into_body().into_reader().take(MAX_ANSWER + 1);
        reader
            .read_to_end(&mut bytes)
            .with_context(|| format!("the answer of {} broke off", self.server))?;
        if bytes.len() as u64 > MAX_ANSWER {
            return Err(Failure::new(
                Exit::Failed,
                format!("the answer of {}{path} is too large", self.server),
            ));
        }
        if !status.is_success() {
            return Err(self.refused(path, status, &bytes));
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            Failure::new(Exit::Failed, format!("{}{path} answered something else than expected: {error}", self.server))
                .step("is this an aggregator's API, and of this version? leeward --version, curl …/openapi.json")
        })
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        match error {
            ureq::Error::Timeout(_) => Failure::new(
                Exit::TimedOut,
                format!("{} did not answer within {}", self.server, humantime::format_duration(self.timeout)),
            )
            .step("--timeout 30s waits longer"),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                Failure::new(Exit::Usage, format!("{:?} is not a URL: {error}", self.server))
                    .step("write it like http://127.0.0.1:8611")
            }
            error => Failure::new(Exit::Failed, format!("cannot reach the aggregator at {}: {error}", self.server))
                .step("is it running there? systemctl status leeward-aggregator")
                .step("--server URL or LEEWARD_SERVER names another one; --ca FILE trusts its certificate"),
        }
    }

    fn refused(&self, path: &str, status: StatusCode, bytes: &[u8]) -> Failure {
        let Ok(problem) = serde_json::from_slice::<Problem>(bytes) else {
            return Failure::new(
                Exit::Failed,
                format!("{}{path} answered {status}", self.server),
            )
            .step("is this an aggregator's API? --server names another one");
        };
        let mut failure = Failure::new(exit(problem.code), &problem.detail);
        if !problem.near.is_empty() {
            failure = failure.step(format!("did you mean {}?", problem.near.join(" or ")));
        }
        if !problem.what_to_do.is_empty() {
            failure = failure.step(problem.what_to_do);
        }
        failure
    }
}

/// A text as it stands in a query (RFC 3986, section 2.1).
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

const fn exit(code: Code) -> Exit {
    match code {
        Code::Unauthenticated | Code::Forbidden => Exit::NotAuthorised,
        Code::UnknownRegion
        | Code::UnknownAgent
        | Code::UnknownService
        | Code::UnknownOffer
        | Code::UnknownReservation
        | Code::UnknownOverride
        | Code::UnknownReach
        | Code::UnknownPolicy
        | Code::UnknownSource
        | Code::UnknownDecision
        | Code::NoFailover => Exit::NotFound,
        Code::PreconditionFailed => Exit::Precondition,
        Code::Unavailable | Code::TooManyWaiting => Exit::NotEnoughKnown,
        Code::MalformedParameter | Code::InvalidRequest => Exit::Usage,
        Code::NoSuchRoute
        | Code::MethodNotAllowed
        | Code::MalformedBody
        | Code::BodyTooLarge
        | Code::UnsupportedMediaType
        | Code::Internal => Exit::Failed,
    }
}

fn token(global: &Global) -> Result<Option<String>, Failure> {
    let text = match &global.token_file {
        Some(path) => {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        None => std::env::var("LEEWARD_TOKEN").unwrap_or_default(),
    };
    let token = text.trim();
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(
            Failure::new(Exit::Usage, "the token holds characters that no token has")
                .step("is it the right file? `leeward token new` makes tokens"),
        );
    }
    Ok((!token.is_empty()).then(|| token.to_owned()))
}
