//! Every key on disk, in one table. Big-endian, time first where there is a time, so that byte order is time order.
//!
//! | column          | key                                        | value ([`super::record::v1`])      | leaves                |
//! |-----------------|--------------------------------------------|------------------------------------|-----------------------|
//! | `meta`          | a name                                     | text; `shadow`: `Shadow`           | never                 |
//! | `journal`       | time `u64` µs, counter `u32`               | `Record`: what arrived             | 48 h, by file ranges  |
//! | `decisions`     | time `u64` µs, counter `u32`               | `Decided`: what was decided        | 400 d, by file ranges |
//! | `snapshots`     | time `u64` µs, counter `u32`               | `Snapshot`: a cache of the engine  | 48 h, but one an hour |
//! | `tables`        | agent, `00`, boot epoch `u64`, table `u32` | `Table`: rows of batches           | with its boot epoch   |
//! | `watermarks`    | agent, `00`, boot epoch `u64`              | `Watermark`: which batches arrived | 48 h after the last   |
//! | `registrations` | agent                                      | `Registration`: where it answers   | 48 h after the last   |
//! | `audit`         | sequence `u64`, from 1                     | `Audited`: who did what and why    | never                 |
//! | `minutes`       | hour `u32`, path, minute of it `u8`        | [`crate::rollup::code`]            | 30 d, by file ranges  |
//! | `hours`         | day `u32`, path, hour of it `u8`           | [`crate::rollup::code`]            | 400 d, by file ranges |
//! | `late`          | window `u64` µs, position as in `journal`  | the agent's region                 | with the journal      |
//!
//! A position in the journal names the same moment in the other time-keyed columns: a snapshot at position P holds
//! everything up to and including the record at P. No id holds a zero byte, so `00` ends it.
//!
//! A path in a key of `minutes` and `hours`: region, `00`, the target's region or nothing, `00`, agent, `00`, target, `00`,
//! probe kind `u8`, histogram schema `u8` ([`path`]).

pub mod path;

use leeward_common::{id::AgentId, time::Timestamp};

/// A column family.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Column {
    /// The format version; the shadow policy.
    Meta,
    /// What arrived, as it came.
    Journal,
    /// What was decided.
    Decisions,
    /// Serialised engines.
    Snapshots,
    /// Path tables.
    Tables,
    /// Which batches arrived.
    Watermarks,
    /// Which agents registered.
    Registrations,
    /// Who did what and why.
    Audit,
    /// Rollups of minutes.
    Minutes,
    /// Rollups of hours.
    Hours,
    /// Batches of the journal that did not arrive at about the time that they tell of.
    Late,
}

impl Column {
    /// Every column.
    pub const ALL: [Self; 11] = [
        Self::Meta,
        Self::Journal,
        Self::Decisions,
        Self::Snapshots,
        Self::Tables,
        Self::Watermarks,
        Self::Registrations,
        Self::Audit,
        Self::Minutes,
        Self::Hours,
        Self::Late,
    ];

    /// The name on disk.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Journal => "journal",
            Self::Decisions => "decisions",
            Self::Snapshots => "snapshots",
            Self::Tables => "tables",
            Self::Watermarks => "watermarks",
            Self::Registrations => "registrations",
            Self::Audit => "audit",
            Self::Minutes => "minutes",
            Self::Hours => "hours",
            Self::Late => "late",
        }
    }
}

/// A place in the journal, in the order in which things came into force.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// The aggregator's time.
    pub time: Timestamp,
    /// Tells apart what arrived at the same time.
    pub counter: u32,
}

impl Position {
    /// The first place of a time.
    #[must_use]
    pub const fn at(time: Timestamp) -> Self {
        Self { time, counter: 0 }
    }

    /// The place after this one, not before `now`.
    #[must_use]
    pub fn next(self, now: Timestamp) -> Self {
        if now > self.time {
            return Self::at(now);
        }
        match self.counter.checked_add(1) {
            Some(counter) => Self {
                time: self.time,
                counter,
            },
            None => Self::at(self.time + std::time::Duration::from_micros(1)),
        }
    }

    /// The key.
    #[must_use]
    pub fn key(self) -> [u8; 12] {
        let mut key = [0; 12];
        key[..8].copy_from_slice(&self.time.as_unix_us().to_be_bytes());
        key[8..].copy_from_slice(&self.counter.to_be_bytes());
        key
    }

    /// The position of a key; `None` if it is none.
    #[must_use]
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let (time, counter) = key.split_first_chunk::<8>()?;
        let counter: [u8; 4] = counter.try_into().ok()?;
        let time = Timestamp::from_unix_us(u64::from_be_bytes(*time));
        Some(Self {
            time,
            counter: u32::from_be_bytes(counter),
        })
    }
}

