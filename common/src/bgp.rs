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
        let bits = match address {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        };
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let beyond = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        (length <= longest && bits & beyond == 0).then_some(Self { address, length })
    }

    /// Its first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits it fixes, 0 to 32 or 128.
    #[must_use]
    pub const fn length(&self) -> u8 {
        self.length
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
        }
        self.events.iter().try_for_each(RoutingEvent::check)
    }
}

/// What one feed is worth, and what it said since its session is up, of watched prefixes and others.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FeedState {
    /// The feed, in words.
    pub feed: String,
    /// The router or peer that it comes from.
    pub source: IpAddr,
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
    /// What happened.
    pub what: What,
}

impl RoutingEvent {
    fn check(&self) -> Result<(), WireError> {
        at_most("name of a feed", self.feed.len(), limits::REASON_BYTES)?;
        let text = match &self.what {
            What::Prefix { change, .. } => match change {
                Change::Withdrawn { path }
                | Change::Returned { path }
                | Change::Exploring { path, .. } => path,
                Change::OriginChanged { .. } | Change::MoreSpecific(_) => return Ok(()),
            },
            What::Feed(FeedChange::Down { why, .. }) => why,
            What::Feed(FeedChange::Limited { limit }) => limit,
            What::Feed(_) => return Ok(()),
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
    },
    /// To the feed itself.
    Feed(FeedChange),
}

/// What happened to a watched prefix. Paths are at most [`PATH_TEXT_MAX`] bytes long, cut off behind that.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The feed's last route is withdrawn.
    Withdrawn {
        /// The path that it had.
        path: String,
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
