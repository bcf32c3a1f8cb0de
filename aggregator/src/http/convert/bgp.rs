//! What routers tell.

use leeward_common::{
    api::v1::{BgpEvent, BgpEvents, BgpMoreSpecific, BgpPeer, BgpPeers, BgpPrefix, BgpPrefixes},
    bgp::{Change, FailedLink, FeedChange, FeedState, PrefixWindow, RoutingEvent, What},
};
use leeward_engine::{found::Told, view::View};

/// Every watched prefix, as every agent told last.
#[must_use]
pub fn bgp_prefixes(view: &View) -> BgpPrefixes {
    let known = &view.found.routing;
    let told = known.prefixes.values();
    let mut told: Vec<_> = told.flat_map(|of| of.values()).collect();
    told.sort_by_key(|told| (told.what.prefix, told.agent.clone()));
    BgpPrefixes {
        prefixes: told.into_iter().map(|told| prefix(told)).collect(),
        left_out: known.prefixes_left_out.len() as u64,
    }
}

fn prefix(told: &Told<PrefixWindow>) -> BgpPrefix {
    let PrefixWindow { counts, sight, .. } = &told.what;
    let window = &told.what;
    let more = window.more_specifics.iter().map(|more| BgpMoreSpecific {
        prefix: more.prefix.to_string(),
        origin: more.origin,
        validity: more.validity,
    });
    BgpPrefix {
        prefix: window.prefix.to_string(),
        region_id: window.region.clone(),
        agent_id: told.agent.clone(),
        visible: sight.visible,
        gone: sight.gone,
        gone_sources: sight.gone_sources,
        stuck: sight.stuck,
        unsure: sight.unsure.feeds,
        origins: window.origins.clone(),
        announcements: counts.announcements,
        withdrawals: counts.withdrawals,
        path_changes: counts.path_changes,
        origin_changes: counts.origin_changes,
        exploration_max: window.exploration_max,
        longer_max: window.longer_max,
        edit_distance_max: window.edit_distance_max,
        penalty_fast: window.penalty_fast,
        penalty_slow: window.penalty_slow,
        disregarded: counts.disregarded,
        more_specifics: more.collect(),
        valid: window.validities.valid,
        not_found: window.validities.not_found,
        invalid: window.validities.invalid(),
        unknown: window.validities.unknown,
        leaked: window.leaks.all(),
        blackholed: window.blackholed,
        shutting_down: window.shutting_down,
        window_start: window.start.into(),
        window_us: window.span_us,
        told_at: told.at.into(),
    }
}

/// Every feed, as its agent told last.
#[must_use]
pub fn bgp_peers(view: &View) -> BgpPeers {
    let known = &view.found.routing;
    let told = known.feeds.values().flat_map(|of| of.values());
    BgpPeers {
        peers: told.map(|told| peer(told)).collect(),
        left_out: known.feeds_left_out.len() as u64,
    }
}

fn peer(told: &Told<FeedState>) -> BgpPeer {
    let feed = &told.what;
    BgpPeer {
        feed: feed.feed.clone(),
        source: feed.source,
        system: feed.system,
        standing: feed.standing,
        since: feed.since.into(),
        updates: feed.updates,
        announced: feed.announced,
        withdrawn: feed.withdrawn,
        fabricated: feed.fabricated,
        agent_id: told.agent.clone(),
        agent_region_id: told.region.clone(),
        told_at: told.at.into(),
    }
}

/// The newest events first.
#[must_use]
pub fn bgp_events(view: &View, limit: usize) -> BgpEvents {
    let told = view.found.routing.events.iter().rev().take(limit);
    BgpEvents {
        events: told.map(|told| event(told)).collect(),
    }
}

fn event(told: &Told<RoutingEvent>) -> BgpEvent {
    let event = &told.what;
    let (kind, detail) = match &event.what {
        What::Prefix { change, .. } => changed(change),
        What::Feed(change) => feed(change),
        What::Link(link) => ("link_failed", failed(link)),
    };
    let (prefix, region_id, sight) = match &event.what {
        What::Prefix {
            prefix,
            region,
            sight,
            ..
        } => (Some(prefix.to_string()), Some(region.clone()), Some(sight)),
        What::Feed(_) | What::Link(_) => (None, None, None),
    };
    BgpEvent {
        at: event.at.into(),
        told_at: told.at.into(),
        kind: kind.to_owned(),
        prefix,
        region_id,
        detail,
        visible: sight.map(|sight| sight.visible),
        gone: sight.map(|sight| sight.gone),
        feed: event.feed.clone(),
        source: event.source,
        agent_id: told.agent.clone(),
        agent_region_id: told.region.clone(),
    }
}

fn system(system: Option<u32>) -> String {
    system.map_or_else(|| "nobody known".to_owned(), |system| format!("AS{system}"))
}

fn changed(change: &Change) -> (&'static str, String) {
    match change {
        Change::Withdrawn { path, malformed } => {
            let how = match malformed {
                true => "withdrawn by a malformed attribute",
                false => "withdrawn",
            };
            ("withdrawn", format!("{how}; its path was {path}"))
        }
        Change::Returned { path } => ("returned", format!("there again, by {path}")),
        Change::Exploring { paths, path } => (
            "exploring",
            format!("{paths} longer paths in turn; the newest is {path}"),
        ),
        Change::OriginChanged { from, to } => (
            "origin_changed",
            format!("announced by {} instead of {}", system(*to), system(*from)),
        ),
        Change::MoreSpecific(more) => (
            "more_specific",
            format!(
                "{} within it is announced by {}",
                more.prefix,
                system(more.origin)
            ),
        ),
        Change::Invalid(invalid) => ("invalid", invalid.to_string()),
        Change::Leaked { sign, path } => ("leaked", format!("looks leaked by {path}: {sign}")),
        Change::OverFailedLink(link) => (
            "over_failed_link",
            format!("still there, over a link that fails: {}", failed(link)),
        ),
    }
}

