//! Datagrams in and out of the kernel, many at a time, and packets in and out of other processes. The only files with
//! `unsafe` are `name`, `pages`, `receive`, `shared_ring`, `wire` and this one: the system calls that no safe crate offers,
//! and what they point to.
#![allow(unsafe_code)] // one setsockopt

pub mod clock;
pub mod life;
mod name;
pub mod pages;
mod plan;
pub mod probe;
mod receive;
mod send;
pub mod shared_ring;
pub mod socket;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

pub use receive::Receiver;
pub use send::{BACKLOG, SendCounts, Sender, count_error};
pub use wire::{Batch, KernelWire, Wire};

/// Let the kernel hand over several datagrams of one source as one message (UDP_GRO).
pub fn set_joined(socket: &UdpSocket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is one C int, which lives through the call.
    let done = unsafe {
        let size = size_of::<libc::c_int>() as u32;
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, (&raw const on).cast(), size)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
