//! What would change the answer: for each candidate and each measure the value at which the order turns.
//!
//! There is no second formula. A candidate is scored again with one of its measures changed, by the functions that scored
//! it, and since every utility is monotone in its measure, halving the range finds where the order turns. A measure for
//! which no value turns it is left out.
//!
//! Of the order it is told where candidates are equal ([`Flip::even`]), and where the lead is the policy's margin, which is
//! where the selection itself would change after the confirm window ([`Flip::moves`]).

use crate::{
    intent::Owner,
    select::{self, Appraisal, Picture, Request, Term},
    view::{Estimate, Estimates, View},
};

/// The longest round-trip time and jitter that is considered, microseconds: a minute.
const MAX_US: f64 = 60e6;

/// The largest bandwidth that is considered, bits per second.
const MAX_BPS: f64 = 1e12;

/// Halvings of a range: enough to tell a microsecond of a minute.
const HALVINGS: usize = 64;

/// What would change the answer about one candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Counterfactual {
    /// The candidate.
    pub region: leeward_common::id::RegionId,
    /// Whether it is the one selected: then its measures say how long it stays.
    pub selected: bool,
    /// Measure by measure.
    pub flips: Vec<Flip>,
}

/// Where the order turns, all other measures being what they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Flip {
    /// The measure: one of the network's.
    pub term: Term,
    /// What it is now, in its own unit: microseconds, a ratio, or bits per second.
    pub now: f64,
    /// Where the candidate and its rival are equal; `None` if no value makes them so.
    pub even: Option<f64>,
    /// Where one leads by the policy's margin, so that the selection changes; `None` if no value does.
    pub moves: Option<f64>,
}

/// One of the measures of a link.
struct Measure {
    term: Term,
    /// Whether less of it is better.
    less_is_better: bool,
    max: f64,
    of: fn(&mut Estimates) -> &mut Option<Estimate>,
}

const MEASURES: [Measure; 5] = [
    Measure {
        term: Term::LatencyP50,
        less_is_better: true,
        max: MAX_US,
        of: |all| &mut all.rtt_p50_us,
    },
    Measure {
        term: Term::LatencyP99,
        less_is_better: true,
        max: MAX_US,
        of: |all| &mut all.rtt_p99_us,
    },
    Measure {
        term: Term::Jitter,
        less_is_better: true,
        max: MAX_US,
        of: |all| &mut all.jitter_us,
    },
    Measure {
        term: Term::Loss,
        less_is_better: true,
        max: 1.0,
        of: |all| &mut all.loss,
    },
    Measure {
        term: Term::Bandwidth,
        less_is_better: false,
        max: MAX_BPS,
        of: |all| &mut all.bandwidth_bps,
    },
];

/// What would change an owner's answer: for the selected region how much worse it may become, for every other that may be
/// selected how much better it must. Empty while nothing is selected or the selected region may not be selected any more.
#[must_use]
pub fn counterfactuals(view: &View, owner: &Owner) -> Vec<Counterfactual> {
    let (request, selection) = match owner {
        Owner::Region(primary) => (
            view.policy
                .regions
                .contains_key(primary)
                .then(|| Request::of_region(&view.policy, primary)),
            view.selections.get(primary),
        ),
        Owner::Service(id) => {
            let known = view.intents.services.get(id);
            let request = known.map(|known| Request::of_service(&view.policy, id, &known.what));
            (request, view.services.get(id))
        }
    };
    let selected = selection.and_then(|selection| selection.selected.as_ref());
    let (Some(request), Some(selected)) = (request, selected) else {
        return Vec::new();
    };
    let picture = view.picture();
    let (_, appraisals) = select::appraise(&picture, &request);
    let eligible: Vec<&Appraisal> = appraisals
        .iter()
        .filter(|own| own.refusal.is_none())
        .collect();
    let Some(incumbent) = eligible.iter().find(|own| own.region == *selected) else {
        return Vec::new();
    };
    let rivals = eligible.iter().filter(|own| own.region != *selected);
    let rival = rivals.clone().next().and_then(|rival| rival.log_score());
    let margin = view.policy.steadiness.margin.ln();
    let all = rivals.filter_map(|own| {
        let search = Search::new(&picture, &request, own)?;
        let target = incumbent.log_score()?;
        Some(Counterfactual {
            region: own.region.clone(),
            selected: false,
            flips: search.flips(target, target + margin),
        })
    });
    let stays = Search::new(&picture, &request, incumbent).zip(rival);
    let stays = stays.map(|(search, rival)| Counterfactual {
        region: incumbent.region.clone(),
        selected: true,
        flips: search.flips(rival, rival - margin),
    });
    stays.into_iter().chain(all).collect()
}

