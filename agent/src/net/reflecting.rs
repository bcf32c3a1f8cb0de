//! The reflector's sockets: UDP, one per family, that say to which address a packet came, with which TTL, and when.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
};

use socket2::{Protocol, Socket, Type};

use super::sockets;
use crate::prober::Family;

/// A bound socket.
#[derive(Debug)]
pub struct ReflectingSocket(Socket);

impl AsRawFd for ReflectingSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl ReflectingSocket {
    /// Binds a port of every address of a family; 0 takes any.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal: the port is in use, or needs a privilege.
    pub fn bind(family: Family, port: u16) -> io::Result<Self> {
        let socket = Socket::new(sockets::domain(family), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        let says = match family {
            Family::V4 => [
                (libc::IPPROTO_IP, libc::IP_PKTINFO),
                (libc::IPPROTO_IP, libc::IP_RECVTTL),
            ],
            Family::V6 => {
                socket.set_only_v6(true)?;
                [
                    (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
                    (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
                ]
            }
        };
        for (level, name) in says {
            sockets::set_option(&socket, level, name, &1i32)?;
        }
        sockets::prepare(&socket)?;
        socket.bind(&SocketAddr::new(sockets::any(family), port).into())?;
        Ok(Self(socket))
    }

    /// The port that it is bound to.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal.
    pub fn port(&self) -> io::Result<u16> {
        let address = self.0.local_addr()?.as_socket();
        address
            .map(|address| address.port())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Makes the kernel count transmit stamps from 0 again.
    ///
    /// # Errors
    ///
    /// Returns the kernel's refusal.
    pub fn restart_stamps(&self) -> io::Result<()> {
        sockets::restart_stamps(&self.0)
    }
}