/// The key in `late` of a batch whose window begins at `window`.
#[must_use]
pub fn late(window: Timestamp, position: Position) -> [u8; 20] {
    let mut key = [0; 20];
    key[..8].copy_from_slice(&window.as_unix_us().to_be_bytes());
    key[8..].copy_from_slice(&position.key());
    key
}

/// The window's start and the position of a key in `late`; `None` if it is none.
#[must_use]
pub fn from_late(key: &[u8]) -> Option<(Timestamp, Position)> {
    let (window, position) = key.split_first_chunk::<8>()?;
    let window = Timestamp::from_unix_us(u64::from_be_bytes(*window));
    Some((window, Position::from_key(position)?))
}

/// One start of an agent's process.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Epoch {
    /// The agent.
    pub agent: AgentId,
    /// Random, chosen at the start.
    pub boot: u64,
}

impl Epoch {
    /// The key in `watermarks`, and the beginning of the keys in `tables`.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        let agent = self.agent.as_str().as_bytes();
        let mut key = Vec::with_capacity(agent.len() + 13);
        key.extend_from_slice(agent);
        key.push(0);
        key.extend_from_slice(&self.boot.to_be_bytes());
        key
    }

    /// The key of one of its tables.
    #[must_use]
    pub fn table_key(&self, table: u32) -> Vec<u8> {
        let mut key = self.key();
        key.extend_from_slice(&table.to_be_bytes());
        key
    }

    /// The epoch of a key in `watermarks`; `None` if it is none.
    #[must_use]
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let (epoch, rest) = Self::split(key)?;
        rest.is_empty().then_some(epoch)
    }

    /// The epoch and table of a key in `tables`; `None` if it is none.
    #[must_use]
    pub fn from_table_key(key: &[u8]) -> Option<(Self, u32)> {
        let (epoch, table) = Self::split(key)?;
        Some((epoch, u32::from_be_bytes(table.try_into().ok()?)))
    }

    fn split(key: &[u8]) -> Option<(Self, &[u8])> {
        let end = key.iter().position(|&byte| byte == 0)?;
        let agent = AgentId::parse(std::str::from_utf8(&key[..end]).ok()?).ok()?;
        let (boot, rest) = key[end + 1..].split_first_chunk::<8>()?;
        Some((
            Self {
                agent,
                boot: u64::from_be_bytes(*boot),
            },
            rest,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(us: u64, counter: u32) -> Position {
        Position {
            time: Timestamp::from_unix_us(us),
            counter,
        }
    }

    #[test]
    fn byte_order_is_time_order() {
        let ordered = [
            (0, 0),
            (0, 1),
            (1, 0),
            (255, 9),
            (256, 0),
            (1 << 40, u32::MAX),
            (u64::MAX, 0),
        ];
        for pair in ordered.windows(2) {
            let [a, b] = [
                position(pair[0].0, pair[0].1),
                position(pair[1].0, pair[1].1),
            ];
            assert!(a < b && a.key() < b.key());
        }
    }

    #[test]
    fn the_next_position_is_always_later() {
        let now = Timestamp::from_unix_us(100);
        assert_eq!(position(99, 7).next(now), position(100, 0));
        assert_eq!(position(100, 7).next(now), position(100, 8));
        assert_eq!(position(500, 0).next(now), position(500, 1));
        assert_eq!(position(100, u32::MAX).next(now), position(101, 0));
    }

    #[test]
    fn golden_keys() {
        assert_eq!(
            position(0x0102, 3).key(),
            [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3]
        );
        let epoch = Epoch {
            agent: AgentId::parse("a1").unwrap(),
            boot: 0x0102,
        };
        assert_eq!(epoch.key(), b"a1\0\0\0\0\0\0\0\x01\x02");
        assert_eq!(epoch.table_key(5), b"a1\0\0\0\0\0\0\0\x01\x02\0\0\0\x05");
        assert_eq!(
            late(Timestamp::from_unix_us(0x0405), position(0x0102, 3)),
            [0, 0, 0, 0, 0, 0, 4, 5, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3]
        );
    }

    #[test]
    fn any_bytes_are_a_key_or_none_and_a_key_reads_back() {
        bolero::check!()
            .with_iterations(20_000)
            .for_each(|bytes: &[u8]| {
                if let Some(position) = Position::from_key(bytes) {
                    assert_eq!(position.key(), bytes);
                }
                if let Some((window, position)) = from_late(bytes) {
                    assert_eq!(late(window, position), bytes);
                }
                if let Some(epoch) = Epoch::from_key(bytes) {
                    assert_eq!(epoch.key(), bytes);
                }
                if let Some((epoch, table)) = Epoch::from_table_key(bytes) {
                    assert_eq!(epoch.table_key(table), bytes);
                }
            });
    }
}
