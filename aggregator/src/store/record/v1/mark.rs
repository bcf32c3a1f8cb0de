//! What belongs to rollups: how far they are; a batch of the journal without the copy of its bytes; checksums of files.

use leeward_common::id::RegionId;
use serde::{Deserialize, Serialize};

use crate::store::key::{Column, Position, path::Grain};

/// How far the rollups are; in column `meta`. Written with the rollups that it tells of, so that none counts a record of the
/// journal twice, or not at all.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Mark {
    /// Every record of the journal up to and including this position is in them.
    pub folded: At,
    /// What comes next is in some of them already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_way: Option<UnderWay>,
}

/// A position in the journal; before the first one if it is zero.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct At {
    /// The aggregator's time.
    pub us: u64,
    /// Tells apart what arrived at the same time.
    pub counter: u32,
}

/// A part of the journal that is in some rollups already.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UnderWay {
    /// Up to and including this position
    pub to: At,
    /// it is in all rollups of minutes (0), and of hours if those are meant (1),
    pub grain: u8,
    /// up to and including this key.
    #[serde(with = "serde_bytes")]
    pub key: Vec<u8>,
}

impl Mark {
    /// Whether the rollup under this key has what the journal holds at this position.
    #[must_use]
    pub fn covers(&self, grain: Grain, key: &[u8], position: Position) -> bool {
        let at = At::from(position);
        let is_done = |under_way: &UnderWay| {
            at <= under_way.to
                && (grain.number(), key) <= (under_way.grain, under_way.key.as_slice())
        };
        at <= self.folded || self.under_way.as_ref().is_some_and(is_done)
    }
}

impl From<Position> for At {
    fn from(position: Position) -> Self {
        Self {
            us: position.time.as_unix_us(),
            counter: position.counter,
        }
    }
}

impl From<At> for Position {
    fn from(at: At) -> Self {
        Self {
            time: leeward_common::time::Timestamp::from_unix_us(at.us),
            counter: at.counter,
        }
    }
}

/// What a file that never changes had in it; in column `meta`, under its name.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Checksum {
    /// How many bytes.
    pub bytes: u64,
    /// CRC-32C of them.
    pub crc32c: u32,
}

/// How a record of the journal begins that is a batch: a map of one, and its name.
const BATCH: &[u8] = b"\x81\xa5batch";

/// A batch of the journal, where it lies.
#[derive(Debug, Deserialize)]
pub struct BatchAt<'a> {
    region: &'a str,
    /// The batch's own bytes.
    #[serde(with = "serde_bytes")]
    pub bytes: &'a [u8],
}

impl<'a> BatchAt<'a> {
    /// The batch in a record; `None` if it holds something else.
    ///
    /// # Errors
    ///
    /// Returns [`crate::store::StoreError::Malformed`] when it is a batch and cannot be read.
    pub fn of(record: &'a [u8]) -> Result<Option<Self>, crate::store::StoreError> {
        let Some(batch) = record.strip_prefix(BATCH) else {
            return Ok(None);
        };
        let read = rmp_serde::from_slice(batch);
        read.map(Some)
            .map_err(|error| crate::store::StoreError::Malformed {
                what: Column::Journal.name(),
                why: error.to_string(),
            })
    }

    /// The agent's region; `None` if it is none.
    #[must_use]
    pub fn region(&self) -> Option<RegionId> {
        RegionId::parse(self.region).ok()
    }

    /// The same as text.
    #[must_use]
    pub const fn region_text(&self) -> &'a str {
        self.region
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::v1::{Batch, Record, decode, encode};

    #[test]
    fn golden_bytes() {
        let mark = Mark {
            folded: At { us: 7, counter: 1 },
            under_way: Some(UnderWay {
                to: At { us: 9, counter: 0 },
                grain: 1,
                key: b"k".to_vec(),
            }),
        };
        let bytes = b"\x82\xa6folded\x82\xa2us\x07\xa7counter\x01\xa9under_way\x83\xa2to\x82\xa2us\x09\xa7counter\x00\xa5grain\x01\xa3key\xc4\x01k";
        assert_eq!(encode(&mark), bytes);
        assert_eq!(decode::<Mark>("mark", bytes).unwrap(), mark);

        let checksum = Checksum {
            bytes: 300,
            crc32c: 5,
        };
        let bytes = b"\x82\xa5bytes\xcd\x01\x2c\xa6crc32c\x05";
        assert_eq!(encode(&checksum), bytes);
        assert_eq!(decode::<Checksum>("checksum", bytes).unwrap(), checksum);
    }

    #[test]
    fn a_mark_tells_what_is_done_key_by_key() {
        let at = |us| Position::at(leeward_common::time::Timestamp::from_unix_us(us));
        let mark = Mark {
            folded: at(10).into(),
            under_way: Some(UnderWay {
                to: at(20).into(),
                grain: Grain::Minute.number(),
                key: b"m".to_vec(),
            }),
        };
        for (grain, key, us, covered) in [
            (Grain::Hour, b"z", 10, true),
            (Grain::Minute, b"m", 20, true),
            (Grain::Minute, b"m", 21, false),
            (Grain::Minute, b"n", 11, false),
            (Grain::Hour, b"a", 11, false),
        ] {
            assert_eq!(mark.covers(grain, key, at(us)), covered, "{grain:?} {us}");
        }
    }

    #[test]
    fn a_batch_is_found_where_it_lies_and_nothing_else_is_one() {
        let batch = Record::Batch(Batch {
            region: RegionId::parse("iad").unwrap(),
            bytes: vec![1, 2, 0xff],
        });
        let bytes = encode(&batch);
        let found = BatchAt::of(&bytes).unwrap().unwrap();
        assert_eq!(
            (found.region_text(), found.bytes),
            ("iad", &[1, 2, 0xff][..])
        );
        let other = b"\x81\xacdisconnected\x81\xa5agent\xa5iad-1";
        assert!(BatchAt::of(other).unwrap().is_none());
        bolero::check!()
            .with_iterations(20_000)
            .for_each(|bytes: &[u8]| {
                let record = [BATCH, bytes].concat();
                if let Ok(Some(found)) = BatchAt::of(&record) {
                    let _ = found.region();
                }
                let _ = BatchAt::of(bytes);
                let _ = decode::<Mark>("mark", bytes);
                let _ = decode::<Checksum>("checksum", bytes);
            });
    }
}
