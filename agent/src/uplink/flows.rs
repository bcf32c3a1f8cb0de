//! What the flows of each path did in the last span, for who asks on this host. Pure.

use std::{fmt::Write as _, sync::Arc};

use crate::{
    prober::PlannedPath,
    window::flows::{FlowAccount, FlowSpan, differ},
};

/// The accounts of a span, and whose they are.
#[derive(Clone, Debug)]
pub struct FlowTable {
    paths: Arc<[PlannedPath]>,
    span: FlowSpan,
}

impl FlowTable {
    /// The accounts of the paths of a plan.
    #[must_use]
    pub const fn new(paths: Arc<[PlannedPath]>, span: FlowSpan) -> Self {
        Self { paths, span }
    }

    /// The accounts.
    #[must_use]
    pub const fn span(&self) -> &FlowSpan {
        &self.span
    }

    /// Every path with its flows.
    pub fn rows(&self) -> impl Iterator<Item = (&PlannedPath, &[FlowAccount])> {
        self.paths.iter().zip(self.span.rows())
    }

    /// The paths whose flows are unlike ([`differ`]).
    pub fn unlike(&self) -> impl Iterator<Item = (&PlannedPath, &[FlowAccount])> {
        self.rows().filter(|(_, flows)| differ(flows))
    }

    /// As a page for people: a line for each flow.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "from {} until {}\ntarget kind address flow ended lost late pairs_lost rtt_min_us rtt_mean_us\n",
            self.span.from, self.span.until
        );
        for (path, flows) in self.rows() {
            let used = flows.iter().zip(1..).filter(|(flow, _)| flow.ended > 0);
            for (flow, number) in used {
                let (min, mean) = match flow.rtt_mean_us() {
                    Some(mean) => (flow.rtt_min_us.to_string(), mean.to_string()),
                    None => ("-".to_owned(), "-".to_owned()),
                };
                let _ = writeln!(
                    text,
                    "{} {} {} {number}/{} {} {} {} {} {min} {mean}",
                    path.path.target,
                    path.path.kind,
                    path.address,
                    flows.len(),
                    flow.ended,
                    flow.lost,
                    flow.late,
                    flow.lost_pairs,
                );
            }
        }
        text
    }
}
