//! What operators have decided over the engine's head, for one selection.
//!
//! Where overrides contradict each other, the first of these counts, and the selection says so in a notice:
//!
//! 1. a freeze: nothing moves, not even to where a pin wants it;
//! 2. a pin, of several the one given last: it stays there, whatever the gates say, even in a region that is drained or
//!    forbidden;
//! 3. forbidding and draining: gates like any other, but what is there leaves at once.
//!
//! An override that expires leaves nothing behind: the next evaluation finds what it would have found without it, but
//! for the hold that the moves have brought about.

use std::collections::BTreeMap;

use leeward_common::id::{OverrideId, RegionId};

use crate::{
    decision::Reason,
    gate::RefusalCode,
    intent::{Intents, Known, Override, Owner, Rule},
    policy::Policy,
    select::Appraisal,
    selection::Move,
    view::{Notice, NoticeCode},
};

type Given<'a> = (&'a OverrideId, &'a Known<Override>);

/// The overrides that concern one owner.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules<'a> {
    frozen: Option<Given<'a>>,
    pins: Vec<(&'a RegionId, Given<'a>)>,
    forbidden: BTreeMap<&'a RegionId, Given<'a>>,
    drained: BTreeMap<&'a RegionId, Given<'a>>,
}

/// The overrides that concern an owner.
pub(crate) fn rules<'a>(intents: &'a Intents, owner: &Owner) -> Rules<'a> {
    let mut rules = Rules::default();
    for given @ (_, known) in &intents.overrides {
        match &known.what.rule {
            Rule::Drain { region, .. } => {
                rules.drained.entry(region).or_insert(given);
            }
            Rule::Pin { owner: of, region } if of == owner => rules.pins.push((region, given)),
            Rule::Forbid { owner: of, region } if of == owner => {
                rules.forbidden.entry(region).or_insert(given);
            }
            Rule::Freeze { owner: of } if of.as_ref().is_none_or(|of| of == owner) => {
                rules.frozen.get_or_insert(given);
            }
            _ => {}
        }
    }
    rules
        .pins
        .sort_by_key(|(_, (_, known))| std::cmp::Reverse(known.version));
    rules
}

impl<'a> Rules<'a> {
    /// Who has forbidden a region.
    pub(crate) fn forbids(&self, region: &RegionId) -> Option<Given<'a>> {
        self.forbidden.get(region).copied()
    }

    /// Who has drained a region.
    pub(crate) fn drains(&self, region: &RegionId) -> Option<Given<'a>> {
        self.drained.get(region).copied()
    }

    /// Who keeps the owner where it is, or in the region that it is pinned to.
    pub(crate) fn holds(&self) -> Option<Given<'a>> {
        let pin = self.pins.first().map(|&(_, given)| given);
        self.frozen.or(pin)
    }
}

/// Who gave an override, until when and why: `ops until 2026-… (maintenance)`.
pub(crate) fn by(known: &Known<Override>) -> String {
    let (who, until) = (&known.who, known.what.until);
    match known.why.is_empty() {
        true => format!("{who} until {until}"),
        false => format!("{who} until {until} ({})", known.why),
    }
}

fn reason((id, known): Given<'_>) -> Reason {
    Reason::Override {
        id: id.clone(),
        rule: known.what.rule.clone(),
        who: known.who.clone(),
        why: known.why.clone(),
        until: known.what.until,
    }
}

/// What becomes of a move that the engine wants, or of its staying, and what somebody should know about it.
pub(crate) fn apply(
    rules: &Rules<'_>,
    policy: &Policy,
    owner: &Owner,
    selected: Option<&RegionId>,
    appraisals: &[Appraisal],
    wanted: Option<Move>,
) -> (Option<Move>, Vec<Notice>) {
    let mut notices = Vec::new();
    let mut notice = |code, detail| notices.push(Notice { code, detail });
    if let [(first, given), (second, other), ..] = rules.pins[..]
        && first != second
    {
        let detail = format!(
            "pinned to {first} by {} and to {second} by {}: the last one given counts",
            by(given.1),
            by(other.1)
        );
        notice(NoticeCode::Conflict, detail);
    }
    let pin = rules.pins.first().copied();
    if let Some(frozen) = rules.frozen {
        let pinned_elsewhere = pin.filter(|(region, _)| selected != Some(*region));
        if let Some((region, _)) = pinned_elsewhere {
            let detail = format!("pinned to {region}, but frozen by {}", by(frozen.1));
            notice(NoticeCode::Conflict, detail);
        } else if let Some(wanted) = &wanted
            && pin.is_none()
        {
            let place = wanted.to.as_ref().map_or("nowhere", |to| to.as_str());
            let detail = format!(
                "it would move to {place} ({}), but is frozen by {}",
                wanted.reason.code(),
                by(frozen.1)
            );
            notice(NoticeCode::FreezeHurts, detail);
        }
        return (None, notices);
    }
    if let Some((region, given)) = pin {
        let of_itself = matches!(owner, Owner::Region(primary) if primary == region);
        if !policy.regions.contains_key(region) || of_itself {
            let detail = format!("pinned to {region} by {}, where it cannot be", by(given.1));
            notice(NoticeCode::PinHurts, detail);
        } else {
            for against in [rules.forbids(region), rules.drains(region)]
                .into_iter()
                .flatten()
            {
                let detail = format!(
                    "pinned to {region} by {}, although {}, says {}: the pin counts",
                    by(given.1),
                    against.1.what.rule.words(),
                    by(against.1)
                );
                notice(NoticeCode::Conflict, detail);
            }
            let own = appraisals.iter().find(|own| own.region == *region);
            let hurts =
                own.and_then(|own| own.refusals().find(|refusal| !is_override(refusal.code)));
            if let Some(refusal) = hurts {
                let detail = format!("pinned to {region} by {}: {}", by(given.1), refusal.detail);
                notice(NoticeCode::PinHurts, detail);
            }
            if selected == Some(region) {
                return (None, notices);
            }
            let wanted = Move {
                from: selected.cloned(),
                to: Some(region.clone()),
                reason: reason(given),
            };
            return (Some(wanted), notices);
        }
    }
    let mut wanted = wanted;
    let incumbent = selected.and_then(|region| appraisals.iter().find(|own| own.region == *region));
    if let Some(refusal) = incumbent.and_then(|own| own.refusal.as_ref()) {
        let region = &incumbent.expect("it has a refusal").region;
        let cause = match refusal.code {
            RefusalCode::Forbidden => rules.forbids(region),
            RefusalCode::Drained => rules.drains(region),
            _ => None,
        };
        match (&mut wanted, cause) {
            (Some(wanted), Some(given)) if wanted.to.is_some() => wanted.reason = reason(given),
            (None, _) if must_leave(refusal.code) => {
                notice(
                    NoticeCode::Stuck,
                    format!("{region} should be left: {}", refusal.detail),
                );
            }
            _ => {}
        }
    }
    (wanted, notices)
}

const fn is_override(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::Forbidden | RefusalCode::Drained)
}

/// Whether somebody should know that a selection stays in a region with such a refusal.
const fn must_leave(code: RefusalCode) -> bool {
    use RefusalCode as Code;
    matches!(
        code,
        Code::Forbidden
            | Code::Drained
            | Code::CheckFailed
            | Code::DependencyMissing
            | Code::BreaksLimits
            | Code::LabelMissing
            | Code::LabelForbidden
    )
}
