//! One session with a peer that connected to us: bytes and time in, bytes and events out.
//!
//! The states and timers are `rustbgpd-fsm`'s (RFC 4271), the messages [`super::wire`]'s; both know no sockets. We listen
//! only: nothing is ever announced (our table is said to be whole, and is empty), nobody is to keep anything of ours over a restart,
//! several paths are received but none sent. A peer that does not keep to the protocol gets a NOTIFICATION and loses its own
//! session, and nothing else happens.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use rustbgpd_fsm::{
    Action, Event as Happening, NegotiatedSession, PeerConfig, SessionState, TimerType,
};
use rustbgpd_wire::{
    AddPathMode, Afi, Capability, DecodeError, Message, OpenMessage, RouteRefreshMessage, Safi,
};
use tokio::time::Instant;

use super::{
    peer::{Down, Event},
    wire::{self, Dialect, Speaker},
};

/// A peer must have introduced itself by then.
const OPEN_WITHIN: Duration = Duration::from_secs(30);

/// Who we are to a peer, and who it must be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Where it connects from.
    pub address: IpAddr,
    /// Its system.
    pub system: u32,
    /// Ours.
    pub own_system: u32,
    /// Our identifier.
    pub router_id: Ipv4Addr,
    /// After this long without a word it is gone; 3 s or more, whole seconds.
    pub hold_time: Duration,
}

/// What is to be done after something happened.
#[derive(Debug, Default)]
pub struct Step {
    /// To be sent to the peer.
    pub send: Vec<u8>,
    /// What happened on the feed.
    pub events: Vec<Event>,
    /// Why the connection is to be closed, if it is.
    pub close: Option<String>,
}

/// A session.
#[derive(Debug)]
pub struct Session {
    fsm: rustbgpd_fsm::Session,
    own_system: u32,
    buffer: Vec<u8>,
    dialect: Dialect,
    extended: bool,
    /// What it can be asked for once more (RFC 2918); nothing if it cannot be asked.
    refreshes: Vec<(Afi, Safi)>,
    hold: Option<Instant>,
    keepalive: Option<Instant>,
    /// Why it ends, as far as known.
    why: Option<String>,
}

impl Session {
    /// A peer has connected.
    #[must_use]
    pub fn accept(now: Instant, peer: &Peer) -> (Self, Step) {
        let mut config = PeerConfig::new(peer.own_system, peer.system, peer.router_id);
        config.hold_time = u16::try_from(peer.hold_time.as_secs()).unwrap_or(u16::MAX);
        config.min_hold_time = Some(3);
        config.families = vec![(Afi::Ipv4, Safi::Unicast), (Afi::Ipv6, Safi::Unicast)];
        config.add_path_receive = true;
        let mut session = Self {
            fsm: rustbgpd_fsm::Session::new(config),
            own_system: peer.own_system,
            buffer: Vec::new(),
            dialect: Dialect::usual(Speaker::External),
            extended: false,
            refreshes: Vec::new(),
            hold: None,
            keepalive: None,
            why: None,
        };
        let mut step = Step::default();
        session.happen(now, Happening::ManualStart, &mut step);
        session.happen(now, Happening::TcpConnectionAcknowledged, &mut step);
        session.hold = Some(now + OPEN_WITHIN);
        (session, step)
    }

