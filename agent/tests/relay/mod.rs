//! A relay between a prober and a reflector that does to packets of each direction what it is told, and counts it.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Packets of each direction that are troubled; those that follow pass.
const TROUBLED: u64 = 120;

/// What is done to packets: forward, backward.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// This share is dropped.
    pub loss_percent: [u64; 2],
    /// Every tenth is held back until after the next.
    pub swap: [bool; 2],
}

/// A running relay.
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    /// Who probes.
    prober: Mutex<Option<SocketAddr>>,
    seen: [AtomicU64; 2],
    dropped: [AtomicU64; 2],
    swapped: [AtomicU64; 2],
}

impl Relay {
    /// Starts a relay to a reflector.
    pub fn start(trouble: Trouble, reflector: u16) -> Self {
        let bind = || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            // So that a thread looks up whether it is to stop.
            let pause = Some(Duration::from_millis(20));
            socket.set_read_timeout(pause).unwrap();
            socket
        };
        let (front, back) = (bind(), bind());
        let port = front.local_addr().unwrap().port();
        let reflector = SocketAddr::from((Ipv4Addr::LOCALHOST, reflector));
        let shared = Arc::new(Shared::default());
        let clone = |socket: &UdpSocket| socket.try_clone().unwrap();
        let ways = [
            (clone(&front), clone(&back), Some(reflector)),
            (back, front, None),
        ];
        let threads = ways.into_iter().enumerate().map(|(way, (from, to, whom))| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.carry(way, trouble, &from, &to, whom))
        });
        Self {
            port,
            threads: threads.collect(),
            shared,
        }
    }

    /// Where it is probed.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether packets pass again, in both directions.
    pub fn is_calm(&self) -> bool {
        self.shared
            .seen
            .iter()
            .all(|seen| seen.load(Relaxed) > TROUBLED)
    }

    /// Packets dropped so far, forward and backward.
    pub fn dropped(&self) -> [u64; 2] {
        self.shared
            .dropped
            .each_ref()
            .map(|count| count.load(Relaxed))
    }

    /// Packets that were overtaken so far.
    pub fn swapped(&self) -> [u64; 2] {
        self.shared
            .swapped
            .each_ref()
            .map(|count| count.load(Relaxed))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn carry(
        &self,
        way: usize,
        trouble: Trouble,
        from: &UdpSocket,
        to: &UdpSocket,
        whom: Option<SocketAddr>,
    ) {
        let mut held: Option<Vec<u8>> = None;
        let mut random = 0x9e37_79b9_7f4a_7c15_u64 + way as u64;
        while !self.stopping.load(Relaxed) {
            let mut bytes = [0; 512];
            let Ok((length, sender)) = from.recv_from(&mut bytes) else {
                continue;
            };
            let packet = &bytes[..length];
            if whom.is_some() {
                *self.prober.lock().unwrap() = Some(sender);
            }
            let Some(whom) = whom.or(*self.prober.lock().unwrap()) else {
                continue;
            };
            let seen = self.seen[way].fetch_add(1, Relaxed);
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let troubled = seen < TROUBLED;
            if troubled && (random >> 33) % 100 < trouble.loss_percent[way] {
                self.dropped[way].fetch_add(1, Relaxed);
                continue;
            }
            if troubled && trouble.swap[way] && seen % 10 == 5 {
                held = Some(packet.to_vec());
                continue;
            }
            to.send_to(packet, whom).unwrap();
            if let Some(late) = held.take() {
                self.swapped[way].fetch_add(1, Relaxed);
                to.send_to(&late, whom).unwrap();
            }
        }
    }
}
