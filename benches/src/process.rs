//! What processes use, as the kernel accounts for it.

use std::{fs, io, time::Duration};

use anyhow::Context as _;

/// CPU time, user and system, of the living threads of a process. Precise to the nanosecond; a thread that ends takes
/// its share along.
///
/// # Errors
///
/// Returns why `/proc` cannot be read: the process has ended, or this is not Linux.
pub fn cpu(process: u32) -> anyhow::Result<Duration> {
    let mut total = 0;
    for thread in
        fs::read_dir(format!("/proc/{process}/task")).context("read the threads of a process")?
    {
        let accounts = fs::read_to_string(thread?.path().join("schedstat"));
        match accounts {
            // "time on the CPU, time waiting for it, turns", the first two in nanoseconds.
            Ok(accounts) => total += first_number(&accounts)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("read the CPU time of a thread"),
        }
    }
    Ok(Duration::from_nanos(total))
}

/// CPU time of this process' children that have ended and were waited for, to a hundredth of a second.
///
/// # Errors
///
/// Returns why `/proc` cannot be read.
pub fn children_cpu() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    // The program's name stands in parentheses and may hold spaces; the 16th and 17th fields are 13 and 14 after it.
    let (_, fields) = stat
        .rsplit_once(')')
        .context("/proc/self/stat has no name")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(13)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Ok(Duration::from_millis(10 * ticks))
}

/// Resident memory of a process, in bytes.
///
/// # Errors
///
/// Returns why `/proc` cannot be read.
pub fn resident(process: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))
        .context("read the status of a process")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("a status without VmRSS")?;
    Ok(first_number(line)? * 1024)
}

fn first_number(text: &str) -> anyhow::Result<u64> {
    let word = text
        .split_whitespace()
        .next()
        .context("a number is missing")?;
    word.parse()
        .with_context(|| format!("{word:?} is not a number"))
}
