//! `leeward pki`: certificates that rustls accepts, keys that nobody else can read, and nothing ever overwritten.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use common::leeward;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

struct Pki {
    _root: tempfile::TempDir,
    directory: PathBuf,
}

impl Pki {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("pki");
        leeward(&["pki", "init", directory.to_str().unwrap()]).expect(0);
        Self {
            _root: root,
            directory,
        }
    }

    fn issue(&self, args: &[&str]) -> common::Said {
        leeward(
            &[
                &["pki", "issue"],
                args,
                &["--dir", self.directory.to_str().unwrap()],
            ]
            .concat(),
        )
    }

    fn agent(&self) -> CertificateDer<'static> {
        self.issue(&["agent", "--region", "iad", "--id", "iad-1"])
            .expect(0);
        certificate(&self.directory.join("agent-iad-1.pem"))
    }

    fn aggregator(&self) -> CertificateDer<'static> {
        self.issue(&[
            "aggregator",
            "--name",
            "main",
            "--host",
            "agg.example.net",
            "--host",
            "192.0.2.1",
        ])
        .expect(0);
        certificate(&self.directory.join("aggregator-main.pem"))
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots
            .add(certificate(&self.directory.join("ca.pem")))
            .unwrap();
        Arc::new(roots)
    }
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn client_verifier(roots: Arc<RootCertStore>) -> Arc<dyn ClientCertVerifier> {
    WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .unwrap()
}

fn server_verifier(roots: Arc<RootCertStore>) -> Arc<WebPkiServerVerifier> {
    WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .unwrap()
}

fn uris(certificate: &CertificateDer<'_>) -> Vec<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_agent_is_a_client_of_this_authority_and_of_no_other() {
    let pki = Pki::new();
    let agent = pki.agent();
    let now = UnixTime::now();
    client_verifier(pki.roots())
        .verify_client_cert(&agent, &[], now)
        .unwrap();
    client_verifier(Pki::new().roots())
        .verify_client_cert(&agent, &[], now)
        .unwrap_err();
    assert_eq!(uris(&agent), ["leeward://agent/iad/iad-1"]);
}

#[test]
fn an_agent_cannot_pose_as_an_aggregator() {
    let pki = Pki::new();
    let agent = pki.agent();
    let name = ServerName::try_from("agg.example.net").unwrap();
    server_verifier(pki.roots())
        .verify_server_cert(&agent, &[], &name, &[], UnixTime::now())
        .unwrap_err();
}

#[test]
fn an_aggregator_serves_the_hosts_that_it_was_issued_for() {
    let pki = Pki::new();
    let aggregator = pki.aggregator();
    let verify = |name: &'static str| {
        let name = ServerName::try_from(name).unwrap();
        server_verifier(pki.roots()).verify_server_cert(
            &aggregator,
            &[],
            &name,
            &[],
            UnixTime::now(),
        )
    };
    verify("agg.example.net").unwrap();
    verify("192.0.2.1").unwrap();
    verify("other.example.net").unwrap_err();
    assert_eq!(uris(&aggregator), ["leeward://aggregator/main"]);
}

#[test]
fn a_certificate_ends_when_it_was_asked_to() {
    let pki = Pki::new();
    pki.issue(&["agent", "--region", "iad", "--id", "short", "--days", "2"])
        .expect(0);
    let short = certificate(&pki.directory.join("agent-short.pem"));
    let after = |days: u64| UnixTime::since_unix_epoch(UnixTime::now().as_secs_duration(days));
    client_verifier(pki.roots())
        .verify_client_cert(&short, &[], after(1))
        .unwrap();
    client_verifier(pki.roots())
        .verify_client_cert(&short, &[], after(3))
        .unwrap_err();
    pki.issue(&["agent", "--region", "iad", "--id", "never", "--days", "0"])
        .expect(2);
}

trait Later {
    fn as_secs_duration(&self, days: u64) -> std::time::Duration;
}

impl Later for UnixTime {
    fn as_secs_duration(&self, days: u64) -> std::time::Duration {
        std::time::Duration::from_secs(self.as_secs() + days * 86_400)
    }
}

