//! The audit log.

use std::sync::Arc;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use leeward_common::{
    api::{
        problem::{Code, Problem},
        v1::{Audit, AuditEntry},
    },
    audit::{START, hex},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    http::{answer::answer, error::Refused},
    shared::Shared,
    store::{self, StoreError},
};

/// Entries on one page at most.
const MAX_LIMIT: usize = 1_000;

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Which {
    /// Oldest first, those with a larger sequence; 0 for all. Newest first without it.
    after: Option<u64>,
    /// Newest first, those with a smaller sequence.
    before: Option<u64>,
    /// At most so many; 50 if left out, 1000 at most.
    limit: Option<usize>,
    /// `json`, or `jsonl`: one entry on each line and nothing else.
    #[serde(default)]
    format: Format,
}

/// How a page is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// As one object.
    #[default]
    Json,
    /// One entry on each line.
    Jsonl,
}

/// Who did what and why. Each entry holds the hash of the one before; `leeward audit verify` checks them.
#[utoipa::path(
    get, path = "/v1/audit", tag = "service", params(Which),
    responses(
        (status = 200, description = "A page", body = Audit),
        (status = 400, description = "The query cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The log cannot be read now", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn audit(
    State(shared): State<Shared>,
    which: Result<Query<Which>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(which) = which.map_err(|error| super::malformed(&error))?;
    if which.after.is_some() && which.before.is_some() {
        return Err(Refused::new(
            Code::MalformedParameter,
            "after and before are both there",
            "use `after` to read from the beginning, `before` to read from the end",
        ));
    }
    let format = which.format;
    let store = Arc::clone(&shared.store);
    let page = tokio::task::spawn_blocking(move || page(&*store, &which)).await;
    let page = match page {
        Ok(Ok(page)) => page,
        Ok(Err(error)) => return Err(unreadable(&error.to_string())),
        Err(error) => return Err(unreadable(&error.to_string())),
    };
    match format {
        Format::Json => answer(&headers, &page),
        Format::Jsonl => Ok(lines(&page.entries)),
    }
}

fn page(store: &dyn store::Read, which: &Which) -> Result<Audit, StoreError> {
    let limit = which.limit.unwrap_or(50).clamp(1, MAX_LIMIT);
    let newest = store::audit_end(store)?;
    let (length, head) = newest.map_or((0, hex(&START)), |newest| (newest.sequence, newest.hash));
    let (entries, next) = match which.after {
        Some(after) => {
            let entries = store::audit_entries(store, after, limit)?;
            let last = entries.last().map(|entry| entry.sequence);
            (entries, last.filter(|&last| last < length))
        }
        None => {
            let before = which.before.unwrap_or(u64::MAX);
            let entries = store::audit_entries_back(store, before, limit)?;
            let last = entries.last().map(|entry| entry.sequence);
            (entries, last.filter(|&last| last > 1))
        }
    };
    Ok(Audit {
        entries,
        length,
        head,
        next,
    })
}

fn lines(entries: &[AuditEntry]) -> Response {
    let mut body = Vec::new();
    for entry in entries {
        if let Ok(line) = serde_json::to_vec(entry) {
            body.extend_from_slice(&line);
            body.push(b'\n');
        }
    }
    let media_type = HeaderValue::from_static("application/jsonl");
    ([(header::CONTENT_TYPE, media_type)], body).into_response()
}

fn unreadable(why: &str) -> Refused {
    Refused::new(
        Code::Unavailable,
        format!("the audit log cannot be read: {why}"),
        "try again; if it stays, look at the aggregator's log",
    )
}
