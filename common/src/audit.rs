//! The audit log: who did what and why, each entry tied to the one before it, so that nobody can change, remove or
//! reorder one without it being seen.
//!
//! ```text
//!   hash(n) = SHA-256( canonical bytes of entry n, which begin with hash(n - 1) )        hash(0) = 32 zero bytes
//! ```
//!
//! The canonical bytes are made from the entry's own members ([`canonical`]), so that whoever holds an export can check
//! it with any SHA-256. Cutting off the end cannot be seen in the rest: for that the newest hash is told outside, in
//! `/v1/audit`, in `/metrics` and by `leeward audit list`.

use sha2::{Digest, Sha256};

use crate::api::v1::AuditEntry;

/// A SHA-256.
pub type Hash = [u8; 32];

/// What the first entry follows.
pub const START: Hash = [0; 32];

/// The bytes that are hashed: the text `leeward audit 1`, the hash of the entry before (32 bytes), sequence, time in
/// microseconds since 1970 and version (8 bytes each, big-endian), then `who`, `why`, `what`, `about` and `detail`, each
/// as its length in bytes (4 bytes, big-endian) and its UTF-8.
#[must_use]
pub fn canonical(previous: &Hash, entry: &AuditEntry) -> Vec<u8> {
    let texts = [
        &entry.who,
        &entry.why,
        &entry.what,
        &entry.about,
        &entry.detail,
    ];
    let mut bytes = b"leeward audit 1".to_vec();
    bytes.extend_from_slice(previous);
    for number in [entry.sequence, entry.at.0.as_unix_us(), entry.version] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    for text in texts {
        // No text of an entry comes near 4 GiB: request bodies and files are bounded.
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// The hash of an entry that follows `previous`.
#[must_use]
pub fn hash(previous: &Hash, entry: &AuditEntry) -> Hash {
    Sha256::digest(canonical(previous, entry)).into()
}

/// A hash as 64 hexadecimal digits.
#[must_use]
pub fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of 64 hexadecimal digits; `None` if they are none.
#[must_use]
pub fn parse_hex(text: &str) -> Option<Hash> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(hash)
}

/// What is wrong with a log.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Broken {
    /// Entries are gone.
    #[error("{}", missing(*.from, *.to))]
    Missing {
        /// The first that is gone.
        from: u64,
        /// The last that is gone.
        to: u64,
    },
    /// An entry stands after a later one, or twice.
    #[error("entry {sequence} stands where entry {expected} should be")]
    OutOfOrder {
        /// Its sequence.
        sequence: u64,
        /// The one that should be there.
        expected: u64,
    },
    /// An entry is not what was written.
    #[error("entry {sequence} was changed: its contents do not have its hash")]
    Changed {
        /// Its sequence.
        sequence: u64,
    },
    /// An entry is whole, but follows something else than what stands before it.
    #[error("entry {sequence} does not follow the entry before it: one of the two was replaced")]
    Unlinked {
        /// Its sequence.
        sequence: u64,
    },
    /// The log ends elsewhere than where it is known to end.
    #[error(
        "the log ends with hash {found}, and its head should be {expected}: its end was replaced or cut off"
    )]
    Head {
        /// The hash of the last entry.
        found: String,
        /// What it should be.
        expected: String,
    },
}

fn missing(from: u64, to: u64) -> String {
    if from == to {
        format!("entry {from} is missing")
    } else {
        format!("entries {from} to {to} are missing")
    }
}

/// Checks a log, entry by entry from the first.
#[derive(Clone, Debug)]
pub struct Verifier {
    next: u64,
    previous: Hash,
    /// Whether what stands before is what was written: what follows something broken cannot be held against it.
    sound: bool,
    broken: Vec<Broken>,
}

impl Default for Verifier {
    fn default() -> Self {
        Self {
            next: 1,
            previous: START,
            sound: true,
            broken: Vec::new(),
        }
    }
}

impl Verifier {
    /// Takes the next entry.
    pub fn take(&mut self, entry: &AuditEntry) {
        let sequence = entry.sequence;
        if sequence < self.next {
            self.broken.push(Broken::OutOfOrder {
                sequence,
                expected: self.next,
            });
            self.sound = false;
            return;
        }
        if sequence > self.next {
            let (from, to) = (self.next, sequence - 1);
            self.broken.push(Broken::Missing { from, to });
            self.sound = false;
        }
        let (previous, own) = (parse_hex(&entry.previous), parse_hex(&entry.hash));
        let is_whole = previous
            .as_ref()
            .is_some_and(|previous| Some(hash(previous, entry)) == own);
        if !is_whole {
            self.broken.push(Broken::Changed { sequence });
        } else if self.sound && previous != Some(self.previous) {
            self.broken.push(Broken::Unlinked { sequence });
        }
        self.sound = is_whole;
        self.previous = own.unwrap_or(START);
        self.next = sequence.saturating_add(1);
    }

