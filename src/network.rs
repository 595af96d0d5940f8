//! Networks, as settings name them: those that may be dialled, those whose proxies are trusted.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A network such as `10.1.0.0/16`, or one address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no network.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is no network; write an address such as 10.1.2.3, or a network such as 10.1.0.0/16")]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to add")]
pub struct InvalidNetwork;

impl Network {
    /// Whether `address` is in it. An IPv4 address in the form of IPv6 is in none of IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        fn same(left: u128, right: u128, prefix: u8, width: u8) -> bool {
            let rest = u32::from(width.saturating_sub(prefix));
            (left ^ right).checked_shr(rest).unwrap_or(0) == 0
        }
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                same(u32::from(own).into(), u32::from(other).into(), self.prefix, 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                same(own.into(), other.into(), self.prefix, 128)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| InvalidNetwork)?,
            None => width,
        };
        if prefix <= width { Ok(Self { address, prefix }) } else { Err(InvalidNetwork) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}
