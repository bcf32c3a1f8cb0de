//! Keys of rollups: a span of time, then a path, then the place within the span.
//!
//! The 60 minutes of an hour, or 24 hours of a day, of one path lie beside each other. So a link's history costs one
//! look-up for each hour (or day), what two neighbours share of their keys is stored once, and retention drops whole spans.

use std::time::Duration;

use leeward_common::{
    histogram::Schema,
    id::{AgentId, RegionId, TargetId},
    report::ProbeKind,
    time::Timestamp,
};

use super::Column;

/// How long a rollup is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Grain {
    /// A minute.
    Minute,
    /// An hour.
    Hour,
}

impl Grain {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Minute, Self::Hour];

    /// Where they are stored.
    #[must_use]
    pub const fn column(self) -> Column {
        match self {
            Self::Minute => Column::Minutes,
            Self::Hour => Column::Hours,
        }
    }

    /// How long one is.
    #[must_use]
    pub const fn length(self) -> Duration {
        match self {
            Self::Minute => Duration::from_secs(60),
            Self::Hour => Duration::from_secs(3600),
        }
    }

    /// How many share the beginning of their keys.
    #[must_use]
    pub const fn in_span(self) -> u8 {
        match self {
            Self::Minute => 60,
            Self::Hour => 24,
        }
    }

    /// How long these are together.
    #[must_use]
    pub fn span(self) -> Duration {
        self.length() * u32::from(self.in_span())
    }

    /// Its number on disk.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The one of this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|grain| grain.number() == number)
    }

    /// The key of the rollup that begins at `start`, of the path of these bytes ([`PathKey::bytes`]).
    #[must_use]
    pub fn key(self, start: Timestamp, path: &[u8]) -> Vec<u8> {
        let mut key = self.span_key(start).to_vec();
        key.reserve(path.len() + 1);
        key.extend_from_slice(path);
        let within = start.as_unix_us() / us(self.length()) % u64::from(self.in_span());
        key.push(within as u8);
        key
    }

    /// How the keys of the span begin that `start` lies in. Retention cuts in front of one.
    #[must_use]
    pub fn span_key(self, start: Timestamp) -> [u8; 4] {
        let span = start.as_unix_us() / us(self.span());
        // Spans of hours since 1970 have 32 bits for half a million years.
        u32::try_from(span).unwrap_or(u32::MAX).to_be_bytes()
    }

    /// How the keys of a link begin in the span that `start` lies in.
    #[must_use]
    pub fn link_key(self, start: Timestamp, from: &RegionId, to: &RegionId) -> Vec<u8> {
        let mut key = self.span_key(start).to_vec();
        push(&mut key, from.as_str());
        push(&mut key, to.as_str());
        key
    }

    /// When the rollup of a key begins; `None` if it is none.
    #[must_use]
    pub fn start(self, key: &[u8]) -> Option<Timestamp> {
        let (span, rest) = key.split_first_chunk::<4>()?;
        let within = *rest.last()?;
        let span = u64::from(u32::from_be_bytes(*span)).checked_mul(us(self.span()))?;
        let start = span.checked_add(u64::from(within) * us(self.length()))?;
        (within < self.in_span()).then(|| Timestamp::from_unix_us(start))
    }

    /// The path of a key and when its rollup begins; `None` if it is none.
    #[must_use]
    pub fn parse(self, key: &[u8]) -> Option<(Timestamp, PathKey)> {
        let start = self.start(key)?;
        Some((start, PathKey::parse(key.get(4..key.len() - 1)?)?))
    }
}

/// A path with its ends, as it stands in keys.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PathKey {
    /// The agent's region.
    pub from: RegionId,
    /// The target's region; `None` for an outside target.
    pub to: Option<RegionId>,
    /// The agent.
    pub agent: AgentId,
    /// The target.
    pub target: TargetId,
    /// How it is probed.
    pub kind: ProbeKind,
    /// The boundaries of its histograms' buckets.
    pub schema: Schema,
}

