//! The thread that carries every packet: reads what hosts send, sends it through the link between their places, and
//! hands it over when it is due.
//!
//! ```text
//!  host ── tun ──▶ read ──▶ links[from place][to place] ──▶ due ──▶ write ── tun ──▶ host
//! ```
//!
//! It runs with real-time priority where the kernel allows, sleeps with nanosecond timeouts until shortly before the
//! next departure, and spins for the rest. How late each packet left is recorded: the emulator states its own error.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::{
    link::{Fate, Impairment, Link, Packet},
    net::{Bell, Tun, Urgency, prioritise, wait_until},
    witness::Witness,
};

/// Sleep ends this long before a departure and spinning begins: about what a wake-up takes on a busy virtual machine.
const SPIN: Duration = Duration::from_micros(120);

/// The longest sleep, so that a lost wake-up cannot stall the lab.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// Packets read from one host before the others and what is due are looked at again.
const READ_BURST: usize = 32;

/// The largest packet: nothing in the lab raises the MTU above a tun device's 1500 bytes.
const LARGEST_PACKET: usize = 2048;

/// Lateness beyond this is recorded as this: ten seconds, in nanoseconds.
const LATEST_NS: u64 = 10_000_000_000;

/// Seeds of flows differ from those of links.
const FLOW_SEED: u64 = 0x5f10_3a77_0000_0000;

/// Changes waiting for the router; the sender waits when it is full, which happens only if the router has died.
const CHANGES: usize = 1024;

/// A host as the router sees it.
#[derive(Debug)]
pub struct Port {
    /// The device.
    pub tun: Tun,
    /// The number of the place it stands in; links run between places.
    pub place: usize,
    /// Where it answers.
    pub addresses: Vec<IpAddr>,
}

/// What the router did, for the closing lines.
#[derive(Debug)]
pub struct Stats {
    /// Packets handed over.
    pub delivered: u64,
    /// Packets that a link lost.
    pub lost: u64,
    /// Packets for an address that no host has.
    pub unroutable: u64,
    /// Packets that a host's kernel did not take.
    pub refused: u64,
    /// How late packets left their link, in nanoseconds.
    pub lateness: Histogram<u64>,
    /// How the kernel scheduled the router.
    pub urgency: Urgency,
    /// What was seen of probes, if anybody was to look.
    pub witness: Option<Witness>,
}

impl Stats {
    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let us = |quantile| self.lateness.value_at_quantile(quantile) as f64 / 1000.0;
        format!(
            "{} packets carried, {} lost by links; they left late by p50 {:.1} us, p99 {:.1} us, max {:.1} us",
            self.delivered,
            self.lost,
            us(0.5),
            us(0.99),
            us(1.0),
        )
    }
}

enum Change {
    Link {
        from: usize,
        to: usize,
        impairment: Impairment,
    },
    Flow {
        from: usize,
        to: usize,
        impairment: Impairment,
    },
    Stop,
}

/// A running router. Dropping it ends the thread.
#[derive(Debug)]
pub struct Router {
    changes: mpsc::SyncSender<Change>,
    bell: Bell,
    thread: Option<thread::JoinHandle<io::Result<Stats>>>,
}

impl Router {
    /// Starts carrying packets between `ports`. `links[from][to]` holds for packets from place `from` to place `to`. A
    /// witness is told of all of them.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal to start a thread or make a descriptor.
    pub fn start(
        ports: Vec<Port>,
        links: Vec<Vec<Link>>,
        witness: Option<Witness>,
    ) -> io::Result<Self> {
        let (changes, inbox) = mpsc::sync_channel(CHANGES);
        let bell = Bell::new()?;
        let mut worker = Worker::new(ports, links, inbox, bell.clone());
        worker.stats.witness = witness;
        let thread = thread::Builder::new()
            .name("router".into())
            .spawn(move || worker.run())?;
        Ok(Self {
            changes,
            bell,
            thread: Some(thread),
        })
    }

    /// Changes what the link from one place to another does, from now on.
    pub fn set(&self, from: usize, to: usize, impairment: Impairment) {
        self.tell(Change::Link {
            from,
            to,
            impairment,
        });
    }

    /// Changes what happens to the packets from one host to another, by the numbers of their ports, from now on. They
    /// then take a link of their own and no longer that of their places.
    pub fn set_flow(&self, from: usize, to: usize, impairment: Impairment) {
        self.tell(Change::Flow {
            from,
            to,
            impairment,
        });
    }

    /// Ends the thread and returns what it did.
    ///
    /// # Errors
    ///
    /// Returns what ended the router early.
    pub fn stop(mut self) -> io::Result<Stats> {
        self.tell(Change::Stop);
        let thread = self
            .thread
            .take()
            .ok_or_else(|| io::Error::other("router already stopped"))?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the router panicked")))
    }

    fn tell(&self, change: Change) {
        // A router that died says why when it is stopped.
        let _ = self.changes.send(change);
        self.bell.ring();
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.tell(Change::Stop);
            let _ = thread.join();
        }
    }
}

struct Worker {
    ports: Vec<Port>,
    links: Vec<Vec<Link>>,
    flows: BTreeMap<(usize, usize), Link>,
    by_address: BTreeMap<IpAddr, usize>,
    inbox: mpsc::Receiver<Change>,
    bell: Bell,
    stats: Stats,
}

