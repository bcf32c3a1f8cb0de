//! Names of things: one newtype per noun, so that a region is never passed where an agent is meant.
//!
//! An id that exists is valid: 1 to 63 characters of `a-z`, `0-9`, `-`, `_` and `.`, beginning with a letter or a
//! digit. That is a DNS label's repertoire plus `_` and `.`, so ids appear unescaped in URLs, metrics and host names.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

/// The longest id, in bytes.
pub const MAX_LENGTH: usize = 63;

/// A text that is no id.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{text:?} is not {noun} id; use 1 to {MAX_LENGTH} of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit"
)]
pub struct InvalidId {
    noun: &'static str,
    text: String,
}

fn valid(text: &str) -> bool {
    let tail = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(b);
    let bytes = text.as_bytes();
    bytes.len() <= MAX_LENGTH
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(tail)
}

/// Reads a text, lent or given, and parses it without a copy of its own.
struct Text<T>(fn(&str) -> Result<T, InvalidId>);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id as text")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $noun:literal) => {
        $(#[$doc])*
        #[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses an id.
            ///
            /// # Errors
            ///
            /// Returns [`InvalidId`] when the text is empty, too long or holds a character outside the repertoire.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                if valid(text) {
                    return Ok(Self(Arc::from(text)));
                }
                let shown = text.chars().take(MAX_LENGTH + 1).collect();
                Err(InvalidId { noun: $noun, text: shown })
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text(Self::parse))
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                <String as utoipa::PartialSchema>::schema()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}
    };
}

id!(
    /// A place that can serve: a cloud region, a data centre, a site.
    RegionId,
    "a region"
);
id!(
    /// One measuring host.
    AgentId,
    "an agent"
);
id!(
    /// One probed address, under a name that outlives the address.
    TargetId,
    "a target"
);
id!(
    /// A service of the user's.
    ServiceId,
    "a service"
);
id!(
    /// Something that a region has so much of: `vcpu`, `gpu`, `units`.
    ResourceId,
    "a resource"
);
id!(
    /// An offer of capacity.
    OfferId,
    "an offer"
);
id!(
    /// A reservation of capacity.
    ReservationId,
    "a reservation"
);
id!(
    /// An operator's override.
    OverrideId,
    "an override"
);
id!(
    /// A check of a service.
    CheckId,
    "a check"
);
id!(
    /// Who injected a signal.
    SourceId,
    "a source"
);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Map = BTreeMap<RegionId, RegionId>;

    #[test]
    fn ordinary_names_are_ids() {
        for text in ["a", "eu-west-1", "7", "iad.a_2"] {
            assert_eq!(RegionId::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn odd_names_are_refused_with_what_is_allowed() {
        for text in ["", "-a", ".a", "EU", "a b", "ä", "a/b", &"x".repeat(64)] {
            let error = RegionId::parse(text).unwrap_err().to_string();
            assert!(error.contains("is not a region id; use 1 to 63"), "{error}");
        }
    }

    /// Borrowed from a slice, owned from a reader or a parsed document, escaped, and as a map's key.
    #[test]
    fn an_id_is_read_from_every_format() {
        let id = RegionId::parse("eu-west").unwrap();
        let expected = BTreeMap::from([(id.clone(), id.clone())]);

        let json = serde_json::to_string(&expected).unwrap();
        let escaped = json.replacen("eu-west", "eu\\u002dwest", 1);
        for json in [&json, &escaped] {
            assert_eq!(serde_json::from_str::<Map>(json).unwrap(), expected);
            assert_eq!(
                serde_json::from_reader::<_, Map>(json.as_bytes()).unwrap(),
                expected
            );
            let value: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::from_value::<Map>(value).unwrap(), expected);
        }

        let bytes = rmp_serde::to_vec_named(&expected).unwrap();
        assert_eq!(rmp_serde::from_slice::<Map>(&bytes).unwrap(), expected);
        assert_eq!(
            rmp_serde::from_read::<_, Map>(&bytes[..]).unwrap(),
            expected
        );

        let text = toml::to_string(&expected).unwrap();
        assert_eq!(toml::from_str::<Map>(&text).unwrap(), expected);
        let spanned: BTreeMap<String, toml::Spanned<RegionId>> = toml::from_str(&text).unwrap();
        assert_eq!(spanned["eu-west"].as_ref(), &id);
        assert_eq!(
            toml::from_str::<toml::Table>(&text)
                .unwrap()
                .try_into::<Map>()
                .unwrap(),
            expected
        );
    }

    #[test]
    fn an_odd_name_is_refused_in_every_format() {
        assert!(
            serde_json::from_str::<AgentId>("\"a b\"")
                .unwrap_err()
                .to_string()
                .contains("is not an agent id; use")
        );
        assert!(
            serde_json::from_str::<AgentId>("7")
                .unwrap_err()
                .to_string()
                .contains("expected an id as text")
        );
        assert!(rmp_serde::from_slice::<AgentId>(&[0xa1, b'/']).is_err());
        assert!(toml::from_str::<Map>("a = \"A\"").is_err());
    }
}
