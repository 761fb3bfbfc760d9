//! What this kernel can do, found out at start on sockets of our own, by sending.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use super::receive::Receiver;
use super::send::Sender;
use super::set_joined;
use super::wire::KernelWire;
use crate::out::OutBatch;

const SIZE: usize = 100; // bytes of a probe
const PATIENCE: Duration = Duration::from_millis(200); // loopback delivers within the call; only what fails takes it

/// Ways to save system calls. Each was seen to work here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Abilities {
    /// Several datagrams of one size to one destination as one message (UDP_SEGMENT).
    pub gso: bool,
    /// Several datagrams of one source received as one message (UDP_GRO).
    pub gro: bool,
    pub sendmmsg: bool,
}

impl Abilities {
    /// Try each.
    pub fn probe() -> Self {
        let sendmmsg = round_trip(false, true, false).is_ok_and(|came| came);
        let gso = round_trip(true, sendmmsg, false).is_ok_and(|came| came);
        let gro = round_trip(gso, sendmmsg, true).is_ok_and(|came| came);
        Self { gso, gro, sendmmsg }
    }

    /// How datagrams leave and come, best first.
    pub fn names(self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for (has, name) in [(self.gso, "gso"), (self.sendmmsg, "sendmmsg"), (self.gro, "gro")] {
            if has {
                names.push(name);
            }
        }
        names.push("recvmmsg");
        if !self.sendmmsg {
            names.push("sendmsg");
        }
        names
    }
}

/// Send three datagrams over loopback; say whether they came as they were, and left as one message if `joined`.
fn round_trip(joined: bool, many: bool, received_joined: bool) -> io::Result<bool> {
    let here = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    here.set_nonblocking(true)?;
    let there = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    there.set_read_timeout(Some(PATIENCE))?;
    if received_joined {
        set_joined(&there)?;
    }
    let address = there.local_addr()?;
    let mut out = OutBatch::default();
    for number in 0..3 {
        out.push(&[number; SIZE], address);
    }
    let mut sender = Sender::new(KernelWire::new(Arc::new(here), many)?, joined);
    sender.flush(&mut out);
    if sender.counts.datagrams != 3 || sender.counts.messages != if joined { 1 } else { 3 } {
        return Ok(false);
    }
    there.peek(&mut [0])?; // waits
    let mut receiver = Receiver::new(received_joined)?;
    receiver.fill(&there)?;
    let mut came = Vec::new();
    receiver.each(|datagram, _| {
        came.push(datagram.to_vec());
        true
    });
    Ok(came == [0, 1, 2].map(|number| vec![number; SIZE]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ability_has_a_name() {
        let all = Abilities { gso: true, gro: true, sendmmsg: true };
        assert_eq!(all.names(), ["gso", "sendmmsg", "gro", "recvmmsg"]);
        assert_eq!(Abilities::default().names(), ["recvmmsg", "sendmsg"]);
    }

    #[test]
    fn linux_sends_many_at_a_time() {
        assert!(Abilities::probe().sendmmsg);
    }
}
