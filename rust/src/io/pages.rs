//! Page-aligned memory straight from the kernel, for buffers that live as long as a shard.
#![allow(unsafe_code)] // mmap, mlock, madvise

use std::io;
use std::ptr::{NonNull, null_mut};
use std::slice;

/// Bytes of a huge page on x86-64 and, with 4 KiB pages, on aarch64: lengths of huge mappings are multiples.
const HUGE: usize = 2 << 20;

/// What kind of pages is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Memory {
    /// Pages come when they are touched first, and may be swapped out.
    #[default]
    Plain,
    /// All are there from the start and are never swapped out.
    Locked,
    /// Of 2 MiB, so that the processor's page table cache covers all.
    Huge,
}

impl Memory {
    /// By its name in the settings.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "plain" => Self::Plain,
            "locked" => Self::Locked,
            "huge" => Self::Huge,
            _ => return None,
        })
    }
}

/// What the kernel gave, the plainest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Got {
    Plain,
    /// Plain pages that the kernel was asked to make huge as they are touched.
    HugeAdvised,
    Locked,
    /// From the pool of huge pages (vm.nr_hugepages).
    HugePool,
}

impl Got {
    /// For the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Locked => "locked",
            Self::HugePool => "huge pages of the pool",
            Self::HugeAdvised => "transparent huge pages",
        }
    }
}

/// Zeroed pages; those that are never touched cost nothing, unless they are locked or of the pool.
#[derive(Debug)]
pub struct Pages {
    start: NonNull<u8>,
    length: usize,
    got: Got,
}

// SAFETY: the pages belong to this value alone, as a Box<[u8]> would.
unsafe impl Send for Pages {}
// SAFETY: through a shared reference they are only read.
unsafe impl Sync for Pages {}

impl Pages {
    pub fn new(length: usize) -> io::Result<Self> {
        Self::map(length, 0, Got::Plain)
    }

    /// At least `length` bytes. A kind that the kernel refuses is replaced by the next best; `got` says which came.
    pub fn of(memory: Memory, length: usize) -> io::Result<Self> {
        match memory {
            Memory::Plain => Self::new(length),
            Memory::Locked => Ok(Self::new(length)?.locked()),
            Memory::Huge => {
                let whole = length.checked_next_multiple_of(HUGE).ok_or(io::ErrorKind::OutOfMemory)?;
                Self::map(whole, libc::MAP_HUGETLB, Got::HugePool).or_else(|_| Ok(Self::new(whole)?.advised()))
            }
        }
    }

    fn map(length: usize, flags: libc::c_int, got: Got) -> io::Result<Self> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags);
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { libc::mmap(null_mut(), length, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length, got })
    }

    fn locked(mut self) -> Self {
        // SAFETY: the range is our mapping; locking changes where its pages are, not what they hold.
        if unsafe { libc::mlock(self.start.as_ptr().cast(), self.length) } == 0 {
            self.got = Got::Locked;
        }
        self
    }

    fn advised(mut self) -> Self {
        // SAFETY: the range is our mapping; this advice changes the size of its pages, not what they hold.
        if unsafe { libc::madvise(self.start.as_ptr().cast(), self.length, libc::MADV_HUGEPAGE) } == 0 {
            self.got = Got::HugeAdvised;
        }
        self
    }

    /// What kind of pages they are.
    pub fn got(&self) -> Got {
        self.got
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `length` bytes from `start` are mapped, zeroed at first, and borrowed through this value only.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else borrows them while this value is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `map` made, and no borrow outlives the value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_aligned_zeroed_and_writable() {
        for memory in [Memory::Plain, Memory::Locked, Memory::Huge] {
            let mut pages = Pages::of(memory, 3 * 4096).expect("memory");
            assert_eq!(pages.bytes().as_ptr() as usize % 4096, 0);
            assert!(pages.bytes().iter().all(|&byte| byte == 0));
            pages.bytes_mut().fill(7);
            assert_eq!(pages.bytes()[3 * 4096 - 1], 7);
        }
        assert!(Pages::new(usize::MAX / 2).is_err());
        assert!(Pages::of(Memory::Huge, usize::MAX).is_err());
    }

    #[test]
    fn what_came_is_what_was_wanted_or_the_next_best() {
        let got = |memory| Pages::of(memory, 4096).expect("memory").got();
        assert_eq!(got(Memory::Plain), Got::Plain);
        assert!(matches!(got(Memory::Locked), Got::Locked | Got::Plain));
        assert!(matches!(got(Memory::Huge), Got::HugePool | Got::HugeAdvised | Got::Plain));
    }

    #[test]
    fn pages_that_nobody_touches_are_not_there() {
        let resident = || {
            let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
            text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4096
        };
        let before = resident();
        let mut pages = Pages::new(256 << 20).expect("address space");
        pages.bytes_mut()[128 << 20] = 1;
        assert!(resident() < before + (64 << 20));
    }
}
