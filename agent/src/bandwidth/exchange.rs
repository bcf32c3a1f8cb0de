//! Packets of one link out, replies back: the part that waits.
//!
//! A reply counts only if it comes from the link's address and port, proves the mesh's key where there is one, and
//! repeats session, number and time of a packet of this very train that was not answered yet. All else is a stray.

use std::{io, net::SocketAddr, os::fd::AsRawFd as _, time::Duration};

use super::{
    heavy::{self, Told},
    survey::Train,
    train::{self, Passage, Span, Spoiled},
};
use crate::{
    net::{
        clock::{Now, monotonic_ns},
        message::{self, Inbox, Queue},
        reflecting::ReflectingSocket,
        wake,
    },
    probe::stamp::{ErrorEstimate, Format, Key, Load, Reply, Request, Stamp},
    prober::Family,
    random::Random,
};

/// How long the first reply of a train is awaited.
const PATIENCE_NS: u64 = 2_000_000_000;
/// How long others are awaited after the last one.
const SILENCE_NS: u64 = 300_000_000;
/// Sleeping ends this long before a packet is due, and looking at the clock begins: about what a wake-up takes.
const WAKE_NS: u64 = 80_000;
/// One sends of a heavy test every so often what is due.
const TICK_NS: u64 = 1_000_000;
/// Of a heavy test a packet is answered every so often.
const ANSWERED_EVERY_NS: u64 = 5_000_000;

/// IP and UDP headers.
#[must_use]
pub const fn overhead(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V4(_) => 28,
        SocketAddr::V6(_) => 48,
    }
}

/// A socket of one family, and what was received by it.
#[derive(Debug)]
pub struct Exchange {
    socket: ReflectingSocket,
    inbox: Inbox,
    key: Option<Key>,
    random: Random,
    /// What came and answered nothing.
    strays: u64,
}

/// What was sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    time: Stamp,
    at_ns: u64,
    received_ns: Option<u64>,
}

/// The packets of one train or test.
#[derive(Debug)]
struct Session {
    to: SocketAddr,
    ssid: u16,
    /// The number of the first packet.
    first: u32,
    sent: Vec<Sent>,
}

impl Session {
    /// The place of the packet that a reply answers, if it does.
    fn place(&self, from: SocketAddr, reply: &Reply) -> Option<usize> {
        let place = reply.request.sequence.wrapping_sub(self.first) as usize;
        let sent = self.sent.get(place)?;
        let is_ours = from == self.to
            && reply.request.ssid == self.ssid
            && reply.request.time == sent.time
            && sent.received_ns.is_none();
        is_ours.then_some(place)
    }
}

impl Exchange {
    /// Binds a socket.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal.
    pub fn open(family: Family, key: Option<Key>) -> io::Result<Self> {
        Ok(Self {
            socket: ReflectingSocket::bind(family, 0)?,
            inbox: Inbox::default(),
            key,
            random: Random::default(),
            strays: 0,
        })
    }

    /// What came and answered nothing, so far.
    #[must_use]
    pub const fn strays(&self) -> u64 {
        self.strays
    }

    /// The length of a reply, IP header and all.
    #[must_use]
    pub fn reply_bytes(&self, to: SocketAddr) -> u32 {
        Load::reply_bytes(self.key.as_ref()) as u32 + overhead(to)
    }

    fn session(&mut self, to: SocketAddr) -> Session {
        let drawn = self.random.draw();
        Session {
            to,
            ssid: (drawn as u16).max(1),
            first: (drawn >> 32) as u32,
            sent: Vec::new(),
        }
    }

    /// Sends a packet of `buffer`'s length now. Returns whether the kernel took it.
    fn send(&self, session: &mut Session, load: Load, buffer: &mut [u8]) -> bool {
        let now = Now::read();
        let request = Request {
            sequence: session.first.wrapping_add(session.sent.len() as u32),
            time: Stamp::of(Format::Ntp, now.wall_ns),
            error: ErrorEstimate::unknown(Format::Ntp),
            ssid: session.ssid,
        };
        load.write(&request.encode(self.key.as_ref()), buffer);
        session.sent.push(Sent {
            time: request.time,
            at_ns: now.mono_ns,
            received_ns: None,
        });
        let taken = message::send(self.socket.as_raw_fd(), session.to, None, buffer);
        if taken.is_err() {
            session.sent.pop();
        }
        taken.is_ok()
    }

