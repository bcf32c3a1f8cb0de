//! What a configuration file may say, and what is told of one that is wrong.

use super::*;

/// The policy of some sections.
pub(crate) fn policy(text: &str) -> Policy {
    PolicyText::parse(&Document {
        file: "policy.toml",
        text,
    })
    .unwrap()
    .policy
}

const SAMPLE: &str = include_str!("../../aggregator.sample.toml");

pub(crate) const CREDENTIALS: &str = "
        [credentials]
        ca = 'ca.pem'
        certificate = 'aggregator.pem'
        key = 'aggregator.key'
    ";

/// A folder with the certificates that the sample names.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let uri = rcgen::string::Ia5String::try_from("leeward://aggregator/main").unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(uri));
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("ca.pem", authority_certificate.pem());
    write("aggregator.pem", certificate.pem());
    write("aggregator.key", key.serialize_pem());
    write(
        "other.key",
        rcgen::KeyPair::generate().unwrap().serialize_pem(),
    );
    write("empty.pem", String::new());
    folder
}

pub(crate) fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(
        &Document {
            file: "aggregator.toml",
            text,
        },
        folder().path(),
    )
}

pub(crate) fn error(text: &str) -> String {
    let error = parse(text).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

/// The sample with every `# key = value` line made valid.
fn uncommented() -> String {
    let is_setting = |line: &str| {
        let key = line.split(" = ").next().unwrap_or_default();
        line.starts_with('[') || (line.contains(" = ") && !key.contains(' '))
    };
    let line = |line: &'static str| {
        line.strip_prefix("# ")
            .filter(|rest| is_setting(rest))
            .unwrap_or(line)
    };
    SAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_sample_shows_the_defaults() {
    let (sample, uncommented) = (parse(SAMPLE).unwrap(), parse(&uncommented()).unwrap());
    assert_eq!(sample.policy.policy, uncommented.policy.policy);
    for config in [sample, uncommented] {
        assert_eq!(config.name, "main");
        assert_eq!(config.listen, defaults::LISTEN);
        assert_eq!(config.data_dir, Path::new(defaults::DATA_DIR));
        assert_eq!(config.retention, Retention::default());
        assert_eq!(config.api.listen, defaults::API_LISTEN);
        assert_eq!(config.api.max_override, defaults::MAX_OVERRIDE);
        assert_eq!(config.definitions_dir, None);
        assert_eq!(config.shadow, None);
        assert!(config.api.tls.is_none() && config.api.tokens.is_empty());
    }
}

#[test]
fn the_examples_of_the_sample_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    let shadow = folder.path().join("shadow.toml");
    let region = "[[region]]\nid = 'us-east'\nlatitude = 39\nlongitude = -77";
    std::fs::write(&shadow, region).unwrap();
    let text = uncommented().replace("## ", "");
    let text = text.replace("/etc/leeward/shadow.toml", &shadow.display().to_string());
    let config = parse(&text).unwrap();
    assert_eq!(config.api.tokens.len(), 1);
    assert_eq!(config.policy.policy.targets.len(), 1);
    assert_eq!(config.policy.policy.signal_sources.len(), 1);
    assert_eq!(config.policy.policy.failovers.len(), 1);
}

#[test]
fn an_unknown_key_is_named_with_its_place() {
    let error = error("lisen = '[::]:1'\n[credentials]\nca = 'x'\ncertificate = 'x'\nkey = 'x'");
    assert!(
        error.starts_with("aggregator.toml:1:1: unknown field `lisen`"),
        "{error}"
    );
}

#[test]
fn a_missing_file_is_named_with_its_place() {
    let error = error(
        "[credentials]\nca = 'nowhere.pem'\ncertificate = 'aggregator.pem'\nkey = 'aggregator.key'",
    );
    assert!(
        error.starts_with("aggregator.toml:2:6: cannot read "),
        "{error}"
    );
    assert!(error.contains("nowhere.pem"), "{error}");
}

