//! Names of things: one newtype per noun, so that a region is never passed where an agent is meant.
//!
//! An id that exists is valid: 1 to 63 characters of `a-z`, `0-9`, `-`, `_` and `.`, beginning with a letter or a
//! digit. That is a DNS label's repertoire plus `_` and `.`, so ids appear unescaped in URLs, metrics and host names.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest id, in bytes.
pub const MAX_LENGTH: usize = 63;

/// A text that is no id.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{text:?} is not a {noun} id; use 1 to {MAX_LENGTH} of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit"
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
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
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
    "region"
);
id!(
    /// One measuring host.
    AgentId,
    "agent"
);
id!(
    /// One probed address, under a name that outlives the address.
    TargetId,
    "target"
);
id!(
    /// A service of the user's.
    ServiceId,
    "service"
);
id!(
    /// Who injected a signal.
    SourceId,
    "source"
);

#[cfg(test)]
mod tests {
    use super::*;

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
}
