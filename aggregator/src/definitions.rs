//! Definitions from files: what every `*.toml` of a folder says becomes changes, one by one, by `file:NAME`.
//!
//! The rules, in short: the files say what there should be of what came from files.
//!
//! ```text
//!   in a file,  not defined                          defined
//!   in a file,  defined otherwise, by a file         changed
//!   in a file,  defined otherwise, through the API   left alone, and reported as a conflict
//!   in a file,  defined the same, through the API    the file's again
//!   in no file, defined by a file                    removed
//!   in no file, defined through the API              left alone
//! ```
//!
//! A folder with a fault anywhere changes nothing. What has expired in a file is as if it was not there.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use leeward_common::{
    api::v1::Fault,
    config::{ConfigError, Document},
    definitions::{self, Entry},
    id::{RegionId, ServiceId},
    time::Timestamp,
};
use leeward_engine::{intent::Intents, policy::Policy};

use crate::{
    config::Config,
    intent::{self, Asked, Checks, Condition, FILE, Thing, Unsound, What},
};

/// The largest file that is read.
const MAX_FILE: u64 = 16 << 20;

/// What a folder says.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    files: Vec<File>,
}

#[derive(Clone, Debug)]
struct File {
    /// Its name within the folder.
    name: String,
    /// As people find it.
    path: String,
    text: String,
    entries: Vec<Entry>,
}

/// Something that a file says and the API says otherwise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Disputed {
    /// What.
    pub thing: Thing,
    /// The file.
    pub file: String,
    /// Who said otherwise.
    pub who: String,
}

/// What a folder asks for.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Changes, removals last.
    pub changes: Vec<Asked>,
    /// What is left alone.
    pub disputed: Vec<Disputed>,
}

impl Definitions {
    /// Reads every `*.toml` of a folder, in the order of their names.
    ///
    /// # Errors
    ///
    /// Returns the first thing that is wrong, with its place.
    pub fn load(folder: &Path) -> Result<Self, ConfigError> {
        let unreadable = |path: &Path, error: &std::io::Error| ConfigError {
            file: path.display().to_string(),
            at: None,
            message: format!("cannot be read: {error}"),
        };
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unreadable(folder, &error))?
            .into_iter()
            .map(|entry| entry.path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "toml")
            })
            .collect();
        paths.sort();
        let mut texts = Vec::new();
        for path in paths {
            let length = fs::metadata(&path)
                .map_err(|error| unreadable(&path, &error))?
                .len();
            if length > MAX_FILE {
                return Err(ConfigError {
                    file: path.display().to_string(),
                    at: None,
                    message: format!("is larger than {MAX_FILE} bytes; split it"),
                });
            }
            let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
            texts.push((path, text));
        }
        Self::parse(texts)
    }

    fn parse(texts: Vec<(PathBuf, String)>) -> Result<Self, ConfigError> {
        let (mut files, mut seen) = (Vec::new(), BTreeMap::new());
        for (path, text) in texts {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let (name, path) = (name.into_owned(), path.display().to_string());
            let document = Document {
                file: &path,
                text: &text,
            };
            let entries = definitions::parse(&document)?;
            for entry in &entries {
                let thing = Thing::of(&entry.defined);
                if let Some(other) = seen.insert(thing.clone(), name.clone()) {
                    let message =
                        format!("{thing} is defined in {other} too; leave one of the two");
                    return Err(document.error(entry.place(), message));
                }
            }
            files.push(File {
                name,
                path,
                text,
                entries,
            });
        }
        Ok(Self { files })
    }

    /// Whether everything makes sense under a policy.
    ///
    /// # Errors
    ///
    /// Returns the first thing that does not, with its place.
    pub fn check(
        &self,
        now: Timestamp,
        policy: &Policy,
        intents: &Intents,
        max_override: Duration,
    ) -> Result<(), ConfigError> {
        let is_here = |service: &ServiceId| {
            let service = Thing::Service(service.clone());
            let mut entries = self.files.iter().flat_map(|file| &file.entries);
            entries.any(|entry| Thing::of(&entry.defined) == service)
        };
        let checks = Checks {
            now,
            policy,
            has_service: &|service| intents.services.contains_key(service) || is_here(service),
            max_override,
        };
        for file in &self.files {
            let document = Document {
                file: &file.path,
                text: &file.text,
            };
            for entry in &file.entries {
                if let Err(unsound) = checks.check(&entry.defined) {
                    return Err(entry.error(&document, &fault(unsound, policy)));
                }
            }
        }
        Ok(())
    }

    /// What is to change so that things are as the files say. Each change is made only if nothing changed meanwhile.
    #[must_use]
    pub fn plan(&self, now: Timestamp, intents: &Intents) -> Plan {
        let mut plan = Plan::default();
        let mut wanted = BTreeMap::new();
        for file in &self.files {
            for Entry { defined, .. } in &file.entries {
                if intent::until(defined).is_none_or(|until| until.0 > now) {
                    wanted.insert(Thing::of(defined), (&file.name, defined));
                }
            }
        }
        for (thing, (file, defined)) in &wanted {
            let known = thing.known(intents);
            let is_same = thing.defined(intents).as_ref() == Some(*defined);
            let condition = match known {
                None => Condition::Absent,
                Some(known) => {
                    let is_a_files = known.who.starts_with(FILE);
                    if is_same && is_a_files {
                        continue;
                    }
                    if !is_same && !is_a_files {
                        plan.disputed.push(Disputed {
                            thing: thing.clone(),
                            file: (*file).clone(),
                            who: known.who.to_owned(),
                        });
                        continue;
                    }
                    Condition::Version(known.version)
                }
            };
            plan.changes.push(Asked {
                who: format!("{FILE}{file}"),
                why: defined.why().to_owned(),
                what: What::Put((*defined).clone()),
                condition,
            });
        }
        for defined in intent::definitions(intents) {
            let thing = Thing::of(&defined);
            let Some(known) = thing.known(intents) else {
                continue;
            };
            if known.who.starts_with(FILE) && !wanted.contains_key(&thing) {
                plan.changes.push(Asked {
                    who: known.who.to_owned(),
                    why: "no file defines it any more".to_owned(),
                    condition: Condition::Version(known.version),
                    what: What::Remove(thing),
                });
            }
        }
        plan
    }
}

