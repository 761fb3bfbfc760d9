//! Socket addresses as the kernel reads and writes them.
#![allow(unsafe_code)] // which member of a sockaddr is valid is known by its family only

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::socket::canonical;

/// A `sockaddr_in` or a `sockaddr_in6`.
#[repr(C)]
#[derive(Clone, Copy)]
pub union Name {
    four: libc::sockaddr_in,
    six: libc::sockaddr_in6,
}

/// Bytes of the longest.
pub const NAME: u32 = size_of::<Name>() as u32;

impl Name {
    pub const EMPTY: Self = Self {
        six: libc::sockaddr_in6 {
            sin6_family: 0,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        },
    };

    /// The name of an address, and its length. `mapped`: the socket is an IPv6 one, which spells IPv4 as mapped.
    pub fn new(address: SocketAddr, mapped: bool) -> (Self, u32) {
        match address {
            SocketAddr::V4(v4) if !mapped => {
                let four = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                (Self { four }, size_of::<libc::sockaddr_in>() as u32)
            }
            SocketAddr::V4(v4) => Self::six(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0)),
            SocketAddr::V6(v6) => Self::six(v6),
        }
    }

    fn six(address: SocketAddrV6) -> (Self, u32) {
        let six = libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as libc::sa_family_t,
            sin6_port: address.port().to_be(),
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
            sin6_scope_id: address.scope_id(),
        };
        (Self { six }, NAME)
    }

    /// The address, with IPv4-mapped ones as IPv4. None for another family.
    pub fn address(&self) -> Option<SocketAddr> {
        // SAFETY: both members are plain integers of which every bit pattern is valid, and `EMPTY` has written all.
        let (four, six) = unsafe { (self.four, self.six) };
        match i32::from(six.sin6_family) {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(four.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(four.sin_port))))
            }
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(six.sin6_addr.s6_addr);
                Some(canonical(SocketAddrV6::new(ip, u16::from_be(six.sin6_port), 0, six.sin6_scope_id).into()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_both_ways() {
        for text in ["10.1.2.3:65535", "[2001:db8::7]:1", "[fe80::1%3]:99"] {
            let address: SocketAddr = text.parse().expect("an address");
            assert_eq!(Name::new(address, true).0.address(), Some(address));
            if address.is_ipv4() {
                let (name, length) = Name::new(address, false);
                assert_eq!((name.address(), length), (Some(address), 16));
            }
        }
        assert_eq!(Name::EMPTY.address(), None);
    }
}
