//! What routing did to a watched prefix, as one agent saw it.
//!
//! All figures are measures and judge nothing: `docs/bgp.md` tells the definition, source and unit of each. Only feeds that
//! can be believed count ([`Sight`]); what a feed says while its table is transferred, or after it was found to make
//! things up, is counted apart ([`Counts::disregarded`]).

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    id::RegionId,
    time::Timestamp,
    wire::{WireError, at_most, limits},
};

/// The most windows, the most events and the most feeds that one report holds; there may be several reports.
pub const REPORT_MAX: usize = 64;

/// The most origins, and the most more-specific prefixes, that a window names.
pub const NAMED_MAX: usize = 8;

/// The longest name of a route collector.
pub const COLLECTOR_MAX: usize = 32;

/// The most authorizations that an event names.
pub const ALLOWED_MAX: usize = 4;

/// A range of addresses that routes are announced for, like `192.0.2.0/24`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// A text that is no prefix.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{0:?} is not a prefix; write an address and a length, like \"192.0.2.0/24\" or \"2001:db8::/32\""
)]
pub struct InvalidPrefix(String);

impl Prefix {
    /// The prefix of this address and length; `None` if the length is longer than the address or bits are set beyond it.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let bits = leading_bits(address);
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let beyond = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        (length <= longest && bits & beyond == 0).then_some(Self { address, length })
    }

    /// Its first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether every address of another prefix is one of this.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let beyond = u128::MAX.checked_shr(u32::from(self.length)).unwrap_or(0);
        self.address.is_ipv4() == other.address.is_ipv4()
            && self.length <= other.length
            && (leading_bits(self.address) ^ leading_bits(other.address)) & !beyond == 0
    }

    /// How many leading bits it fixes, 0 to 32 or 128.
    #[must_use]
    pub const fn length(&self) -> u8 {
        self.length
    }
}

/// An address's bits, the first of them on top.
fn leading_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let parsed = text
            .split_once('/')
            .and_then(|(address, length)| Self::new(address.parse().ok()?, length.parse().ok()?));
        parsed.ok_or_else(|| InvalidPrefix(text.chars().take(64).collect()))
    }
}

impl TryFrom<String> for Prefix {
    type Error = InvalidPrefix;

    fn try_from(text: String) -> Result<Self, InvalidPrefix> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// How many feeds see a prefix. Only those count that can be believed now and have said something about it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Sight {
    /// Feeds that have a route.
    pub visible: u32,
    /// Feeds that had one and withdrew it.
    pub gone: u32,
    /// Different sources (routers or peers) among the latter.
    pub gone_sources: u32,
    /// Feeds that still show a route that most others withdrew long ago; they count as neither.
    pub stuck: u32,
    /// Feeds that cannot be believed now, but show a route, or showed one until their trouble began, and did not withdraw it.
    #[serde(default, skip_serializing_if = "Unsure::is_default")]
    pub unsure: Unsure,
    /// The same of peers of route collectors elsewhere, which count as none of the above.
    #[serde(default, skip_serializing_if = "Outside::is_default")]
    pub outside: Outside,
}

/// Feeds of which nobody knows whether they have a route, but which had one when that was known last.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Unsure {
    /// How many they are.
    pub feeds: u32,
    /// When that was known last of any of them, by the agent's clock.
    pub known_at: Timestamp,
}

impl Unsure {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// One more, of which that was known last at this time.
    pub fn add(&mut self, known_at: Timestamp) {
        self.feeds = self.feeds.saturating_add(1);
        self.known_at = self.known_at.max(known_at);
    }
}

/// How many peers of route collectors (RIS Live) see a prefix, of those that said something about it since the agent listens.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Outside {
    /// Peers that have a route.
    pub visible: u32,
    /// Peers that had one and withdrew it.
    pub gone: u32,
    /// Different collectors among the latter's.
    pub collectors: u32,
}

impl Outside {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a route's origin may announce it (RFC 6811).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Validity {
    /// Nobody can tell: no cache is configured, none is there, or the path does not say who announced it.
    #[default]
    Unknown,
    /// It may: an authorization covers the prefix, names the origin and allows the length.
    Valid,
    /// No authorization covers the prefix.
    NotFound,
    /// Authorizations cover the prefix, and none of them names the origin.
    InvalidOrigin,
    /// One names the origin, but allows no prefix of this length.
    InvalidLength,
}

impl Validity {
    fn is_unknown(&self) -> bool {
        *self == Self::Unknown
    }

