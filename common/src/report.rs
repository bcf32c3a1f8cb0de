//! What one path did in one window.
//!
//! A probe's life, as an agent accounts for it:
//!
//! ```text
//!                        ┌─▶ NotSent, LocalDrop                                (never left this host)
//!  scheduled ─▶ sent ────┼─▶ Replied, Duplicate, Refused, IcmpError            (answered in time)
//!                        └─▶ overdue ──┬─▶ Late                                (answered before the expiry)
//!                                      └─▶ Lost                                (not answered at all)
//! ```
//!
//! A report counts what the agent *learned* in its window, whenever the probe was sent: so a report is complete the
//! moment its window ends and nobody waits for a timeout. The price is one more number, [`Counts::open`], which
//! makes the account checkable from report to report:
//! `open = open of the window before + scheduled - sum of the classes`.
//!
//! A window may come in parts: when a path falls silent, its report so far leaves at once and the next one of the
//! same window counts only what came after ([`crate::silence`]). The account goes on from part to part.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    histogram::{Histogram, MAX_US},
    id::{RegionId, TargetId},
    time::Timestamp,
};

/// How a target is probed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// ICMP or ICMPv6 echo request.
    Icmp,
    /// A TCP SYN; the kernel resets what the answer would open.
    TcpSyn,
    /// A STAMP request over UDP (RFC 8762) to a reflector, whose own time is left out of the round-trip time.
    Stamp,
}

impl ProbeKind {
    /// Every kind, in wire order.
    pub const ALL: [Self; 3] = [Self::Icmp, Self::TcpSyn, Self::Stamp];

    /// The name used on the wire, in config and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Icmp => "icmp",
            Self::TcpSyn => "tcp_syn",
            Self::Stamp => "stamp",
        }
    }
}

impl std::fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A target and how it is probed. With the agent that probes it, this is a path of the architecture.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Path {
    /// The target.
    pub target: TargetId,
    /// The probe kind.
    pub kind: ProbeKind,
    /// The region that the target stands in; `None` for an outside target.
    pub region: Option<RegionId>,
}

/// A fixed span of time, aligned to UTC.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Window {
    /// When it begins.
    pub start: Timestamp,
    /// How long it lasts.
    pub length: Duration,
}

impl Window {
    /// When it ends, exclusive.
    #[must_use]
    pub fn end(self) -> Timestamp {
        self.start + self.length
    }
}

/// The one class that every probe ends in.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// Answered once, before the deadline.
    Replied,
    /// Answered after the deadline and before the expiry.
    Late,
    /// Answered before the deadline, and again before the window that counted the answer closed. A repeat after that
    /// changes no account any more; the agent counts it among its strays.
    Duplicate,
    /// Not answered before the expiry.
    Lost,
    /// A TCP reset in answer to a SYN: the host is alive, the port is closed.
    Refused,
    /// A router or the host answered with an ICMP error that quotes the probe.
    IcmpError,
    /// Its time passed before this agent could send it, or a rate cap forbade it.
    NotSent,
    /// This host's kernel refused the packet or may have dropped its answer, or its clock stepped under the probe.
    LocalDrop,
}

impl Class {
    /// Every class, in wire order.
    pub const ALL: [Self; 8] = [
        Self::Replied,
        Self::Late,
        Self::Duplicate,
        Self::Lost,
        Self::Refused,
        Self::IcmpError,
        Self::NotSent,
        Self::LocalDrop,
    ];

    /// The name used in metrics and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replied => "replied",
            Self::Late => "late",
            Self::Duplicate => "duplicate",
            Self::Lost => "lost",
            Self::Refused => "refused",
            Self::IcmpError => "icmp_error",
            Self::NotSent => "not_sent",
            Self::LocalDrop => "local_drop",
        }
    }
}

/// How many probes of a window came to what.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Probes whose scheduled time lies in this window.
    pub scheduled: u32,
    /// Probes that ended in this window, by class, in the order of [`Class::ALL`].
    pub classes: [u32; 8],
    /// Probes whose deadline passed unanswered in this window. Not a class: each ends as late or lost, now or in a
    /// later window. It is what tells of an outage before the expiry does.
    pub overdue: u32,
    /// Probes that were sent, or due, and had not ended when the window did.
    pub open: u32,
    /// What was unanswered in a row when the window ended; `None` from agents that do not say.
    pub silence: Option<Silence>,
    /// What is known of each direction; `None` where the kind of probe tells nothing of it.
    pub one_way: Option<OneWay>,
}

