//! TOML to values, with errors that say where and what to do: `agent.toml:14:3: …`.
//!
//! Raw serde structs stay private to whoever reads them and hold [`Spanned`] fields where a value can be wrong; the
//! reader turns each into a valid value or calls [`Document::error`] with its span.

use std::{fmt, ops::Range, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
pub use toml::Spanned;

/// One config file, by name and text.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// The name shown in errors.
    pub file: &'a str,
    /// The whole text.
    pub text: &'a str,
}

/// What is wrong, and where.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct ConfigError {
    /// The file's name.
    pub file: String,
    /// Line and column, from 1; `None` when the whole file is at fault.
    pub at: Option<(usize, usize)>,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl Document<'_> {
    /// Parses the text.
    ///
    /// # Errors
    ///
    /// Returns the place and the reason: syntax, an unknown key, a missing key or a value of the wrong type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(self.text).map_err(|error| {
            let message = error.message().trim_end().replace('\n', "; ");
            match error.span() {
                Some(span) => self.error(span, message),
                None => ConfigError {
                    file: self.file.to_owned(),
                    at: None,
                    message,
                },
            }
        })
    }

    /// An error about the value at `span`.
    #[must_use]
    pub fn error(&self, span: Range<usize>, message: impl Into<String>) -> ConfigError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |tail| tail.chars().count())
            + 1;
        ConfigError {
            file: self.file.to_owned(),
            at: Some((line, column)),
            message: message.into(),
        }
    }
}

/// A span of time written with its unit: `"250ms"`, `"10s"`, `"1h 30m"`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Self).map_err(|_| {
            serde::de::Error::custom(format!(
                "{text:?} is not a span of time; write a number with its unit, like \"250ms\", \"10s\" or \"1h\""
            ))
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Span {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, Type};
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A span of time with its unit, like 80ms, 10s or 2h"))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Span {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        #[expect(dead_code, reason = "only parsed")]
        interval: Spanned<Span>,
    }

    fn error(text: &str) -> String {
        Document {
            file: "agent.toml",
            text,
        }
        .parse::<Raw>()
        .unwrap_err()
        .to_string()
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place() {
        let error = error("interval = \"1s\"\nintreval = 3\n");
        assert!(
            error.starts_with("agent.toml:2:1: unknown field `intreval`"),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_unit_says_what_to_write() {
        let error = error("interval = \"50\"\n");
        assert!(
            error.starts_with("agent.toml:1:12: \"50\" is not a span of time; write"),
            "{error}"
        );
    }
}
