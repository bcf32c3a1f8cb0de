//! Packets: values to bytes and back, without I/O.
//!
//! - [`token`]: how an answer proves that it answers *this* probe.
//! - [`icmp`]: echo requests and replies, ICMP errors and what they quote, for IPv4 and IPv6.
//! - [`tcp_syn`]: SYNs and their answers.
//! - [`stamp`]: requests to a reflector, and its replies.

pub mod icmp;
pub mod stamp;
pub mod tcp_syn;
#[cfg(test)]
pub(crate) mod test_packets;
pub mod token;

/// The Internet checksum (RFC 1071) of the parts laid end to end; every part but the last has an even length.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        let (pairs, rest) = part.as_chunks::<2>();
        sum += pairs
            .iter()
            .map(|&pair| u32::from(u16::from_be_bytes(pair)))
            .sum::<u32>();
        sum += rest.first().map_or(0, |&last| u32::from(last) << 8);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Why bytes are no answer of any kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotAnAnswer {
    /// Too short for what it claims to be.
    Truncated,
    /// Well-formed, but nothing that answers our probes.
    Foreign,
}

/// The `N` bytes at `at`.
pub(crate) fn take<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], NotAnAnswer> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or(NotAnAnswer::Truncated)
}

pub(crate) fn take_u16(bytes: &[u8], at: usize) -> Result<u16, NotAnAnswer> {
    take(bytes, at).map(u16::from_be_bytes)
}

pub(crate) fn take_u32(bytes: &[u8], at: usize) -> Result<u32, NotAnAnswer> {
    take(bytes, at).map(u32::from_be_bytes)
}

/// The bytes behind an IPv4 header, and the header's protocol.
pub(crate) fn behind_ipv4(bytes: &[u8]) -> Result<(u8, &[u8]), NotAnAnswer> {
    let [version_and_length] = take(bytes, 0)?;
    let length = usize::from(version_and_length & 0x0f) * 4;
    if version_and_length >> 4 != 4 || length < 20 {
        return Err(NotAnAnswer::Foreign);
    }
    let [protocol] = take(bytes, 9)?;
    let rest = bytes.get(length..).ok_or(NotAnAnswer::Truncated)?;
    Ok((protocol, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        // The example of its section 3: the sum is ddf2, the checksum its complement.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&[&bytes]), !0xddf2);
        assert_eq!(checksum(&[&bytes[..4], &bytes[4..]]), !0xddf2);
        assert_eq!(checksum(&[&[0xff]]), !0xff00);
    }
}
