//! The shadow policy on disk. It is not in the journal: the engine is never told.

use serde::{Deserialize, Serialize};

use super::Policy;
use crate::{config::PolicyText, shadow::Setting};

/// The shadow policy; in column `meta`, under `shadow`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Shadow {
    /// How many changes there were.
    pub version: u64,
    /// When the last one was made.
    pub at_us: u64,
    /// Who asked for it.
    pub who: String,
    /// Why.
    pub why: String,
    /// The policy; `None` if it was removed.
    #[serde(default)]
    pub policy: Option<Policy>,
}

impl From<&Setting> for Shadow {
    fn from(setting: &Setting) -> Self {
        let toml = |policy: &PolicyText| Policy {
            toml: policy.toml.clone(),
        };
        Self {
            version: setting.version,
            at_us: setting.at.as_unix_us(),
            who: setting.who.clone(),
            why: setting.why.clone(),
            policy: setting.policy.as_deref().map(toml),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{decode, encode},
        *,
    };

    fn shadow(policy: Option<Policy>) -> Shadow {
        Shadow {
            version: 2,
            at_us: 5,
            who: "mara".to_owned(),
            why: String::new(),
            policy,
        }
    }

    #[test]
    fn golden_bytes() {
        let toml = "region = []".to_owned();
        let set = shadow(Some(Policy { toml }));
        let bytes = b"\x85\xa7version\x02\xa5at_us\x05\xa3who\xa4mara\xa3why\xa0\xa6policy\x81\xa4toml\xabregion = []";
        assert_eq!(encode(&set), bytes);
        assert_eq!(decode::<Shadow>("shadow", bytes).unwrap(), set);
        let gone = b"\x85\xa7version\x02\xa5at_us\x05\xa3who\xa4mara\xa3why\xa0\xa6policy\xc0";
        assert_eq!(encode(&shadow(None)), gone);
        assert_eq!(decode::<Shadow>("shadow", gone).unwrap(), shadow(None));
    }

    #[test]
    fn any_bytes_are_a_shadow_or_an_error() {
        let toml = "region = []".to_owned();
        let seed = encode(&shadow(Some(Policy { toml })));
        bolero::check!()
            .with_iterations(20_000)
            .with_type()
            .for_each(|(at, bytes): &(u8, Vec<u8>)| {
                let mut seed = seed.clone();
                let start = usize::from(*at) % seed.len();
                for (place, byte) in seed[start..].iter_mut().zip(bytes) {
                    *place = *byte;
                }
                for bytes in [&seed, bytes] {
                    if let Ok(shadow) = decode::<Shadow>("shadow", bytes) {
                        assert!(decode::<Shadow>("shadow", &encode(&shadow)).is_ok());
                    }
                }
            });
    }
}