    /// How many entries were taken, whole or not, and the hash of the last.
    #[must_use]
    pub const fn head(&self) -> (u64, Hash) {
        (self.next - 1, self.previous)
    }

    /// Everything that is wrong. `head` is the newest hash as it is known from elsewhere, if it is.
    #[must_use]
    pub fn finish(mut self, head: Option<Hash>) -> Vec<Broken> {
        if let Some(head) = head.filter(|head| *head != self.previous) {
            self.broken.push(Broken::Head {
                found: hex(&self.previous),
                expected: hex(&head),
            });
        }
        self.broken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{api::v1::Time, time::Timestamp};

    fn log(length: u64) -> Vec<AuditEntry> {
        let mut previous = START;
        let entry = |sequence| {
            let mut entry = AuditEntry {
                sequence,
                at: Time(Timestamp::from_unix_us(1_000 + sequence)),
                who: "mara".to_owned(),
                why: format!("reason {sequence}"),
                what: "put".to_owned(),
                about: "override works".to_owned(),
                version: sequence,
                detail: "rule = \"drain\"".to_owned(),
                previous: hex(&previous),
                hash: String::new(),
            };
            previous = hash(&previous, &entry);
            entry.hash = hex(&previous);
            entry
        };
        (1..=length).map(entry).collect()
    }

    fn verify(log: &[AuditEntry], head: Option<Hash>) -> Vec<Broken> {
        let mut verifier = Verifier::default();
        log.iter().for_each(|entry| verifier.take(entry));
        verifier.finish(head)
    }

    /// The form of the hashed bytes never changes: exports of last year must verify.
    #[test]
    fn golden_hash() {
        let entry = &log(1)[0];
        assert_eq!(
            canonical(&START, entry).len(),
            15 + 32 + 24 + 5 * 4 + 4 + 8 + 3 + 14 + 14
        );
        assert_eq!(entry.hash, GOLDEN);
    }

    const GOLDEN: &str = "9109b06dcd28620da622324cdc4e7cb3ac6ddcfe4ec89b66480d4872d0ff859d";

    #[test]
    fn a_whole_log_is_whole_and_its_end_is_pinned_by_its_head() {
        let log = log(5);
        let head = parse_hex(&log[4].hash);
        assert_eq!(verify(&log, head), []);
        assert_eq!(verify(&log[..4], None), []);
        assert!(matches!(verify(&log[..4], head)[..], [Broken::Head { .. }]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let whole = log(6);
        let mut removed = whole.clone();
        removed.drain(2..4);
        assert_eq!(verify(&removed, None), [Broken::Missing { from: 3, to: 4 }]);
        let mut swapped = whole.clone();
        swapped.swap(2, 3);
        assert_eq!(
            verify(&swapped, None)[..2],
            [
                Broken::Missing { from: 3, to: 3 },
                Broken::OutOfOrder {
                    sequence: 3,
                    expected: 5
                }
            ]
        );
        let mut forged = whole.clone();
        forged[2].who = "eve".to_owned();
        forged[2].hash = hex(&hash(&parse_hex(&forged[2].previous).unwrap(), &forged[2]));
        assert_eq!(verify(&forged, None), [Broken::Unlinked { sequence: 4 }]);
    }

    proptest! {
        /// Whatever is changed in whichever entry, it is found and named.
        #[test]
        fn no_change_goes_unseen(at in 0_usize..6, field in 0_u8..8, text in "[a-z]{1,8}") {
            let mut log = log(6);
            let entry = &mut log[at];
            let before = entry.clone();
            match field {
                0 => entry.who = text,
                1 => entry.why = text,
                2 => entry.what = text,
                3 => entry.about = text,
                4 => entry.detail = text,
                5 => entry.version += 1,
                6 => entry.at = Time(Timestamp::from_unix_us(7)),
                _ => entry.previous = hex(&[7; 32]),
            }
            prop_assume!(*entry != before);
            let sequence = entry.sequence;
            prop_assert_eq!(verify(&log, None), [Broken::Changed { sequence }]);
        }
    }
}
