//! A string of bits: numbers that carry no structure, each at its own width, least significant bit first.
//!
//! Where within its bucket a minimum lies is noise. A compressor spends time on noise and gains nothing, and a byte
//! boundary after each of them would cost half a byte, so these numbers are packed by the bit and left alone.

/// Appends numbers.
#[derive(Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    filled: u32,
}

impl BitWriter {
    /// Appends the lowest `width` (at most 32) bits of a value; the others must be zero.
    pub(super) fn put(&mut self, value: u32, width: u32) {
        debug_assert!(width <= 32 && u64::from(value) >> width == 0);
        self.pending |= u64::from(value) << self.filled;
        self.filled += width;
        while self.filled >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.filled -= 8;
        }
    }

    /// The bytes, the last one filled up with zeros.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.bytes.push(self.pending as u8);
        }
        self.bytes
    }
}

/// Takes numbers off.
#[derive(Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    pending: u64,
    filled: u32,
}

impl<'a> BitReader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            pending: 0,
            filled: 0,
        }
    }

    /// The next number of `width` (at most 32) bits; `None` at the end.
    pub(super) fn take(&mut self, width: u32) -> Option<u32> {
        while self.filled < width {
            let (&first, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            self.pending |= u64::from(first) << self.filled;
            self.filled += 8;
        }
        let value = self.pending & ((1 << width) - 1);
        self.pending >>= width;
        self.filled -= width;
        Some(value as u32)
    }

    /// Whether all was taken but the zeros that fill the last byte.
    pub(super) const fn is_finished(&self) -> bool {
        self.bytes.is_empty() && self.filled < 8 && self.pending == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_put_is_taken(numbers in prop::collection::vec((any::<u32>(), 0u32..=32), 0..100)) {
            let numbers: Vec<_> =
                numbers.into_iter().map(|(n, width)| ((u64::from(n) & ((1 << width) - 1)) as u32, width)).collect();
            let mut writer = BitWriter::default();
            for &(value, width) in &numbers {
                writer.put(value, width);
            }
            let bytes = writer.finish();
            prop_assert_eq!(bytes.len() as u32, numbers.iter().map(|n| n.1).sum::<u32>().div_ceil(8));
            let mut reader = BitReader::new(&bytes);
            for &(value, width) in &numbers {
                prop_assert_eq!(reader.take(width), Some(value));
            }
            prop_assert!(reader.is_finished());
            prop_assert_eq!(reader.take(8), None);
        }
    }

    #[test]
    fn a_byte_or_a_bit_too_many_is_not_finished() {
        assert!(BitReader::new(&[]).is_finished());
        assert!(!BitReader::new(&[0]).is_finished());
        let mut reader = BitReader::new(&[0b0100]);
        assert_eq!(reader.take(2), Some(0));
        assert!(!reader.is_finished());
    }
}
