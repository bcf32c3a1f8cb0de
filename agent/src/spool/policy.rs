//! When a message may be forgotten. [pure]

/// How many aggregators must have a message before it is forgotten. Each gets everything as long as it is connected; this
/// is about what is kept for those that are not.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Policy {
    /// One is enough.
    Any,
    /// More than half of them.
    Quorum,
    /// Every one of them.
    #[default]
    All,
}

impl Policy {
    /// Whether a message may be forgotten that these aggregators have stored, one bit each, and these have settled in any
    /// way: stored or refused.
    #[must_use]
    pub const fn is_met(self, stored: u16, settled: u16, aggregators: usize) -> bool {
        let stored = stored.count_ones() as usize;
        let enough = match self {
            Self::Any => stored >= 1,
            Self::Quorum => stored > aggregators / 2,
            Self::All => false,
        };
        enough || settled.count_ones() as usize >= aggregators
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_half_and_all() {
        let met =
            |policy: Policy| [0b000, 0b001, 0b011, 0b111].map(|mask| policy.is_met(mask, mask, 3));
        assert_eq!(met(Policy::Any), [false, true, true, true]);
        assert_eq!(met(Policy::Quorum), [false, false, true, true]);
        assert_eq!(met(Policy::All), [false, false, false, true]);
    }

    #[test]
    fn what_was_refused_is_not_stored_and_need_not_be_kept_for_ever() {
        assert!(!Policy::Any.is_met(0b00, 0b01, 2));
        assert!(Policy::Any.is_met(0b00, 0b11, 2));
        assert!(!Policy::Quorum.is_met(0b001, 0b011, 3));
    }
}
