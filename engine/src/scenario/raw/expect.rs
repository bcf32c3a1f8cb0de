//! Expectations of a scenario as written, and their conversion.

use std::time::Duration;

use leeward_common::{
    config::{ConfigError, Span, Spanned},
    id::{RegionId, ServiceId},
};
use serde::Deserialize;

use super::Reader;
use crate::{
    scenario::{Event, Expectation, Expected},
    view::RegionState,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExpect {
    primary: Option<Spanned<RegionId>>,
    service: Option<Spanned<ServiceId>>,
    selected: Option<Spanned<RegionId>>,
    reason: Option<String>,
    moves: Option<usize>,
    region: Option<Spanned<RegionId>>,
    state: Option<RegionState>,
    by: Option<Spanned<Span>>,
    since: Option<Spanned<Span>>,
    until: Option<Spanned<Span>>,
}

impl Reader<'_> {
    pub(super) fn expectation(
        &self,
        written: &Spanned<RawExpect>,
        events: &[Event],
    ) -> Result<Expectation, ConfigError> {
        let raw = written.get_ref();
        let what = self.expected(raw, &written.span())?;
        let time = |time: &Option<Spanned<Span>>| time.as_ref().map(|at| self.time(at)).transpose();
        let (by, since, until) = (time(&raw.by)?, time(&raw.since)?, time(&raw.until)?);
        let wrong = |message: &str| Err(self.document.error(written.span(), message));
        let (since, by, until) = match (&what, since, by, until) {
            (Expected::Moves { .. }, Some(since), None, Some(until)) => (since, until, until),
            (Expected::Moves { .. }, ..) => {
                return wrong("moves are counted from since until until; write both, and no by");
            }
            (_, since, Some(by), until) => (
                since.unwrap_or_else(|| last_event(events, by)),
                by,
                until.unwrap_or(by),
            ),
            (_, _, None, _) => return wrong("write by when it must hold: by = \"20s\""),
        };
        if since > by || until < by {
            let span = raw.by.as_ref().map_or(written.span(), Spanned::span);
            let message = "since, by and until must follow each other";
            return Err(self.document.error(span, message));
        }
        Ok(Expectation {
            since,
            by,
            until,
            what,
        })
    }

    fn expected(
        &self,
        raw: &RawExpect,
        span: &std::ops::Range<usize>,
    ) -> Result<Expected, ConfigError> {
        let owner = self.owner(raw.primary.as_ref(), raw.service.as_ref(), span)?;
        match (owner, &raw.selected, raw.moves, &raw.region, raw.state) {
            (Some(owner), Some(selected), None, None, None) => Ok(Expected::Selected {
                owner,
                region: match selected.get_ref().as_str() {
                    "none" => None,
                    _ => Some(self.region(selected)?),
                },
                reason: raw.reason.clone(),
            }),
            (owner, None, Some(at_most), None, None) if raw.reason.is_none() => {
                Ok(Expected::Moves { owner, at_most })
            }
            (None, None, None, Some(region), Some(state)) if raw.reason.is_none() => {
                Ok(Expected::State {
                    region: self.region(region)?,
                    state,
                })
            }
            _ => {
                let message = "expect what is selected for a primary or a service, how many moves there are, \
                               or the state of a region";
                Err(self.document.error(span.clone(), message))
            }
        }
    }
}

/// When the last thing happened before `by`.
fn last_event(events: &[Event], by: Duration) -> Duration {
    let told = events.iter().rev().filter(|event| !event.quiet);
    told.map(|event| event.at)
        .find(|&at| at < by)
        .unwrap_or(Duration::ZERO)
}