/// One candidate with one of its measures changed.
struct Search<'a> {
    picture: &'a Picture<'a>,
    request: &'a Request<'a>,
    own: &'a Appraisal,
    estimates: Estimates,
    log_score: f64,
}

impl<'a> Search<'a> {
    fn new(picture: &'a Picture<'a>, request: &'a Request<'a>, own: &'a Appraisal) -> Option<Self> {
        Some(Self {
            picture,
            request,
            own,
            estimates: own.estimates()?.clone(),
            log_score: own.log_score()?,
        })
    }

    /// Where the score's logarithm is `even` and where it is `moves`.
    fn flips(&self, even: f64, moves: f64) -> Vec<Flip> {
        let flip = |measure: &Measure| {
            let now = (measure.of)(&mut self.estimates.clone()).as_ref()?.value;
            let flip = Flip {
                term: measure.term.clone(),
                now,
                even: self.value_at(measure, now, even),
                moves: self.value_at(measure, now, moves),
            };
            (flip.even.is_some() || flip.moves.is_some()).then_some(flip)
        };
        MEASURES.iter().filter_map(flip).collect()
    }

    /// The value of the measure nearest to `now` at which the score's logarithm is `target`.
    fn value_at(&self, measure: &Measure, now: f64, target: f64) -> Option<f64> {
        let rises = target > self.log_score;
        let mut near = now;
        let mut far = match rises == measure.less_is_better {
            true => 0.0,
            false => measure.max,
        };
        let is_beyond = |value: f64| {
            let score = self.log_score_at(measure, value)?;
            Some(if rises {
                score >= target
            } else {
                score <= target
            })
        };
        if !is_beyond(far)? {
            return None;
        }
        for _ in 0..HALVINGS {
            let middle = near + (far - near) / 2.0;
            match is_beyond(middle)? {
                true => far = middle,
                false => near = middle,
            }
        }
        Some(far)
    }

    fn log_score_at(&self, measure: &Measure, value: f64) -> Option<f64> {
        let mut estimates = self.estimates.clone();
        let changed = (measure.of)(&mut estimates).as_mut()?;
        // As sure as it is now.
        let (below, above) = (changed.value - changed.low, changed.high - changed.value);
        *changed = Estimate {
            value,
            low: (value - below).max(0.0),
            high: (value + above).min(measure.max),
            n: changed.n,
        };
        self.own
            .log_score_if(self.picture, self.request, &estimates)
    }
}

impl Flip {
    /// The flip in words: `loss below 2.0 % (now 3.1 %)`.
    #[must_use]
    pub fn words(&self, value: f64) -> String {
        let way = match value < self.now {
            true => "below",
            false => "above",
        };
        let (value, now) = (self.unit(value), self.unit(self.now));
        format!("{} {way} {value} (now {now})", self.term.words())
    }

    fn unit(&self, value: f64) -> String {
        match self.term {
            Term::Loss => crate::weight::percent(value),
            Term::Bandwidth => format!("{:.1} Mbit/s", value / 1e6),
            _ => format!("{:.1} ms", value / 1_000.0),
        }
    }
}