    /// Whether it may not be announced like this.
    #[must_use]
    pub const fn is_invalid(self) -> bool {
        matches!(self, Self::InvalidOrigin | Self::InvalidLength)
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Valid => "valid",
            Self::NotFound => "not found",
            Self::InvalidOrigin => "invalid by its origin",
            Self::InvalidLength => "invalid by its length",
        })
    }
}

/// How many routes to a prefix there are of each [`Validity`], one for each feed that has a route.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Validities {
    /// [`Validity::Unknown`]
    pub unknown: u32,
    /// [`Validity::Valid`]
    pub valid: u32,
    /// [`Validity::NotFound`]
    pub not_found: u32,
    /// [`Validity::InvalidOrigin`]
    pub invalid_origin: u32,
    /// [`Validity::InvalidLength`]
    pub invalid_length: u32,
}

impl Validities {
    /// One more.
    pub const fn add(&mut self, validity: Validity) {
        let count = match validity {
            Validity::Unknown => &mut self.unknown,
            Validity::Valid => &mut self.valid,
            Validity::NotFound => &mut self.not_found,
            Validity::InvalidOrigin => &mut self.invalid_origin,
            Validity::InvalidLength => &mut self.invalid_length,
        };
        *count = count.saturating_add(1);
    }

    /// Those that may not be announced as they are.
    #[must_use]
    pub const fn invalid(&self) -> u32 {
        self.invalid_origin.saturating_add(self.invalid_length)
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Who may announce a prefix and its parts: a validated payload of a Route Origin Authorization (RFC 6811).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Allowed {
    /// The prefix.
    pub prefix: Prefix,
    /// The longest part of it that may be announced.
    pub length_max: u8,
    /// By whom; 0 is nobody (RFC 6483, section 4).
    pub system: u32,
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.system {
            0 => f.write_str("nobody")?,
            system => write!(f, "AS{system}")?,
        }
        write!(f, " for {}", self.prefix)?;
        match self.length_max == self.prefix.length() {
            true => Ok(()),
            false => write!(f, " up to /{}", self.length_max),
        }
    }
}

/// A route that came to be one that may not be announced as it is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Invalid {
    /// What is announced: the watched prefix or a part of it.
    pub prefix: Prefix,
    /// By whom; `None` if the path ends in a set.
    pub origin: Option<u32>,
    /// What this feed's route was before; `None` if there was none.
    pub was: Option<Validity>,
    /// What it is now.
    pub is: Validity,
    /// What the authorizations that cover the prefix allow, at most [`ALLOWED_MAX`] of them.
    pub allowed: Vec<Allowed>,
}

/// In words, with what is allowed.
impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.origin;
        let origin = origin.map_or_else(|| "a set".to_owned(), |origin| format!("AS{origin}"));
        write!(f, "{} from {origin} is {} (RPKI", self.prefix, self.is)?;
        match self.was {
            Some(was) => write!(f, "; it was {was})")?,
            None => f.write_str("; it is new)")?,
        }
        let allowed: Vec<_> = self.allowed.iter().map(Allowed::to_string).collect();
        match allowed.is_empty() {
            true => Ok(()),
            false => write!(f, "; allowed is {}", allowed.join(", ")),
        }
    }
}

/// Why a route looks leaked: passed on to whom it should not have been (RFC 7908).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeakSign {
    /// It is marked for customers only (RFC 9234), and yet it came up.
    OnlyToCustomer {
        /// Who marked it.
        marked_by: u32,
        /// Who passed it up: our neighbour, or a system that has no provider.
        heard_by: u32,
    },
    /// Between two systems that have no provider it went down and up again.
    Valley {
        /// The one nearer to us.
        upper: u32,
        /// Who passed it from the other to this one.
        through: u32,
        /// The one nearer to the origin.
        lower: u32,
    },
}

impl fmt::Display for LeakSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyToCustomer {
                marked_by,
                heard_by,
            } => write!(
                f,
                "AS{marked_by} marked it for its customers only, and AS{heard_by} passes it on"
            ),
            Self::Valley {
                upper,
                through,
                lower,
            } => write!(
                f,
                "AS{through} passes it from AS{lower} to AS{upper}, which both have no provider"
            ),
        }
    }
}

/// How many feeds show a route with a [`LeakSign`].
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Leaks {
    /// [`LeakSign::OnlyToCustomer`]
    pub only_to_customer: u32,
    /// [`LeakSign::Valley`]
    pub valley: u32,
}

