//! Long polls: an answer that waits until it is another one.
//!
//! A client sends the ETag that it has and how long it is willing to wait. It is answered as soon as the answer has
//! another tag, or with 304 at the end. Since tags stand for content and not for figures, nobody is woken by a tick of
//! the graph. Nobody is missed either: between a client's last answer and its next question the tag tells.
//!
//! The end of a wait is spread a little, so that clients who began together do not come again together.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use axum::{
    extract::Query,
    http::{HeaderMap, HeaderName, HeaderValue, Uri},
    response::Response,
};
use leeward_common::{api::problem::Code, config::Span};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;

use super::{App, answer::Written, error::Refused, feed::Pulse, places::Client};
use crate::metrics::Stay;

/// The longest wait; who asks for more gets this. Proxies seldom keep a silent connection for longer.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A wait ends early by up to this share of it.
const JITTER: f64 = 1.0 / 16.0;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How long a client is willing to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait(Duration);

/// Marks the answer of a wait, whose duration says nothing about the aggregator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waited;

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MaybeWait {
    /// With If-None-Match: how long to wait for another answer, like `30s`; a minute at most. `Prefer: wait=30` does the
    /// same.
    #[param(value_type = Option<String>)]
    pub(super) wait: Option<Span>,
}

impl Wait {
    /// The wait of a request that has no other parameters.
    pub(super) fn only(uri: &Uri, headers: &HeaderMap) -> Result<Option<Self>, Refused> {
        if uri.query().is_none() {
            return Self::of(None, headers);
        }
        let Query(MaybeWait { wait }) =
            Query::try_from_uri(uri).map_err(|error| super::v1::malformed(&error))?;
        Self::of(wait, headers)
    }

    /// The wait that a parameter or `Prefer: wait=SECONDS` (RFC 7240, section 4.3) asks for. A preference that cannot be
    /// read is ignored, as section 2 wants it.
    pub(super) fn of(
        parameter: Option<Span>,
        headers: &HeaderMap,
    ) -> Result<Option<Self>, Refused> {
        let wait = match parameter {
            Some(Span(wait)) => Some(wait),
            None => headers.get_all(PREFER).iter().find_map(preference),
        };
        Ok(wait
            .filter(|wait| !wait.is_zero())
            .map(|wait| Self(wait.min(MAX_WAIT))))
    }

    /// The wait, ended early by a random part of [`JITTER`].
    fn spread(self) -> Duration {
        // Every state is seeded by the system's randomness, which is enough to spread with.
        let random = RandomState::new().build_hasher().finish() >> 11;
        let share = random as f64 / (1_u64 << 53) as f64;
        self.0.mul_f64(1.0 - JITTER * share)
    }
}

fn preference(header: &HeaderValue) -> Option<Duration> {
    let preferences = header.to_str().ok()?.split([',', ';']);
    preferences
        .filter_map(|preference| preference.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .and_then(|(_, seconds)| seconds.trim().trim_matches('"').parse().ok())
        .map(Duration::from_secs)
}

impl App {
    /// The answer that `current` gives, once it differs from the one that the client has.
    pub(super) async fn answer<F, A>(
        &self,
        headers: &HeaderMap,
        client: Client,
        wait: Option<Wait>,
        current: F,
    ) -> Result<Response, Refused>
    where
        F: Fn(&Self) -> A,
        A: Future<Output = Result<Written, Refused>>,
    {
        let Some(wait) = wait else {
            return Ok(current(self).await?.response(headers));
        };
        // Whatever changes from here on is noticed.
        let mut pulse = self.feed.pulse();
        let written = current(self).await?;
        let mut response = if written.is_known(headers) {
            let _place = self.places.take(Stay::Wait, client)?;
            self.changed(headers, &mut pulse, wait, &current).await?
        } else {
            written
        }
        .response(headers);
        let applied = HeaderValue::try_from(format!("wait={}", wait.0.as_secs()))
            .expect("letters and digits are a header value");
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
        response.extensions_mut().insert(Waited);
        Ok(response)
    }

    /// Waits until the answer is another one than the client's, the time is over or the end is near.
    async fn changed<F, A>(
        &self,
        headers: &HeaderMap,
        pulse: &mut Pulse,
        wait: Wait,
        current: &F,
    ) -> Result<Written, Refused>
    where
        F: Fn(&Self) -> A,
        A: Future<Output = Result<Written, Refused>>,
    {
        let end = Instant::now() + wait.spread();
        // There is something to compare with from now on, if there was not before.
        self.join();
        while let Ok(Some(())) = timeout_at(end, pulse.beat()).await {
            let written = current(self).await?;
            if !written.is_known(headers) {
                return Ok(written);
            }
        }
        current(self).await
    }
}

/// A query that nobody can wait with.
pub(super) fn no_wait_here(detail: &str) -> Refused {
    Refused::new(
        Code::InvalidRequest,
        detail,
        "leave `wait` out, or wait for the newest page",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefer(value: &'static str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(PREFER, HeaderValue::from_static(value));
        Wait::of(None, &headers).unwrap().map(|wait| wait.0)
    }

    #[test]
    fn a_preference_is_read_as_rfc_7240_writes_it() {
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(prefer("wait=10"), seconds(10));
        assert_eq!(prefer("respond-async, Wait=\"5\""), seconds(5));
        assert_eq!(prefer("wait=99999"), seconds(60));
        for ignored in ["wait", "wait=soon", "wait=-1", "wait=0", "return=minimal"] {
            assert_eq!(prefer(ignored), None, "{ignored}");
        }
    }

    #[test]
    fn a_wait_ends_early_and_never_late() {
        let asked = Duration::from_secs(32);
        for _ in 0..100 {
            let spread = Wait(asked).spread();
            assert!(
                spread <= asked && spread >= Duration::from_secs(30),
                "{spread:?}"
            );
        }
    }
}
