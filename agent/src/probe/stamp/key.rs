//! The key of a mesh: who knows it can prove that a packet was written within the mesh (RFC 8762 section 4.4).

use ring::hmac;
use subtle::ConstantTimeEq as _;

/// Length of what is kept of an HMAC-SHA-256.
pub const TAG_BYTES: usize = 16;

/// Bytes of a key: fewer could be guessed, more than a block of SHA-256 are hashed down first.
pub const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

/// The key, made ready for use.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// A text that is no key. It does not repeat the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a key; write 16 to 64 bytes as hexadecimal digits, as `openssl rand -hex 32` does")]
pub struct InvalidKey;

impl Key {
    /// The key of a secret.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Reads hexadecimal digits; blanks around them are no part of the key.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidKey`] for other characters, half a byte, and a length outside [`KEY_BYTES`].
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let (pairs, rest) = text.trim().as_bytes().as_chunks::<2>();
        let secret: Option<Vec<u8>> = pairs
            .iter()
            .map(|&[high, low]| Some((digit(high)? << 4) | digit(low)?))
            .collect();
        secret
            .filter(|secret| rest.is_empty() && KEY_BYTES.contains(&secret.len()))
            .map(|secret| Self::new(&secret))
            .ok_or(InvalidKey)
    }

    /// The proof that these bytes were written by someone who knows the key.
    #[must_use]
    pub fn tag(&self, bytes: &[u8]) -> [u8; TAG_BYTES] {
        let tag = hmac::sign(&self.0, bytes);
        *tag.as_ref()
            .first_chunk()
            .expect("an HMAC-SHA-256 is longer than what is kept of it")
    }

    /// Whether the tag proves the bytes. Takes equally long for every wrong one.
    #[must_use]
    pub fn proves(&self, bytes: &[u8], tag: &[u8]) -> bool {
        self.tag(bytes).ct_eq(tag).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_the_first_half_of_the_standards_hmac() {
        // RFC 4231, test case 2.
        let key = Key::new(b"Jefe");
        let tag = key.tag(b"what do ya want for nothing?");
        assert_eq!(
            tag,
            [
                0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08, 0x95,
                0x75, 0xc7
            ]
        );
        assert!(key.proves(b"what do ya want for nothing?", &tag));
        assert!(!key.proves(b"what do ya want for nothing!", &tag));
        assert!(!key.proves(b"what do ya want for nothing?", &tag[..15]));
    }

    #[test]
    fn a_key_is_hexadecimal_and_neither_short_nor_long() {
        let same = |text: &str, secret: &[u8]| {
            Key::parse(text).unwrap().tag(b"x") == Key::new(secret).tag(b"x")
        };
        assert!(same(
            " 000102030405060708090a0B0c0D0e0f\n",
            &std::array::from_fn::<u8, 16, _>(|n| n as u8)
        ));
        let wrong = [
            "",
            "00",
            &"0".repeat(33),
            &"0".repeat(130),
            &"g".repeat(32),
            &"é".repeat(16),
        ];
        for text in wrong {
            assert_eq!(Key::parse(text).err(), Some(InvalidKey), "{text:?}");
        }
    }
}
