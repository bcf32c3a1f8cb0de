//! What the flows of each path did in the last span: for who asks on this host, and, of paths whose flows are unlike, for the
//! aggregators. Pure.

use std::{fmt::Write as _, sync::Arc};

use leeward_common::finding::{Finding, Flows, flows::Flow};

use crate::{
    prober::PlannedPath,
    window::flows::{FlowAccount, FlowSpan, differ},
};

/// Paths that the aggregators are told of after a span; of more than that those that lost most. All are on the page.
const TOLD_MAX: usize = 64;

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

    /// What to tell of paths whose flows are unlike.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let lost =
            |flows: &[FlowAccount]| flows.iter().map(|flow| u32::from(flow.lost)).sum::<u32>();
        let mut unlike: Vec<_> = self.unlike().collect();
        unlike.sort_by_key(|(_, flows)| std::cmp::Reverse(lost(flows)));
        unlike.truncate(TOLD_MAX);
        unlike
            .into_iter()
            .map(|(path, flows)| self.finding(path, flows))
            .collect()
    }

    fn finding(&self, path: &PlannedPath, flows: &[FlowAccount]) -> Finding {
        let flow = |own: &FlowAccount| Flow {
            ended: own.ended.into(),
            lost: own.lost.into(),
            late: own.late.into(),
            lost_pairs: own.lost_pairs.into(),
            rtt_min_us: (own.timed > 0).then_some(own.rtt_min_us),
            rtt_mean_us: own.rtt_mean_us().and_then(|mean| u32::try_from(mean).ok()),
        };
        Finding::Flows(Box::new(Flows {
            target: path.path.target.clone(),
            region: path.path.region.clone(),
            kind: path.path.kind,
            address: path.address,
            from: self.span.from,
            until: self.span.until,
            flows: flows.iter().map(flow).collect(),
        }))
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

#[cfg(test)]
mod tests {
    use leeward_common::report::{Path, ProbeKind};

    use super::*;
    use crate::window::flows::sample;

    fn planned(number: usize) -> PlannedPath {
        PlannedPath {
            path: Path {
                target: format!("t-{number}").parse().unwrap(),
                kind: ProbeKind::Stamp,
                region: None,
            },
            address: "192.0.2.1".parse().unwrap(),
            port: 862,
        }
    }

    #[test]
    fn of_paths_whose_flows_are_unlike_those_that_lost_most_are_told() {
        // Every second path lost a probe more than the one before, on its second flow; the others lost on neither.
        let lost = |path: usize| [0, if path % 2 == 1 { path as u16 } else { 0 }];
        let paths = 4 * TOLD_MAX;
        let span = sample(2, (0..paths).flat_map(lost));
        let table = FlowTable::new((0..paths).map(planned).collect(), span);
        assert_eq!(table.unlike().count(), 2 * TOLD_MAX);
        let told = table.findings();
        assert_eq!(told.len(), TOLD_MAX);
        let Finding::Flows(first) = &told[0] else {
            panic!("{told:?}")
        };
        assert_eq!(first.target.as_str(), format!("t-{}", paths - 1));
        assert_eq!(
            first.flows.iter().map(|flow| flow.lost).collect::<Vec<_>>(),
            [0, paths as u32 - 1]
        );
        let text = table.text();
        assert!(
            text.contains("\nt-3 stamp 192.0.2.1 2/2 1000 3 0 0 500 500\n"),
            "{text}"
        );
    }
}
