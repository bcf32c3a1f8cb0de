//! The open port that meets other agents' SYN probes.
//!
//! A probe is a lone SYN: the kernel answers it and the prober's kernel resets what the answer would open, so almost
//! nothing ever arrives here. What does (a full handshake from a tool or a scanner) is closed at once with a reset, so
//! that it leaves no state behind. ICMP echo is answered by the kernel alone.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that wait to be accepted. Probes never get that far.
const BACKLOG: i32 = 128;

/// After a failed accept (no file descriptors left): long enough not to spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens on a port of every address, over IPv6 and IPv4, or over IPv4 alone where there is no IPv6.
///
/// # Errors
///
/// Returns the kernel's refusal: usually the port is in use.
pub fn listen(port: u16) -> io::Result<std::net::TcpListener> {
    match open(
        Domain::IPV6,
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    ) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(_) => open(
            Domain::IPV4,
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        ),
        Ok(listener) => Ok(listener),
    }
}

fn open(domain: Domain, address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts and closes, for ever.
pub async fn serve(listener: TcpListener, accepted: Arc<AtomicU64>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                accepted.fetch_add(1, Relaxed);
                // With zero linger the close is a reset: no TIME_WAIT here.
                let _ = stream.set_zero_linger();
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

    #[tokio::test]
    async fn a_connection_is_accepted_and_reset() {
        let listener = TcpListener::from_std(listen(0).unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::new(AtomicU64::new(0));
        let serving = tokio::spawn(serve(listener, accepted.clone()));
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        let read = timeout(Duration::from_secs(5), stream.read(&mut [0; 1]))
            .await
            .unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(accepted.load(Relaxed), 1);
        serving.abort();
    }

    #[tokio::test]
    async fn a_port_in_use_is_an_error() {
        let first = listen(0).unwrap();
        let port = first.local_addr().unwrap().port();
        assert_eq!(listen(port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