#[test]
fn a_file_without_a_certificate_is_refused() {
    let error = error(
        "[credentials]\nca = 'empty.pem'\ncertificate = 'aggregator.pem'\nkey = 'aggregator.key'",
    );
    assert!(
        error.starts_with("aggregator.toml:2:6:") && error.contains("holds no PEM certificate"),
        "{error}"
    );
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let error =
        error("[credentials]\nca = 'ca.pem'\ncertificate = 'aggregator.pem'\nkey = 'other.key'");
    assert!(
        error.starts_with("aggregator.toml:4:7: does not go with the certificate"),
        "{error}"
    );
}

#[test]
fn a_name_other_than_the_certificates_is_refused() {
    let error = error(&format!("name = 'spare'\n{CREDENTIALS}"));
    assert!(
        error.contains(r#"name is "spare", but the certificate says "main""#),
        "{error}"
    );
}

#[test]
fn the_api_beyond_loopback_needs_tls() {
    let error = error(&format!("{CREDENTIALS}\n[api]\nlisten = '0.0.0.0:8611'"));
    assert!(
        error.contains("beyond loopback, and there is no TLS; add api.certificate"),
        "{error}"
    );
    let text = format!(
        "{CREDENTIALS}\n[api]\nlisten = '0.0.0.0:8611'\ncertificate = 'aggregator.pem'\nkey = 'aggregator.key'"
    );
    assert!(parse(&text).unwrap().api.tls.is_some());
}

#[test]
fn a_token_needs_a_hash_a_name_and_known_sources() {
    let token = |lines: &str| {
        error(&format!(
            "{CREDENTIALS}\n[[api.token]]\nrole = 'injector'\n{lines}"
        ))
    };
    let hash = "0".repeat(64);
    assert!(token("name = 'a'\nsha256 = 'secret'").contains("sha256 must be 64 hex digits"));
    assert!(token(&format!("name = ''\nsha256 = '{hash}'")).contains("is empty or taken"));
    assert!(
        token(&format!("name = 'a'\nsha256 = '{hash}'\nsources = ['x']"))
            .contains("add a [[signal_source]]")
    );
}

#[test]
fn prefixes_that_make_no_sense_are_refused_where_they_stand() {
    let region = |id: &str, more: &str| {
        format!("[[region]]\nid = \"{id}\"\nlatitude = 0\nlongitude = 0\n{more}\n")
    };
    for (more, expected) in [
        ("prefixes = [\"198.51.100.1/24\"]", "is not a prefix"),
        (
            "prefixes = [\"0.0.0.0/0\"]",
            "a default route leads everywhere",
        ),
        (
            "prefixes = [\"198.51.100.0/24\"]",
            "prefix 198.51.100.0/24 is given twice, for other-one before",
        ),
        ("origins = [64500]", "origins are given without prefixes"),
    ] {
        let other = region("other-one", "prefixes = [\"198.51.100.0/24\"]");
        let said = error(&format!(
            "{CREDENTIALS}\n{other}{}",
            region("other-two", more)
        ));
        assert!(said.contains(expected), "{said}");
    }
    let sound = policy(&region(
        "one",
        "prefixes = [\"198.51.100.0/24\"]\norigins = [64500]",
    ));
    assert_eq!(sound.regions.values().next().unwrap().prefixes.len(), 1);
    assert_eq!(policy(&sound.to_toml()), sound, "as the journal has it");
}

#[test]
fn a_policy_error_has_its_place_in_the_file() {
    let error = error(&format!(
        "{CREDENTIALS}\n[[region]]\nid = 'iad'\nlatitude = 95\nlongitude = 0"
    ));
    assert!(
        error.starts_with("aggregator.toml:9:12: 95 is out of range"),
        "{error}"
    );
}

#[test]
fn every_policy_of_the_scenarios_written_out_is_the_same_policy() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.display().to_string();
        let written = leeward_engine::scenario::Scenario::parse(&name, &text).unwrap();
        assert_eq!(policy(&written.policy.to_toml()), written.policy, "{name}");
        read += 1;
    }
    assert!(read > 20, "{read} scenarios");
}

#[test]
fn the_journaled_text_is_the_policy_and_nothing_else() {
    let config = parse(&uncommented()).unwrap();
    assert!(!config.policy.toml.contains("credentials"));
    let read = PolicyText::parse(&Document {
        file: "journal",
        text: &config.policy.toml,
    })
    .unwrap();
    assert_eq!(read, config.policy);
}
