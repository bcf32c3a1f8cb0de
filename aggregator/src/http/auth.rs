//! Bearer tokens (RFC 6750). The configuration holds only their SHA-256, so a leaked file leaks no token; hashes are
//! compared in constant time and against every token, so the time of an answer says nothing about any of them.

use axum::http::{HeaderMap, header};
use leeward_common::api::problem::Code;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use utoipa::{
    Modify,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use super::error::Refused;
use crate::{
    config::{Role, Token},
    shared::Shared,
    turn::Refusal,
};

/// Longer texts are no token of ours; it bounds what a request can make us hash.
const MAX_TOKEN: usize = 512;

/// The holder of the request's token, if its role reaches `least`. `about` is the route, for the audit log: that
/// somebody known was refused it stands there.
pub(super) async fn holder(
    shared: &Shared,
    request: &HeaderMap,
    least: Role,
    about: &str,
) -> Result<Token, Refused> {
    let tokens = shared.tokens.load_full();
    let token = known(&tokens, request)?;
    if token.role < least {
        let (name, role) = (&token.name, token.role);
        let why = format!("the token {name:?} is a {role}'s and may not do this");
        let refusal = Refusal {
            who: name.clone(),
            about: about.to_owned(),
            why: why.clone(),
        };
        shared.turn.refused(refusal).await;
        let what_to_do = format!("use a token whose role is at least {least}");
        return Err(Refused::new(Code::Forbidden, why, what_to_do));
    }
    Ok(token.clone())
}

fn known<'a>(tokens: &'a [Token], request: &HeaderMap) -> Result<&'a Token, Refused> {
    let Some(text) = bearer(request) else {
        return Err(unauthenticated("the request carries no bearer token"));
    };
    let hash = Sha256::digest(text.as_bytes());
    let mut found = None;
    for token in tokens {
        if bool::from(token.sha256[..].ct_eq(&hash[..])) {
            found = Some(token);
        }
    }
    found.ok_or_else(|| unauthenticated("nobody knows this bearer token"))
}

fn bearer(request: &HeaderMap) -> Option<&str> {
    let mut values = request.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN)
        .then_some(token)
}

fn unauthenticated(detail: &str) -> Refused {
    Refused::new(
        Code::Unauthenticated,
        detail,
        "send `authorization: Bearer TOKEN`; `leeward token new` makes one, and [[api.token]] in aggregator.toml lets it in",
    )
}

/// Declares the scheme in the OpenAPI document.
#[derive(Debug)]
pub(super) struct BearerScheme;

impl Modify for BearerScheme {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme(
            "bearer",
            SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn only_a_bearer_token_is_a_token() {
        assert_eq!(bearer(&headers("Bearer abc")), Some("abc"));
        assert_eq!(bearer(&headers("bearer  abc ")), Some("abc"));
        for value in ["abc", "Basic abc", "Bearer ", "Bearer"] {
            assert_eq!(bearer(&headers(value)), None, "{value}");
        }
    }

    #[test]
    fn two_tokens_are_none() {
        let mut headers = headers("Bearer a");
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert_eq!(bearer(&headers), None);
    }
}
