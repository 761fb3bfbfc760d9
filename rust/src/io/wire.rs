//! Messages into the kernel: `sendmmsg`, with UDP_SEGMENT for runs of several datagrams.
#![allow(unsafe_code)] // sendmmsg, and the headers that point to what it is to send

use std::io;
use std::mem::zeroed;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use super::name::Name;
use super::plan::{MAX_SEGMENTS, Run};
use crate::out::Waiting;

const MESSAGES: usize = 64; // per system call: what it costs is spread thin by then
const PIECES: usize = 1024; // per system call, of all messages

/// Runs of datagrams: `order[run.first..]` are indices into `waiting`.
pub struct Batch<'a> {
    pub waiting: Waiting<'a>,
    pub order: &'a [u32],
    pub runs: &'a [Run],
}

/// What takes messages. The kernel; in tests something that refuses at will.
pub trait Wire {
    /// Send runs from the front, at least one. Returns how many, or why not even the first went.
    fn send(&mut self, batch: Batch<'_>) -> io::Result<usize>;
}

#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    segment: u16,
    rest: [u8; 6], // the kernel is given no byte that was not written
}

/// CMSG_LEN and CMSG_SPACE of a u16.
const CONTROL_LENGTH: usize = size_of::<libc::cmsghdr>() + size_of::<u16>();

/// The kernel's side of a socket.
pub struct KernelWire {
    socket: Arc<UdpSocket>,
    mapped: bool,
    many: bool,
    names: Vec<Name>,
    controls: Vec<Control>,
    pieces: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: the pointers in `pieces` and `headers` are written anew by each `send` and read by it alone.
unsafe impl Send for KernelWire {}

impl KernelWire {
    /// `many`: the kernel has sendmmsg.
    pub fn new(socket: Arc<UdpSocket>, many: bool) -> io::Result<Self> {
        let mapped = socket.local_addr()?.is_ipv6();
        // SAFETY: these are plain C structs of integers and pointers, for which zero is a valid value.
        let (control, piece, header) = unsafe { (zeroed::<libc::cmsghdr>(), zeroed::<libc::iovec>(), zeroed()) };
        let mut control = control;
        control.cmsg_len = CONTROL_LENGTH as _;
        control.cmsg_level = libc::SOL_UDP;
        control.cmsg_type = libc::UDP_SEGMENT;
        Ok(Self {
            socket,
            mapped,
            many,
            names: vec![Name::EMPTY; MESSAGES],
            controls: (0..MESSAGES).map(|_| Control { header: control, segment: 0, rest: [0; 6] }).collect(),
            pieces: vec![piece; PIECES],
            headers: vec![header; MESSAGES],
        })
    }

    /// Write headers for runs from the front, as many as there is room for; at least one.
    fn fill(&mut self, batch: &Batch<'_>) -> usize {
        let (mut messages, mut pieces) = (0, 0);
        for run in batch.runs.iter().take(MESSAGES) {
            let count = usize::from(run.count).min(MAX_SEGMENTS);
            if pieces + count > PIECES {
                break;
            }
            let first = pieces;
            let mut end = usize::MAX;
            for &index in &batch.order[run.first as usize..][..count] {
                let (start, length) = (batch.waiting.start(index as usize), batch.waiting.length(index as usize));
                if start == end {
                    self.pieces[pieces - 1].iov_len += length;
                } else {
                    let datagram = &batch.waiting.bytes[start..];
                    self.pieces[pieces] =
                        libc::iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: length };
                    pieces += 1;
                }
                end = start + length;
            }
            let address = batch.waiting.ends[batch.order[run.first as usize] as usize].1;
            let (name, name_length) = Name::new(address, self.mapped);
            self.names[messages] = name;
            self.controls[messages].segment = run.size;
            let header = &mut self.headers[messages].msg_hdr;
            header.msg_name = (&raw mut self.names[messages]).cast();
            header.msg_namelen = name_length;
            header.msg_iov = &raw mut self.pieces[first];
            header.msg_iovlen = (pieces - first) as _;
            if count > 1 {
                header.msg_control = (&raw mut self.controls[messages]).cast();
                header.msg_controllen = size_of::<Control>() as _;
            } else {
                header.msg_control = std::ptr::null_mut();
                header.msg_controllen = 0;
            }
            messages += 1;
        }
        messages
    }
}

impl Wire for KernelWire {
    fn send(&mut self, batch: Batch<'_>) -> io::Result<usize> {
        let messages = self.fill(&batch);
        let fd = self.socket.as_raw_fd();
        if !self.many {
            // SAFETY: the first header was just written; it points to a name, a control and pieces in vectors that
            // never move, and the pieces into `batch`, which outlives the call. The kernel only reads.
            let sent = unsafe { libc::sendmsg(fd, &raw const self.headers[0].msg_hdr, 0) };
            return if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(1) };
        }
        // SAFETY: as above, for the first `messages` headers; the kernel writes their `msg_len` only.
        let sent = unsafe { libc::sendmmsg(fd, self.headers.as_mut_ptr(), messages as u32, 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}
