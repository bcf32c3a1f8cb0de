//! Whom this agent is willing to probe: the networks that its operator allows, and never the addresses that no mesh has
//! any business with.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A range of addresses: `10.0.0.0/8`, `2001:db8::/32`, or a single address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no network.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{text:?} is not a network; {remedy}")]
pub struct InvalidNetwork {
    text: String,
    remedy: String,
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let invalid = |remedy: String| InvalidNetwork {
            text: text.to_owned(),
            remedy,
        };
        let form = || {
            invalid(
                "write an address and a prefix length, like \"10.0.0.0/8\" or \"2001:db8::/32\""
                    .to_owned(),
            )
        };
        let (address, prefix) = text
            .split_once('/')
            .map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|&prefix| prefix <= longest)
                .ok_or_else(form)?,
        };
        let first = mask(address, prefix);
        if first != address {
            return Err(invalid(format!(
                "the network of that address is {first}/{prefix}"
            )));
        }
        Ok(Self { address, prefix })
    }
}

impl Network {
    const fn v4(octets: [u8; 4], prefix: u8) -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
            prefix,
        }
    }

    const fn v6(first: u16, last: u16, prefix: u8) -> Self {
        Self {
            address: IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last)),
            prefix,
        }
    }

    /// Whether the address lies in this network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && mask(address, self.prefix) == self.address
    }

    /// Whether the whole of `self` lies in `outer`.
    fn within(&self, outer: &Self) -> bool {
        self.prefix >= outer.prefix && outer.contains(self.address)
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let keep = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & keep))
        }
        IpAddr::V6(v6) => {
            let keep = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & keep))
        }
    }
}

/// Probed only when a configured network lies within one of them: `0.0.0.0/0` does not mean this host itself.
const ONLY_IF_NAMED: [(Network, &str); 4] = [
    (Network::v4([127, 0, 0, 0], 8), "a loopback address"),
    (Network::v6(0, 1, 128), "a loopback address"),
    (Network::v4([169, 254, 0, 0], 16), "a link-local address"),
    (Network::v6(0xfe80, 0, 10), "a link-local address"),
];

/// The metadata services of clouds, which hand out secrets.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Whom this agent may probe, and how fast.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Admission {
    /// Networks whose addresses may be probed.
    pub allowed: Vec<Network>,
    /// The most probes per second, all targets together.
    pub max_probes_per_second: u32,
}

impl Admission {
    /// Why this address must not be probed; `None` if it may.
    #[must_use]
    pub fn refusal(&self, address: IpAddr) -> Option<String> {
        refusal(&self.allowed, "allowed_networks", address)
    }
}

/// Why an address must not be talked to if these networks are allowed; `None` if it may. `key` is where they are written.
pub(crate) fn refusal(allowed: &[Network], key: &str, address: IpAddr) -> Option<String> {
    let address = address.to_canonical();
    if METADATA.contains(&address) {
        return Some(format!(
            "{address} is a cloud's metadata service, which is never probed"
        ));
    }
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_multicast() || address.is_unspecified() || broadcast {
        return Some(format!("{address} is not the address of one host"));
    }
    let holding: Vec<_> = allowed
        .iter()
        .filter(|network| network.contains(address))
        .collect();
    if holding.is_empty() {
        return Some(format!("{address} is outside this agent's {key}"));
    }
    let (_, what) = ONLY_IF_NAMED.iter().find(|(special, _)| {
        special.contains(address) && !holding.iter().any(|network| network.within(special))
    })?;
    Some(format!(
        "{address} is {what}, which {key} does not name explicitly"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(networks: &[&str], max_probes_per_second: u32) -> Admission {
        Admission {
            allowed: networks.iter().map(|text| text.parse().unwrap()).collect(),
            max_probes_per_second,
        }
    }

    #[test]
    fn networks_are_read_and_hold_their_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("0.0.0.0/0", "192.0.2.1", "::1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(
                network.contains(inside.parse().unwrap()),
                "{network} {inside}"
            );
            assert!(
                !network.contains(outside.parse().unwrap()),
                "{network} {outside}"
            );
        }
    }

    #[test]
    fn a_network_with_host_bits_says_which_one_is_meant() {
        let error = "10.1.2.3/8".parse::<Network>().unwrap_err().to_string();
        assert_eq!(
            error,
            "\"10.1.2.3/8\" is not a network; the network of that address is 10.0.0.0/8"
        );
        for bad in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_allowed_addresses_are_probed() {
        let admission = admission(&["10.0.0.0/8"], 100);
        assert_eq!(admission.refusal("10.1.2.3".parse().unwrap()), None);
        let reason = admission.refusal("192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(reason, "192.0.2.1 is outside this agent's allowed_networks");
        assert!(
            admission
                .refusal("::ffff:192.0.2.1".parse().unwrap())
                .is_some()
        );
        assert_eq!(admission.refusal("::ffff:10.0.0.1".parse().unwrap()), None);
    }

    #[test]
    fn everything_allowed_does_not_mean_special_addresses() {
        let admission = admission(&["0.0.0.0/0", "::/0"], 100);
        for address in [
            "127.0.0.1",
            "::1",
            "169.254.1.1",
            "fe80::1",
            "169.254.169.254",
            "fd00:ec2::254",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "0.0.0.0",
            "::",
        ] {
            assert!(
                admission.refusal(address.parse().unwrap()).is_some(),
                "{address}"
            );
        }
    }

    #[test]
    fn link_local_is_probed_when_named_but_never_a_metadata_service() {
        let admission = admission(&["169.254.0.0/16", "127.0.0.0/8", "0.0.0.0/0"], 100);
        assert_eq!(admission.refusal("169.254.1.1".parse().unwrap()), None);
        assert_eq!(admission.refusal("127.0.0.1".parse().unwrap()), None);
        assert!(
            admission
                .refusal("169.254.169.254".parse().unwrap())
                .is_some()
        );
    }
}
