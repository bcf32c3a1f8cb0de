//! `[bandwidth]`: what measuring how much links carry may cost.

use leeward_common::config::{ConfigError, Document, Spanned};
use serde::Deserialize;

use crate::bandwidth::surveyor::Limits;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBandwidth {
    measure: Option<bool>,
    link_kbit_per_second: Option<Spanned<u64>>,
    uplink_kbit_per_second: Option<Spanned<u64>>,
    heavy: Option<bool>,
    heavy_mbit_per_second: Option<Spanned<u64>>,
}

impl RawBandwidth {
    pub(super) fn valid(&self, document: &Document<'_>) -> Result<Limits, ConfigError> {
        let standard = Limits::default();
        let number = |written: &Option<Spanned<u64>>, key: &str, default, least, most| {
            let Some(own) = written else {
                return Ok(default);
            };
            let value = *own.get_ref();
            if (least..=most).contains(&value) {
                return Ok(value);
            }
            let message = format!("bandwidth.{key} is {value}; use {least} to {most}");
            Err(document.error(own.span(), message))
        };
        let link = number(
            &self.link_kbit_per_second,
            "link_kbit_per_second",
            standard.link_bps / 1_000,
            0,
            1_000_000,
        )?;
        let uplink = number(
            &self.uplink_kbit_per_second,
            "uplink_kbit_per_second",
            standard.uplink_bps / 1_000,
            0,
            1_000_000,
        )?;
        let heavy = number(
            &self.heavy_mbit_per_second,
            "heavy_mbit_per_second",
            standard.heavy_bps / 1_000_000,
            1,
            10_000,
        )?;
        Ok(Limits {
            measure: self.measure.unwrap_or(standard.measure),
            link_bps: link * 1_000,
            uplink_bps: uplink * 1_000,
            heavy: self.heavy.unwrap_or(standard.heavy),
            heavy_bps: heavy * 1_000_000,
        })
    }
}
