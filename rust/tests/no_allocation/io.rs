//! The socket's side: not to receive, not to plan, not to send.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;

use _native::io::probe::Abilities;
use _native::io::{KernelWire, Receiver, Sender, set_joined, socket};
use _native::out::OutBatch;

use crate::counting;

fn bind() -> UdpSocket {
    socket::bind(Ipv4Addr::LOCALHOST.into(), 0, 1 << 20).expect("a port")
}

#[test]
fn a_round_of_sending_and_receiving_does_not_allocate() {
    let abilities = Abilities::probe();
    let (from, viewers) = (Arc::new(bind()), [bind(), bind(), bind(), bind()]);
    let addresses = viewers.each_ref().map(|viewer| viewer.local_addr().expect("a bound socket"));
    if abilities.gro {
        set_joined(&viewers[0]).expect("an option");
    }
    let mut sender = Sender::new(KernelWire::new(from, abilities.sendmmsg).expect("a socket"), abilities.gso);
    let mut receivers = [abilities.gro, false, false, false].map(|joined| Receiver::new(joined).expect("memory"));
    let mut out = OutBatch::default();
    let mut before = 0;
    for round in 0..20 {
        if round == 10 {
            before = counting::allocations();
        }
        for packet in 0..24u8 {
            for address in addresses {
                let length = if packet % 8 == 7 { 500 } else { 1100 };
                out.room()[..length].fill(packet);
                out.commit(length, address);
            }
        }
        sender.flush(&mut out);
        for (viewer, receiver) in viewers.iter().zip(&mut receivers) {
            let mut came = 0;
            while receiver.fill(viewer).is_ok() {
                receiver.each(|datagram, _| {
                    assert_eq!(datagram[0], came);
                    came += 1;
                    true
                });
            }
            assert_eq!(came, 24);
        }
    }
    assert_eq!(counting::allocations(), before);
}