impl Leaks {
    /// One more.
    pub const fn add(&mut self, sign: LeakSign) {
        let count = match sign {
            LeakSign::OnlyToCustomer { .. } => &mut self.only_to_customer,
            LeakSign::Valley { .. } => &mut self.valley,
        };
        *count = count.saturating_add(1);
    }

    /// All of them.
    #[must_use]
    pub const fn all(&self) -> u32 {
        self.only_to_customer.saturating_add(self.valley)
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What was counted in a window.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counts {
    /// Announcements that changed a feed's route or followed its withdrawal; the first one of a session does not.
    pub announcements: u32,
    /// Those that changed nothing, as when a table is asked for once more.
    pub duplicates: u32,
    /// Announcements that changed the AS path.
    pub path_changes: u32,
    /// Those that changed the origin.
    pub origin_changes: u32,
    /// Those that followed a withdrawal.
    pub returns: u32,
    /// Withdrawals of the last route that a feed had.
    pub withdrawals: u32,
    /// Withdrawals among these that a malformed attribute made (RFC 7606).
    pub malformed: u32,
    /// Withdrawals of one of several routes of a feed (RFC 7911).
    pub fewer_paths: u32,
    /// What feeds said that cannot be believed, or that transfer their table.
    pub disregarded: u32,
}

/// A more-specific prefix that was announced within a watched one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct MoreSpecific {
    /// The prefix.
    pub prefix: Prefix,
    /// Who announced it; `None` if the path does not tell.
    pub origin: Option<u32>,
    /// Whether that origin may announce it.
    #[serde(default, skip_serializing_if = "Validity::is_unknown")]
    pub validity: Validity,
}

/// What routing did to one watched prefix in one window.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PrefixWindow {
    /// The prefix.
    pub prefix: Prefix,
    /// The region that is reached by it.
    pub region: RegionId,
    /// When the window began, by this agent's clock.
    pub start: Timestamp,
    /// How long it was, in microseconds.
    pub span_us: u64,
    /// What was counted in it.
    pub counts: Counts,
    /// The most hops that a path was longer than the one that stood before; 0 if none was.
    pub longer_max: u32,
    /// The most hops in which a path differed from the one that stood before.
    pub edit_distance_max: u32,
    /// The most successively longer paths that one feed went through within two minutes.
    pub exploration_max: u32,
    /// The highest RFC 2439 figure of merit of a feed at the end, with a half-life of 30 s.
    pub penalty_fast: u32,
    /// The same with a half-life of 15 min.
    pub penalty_slow: u32,
    /// The origins that are seen at the end, at most [`NAMED_MAX`]; several are MOAS.
    pub origins: Vec<u32>,
    /// More-specific prefixes that came up, at most [`NAMED_MAX`].
    pub more_specifics: Vec<MoreSpecific>,
    /// Whether a feed shows the community that asks for traffic to be thrown away (RFC 7999).
    pub blackholed: bool,
    /// Whether a feed shows the community that announces a shutdown (RFC 8326).
    pub shutting_down: bool,
    /// Who sees the prefix at the end.
    pub sight: Sight,
    /// Whether its routes' origins may announce it, at the end.
    #[serde(default, skip_serializing_if = "Validities::is_default")]
    pub validities: Validities,
    /// How many of its routes look leaked, at the end.
    #[serde(default, skip_serializing_if = "Leaks::is_default")]
    pub leaks: Leaks,
    /// Whether a feed's route goes over a link that just failed, as it seems.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over_failed_link: bool,
    /// Whether nobody declared the prefix, and it is watched for the address that it holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub learned: bool,
}

impl PrefixWindow {
    /// Whether routing was quiet: nothing changed and nothing reverberates. What feeds see is no part of this.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let counts = Counts {
            duplicates: 0,
            disregarded: 0,
            ..self.counts
        };
        counts == Counts::default()
            && self.penalty_fast == 0
            && self.penalty_slow == 0
            && self.exploration_max == 0
            && self.more_specifics.is_empty()
    }
}

/// What an agent tells of routing: what happened at once, and what windows and feeds were like when they ended. Each list
/// has at most [`REPORT_MAX`] entries.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Routing {
    /// What happened since the last report.
    pub events: Vec<RoutingEvent>,
    /// The windows that ended; those are left out in which nothing happened and nobody sees the prefix differently since.
    pub windows: Vec<PrefixWindow>,
    /// The feeds, when these windows ended.
    pub feeds: Vec<FeedState>,
}

