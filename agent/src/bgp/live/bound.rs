//! The sockets that routers and peers connect to.

use std::{io, net::SocketAddr, path::Path};

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    config::{Bgp, BgpPeer},
    net::guarding,
};

/// The first bytes that the kernel keeps for connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Sockets that are bound while the process may still bind low ports.
#[derive(Debug, Default)]
pub struct Bound {
    pub(super) bmp: Option<std::net::TcpListener>,
    pub(super) bgp: Option<std::net::TcpListener>,
}

impl Bound {
    /// Binds what the configuration names.
    ///
    /// # Errors
    ///
    /// Returns which address cannot be bound, or which key cannot be read or used.
    pub fn bind(config: &Bgp) -> anyhow::Result<Self> {
        let bind = |address: Option<SocketAddr>, key: &str| -> anyhow::Result<Option<Socket>> {
            let Some(address) = address else {
                return Ok(None);
            };
            let socket = bind(address);
            socket
                .map(Some)
                .with_context(|| format!("cannot listen on {address} (bgp.{key})"))
        };
        let bmp = bind(config.bmp_listen, "bmp_listen")?;
        let bgp = bind(config.listen, "listen")?;
        if let (Some(socket), Some(address)) = (&bgp, config.listen) {
            for peer in &config.peers {
                guard(socket, address, peer)?;
            }
            if config.peers.iter().any(|peer| peer.gtsm) {
                guarding::be_neighbour(socket, address.is_ipv6())
                    .with_context(|| format!("peers of {address} cannot be held to their link"))?;
            }
        }
        let listen = |socket: Socket| -> anyhow::Result<std::net::TcpListener> {
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        };
        Ok(Self {
            bmp: bmp.map(listen).transpose()?,
            bgp: bgp.map(listen).transpose()?,
        })
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn guard(socket: &Socket, address: SocketAddr, peer: &BgpPeer) -> anyhow::Result<()> {
    let Some(file) = &peer.signature_key else {
        return Ok(());
    };
    let key = read_key(file)?;
    guarding::sign(socket, address.is_ipv6(), peer.session.address, &key).with_context(|| {
        format!(
            "segments of {} cannot be signed (TCP-MD5); does this kernel have it?",
            peer.session.address
        )
    })
}

/// A key is the file's first line.
fn read_key(file: &Path) -> anyhow::Result<Vec<u8>> {
    let named = || format!("{}: the key of a BGP peer (signature_key)", file.display());
    let text = std::fs::read_to_string(file).with_context(named)?;
    let key = text.lines().next().unwrap_or_default().as_bytes().to_vec();
    match (1..=guarding::MD5_KEY_MAX).contains(&key.len()) {
        true => Ok(key),
        false => Err(anyhow::anyhow!(
            "its first line must have 1 to {} bytes",
            guarding::MD5_KEY_MAX
        ))
        .with_context(named),
    }
}
