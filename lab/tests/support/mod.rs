//! Whether the lab can run here.

use std::path::Path;

/// The lab's binary.
pub const LAB: &str = env!("CARGO_BIN_EXE_leeward-lab");

/// Whether the lab can run here. Says aloud why not; where `LEEWARD_LAB_REQUIRED` is set that is a failure.
pub fn can_run(test: &str) -> bool {
    can_run_with(test, &[])
}

/// The same for a lab that needs these programs too.
pub fn can_run_with(test: &str, programs: &[&str]) -> bool {
    let beside = Path::new(LAB).parent().expect("a directory");
    let missing = ["leeward", "leeward-agent", "leeward-aggregator"]
        .into_iter()
        .find(|name| !beside.join(name).is_file());
    let reason = match missing {
        _ if !leeward_testing::is_root() => "needs root".to_owned(),
        _ if !Path::new("/dev/net/tun").exists() => "needs /dev/net/tun".to_owned(),
        Some(name) => format!("needs {name}; build it with cargo build --bins"),
        None => match programs.iter().find(|path| !Path::new(path).exists()) {
            Some(path) => format!("needs {path}; scripts/setup installs it"),
            None => return true,
        },
    };
    leeward_testing::skipped_unless_required(test, &reason);
    false
}
