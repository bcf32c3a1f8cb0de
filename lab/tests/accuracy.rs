//! Do agents measure what happens? Every probe of a short life in fifteen impaired links, as the agents account for it
//! and as the emulated network saw it.

use std::{path::Path, process::Command};

mod support;

use support::{LAB, can_run};

#[test]
fn agents_and_a_witness_in_the_network_agree_on_every_path() {
    if !can_run("agents_and_a_witness_in_the_network_agree_on_every_path") {
        return;
    }
    let world = Path::new(env!("CARGO_MANIFEST_DIR")).join("worlds/accuracy.toml");
    let output = Command::new(LAB)
        .args(["accuracy", "--for", "12"])
        .arg(world)
        .output()
        .unwrap();
    let (told, failed) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{told}\n{failed}");
    assert!(
        told.lines().filter(|line| line.starts_with('|')).count() >= 90,
        "{told}"
    );
}