    fn buffer(&self, bytes: u32, to: SocketAddr) -> Vec<u8> {
        let least = Load::bytes_min(self.key.as_ref());
        vec![0; (bytes.saturating_sub(overhead(to)) as usize).max(least)]
    }

    /// Sends a train and reads what its passage tells.
    ///
    /// # Errors
    ///
    /// Returns why it tells nothing.
    pub fn pass(&mut self, to: SocketAddr, train: &Train) -> Result<Span, Spoiled> {
        let mut session = self.session(to);
        let mut buffer = self.buffer(train.bytes, to);
        let start_ns = monotonic_ns();
        for n in 0..train.packets {
            if let Some(gap) = train.gap {
                wait_until(start_ns + gap.as_nanos() as u64 * u64::from(n));
            }
            self.send(&mut session, Load::Train, &mut buffer);
        }
        let mut until_ns = monotonic_ns() + PATIENCE_NS;
        let mut missing = session.sent.len();
        while missing > 0 && monotonic_ns() < until_ns {
            wake::wait(&[self.socket.as_raw_fd()], until_ns);
            let before = missing;
            self.receive(&mut session, |_, _| missing -= 1);
            if missing < before {
                until_ns = until_ns.min(monotonic_ns() + SILENCE_NS);
            }
        }
        let passages: Vec<_> = session
            .sent
            .iter()
            .filter_map(|sent| {
                Some(Passage {
                    sent_ns: sent.at_ns,
                    received_ns: sent.received_ns?,
                })
            })
            .collect();
        let bytes = buffer.len() as u32 + overhead(to);
        train::read(
            bytes,
            train.packets as usize,
            train.gap.is_some(),
            &passages,
        )
    }

    /// Takes what has come: `each` hears of every reply that answers a packet of the session, with its place.
    fn receive(&mut self, session: &mut Session, mut each: impl FnMut(usize, Told)) {
        let fd = self.socket.as_raw_fd();
        // Transmit stamps are not needed here, but the kernel keeps them until they are taken.
        while let Ok(1..) = self.inbox.receive(fd, Queue::Errors, message::BATCH) {}
        while let Ok(1..) = self.inbox.receive(fd, Queue::Packets, message::BATCH) {
            for packet in self.inbox.packets() {
                let reply = Reply::decode(packet.bytes, self.key.as_ref()).ok();
                let known = reply.and_then(|reply| {
                    let received_ns = reply.received.unix_ns(reply.error.format())?;
                    Some((
                        session.place(packet.from, &reply)?,
                        received_ns,
                        reply.sequence,
                    ))
                });
                let Some((place, received_ns, count)) = known else {
                    self.strays += 1;
                    continue;
                };
                let sent = &mut session.sent[place];
                sent.received_ns = Some(received_ns);
                let told = Told {
                    request: place as u32,
                    sent_ns: sent.at_ns,
                    received_ns,
                    count,
                };
                each(place, told);
            }
        }
    }

