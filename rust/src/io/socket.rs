//! The plane's UDP socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Bytes: 80 ms of 800 Mbit/s; the kernel gives less without privileges.
pub const SOCKET_BUFFER: usize = 8 << 20;

/// A non-blocking UDP socket with buffers of `buffer` bytes each way. `::` takes IPv4 too, and falls back to IPv4 where there is no IPv6.
pub fn bind(host: IpAddr, port: u16, buffer: usize) -> io::Result<UdpSocket> {
    match open(SocketAddr::new(host, port), buffer) {
        Err(_) if host == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !has_ipv6() => {
            open(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port), buffer)
        }
        done => done,
    }
}

fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn open(address: SocketAddr, buffer: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_recv_buffer_size(buffer)?;
    socket.set_send_buffer_size(buffer)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// What a dual-stack socket reports, with IPv4-mapped addresses as IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddr::new(IpAddr::V4(ip), v6.port()),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_bound_once() {
        let first = bind(IpAddr::V4(Ipv4Addr::LOCALHOST), 0, SOCKET_BUFFER).expect("a port");
        let port = first.local_addr().expect("its name").port();
        assert!(bind(IpAddr::V4(Ipv4Addr::LOCALHOST), port, SOCKET_BUFFER).is_err());
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        let mapped: SocketAddr = "[::ffff:10.1.2.3]:9".parse().expect("an address");
        assert_eq!(canonical(mapped), "10.1.2.3:9".parse().expect("an address"));
        let real: SocketAddr = "[2001:db8::1]:9".parse().expect("an address");
        assert_eq!(canonical(real), real);
    }
}
