//! Answers: JSON with an ETag, or 304 for whoever has it already.

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use leeward_common::api::problem::Code;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::error::Refused;

/// An answer, written: cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) body: Bytes,
    pub(super) etag: HeaderValue,
    /// A header that belongs to it.
    pub(super) more: Option<(HeaderName, HeaderValue)>,
}

impl Written {
    /// Writes an answer; its tag is the hash of every byte.
    pub(super) fn strong(answer: &impl Serialize) -> Result<Self, Refused> {
        let body = json(answer)?;
        let etag = tag("", &body);
        Ok(Self {
            body: body.into(),
            etag,
            more: None,
        })
    }

    /// Writes an answer whose tag is the hash of `content`: what makes it another answer for those who only want to
    /// know when it changes. The tag is weak (RFC 9110, section 8.8.1): figures may differ under the same tag.
    pub(super) fn weak(answer: &impl Serialize, content: &impl Serialize) -> Result<Self, Refused> {
        Ok(Self {
            body: json(answer)?.into(),
            etag: content_tag(content),
            more: None,
        })
    }

    /// Whether the client has it already.
    pub(super) fn is_known(&self, request: &HeaderMap) -> bool {
        matches(request, &self.etag)
    }

    /// The response to a request with these headers.
    pub(super) fn response(&self, request: &HeaderMap) -> Response {
        let mut response = if self.is_known(request) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let mut response = Response::new(self.body.clone().into());
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
            response
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.etag.clone());
        if let Some((name, value)) = &self.more {
            headers.insert(name, value.clone());
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

/// Writes and answers at once.
pub(super) fn answer(request: &HeaderMap, answer: &impl Serialize) -> Result<Response, Refused> {
    Ok(Written::strong(answer)?.response(request))
}

/// The weak tag of what has this content.
pub(super) fn content_tag(content: &impl Serialize) -> HeaderValue {
    let content =
        serde_json::to_vec(content).expect("contents are lists of words, which are valid JSON");
    tag("W/", &content)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Refused> {
    serde_json::to_vec(value).map_err(|error| {
        Refused::new(
            Code::Internal,
            format!("cannot write the answer: {error}"),
            "report this as a defect",
        )
    })
}

fn tag(prefix: &str, content: &[u8]) -> HeaderValue {
    let hash = Sha256::digest(content);
    let hex: String = hash[..12]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    HeaderValue::from_str(&format!("{prefix}\"{hex}\""))
        .expect("hexadecimal digits in quotes are a header value")
}

/// `If-None-Match` by weak comparison (RFC 9110, section 13.1.2).
fn matches(request: &HeaderMap, etag: &HeaderValue) -> bool {
    if !request.contains_key(header::IF_NONE_MATCH) {
        return false;
    }
    fn opaque(tag: &str) -> &str {
        tag.trim().trim_start_matches("W/")
    }
    let Ok(etag) = etag.to_str().map(opaque) else {
        return false;
    };
    request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| tag.trim() == "*" || opaque(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_matched_weakly_and_in_lists() {
        let etag = HeaderValue::from_static("W/\"ab\"");
        for (value, expected) in [
            ("\"ab\"", true),
            ("\"xy\", W/\"ab\"", true),
            ("*", true),
            ("\"a\"", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static(value));
            assert_eq!(matches(&headers, &etag), expected, "{value}");
        }
        assert!(!matches(&HeaderMap::new(), &etag));
    }
}
