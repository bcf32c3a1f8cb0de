//! Do agents measure what happens? Every probe of a short life in fifteen impaired links, as the agents account for it
//! and as the emulated network saw it.

use std::{path::Path, process::Command};

#[test]
fn agents_and_a_witness_in_the_network_agree_on_every_path() {
    let root = std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t0")));
    if !root {
        assert!(
            std::env::var_os("LEEWARD_LAB_REQUIRED").is_none(),
            "the lab needs root"
        );
        eprintln!("SKIPPED: agents beside a witness: needs root");
        return;
    }
    let world = Path::new(env!("CARGO_MANIFEST_DIR")).join("worlds/accuracy.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_leeward-lab"))
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
