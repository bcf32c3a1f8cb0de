//! Which shadow policy is set when a file and the API both have a word in it; and which is refused.

use super::*;
use crate::{
    config::{
        PolicyText,
        tests::{CREDENTIALS, error, parse, policy},
    },
    intent::Condition,
};

const TWO: &str = "
    [[region]]
    id = 'iad'
    latitude = 39.0
    longitude = -77.5
    [[region]]
    id = 'dub'
    latitude = 53.3
    longitude = -6.3
";

fn text(toml: &str) -> Arc<PolicyText> {
    Arc::new(PolicyText {
        policy: policy(toml),
        toml: toml.to_owned(),
    })
}

fn setting(who: &str, toml: Option<&str>) -> Setting {
    Setting {
        version: 7,
        who: who.to_owned(),
        policy: toml.map(text),
        ..Setting::default()
    }
}

fn file(toml: &str) -> ShadowFile {
    ShadowFile {
        name: "shadow.toml".to_owned(),
        policy: text(toml),
    }
}

/// Who sets what on which condition; or who is left alone.
fn plan(own: Option<&str>, setting: &Setting) -> Result<Option<(String, bool, Condition)>, String> {
    let own = own.map(file);
    let planned = ShadowFile::plan(own.as_ref(), setting)?;
    Ok(planned.map(|asked| (asked.who, asked.what.is_some(), asked.condition)))
}

#[test]
fn a_file_sets_what_came_from_files_and_leaves_alone_what_came_through_the_api() {
    let other = format!("{TWO}\n[policy.steadiness]\nmargin = 1.3");
    let by = |who: &str, is_set, condition| Ok(Some((who.to_owned(), is_set, condition)));
    let (mine, was) = ("file:shadow.toml", Condition::Version(7));
    for (own, before, expected) in [
        (None, setting("", None), Ok(None)),
        (
            Some(TWO),
            setting("", None),
            by(mine, true, Condition::Absent),
        ),
        (
            Some(TWO),
            setting("mara", None),
            by(mine, true, Condition::Absent),
        ),
        (Some(TWO), setting(mine, Some(TWO)), Ok(None)),
        (Some(TWO), setting(mine, Some(&other)), by(mine, true, was)),
        (Some(TWO), setting("mara", Some(TWO)), by(mine, true, was)),
        (
            Some(TWO),
            setting("mara", Some(&other)),
            Err("mara".to_owned()),
        ),
        (None, setting("mara", Some(TWO)), Ok(None)),
        (None, setting(mine, Some(TWO)), by(mine, false, was)),
    ] {
        assert_eq!(plan(own, &before), expected, "{own:?} {before:?}");
    }
}

#[test]
fn a_policy_without_a_region_in_common_is_refused_with_what_it_has() {
    let current = policy(TWO);
    assert_eq!(check(&current, &current), Ok(()));
    let elsewhere = policy(&TWO.replace("iad", "fra").replace("dub", "sin"));
    let error = check(&elsewhere, &current).unwrap_err();
    assert!(
        error.contains("only fra, sin, so there is nothing"),
        "{error}"
    );
    let error = check(&policy(""), &current).unwrap_err();
    assert!(error.contains("has no region"), "{error}");
}

#[test]
fn a_shadow_policy_is_read_with_the_config_and_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shadow.toml");
    let region = "[[region]]\nid = 'iad'\nlatitude = 39\nlongitude = -77";
    let text = format!(
        "{CREDENTIALS}\n[shadow]\npolicy = '{}'\n{region}",
        file.display()
    );
    assert!(error(&text).contains("cannot be read"));
    std::fs::write(&file, "[policy]\nevaluate = 1").unwrap();
    assert!(error(&text).ends_with("shadow.toml:2:1: unknown field `evaluate`, expected one of `evaluate_every`, `evidence`, `doubt`, `weights`, `steadiness`, `capacity`, `routing`"), "{}", error(&text));
    std::fs::write(&file, region.replace("iad", "fra")).unwrap();
    let refused = error(&text);
    assert!(
        refused.starts_with("aggregator.toml:8:10: shadow.policy: the policy has none"),
        "{refused}"
    );
    std::fs::write(&file, region).unwrap();
    assert_eq!(parse(&text).unwrap().shadow.unwrap().name, "shadow.toml");
}
