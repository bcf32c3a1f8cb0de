//! Findings about selections: where they are and should not be, what they wait for, and what operators have decided.

use std::time::Duration;

use leeward_common::id::OverrideId;

use super::{
    Finding, Severity,
    words::{is_at, plural, short_list, time_of_day},
};
use crate::{
    gate::RefusalCode,
    intent::{Known, Override, Owner},
    select::{Candidate, Ranking},
    view::{SelectionView, View},
    waiting::WaitingCode,
    weight::percent,
};

/// An override that ends within this is told first, since its end changes something.
const SOON: Duration = Duration::from_secs(600);

/// One finding at most for each selection, and one for all that are not decided yet. While nobody sees anything
/// (`blind`), where a selection stands is no news.
pub(super) fn selections(view: &View, blind: bool) -> Vec<Finding> {
    let regions = view.selections.iter();
    let regions = regions.map(|(id, own)| (Owner::Region(id.clone()), own, Some(view.ranking(id))));
    let services = view.services.iter();
    let services =
        services.map(|(id, own)| (Owner::Service(id.clone()), own, view.service_ranking(id)));
    let mut findings = Vec::new();
    let mut pending = Vec::new();
    for (owner, own, ranking) in regions.chain(services) {
        let Some(ranking) = ranking.filter(|ranking| !ranking.candidates.is_empty()) else {
            continue;
        };
        match own.since {
            None => pending.push(owner.to_string()),
            Some(_) => findings.extend(selection(&owner, own, &ranking, blind)),
        }
    }
    if !pending.is_empty() && !blind {
        let what = format!(
            "not enough is known yet to decide for {}",
            short_list(&pending)
        );
        findings.push(Finding::of(Severity::Pending, what));
    }
    findings
}

/// What is worst about a selection that was made, if anything is.
fn selection(
    owner: &Owner,
    own: &SelectionView,
    ranking: &Ranking,
    blind: bool,
) -> Option<Finding> {
    let finding = |severity, what: String, why: String| {
        Some(Finding {
            place: owner.to_string(),
            why,
            since: own.since,
            ..Finding::of(severity, what)
        })
    };
    let Some(selected) = &own.selected else {
        let what = match owner {
            Owner::Region(region) => format!("{region} has no region left to fail over to"),
            Owner::Service(service) => format!("{service} has no region left to run in"),
        };
        return finding(Severity::Bad, what, refusals(ranking));
    };
    if let Some(unserved) = &own.unserved {
        let what = match unserved.share < 0.999 {
            true => format!(
                "{} of {owner} runs nowhere: {}",
                percent(unserved.share),
                unserved.because
            ),
            false => format!("{owner} runs nowhere: {}", unserved.because),
        };
        let why = format!("last placed in {selected}");
        return finding(Severity::Bad, what, why);
    }
    if blind {
        return None;
    }
    let notices: Vec<_> = own.notices.iter().map(|own| own.detail.clone()).collect();
    let candidate = ranking.candidate(selected);
    let refusal = candidate.and_then(|own| own.reasons.first());
    let place = is_at(owner, "still", Some(selected));
    // What is asked only of who comes is nothing against who is there.
    let concerns = |code: RefusalCode| {
        !matches!(
            code,
            RefusalCode::ReplicaBehind | RefusalCode::SharedRisk | RefusalCode::NoRoom
        )
    };
    if let Some(refusal) = refusal.filter(|own| concerns(own.code)) {
        let waits = own.waiting.as_ref();
        let waits = waits.map(|waiting| waiting.words(owner, Some(selected)));
        let why = match (notices.is_empty(), ranking.best()) {
            (false, _) => notices.join("; "),
            (true, None) => format!("nothing else may be selected: {}", refusals(ranking)),
            (true, Some(best)) => format!("{} could take over", best.region),
        };
        let (severity, what) = match refusal.code {
            RefusalCode::Down => (Severity::Bad, format!("{place}, which is down: {why}")),
            _ => (
                Severity::Degraded,
                format!("{place}, although: {}", refusal.detail),
            ),
        };
        let found = finding(severity, what, why);
        return found.map(|found| Finding {
            action: waits.unwrap_or_default(),
            ..found
        });
    }
    if !notices.is_empty() {
        return finding(
            Severity::Degraded,
            format!(
                "{}; {}",
                is_at(owner, "", Some(selected)),
                notices.join("; ")
            ),
            String::new(),
        );
    }
    let waiting = own.waiting.as_ref()?;
    // A lead that may as well be none is no news: it comes and goes.
    if matches!(
        waiting.code,
        WaitingCode::CutOff | WaitingCode::Doubt | WaitingCode::Routing | WaitingCode::Subsiding
    ) {
        return None;
    }
    let rival = waiting.to.as_ref().and_then(|to| ranking.candidate(to));
    let found = finding(
        Severity::Note,
        waiting.words(owner, Some(selected)),
        String::new(),
    );
    let seen = |rival: &Candidate| plural(rival.vantage_points as usize, "vantage point");
    found.map(|found| Finding {
        sure: rival.map_or_else(String::new, seen),
        ..found
    })
}

fn refusals(ranking: &Ranking) -> String {
    let refused = ranking.candidates.iter().filter_map(|own| {
        let refusal = own.reasons.first()?;
        Some(format!("{} ({})", own.region, refusal.detail))
    });
    short_list(&refused.collect::<Vec<_>>())
}

/// What operators have decided, what ends first first.
pub(super) fn overrides(view: &View) -> Vec<Finding> {
    let finding = |(id, known): (&OverrideId, &Known<Override>)| {
        let own = &known.what;
        let why = match known.why.as_str() {
            "" => String::new(),
            why => format!(": {why}"),
        };
        let left = own.until.since(view.now);
        let ends = match left <= SOON {
            true => format!(", but only until {}", time_of_day(own.until)),
            false => format!(" until {}", time_of_day(own.until)),
        };
        let what = format!("{} by {}{ends}{why}", own.rule.words(), known.who);
        let finding = Finding {
            why: known.why.clone(),
            sure: format!("override {id}"),
            since: Some(known.at),
            ..Finding::of(Severity::Note, what)
        };
        (own.until, finding)
    };
    let mut found: Vec<_> = view.intents.overrides.iter().map(finding).collect();
    found.sort_by_key(|(until, _)| *until);
    found.into_iter().map(|(_, finding)| finding).collect()
}
