//! The addresses of this machine.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

/// Each address of this machine with the size of its network, as they are now.
pub fn interfaces() -> Vec<IpNet> {
    let ip = |storage: SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    let Ok(all) = getifaddrs() else { return Vec::new() };
    all.filter_map(|one| IpNet::with_netmask(ip(one.address?)?, ip(one.netmask?)?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there_with_its_network() {
        assert!(interfaces().contains(&"127.0.0.1/8".parse().unwrap()), "{:?}", interfaces());
    }
}
