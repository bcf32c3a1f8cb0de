//! Errors of the API: RFC 9457 `application/problem+json` with a stable code and what to do about it.
//!
//! Programs match on [`Problem::code`]; people read [`Problem::detail`] and [`Problem::what_to_do`]. The `type` member
//! is the code as a relative reference, so that it is unique and needs no host to exist.

use serde::{Deserialize, Serialize};

/// The media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong, where, and what to do.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// The kind of problem as a URI reference: `/problems/<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in words; the same for every occurrence of a code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// A stable word for programs.
    pub code: Code,
    /// What is wrong this time.
    pub detail: String,
    /// What to do about it.
    #[serde(rename = "do")]
    pub what_to_do: String,
    /// Names that exist and resemble the one that does not, the nearest first; empty for other problems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub near: Vec<String>,
    /// Where in the request body the fault is, if it is there: a JSON path, line and column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Place>,
}

/// A place in a request body.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Place {
    /// The member, like `weights.iad`; `.` for the body as a whole.
    pub path: String,
    /// Line, from 1; `None` when the body is well formed and a value is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:literal, $title:literal;)*) => {
        /// Every code, stable for programs.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(rename_all = "snake_case")]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word in JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// The kind of problem in words.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// The path, the query or the method is not one of this API's.
    NoSuchRoute = "no_such_route", 404, "no such route";
    /// The route exists, the method is not one of its own.
    MethodNotAllowed = "method_not_allowed", 405, "method not allowed";
    /// The region is not configured.
    UnknownRegion = "unknown_region", 404, "unknown region";
    /// No agent of this name has registered.
    UnknownAgent = "unknown_agent", 404, "unknown agent";
    /// The region exists, but nothing fails over from it.
    NoFailover = "no_failover", 404, "no failover set";
    /// Nobody has defined this service.
    UnknownService = "unknown_service", 404, "unknown service";
    /// There is no such offer of capacity.
    UnknownOffer = "unknown_offer", 404, "unknown offer";
    /// There is no such reservation of capacity.
    UnknownReservation = "unknown_reservation", 404, "unknown reservation";
    /// No shadow policy is set.
    UnknownPolicy = "unknown_policy", 404, "unknown policy";
    /// There is no such override.
    UnknownOverride = "unknown_override", 404, "unknown override";
    /// Nobody has defined by which prefixes this region is reached.
    UnknownReach = "unknown_reach", 404, "unknown reach";
    /// The signal source is not configured.
    UnknownSource = "unknown_source", 404, "unknown signal source";
    /// No decision has this id, or it is older than what is kept.
    UnknownDecision = "unknown_decision", 404, "unknown decision";
    /// This client, or all together, wait for as many changes as can be waited for.
    TooManyWaiting = "too_many_waiting", 429, "too many waiting";
    /// The body is not JSON, or not of the expected form.
    MalformedBody = "malformed_body", 400, "malformed request body";
    /// A parameter of the path or the query cannot be read.
    MalformedParameter = "malformed_parameter", 400, "malformed parameter";
    /// The body is well formed and asks for something that makes no sense.
    InvalidRequest = "invalid_request", 422, "invalid request";
    /// The body is larger than the limit.
    BodyTooLarge = "body_too_large", 413, "request body too large";
    /// The body's media type is not JSON.
    UnsupportedMediaType = "unsupported_media_type", 415, "unsupported media type";
    /// It was changed meanwhile, or is there already, or is not.
    PreconditionFailed = "precondition_failed", 412, "precondition failed";
    /// The request carries no token, or one that nobody knows.
    Unauthenticated = "unauthenticated", 401, "authentication required";
    /// The token is known and may not do this.
    Forbidden = "forbidden", 403, "not allowed";
    /// The aggregator cannot do this now.
    Unavailable = "unavailable", 503, "unavailable";
    /// A defect of the aggregator.
    Internal = "internal", 500, "internal error";
}

impl Problem {
    /// A problem of this code.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>, what_to_do: impl Into<String>) -> Self {
        Self {
            kind: format!("/problems/{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: detail.into(),
            what_to_do: what_to_do.into(),
            near: Vec::new(),
            at: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_written_as_its_word() {
        for &code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn a_problem_survives_its_json() {
        let mut problem = Problem::new(
            Code::UnknownRegion,
            "no region iax",
            "use one of the near names",
        );
        problem.near = vec!["iad".to_owned()];
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "/problems/unknown_region");
        assert_eq!(json["do"], "use one of the near names");
        assert_eq!(serde_json::from_value::<Problem>(json).unwrap(), problem);
    }
}
