//! A column: the same number of every row, one after the other.
//!
//! Most columns of a quiet network hold one value in every row. So a column begins with a number that says which of
//! two forms it has (numbers are LEB128 varints, seven bits a byte, least significant first, as short as can be):
//!
//! ```text
//!  0      value                    every entry is `value`
//!  n + 1  n bytes of varints       the entries, one by one; n is 0 when there are none
//! ```
//!
//! A writer takes the first form exactly when there are entries and all are equal.

use crate::varint::{push_varint, take_varint};

/// Builds a column.
#[derive(Debug, Default)]
pub(super) struct ColumnWriter {
    first: Option<u64>,
    differs: bool,
    bytes: Vec<u8>,
}

impl ColumnWriter {
    /// Appends an entry.
    pub(super) fn push(&mut self, value: u64) {
        self.differs |= *self.first.get_or_insert(value) != value;
        push_varint(&mut self.bytes, value);
    }

    /// Appends the column to `out`.
    pub(super) fn finish(&self, out: &mut Vec<u8>) {
        match self.first {
            Some(value) if !self.differs => {
                out.push(0);
                push_varint(out, value);
            }
            _ => {
                push_varint(out, self.bytes.len() as u64 + 1);
                out.extend_from_slice(&self.bytes);
            }
        }
    }
}

/// Reads a column.
#[derive(Clone, Debug)]
pub(super) enum Column<'a> {
    /// Every entry.
    Constant(u64),
    /// The entries not read yet.
    Varied(&'a [u8]),
}

impl<'a> Column<'a> {
    /// Splits a column off the front; `None` when it is cut short.
    pub(super) fn split_off(bytes: &mut &'a [u8]) -> Option<Self> {
        match take_varint(bytes)? {
            0 => Some(Self::Constant(take_varint(bytes)?)),
            head => {
                let (column, rest) = bytes.split_at_checked(usize::try_from(head - 1).ok()?)?;
                *bytes = rest;
                Some(Self::Varied(column))
            }
        }
    }

    /// The next entry; `None` past the last.
    #[inline]
    pub(super) fn take(&mut self) -> Option<u64> {
        match self {
            Self::Constant(value) => Some(*value),
            Self::Varied(bytes) => take_varint(bytes),
        }
    }

    /// The next entry as a 32-bit number; `None` past the last and when it is larger.
    #[inline]
    pub(super) fn take_u32(&mut self) -> Option<u32> {
        u32::try_from(self.take()?).ok()
    }

    /// What every entry is, if all are one 32-bit number.
    pub(super) fn constant_u32(&self) -> Option<u32> {
        match self {
            Self::Constant(value) => u32::try_from(*value).ok(),
            Self::Varied(_) => None,
        }
    }

    /// Whether no entry is left over.
    pub(super) const fn is_finished(&self) -> bool {
        match self {
            Self::Constant(_) => true,
            Self::Varied(bytes) => bytes.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn column(entries: &[u64]) -> Vec<u8> {
        let mut writer = ColumnWriter::default();
        entries.iter().for_each(|&entry| writer.push(entry));
        let mut bytes = Vec::new();
        writer.finish(&mut bytes);
        bytes
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(column(&[]), [1]);
        assert_eq!(column(&[300, 300]), [0, 0xac, 0x02]);
        assert_eq!(column(&[0, 1, 300]), [5, 0, 1, 0xac, 0x02]);
    }

    proptest! {
        #[test]
        fn what_is_pushed_is_taken(entries in prop::collection::vec(any::<u64>(), 0..50), tail in any::<[u8; 3]>()) {
            let mut bytes = column(&entries);
            bytes.extend(tail);
            let mut rest = &bytes[..];
            let mut column = Column::split_off(&mut rest).unwrap();
            prop_assert_eq!(rest, &tail[..]);
            for entry in &entries {
                prop_assert_eq!(column.take(), Some(*entry));
            }
            prop_assert!(column.is_finished());
        }
    }
}
