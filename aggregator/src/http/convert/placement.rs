//! Where everything would go if regions failed.

use std::collections::BTreeSet;

use leeward_common::{
    api::v1::{Fate, Load, Placement, Price},
    id::RegionId,
};
use leeward_engine::placement::{self, WhatIf};

use super::{
    Moment, listed, plural,
    services::{shares, unserved},
};

/// Where everything would go if these regions failed now.
#[must_use]
pub fn placement(moment: &Moment<'_>, failed: &BTreeSet<RegionId>) -> Placement {
    let what_if = placement::what_if(moment.view, failed);
    let summary = summary(&what_if);
    let mut services: Vec<Fate> = what_if
        .services
        .iter()
        .map(|(id, fate)| Fate {
            service_id: id.clone(),
            priority: fate.priority,
            before: shares(&fate.before),
            after: shares(&fate.after),
            unserved: unserved(fate.unserved.as_ref()),
        })
        .collect();
    services.sort_by_key(|fate| fate.priority);
    let loads = what_if.regions.iter().flat_map(|(region, loads)| {
        loads.iter().map(|(resource, load)| Load {
            region_id: region.clone(),
            resource_id: resource.clone(),
            offered: load.offered,
            usable: load.usable,
            before: load.before,
            after: load.after,
            price: price(&load.price),
        })
    });
    Placement {
        failed: failed.clone(),
        summary,
        services,
        loads: loads.collect(),
        graph_version: what_if.graph_version,
        policy_version: moment.view.policy_version.to_string(),
        evaluated_at: moment.view.now.into(),
    }
}

fn price(price: &placement::Price) -> Option<Price> {
    let is_free = price.serves.is_none() && price.saves <= 0.0;
    (!is_free).then(|| Price {
        priority: price.serves.map(|(priority, _)| priority),
        serves: price.serves.map_or(0.0, |(_, serves)| serves),
        saves: price.saves,
    })
}

fn summary(what_if: &WhatIf) -> String {
    let names: Vec<&str> = what_if.failed.iter().map(RegionId::as_str).collect();
    let failed = listed(&names);
    let count = what_if.services.len();
    let unserved = what_if
        .services
        .values()
        .filter(|fate| fate.unserved.is_some());
    match (count, unserved.count()) {
        (0, _) => format!("nothing runs in {failed}: nothing would move"),
        (_, 0) => format!(
            "without {failed}, {} would move, and all have room",
            plural(count, "service")
        ),
        (_, unserved) => format!(
            "without {failed}, {} would move, and {unserved} of them would not run or not wholly",
            plural(count, "service")
        ),
    }
}