/// What a path did in each direction, as far as its reflector tells.
///
/// The reflector numbers what reaches it. So it is known of a lost probe whether the request or the reply was lost, but
/// only once a later reply has come with a number: until then the loss is pending. As for probes
/// ([`Counts::open`]), this makes an account that can be checked from report to report:
/// `pending = pending of the report before + lost - lost forward - lost backward - lost unknown`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct OneWay {
    /// From the agent to the target.
    pub forward: Direction,
    /// From the target to the agent.
    pub backward: Direction,
    /// Lost probes of which it has become clear in this window that nobody will know where they were lost: the
    /// reflector began to count anew, does not count, or counted what does not fit.
    pub lost_unknown: u32,
    /// Lost probes of which a later reply may tell where, as the window ended. None comes while the path is silent.
    pub lost_pending: u32,
}

/// One direction of a path in a window.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Direction {
    /// Lost probes of which it became known in this window that they were lost in this direction.
    pub lost: u32,
    /// Packets that arrived after one that was sent later (RFC 4737 section 3).
    pub reordered: u32,
    /// How much the one-way delay differed from one probe to the next.
    pub variation: Variation,
}

/// One-way delay variation between consecutive probes (RFC 3393 section 2.4, RFC 5481 section 4.1): the clocks' offset is
/// in neither. A lost probe makes no pair with its neighbours.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Variation {
    /// Pairs of consecutive probes that were both answered.
    pub pairs: u32,
    /// Sum of the absolute differences, microseconds.
    pub sum_us: u64,
    /// The largest of them, microseconds; 0 without pairs.
    pub max_us: u32,
}

impl Variation {
    /// Adds the difference of a pair, microseconds, whatever its sign.
    pub fn record(&mut self, differs_us: u32) {
        self.pairs = self.pairs.saturating_add(1);
        self.sum_us = self.sum_us.saturating_add(differs_us.into());
        self.max_us = self.max_us.max(differs_us);
    }

    /// The mean absolute difference, microseconds; `None` without pairs.
    #[must_use]
    pub fn mean_us(&self) -> Option<f64> {
        (self.pairs > 0).then(|| self.sum_us as f64 / f64::from(self.pairs))
    }

    fn add(&mut self, other: &Self) {
        self.pairs = self.pairs.saturating_add(other.pairs);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.max_us = self.max_us.max(other.max_us);
    }
}

impl Direction {
    fn add(&mut self, other: &Self) {
        self.lost = self.lost.saturating_add(other.lost);
        self.reordered = self.reordered.saturating_add(other.reordered);
        self.variation.add(&other.variation);
    }
}

impl OneWay {
    /// Adds what another path or window tells. What is pending is added too: to sum up one path over windows, take that
    /// of the last one.
    pub fn add(&mut self, other: &Self) {
        self.forward.add(&other.forward);
        self.backward.add(&other.backward);
        self.lost_unknown = self.lost_unknown.saturating_add(other.lost_unknown);
        self.lost_pending = self.lost_pending.saturating_add(other.lost_pending);
    }
}

/// Probes unanswered in a row, and none answered since.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Silence {
    /// How many were overdue, or answered by an error, since the last answer.
    pub unanswered: u32,
    /// Time since that answer, or since the path was first probed; zero while `unanswered` is.
    pub lasts: Duration,
}

/// What an agent noticed about itself in a window: facts, none of which it judges.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct LocalHealth {
    /// Probes that came due, on all paths together.
    pub due: u32,
    /// Of those, how many it could not send in time.
    pub not_sent: u32,
    /// Of those, how many its kernel refused to send.
    pub send_errors: u32,
    /// How late those that it sent left, microseconds, on the average,
    pub lateness_mean_us: u32,
    /// and at most.
    pub lateness_max_us: u32,
    /// Packets that its kernel dropped because a receive queue was full.
    pub receive_overflow: u32,
    /// By how much its wall clock was set, microseconds, regardless of the direction.
    pub clock_step_us: u32,
}

impl Counts {
    /// Probes of this class.
    #[must_use]
    pub const fn of(&self, class: Class) -> u32 {
        self.classes[class as usize]
    }

    /// Counts one probe that ended.
    pub fn end(&mut self, class: Class) {
        let count = &mut self.classes[class as usize];
        *count = count.saturating_add(1);
    }

