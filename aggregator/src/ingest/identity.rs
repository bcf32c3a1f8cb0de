//! Who a peer is: the URI in its certificate's subject alternative name, `leeward://agent/<region>/<agent>`.
//!
//! The chain was verified by TLS before anything here is asked. The common name is never looked at.

use leeward_common::{
    id::{AgentId, InvalidId, RegionId},
    wire::{AGENT_URI_PREFIX, AGGREGATOR_URI_PREFIX},
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Who an agent is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The agent.
    pub agent: AgentId,
    /// The region that it belongs to.
    pub region: RegionId,
}

/// A certificate that does not say who its holder is.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoIdentity {
    /// Not a certificate at all, or none was shown.
    #[error("no X.509 certificate")]
    Certificate,
    /// No URI that begins as an agent's does.
    #[error(
        "the certificate has no URI {AGENT_URI_PREFIX}<region>/<agent> in its subject alternative name"
    )]
    Missing,
    /// More than one of them.
    #[error("the certificate has more than one URI {AGENT_URI_PREFIX}<region>/<agent>")]
    Ambiguous,
    /// Something else follows the prefix.
    #[error("the certificate's URI {uri:?} is not {AGENT_URI_PREFIX}<region>/<agent>")]
    Malformed {
        /// The URI.
        uri: String,
    },
    /// One of the ids is none.
    #[error("the certificate names an impossible id")]
    Id(#[from] InvalidId),
}

impl Identity {
    /// The identity in a certificate (DER).
    ///
    /// # Errors
    ///
    /// Returns [`NoIdentity`] when there is none or more than one.
    pub fn of(certificate: &[u8]) -> Result<Self, NoIdentity> {
        let uris = uris(certificate, AGENT_URI_PREFIX).ok_or(NoIdentity::Certificate)?;
        match uris.as_slice() {
            [] => Err(NoIdentity::Missing),
            [uri] => Self::parse(uri),
            _ => Err(NoIdentity::Ambiguous),
        }
    }

    fn parse(uri: &str) -> Result<Self, NoIdentity> {
        let parts = uri
            .strip_prefix(AGENT_URI_PREFIX)
            .and_then(|rest| rest.split_once('/'));
        let Some((region, agent)) = parts else {
            return Err(NoIdentity::Malformed {
                uri: uri.chars().take(200).collect(),
            });
        };
        Ok(Self {
            agent: AgentId::parse(agent)?,
            region: RegionId::parse(region)?,
        })
    }
}

/// The name of an aggregator, from its certificate (DER); `None` if it has none.
#[must_use]
pub fn aggregator_name(certificate: &[u8]) -> Option<String> {
    let uris = uris(certificate, AGGREGATOR_URI_PREFIX)?;
    let name = uris.first()?.strip_prefix(AGGREGATOR_URI_PREFIX)?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The URIs with a prefix; `None` if the bytes are no certificate.
fn uris(certificate: &[u8], prefix: &str) -> Option<Vec<String>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()?;
    let names = names
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) if uri.starts_with(prefix) => Some((*uri).to_owned()),
        _ => None,
    };
    Some(names.iter().filter_map(uri).collect())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
        params.subject_alt_names.extend(
            uris.iter()
                .map(|uri| SanType::URI((*uri).try_into().unwrap())),
        );
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    #[test]
    fn the_uri_names_region_and_agent() {
        let identity = Identity::of(&certificate(&[
            "https://example.org/x",
            "leeward://agent/iad/iad-1",
        ]))
        .unwrap();
        assert_eq!(
            (identity.region.as_str(), identity.agent.as_str()),
            ("iad", "iad-1")
        );
        assert_eq!(
            aggregator_name(&certificate(&["leeward://aggregator/main"])).as_deref(),
            Some("main")
        );
    }

    #[test]
    fn anything_else_is_no_identity() {
        use NoIdentity::{Ambiguous, Certificate, Id, Malformed, Missing};
        assert_eq!(Identity::of(b"garbage"), Err(Certificate));
        assert_eq!(
            Identity::of(&certificate(&["leeward://aggregator/main"])),
            Err(Missing)
        );
        let two = ["leeward://agent/iad/a", "leeward://agent/dub/a"];
        assert_eq!(Identity::of(&certificate(&two)), Err(Ambiguous));
        assert!(matches!(
            Identity::of(&certificate(&["leeward://agent/iad"])),
            Err(Malformed { .. })
        ));
        assert!(matches!(
            Identity::of(&certificate(&["leeward://agent/iad/a/b"])),
            Err(Id(_))
        ));
        assert!(matches!(
            Identity::of(&certificate(&["leeward://agent//a"])),
            Err(Id(_))
        ));
        assert_eq!(aggregator_name(b"garbage"), None);
    }

    #[test]
    fn any_bytes_are_an_identity_or_none() {
        let good = certificate(&["leeward://agent/iad/iad-1"]);
        bolero::check!()
            .with_iterations(5_000)
            .with_type::<(u16, Vec<u8>)>()
            .for_each(|(at, bytes)| {
                let _ = Identity::of(bytes);
                let mut bent = good.clone();
                let start = usize::from(*at) % bent.len();
                for (place, byte) in bent[start..].iter_mut().zip(bytes) {
                    *place = *byte;
                }
                let _ = Identity::of(&bent);
            });
    }
}
