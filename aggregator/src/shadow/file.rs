//! The shadow policy that a configuration names.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use leeward_common::config::{ConfigError, Document, Spanned};
use leeward_engine::policy::Policy;

use super::{AskedShadow, Setting, check};
use crate::{
    config::PolicyText,
    intent::{Asked, Condition, FILE},
};

/// The shadow policy that a configuration names.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowFile {
    /// The file's name.
    pub name: String,
    /// What it says.
    pub policy: Arc<PolicyText>,
}

impl ShadowFile {
    /// The one at a place of a configuration, if it can stand beside the policy in force. A relative path is looked up in
    /// the working directory.
    ///
    /// # Errors
    ///
    /// Returns the first thing that is wrong, with its place.
    pub fn configured(
        document: &Document<'_>,
        path: &Spanned<PathBuf>,
        current: &Policy,
    ) -> Result<Self, ConfigError> {
        let file = Self::load(path.get_ref())?;
        match check(&file.policy.policy, current) {
            Ok(()) => Ok(file),
            Err(why) => Err(document.error(path.span(), format!("shadow.policy: {why}"))),
        }
    }

    /// Reads the sections of a policy in a file.
    ///
    /// # Errors
    ///
    /// Returns the first thing that is wrong, with its place.
    fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            file: file.clone(),
            at: None,
            message: format!("cannot be read: {error}"),
        })?;
        let policy = PolicyText::parse(&Document {
            file: &file,
            text: &text,
        })?;
        let name = path.file_name().unwrap_or_default();
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            policy: Arc::new(policy),
        })
    }

    /// What is to change so that the setting is as the configuration says; by the rules of [`crate::definitions`].
    ///
    /// # Errors
    ///
    /// Returns who set another one through the API, which is left alone.
    pub fn plan(own: Option<&Self>, setting: &Setting) -> Result<Option<AskedShadow>, String> {
        let is_a_files = setting.file().is_some();
        let is_same = own.map(|own| &own.policy) == setting.policy.as_ref();
        let condition = match setting.current() {
            None => Condition::Absent,
            Some(version) => Condition::Version(version),
        };
        match own {
            None if setting.policy.is_none() || !is_a_files => Ok(None),
            Some(_) if is_same && is_a_files => Ok(None),
            Some(_) if !is_same && !is_a_files && setting.policy.is_some() => {
                Err(setting.who.clone())
            }
            None => Ok(Some(Asked {
                who: setting.who.clone(),
                why: "the configuration names none any more".to_owned(),
                what: None,
                condition,
            })),
            Some(own) => Ok(Some(Asked {
                who: format!("{FILE}{}", own.name),
                why: "the configuration names it".to_owned(),
                what: Some(Arc::clone(&own.policy)),
                condition,
            })),
        }
    }
}