impl Routing {
    /// Checks the lengths of lists and texts.
    ///
    /// # Errors
    ///
    /// Returns [`WireError::TooLarge`] about the first that is too long.
    pub fn check(&self) -> Result<(), WireError> {
        at_most("list of routing events", self.events.len(), REPORT_MAX)?;
        at_most("list of routing windows", self.windows.len(), REPORT_MAX)?;
        at_most("list of feeds", self.feeds.len(), REPORT_MAX)?;
        for window in &self.windows {
            at_most("list of origins", window.origins.len(), NAMED_MAX)?;
            at_most(
                "list of more-specific prefixes",
                window.more_specifics.len(),
                NAMED_MAX,
            )?;
        }
        for feed in &self.feeds {
            at_most("name of a feed", feed.feed.len(), limits::REASON_BYTES)?;
            check_collector(feed.collector.as_ref())?;
        }
        self.events.iter().try_for_each(RoutingEvent::check)
    }
}

fn check_collector(name: Option<&String>) -> Result<(), WireError> {
    at_most(
        "name of a collector",
        name.map_or(0, String::len),
        COLLECTOR_MAX,
    )
}

/// What one feed is worth, and what it said since its session is up, of watched prefixes and others.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FeedState {
    /// The feed, in words.
    pub feed: String,
    /// The router or peer that it comes from.
    pub source: IpAddr,
    /// The route collector that hears it, if it is a view from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collector: Option<String>,
    /// The neighbour's system; 0 if unknown.
    pub system: u32,
    /// Whether it can be believed.
    pub standing: Standing,
    /// Since when its session is up, or down.
    pub since: Timestamp,
    /// UPDATEs.
    pub updates: u64,
    /// Prefixes announced.
    pub announced: u64,
    /// Prefixes withdrawn.
    pub withdrawn: u64,
    /// Watched prefixes withdrawn that it never announced.
    pub fabricated: u32,
}

/// Whether a feed can be believed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Its session is up, its table is transferred.
    Loading,
    /// It can.
    Believed,
    /// Its session ended.
    Lost,
    /// It makes things up.
    Untrusted,
}

/// Something that is told at once.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RoutingEvent {
    /// When this agent heard of it, by its own clock; what routers stamp is not used.
    pub at: Timestamp,
    /// The feed, in words.
    pub feed: String,
    /// The router or peer that the feed comes from.
    pub source: IpAddr,
    /// The route collector that hears it, if it is a view from elsewhere: no router that packets to the region go through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collector: Option<String>,
    /// What happened.
    pub what: What,
}

impl RoutingEvent {
    fn check(&self) -> Result<(), WireError> {
        at_most("name of a feed", self.feed.len(), limits::REASON_BYTES)?;
        check_collector(self.collector.as_ref())?;
        let text = match &self.what {
            What::Prefix { change, .. } => match change {
                Change::Withdrawn { path, .. }
                | Change::Returned { path }
                | Change::Exploring { path, .. }
                | Change::Leaked { path, .. } => path,
                Change::Invalid(invalid) => {
                    let named = invalid.allowed.len();
                    return at_most("list of authorizations", named, ALLOWED_MAX);
                }
                Change::OriginChanged { .. }
                | Change::MoreSpecific(_)
                | Change::OverFailedLink(_) => return Ok(()),
            },
            What::Feed(FeedChange::Down { why, .. }) => why,
            What::Feed(FeedChange::Limited { limit }) => limit,
            What::Feed(_) | What::Link(_) => return Ok(()),
        };
        at_most("text of a routing event", text.len(), PATH_TEXT_MAX)
    }
}

/// What happened.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// To a watched prefix.
    Prefix {
        /// The prefix.
        prefix: Prefix,
        /// The region that is reached by it.
        region: RegionId,
        /// What it was.
        change: Change,
        /// Who sees the prefix since.
        sight: Sight,
        /// Whether nobody declared it, and it is watched for the address that it holds.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        learned: bool,
    },
    /// To the feed itself.
    Feed(FeedChange),
    /// A link between two systems failed, as it seems from what the feed lost.
    Link(FailedLink),
}

/// A link between two systems that most likely failed, after what a feed lost in a burst.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FailedLink {
    /// The system that is nearer to the feed.
    pub near: u32,
    /// The one behind it.
    pub far: u32,
    /// How well it fits, in thousandths: 1000 if everything that was lost went over it, and nothing does any more.
    pub fit_permille: u32,
    /// Routes that went over it and are withdrawn, or moved away to longer paths.
    pub lost: u32,
    /// Routes that still go over it.
    pub remaining: u32,
    /// Other links that fit as well.
    pub alike: u32,
}

