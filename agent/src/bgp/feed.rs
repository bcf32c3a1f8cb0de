//! Whether a feed may be believed now.
//!
//! Raw BGP is full of false alarms: a lost session looks like a mass withdrawal, a table transfer like a storm of changes,
//! and a router whose BMP is broken withdraws what it never announced. None of these may ever count as instability.
//!
//! ```text
//!             its table is there                     3 fabricated withdrawals, and most of them
//!   Loading ─────────────────────▶ Up ───────────────────────────────▶ Untrusted
//!     ▲  ▲                          │                                      │
//!     │  └──── up again ── Lost ◀───┴───────────── down ───────────────────┤
//!     └──────────────────────────────── up again ──────────────────────────┘
//! ```
//!
//! A family's table is there when its End-of-RIB has come (RFC 4724, section 2); of routers that send none, when a quiet
//! gap shows it (as B. Zhang et al., "Identifying BGP routing table transfers"): ten seconds in which the feed announced no
//! more than a hundredth of what it had announced since it came up. A view that shows a router's choice must have such
//! a gap in any case, since a router that restarts goes on choosing while its other neighbours come up; and before it showed half
//! of what it did on the session before, or anything at all, quiet only means that these are not yet up. After five minutes it
//! counts as loaded whatever it does.

use std::time::Duration;

use leeward_common::{bgp, time::Timestamp};

use super::{peer::View, update::Family};

/// How long a feed must be quiet before its table counts as transferred.
pub const QUIET: Duration = Duration::from_secs(10);

/// So many announcements within [`QUIET`] are quiet, however few there were before.
const QUIET_PREFIXES: u64 = 100;

/// A transfer counts as over after this long.
pub const TRANSFER_MAX: Duration = Duration::from_secs(5 * 60);

/// So many withdrawals of what was never announced make a feed untrusted, if they are most of its withdrawals.
pub const FABRICATED: u32 = 3;

/// What a feed is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// Its session is up; what it says counts once a family's table is there.
    Up,
    /// Its session ended.
    Lost,
    /// It makes things up.
    Untrusted,
}

/// What one feed did, and whether it may be believed.
#[derive(Clone, Debug)]
pub struct Gate {
    standing: Standing,
    /// The session that this is, counted up; what was said on another one is no longer true.
    pub epoch: u32,
    /// The neighbour's system; 0 if unknown.
    pub system: u32,
    /// Whether the session was followed from its beginning; else nobody knows what was announced before.
    pub is_whole: bool,
    /// Since when the session is up, or down.
    pub since: Timestamp,
    is_choice: bool,
    transfers: [Transfer; 2],
    /// Counted since the session is up.
    pub seen: Seen,
}

/// Cheap aggregates of all that a feed says, watched or not.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    /// UPDATEs.
    pub updates: u64,
    /// Prefixes announced.
    pub announced: u64,
    /// Prefixes withdrawn.
    pub withdrawn: u64,
    /// UPDATEs whose malformed attributes made withdrawals.
    pub malformed: u64,
    /// Withdrawals of watched prefixes.
    pub watched_withdrawn: u32,
    /// Those of watched prefixes that it never announced.
    pub fabricated: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Transfer {
    is_over: bool,
    has_end: bool,
    /// When the present stretch of [`QUIET`] began, and what was announced in it.
    began: Timestamp,
    announced: u64,
    before: u64,
    /// What was announced on the last session until its table was there.
    usual: u64,
}

impl Gate {
    /// The feed of a session that has come up just now.
    #[must_use]
    pub fn new(now: Timestamp, view: View, system: u32) -> Self {
        let mut gate = Self {
            standing: Standing::Lost,
            epoch: 0,
            system,
            is_whole: true,
            since: now,
            is_choice: view.is_choice(),
            transfers: [Transfer::default(); 2],
            seen: Seen::default(),
        };
        gate.up(now, system);
        gate
    }

    /// A new session.
    pub fn up(&mut self, now: Timestamp, system: u32) {
        self.standing = Standing::Up;
        self.epoch = self.epoch.wrapping_add(1);
        self.system = system;
        self.is_whole = true;
        self.since = now;
        for transfer in &mut self.transfers {
            *transfer = Transfer {
                began: now,
                usual: transfer.usual,
                ..Transfer::default()
            };
        }
        self.seen = Seen::default();
    }