#[test]
fn a_leaf_cannot_issue_certificates() {
    let pki = Pki::new();
    let (_, ca) = (pki.agent(), certificate(&pki.directory.join("ca.pem")));
    let (_, ca) = X509Certificate::from_der(&ca).unwrap();
    assert!(ca.is_ca());
    let agent = certificate(&pki.directory.join("agent-iad-1.pem"));
    let (_, agent) = X509Certificate::from_der(&agent).unwrap();
    assert!(!agent.is_ca());
    assert!(!agent.key_usage().unwrap().unwrap().value.key_cert_sign());
}

#[test]
fn keys_belong_to_their_certificates_and_are_readable_by_their_owner_only() {
    let pki = Pki::new();
    pki.agent();
    pki.aggregator();
    assert_eq!(mode(&pki.directory), 0o700);
    for name in ["ca", "agent-iad-1", "aggregator-main"] {
        let key = pki.directory.join(format!("{name}.key"));
        assert_eq!(mode(&key), 0o600, "{name}");
        let key = PrivateKeyDer::from_pem_file(&key).unwrap();
        let chain = vec![certificate(&pki.directory.join(format!("{name}.pem")))];
        rustls::sign::CertifiedKey::from_der(chain, key, &provider())
            .unwrap()
            .keys_match()
            .unwrap();
    }
}

#[test]
fn nothing_is_overwritten() {
    let pki = Pki::new();
    pki.agent();
    let contents = || {
        let mut files: Vec<_> = fs::read_dir(&pki.directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
            .into_iter()
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect::<Vec<_>>()
    };
    let before = contents();
    let said = leeward(&["pki", "init", pki.directory.to_str().unwrap()]).expect(6);
    assert!(
        said.err.contains("exists and is not overwritten"),
        "{}",
        said.err
    );
    pki.issue(&["agent", "--region", "fra", "--id", "iad-1"])
        .expect(6);
    fs::remove_file(pki.directory.join("agent-iad-1.key")).unwrap();
    pki.issue(&["agent", "--region", "iad", "--id", "iad-1"])
        .expect(6);
    assert!(
        !pki.directory.join("agent-iad-1.key").exists(),
        "half a pair is worse than none"
    );
    assert_eq!(contents().len(), before.len() - 1);
    assert!(contents().iter().all(|file| before.contains(file)));
}

#[test]
fn what_was_written_is_on_stdout_and_what_to_do_next_is_not() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("pki");
    let said = leeward(&["pki", "init", directory.to_str().unwrap()]).expect(0);
    let paths: Vec<&Path> = said.out.lines().map(Path::new).collect();
    assert_eq!(paths, [directory.join("ca.pem"), directory.join("ca.key")]);
    assert!(said.err.contains("leeward pki issue agent"), "{}", said.err);
}

#[test]
fn names_that_are_none_and_authorities_that_are_none_are_refused() {
    let pki = Pki::new();
    for (args, code) in [
        (&["agent", "--region", "IAD", "--id", "a"][..], 2),
        (&["agent", "--region", "iad", "--id", "a/b"], 2),
        (&["agent", "--region", "iad", "--id", "../a"], 2),
        (&["aggregator", "--name", "main"], 2),
        (&["aggregator", "--name", "main", "--host", "agg:8610"], 2),
    ] {
        pki.issue(args).expect(code);
    }
    let nowhere = tempfile::tempdir().unwrap();
    let dir = nowhere.path().to_str().unwrap();
    let said = leeward(&[
        "pki", "issue", "agent", "--region", "iad", "--id", "a", "--dir", dir,
    ])
    .expect(5);
    assert!(said.err.contains("leeward pki init"), "{}", said.err);
    fs::write(nowhere.path().join("ca.pem"), "no certificate").unwrap();
    fs::write(nowhere.path().join("ca.key"), "no key").unwrap();
    leeward(&[
        "pki", "issue", "agent", "--region", "iad", "--id", "a", "--dir", dir,
    ])
    .expect(1);
}