/// What happened to a watched prefix. Paths are at most [`PATH_TEXT_MAX`] bytes long, cut off behind that.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The feed's last route is withdrawn.
    Withdrawn {
        /// The path that it had.
        path: String,
        /// Whether a malformed attribute made it (RFC 7606): the neighbour may have a route all the same.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        malformed: bool,
    },
    /// There is a route again.
    Returned {
        /// Its path.
        path: String,
    },
    /// A longer path, the second or a later one within two minutes.
    Exploring {
        /// How many there were.
        paths: u32,
        /// The newest.
        path: String,
    },
    /// Another origin.
    OriginChanged {
        /// The one before.
        from: Option<u32>,
        /// The one now.
        to: Option<u32>,
    },
    /// A more-specific prefix came up within it.
    MoreSpecific(MoreSpecific),
    /// Its route, or that to a part of it, may not be announced as it is (RFC 6811), and was not so before.
    Invalid(Invalid),
    /// Its route looks leaked, and did not before.
    Leaked {
        /// Why it does.
        sign: LeakSign,
        /// Its path.
        path: String,
    },
    /// The feed still shows a route, and that goes over a link that just failed, as it seems.
    OverFailedLink(FailedLink),
}

/// The longest path in words.
pub const PATH_TEXT_MAX: usize = 256;

/// What happened to a feed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedChange {
    /// A session is up, and its table is transferred.
    Up,
    /// A family's table is there; from now on changes count.
    Loaded,
    /// The session ended; what it said counts no more. This is no withdrawal.
    Down {
        /// Why.
        why: String,
        /// How many watched prefixes it had a route for.
        watched: u32,
    },
    /// It withdraws what it never announced; it is not believed until its next session.
    Untrusted {
        /// How often it did.
        fabricated: u32,
    },
    /// It shows more than is kept of a feed; the rest is not followed.
    Limited {
        /// What there was too much of.
        limit: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_what_it_is_written_as() {
        for text in [
            "192.0.2.0/24",
            "0.0.0.0/0",
            "2001:db8::/32",
            "::/0",
            "192.0.2.1/32",
            "2001:db8::1/128",
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_invalid_route_is_told_with_what_is_allowed() {
        let mut invalid = Invalid {
            prefix: "192.0.2.0/25".parse().unwrap(),
            origin: Some(64_666),
            was: Some(Validity::Valid),
            is: Validity::InvalidOrigin,
            allowed: vec![
                Allowed {
                    prefix: "192.0.2.0/24".parse().unwrap(),
                    length_max: 25,
                    system: 64_500,
                },
                Allowed {
                    prefix: "192.0.0.0/16".parse().unwrap(),
                    length_max: 16,
                    system: 0,
                },
            ],
        };
        assert_eq!(
            invalid.to_string(),
            "192.0.2.0/25 from AS64666 is invalid by its origin (RPKI; it was valid); allowed is AS64500 for 192.0.2.0/24 up \
             to /25, nobody for 192.0.0.0/16"
        );
        (invalid.origin, invalid.was) = (None, None);
        invalid.allowed.clear();
        assert_eq!(
            invalid.to_string(),
            "192.0.2.0/25 from a set is invalid by its origin (RPKI; it is new)"
        );
    }

    #[test]
    fn a_prefix_covers_itself_and_its_parts() {
        let covers = |a: &str, b: &str| {
            let [a, b] = [a, b].map(|text| text.parse::<Prefix>().unwrap());
            a.covers(&b)
        };
        for (a, b) in [
            ("198.51.100.0/24", "198.51.100.0/24"),
            ("198.51.0.0/16", "198.51.100.0/24"),
            ("0.0.0.0/0", "198.51.100.0/24"),
            ("2001:db8::/32", "2001:db8:1::/128"),
            ("198.51.100.7/32", "198.51.100.7/32"),
        ] {
            assert!(covers(a, b) && (a == b || !covers(b, a)), "{a} {b}");
        }
        assert!(!covers("198.51.100.0/24", "198.51.101.0/24"));
        assert!(!covers("0.0.0.0/0", "::/0"), "another family");
    }

    #[test]
    fn a_text_with_bits_beyond_its_length_is_no_prefix() {
        for text in [
            "192.0.2.1/24",
            "192.0.2.0/33",
            "2001:db8::1/64",
            "::/129",
            "192.0.2.0",
            "x/8",
            "",
        ] {
            let error = text.parse::<Prefix>().unwrap_err();
            assert!(error.to_string().contains("is not a prefix"), "{error}");
        }
    }
}
