//! Checks: a question that agents of other regions ask of a service where it runs, and what came of it.
//!
//! A probe says whether a region is reached; a check says whether the service there answers as it should. What is asked
//! is a URL: `http://` and `https://` ask for a page, `tcp://` for a connection. It is parsed once, here, so that what a
//! definition accepts an agent can carry out.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest URL, in bytes.
pub const MAX_URL: usize = 256;

/// The longest text that an answer is looked through for, in bytes.
pub const MAX_BODY: usize = 128;

/// What came of asking.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It answered as it should.
    Ok,
    /// The connection was refused.
    Refused,
    /// It did not answer in time.
    Timeout,
    /// The connection is not secure: the certificate is not believed, or the handshake failed.
    Tls,
    /// It answered with another status.
    Status,
    /// The answer does not hold the text that it should.
    Body,
    /// Its name has no address.
    Dns,
    /// The connection broke, there is no way there, or the answer is no HTTP.
    Network,
    /// The agent does not ask this: its own file does not allow the address, or its build cannot. This says nothing of
    /// the service.
    NotAllowed,
    /// Something that a newer build tells apart; not ok.
    #[serde(other)]
    Other,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 10] = [
        Self::Ok,
        Self::Refused,
        Self::Timeout,
        Self::Tls,
        Self::Status,
        Self::Body,
        Self::Dns,
        Self::Network,
        Self::NotAllowed,
        Self::Other,
    ];

    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Status => "status",
            Self::Body => "body",
            Self::Dns => "dns",
            Self::Network => "network",
            Self::NotAllowed => "not_allowed",
            Self::Other => "other",
        }
    }

    /// Whether the service answers as it should; `None` if this says nothing of it.
    #[must_use]
    pub const fn passes(self) -> Option<bool> {
        match self {
            Self::Ok => Some(true),
            Self::NotAllowed => None,
            _ => Some(false),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How it is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// A page, in the clear.
    Http,
    /// A page, over TLS with ordinary certificate checks.
    Https,
    /// A connection and nothing else.
    Tcp,
}

/// What is asked. One that exists is valid.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckUrl {
    text: String,
    scheme: Scheme,
    host: String,
    port: u16,
    path: String,
}

/// A text that is no URL of a check.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{text:?} cannot be checked: {why}; write \"https://host/path\", \"http://host:8080/path\" or \"tcp://host:5432\""
)]
pub struct InvalidCheckUrl {
    text: String,
    why: &'static str,
}

