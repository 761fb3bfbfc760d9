//! Datagrams out of the kernel: `recvmmsg` into memory that is used again and again, with UDP_GRO where it works.
#![allow(unsafe_code)] // recvmmsg, the headers that point to where it writes, and the control messages it leaves

use std::io;
use std::mem::zeroed;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use super::name::{NAME, Name};
use super::pages::Pages;

const MESSAGES: usize = 64;
/// Bytes: more than any datagram we take, so that a longer one shows.
const SLOT: usize = 2048;
const MESSAGES_GRO: usize = 32;
/// Bytes: a message that was put together by the kernel is cut when it does not fit.
const SLOT_GRO: usize = 1 << 16;

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// What one call received.
pub struct Receiver {
    pages: Pages,
    slot: usize,
    names: Vec<Name>,
    controls: Vec<Control>,
    pieces: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    filled: usize,
    message: usize, // the next to be handed on, from this byte
    offset: usize,
}

// SAFETY: the pointers in `pieces` and `headers` lead into this value's own heap memory, which moves with nothing.
unsafe impl Send for Receiver {}

impl Receiver {
    /// `joined`: the socket has UDP_GRO on, so that a message may hold several datagrams.
    pub fn new(joined: bool) -> io::Result<Self> {
        let (messages, slot) = if joined { (MESSAGES_GRO, SLOT_GRO) } else { (MESSAGES, SLOT) };
        let mut pages = Pages::new(messages * slot)?;
        let mut names = vec![Name::EMPTY; messages];
        let mut controls = vec![Control([0; 64]); messages];
        let mut pieces: Vec<_> = pages
            .bytes_mut()
            .chunks_exact_mut(slot)
            .map(|place| libc::iovec { iov_base: place.as_mut_ptr().cast(), iov_len: place.len() })
            .collect();
        let mut headers = Vec::with_capacity(messages);
        for index in 0..messages {
            // SAFETY: a plain C struct of integers and pointers, for which zero is a valid value.
            let mut header: libc::mmsghdr = unsafe { zeroed() };
            header.msg_hdr.msg_name = (&raw mut names[index]).cast();
            header.msg_hdr.msg_iov = &raw mut pieces[index];
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = (&raw mut controls[index]).cast();
            headers.push(header);
        }
        Ok(Self { pages, slot, names, controls, pieces, headers, filled: 0, message: 0, offset: 0 })
    }

    /// Read what waits, without waiting for more. Returns how many messages came, and whether more may wait.
    pub fn fill(&mut self, socket: &UdpSocket) -> io::Result<(usize, bool)> {
        (self.filled, self.message, self.offset) = (0, 0, 0);
        for header in &mut self.headers {
            header.msg_hdr.msg_namelen = NAME;
            header.msg_hdr.msg_controllen = size_of::<Control>() as _;
        }
        debug_assert_eq!(self.pieces.len(), self.headers.len());
        let (fd, count) = (socket.as_raw_fd(), self.headers.len() as u32);
        // SAFETY: each header points to one name, one control and one piece of this value, with their true lengths;
        // none of the vectors grows after `new`, and nobody else looks at them during the call.
        let got = unsafe {
            libc::recvmmsg(fd, self.headers.as_mut_ptr(), count, libc::MSG_DONTWAIT as _, std::ptr::null_mut())
        };
        self.filled = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        Ok((self.filled, self.filled == self.headers.len()))
    }

    /// Hand on the datagrams of the latest `fill`, in order, for as long as `take` returns true; the next call goes on
    /// behind the one for which it did not. Returns whether all were handed on.
    pub fn each(&mut self, mut take: impl FnMut(&mut [u8], SocketAddr) -> bool) -> bool {
        let bytes = self.pages.bytes_mut();
        while self.message < self.filled {
            let (index, from) = (self.message, self.offset);
            let header = &self.headers[index];
            let length = (header.msg_len as usize).min(self.slot);
            let size = segment_size(&self.controls[index], header.msg_hdr.msg_controllen);
            let end = if size == 0 { length } else { length.min(from + size) };
            (self.message, self.offset) = if end < length { (index, end) } else { (index + 1, 0) };
            let Some(address) = self.names[index].address() else { continue };
            if !take(&mut bytes[index * self.slot..][from..end], address) {
                break;
            }
        }
        self.message >= self.filled
    }
}

/// The size of the datagrams in a message that the kernel put together, 0 when it did not.
fn segment_size(control: &Control, length: usize) -> usize {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    if length < HEADER + size_of::<i32>() {
        return 0;
    }
    // SAFETY: `control` is aligned for and longer than a cmsghdr, and any bytes make one.
    let header: libc::cmsghdr = unsafe { control.0.as_ptr().cast::<libc::cmsghdr>().read() };
    if header.cmsg_level != libc::SOL_UDP || header.cmsg_type != libc::UDP_GRO {
        return 0; // the only control message that was asked for
    }
    let mut size = [0; 4];
    size.copy_from_slice(&control.0[HEADER..HEADER + 4]);
    usize::try_from(i32::from_ne_bytes(size)).unwrap_or(0)
}
