//! What happens, as it happens: one line each on stdout, and all of it for the transcript.
//!
//! ```text
//!     10.0 s  * Ireland begins to lose packets
//!     14.3 s  > virginia: ireland -> oregon (better): …
//!     40.0 s  + met     virginia fails over to oregon by 20.0 s until 40.0 s: from 14.3 s on, 4.3 s after 10.0 s
//! ```

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::Duration,
};

use leeward_common::{api::v1, id::RegionId};
use leeward_engine::{
    intent::Owner,
    scenario::{Expectation, Moved, Record, Verdict, judge},
    simulate::describe,
    view::RegionState,
};
use serde::Serialize;

/// The reason of a move that routers brought about.
const WITHDRAWN: &str = "withdrawn";

/// Everything that happened, in order.
#[derive(Debug, Default)]
pub struct Story {
    transcript: Transcript,
    record: Record,
    newest_decision: u64,
    /// How late what is expected may come.
    grace: Duration,
    /// Who was left because routers told so, by the primary, and when; until a probe is lost there.
    leading: BTreeMap<(RegionId, RegionId), Duration>,
}

/// What happened, for programs. Times count from the scenario's start, in microseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Transcript {
    /// The scenario's name.
    pub scenario: String,
    /// The decisions, in order.
    pub decisions: Vec<Told>,
    /// How the expectations came out, in the scenario's order of deadlines.
    pub expectations: Vec<Judged>,
    /// By how much routing led, in order.
    pub leads: Vec<Lead>,
    /// How late the emulator's packets left their links, in nanoseconds: median, 99th percentile, maximum.
    pub emulator_lateness_ns: [u64; 3],
    /// How much later than it asked for an ordinary process was woken at worst, in microseconds: what this machine's being
    /// busy adds to everything.
    pub wakeup_lateness_us: u64,
}

/// A decision.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// When it was seen in the API's answer.
    pub seen_at_us: u64,
    /// Its number.
    pub decision_id: u64,
    /// Whose failover it is.
    pub primary: RegionId,
    /// The selection before.
    pub from: Option<RegionId>,
    /// The selection from then on.
    pub to: Option<RegionId>,
    /// Why, as a word.
    pub reason: String,
    /// Why, as a sentence.
    pub summary: String,
}

/// A region was left because routers told so, before the first lost probe was seen.
#[derive(Clone, Debug, Serialize)]
pub struct Lead {
    /// Whose failover it was.
    pub primary: RegionId,
    /// Who was left.
    pub left: RegionId,
    /// From the decision to the first lost probe, each as the API told it.
    pub lead_us: u64,
}

/// An expectation that was judged.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// What was expected.
    pub expected: String,
    /// Whether it was, in time and for long enough.
    pub met: bool,
    /// Since when; `None` if not met.
    pub since_us: Option<u64>,
}

impl Story {
    /// A story that has not begun, in which what is expected may come so late.
    #[must_use]
    pub fn new(scenario: &str, grace: Duration) -> Self {
        let transcript = Transcript {
            scenario: scenario.to_owned(),
            ..Transcript::default()
        };
        Self {
            transcript,
            grace,
            ..Self::default()
        }
    }

    /// Something happens.
    pub fn event(&self, at: Duration, text: &str) {
        line(at, '*', text);
    }

    /// The lab, an ordinary process, was woken so much later than it asked for.
    pub fn woken_late(&mut self, by: Duration) {
        let latest = &mut self.transcript.wakeup_lateness_us;
        *latest = us(by).max(*latest);
    }

    /// The largest of these times.
    #[must_use]
    pub const fn wakeup_lateness(&self) -> Duration {
        Duration::from_micros(self.transcript.wakeup_lateness_us)
    }

    /// Something about the lab itself.
    pub fn note(&self, text: &str) {
        print(&format!("              {text}\n"));
    }

    /// Takes the newest decisions, newest first, and tells those not told yet. `at` is when they were seen.
    pub fn decisions(&mut self, at: Duration, newest_first: &[v1::Decision]) {
        for decision in newest_first.iter().rev() {
            if decision.decision_id > self.newest_decision {
                self.newest_decision = decision.decision_id;
                self.decision(at, decision);
            }
        }
    }

