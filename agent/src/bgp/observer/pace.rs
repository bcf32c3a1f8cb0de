//! How often one feed is told about one watched prefix: a route that flaps must not fill the way to the aggregators.
//!
//! What comes too fast is counted in the window like everything else. Of each kind the newest is held and told as soon as there is
//! room, so that what is known in the end is how it is: a withdrawal that is never told would be no reason to leave.

use std::time::Duration;

use leeward_common::{bgp::Change, time::Timestamp};

/// So many changes are told at once.
const BURST: u32 = 16;

/// From then on one in this time.
const EVERY: Duration = Duration::from_millis(250);

/// What one feed may be told of about one prefix.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When everything that was told is paid for.
    paid: Timestamp,
    /// Newest last, one of each kind.
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    /// The session of the feed that this happened on.
    epoch: u32,
    change: Change,
}

impl Pace {
    /// A change happened. Gives it back if it is told now; what is older of its kind is not told any more.
    pub(super) fn happen(&mut self, now: Timestamp, epoch: u32, change: Change) -> Option<Change> {
        self.held.retain(|own| kind(&own.change) != kind(&change));
        if self.spend(now) {
            return Some(change);
        }
        self.held.push(Held { epoch, change });
        None
    }

    /// Time passed: what was held and is still true of this session is told, oldest first.
    pub(super) fn pass(&mut self, now: Timestamp, epoch: u32) -> Option<Change> {
        self.held.retain(|own| own.epoch == epoch);
        (!self.held.is_empty() && self.spend(now)).then(|| self.held.remove(0).change)
    }

    /// Whether nothing is left to remember.
    pub(super) fn is_idle(&self, now: Timestamp) -> bool {
        self.held.is_empty() && self.paid <= now
    }

    fn spend(&mut self, now: Timestamp) -> bool {
        let paid = self.paid.max(now) + EVERY;
        let is_room = paid.since(now) <= EVERY * BURST;
        if is_room {
            self.paid = paid;
        }
        is_room
    }
}

/// Changes of one kind follow upon each other: the newest says how it is.
const fn kind(change: &Change) -> u8 {
    match change {
        Change::Withdrawn { .. } | Change::Returned { .. } => 0,
        Change::Exploring { .. } => 1,
        Change::OriginChanged { .. } => 2,
        Change::MoreSpecific(_) => 3,
        Change::Invalid(_) => 4,
        Change::Leaked { .. } => 5,
        Change::OverFailedLink(_) => 6,
    }
}
