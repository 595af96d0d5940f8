//! Whose request it is that a proxy passes on.
//!
//! ```text
//! client --> proxy A --> proxy B --> here      X-Forwarded-For: whatever the client sent, client, A
//!                        the peer                                                          <-- read
//! ```
//!
//! A header can be sent by anybody. It is read only when the peer is a trusted proxy, from the right,
//! which each proxy adds to, and only as far as those who wrote it are trusted: the first address
//! that is no trusted proxy's is the client's. Which header it is, is a setting: a proxy that writes
//! one passes the other on as the client wrote it.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};

use crate::network::Network;

/// Proxies whose word on addresses is taken.
#[derive(Clone, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "filled field by field from the settings")]
pub struct Proxies {
    /// Where they are.
    pub networks: Vec<Network>,
    /// What they write.
    pub header: ForwardedHeader,
}

/// The header that says whose request it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the standard, and what came before")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For: 192.0.2.1, 10.0.0.1`
    #[default]
    XForwardedFor,
    /// `Forwarded: for=192.0.2.1;proto=https, for="[2001:db8::1]:4711"` (RFC 7239)
    Forwarded,
}

impl Proxies {
    /// Whether `address` is a trusted proxy's.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(address))
    }

    /// Whose request it is that `peer` sent with `headers`: the peer's unless proxies say
    /// otherwise. What they did not write is not read, and garbage ends the reading; the port is
    /// the peer's, or none.
    pub(super) fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        let mut client = peer.ip().to_canonical();
        if !self.has(client) {
            return SocketAddr::new(client, peer.port());
        }
        let name = match self.header {
            ForwardedHeader::Forwarded => header::FORWARDED,
            ForwardedHeader::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
        };
        let lines: Vec<_> = headers.get_all(name).iter().collect();
        let said = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        for said in said {
            let Some(address) = self.address(said) else { break };
            client = address;
            if !self.has(client) {
                break;
            }
        }
        SocketAddr::new(client, 0)
    }

    fn address(&self, said: &[u8]) -> Option<IpAddr> {
        let said = str::from_utf8(said).ok()?.trim_matches([' ', '\t']);
        let said = match self.header {
            ForwardedHeader::XForwardedFor => said,
            ForwardedHeader::Forwarded => {
                let mut named = said.split(';').filter_map(|pair| {
                    let (name, value) = pair.split_once('=')?;
                    name.trim().eq_ignore_ascii_case("for").then_some(value.trim())
                });
                let (Some(value), None) = (named.next(), named.next()) else { return None };
                value.strip_prefix('"').map_or(Some(value), |rest| rest.strip_suffix('"'))?
            }
        };
        let address = match said.parse::<SocketAddr>() {
            Ok(address) => address.ip(),
            Err(_) => match said.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                Some(inside) => inside.parse::<std::net::Ipv6Addr>().ok()?.into(),
                None => said.parse().ok()?,
            },
        };
        Some(address.to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const PROXY: &str = "10.0.0.1:4000";

    fn client(proxies: &Proxies, peer: &str, lines: &[(&str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        proxies.client(peer.parse().unwrap(), &headers).ip().to_string()
    }

    fn proxies(header: ForwardedHeader) -> Proxies {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|it| it.parse().unwrap()).to_vec();
        Proxies { networks, header }
    }

    #[test]
    fn nobody_but_a_trusted_proxy_is_believed() {
        let header = [("x-forwarded-for", "192.0.2.1")];
        let trusted = proxies(ForwardedHeader::XForwardedFor);
        assert_eq!(client(&trusted, "203.0.113.9:4000", &header), "203.0.113.9");
        assert_eq!(client(&Proxies::default(), PROXY, &header), "10.0.0.1");
        assert_eq!(client(&trusted, PROXY, &header), "192.0.2.1");
        assert_eq!(client(&trusted, "[::ffff:10.0.0.1]:4000", &header), "192.0.2.1");
        assert_eq!(client(&trusted, PROXY, &[]), "10.0.0.1");
    }

    #[test]
    fn what_a_client_wrote_itself_is_not_read() {
        let trusted = proxies(ForwardedHeader::XForwardedFor);
        for line in ["198.51.100.7, 192.0.2.1", "10.9.9.9, 192.0.2.1, 10.0.0.2", "x,192.0.2.1"] {
            assert_eq!(client(&trusted, PROXY, &[("x-forwarded-for", line)]), "192.0.2.1");
        }
        let doubled = [("X-Forwarded-For", "198.51.100.7"), ("x-forwarded-for", "192.0.2.1")];
        assert_eq!(client(&trusted, PROXY, &doubled), "192.0.2.1");
        let other = [("forwarded", "for=198.51.100.7"), ("x-forwarded-for", "192.0.2.1")];
        assert_eq!(client(&trusted, PROXY, &other), "192.0.2.1");
        assert_eq!(client(&trusted, PROXY, &other[..1]), "10.0.0.1");
    }

    #[test]
    fn garbage_ends_the_reading_at_the_last_address_that_was_one() {
        let trusted = proxies(ForwardedHeader::XForwardedFor);
        for (line, expected) in [
            ("", "10.0.0.1"),
            ("unknown", "10.0.0.1"),
            ("192.0.2.1, garbage", "10.0.0.1"),
            ("192.0.2.1, garbage, 10.0.0.2", "10.0.0.2"),
            ("192.0.2.1,", "10.0.0.1"),
            ("é, 10.0.0.2", "10.0.0.2"),
            ("[2001:db8::1", "10.0.0.1"),
            ("10.0.0.5, 10.0.0.4", "10.0.0.5"),
        ] {
            assert_eq!(client(&trusted, PROXY, &[("x-forwarded-for", line)]), expected, "{line}");
        }
        let long = "10.0.0.3,".repeat(10_000) + "10.0.0.2";
        assert_eq!(client(&trusted, PROXY, &[("x-forwarded-for", &long)]), "10.0.0.3");
    }

    #[test]
    fn addresses_are_read_as_proxies_write_them() {
        let trusted = proxies(ForwardedHeader::XForwardedFor);
        for said in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:4711", " 2001:db8::1\t"] {
            assert_eq!(client(&trusted, PROXY, &[("x-forwarded-for", said)]), "2001:db8::1");
        }
        assert_eq!(client(&trusted, PROXY, &[("x-forwarded-for", "192.0.2.1:80")]), "192.0.2.1");
        let standard = proxies(ForwardedHeader::Forwarded);
        for (said, expected) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("for=198.51.100.7, For=192.0.2.1;proto=https;by=10.0.0.1", "192.0.2.1"),
            ("proto=https ; for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=\"192.0.2.1:80\", for=fd00::7", "192.0.2.1"),
            ("for=_hidden", "10.0.0.1"),
            ("for=unknown", "10.0.0.1"),
            ("for=192.0.2.1;for=192.0.2.2", "10.0.0.1"),
            ("for=\"192.0.2.1", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
        ] {
            assert_eq!(client(&standard, PROXY, &[("forwarded", said)]), expected, "{said}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_writes_the_address_is_what_the_proxy_added(
            written in "[ -~\t\u{80}-\u{ff}]{0,200}",
            own in prop_oneof![Just("x-forwarded-for"), Just("forwarded")],
        ) {
            let trusted = proxies(ForwardedHeader::XForwardedFor);
            let added = [(own, &*written), ("x-forwarded-for", "192.0.2.1")];
            prop_assert_eq!(client(&trusted, PROXY, &added), "192.0.2.1");
            let joined = format!("{written}, 192.0.2.1");
            let joined = [("x-forwarded-for", &*joined)];
            prop_assert_eq!(client(&trusted, PROXY, &joined), "192.0.2.1");
            let standard = proxies(ForwardedHeader::Forwarded);
            let joined = format!("{written},for=192.0.2.1;proto=https");
            prop_assert_eq!(client(&standard, PROXY, &[("forwarded", &*joined)]), "192.0.2.1");
        }
    }
}
