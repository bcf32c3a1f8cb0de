//! A capture of loopback beside the prober: round-trip times by the kernel's stamps of the same packets.

use std::{
    collections::BTreeMap,
    io::Read as _,
    net::{IpAddr, Ipv4Addr},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

/// tcpdump writing echo requests and replies of loopback into a pipe.
#[derive(Debug)]
pub struct Capture {
    tcpdump: std::process::Child,
    reader: std::thread::JoinHandle<std::io::Result<Vec<u8>>>,
}

impl Capture {
    /// Starts tcpdump, and returns when it captures.
    ///
    /// # Errors
    ///
    /// Returns why it does not.
    pub fn start() -> anyhow::Result<Self> {
        let mut tcpdump = Command::new("tcpdump")
            .args([
                "-i",
                "lo",
                "-U",
                "--immediate-mode",
                "-w",
                "-",
                "--time-stamp-precision=nano",
                "-s",
                "64",
                "-B",
                "16384",
            ])
            .arg("icmp and net 127.1.0.0/16")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("tcpdump cannot be run; it is in Debian's package tcpdump")?;
        let mut pipe = tcpdump.stdout.take().context("tcpdump has no output")?;
        // The header of the file comes once the capture runs.
        let mut bytes = vec![0; 24];
        pipe.read_exact(&mut bytes)
            .context("tcpdump ended at once; run as root")?;
        let reader = std::thread::spawn(move || pipe.read_to_end(&mut bytes).map(|_| bytes));
        Ok(Self { tcpdump, reader })
    }

    /// RTTs in microseconds by address, in the order of the requests; NaN where no reply was seen.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with what it wrote.
    pub fn finish(mut self) -> anyhow::Result<BTreeMap<Ipv4Addr, Vec<f64>>> {
        Command::new("kill")
            .args(["-INT", &self.tcpdump.id().to_string()])
            .status()
            .context("run kill")?;
        self.tcpdump.wait()?;
        let bytes = self
            .reader
            .join()
            .map_err(|_| anyhow::anyhow!("the reader of tcpdump panicked"))??;
        round_trips(&bytes)
    }
}

/// Reads a pcap file of nanosecond stamps in this machine's byte order.
fn round_trips(bytes: &[u8]) -> anyhow::Result<BTreeMap<Ipv4Addr, Vec<f64>>> {
    let word =
        |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    ensure!(
        word(bytes, 0) == Some(0xa1b2_3c4d),
        "tcpdump wrote no nanosecond pcap file"
    );
    let mut requests: BTreeMap<(IpAddr, [u8; 12]), (usize, f64)> = BTreeMap::new();
    let mut round_trips: BTreeMap<Ipv4Addr, Vec<f64>> = BTreeMap::new();
    let mut rest = &bytes[24..];
    while let (Some(seconds), Some(nanoseconds), Some(length)) =
        (word(rest, 0), word(rest, 4), word(rest, 8))
    {
        let Some(packet) = rest.get(16..16 + length as usize) else {
            break;
        };
        rest = &rest[16 + length as usize..];
        let at_us = f64::from(seconds % 10_000) * 1e6 + f64::from(nanoseconds) / 1e3;
        // Ethernet (14 bytes), IPv4 without options (20), ICMP: type, code, checksum, identifier, sequence, our token.
        let Some(icmp) = packet.get(34..34 + 16) else {
            continue;
        };
        let address = |at: usize| {
            Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).expect("four bytes"))
        };
        let identity: [u8; 12] = icmp[4..16].try_into().expect("twelve bytes");
        match icmp[0] {
            8 => {
                let rtts = round_trips.entry(address(30)).or_default();
                requests.insert((address(30).into(), identity), (rtts.len(), at_us));
                rtts.push(f64::NAN);
            }
            0 => {
                let request = requests.remove(&(address(26).into(), identity));
                if let (Some((at, sent_us)), Some(rtts)) =
                    (request, round_trips.get_mut(&address(26)))
                {
                    rtts[at] = at_us - sent_us;
                }
            }
            _ => {}
        }
    }
    Ok(round_trips)
}