    /// Whether routes are exchanged.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.fsm.state() == SessionState::Established
    }

    /// When the peer is gone unless it says something.
    #[must_use]
    pub const fn hold_deadline(&self) -> Option<Instant> {
        self.hold
    }

    /// When the peer must hear that we are there.
    #[must_use]
    pub const fn keepalive_deadline(&self) -> Option<Instant> {
        self.keepalive
    }

    /// Bytes came.
    pub fn receive(&mut self, now: Instant, bytes: &[u8]) -> Step {
        let mut step = Step::default();
        self.buffer.extend_from_slice(bytes);
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = &buffer[..];
        while step.close.is_none() {
            let length = match wire::next_length(rest, self.extended) {
                Ok(Some(length)) if length <= rest.len() => length,
                Ok(_) => break,
                Err(error) => {
                    self.refuse(now, error, &mut step);
                    break;
                }
            };
            let (message, after) = rest.split_at(length);
            rest = after;
            self.read(now, message, &mut step);
        }
        self.buffer = rest.to_vec();
        step
    }

    /// Time passed, and nothing that the peer said waits to be read.
    pub fn expire(&mut self, now: Instant) -> Step {
        let mut step = Step::default();
        if self.hold.is_some_and(|at| at <= now) {
            self.hold = None;
            self.why = Some("the peer is silent: the hold time is over".to_owned());
            self.happen(now, Happening::HoldTimerExpires, &mut step);
        }
        step
    }

    /// Time passed: it may be time to say that we are there.
    pub fn remind(&mut self, now: Instant) -> Step {
        let mut step = Step::default();
        if self.keepalive.is_some_and(|at| at <= now) {
            self.keepalive = None;
            self.happen(now, Happening::KeepaliveTimerExpires, &mut step);
        }
        step
    }

    /// Asks for its table once more (RFC 2918), if it can be asked.
    pub fn ask_again(&self) -> Step {
        let mut step = Step::default();
        for &(afi, safi) in self.refreshes.iter().filter(|_| self.is_established()) {
            Self::send(
                &Message::RouteRefresh(RouteRefreshMessage::new(afi, safi)),
                &mut step,
            );
        }
        step
    }

    /// The connection is gone.
    pub fn lose(&mut self, now: Instant, why: String) -> Step {
        let mut step = Step::default();
        self.why = Some(why);
        self.happen(now, Happening::TcpConnectionFails, &mut step);
        step.close = Some(self.reason());
        step
    }

    fn read(&mut self, now: Instant, message: &[u8], step: &mut Step) {
        let happening = match wire::message(message, self.extended) {
            Ok(Message::Open(open)) => Happening::OpenReceived(open),
            Ok(Message::Keepalive) => Happening::KeepaliveReceived,
            Ok(Message::Notification(notification)) => {
                self.why = Some(format!(
                    "the peer sent a notification: {:?}",
                    notification.code
                ));
                Happening::NotificationReceived(notification)
            }
            Ok(Message::RouteRefresh(refresh)) => match (refresh.afi(), refresh.safi()) {
                (Some(afi), Some(safi)) => Happening::RouteRefreshReceived { afi, safi },
                _ => return,
            },
            Ok(Message::Update(update)) => {
                if self.is_established() {
                    match wire::routes(&update, &self.dialect) {
                        Ok(update) => step.events.push(Event::Update(update)),
                        Err(error) => return self.refuse(now, error, step),
                    }
                }
                Happening::UpdateReceived
            }
            Ok(_) => return,
            Err(error) => return self.refuse(now, error, step),
        };
        self.happen(now, happening, step);
    }

    fn refuse(&mut self, now: Instant, error: DecodeError, step: &mut Step) {
        self.why = Some(format!("the peer wrote what cannot be read: {error}"));
        self.happen(now, Happening::DecodeError(error), step);
    }

    fn happen(&mut self, now: Instant, happening: Happening, step: &mut Step) {
        for action in self.fsm.handle_event(happening) {
            self.act(now, action, step);
        }
    }

    fn act(&mut self, now: Instant, action: Action, step: &mut Step) {
        match action {
            Action::SendOpen(open) => Self::send(&Message::Open(offering(open)), step),
            Action::SendKeepalive => Self::send(&Message::Keepalive, step),
            Action::SendNotification(notification) => {
                self.why.get_or_insert_with(|| {
                    format!(
                        "the peer does not keep to the protocol: {:?}",
                        notification.code
                    )
                });
                Self::send(&Message::Notification(notification), step);
            }
            Action::StartTimer(TimerType::Hold, secs) => self.hold = timer(now, secs),
            Action::StartTimer(TimerType::Keepalive, secs) => self.keepalive = timer(now, secs),
            Action::StopTimer(TimerType::Hold) => self.hold = None,
            Action::StopTimer(TimerType::Keepalive) => self.keepalive = None,
            Action::SessionEstablished(agreed) => {
                self.agree(&agreed);
                for &(afi, safi) in &agreed.negotiated_families {
                    step.send.extend(end_of_rib(afi, safi));
                }
                step.events.push(Event::Up {
                    system: agreed.peer_asn,
                });
            }
            Action::SessionDown => step
                .events
                .push(Event::Down(Down::SessionLost(self.reason()))),
            Action::CloseTcpConnection => step.close = Some(self.reason()),
            // We never connect by ourselves, and never dial again.
            _ => {}
        }
    }

    fn agree(&mut self, agreed: &NegotiatedSession) {
        let receives = |afi| {
            let mode = agreed.add_path_families.get(&(afi, Safi::Unicast));
            matches!(mode, Some(AddPathMode::Receive | AddPathMode::Both))
        };
        self.extended = agreed.peer_extended_message;
        self.refreshes = match agreed.peer_route_refresh {
            true => agreed.negotiated_families.clone(),
            false => Vec::new(),
        };
        self.dialect = Dialect {
            four_octet_as: agreed.four_octet_as,
            add_path_v4: receives(Afi::Ipv4),
            add_path_v6: receives(Afi::Ipv6),
            speaker: match agreed.peer_asn == self.own_system {
                true => Speaker::Internal,
                false => Speaker::External,
            },
        };
    }

    fn reason(&self) -> String {
        self.why
            .clone()
            .unwrap_or_else(|| "the session was closed".to_owned())
    }

    fn send(message: &Message, step: &mut Step) {
        // What we send is short and of our own making; what cannot be written is not sent, and the peer's timer ends it.
        if let Ok(bytes) = rustbgpd_wire::encode_message(message) {
            step.send.extend_from_slice(&bytes);
        }
    }
}

