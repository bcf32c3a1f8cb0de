//! What a link did over a span of time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, header},
    response::Response,
};
use leeward_common::{
    api::{
        problem::{Code, Problem},
        v1::{HistoryPoint, LinkHistory, When},
    },
    config::Span,
    report::ProbeKind,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Now;
use crate::{
    history::{
        plan::{Plan, Unanswerable},
        read::{self, Failure, Found, Link},
    },
    http::{
        App, convert,
        error::Refused,
        lines::{Lines, stream},
    },
};

/// Quantiles of each point at most.
const MAX_QUANTILES: usize = 20;

/// Rows of a heat map at most.
const MAX_BUCKETS: u16 = 200;

/// Cells of a heat map at most.
const MAX_CELLS: u64 = 2_000_000;

/// An answer is written in pieces of about so many bytes.
const PIECE: usize = 64 << 10;

/// Which history.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Which {
    /// From when on: RFC 3339, or a span before now like `-6h`; an hour before the end if left out.
    start: Option<String>,
    /// Until when; now if left out.
    end: Option<String>,
    /// How long a point is, like `1s`, `1m`, `1h`; about 360 points if left out, or minutes if those would take too long to
    /// read. Points begin at multiples of it.
    #[param(value_type = Option<String>)]
    step: Option<Span>,
    /// `icmp`, `tcp_syn` or `stamp`: by this kind of probe alone; all together if left out.
    kind: Option<ProbeKind>,
    /// Which quantiles of the round-trip times, 0 to 1, separated by commas; `0.5,0.9,0.99` if left out.
    quantiles: Option<String>,
    /// A heat map of at most so many rows (200), besides.
    buckets: Option<u16>,
    /// `json` or `csv`; as `accept` says if left out.
    format: Option<Format>,
}

/// How a history is written.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// As one object.
    Json,
    /// A line for each point, under a line with names.
    Csv,
}

