//! Version 1: one file per noun. A handler reads the request, picks from the view and answers; it decides nothing.

pub(super) mod agents;
pub(super) mod audit;
pub(super) mod backups;
pub(super) mod bandwidth;
pub(super) mod bgp;
pub(super) mod capacity;
pub(super) mod decisions;
mod define;
pub(super) mod failover;
pub(super) mod faults;
pub(super) mod history;
pub(super) mod network;
pub(super) mod noun;
pub(super) mod overrides;
pub(super) mod overview;
pub(super) mod placements;
pub(super) mod policies;
pub(super) mod readiness;
pub(super) mod replays;
pub(super) mod routes;
pub(super) mod services;
pub(super) mod signals;
pub(super) mod simulations;
pub(super) mod traces;
pub(super) mod watch;

use std::sync::Arc;

use leeward_common::{api::problem::Code, time::Timestamp};
use leeward_engine::view::View;

use super::{convert::Moment, error::Refused};
use crate::shared::Shared;

/// The newest view and the time at which it is read.
struct Now {
    view: Arc<View>,
    at: Timestamp,
}

impl Now {
    fn of(shared: &Shared) -> Self {
        Self {
            view: shared.view.load_full(),
            at: shared.clock.now(),
        }
    }

    fn moment(&self) -> Moment<'_> {
        Moment::new(&self.view, self.at)
    }
}

/// A query that cannot be read.
pub(super) fn malformed(error: &axum::extract::rejection::QueryRejection) -> Refused {
    Refused::new(
        Code::MalformedParameter,
        error.body_text(),
        "GET /openapi.json describes the parameters",
    )
}
