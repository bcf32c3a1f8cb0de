//! A string of bits: numbers that carry no structure, each at its own width, least significant bit first.
//!
//! Where within its bucket a minimum lies is noise. A compressor spends time on noise and gains nothing, and a byte
//! boundary after each of them would cost half a byte, so these numbers are packed by the bit and left alone.

/// Appends numbers.
#[derive(Debug, Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    filled: u32,
}

impl BitWriter {
    /// Appends the lowest `width` (at most 32) bits of a value; the others must be zero.
    pub fn put(&mut self, value: u32, width: u32) {
        debug_assert!(width <= 32 && u64::from(value) >> width == 0);
        self.pending |= u64::from(value) << self.filled;
        self.filled += width;
        while self.filled >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.filled -= 8;
        }
    }

    /// Appends ones and, if there are fewer than `limit` (at most 31), a zero that ends them.
    pub fn put_ones(&mut self, ones: u32, limit: u32) {
        debug_assert!(ones <= limit && limit < 32);
        self.put((1 << ones) - 1, ones + u32::from(ones < limit));
    }

    /// The bytes, the last one filled up with zeros.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.bytes.push(self.pending as u8);
        }
        self.bytes
    }
}

/// Takes numbers off.
#[derive(Debug)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bits taken.
    taken: usize,
}

impl<'a> BitReader<'a> {
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, taken: 0 }
    }

    /// The next number of `width` (at most 32) bits; `None` at the end.
    #[inline]
    pub fn take(&mut self, width: u32) -> Option<u32> {
        let rest = self.bytes.get(self.taken / 8..)?;
        let word = match rest.first_chunk() {
            Some(eight) => u64::from_le_bytes(*eight),
            None => self.last_bytes(rest, width)?,
        };
        // Seven bits of other numbers and 32 of this one are in any eight bytes.
        let value = word >> (self.taken % 8) & ((1 << width) - 1);
        self.taken += width as usize;
        Some(value as u32)
    }

    /// How many ones follow, of at most `limit` (at most 31), with the zero that ends them; `None` at the end.
    #[inline]
    pub fn take_ones(&mut self, limit: u32) -> Option<u32> {
        let rest = self.bytes.get(self.taken / 8..)?;
        let word = match rest.first_chunk() {
            Some(eight) => u64::from_le_bytes(*eight),
            None => self.last_bytes(rest, 0)?,
        };
        let ones = (word >> (self.taken % 8)).trailing_ones().min(limit);
        // What fills up the last bytes ends no ones.
        let taken = self.taken + (ones + u32::from(ones < limit)) as usize;
        (taken <= self.bytes.len() * 8).then(|| {
            self.taken = taken;
            ones
        })
    }

    /// Fewer than eight bytes, filled up with zeros; `None` when there are too few bits in them.
    fn last_bytes(&self, rest: &[u8], width: u32) -> Option<u64> {
        let mut eight = [0; 8];
        eight[..rest.len()].copy_from_slice(rest);
        let enough = self.taken + width as usize <= self.bytes.len() * 8;
        enough.then_some(u64::from_le_bytes(eight))
    }

    /// Whether all was taken but the zeros that fill the last byte.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        let left = self.bytes.get(self.taken.div_ceil(8)..);
        let filling = match self.taken % 8 {
            0 => 0,
            used => self
                .bytes
                .get(self.taken / 8)
                .map_or(0, |last| last >> used),
        };
        left.is_some_and(<[u8]>::is_empty) && filling == 0
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

    proptest! {
        #[test]
        fn ones_that_are_put_are_taken(limit in 1u32..=31, numbers in prop::collection::vec(0u32..=31, 0..100)) {
            let numbers: Vec<_> = numbers.into_iter().map(|ones| ones.min(limit)).collect();
            let mut writer = BitWriter::default();
            numbers.iter().for_each(|&ones| writer.put_ones(ones, limit));
            let bytes = writer.finish();
            let mut reader = BitReader::new(&bytes);
            for ones in numbers {
                prop_assert_eq!(reader.take_ones(limit), Some(ones));
            }
            prop_assert!(reader.is_finished());
        }
    }

    #[test]
    fn ones_to_the_end_have_no_end() {
        assert_eq!(BitReader::new(&[0xff]).take_ones(9), None);
        assert_eq!(BitReader::new(&[0xff]).take_ones(8), Some(8));
        assert_eq!(BitReader::new(&[]).take_ones(1), None);
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