impl Worker {
    fn new(
        ports: Vec<Port>,
        links: Vec<Vec<Link>>,
        inbox: mpsc::Receiver<Change>,
        bell: Bell,
    ) -> Self {
        let each = ports.iter().enumerate();
        let by_address = each
            .flat_map(|(n, port)| port.addresses.iter().map(move |&a| (a, n)))
            .collect();
        let stats = Stats {
            delivered: 0,
            lost: 0,
            unroutable: 0,
            refused: 0,
            lateness: Histogram::new_with_bounds(1, LATEST_NS, 3).expect("bounds in order"),
            urgency: Urgency::Ordinary,
            witness: None,
        };
        Self {
            ports,
            links,
            flows: BTreeMap::new(),
            by_address,
            inbox,
            bell,
            stats,
        }
    }

    fn run(mut self) -> io::Result<Stats> {
        self.stats.urgency = prioritise();
        let mut buffer = [0; LARGEST_PACKET];
        let mut polls = Vec::new();
        let mut readable = Vec::new();
        loop {
            self.deliver()?;
            let timeout = self.sleep_for();
            readable.clear();
            {
                let tuns = self.ports.iter().map(|port| port.tun.as_fd());
                let descriptors: Vec<_> = std::iter::once(self.bell.as_fd()).chain(tuns).collect();
                wait_until(&mut polls, &descriptors, timeout, |index| {
                    readable.push(index);
                })?;
            }
            for &index in &readable {
                match index.checked_sub(1) {
                    Some(port) => self.accept(port, &mut buffer)?,
                    None => {
                        self.bell.silence();
                        if self.apply_changes() {
                            return Ok(self.stats);
                        }
                    }
                }
            }
        }
    }

    /// Zero when a departure is so near that spinning is more exact than sleeping.
    fn sleep_for(&self) -> Duration {
        let next = self
            .links
            .iter()
            .flatten()
            .chain(self.flows.values())
            .filter_map(Link::next_departure)
            .min();
        let Some(next) = next else {
            return LONGEST_SLEEP;
        };
        let left = next.saturating_duration_since(Instant::now());
        left.saturating_sub(SPIN).min(LONGEST_SLEEP)
    }

    fn deliver(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let links = self.links.iter_mut().flatten();
        for link in links.chain(self.flows.values_mut()) {
            if link.next_departure().is_none_or(|next| next > now) {
                continue;
            }
            while let Some((due, packet)) = link.leave(now) {
                match self.ports[packet.to].tun.write(&packet.bytes) {
                    Ok(()) => {
                        let written = Instant::now();
                        if let Some(witness) = &mut self.stats.witness {
                            witness.delivered(&packet.bytes, written);
                        }
                        let late = written.saturating_duration_since(due).as_nanos();
                        self.stats
                            .lateness
                            .saturating_record(u64::try_from(late).unwrap_or(u64::MAX));
                        self.stats.delivered += 1;
                    }
                    Err(error) if host_does_not_take(&error) => self.stats.refused += 1,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self, from: usize, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..READ_BURST {
            let length = match self.ports[from].tun.read(buffer) {
                Ok(Some(length)) => length,
                Ok(None) => return Ok(()),
                Err(error) if host_does_not_take(&error) => return Ok(()),
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            let bytes = &buffer[..length];
            let Some(&to) = destination(bytes).and_then(|address| self.by_address.get(&address))
            else {
                self.stats.unroutable += 1;
                continue;
            };
            let place = |port: usize| self.ports[port].place;
            let link = match self.flows.get_mut(&(from, to)) {
                Some(own) => own,
                None => &mut self.links[place(from)][place(to)],
            };
            let packet = Packet {
                to,
                bytes: bytes.to_vec(),
            };
            let lost = link.enter(now, packet) == Fate::Dropped;
            self.stats.lost += u64::from(lost);
            if let Some(witness) = &mut self.stats.witness {
                witness.taken(bytes, now, lost);
            }
        }
        Ok(())
    }

    fn set_flow(&mut self, from: usize, to: usize, impairment: Impairment) {
        // Distinct for each flow, and the same in every run.
        let seed = FLOW_SEED ^ (from as u64) << 32 ^ to as u64;
        self.flows
            .entry((from, to))
            .or_insert_with(|| Link::new(impairment, seed))
            .set(impairment);
    }

    /// Returns whether the router shall stop.
    fn apply_changes(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Change::Link {
                    from,
                    to,
                    impairment,
                }) => self.links[from][to].set(impairment),
                Ok(Change::Flow {
                    from,
                    to,
                    impairment,
                }) => self.set_flow(from, to, impairment),
                Ok(Change::Stop) | Err(mpsc::TryRecvError::Disconnected) => return true,
                Err(mpsc::TryRecvError::Empty) => return false,
            }
        }
    }
}

/// The device is down, its queue is full, or it has no memory: the packet is gone, as on a real host.
fn host_does_not_take(error: &io::Error) -> bool {
    let code = error.raw_os_error().unwrap_or(0);
    [
        libc::EIO,
        libc::EAGAIN,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::EINVAL,
    ]
    .contains(&code)
}

/// Where an IP packet wants to go.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?).into()),
        6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_of_both_families_is_found_and_garbage_has_none() {
        let mut v4 = [0_u8; 20];
        v4[0] = 0x45;
        v4[16..20].copy_from_slice(&[10, 1, 0, 2]);
        assert_eq!(destination(&v4), Some("10.1.0.2".parse().unwrap()));
        let mut v6 = [0_u8; 40];
        v6[0] = 0x60;
        v6[24] = 0xfd;
        v6[39] = 9;
        assert_eq!(destination(&v6), Some("fd00::9".parse().unwrap()));
        for garbage in [&[][..], &[0x45; 19], &[0x60; 39], &[0x20; 60]] {
            assert_eq!(destination(garbage), None);
        }
    }
}
