//! A peer that connects and says what it is told to.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use super::corpus::message;

/// A session that is established. A thread keeps it alive until this is dropped.
#[derive(Debug)]
pub struct Speaker {
    stream: Arc<Mutex<TcpStream>>,
}

impl Speaker {
    /// Connects from an address, as a system.
    ///
    /// # Errors
    ///
    /// Returns why there is no session.
    pub fn connect(from: Ipv4Addr, to: SocketAddr, system: u32) -> anyhow::Result<Self> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut stream = loop {
            match dial(from, to) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("connect to {to}"));
                }
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        };
        let mut open = vec![4];
        open.extend((system as u16).to_be_bytes());
        open.extend(90u16.to_be_bytes());
        open.extend(from.octets());
        let mut capabilities = vec![1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 65, 4];
        capabilities.extend(system.to_be_bytes());
        open.extend([capabilities.len() as u8 + 2, 2, capabilities.len() as u8]);
        open.extend(capabilities);
        stream.write_all(&message(1, &open))?;
        let kind = read(&mut stream)?;
        ensure!(kind == 1, "the first message is of type {kind}");
        stream.write_all(&message(4, &[]))?;
        let kind = read(&mut stream)?;
        ensure!(kind == 4, "the second message is of type {kind}");
        let mut reading = stream.try_clone()?;
        thread::spawn(move || while read(&mut reading).is_ok() {});
        let stream = Arc::new(Mutex::new(stream));
        let alive = Arc::downgrade(&stream);
        thread::spawn(move || {
            loop {
                thread::sleep(Duration::from_secs(1));
                let Some(stream) = alive.upgrade() else {
                    return;
                };
                let sent = stream
                    .lock()
                    .map(|mut stream| stream.write_all(&message(4, &[])));
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
        });
        Ok(Self { stream })
    }

    /// Says something, as fast as it is taken.
    ///
    /// # Errors
    ///
    /// Returns that the session is gone.
    pub fn say(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stream = self
            .stream
            .lock()
            .map_err(|_| anyhow::anyhow!("the session is gone"))?;
        stream.write_all(bytes).context("speak to the agent")
    }

    /// The table is over, of IPv4 and IPv6.
    ///
    /// # Errors
    ///
    /// Returns that the session is gone.
    pub fn end_of_table(&self) -> anyhow::Result<()> {
        self.say(&message(2, &[0, 0, 0, 0]))?;
        self.say(&message(2, &[0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1]))
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        if let Ok(stream) = self.stream.lock() {
            _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn dial(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&to.into())?;
    socket.set_tcp_nodelay(true)?;
    let stream: TcpStream = socket.into();
    Ok(stream)
}

/// The type of the next message.
fn read(stream: &mut TcpStream) -> std::io::Result<u8> {
    let mut header = [0; 19];
    stream.read_exact(&mut header)?;
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    let mut body = vec![0; length.saturating_sub(19)];
    stream.read_exact(&mut body)?;
    Ok(header[18])
}