impl CheckUrl {
    /// Parses a URL.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with it and what to write.
    pub fn parse(text: &str) -> Result<Self, InvalidCheckUrl> {
        let invalid = |why| InvalidCheckUrl {
            text: text.chars().take(MAX_URL).collect(),
            why,
        };
        if text.len() > MAX_URL {
            return Err(invalid("it is longer than 256 bytes"));
        }
        if text.contains('#') {
            return Err(invalid("it has a fragment, which no server sees"));
        }
        let url: http::Uri = text.parse().map_err(|_| invalid("it is no URL"))?;
        let (scheme, usual) = match url.scheme_str() {
            Some("http") => (Scheme::Http, Some(80)),
            Some("https") => (Scheme::Https, Some(443)),
            Some("tcp") => (Scheme::Tcp, None),
            _ => {
                return Err(invalid(
                    "it does not begin with http://, https:// or tcp://",
                ));
            }
        };
        let authority = url.authority().ok_or_else(|| invalid("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(invalid(
                "it names a user, and a definition is no place for secrets",
            ));
        }
        let host =
            host(authority.host()).ok_or_else(|| invalid("its host is no name or address"))?;
        let named = authority.port_u16();
        if named.is_none() && authority.as_str().len() > authority.host().len() {
            return Err(invalid("its port is not 1 to 65535"));
        }
        let port = named.or(usual).filter(|&port| port > 0);
        let port = port.ok_or_else(|| invalid("its port is not 1 to 65535"))?;
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        if scheme == Scheme::Tcp && !matches!(path, "" | "/") {
            return Err(invalid("a connection has no path"));
        }
        Ok(Self {
            text: text.to_owned(),
            scheme,
            host,
            port,
            path: match path.starts_with('/') {
                true => path.to_owned(),
                false => format!("/{path}"),
            },
        })
    }

    /// The URL as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How it is asked.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// A name, or an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Path and query; `/` if none is written.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Host and port as a `Host` header has them: without the port that is usual.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match (self.scheme, self.port) {
            (Scheme::Http, 80) | (Scheme::Https, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// A name or an address, without brackets.
fn host(text: &str) -> Option<String> {
    if let Some(inner) = text.strip_prefix('[') {
        let address: std::net::Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(address.to_string());
    }
    if text.parse::<IpAddr>().is_ok() {
        return Some(text.to_owned());
    }
    let label = |label: &str| {
        let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(letter)
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    name.split('.').all(label).then(|| text.to_owned())
}

impl fmt::Display for CheckUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl FromStr for CheckUrl {
    type Err = InvalidCheckUrl;

    fn from_str(text: &str) -> Result<Self, InvalidCheckUrl> {
        Self::parse(text)
    }
}

impl Serialize for CheckUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for CheckUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for CheckUrl {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, Type};
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "What is asked: https://host/path, http://host:8080/path or tcp://host:5432",
            ))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for CheckUrl {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let cases = [
            (
                "http://a.example",
                Scheme::Http,
                "a.example",
                80,
                "/",
                "a.example",
            ),
            (
                "https://a.example:8443/x?y=1",
                Scheme::Https,
                "a.example",
                8443,
                "/x?y=1",
                "a.example:8443",
            ),
            ("http://a?b", Scheme::Http, "a", 80, "/?b", "a"),
            (
                "https://[2001:db8::1]/",
                Scheme::Https,
                "2001:db8::1",
                443,
                "/",
                "[2001:db8::1]",
            ),
            (
                "tcp://192.0.2.1:5432",
                Scheme::Tcp,
                "192.0.2.1",
                5432,
                "/",
                "192.0.2.1:5432",
            ),
        ];
        for (text, scheme, host, port, path, authority) in cases {
            let url = CheckUrl::parse(text).unwrap();
            assert_eq!(
                (url.scheme(), url.host(), url.port(), url.path()),
                (scheme, host, port, path),
                "{text}"
            );
            assert_eq!(
                (url.authority(), url.to_string()),
                (authority.to_owned(), text.to_owned())
            );
        }
    }

    #[test]
    fn what_cannot_be_checked_is_refused_with_the_reason() {
        let long = format!("http://a/{}", "x".repeat(MAX_URL));
        let cases = [
            ("", "it is no URL"),
            ("a.example", "it does not begin with"),
            ("ftp://a.example/", "it does not begin with"),
            ("http://", "it is no URL"),
            ("http://me:secret@a.example/", "it names a user"),
            ("http://a.example/#top", "it has a fragment"),
            ("http://a..b/", "its host is no name"),
            ("http://a.example:0/", "its port is not 1 to 65535"),
            ("http://a.example:70000/", "its port is not 1 to 65535"),
            ("tcp://a.example", "its port is not 1 to 65535"),
            ("tcp://a.example:1/x", "a connection has no path"),
            (&long, "it is longer than"),
        ];
        for (text, expected) in cases {
            let error = CheckUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(error.contains("; write \"https://host/path\""), "{error}");
        }
    }

    #[test]
    fn the_words_of_outcomes_are_those_on_the_wire() {
        for outcome in Outcome::ALL {
            let json = serde_json::to_string(&outcome).unwrap();
            assert_eq!(json, format!("{:?}", outcome.as_str()));
        }
        assert_eq!(
            serde_json::from_str::<Outcome>("\"newer\"").unwrap(),
            Outcome::Other
        );
    }

    #[test]
    fn any_text_is_a_url_or_an_error() {
        bolero::check!()
            .with_iterations(20_000)
            .with_type()
            .for_each(|(scheme, bytes): &(u8, Vec<u8>)| {
                let scheme =
                    ["", "http://", "https://", "tcp://", "http://["][usize::from(*scheme) % 5];
                let text = format!("{scheme}{}", String::from_utf8_lossy(bytes));
                if let Ok(url) = CheckUrl::parse(&text) {
                    assert_eq!(CheckUrl::parse(url.as_str()).as_ref(), Ok(&url));
                    assert!(!url.host().is_empty() && url.path().starts_with('/'));
                    assert!(
                        !url.as_str()
                            .bytes()
                            .any(|b| b.is_ascii_control() || b == b' ')
                    );
                }
            });
    }
}