/// Whether the files of definitions that a config names make sense with it.
///
/// # Errors
///
/// Returns the first thing that does not, with its place.
pub fn check(config: &Config, now: Timestamp) -> Result<(), ConfigError> {
    let Some(folder) = &config.definitions_dir else {
        return Ok(());
    };
    let (policy, longest) = (&config.policy.policy, config.api.max_override);
    Definitions::load(folder)?.check(now, policy, &Intents::default(), longest)
}

fn fault(unsound: Unsound, policy: &Policy) -> Fault {
    match unsound {
        Unsound::Fault(fault) => fault,
        Unsound::Region { path, name } => {
            let regions: Vec<&str> = policy.regions.keys().map(RegionId::as_str).collect();
            let what_to_do = format!("use one of {}", regions.join(", "));
            Fault::new(
                path,
                format!("is {name}, and there is no such region"),
                what_to_do,
            )
        }
        Unsound::Service { path, name } => Fault::new(
            path,
            format!("is {name}, and nobody defines such a service"),
            "define it, or correct the name",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::policy;

    const NOW: Timestamp = Timestamp::from_unix_us(1_767_225_600_000_000);

    const SERVICE: &str = "[[service]]\nid = 'checkout'\nhome = 'iad'\n";
    const DRAIN: &str = "[[override]]\nid = 'works'\nrule = 'drain'\nregion = 'dub'\nuntil = 2026-01-02T00:00:00Z\nwhy = 'switches'\n";

    fn read(files: &[(&str, &str)]) -> Result<Definitions, ConfigError> {
        let texts = files
            .iter()
            .map(|(name, text)| (PathBuf::from(name), (*text).to_owned()));
        Definitions::parse(texts.collect())
    }

    fn apply(intents: &mut Intents, files: &Definitions) {
        for asked in &files.plan(NOW, intents).changes {
            let current = asked.what.thing().version(intents);
            asked.condition.check(current).unwrap();
            intents.on_change(NOW, &asked.change());
        }
    }

    fn edit(intents: &mut Intents, text: &str) {
        let read = read(&[("api", text)]).unwrap();
        let asked = Asked {
            who: "mara".to_owned(),
            why: String::new(),
            what: What::Put(read.files[0].entries[0].defined.clone()),
            condition: Condition::Any,
        };
        intents.on_change(NOW, &asked.change());
    }

    fn checked(files: &[(&str, &str)]) -> String {
        let regions = "[[region]]\nid = 'iad'\nlatitude = 1\nlongitude = 1\n[[region]]\nid = 'dub'\nlatitude = 1\nlongitude = 2";
        let day = Duration::from_secs(86_400);
        let read = read(files)
            .and_then(|read| read.check(NOW, &policy(regions), &Intents::default(), day));
        read.err()
            .map_or_else(|| "sound".to_owned(), |error| error.to_string())
    }

    #[test]
    fn what_is_in_the_files_is_defined_changed_and_removed_with_them() {
        let mut intents = Intents::default();
        let both = read(&[("a.toml", SERVICE), ("b.toml", DRAIN)]).unwrap();
        apply(&mut intents, &both);
        assert_eq!((intents.services.len(), intents.overrides.len()), (1, 1));
        assert!(both.plan(NOW, &intents).changes.is_empty());
        let known = intents.services.values().next().unwrap();
        assert_eq!(known.who, "file:a.toml");

        let moved = read(&[("a.toml", &SERVICE.replace("iad", "dub"))]).unwrap();
        apply(&mut intents, &moved);
        assert!(intents.overrides.is_empty());
        assert_eq!(
            intents.services.values().next().unwrap().what.home.as_str(),
            "dub"
        );
    }

    #[test]
    fn what_the_api_changed_is_left_alone_until_both_say_the_same() {
        let mut intents = Intents::default();
        let files = read(&[("a.toml", SERVICE)]).unwrap();
        apply(&mut intents, &files);
        edit(&mut intents, &SERVICE.replace("iad", "dub"));
        let plan = files.plan(NOW, &intents);
        assert!(plan.changes.is_empty());
        assert_eq!(
            (
                plan.disputed[0].file.as_str(),
                plan.disputed[0].who.as_str()
            ),
            ("a.toml", "mara")
        );
        let empty = read(&[]).unwrap().plan(NOW, &intents);
        assert!(empty.changes.is_empty() && empty.disputed.is_empty());
        edit(&mut intents, SERVICE);
        apply(&mut intents, &files);
        assert_eq!(intents.services.values().next().unwrap().who, "file:a.toml");
    }

    #[test]
    fn what_expired_in_a_file_is_not_there() {
        let files = read(&[("b.toml", DRAIN)]).unwrap();
        let later = NOW + Duration::from_secs(10 * 86_400);
        assert!(files.plan(later, &Intents::default()).changes.is_empty());
    }

    #[test]
    fn a_fault_is_named_with_its_file_and_place() {
        assert_eq!(checked(&[("a.toml", SERVICE), ("b.toml", DRAIN)]), "sound");
        let twice = checked(&[("a.toml", SERVICE), ("b.toml", SERVICE)]);
        assert!(
            twice.starts_with("b.toml:2:6: service checkout is defined in a.toml too"),
            "{twice}"
        );
        let nowhere = checked(&[("a.toml", &SERVICE.replace("iad", "mars"))]);
        assert!(nowhere.starts_with("a.toml:3:8: service checkout: home is mars, and there is no such region; use one of dub, iad"), "{nowhere}");
        let nobody = "[[override]]\nid = 'x'\nrule = 'freeze'\nservice = 'nobody'\nuntil = 2026-01-01T10:00:00Z\nwhy = 'x'\n";
        let nobody = checked(&[("a.toml", nobody)]);
        assert!(
            nobody.starts_with("a.toml:4:11: override x: service is nobody, and nobody defines"),
            "{nobody}"
        );
        let long = checked(&[("b.toml", &DRAIN.replace("01-02", "01-09"))]);
        assert!(
            long.starts_with("b.toml:5:9: override works: until is 2026-01-09"),
            "{long}"
        );
    }
}
