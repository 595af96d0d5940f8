//! How many connections there may be, in all and from one network.
//!
//! An IPv4 address counts by itself; of IPv6 a /64, which is what one customer of a provider has.
//! Proxies that are trusted count in all only: behind each stand many clients, and who they are
//! shows with a request, when the connection is long there.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::Limits;

/// Counts connections that are open.
#[derive(Debug, Default)]
pub(super) struct Admission(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: u32,
    /// Of networks that have any.
    by_network: HashMap<IpAddr, u32>,
}

/// Leave to be connected, until it is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    admission: Arc<Admission>,
    network: Option<IpAddr>,
}

impl Admission {
    /// Leave for one more connection from `peer`; nothing where there are enough.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        is_proxy: bool,
        limits: &Limits,
    ) -> Option<Admitted> {
        let network = (!is_proxy).then(|| network(peer));
        let mut counts = self.counts();
        if counts.all >= limits.max_connections {
            return None;
        }
        if let Some(network) = network {
            let of_network = counts.by_network.get(&network).copied().unwrap_or(0);
            if of_network >= limits.max_connections_per_address {
                return None;
            }
            counts.by_network.insert(network, of_network + 1);
        }
        counts.all += 1;
        drop(counts);
        Some(Admitted { admission: Arc::clone(self), network })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        counts.all = counts.all.saturating_sub(1);
        let Some(network) = self.network else { return };
        if let Some(count) = counts.by_network.get_mut(&network) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.by_network.remove(&network);
            }
        }
    }
}

/// What `peer` is counted as.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { max_connections: 4, max_connections_per_address: 2, ..Limits::default() }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_its_share_and_what_is_given_back_can_be_had_again() {
        let admission = Arc::new(Admission::default());
        let admit = |peer: &str| admission.admit(address(peer), false, &limits());
        let first = admit("192.0.2.1").unwrap();
        let _second = admit("::ffff:192.0.2.1").unwrap();
        assert!(admit("192.0.2.1").is_none());
        let _neighbour = admit("192.0.2.2").unwrap();
        drop(first);
        let _third = admit("192.0.2.1").unwrap();
        assert!(admit("192.0.2.1").is_none());
    }

    #[test]
    fn addresses_of_one_ipv6_network_share() {
        let admission = Arc::new(Admission::default());
        let admit = |peer: &str| admission.admit(address(peer), false, &limits());
        let _two = (admit("2001:db8::1").unwrap(), admit("2001:db8:0:0:ffff::").unwrap());
        assert!(admit("2001:db8::1:2").is_none());
        admit("2001:db8:0:1::1").unwrap();
    }

    #[test]
    fn proxies_count_in_all_only() {
        let admission = Arc::new(Admission::default());
        let proxy = address("10.0.0.1");
        let admit = || admission.admit(proxy, true, &limits());
        let open: Vec<_> = std::iter::from_fn(admit).take(9).collect();
        assert_eq!(open.len(), 4);
        assert!(admission.admit(address("192.0.2.1"), false, &limits()).is_none());
        drop(open);
        assert!(admission.counts().by_network.is_empty());
        assert_eq!(admission.counts().all, 0);
    }
}
