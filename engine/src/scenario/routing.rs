//! What routers do in a scenario: feeds that agents hear, prefixes that regions are reached by, and what becomes of them.

use std::{fmt, net::IpAddr};

use leeward_common::{bgp::Prefix, id::AgentId};

/// A feed: what one router or peer tells an agent. From the start it can be believed and shows a route to every prefix.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Feed {
    /// Who hears it.
    pub agent: AgentId,
    /// The router or peer.
    pub source: IpAddr,
    /// The systems on its routes, nearest first.
    pub path: String,
}

/// What happens to feeds, and to what they say of prefixes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RoutingAction {
    /// Which feeds, one after the other.
    pub feeds: Vec<String>,
    /// Which prefixes; all if empty. What happens to feeds themselves concerns no prefix.
    pub prefixes: Vec<Prefix>,
    /// What happens.
    pub change: RoutingChange,
}

/// What happens to a feed, or to what it says of a prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RoutingChange {
    /// The feed's last route is withdrawn.
    Withdrawn,
    /// There is a route again.
    Returned,
    /// It goes through so many successively longer paths.
    Exploring(u32),
    /// Its origin is this system now.
    Origin(u32),
    /// The same, and by authorizations (RPKI) this system may not be it.
    Invalid(u32),
    /// Its path looks leaked: it goes between two systems without a provider through one that has some.
    Leaked,
    /// It is as it was at the start.
    Usual,
    /// So many changes that the figure of merit (RFC 2439) is this.
    Unstable(u32),
    /// It shows a route that others withdrew long ago.
    Stuck,
    /// The feed's session ends.
    Lost,
    /// Its session is up, and its table is transferred.
    Up,
    /// Its table is there.
    Loaded,
    /// It withdraws what it never announced.
    Fabricating,
}

impl fmt::Display for RoutingAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefixes: Vec<_> = self.prefixes.iter().map(ToString::to_string).collect();
        let prefixes = match prefixes.is_empty() {
            true => "every prefix".to_owned(),
            false => prefixes.join(", "),
        };
        let feeds = self.feeds.join(", ");
        match self.change {
            RoutingChange::Withdrawn => write!(f, "{prefixes} is withdrawn by {feeds}"),
            RoutingChange::Returned => write!(f, "{prefixes} is announced again by {feeds}"),
            RoutingChange::Exploring(paths) => {
                write!(f, "{feeds} goes through {paths} longer paths to {prefixes}")
            }
            RoutingChange::Origin(to) => write!(f, "{feeds} shows {prefixes} from AS{to}"),
            RoutingChange::Invalid(to) => {
                write!(
                    f,
                    "{feeds} shows {prefixes} from AS{to}, which may not announce it"
                )
            }
            RoutingChange::Leaked => write!(f, "the route of {feeds} to {prefixes} looks leaked"),
            RoutingChange::Usual => {
                write!(f, "the route of {feeds} to {prefixes} is as at the start")
            }
            RoutingChange::Unstable(0) => write!(f, "{prefixes} is quiet again for {feeds}"),
            RoutingChange::Unstable(penalty) => {
                write!(
                    f,
                    "{feeds} has a figure of merit of {penalty} for {prefixes}"
                )
            }
            RoutingChange::Stuck => write!(f, "the route of {feeds} to {prefixes} is stuck"),
            RoutingChange::Lost => write!(f, "the session of {feeds} ends"),
            RoutingChange::Up => write!(f, "the session of {feeds} is up again"),
            RoutingChange::Loaded => write!(f, "the table of {feeds} is there"),
            RoutingChange::Fabricating => write!(f, "{feeds} withdraws what it never announced"),
        }
    }
}
