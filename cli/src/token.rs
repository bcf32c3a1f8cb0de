//! `leeward token new`: a token for its holder, its SHA-256 for the aggregator.
//!
//! The token has 256 random bits, so a plain hash of it cannot be searched; no slow hash is needed.

use anyhow::Context;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    args::TokenCommand,
    exit::{Exit, Failure},
    output::Output,
};

/// A new token.
#[derive(Debug, Serialize)]
struct NewToken {
    /// For its holder; shown this once.
    token: String,
    /// For `aggregator.toml`.
    sha256: String,
}

/// Runs `leeward token …`.
///
/// # Errors
///
/// Returns why there is no token.
pub fn run(out: &Output, command: &TokenCommand) -> Result<Exit, Failure> {
    let TokenCommand::New = command;
    let mut secret = [0_u8; 32];
    getrandom::fill(&mut secret).context("the system has no random numbers")?;
    let token = format!("leeward_{}", hex(&secret));
    let sha256 = hex(&Sha256::digest(token.as_bytes()));
    let new = NewToken { token, sha256 };
    out.one(&new, |_| {
        format!("token   {}\nsha256  {}\n", new.token, new.sha256)
    })?;
    out.talk(
        "Give the token to its holder (LEEWARD_TOKEN or --token-file) and the sha256 to the aggregator's configuration.\n\
         The token is not kept anywhere.",
    );
    Ok(Exit::Done)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