impl PathKey {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        push(&mut bytes, self.from.as_str());
        push(&mut bytes, self.to.as_ref().map_or("", RegionId::as_str));
        push(&mut bytes, self.agent.as_str());
        push(&mut bytes, self.target.as_str());
        bytes.extend([kind_number(self.kind), self.schema.number()]);
        bytes
    }

    /// How the path of these bytes is probed; `None` if they are none.
    #[must_use]
    pub fn kind(bytes: &[u8]) -> Option<ProbeKind> {
        let number = bytes.len().checked_sub(2).and_then(|at| bytes.get(at))?;
        let mut kinds = ProbeKind::ALL.into_iter();
        kinds.find(|known| kind_number(*known) == *number)
    }

    /// The path of these bytes; `None` if they are none.
    #[must_use]
    pub fn parse(mut bytes: &[u8]) -> Option<Self> {
        let from = RegionId::parse(text(&mut bytes)?).ok()?;
        let to = match text(&mut bytes)? {
            "" => None,
            to => Some(RegionId::parse(to).ok()?),
        };
        let agent = AgentId::parse(text(&mut bytes)?).ok()?;
        let target = TargetId::parse(text(&mut bytes)?).ok()?;
        let &[_, schema] = bytes else { return None };
        Some(Self {
            from,
            to,
            agent,
            target,
            kind: Self::kind(bytes)?,
            schema: Schema::from_number(schema)?,
        })
    }
}

/// Frozen, whatever order the kinds have elsewhere.
const fn kind_number(kind: ProbeKind) -> u8 {
    match kind {
        ProbeKind::Icmp => 0,
        ProbeKind::TcpSyn => 1,
        ProbeKind::Stamp => 2,
    }
}

fn push(key: &mut Vec<u8>, id: &str) {
    key.extend_from_slice(id.as_bytes());
    key.push(0);
}

fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    let (text, rest) = bytes.split_at(end);
    *bytes = &rest[1..];
    std::str::from_utf8(text).ok()
}

/// Microseconds of a span that has whole ones.
const fn us(span: Duration) -> u64 {
    span.as_secs() * 1_000_000
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn path(to: Option<&str>) -> PathKey {
        PathKey {
            from: RegionId::parse("iad").unwrap(),
            to: to.map(|to| RegionId::parse(to).unwrap()),
            agent: AgentId::parse("a").unwrap(),
            target: TargetId::parse("t").unwrap(),
            kind: ProbeKind::TcpSyn,
            schema: Schema::ThreeDigits,
        }
    }

    #[test]
    fn golden_keys() {
        let start = Timestamp::from_unix_us((3 * 86_400 + 5 * 3600 + 7 * 60) * 1_000_000);
        let bytes = path(Some("dub")).bytes();
        assert_eq!(
            Grain::Minute.key(start, &bytes),
            b"\0\0\0\x4diad\0dub\0a\0t\0\x01\x02\x07"
        );
        assert_eq!(
            Grain::Hour.key(start, &bytes),
            b"\0\0\0\x03iad\0dub\0a\0t\0\x01\x02\x05"
        );
        let outside = Grain::Hour.key(start, &path(None).bytes());
        assert_eq!(outside, b"\0\0\0\x03iad\0\0a\0t\0\x01\x02\x05");
        let (from, to) = (path(None).from, RegionId::parse("dub").unwrap());
        assert_eq!(
            Grain::Hour.link_key(start, &from, &to),
            b"\0\0\0\x03iad\0dub\0"
        );
    }

    #[test]
    fn a_key_says_when_its_rollup_begins() {
        let start = Timestamp::from_unix_us(1_700_000_040_000_000);
        for grain in Grain::ALL {
            let start = start.floor(grain.length());
            let key = grain.key(start, &path(None).bytes());
            assert_eq!(grain.parse(&key), Some((start, path(None))));
        }
    }

    #[test]
    fn any_bytes_are_a_key_or_none_and_a_key_reads_back() {
        let seed = Grain::Minute.key(Timestamp::EPOCH, &path(Some("dub")).bytes());
        bolero::check!()
            .with_iterations(20_000)
            .with_type()
            .for_each(|(at, bytes): &(u8, Vec<u8>)| {
                let mut changed = seed.clone();
                let start = usize::from(*at) % seed.len();
                for (place, byte) in changed[start..].iter_mut().zip(bytes) {
                    *place = *byte;
                }
                for bytes in [&changed, bytes] {
                    for grain in Grain::ALL {
                        if let Some((start, path)) = grain.parse(bytes) {
                            assert_eq!(grain.key(start, &path.bytes()), *bytes);
                        }
                    }
                }
            });
    }
}
