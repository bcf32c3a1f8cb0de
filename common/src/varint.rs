//! Numbers of varying length: LEB128 varints, as short as can be, and a fold that makes them short for small numbers of
//! either sign. The columns of a batch and the rollups of a store are written with them.

/// Small for numbers near zero of either sign: 0, -1, 1, -2, 2 become 0, 1, 2, 3, 4.
#[must_use]
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[must_use]
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends a number, seven bits a byte, least significant first.
pub fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number off the front: `None` at the end, beyond 64 bits, and when a shorter form exists.
#[inline]
#[must_use]
pub fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    take_long_varint(u64::from(first & 0x7f), bytes)
}

fn take_long_varint(mut value: u64, bytes: &mut &[u8]) -> Option<u64> {
    for shift in (7..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            return None;
        }
        value |= part << shift;
        if byte < 0x80 {
            return (byte != 0).then_some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_varint_longer_than_needed_or_than_64_bits_is_refused() {
        assert_eq!(take_varint(&mut &[0x80, 0x00][..]), None);
        assert_eq!(take_varint(&mut &[0xff; 9][..]), None);
        let mut largest = [0xff; 10];
        largest[9] = 0x01;
        assert_eq!(take_varint(&mut &largest[..]), Some(u64::MAX));
        largest[9] = 0x02;
        assert_eq!(take_varint(&mut &largest[..]), None);
    }

    proptest! {
        #[test]
        fn zigzag_has_an_inverse(value in any::<i64>()) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }
    }
}
