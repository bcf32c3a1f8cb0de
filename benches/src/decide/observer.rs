//! An observer for the engine: turns what was seen into the reports that an agent would send.

use std::time::Duration;

use leeward_common::{
    histogram::Schema,
    id::{AgentId, RegionId, TargetId},
    report::{Class, Counts, Path, ProbeKind, Report, Rtt, Window},
    time::Timestamp,
};
use leeward_engine::input::{AgentConnected, Input, Reports};

/// An agent of its own region and the regions that it probes, one target in each.
#[derive(Debug)]
pub struct Observer {
    reports: Reports,
    schema: Schema,
}

impl Observer {
    /// The observer of this name in `region`.
    ///
    /// # Panics
    ///
    /// Panics if `name` is no id.
    #[must_use]
    pub fn new(name: &str, region: &RegionId, probed: &[RegionId], length: Duration) -> Self {
        let path = |region: &RegionId| {
            let target = TargetId::parse(region.as_str()).expect("a region's id is a target's id");
            let path = Path {
                target,
                kind: ProbeKind::Icmp,
                region: Some(region.clone()),
            };
            (path, seen(Schema::default(), 0, &[]))
        };
        let (table, rows) = Reports::table_of(probed.iter().map(path));
        Self {
            reports: Reports {
                agent: AgentId::parse(name).expect("an observer's name is an id"),
                region: region.clone(),
                window: Window {
                    start: Timestamp::EPOCH,
                    length,
                },
                until: Timestamp::EPOCH + length,
                health: None,
                table,
                rows,
            },
            schema: Schema::default(),
        }
    }

    /// With histograms of this schema.
    #[must_use]
    pub fn with_schema(self, schema: Schema) -> Self {
        Self { schema, ..self }
    }

    /// What says that it is there.
    #[must_use]
    pub fn connected(&self) -> Input {
        Input::AgentConnected(AgentConnected {
            agent: self.reports.agent.clone(),
            region: self.reports.region.clone(),
            boot_epoch: 1,
            addresses: Vec::new(),
            build: String::new(),
        })
    }

    /// Its reports of the window that begins at `start`; `windows` are those of the regions in their order, each the
    /// probes sent and the round-trip times of those that were answered, in microseconds.
    pub fn report<'a>(
        &mut self,
        start: Timestamp,
        windows: impl Iterator<Item = (u32, &'a [u32])>,
    ) -> Input {
        self.reports.window.start = start;
        self.reports.until = self.reports.window.end();
        for ((_, report), (sent, rtt_us)) in self.reports.rows.iter_mut().zip(windows) {
            *report = seen(self.schema, sent, rtt_us);
        }
        Input::Reports(self.reports.clone())
    }
}

/// What became of these probes. Those without an answer are overdue and lost in the same window, which an agent would
/// learn in two; the engine looks at what is overdue.
fn seen(schema: Schema, sent: u32, rtt_us: &[u32]) -> Report {
    let mut report = Report {
        counts: Counts {
            scheduled: sent,
            ..Counts::default()
        },
        rtt: Rtt::empty(schema),
    };
    for &rtt_us in rtt_us {
        report.counts.end(Class::Replied);
        report.rtt.record(rtt_us);
    }
    for _ in rtt_us.len()..sent as usize {
        report.counts.end(Class::Lost);
        report.counts.overdue += 1;
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_answered_is_overdue_and_the_account_adds_up() {
        let report = seen(Schema::default(), 10, &[20_000, 30_000]);
        assert_eq!((report.counts.answered(), report.counts.overdue), (2, 8));
        assert_eq!(report.counts.ended(), 10);
        assert_eq!((report.rtt.min_us, report.rtt.max_us), (20_000, 30_000));
    }
}
