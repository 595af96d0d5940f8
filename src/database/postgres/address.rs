//! Where a tenant's server may be: checked on the address that is dialled, not on the name.
//!
//! A tenant file names a host, and who writes it may not be who runs the service. Names resolve to
//! anything, so the rule holds for each address that a name has at the moment of the dial, and a
//! cancellation later goes to that address and no other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::network::Network;

/// Which addresses may be dialled.
///
/// Never, unless `allow` says so: link-local addresses, where clouds serve credentials to whoever
/// asks from inside, also `fd00:ec2::254`; the unspecified, multicast and broadcast addresses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "filled field by field from the settings")]
pub struct AddressPolicy {
    /// Also refuse loopback, private networks and Unix sockets.
    pub deny_private: bool,
    /// Networks whose addresses may be dialled whatever they are.
    pub allow: Vec<Network>,
}

impl AddressPolicy {
    /// Whether a server at `address` may be dialled.
    pub(super) fn admits(&self, address: IpAddr) -> bool {
        let address = embedded(address);
        if self.allow.iter().any(|network| network.contains(address)) {
            return true;
        }
        !is_never(address) && (!self.deny_private || !is_private(address))
    }

    /// Whether a Unix socket may be.
    pub(super) fn admits_unix_socket(&self) -> bool {
        !self.deny_private
    }
}

/// The IPv4 address that an IPv6 address leads to, where it does: mapped, translated or tunnelled.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return v4.into();
    }
    let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)).into();
    match v6.segments() {
        // RFC 4291, compatible addresses.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => of(high, low),
        // RFC 6052, the well-known prefix; RFC 3056.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => of(high, low),
        _ => address,
    }
}

fn is_never(address: IpAddr) -> bool {
    /// Where one cloud serves credentials over IPv6.
    const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match address {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            // From 240 on is reserved, and broadcast at its end.
            v4.is_link_local() || v4.is_multicast() || first == 0 || first >= 240
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified() || v6 == METADATA
        }
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            // RFC 6598: shared by carriers, and used inside of clouds.
            let is_shared = first == 100 && (64..128).contains(&second);
            v4.is_private() || v4.is_loopback() || is_shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::InvalidNetwork;

    fn policy(deny_private: bool, allow: &[&str]) -> AddressPolicy {
        let allow = allow.iter().map(|text| text.parse().unwrap()).collect();
        AddressPolicy { deny_private, allow }
    }

    #[test]
    fn link_local_and_metadata_addresses_are_refused_in_every_spelling() {
        for address in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "::a9fe:a9fe",
            "fe80::1",
            "fd00:ec2::254",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
        ] {
            assert!(!policy(false, &[]).admits(address.parse().unwrap()), "{address}");
        }
        for address in
            ["10.1.2.3", "127.0.0.1", "::1", "203.0.113.9", "fd00:ec2::255", "2001:db8::1"]
        {
            assert!(policy(false, &[]).admits(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn private_networks_are_refused_where_the_setting_says_so() {
        let strict = policy(true, &[]);
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "::1",
            "fd12::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!strict.admits(address.parse().unwrap()), "{address}");
        }
        for address in ["203.0.113.9", "172.32.0.1", "100.128.0.1", "2001:db8::1"] {
            assert!(strict.admits(address.parse().unwrap()), "{address}");
        }
        assert!(!strict.admits_unix_socket());
    }

    #[test]
    fn what_is_allowed_by_network_is_allowed_and_its_neighbour_is_not() {
        let allowed = policy(true, &["10.1.0.0/16", "169.254.7.7", "fd12:3456::/32", "::1/128"]);
        for address in ["10.1.255.255", "169.254.7.7", "fd12:3456:7::1", "::1"] {
            assert!(allowed.admits(address.parse().unwrap()), "{address}");
        }
        for address in ["10.2.0.0", "169.254.7.8", "fd12:3457::1"] {
            assert!(!allowed.admits(address.parse().unwrap()), "{address}");
        }
        assert!(policy(true, &["0.0.0.0/0"]).admits("10.0.0.1".parse().unwrap()));
        for text in ["", "10.0.0.0/33", "10.0.0/8", "host", "10.0.0.0/", "::/129", "10.0.0.0/-1"] {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork), "{text}");
        }
        assert_eq!("10.1.0.0/16".parse::<Network>().unwrap().to_string(), "10.1.0.0/16");
    }
}
