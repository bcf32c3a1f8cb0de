//! Where services go when regions fail: all that are affected at once, by what each region has room for ([`crate::plan`]).

use std::collections::{BTreeMap, BTreeSet};

use leeward_common::id::{RegionId, ResourceId, ServiceId};
use serde::{Deserialize, Serialize};

use crate::decision::{Share, Unserved};

/// What would happen if some regions failed now.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct WhatIf {
    /// The regions.
    pub failed: BTreeSet<RegionId>,
    /// The services that run in one of them, and where they would go.
    pub services: BTreeMap<ServiceId, Fate>,
    /// What that would do to each region that is left, by resource.
    pub regions: BTreeMap<RegionId, BTreeMap<ResourceId, Load>>,
    /// The state of the graph that it was made from.
    pub graph_version: u64,
}

/// Where a service would go.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Fate {
    /// Where it runs now.
    pub before: Vec<Share>,
    /// Where it would run.
    pub after: Vec<Share>,
    /// What of it would run nowhere; `None` if all of it would run.
    pub unserved: Option<Unserved>,
    /// Its priority: 0 is the most important.
    pub priority: u8,
}

/// One resource of a region before and after, in the resource's own unit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Load {
    /// All that is offered; `None` if nobody offers anything of the region, which then takes what comes.
    pub offered: Option<f64>,
    /// What may be used at most: what is offered, less what is kept free and reserved for others.
    pub usable: Option<f64>,
    /// What is used now.
    pub before: f64,
    /// What would be used.
    pub after: f64,
    /// What one more unit would be worth; 0 where some is left.
    pub price: Price,
}

/// What one more unit of a resource would be worth.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Price {
    /// The most important priority of which more would be served, and how many services of it.
    pub serves: Option<(u8, f64)>,
    /// By how much the sum of the services' scores, in natural logarithms, would be better.
    pub saves: f64,
}
