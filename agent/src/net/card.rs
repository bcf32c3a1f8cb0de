//! Network cards that stamp packets themselves.
//!
//! A card's clock is read as the packet passes the wire, so neither the host's queues nor its interrupts are in the time. Whether
//! it stamps is a setting of the card, which belongs to whoever runs the host (`hwstamp_ctl -i eth0 -t 1 -r 1`): it is
//! asked for here and never changed. Linux, Documentation/networking/timestamping.rst.

#![allow(unsafe_code)]

use std::{ffi::CString, fs, io, mem, os::fd::AsRawFd};

use socket2::{Domain, Socket, Type};

/// `linux/net_tstamp.h`: every packet that leaves is stamped that asks for it; every packet that comes is.
const TX_ON: libc::c_int = 1;
const RX_ALL: libc::c_int = 1;

/// The cards of this host that stamp all packets in both directions, by name.
#[must_use]
pub fn stamping() -> Vec<String> {
    let Ok(socket) = Socket::new(Domain::IPV4, Type::DGRAM, None) else {
        return Vec::new();
    };
    let names = fs::read_dir("/sys/class/net").into_iter().flatten();
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut stamping: Vec<String> = names
        .filter(|name| setting(&socket, name).is_ok_and(|own| own == (TX_ON, RX_ALL)))
        .collect();
    stamping.sort_unstable();
    stamping
}

/// What a card stamps of what leaves and of what comes.
fn setting(socket: &Socket, name: &str) -> io::Result<(libc::c_int, libc::c_int)> {
    let name = CString::new(name)?;
    let name = name.as_bytes_with_nul();
    // SAFETY: all-zero is a valid ifreq: an empty name and a null pointer.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if name.len() > request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    let mut answer = libc::hwtstamp_config {
        flags: 0,
        tx_type: 0,
        rx_filter: 0,
    };
    request.ifr_ifru.ifru_data = (&raw mut answer).cast();
    // SAFETY: the request names an interface and points at a live hwtstamp_config, which the call fills.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGHWTSTAMP, &raw mut request) };
    match done {
        0 => Ok((answer.tx_type, answer.rx_filter)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_no_card_stamps_nothing() {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        let refused = setting(&socket, "lo").unwrap_err().raw_os_error();
        assert_eq!(refused, Some(libc::EOPNOTSUPP));
        let refused = setting(&socket, "no-such-device").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENODEV));
        let too_long = setting(&socket, "a-name-that-is-too-long").unwrap_err();
        assert_eq!(too_long.kind(), io::ErrorKind::InvalidInput);
        assert!(!stamping().contains(&"lo".to_owned()));
    }
}