fn failed(link: &FailedLink) -> String {
    let alike = match link.alike {
        0 => String::new(),
        1 => ", another link fits as well".to_owned(),
        more => format!(", {more} others fit as well"),
    };
    format!(
        "AS{}-AS{} most likely failed: {} routes over it are lost, {} remain (fit {}.{:03}{alike})",
        link.near,
        link.far,
        link.lost,
        link.remaining,
        link.fit_permille / 1_000,
        link.fit_permille % 1_000
    )
}

fn feed(change: &FeedChange) -> (&'static str, String) {
    match change {
        FeedChange::Up => (
            "feed_up",
            "its session is up; its table is transferred".to_owned(),
        ),
        FeedChange::Loaded => (
            "feed_loaded",
            "its table is there; changes count from now on".to_owned(),
        ),
        FeedChange::Down { why, watched } => (
            "feed_down",
            format!("{why}; what it said of {watched} watched prefixes is no longer known"),
        ),
        FeedChange::Untrusted { fabricated } => (
            "feed_untrusted",
            format!(
                "{fabricated} withdrawals of what it never announced; it is not believed until its next session"
            ),
        ),
        FeedChange::Limited { limit } => (
            "feed_limited",
            format!("it shows more than {limit}; the rest is not followed"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use leeward_common::{
        bgp::{Counts, Leaks, MoreSpecific, Outside, Sight, Unsure, Validities, Validity},
        time::Timestamp,
    };

    use super::*;

    fn told<T>(what: T) -> Told<T> {
        Told {
            at: Timestamp::from_unix_us(9),
            agent: "iad-1".parse().unwrap(),
            region: "iad".parse().unwrap(),
            what,
        }
    }

    #[test]
    fn a_prefix_is_told_with_its_region_and_who_watches_it() {
        let more = MoreSpecific {
            prefix: "192.0.2.128/25".parse().unwrap(),
            origin: None,
            validity: Validity::NotFound,
        };
        let told = prefix(&told(PrefixWindow {
            prefix: "192.0.2.0/24".parse().unwrap(),
            region: "dub".parse().unwrap(),
            start: Timestamp::EPOCH,
            span_us: 10_000_000,
            counts: Counts {
                withdrawals: 2,
                ..Counts::default()
            },
            longer_max: 1,
            edit_distance_max: 2,
            exploration_max: 3,
            penalty_fast: 4,
            penalty_slow: 5,
            origins: vec![64_500],
            more_specifics: vec![more],
            blackholed: false,
            shutting_down: true,
            sight: Sight {
                visible: 1,
                gone: 2,
                gone_sources: 2,
                stuck: 0,
                unsure: Unsure::default(),
                outside: Outside::default(),
            },
            validities: Validities::default(),
            leaks: Leaks::default(),
            over_failed_link: false,
            learned: false,
        }));
        assert_eq!(
            (told.prefix.as_str(), told.region_id.as_str()),
            ("192.0.2.0/24", "dub")
        );
        assert_eq!(
            (told.agent_id.as_str(), told.withdrawals, told.gone),
            ("iad-1", 2, 2)
        );
        assert_eq!(told.more_specifics[0].prefix, "192.0.2.128/25");
        assert!(told.shutting_down && !told.blackholed);
    }

    #[test]
    fn an_event_says_what_happened_in_words() {
        let event = |what| {
            event(&told(RoutingEvent {
                at: Timestamp::EPOCH,
                feed: "10.0.0.1 session".to_owned(),
                source: [10, 0, 0, 1].into(),
                what,
                collector: None,
            }))
        };
        let changed = event(What::Prefix {
            prefix: "192.0.2.0/24".parse().unwrap(),
            region: "dub".parse().unwrap(),
            change: Change::OriginChanged {
                from: Some(64_500),
                to: None,
            },
            sight: Sight::default(),
            learned: false,
        });
        assert_eq!(changed.kind, "origin_changed");
        assert_eq!(
            changed.detail,
            "announced by nobody known instead of AS64500"
        );
        assert_eq!(
            (changed.prefix.as_deref(), changed.visible),
            (Some("192.0.2.0/24"), Some(0))
        );
        let down = event(What::Feed(FeedChange::Down {
            why: "the source is gone".to_owned(),
            watched: 3,
        }));
        assert_eq!((down.kind.as_str(), down.prefix), ("feed_down", None));
        assert!(
            down.detail.contains("3 watched prefixes"),
            "{}",
            down.detail
        );
        let link = event(What::Link(FailedLink {
            near: 64_501,
            far: 64_502,
            fit_permille: 987,
            lost: 40,
            remaining: 2,
            alike: 1,
        }));
        assert_eq!(link.kind, "link_failed");
        assert_eq!(
            link.detail,
            "AS64501-AS64502 most likely failed: 40 routes over it are lost, 2 remain (fit 0.987, another link fits as well)"
        );
    }
}
