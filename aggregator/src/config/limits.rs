//! `[limits]`, and where agents connect over TCP.

use std::{collections::BTreeSet, net::SocketAddr};

use leeward_common::{
    config::{ConfigError, Document, Spanned},
    id::AgentId,
};
use serde::Deserialize;

use crate::ingest::limits::Limits;

/// Hundreds of times what an agent of a thousand paths sends while all is well, so that six hours' backlog is delivered in
/// a minute; and a bound for one that means harm: 8 MB per second.
const MAX_MESSAGES_PER_SECOND: u32 = 500;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    max_messages_per_second: Option<Spanned<u32>>,
    #[serde(default)]
    denied: Vec<Spanned<String>>,
}

impl RawLimits {
    pub(super) fn valid(&self, document: &Document<'_>) -> Result<Limits, ConfigError> {
        let max_messages_per_second = match &self.max_messages_per_second {
            None => MAX_MESSAGES_PER_SECOND,
            Some(rate) if (1..=1_000_000).contains(rate.get_ref()) => *rate.get_ref(),
            Some(rate) => {
                let message = format!(
                    "limits.max_messages_per_second is {}; use 1 to 1000000",
                    rate.get_ref()
                );
                return Err(document.error(rate.span(), message));
            }
        };
        let mut denied = BTreeSet::new();
        for agent in &self.denied {
            let id = AgentId::parse(agent.get_ref())
                .map_err(|error| document.error(agent.span(), format!("limits.denied: {error}")))?;
            denied.insert(id);
        }
        Ok(Limits {
            max_messages_per_second,
            denied,
        })
    }
}

/// The address for TCP: that for UDP unless another is given, or none.
pub(super) fn listen_tcp(
    document: &Document<'_>,
    given: Option<&Spanned<String>>,
    listen: SocketAddr,
) -> Result<Option<SocketAddr>, ConfigError> {
    let Some(given) = given else {
        return Ok(Some(listen));
    };
    if given.get_ref() == "off" {
        return Ok(None);
    }
    given.get_ref().parse().map(Some).map_err(|_| {
        let message = format!(
            "listen_tcp is {:?}; write address and port, like \"[::]:8610\", or \"off\"",
            given.get_ref()
        );
        document.error(given.span(), message)
    })
}