    fn decision(&mut self, at: Duration, decision: &v1::Decision) {
        let v1::Decision {
            decision_id,
            primary_region,
            from,
            to,
            reason,
            summary,
            ..
        } = decision;
        let text = format!(
            "{primary_region}: {} -> {} ({}): {summary}",
            shown(from.as_ref()),
            shown(to.as_ref()),
            reason.code
        );
        line(at, '>', &text);
        self.record.moves.push(Moved {
            at,
            owner: Owner::Region(primary_region.clone()),
            to: to.clone(),
            reason: reason.code.clone(),
        });
        if let (WITHDRAWN, Some(from)) = (reason.code.as_str(), from) {
            self.leading
                .insert((primary_region.clone(), from.clone()), at);
        }
        self.transcript.decisions.push(Told {
            seen_at_us: us(at),
            decision_id: *decision_id,
            primary: primary_region.clone(),
            from: from.clone(),
            to: to.clone(),
            reason: reason.code.clone(),
            summary: summary.clone(),
        });
    }

    /// Primaries, and whom they left because routers told so, where no probe was lost since.
    #[must_use]
    pub fn led(&self) -> Vec<(RegionId, RegionId)> {
        self.leading.keys().cloned().collect()
    }

    /// The first lost probe is seen between a primary and whom it left because routers told so.
    pub fn lost(&mut self, at: Duration, primary: &RegionId, left: &RegionId) {
        let (primary, left) = (primary.clone(), left.clone());
        let Some(decided) = self.leading.remove(&(primary.clone(), left.clone())) else {
            return;
        };
        let lead = at.saturating_sub(decided);
        let text = format!(
            "the first lost probe of {primary} -> {left} is seen: routing led by {:.2} s",
            lead.as_secs_f64()
        );
        line(at, '*', &text);
        self.transcript.leads.push(Lead {
            primary,
            left,
            lead_us: us(lead),
        });
    }

    /// The number of the newest decision told; 0 before the first.
    #[must_use]
    pub fn newest_decision(&self) -> u64 {
        self.newest_decision
    }

    /// What is selected for a primary by the decisions told; `None` for none.
    #[must_use]
    pub fn selected(&self, primary: &RegionId) -> Option<&RegionId> {
        let moves = self.record.moves.iter().rev();
        let mut own = moves.filter(|own| matches!(&own.owner, Owner::Region(id) if id == primary));
        own.next()?.to.as_ref()
    }

    /// Takes the state of a region, as it is now.
    pub fn region(&mut self, at: Duration, region: &v1::Region) {
        let state = match region.state {
            v1::State::Bad => RegionState::Down,
            v1::State::Unknown | v1::State::Pending => RegionState::Unknown,
            v1::State::Ok | v1::State::Degraded | v1::State::Maintenance => RegionState::Up,
        };
        let id = region.region_id.clone();
        let states = self.record.states.entry(id).or_default();
        if states.last().is_none_or(|last| last.1 != state) {
            states.push((at, state));
        }
    }

    /// Judges an expectation whose time is over, and tells how it came out.
    ///
    /// What comes within the grace after its deadline counts as met, and is told as late.
    pub fn judge(&mut self, at: Duration, expectation: &Expectation) {
        let mut verdict = judge(expectation, &self.record);
        let mut late = "";
        if !verdict.is_met() {
            let by = (expectation.by + self.grace)
                .min(expectation.until)
                .max(expectation.by);
            let patient = judge(
                &Expectation {
                    by,
                    ..expectation.clone()
                },
                &self.record,
            );
            if patient.is_met() {
                (verdict, late) = (patient, " (late, within the grace given)");
            }
        }
        let since = match verdict {
            Verdict::Met { at } => Some(at),
            Verdict::Missed { .. } | Verdict::Lost { .. } => None,
        };
        line(
            at,
            if since.is_some() { '+' } else { '!' },
            &(describe(expectation, &verdict) + late),
        );
        self.transcript.expectations.push(Judged {
            expected: expectation.to_string(),
            met: since.is_some(),
            since_us: since.map(us),
        });
    }

    /// Something that must be so is not.
    pub fn complaint(&self, at: Duration, text: &str) {
        line(at, '!', text);
    }

    /// How the run ended: how many expectations were met, of how many.
    #[must_use]
    pub fn score(&self) -> (usize, usize) {
        let expectations = &self.transcript.expectations;
        (
            expectations.iter().filter(|judged| judged.met).count(),
            expectations.len(),
        )
    }

    /// All of it, for programs.
    #[must_use]
    pub fn into_transcript(self) -> Transcript {
        self.transcript
    }
}

fn line(at: Duration, mark: char, text: &str) {
    print(&format!("{:>8.1} s  {mark} {text}\n", at.as_secs_f64()));
}

/// Nobody may be reading any more; the run goes on to its end and its exit code.
fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

fn shown(region: Option<&RegionId>) -> &str {
    region.map_or("none", RegionId::as_str)
}

fn us(at: Duration) -> u64 {
    u64::try_from(at.as_micros()).unwrap_or(u64::MAX)
}
