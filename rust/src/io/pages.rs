//! Page-aligned memory straight from the kernel, for buffers that live as long as a shard.
#![allow(unsafe_code)] // mmap

use std::io;
use std::ptr::{NonNull, null_mut};
use std::slice;

/// Zeroed pages; those that are never touched cost nothing.
pub struct Pages {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the pages belong to this value alone, as a Box<[u8]> would.
unsafe impl Send for Pages {}

impl Pages {
    pub fn new(length: usize) -> io::Result<Self> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { libc::mmap(null_mut(), length, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `length` bytes from `start` are mapped, zeroed at first, and borrowed through this value only.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and no borrow outlives the value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_aligned_zeroed_and_writable() {
        let mut pages = Pages::new(3 * 4096).expect("memory");
        assert_eq!(pages.bytes().as_ptr() as usize % 4096, 0);
        assert!(pages.bytes().iter().all(|&byte| byte == 0));
        pages.bytes().fill(7);
        assert_eq!(pages.bytes()[3 * 4096 - 1], 7);
        assert!(Pages::new(usize::MAX / 2).is_err());
    }
}
