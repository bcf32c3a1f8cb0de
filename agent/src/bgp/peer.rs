//! Who tells of routes, and what happens to the way that they are told on.

use std::{fmt, net::IpAddr};

use leeward_common::bgp::COLLECTOR_MAX;

use super::update::{Family, Update};

/// Which of a router's tables a feed shows.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum View {
    /// What a peer of ours announces to us: its best routes.
    Session,
    /// What a neighbour announced to a monitored router, before its policy (Adj-RIB-In, RFC 7854).
    PrePolicy,
    /// The same after its policy.
    PostPolicy,
    /// What a monitored router announces to a neighbour (Adj-RIB-Out, RFC 8671).
    Out,
    /// What a monitored router uses (Loc-RIB, RFC 9069).
    LocRib,
    /// What a recording holds.
    Recording,
    /// What a peer of this route collector announces to it, elsewhere.
    Outside(Collector),
}

impl View {
    /// Whether it shows the outcome of a router's choice among its neighbours, which changes while these come up.
    #[must_use]
    pub const fn is_choice(self) -> bool {
        matches!(self, Self::Session | Self::LocRib | Self::Out)
    }

    /// The collector of a view from elsewhere: of routers that packets to a region need not go through, and of which nobody
    /// showed a table.
    #[must_use]
    pub const fn collector(&self) -> Option<&Collector> {
        match self {
            Self::Outside(collector) => Some(collector),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::PrePolicy => "pre-policy",
            Self::PostPolicy => "post-policy",
            Self::Out => "out",
            Self::LocRib => "loc-rib",
            Self::Recording => "recording",
            Self::Outside(_) => "outside",
        }
    }
}

/// The name of a route collector, like `rrc21.ripe.net`.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub struct Collector {
    /// Behind the name there are zeros.
    name: [u8; COLLECTOR_MAX],
}

impl Collector {
    /// A collector of this name; `None` unless it is one that a host may have, and short.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
        let mut name = [0; COLLECTOR_MAX];
        name.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        (!text.is_empty() && text.bytes().all(is_usual)).then_some(Self { name })
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.iter().take_while(|byte| **byte != 0);
        name.into_iter()
            .try_for_each(|byte| write!(f, "{}", char::from(*byte)))
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What tells one feed from another.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Feed {
    /// Who is connected to us, or what address the recording was made at.
    pub source: IpAddr,
    /// Which neighbour's routes these are; of a session the source itself, of a Loc-RIB unspecified.
    pub neighbour: IpAddr,
    /// Which of several address spaces the neighbour is in (RFC 7854, section 4.2); 0 for the global one.
    pub distinguisher: u64,
    /// Which of the router's tables.
    pub view: View,
}

impl Feed {
    /// The feed of a session of our own.
    #[must_use]
    pub const fn session(source: IpAddr) -> Self {
        Self {
            source,
            neighbour: source,
            distinguisher: 0,
            view: View::Session,
        }
    }

    /// The same feed before the other side of the router's policy.
    #[must_use]
    pub const fn viewed(self, view: View) -> Self {
        Self { view, ..self }
    }
}

impl fmt::Display for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.view.name();
        match self.view {
            View::Session | View::LocRib => write!(f, "{} {view}", self.source)?,
            View::Outside(collector) => write!(f, "{} at {collector}", self.neighbour)?,
            _ => write!(f, "{} {} {view}", self.source, self.neighbour)?,
        }
        match self.distinguisher {
            0 => Ok(()),
            other => write!(f, " in {other:#x}"),
        }
    }
}

/// What happens on a feed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// The session is up; its table follows. Seen without a [`Event::Down`] before, the session is a new one.
    Up {
        /// The neighbour's system; 0 if unknown.
        system: u32,
    },
    /// Nothing more will be heard on this session.
    Down(Down),
    /// Routes.
    Update(Update),
}

/// Why a session ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Down {
    /// The way to the source is gone: what its neighbours do is unknown.
    SourceLost,
    /// A neighbour's session with the monitored router ended, or that of our own peer with us.
    SessionLost(String),
    /// The router is told not to show this neighbour any longer.
    NotMonitored,
    /// It showed more than it may.
    Limit(String),
}

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SourceLost => f.write_str("the source is gone"),
            Self::SessionLost(why) => write!(f, "the session ended: {why}"),
            Self::NotMonitored => f.write_str("it is not monitored any longer"),
            Self::Limit(limit) => write!(f, "more than it may: {limit}"),
        }
    }
}

/// The end of a table, as an event.
#[must_use]
pub fn end_of_table(family: Family) -> Event {
    Event::Update(Update {
        end_of_table: Some(family),
        ..Update::default()
    })
}
