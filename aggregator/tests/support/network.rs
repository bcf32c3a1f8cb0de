//! The network between real agents and a real aggregator: UDP that is carried, that is lost, repeated and overtaken, or that
//! does not get through at all. TCP goes past it, on the same port. Loopback only.

use std::{
    collections::HashMap,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

/// A small generator, so that a run can be told from the next and needs no dependency.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1 << 40)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// What becomes of datagrams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Weather {
    /// They arrive.
    Fair,
    /// Of a hundred five are lost, five arrive twice, and ten after the one that follows.
    Bad,
    /// Half of what agents send is lost, and no answer arrives: what was stored is not known to be.
    Storm,
    /// None arrives.
    Blocked,
}

/// Where agents dial.
pub struct Network {
    pub front: SocketAddr,
    shared: Arc<Shared>,
    carrying: Option<JoinHandle<()>>,
}

struct Shared {
    aggregator: SocketAddr,
    weather: Mutex<Weather>,
    stopping: AtomicBool,
    lost: AtomicU64,
    repeated: AtomicU64,
    overtaken: AtomicU64,
}

impl Network {
    /// Begins to carry datagrams to an aggregator.
    pub fn start(aggregator: SocketAddr) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, leeward_testing::free_port())).unwrap();
        let address = front.local_addr().unwrap();
        let shared = Arc::new(Shared {
            aggregator,
            weather: Mutex::new(Weather::Fair),
            stopping: AtomicBool::default(),
            lost: AtomicU64::default(),
            repeated: AtomicU64::default(),
            overtaken: AtomicU64::default(),
        });
        let carrying = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.carry(&Arc::new(front)))
        };
        Self {
            front: address,
            shared,
            carrying: Some(carrying),
        }
    }

    pub fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
    }

    /// Datagrams lost, repeated and overtaken in bad weather.
    pub fn harm(&self) -> [u64; 3] {
        let Shared {
            lost,
            repeated,
            overtaken,
            ..
        } = &*self.shared;
        [lost, repeated, overtaken].map(|count| count.load(Relaxed))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Relaxed);
        if let Some(carrying) = self.carrying.take() {
            let _ = carrying.join();
        }
    }
}

/// The next datagram; `None` when there was none for a while.
fn receive(socket: &UdpSocket, bytes: &mut [u8]) -> Option<(usize, SocketAddr)> {
    match socket.recv_from(bytes) {
        Ok(received) => Some(received),
        // What the kernel tells of a port where nobody listens just now, too.
        Err(error) => {
            let is_nothing = matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionRefused
            );
            assert!(is_nothing, "{error}");
            None
        }
    }
}

impl Shared {
    fn carry(self: &Arc<Self>, front: &Arc<UdpSocket>) {
        // So that it is looked up now and then whether to stop.
        let pause = Some(Duration::from_millis(20));
        front.set_read_timeout(pause).unwrap();
        let mut backs: HashMap<SocketAddr, (Arc<UdpSocket>, JoinHandle<()>)> = HashMap::new();
        let mut way = Way::new(1, Direction::Forward);
        let mut bytes = vec![0; 65_536];
        while !self.stopping.load(Relaxed) {
            let Some((length, agent)) = receive(front, &mut bytes) else {
                continue;
            };
            let (back, _) = backs.entry(agent).or_insert_with(|| {
                let back = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
                back.set_read_timeout(pause).unwrap();
                let (shared, from, to) = (Arc::clone(self), back.clone(), front.clone());
                let answering = std::thread::spawn(move || shared.answer(&from, &to, agent));
                (back, answering)
            });
            let back = Arc::clone(back);
            way.pass(self, &bytes[..length], (back, self.aggregator));
        }
        for (_, answering) in backs.into_values() {
            answering.join().unwrap();
        }
    }

    fn answer(&self, back: &UdpSocket, front: &Arc<UdpSocket>, agent: SocketAddr) {
        let mut way = Way::new(u64::from(agent.port()), Direction::Back);
        let mut bytes = vec![0; 65_536];
        while !self.stopping.load(Relaxed) {
            if let Some((length, _)) = receive(back, &mut bytes) {
                way.pass(self, &bytes[..length], (Arc::clone(front), agent));
            }
        }
    }
}

/// From where to whom.
type Course = (Arc<UdpSocket>, SocketAddr);

/// From agents, or to them.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Direction {
    Forward,
    Back,
}

/// One direction.
struct Way {
    dice: Dice,
    direction: Direction,
    /// Arrives after the next.
    held: Option<(Vec<u8>, Course)>,
}

impl Way {
    fn new(seed: u64, direction: Direction) -> Self {
        Self {
            dice: Dice::new(seed),
            direction,
            held: None,
        }
    }

    fn pass(&mut self, shared: &Shared, datagram: &[u8], course: Course) {
        let send = |datagram: &[u8], (socket, to): &Course| {
            let _ = socket.send_to(datagram, to);
        };
        let weather = *shared.weather.lock().unwrap();
        let fate = match weather {
            Weather::Fair => 99,
            Weather::Bad => self.dice.below(100),
            Weather::Storm if self.direction == Direction::Forward => 50 * self.dice.below(2),
            Weather::Storm | Weather::Blocked => return,
        };
        match fate {
            0..5 => drop(shared.lost.fetch_add(1, Relaxed)),
            5..10 => {
                shared.repeated.fetch_add(1, Relaxed);
                send(datagram, &course);
                send(datagram, &course);
            }
            10..20 if self.held.is_none() => {
                shared.overtaken.fetch_add(1, Relaxed);
                self.held = Some((datagram.to_vec(), course));
                return;
            }
            _ => send(datagram, &course),
        }
        if let Some((late, course)) = self.held.take() {
            send(&late, &course);
        }
    }
}