/// What we offer beside the usual. Who is told that we know what the end of a table means sends it (RFC 4724, section 3: no family
/// is named, so nothing of ours is ever kept). And a refresh is a plain one: with the enhanced one (RFC 7313) FRR waits for an end of
/// its own table that it may never have sent.
fn offering(mut open: OpenMessage) -> OpenMessage {
    open.capabilities
        .retain(|own| !matches!(own, Capability::EnhancedRouteRefresh));
    open.capabilities.push(Capability::GracefulRestart {
        restart_state: false,
        notification: false,
        restart_time: 0,
        families: Vec::new(),
    });
    open
}

/// That a family's table is whole (RFC 4724, section 2): ours is empty, and stays so. FRR sends nothing once more to who has not
/// said so.
fn end_of_rib(afi: Afi, safi: Safi) -> Vec<u8> {
    let attributes: Vec<u8> = match (afi, safi) {
        (Afi::Ipv4, Safi::Unicast) => Vec::new(),
        // MP_UNREACH_NLRI (RFC 4760, section 4) without a prefix.
        _ => {
            let [high, low] = (afi as u16).to_be_bytes();
            vec![0x80, 15, 3, high, low, safi as u8]
        }
    };
    let length = (23 + attributes.len()) as u16;
    let mut message = vec![0xff; 16];
    message.extend(length.to_be_bytes());
    message.extend([2, 0, 0, 0, attributes.len() as u8]);
    message.extend(attributes);
    message
}

/// A timer of no seconds does not run (RFC 4271, section 4.2: a hold time of zero).
fn timer(now: Instant, secs: u32) -> Option<Instant> {
    (secs > 0).then(|| now + Duration::from_secs(secs.into()))
}

#[cfg(test)]
#[path = "session/tests.rs"]
mod tests;
