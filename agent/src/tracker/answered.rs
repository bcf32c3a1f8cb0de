//! How a probe was answered, and what a reflector says beside the fact. Pure.

use super::{
    directions::{Delays, Told},
    place::{Arrival, Probe},
};
use crate::{probe::stamp, prober::counters::StampSource};

/// How a probe was answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Answered {
    Reply,
    Reset,
    Error,
    /// A reply with the reflector's account.
    Reflected(Reflected),
}

impl Answered {
    pub(super) const fn is_reply(self) -> bool {
        matches!(self, Self::Reply | Self::Reflected(_))
    }
}

/// A reflector's account of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Reflected {
    /// Its number.
    pub(super) number: u32,
    /// When it came, nanoseconds of the reflector's clock; `None` when its times make no sense.
    received_ns: Option<u64>,
    /// How long the reflector took.
    dwell_ns: u64,
}

impl Reflected {
    pub(super) fn new(reply: &stamp::Reply) -> Self {
        let dwell_ns = reply.dwell_ns();
        Self {
            number: reply.sequence,
            received_ns: dwell_ns.and_then(|_| reply.received.unix_ns(reply.error.format())),
            dwell_ns: dwell_ns.unwrap_or(0),
        }
    }

    /// The round-trip time, nanoseconds, without the time that the reflector took, and what it tells of each direction. A
    /// reflector that claims to have taken longer than the whole way is not believed, and nothing is left out.
    pub(super) fn told(
        self,
        probe: &Probe,
        arrival: Arrival,
        measured: Option<(u64, StampSource)>,
    ) -> (Option<u64>, Option<Told>) {
        let rtt_ns =
            measured.map(|(whole_ns, _)| whole_ns.checked_sub(self.dwell_ns).unwrap_or(whole_ns));
        let believed = rtt_ns.is_some() && measured.is_some_and(|(ns, _)| ns >= self.dwell_ns);
        let delays = |received_ns: u64| {
            let left_ns = received_ns.checked_add(self.dwell_ns)?;
            Some(Delays {
                forward_ns: received_ns.wrapping_sub(probe.sent_ns()) as i64,
                backward_ns: arrival.stamp_ns?.wrapping_sub(left_ns) as i64,
                clock_era: arrival.clock_era,
            })
        };
        let told = Told {
            number: self.number,
            delays: self.received_ns.filter(|_| believed).and_then(delays),
        };
        (rtt_ns, Some(told))
    }
}
