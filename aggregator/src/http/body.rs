//! JSON in: bounded, and with the place of a fault.

use axum::{
    body::{Body, to_bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use http_body_util::LengthLimitError;
use leeward_common::api::problem::{Code, Place, Problem};
use serde::de::DeserializeOwned;

use super::error::Refused;

/// The largest request body: a failover configuration with a weight for each of 500 regions is 40 kB.
pub(super) const MAX_BODY: usize = 64 << 10;

/// A request body.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        let (parts, body) = request.into_parts();
        media_type(&parts.headers)?;
        let bytes = read(body).await?;
        parse(&bytes).map(Self)
    }
}

fn media_type(headers: &HeaderMap) -> Result<(), Refused> {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
    {
        return Ok(());
    }
    let detail = match essence.is_empty() {
        true => "the request does not say what its body is".to_owned(),
        false => format!("the request says that its body is {essence:?}"),
    };
    Err(Refused::new(
        Code::UnsupportedMediaType,
        detail,
        "send JSON with `content-type: application/json`",
    ))
}

async fn read(body: Body) -> Result<axum::body::Bytes, Refused> {
    to_bytes(body, MAX_BODY).await.map_err(|error| {
        let too_large = std::error::Error::source(&error)
            .is_some_and(<dyn std::error::Error>::is::<LengthLimitError>);
        if too_large {
            let detail = format!("the body is larger than {MAX_BODY} bytes");
            return Refused::new(Code::BodyTooLarge, detail, "send less at once");
        }
        Refused::new(Code::MalformedBody, "the body broke off", "send it again")
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        fault(path, error.inner())
    })?;
    deserializer
        .end()
        .map_err(|error| fault(".".to_owned(), &error))?;
    Ok(value)
}

fn fault(path: String, error: &serde_json::Error) -> Refused {
    let whole = error.to_string();
    let (line, column) = (error.line(), error.column());
    let detail = whole
        .trim_end_matches(&format!(" at line {line} column {column}"))
        .to_owned();
    let at = if path == "." {
        String::new()
    } else {
        format!("{path}: ")
    };
    let mut problem = Problem::new(
        Code::MalformedBody,
        format!("{at}{detail} (line {line}, column {column})"),
        "GET /openapi.json describes the body",
    );
    problem.at = Some(Place {
        path,
        line: u32::try_from(line).ok(),
        column: u32::try_from(column).ok(),
    });
    problem.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use leeward_common::api::v1::{FailoverConfiguration, NewSignal};

    #[test]
    fn no_body_makes_the_reader_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = parse::<FailoverConfiguration>(bytes).map_err(IntoResponse::into_response);
            let _ = parse::<NewSignal>(bytes).map_err(IntoResponse::into_response);
        });
    }
}