    /// Loads the path for two seconds at most. Returns what was told and what it cost; `None` when the other side does
    /// not take heavy tests.
    pub fn load(&mut self, to: SocketAddr, most_bps: u64) -> (Option<heavy::Load>, u64) {
        let mut session = self.session(to);
        let mut buffer = self.buffer(heavy::PACKET_BYTES, to);
        let packet_bytes = buffer.len() as u64 + u64::from(overhead(to));
        let cost = |session: &Session| session.sent.len() as u64 * packet_bytes;
        let mut load = heavy::Load::new(most_bps);
        let mut heard_ns = None;
        for _ in 0..3 {
            self.send(&mut session, Load::Heavy, &mut buffer);
            let until_ns = monotonic_ns() + PATIENCE_NS / 4;
            while heard_ns.is_none() && monotonic_ns() < until_ns {
                wake::wait(&[self.socket.as_raw_fd()], until_ns);
                self.receive(&mut session, |_, told| {
                    let now_ns = monotonic_ns();
                    heard_ns = Some(now_ns);
                    load.on_told(now_ns, told);
                });
            }
        }
        let Some(mut heard_ns) = heard_ns else {
            return (None, cost(&session));
        };
        let silence_ns = heavy::SILENCE.as_nanos() as u64;
        let start_ns = monotonic_ns();
        let end_ns = start_ns + heavy::LASTS.as_nanos() as u64;
        let (mut now_ns, mut answered_ns) = (start_ns, 0);
        // What may leave, in packets; what was not sent in time is not made up for beyond a few ticks.
        let mut due = 0.0;
        while now_ns < end_ns && now_ns < heard_ns + silence_ns {
            let per_ns = load.bps() / 8e9 / packet_bytes as f64;
            wait_until(now_ns + TICK_NS);
            let tick_ns = monotonic_ns() - now_ns;
            now_ns += tick_ns;
            due = (due + per_ns * tick_ns as f64).min(per_ns * (8 * TICK_NS) as f64 + 1.0);
            while due >= 1.0 && cost(&session) + packet_bytes <= heavy::BYTES_MAX {
                due -= 1.0;
                let is_answered = now_ns >= answered_ns + ANSWERED_EVERY_NS;
                let kind = if is_answered {
                    Load::Heavy
                } else {
                    Load::Counted
                };
                if is_answered {
                    answered_ns = now_ns;
                }
                if !self.send(&mut session, kind, &mut buffer) {
                    break;
                }
            }
            self.receive(&mut session, |_, told| {
                heard_ns = now_ns;
                load.on_told(now_ns, told);
            });
            if cost(&session) + packet_bytes > heavy::BYTES_MAX {
                break;
            }
        }
        // The last replies.
        let until_ns = monotonic_ns() + SILENCE_NS;
        while monotonic_ns() < until_ns {
            wake::wait(&[self.socket.as_raw_fd()], until_ns);
            self.receive(&mut session, |_, told| load.on_told(monotonic_ns(), told));
        }
        (Some(load), cost(&session))
    }
}

/// Sleeps most of the way and looks at the clock for the rest.
fn wait_until(at_ns: u64) {
    while let left_ns @ 1.. = at_ns.saturating_sub(monotonic_ns()) {
        match left_ns > 2 * WAKE_NS {
            true => wake::sleep_until(at_ns - WAKE_NS),
            false => std::hint::spin_loop(),
        }
    }
}

/// How long a path rests.
pub(super) fn rest(span: Duration) {
    let until_ns = monotonic_ns() + span.as_nanos() as u64;
    wake::sleep_until(until_ns);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        let sent = |n: u64| Sent {
            time: Stamp(n + 1_000),
            at_ns: n,
            received_ns: None,
        };
        Session {
            to: "10.0.0.2:862".parse().unwrap(),
            ssid: 7,
            first: u32::MAX,
            sent: (0..4).map(sent).collect(),
        }
    }

    fn reply(place: u32) -> Reply {
        Reply {
            sequence: 3,
            time: Stamp(9),
            received: Stamp(8),
            error: ErrorEstimate::unknown(Format::Ntp),
            request: Request {
                sequence: u32::MAX.wrapping_add(place),
                time: Stamp(u64::from(place) + 1_000),
                error: ErrorEstimate(0),
                ssid: 7,
            },
            ttl: 64,
        }
    }

    #[test]
    fn a_reply_counts_once_and_only_for_what_it_answers() {
        let mut session = session();
        let to = session.to;
        assert_eq!(session.place(to, &reply(2)), Some(2));
        let spoiled: [fn(&mut Reply); 4] = [
            |own| own.request.ssid = 8,
            |own| own.request.time = Stamp(1),
            |own| own.request.sequence = 4,
            |own| own.request.sequence = u32::MAX - 1,
        ];
        for spoil in spoiled {
            let mut bad = reply(2);
            spoil(&mut bad);
            assert_eq!(session.place(to, &bad), None, "{bad:?}");
        }
        for elsewhere in ["10.0.0.3:862", "10.0.0.2:863"] {
            assert_eq!(session.place(elsewhere.parse().unwrap(), &reply(2)), None);
        }
        session.sent[2].received_ns = Some(1);
        assert_eq!(session.place(to, &reply(2)), None, "twice");
    }
}