    /// The session ended.
    pub fn down(&mut self, now: Timestamp) {
        self.standing = Standing::Lost;
        self.epoch = self.epoch.wrapping_add(1);
        self.since = now;
    }

    /// What it is worth.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// The same for others, who do not ask about one family: it is loading as long as no table is there.
    #[must_use]
    pub fn told(&self) -> bgp::Standing {
        match self.standing {
            Standing::Lost => bgp::Standing::Lost,
            Standing::Untrusted => bgp::Standing::Untrusted,
            Standing::Up if self.transfers.iter().any(|transfer| transfer.is_over) => {
                bgp::Standing::Believed
            }
            Standing::Up => bgp::Standing::Loading,
        }
    }

    /// Whether the table of a family is there and the feed may be believed.
    #[must_use]
    pub fn is_believed(&self, family: Family) -> bool {
        self.standing == Standing::Up && self.transfers[family as usize].is_over
    }

    /// Time passes. True when a table counts as transferred since.
    pub fn pass(&mut self, now: Timestamp) -> bool {
        let age = now.since(self.since);
        let is_choice = self.is_choice;
        let mut any = false;
        for transfer in &mut self.transfers {
            any |= transfer.pass(now, age, is_choice);
        }
        any && self.standing == Standing::Up
    }

    /// It announces so many prefixes of a family, and withdraws so many.
    pub fn say(&mut self, family: Family, announced: usize, withdrawn: usize) {
        let (announced, withdrawn) = (announced as u64, withdrawn as u64);
        self.seen.announced += announced;
        self.seen.withdrawn += withdrawn;
        self.transfers[family as usize].announced += announced;
    }

    /// The End-of-RIB of a family. True when its table counts as transferred since.
    pub fn end(&mut self, now: Timestamp, family: Family) -> bool {
        let transfer = &mut self.transfers[family as usize];
        transfer.has_end = true;
        // A choice must have been quiet too; time tells.
        let ends = !self.is_choice && !transfer.is_over;
        if ends {
            transfer.is_over = true;
        }
        (ends || self.pass(now)) && self.standing == Standing::Up
    }

    /// It withdrew a watched prefix that it had announced, or had not. True when it is untrusted since.
    pub fn withdraw_watched(&mut self, is_fabricated: bool) -> bool {
        self.seen.watched_withdrawn = self.seen.watched_withdrawn.saturating_add(1);
        if is_fabricated {
            self.seen.fabricated = self.seen.fabricated.saturating_add(1);
        }
        self.doubt()
    }

    /// Whether it made up too much; true when it is untrusted since.
    pub fn doubt(&mut self) -> bool {
        let Seen {
            announced,
            withdrawn,
            watched_withdrawn,
            fabricated,
            ..
        } = self.seen;
        let of_watched = fabricated >= FABRICATED && fabricated > watched_withdrawn / 2;
        // Of what is not watched no state is kept. But whoever only withdraws cannot have announced it.
        let of_all = announced == 0 && withdrawn >= u64::from(FABRICATED);
        let falls = self.is_whole && self.standing == Standing::Up && (of_watched || of_all);
        if falls {
            self.standing = Standing::Untrusted;
        }
        falls
    }
}

impl Transfer {
    fn pass(&mut self, now: Timestamp, age: Duration, is_choice: bool) -> bool {
        if self.is_over {
            return false;
        }
        let stretch = now.since(self.began);
        let total = self.before + self.announced;
        let was_quiet = stretch >= QUIET && self.announced <= QUIET_PREFIXES.max(total / 100);
        let is_plausible = !is_choice || total > 0 && total >= self.usual / 2;
        self.is_over =
            was_quiet && is_plausible || age >= TRANSFER_MAX || (self.has_end && !is_choice);
        if stretch >= QUIET {
            self.began = now;
            self.before = total;
            self.announced = 0;
        }
        if self.is_over {
            self.usual = total;
        }
        self.is_over
    }
}

#[cfg(test)]
#[path = "feed/tests.rs"]
mod tests;