/// What a directed link did over a span of time: loss, counts, extremes, means, exact quantiles, and a heat map if asked for.
///
/// Points of whole hours are made from sums of hours, points of whole minutes from sums of minutes, others from the journal's
/// windows, each as far back as it is kept; `source` says from what. What has just arrived is in them. One answer
/// has at most 100,000 points and visits at most a million rows, so it takes a second or two.
#[utoipa::path(
    get, path = "/v1/links/{from}/{to}/history", tag = "network",
    params(
        ("from" = String, Path, description = "Whose agents measure"),
        ("to" = String, Path, description = "Whom they measure"),
        Which,
    ),
    responses(
        (status = 200, description = "The history", content((LinkHistory = "application/json"), (String = "text/csv"))),
        (status = 400, description = "The query cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such region; lists near names", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Too much at once, or no longer kept at this step; says what to ask for instead", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be read now", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn history(
    State(app): State<App>,
    Path((from, to)): Path<(String, String)>,
    which: Result<Query<Which>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(which) = which.map_err(|error| super::malformed(&error))?;
    let now = Now::of(&app.shared);
    let (from, to) = super::network::ends(&now.view.policy, &from, &to)?;
    let kind = which.kind;
    let link = Link { from, to, kind };
    let asked = which.sound(&app, &now)?;
    let format = which.format.unwrap_or_else(|| accepted(&headers));
    let (plan, found) = find(&app, link.clone(), asked.plan, asked.otherwise).await?;
    let mut head = convert::history(now.at, &link, &plan, &asked.quantiles);
    head.unreadable = found.unreadable;
    head.edges_us = asked
        .buckets
        .map(|rows| convert::edges(&found.points, rows));
    let (pieces, response) = stream(match format {
        Format::Json => "application/json",
        Format::Csv => "text/csv; charset=utf-8",
    });
    // A client that reads slowly holds nothing but this.
    tokio::task::spawn_blocking(move || {
        let points = found.points.iter().map(|(point, sum)| {
            let start = plan.begin(*point);
            convert::history_point(start, sum, &head.quantiles, head.edges_us.as_deref())
        });
        match format {
            Format::Json => json(&head, points, &pieces),
            Format::Csv => csv(&head, points, &pieces),
        }
    });
    Ok(response)
}

/// What is asked for, within its bounds.
struct Asked {
    plan: Plan,
    /// What will do as well if that takes too much: where nobody said how long a point is.
    otherwise: Option<Plan>,
    quantiles: Vec<f64>,
    buckets: Option<u16>,
}

impl Which {
    fn sound(&self, app: &App, now: &Now) -> Result<Asked, Refused> {
        let time = |name: &str, text: &Option<String>| {
            let read = text.as_deref().map(When::parse).transpose();
            read.map(|when| when.map(|when| when.at(now.at)))
                .map_err(|error| malformed(format!("{name}: {error}")))
        };
        let end = time("end", &self.end)?.unwrap_or(now.at);
        let start = time("start", &self.start)?.unwrap_or(end - Duration::from_secs(3600));
        let step = self.step.map(|step| step.0);
        let plan = Plan::new(now.at, &app.shared.retention, (start, end), step)?;
        let buckets = match self.buckets {
            Some(rows) if !(1..=MAX_BUCKETS).contains(&rows) => {
                return Err(malformed(format!(
                    "buckets is {rows}; use 1 to {MAX_BUCKETS}"
                )));
            }
            Some(rows) if plan.points() * u64::from(rows) > MAX_CELLS => {
                return Err(Refused::new(
                    Code::InvalidRequest,
                    format!(
                        "a heat map of {} points and {rows} rows has more than {MAX_CELLS} cells",
                        plan.points()
                    ),
                    "ask for fewer buckets, or a longer step",
                ));
            }
            buckets => buckets,
        };
        Ok(Asked {
            plan,
            otherwise: self.step.is_none().then(|| plan.by_minutes()).flatten(),
            quantiles: quantiles(self.quantiles.as_deref())?,
            buckets,
        })
    }
}

impl From<Unanswerable> for Refused {
    fn from(unanswerable: Unanswerable) -> Self {
        let Unanswerable { why, what_to_do } = unanswerable;
        Self::new(Code::InvalidRequest, why, what_to_do)
    }
}

fn malformed(detail: String) -> Refused {
    let what_to_do = "GET /openapi.json describes the parameters";
    Refused::new(Code::MalformedParameter, detail, what_to_do)
}

fn quantiles(text: Option<&str>) -> Result<Vec<f64>, Refused> {
    let text = text.unwrap_or("0.5,0.9,0.99");
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    let read = |part: &str| match part.trim().parse::<f64>() {
        Ok(q) if (0.0..=1.0).contains(&q) => Ok(q),
        _ => {
            let shown: String = part.chars().take(80).collect();
            Err(malformed(format!(
                "quantiles: {shown:?} is no share from 0 to 1"
            )))
        }
    };
    let quantiles = parts
        .take(MAX_QUANTILES + 1)
        .map(read)
        .collect::<Result<Vec<_>, _>>()?;
    match quantiles.len() {
        0..=MAX_QUANTILES => Ok(quantiles),
        _ => Err(malformed(format!("quantiles: more than {MAX_QUANTILES}"))),
    }
}

fn accepted(headers: &HeaderMap) -> Format {
    let accept = headers.get(header::ACCEPT);
    let accept = accept
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let mut types = accept
        .split(',')
        .map(|one| one.split(';').next().unwrap_or_default().trim());
    match types.find(|one| matches!(*one, "text/csv" | "application/json" | "*/*")) {
        Some("text/csv") => Format::Csv,
        _ => Format::Json,
    }
}

/// Reads on a thread that may block, and gives up when whoever asked has left.
async fn find(
    app: &App,
    link: Link,
    plan: Plan,
    otherwise: Option<Plan>,
) -> Result<(Plan, Found), Refused> {
    /// Tells the reading thread when it is dropped.
    struct Waiting(Arc<AtomicBool>);
    impl Drop for Waiting {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let left = Arc::new(AtomicBool::new(false));
    let _waiting = Waiting(Arc::clone(&left));
    let read = move |store: &dyn crate::store::Read| {
        let go_on = || !left.load(Ordering::Acquire);
        match read::read_or(store, &link, (plan, otherwise), read::LIMITS, &go_on) {
            Err(Failure::Store(error)) => Err(error),
            other => Ok(other),
        }
    };
    app.read_store(read).await?.map_err(|failure| {
        let what = match failure {
            Failure::TooMuch(what) => what,
            // Whoever asked has left and reads no answer; the store's errors are told already.
            Failure::GivenUp | Failure::Store(_) => "time",
        };
        Refused::new(
            Code::InvalidRequest,
            format!("this would take more {what} than one answer may"),
            "ask for a shorter span, or for a step of whole minutes or hours",
        )
    })
}

/// Writes the head with an empty list of points, and the points into the list.
fn json(head: &LinkHistory, points: impl Iterator<Item = HistoryPoint>, pieces: &Lines) {
    let mut piece = serde_json::to_vec(head).unwrap_or_default();
    // The list comes last: "points":[]}
    piece.truncate(piece.len().saturating_sub(2));
    for (at, point) in points.enumerate() {
        if at > 0 {
            piece.push(b',');
        }
        piece.extend(serde_json::to_vec(&point).unwrap_or_default());
        if piece.len() >= PIECE && !pieces.piece(std::mem::take(&mut piece)) {
            return;
        }
    }
    piece.extend_from_slice(b"]}");
    pieces.piece(piece);
}

fn csv(head: &LinkHistory, points: impl Iterator<Item = HistoryPoint>, pieces: &Lines) {
    let mut piece = String::from(
        "start,reports,scheduled,answered,late,unanswered,loss_ratio,min_us,mean_us,max_us",
    );
    for q in &head.quantiles {
        piece.push_str(&format!(",p{}_us", (q * 1e8).round() / 1e6));
    }
    for edge in head
        .edges_us
        .iter()
        .flat_map(|edges| edges.iter().rev().skip(1).rev())
    {
        piece.push_str(&format!(",from_{edge}_us"));
    }
    piece.push_str("\r\n");
    for point in points {
        csv_line(&mut piece, head.quantiles.len(), &point);
        if piece.len() >= PIECE && !pieces.piece(std::mem::take(&mut piece).into_bytes()) {
            return;
        }
    }
    pieces.piece(piece.into_bytes());
}

/// What is unknown is empty.
fn csv_line(out: &mut String, quantiles: usize, point: &HistoryPoint) {
    let HistoryPoint {
        start,
        reports,
        scheduled,
        answered,
        late,
        unanswered,
        loss_ratio,
        rtt,
        counts,
        directions: _,
    } = point;
    let loss = loss_ratio.map_or_else(String::new, |loss| loss.get().to_string());
    out.push_str(&format!(
        "{start},{reports},{scheduled},{answered},{late},{unanswered},{loss}"
    ));
    match rtt {
        Some(rtt) => {
            out.push_str(&format!(",{},{},{}", rtt.min_us, rtt.mean_us, rtt.max_us));
            for quantile in &rtt.quantiles_us {
                out.push_str(&format!(",{quantile}"));
            }
        }
        None => out.push_str(&",".repeat(3 + quantiles)),
    }
    for count in counts.iter().flatten() {
        out.push_str(&format!(",{count}"));
    }
    out.push_str("\r\n");
}
