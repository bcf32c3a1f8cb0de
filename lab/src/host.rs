//! A host of the emulated network: a namespace, a device, addresses.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::{Command, Stdio},
};

use crate::{
    net::{Namespace, Tun},
    router::Port,
};

/// The name of a host's only device besides loopback.
pub const DEVICE: &str = "wan0";

/// The addresses of host number `host` (from 1) in place number `place` (from 1).
///
/// Both numbers stand in both addresses, so that a packet capture can be read: `10.3.0.1` and `fd00:3::1` are the
/// first host of the third place.
#[must_use]
pub fn addresses(place: u8, host: u8) -> [IpAddr; 2] {
    let v4 = Ipv4Addr::new(10, place, 0, host);
    let v6 = Ipv6Addr::new(0xfd00, place.into(), 0, 0, 0, 0, 0, host.into());
    [v4.into(), v6.into()]
}

/// A host. Its namespace lives as long as this value or a process inside.
#[derive(Clone, Debug)]
pub struct Host {
    /// Where its processes run.
    pub namespace: Namespace,
    /// Where it answers.
    pub addresses: Vec<IpAddr>,
}

impl Host {
    /// Makes a host in the place with this number, and the port by which a router reaches it.
    ///
    /// # Errors
    ///
    /// Returns the kernel's or `ip`'s refusal.
    pub fn create(addresses: &[IpAddr], place: usize) -> io::Result<(Self, Port)> {
        let (namespace, tun) = Namespace::create(|| {
            let tun = Tun::create(DEVICE)?;
            configure(addresses)?;
            Ok(tun)
        })?;
        let host = Self {
            namespace,
            addresses: addresses.to_vec(),
        };
        Ok((
            host,
            Port {
                tun,
                place,
                addresses: addresses.to_vec(),
            },
        ))
    }

    /// The IPv4 address.
    #[must_use]
    pub fn v4(&self) -> IpAddr {
        self.addresses
            .iter()
            .copied()
            .find(IpAddr::is_ipv4)
            .unwrap_or(Ipv4Addr::LOCALHOST.into())
    }
}

/// Brings up loopback and the device in the calling thread's namespace, with everything routed through the device.
fn configure(addresses: &[IpAddr]) -> io::Result<()> {
    ip("-4", &format!("link set lo up\nlink set {DEVICE} up\n"))?;
    for address in addresses {
        // Without `nodad` an IPv6 address is unusable for a second, though nobody on a tun device could object to it.
        let (family, bits, nodad) = match address {
            IpAddr::V4(_) => ("-4", 32, ""),
            IpAddr::V6(_) => ("-6", 128, "nodad"),
        };
        let address = format!("address add {address}/{bits} dev {DEVICE} {nodad}");
        ip(
            family,
            &format!("{address}\nroute add default dev {DEVICE}\n"),
        )?;
    }
    Ok(())
}

/// Gives the loopback device of the calling thread's namespace another address.
///
/// # Errors
///
/// Returns `ip`'s refusal.
pub fn add_to_loopback(address: IpAddr) -> io::Result<()> {
    let (family, bits) = match address {
        IpAddr::V4(_) => ("-4", 32),
        IpAddr::V6(_) => ("-6", 128),
    };
    // Another feed of the same router may have brought it.
    ip(
        family,
        &format!("address replace {address}/{bits} dev lo\n"),
    )
}

fn ip(family: &str, batch: &str) -> io::Result<()> {
    let mut child = Command::new("ip")
        .args([family, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot run ip (package iproute2): {error}"),
            )
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(batch.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "ip refused: {}",
        said.trim().replace('\n', "; ")
    )))
}
