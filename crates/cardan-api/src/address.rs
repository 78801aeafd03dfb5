//! Which IP addresses are not the public Internet, and ranges of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// IPv4 ranges that are for special purposes (IANA's registry): address and length of the prefix.
const SPECIAL_V4: [([u8; 4], u8); 16] = [
    // "This network", which systems read as this host.
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    // Shared by carriers' customers.
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    // Link-local, where clouds keep their metadata services.
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    // 6to4 relays.
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    // Multicast.
    ([224, 0, 0, 0], 4),
    // Reserved, broadcast included.
    ([240, 0, 0, 0], 4),
    ([255, 255, 255, 255], 32),
];

/// Where IPv6's global unicast addresses are; nothing outside of it is the public Internet.
const GLOBAL_V6: ([u16; 8], u8) = ([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// Ranges inside of it that are for special purposes. Those that carry an IPv4 address are told by that.
const SPECIAL_V6: [([u16; 8], u8); 4] = [
    // Protocol assignments, Teredo and benchmarking among them.
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    // Documentation.
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
    // Segment routing.
    ([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16),
];

/// NAT64's prefix, whose last 32 bits are an IPv4 address.
const NAT64: ([u16; 8], u8) = ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);
/// NAT64 within one network.
const NAT64_LOCAL: ([u16; 8], u8) = ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48);
/// 6to4, whose bits 16 to 48 are an IPv4 address.
const SIX_TO_FOUR: ([u16; 8], u8) = ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);

/// Whether `address` is anything else than a host on the public Internet: private, loopback, link-local,
/// shared, multicast, documentation, unspecified or reserved, also where an IPv6 address stands for one.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => match embedded_v4(address) {
            Some(inner) => is_private_v4(inner),
            None => {
                let within = |(prefix, length): ([u16; 8], u8)| {
                    AddressRange { address: Ipv6Addr::from(prefix).into(), prefix: length }
                        .contains(address.into())
                };
                !within(GLOBAL_V6) || SPECIAL_V6.into_iter().any(within)
            }
        },
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    SPECIAL_V4.into_iter().any(|(prefix, length)| {
        AddressRange { address: Ipv4Addr::from(prefix).into(), prefix: length }.contains(address.into())
    })
}

/// The IPv4 address that packets to an IPv6 address can end up at: mapped, compatible, NAT64 or 6to4. The
/// loopback and the unspecified address are none of these.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let within = |(prefix, length): ([u16; 8], u8)| {
        AddressRange { address: Ipv6Addr::from(prefix).into(), prefix: length }.contains(address.into())
    };
    let bytes = address.octets();
    let last = Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]);
    if within(SIX_TO_FOUR) {
        return Some(Ipv4Addr::new(bytes[2], bytes[3], bytes[4], bytes[5]));
    }
    if within(NAT64) {
        return Some(last);
    }
    if within(NAT64_LOCAL) || address.is_loopback() || address.is_unspecified() {
        return None;
    }
    address.to_ipv4_mapped().or_else(|| address.to_ipv4())
}

/// A range of addresses: `10.0.0.0/8`, `fd00::/8`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AddressRange {
    address: IpAddr,
    /// Bits that count.
    prefix: u8,
}

impl AddressRange {
    /// Whether an address is in the range. An IPv4 address that is written as a mapped IPv6 address is the
    /// same address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(range), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
                (range.to_bits() ^ address.to_bits()) & mask == 0
            }
            (IpAddr::V6(range), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                (range.to_bits() ^ address.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let single = if self.address.is_ipv4() { 32 } else { 128 };
        match self.prefix {
            prefix if prefix == single => self.address.fmt(f),
            prefix => write!(f, "{}/{prefix}", self.address),
        }
    }
}

/// A text that is no range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRange;

impl fmt::Display for NoRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no address and no range of addresses such as 10.0.0.0/8")
    }
}

impl std::error::Error for NoRange {}

impl FromStr for AddressRange {
    type Err = NoRange;

    fn from_str(text: &str) -> Result<Self, NoRange> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address = address.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(address);
        let address: IpAddr = address.parse().map_err(|_| NoRange)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), |prefix| prefix.parse().map_err(|_| NoRange))?;
        if prefix > most {
            return Err(NoRange);
        }
        Ok(Self { address, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses() {
        let private = [
            "127.0.0.1",
            "127.255.0.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.51.100.7",
            "203.0.113.9",
            "198.18.0.1",
            "198.19.255.255",
            "192.0.0.8",
            "192.88.99.1",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fdff::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "::7f00:1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001:db8::1",
            "3fff::1",
            "2001::1",
            "100::1",
            "5f00::1",
            "4000::1",
        ];
        for text in private {
            assert!(is_private(text.parse().unwrap()), "{text}");
        }
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ];
        for text in public {
            assert!(!is_private(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn ranges() {
        #[track_caller]
        fn check(range: &str, shown: &str, inside: &[&str], outside: &[&str]) {
            let range: AddressRange = range.parse().unwrap();
            assert_eq!(range.to_string(), shown);
            for address in inside {
                assert!(range.contains(address.parse().unwrap()), "{range}: {address}");
            }
            for address in outside {
                assert!(!range.contains(address.parse().unwrap()), "{range}: {address}");
            }
        }
        check(
            "10.0.0.0/8",
            "10.0.0.0/8",
            &["10.0.0.0", "10.255.255.255", "::ffff:10.1.1.1"],
            &["11.0.0.0", "::1"],
        );
        check("127.0.0.1", "127.0.0.1", &["127.0.0.1"], &["127.0.0.2"]);
        check("0.0.0.0/0", "0.0.0.0/0", &["1.2.3.4"], &["fe80::1"]);
        check("fd00::/8", "fd00::/8", &["fd00::1", "fdff::"], &["fc00::1", "10.0.0.1"]);
        check("[::1]", "::1", &["::1"], &["::2"]);
        check("::/0", "::/0", &["::2"], &["1.2.3.4"]);
        for text in
            ["", "10", "10.0.0.0/33", "::1/129", "a.example", "10.0.0.0/", "10.0.0.0/x", "10.0.0.0/-1"]
        {
            assert_eq!(text.parse::<AddressRange>(), Err(NoRange), "{text}");
        }
    }
}