    /// Probes that ended in this window.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.classes.iter().map(|&n| u64::from(n)).sum()
    }

    /// Adds what the same path did in the window after this one, so that both are one longer window. Counts are summed
    /// up; of what tells how the path stood when a window ended, that of the later one counts.
    pub fn follow(&mut self, later: &Self) {
        let add = |own: &mut u32, other: u32| *own = own.saturating_add(other);
        add(&mut self.scheduled, later.scheduled);
        for (own, &other) in self.classes.iter_mut().zip(&later.classes) {
            add(own, other);
        }
        add(&mut self.overdue, later.overdue);
        self.open = later.open;
        self.silence = later.silence.or(self.silence);
        if let Some(other) = &later.one_way {
            let own = self.one_way.get_or_insert_default();
            own.lost_pending = 0;
            own.add(other);
        }
    }

    /// Probes that were answered before their deadline: replied, duplicate or refused.
    #[must_use]
    pub fn answered(&self) -> u64 {
        [Class::Replied, Class::Duplicate, Class::Refused]
            .iter()
            .map(|&class| u64::from(self.of(class)))
            .sum()
    }
}

/// What one path did in one window.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// What became of the probes.
    pub counts: Counts,
    /// Round-trip times in microseconds of the probes that ended as replied, late, duplicate or refused.
    pub rtt: Rtt,
}

impl Report {
    /// Adds what the same path did in the window after this one; see [`Counts::follow`].
    ///
    /// # Errors
    ///
    /// Returns [`crate::histogram::SchemaMismatch`] and changes nothing when the schemas differ.
    pub fn follow(&mut self, later: &Self) -> Result<(), crate::histogram::SchemaMismatch> {
        self.rtt.merge(&later.rtt)?;
        self.counts.follow(&later.counts);
        Ok(())
    }
}

impl LocalHealth {
    /// Adds what the agent noticed in the window after this one. The mean is that of all probes that were sent, rounded
    /// down.
    pub fn follow(&mut self, later: &Self) {
        let sent = |of: &Self| {
            u64::from(of.due.saturating_sub(of.not_sent)).saturating_sub(of.send_errors.into())
        };
        let weighed = |of: &Self| sent(of).saturating_mul(of.lateness_mean_us.into());
        let mean = (weighed(self) + weighed(later)).checked_div(sent(self) + sent(later));
        let add = |own: &mut u32, other: u32| *own = own.saturating_add(other);
        self.lateness_mean_us = mean.map_or(0, |mean| u32::try_from(mean).unwrap_or(u32::MAX));
        self.lateness_max_us = self.lateness_max_us.max(later.lateness_max_us);
        add(&mut self.due, later.due);
        add(&mut self.not_sent, later.not_sent);
        add(&mut self.send_errors, later.send_errors);
        add(&mut self.receive_overflow, later.receive_overflow);
        add(&mut self.clock_step_us, later.clock_step_us);
    }
}

/// Round-trip times of a window (RFC 2681).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rtt {
    /// The distribution.
    pub histogram: Histogram,
    /// The exact smallest, in microseconds; 0 while the histogram is empty.
    pub min_us: u32,
    /// The exact largest, in microseconds; 0 while the histogram is empty.
    pub max_us: u32,
    /// The exact sum, in microseconds.
    pub sum_us: u64,
}

impl Rtt {
    /// No samples yet.
    #[must_use]
    pub fn empty(schema: crate::histogram::Schema) -> Self {
        Self {
            histogram: Histogram::new(schema),
            min_us: 0,
            max_us: 0,
            sum_us: 0,
        }
    }

    /// Adds one sample, in microseconds. More than [`MAX_US`] counts as that, so that the extremes and the sum are
    /// always those of the histogram.
    pub fn record(&mut self, rtt_us: u32) {
        let rtt_us = rtt_us.min(MAX_US);
        let first = self.histogram.is_empty();
        self.min_us = if first {
            rtt_us
        } else {
            self.min_us.min(rtt_us)
        };
        self.max_us = self.max_us.max(rtt_us);
        self.sum_us = self.sum_us.saturating_add(u64::from(rtt_us));
        self.histogram.record(rtt_us);
    }

    /// Adds the samples of another window of the same schema.
    ///
    /// # Errors
    ///
    /// Returns [`crate::histogram::SchemaMismatch`] and changes nothing when the schemas differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), crate::histogram::SchemaMismatch> {
        if other.histogram.is_empty() {
            return Ok(());
        }
        let first = self.histogram.is_empty();
        self.histogram.merge(&other.histogram)?;
        self.min_us = if first {
            other.min_us
        } else {
            self.min_us.min(other.min_us)
        };
        self.max_us = self.max_us.max(other.max_us);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        Ok(())
    }
}
