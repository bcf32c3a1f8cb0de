//! Which transport is tried next. [pure]
//!
//! QUIC is preferred. Only what looks like a network without UDP counts against it: attempts that nobody answered, and sessions
//! that fell silent soon after they began. After some of them in a row TLS has its turn; if that fails as well, the aggregator is
//! away, and both are tried in turn. While TLS carries the session QUIC is tried beside it now and then.

use std::time::Duration;

use super::Transport;
use crate::config::Carry;

/// Attempts by QUIC in a row that nobody answered, before TLS is tried.
const ATTEMPTS: u32 = 3;

/// A session that lasted so long was not cut by a network that lets UDP through for a while only.
const LASTING: Duration = Duration::from_secs(120);

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub(in crate::uplink) struct Choice {
    carry: Carry,
    unanswered: u32,
    /// Sessions over QUIC in a row that fell silent before they had lasted.
    cut: u32,
    tls_failed: bool,
}

impl Choice {
    pub(in crate::uplink) const fn new(carry: Carry) -> Self {
        Self {
            carry,
            unanswered: 0,
            cut: 0,
            tls_failed: false,
        }
    }

    /// What is to be dialled now.
    pub(in crate::uplink) const fn next(&self) -> Transport {
        match self.carry {
            Carry::Quic => Transport::Quic,
            Carry::Tls => Transport::Tls,
            Carry::Auto if self.is_quic_hopeless() && !self.tls_failed => Transport::Tls,
            Carry::Auto => Transport::Quic,
        }
    }

    const fn is_quic_hopeless(&self) -> bool {
        self.unanswered >= ATTEMPTS || self.cut >= ATTEMPTS
    }

    /// A session that had been welcomed has ended, by silence or otherwise.
    pub(in crate::uplink) fn on_ended(
        &mut self,
        transport: Transport,
        lasted: Duration,
        by_silence: bool,
    ) {
        match transport {
            Transport::Quic if lasted >= LASTING => self.cut = 0,
            Transport::Quic if by_silence => self.cut = self.cut.saturating_add(1),
            Transport::Quic | Transport::Tls => {}
        }
    }

    /// The aggregator let us in.
    pub(in crate::uplink) const fn on_welcomed(&mut self, transport: Transport) {
        self.tls_failed = false;
        if matches!(transport, Transport::Quic) {
            self.unanswered = 0;
        }
    }

    /// It came to no welcome. Of QUIC: whether anybody answered, if that can be known.
    pub(in crate::uplink) const fn on_failed(
        &mut self,
        transport: Transport,
        answered: Option<bool>,
    ) {
        match (transport, answered) {
            (Transport::Tls, _) => self.tls_failed = true,
            (Transport::Quic, Some(true)) => self.unanswered = 0,
            (Transport::Quic, Some(false)) => self.unanswered = self.unanswered.saturating_add(1),
            (Transport::Quic, None) => {}
        }
        if matches!(transport, Transport::Quic) {
            self.tls_failed = false;
        }
    }

    /// Whether QUIC should be tried beside a session that this carries.
    pub(in crate::uplink) const fn prefers_another(&self, transport: Transport) -> bool {
        matches!((self.carry, transport), (Carry::Auto, Transport::Tls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_has_its_turn_when_nobody_answers_quic() {
        let mut choice = Choice::new(Carry::Auto);
        let mut tried = Vec::new();
        for _ in 0..6 {
            tried.push(choice.next().as_str());
            choice.on_failed(choice.next(), Some(false));
        }
        assert_eq!(tried, ["quic", "quic", "quic", "tls", "quic", "tls"]);
        choice.on_failed(Transport::Quic, Some(false));
        choice.on_welcomed(Transport::Tls);
        assert_eq!(
            choice.next(),
            Transport::Tls,
            "it works, and is kept after an interruption"
        );
        assert!(choice.prefers_another(Transport::Tls));
        choice.on_welcomed(Transport::Quic);
        assert_eq!(choice.next(), Transport::Quic);
    }

    #[test]
    fn an_answer_over_udp_says_that_udp_gets_through() {
        let mut choice = Choice::new(Carry::Auto);
        for answered in [Some(false), Some(false), Some(true), Some(false), None] {
            choice.on_failed(Transport::Quic, answered);
            assert_eq!(choice.next(), Transport::Quic);
        }
        for _ in 0..2 {
            choice.on_failed(Transport::Quic, Some(false));
        }
        assert_eq!(choice.next(), Transport::Tls);
    }

    #[test]
    fn a_network_that_cuts_udp_after_a_while_is_one_without() {
        let mut choice = Choice::new(Carry::Auto);
        let mut session = |lasted, by_silence| {
            choice.on_welcomed(Transport::Quic);
            choice.on_ended(Transport::Quic, Duration::from_secs(lasted), by_silence);
            choice.next()
        };
        assert_eq!(session(40, true), Transport::Quic);
        assert_eq!(session(40, true), Transport::Quic);
        // The aggregator said goodbye: that tells nothing of the network.
        assert_eq!(session(1, false), Transport::Quic);
        assert_eq!(session(40, true), Transport::Tls);
        // QUIC was tried again beside TLS, and cut again.
        assert_eq!(session(40, true), Transport::Tls);
        assert_eq!(session(200, true), Transport::Quic);
    }

    #[test]
    fn something_else_behind_the_tcp_port_keeps_nobody_from_trying_quic() {
        let mut choice = Choice::new(Carry::Auto);
        for _ in 0..3 {
            choice.on_failed(Transport::Quic, Some(false));
        }
        choice.on_failed(Transport::Tls, Some(true));
        assert_eq!(choice.next(), Transport::Quic);
    }

    #[test]
    fn an_operator_may_choose() {
        for (carry, transport) in [(Carry::Quic, Transport::Quic), (Carry::Tls, Transport::Tls)] {
            let mut choice = Choice::new(carry);
            for _ in 0..9 {
                assert_eq!(choice.next(), transport);
                assert!(!choice.prefers_another(transport));
                choice.on_failed(transport, Some(false));
            }
        }
    }
}
