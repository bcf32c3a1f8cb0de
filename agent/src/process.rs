//! What this process itself uses, read from `/proc/self`. Absent figures are zero: they are for people only.

use std::time::Duration;

/// Memory and CPU of this process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// CPU time since the start, user and system, in steps of 10 ms.
    pub cpu: Duration,
}

/// The kernel reports times to user space in ticks of 1/100 s, whatever its own tick is (proc(5), USER_HZ).
const TICK: Duration = Duration::from_millis(10);

impl Usage {
    /// Reads the present figures.
    #[must_use]
    pub fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Self {
            resident_bytes: resident_bytes(&status).unwrap_or(0),
            cpu: cpu(&stat).unwrap_or_default(),
        }
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1_024)
}

/// Fields 14 and 15 of proc(5); the second field, the name, may hold anything but ends with the last parenthesis.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user.saturating_add(system))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found() {
        let stat = "17 (a (b) c) S 1 17 17 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 1 0 100 0 0";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!(
            resident_bytes("Name:\tx\nVmRSS:\t    1024 kB\n"),
            Some(1 << 20)
        );
        assert_eq!(cpu("17 (a"), None);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(Usage::read().resident_bytes > 0);
    }
}
