//! Packets to and from another process through shared memory: the twin of `relay/plane/shared_ring.py`, where the
//! layout stands and what either side may believe.
#![allow(unsafe_code)] // mmap, and memory that another process writes

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::ptr::{NonNull, copy_nonoverlapping, null_mut};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

const MAGIC: u64 = u64::from_le_bytes(*b"costring");
const VERSION: u64 = 1;
const HEADER: usize = 4096;
const SLOT_HEADER: usize = 32;
const MAX_SLOTS: u64 = 1 << 20;
const MAX_SLOT_SIZE: u64 = 1 << 16;

/// Places of the header's 64-bit words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Word {
    Magic = 0,
    Version = 1,
    SlotSize = 2,
    Slots = 3,
    Head = 8,
    Dropped = 9,
    ProducerClosed = 10,
    Tail = 16,
    Sleeping = 17,
    ConsumerClosed = 18,
}

/// The other side wrote what cannot be. Nothing of it was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrupt;

/// The mapping. Its shape is read once; what another process writes there later changes nothing.
pub struct Memory {
    start: NonNull<u8>,
    length: usize,
    slot_size: usize,
    slots: u64,
}

// SAFETY: the mapping belongs to this value, is not tied to a thread, and is only touched by atomics and raw copies.
unsafe impl Send for Memory {}
// SAFETY: as above; a shared reference gives atomics only.
unsafe impl Sync for Memory {}

impl Memory {
    /// Make the memory of a ring, sealed. Python makes those that are used; this is for tests and measurements.
    pub fn create(slots: u64, slot_size: u64) -> io::Result<OwnedFd> {
        // SAFETY: the name is a C string; a descriptor that is returned is ours alone.
        let file = unsafe {
            let made = libc::memfd_create(c"costream-ring".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
            if made < 0 {
                return Err(io::Error::last_os_error());
            }
            File::from_raw_fd(made)
        };
        file.set_len(HEADER as u64 + slots * slot_size)?;
        let words = [MAGIC, VERSION, slot_size, slots].map(u64::to_ne_bytes);
        file.write_all_at(words.as_flattened(), 0)?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: the call takes no pointer.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(file.into())
    }

    /// Map a memfd that cannot shrink any more. InvalidData when it is not a ring of this version.
    pub fn map(file: OwnedFd) -> io::Result<Self> {
        // SAFETY: the call takes no pointer; it answers -1 for what has no seals.
        let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 {
            return Err(invalid("the memory could shrink under us"));
        }
        let length = usize::try_from(File::from(file.try_clone()?).metadata()?.len()).unwrap_or(0);
        if length < HEADER {
            return Err(invalid("too short for a ring"));
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours. All of it is backed by
        // the file, which cannot shrink.
        let start = unsafe { libc::mmap(null_mut(), length, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut memory = Self { start, length, slot_size: 0, slots: 0 };
        let [magic, version, slot_size, slots] =
            [Word::Magic, Word::Version, Word::SlotSize, Word::Slots].map(|word| memory.load(word));
        let shaped = magic == MAGIC
            && version == VERSION
            && (SLOT_HEADER as u64 + 1..=MAX_SLOT_SIZE).contains(&slot_size)
            && slot_size % 8 == 0
            && (1..=MAX_SLOTS).contains(&slots)
            && HEADER as u64 + slots * slot_size <= length as u64;
        if !shaped {
            return Err(invalid("not a ring of this version"));
        }
        (memory.slot_size, memory.slots) = (slot_size as usize, slots);
        Ok(memory)
    }

    /// Bytes of the longest packet.
    pub fn capacity(&self) -> usize {
        self.slot_size - SLOT_HEADER
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        // SAFETY: the header is mapped for as long as `self` lives, the place is aligned, and an atomic may be changed
        // by others, other processes among them, at any time.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().cast::<u64>().add(word as usize)) }
    }

    pub fn load(&self, word: Word) -> u64 {
        self.word(word).load(Ordering::Acquire)
    }

    pub fn store(&self, word: Word, value: u64) {
        self.word(word).store(value, Ordering::Release);
    }

    /// As `load`, and nothing of before or after passes it.
    pub fn load_ordered(&self, word: Word) -> u64 {
        fence(Ordering::SeqCst);
        self.word(word).load(Ordering::SeqCst)
    }

    /// As `store`, and nothing of before or after passes it.
    pub fn store_ordered(&self, word: Word, value: u64) {
        self.word(word).store(value, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    fn slot(&self, position: u64) -> *mut u8 {
        let at = HEADER + (position % self.slots) as usize * self.slot_size;
        // SAFETY: `map` saw that all slots lie within the mapping.
        unsafe { self.start.as_ptr().add(at) }
    }

    /// Copy `from` into a slot, `offset` bytes in.
    fn write(&self, position: u64, offset: usize, from: &[u8]) {
        assert!(offset + from.len() <= self.slot_size);
        // SAFETY: within the slot, as asserted, and `from` is memory of ours. The other process may look at it at any
        // time; no reference to the mapping is made.
        unsafe { copy_nonoverlapping(from.as_ptr(), self.slot(position).add(offset), from.len()) };
    }

    /// Copy from a slot, `offset` bytes in. The bytes are whatever the other process left there.
    fn read(&self, position: u64, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= self.slot_size);
        // SAFETY: within the slot, as asserted, and `into` is memory of ours. The other process may write meanwhile: any
        // bytes are good bytes, and they are looked at only after they have been copied.
        unsafe { copy_nonoverlapping(self.slot(position).add(offset), into.as_mut_ptr(), into.len()) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `map` made, and no borrow outlives the value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Our own of a descriptor that someone else keeps.
pub fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: borrowed for one call; a number that is not open is an error of that call.
    unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()
}

/// The one producer.
pub struct Writer {
    memory: Memory,
    wake: OwnedFd,
    head: u64,
    tail: u64,
    told: u64,
    pub dropped: u64,
}

impl Writer {
    /// Go on where the ring stands, which is at 0 unless somebody wrote before us.
    pub fn new(memory: Memory, wake: OwnedFd) -> Self {
        let (head, tail) = (memory.load(Word::Head), memory.load(Word::Tail));
        Self { memory, wake, head, tail, told: head, dropped: 0 }
    }

    /// Packets in the ring, as far as we know it: all of them when the consumer's position cannot be.
    fn used(&mut self) -> u64 {
        let slots = self.memory.slots;
        if self.head.wrapping_sub(self.tail) >= slots {
            self.tail = self.memory.load(Word::Tail);
        }
        self.head.wrapping_sub(self.tail).min(slots)
    }

    /// Put a packet. False, and counted, when the ring is full or the packet too long. Wakes nobody: see `flush`.
    pub fn put(&mut self, stream: u32, arrival: i64, packet: &[u8]) -> bool {
        if packet.len() > self.memory.capacity() || self.used() >= self.memory.slots {
            self.dropped += 1;
            self.memory.store(Word::Dropped, self.dropped);
            return false;
        }
        let mut header = [0; SLOT_HEADER];
        header[..8].copy_from_slice(&self.head.wrapping_add(1).to_ne_bytes());
        header[8..16].copy_from_slice(&arrival.to_ne_bytes());
        header[16..20].copy_from_slice(&stream.to_ne_bytes());
        header[20..24].copy_from_slice(&(packet.len() as u32).to_ne_bytes());
        self.memory.write(self.head, 0, &header);
        self.memory.write(self.head, SLOT_HEADER, packet);
        self.head = self.head.wrapping_add(1);
        self.memory.store(Word::Head, self.head);
        true
    }

    /// Wake the consumer if it sleeps and something was put since the last time.
    pub fn flush(&mut self) {
        if self.told == self.head {
            return;
        }
        self.told = self.head;
        fence(Ordering::SeqCst); // pairs with the one in `Reader::sleep`: one of us sees the other
        if self.memory.load(Word::Sleeping) != 0 {
            self.memory.store(Word::Sleeping, 0);
            // A socket that is full wakes anyway; one whose other end is closed has nobody to wake.
            let _ = send(&self.wake, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }

    pub fn put_so_far(&self) -> u64 {
        self.head
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.memory.store(Word::ProducerClosed, 1);
        let _ = shutdown(&self.wake, Shutdown::Both); // descriptors may have been duplicated
    }
}

/// What a slot says besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub stream: u32,
    pub arrival: i64,
    pub length: usize,
}

/// The one consumer.
pub struct Reader {
    memory: Memory,
    wake: OwnedFd,
    tail: u64,
}

impl Reader {
    pub fn new(memory: Memory, wake: OwnedFd) -> Self {
        let tail = memory.load(Word::Tail);
        Self { memory, wake, tail }
    }

    pub fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    /// Packets that wait.
    pub fn waiting(&self) -> Result<u64, Corrupt> {
        let waiting = self.memory.load(Word::Head).wrapping_sub(self.tail);
        if waiting <= self.memory.slots { Ok(waiting) } else { Err(Corrupt) }
    }

    /// Copy the next packet into `into`, which has room for `capacity`, and free its slot. None when there is none.
    pub fn take(&mut self, into: &mut [u8]) -> Result<Option<Slot>, Corrupt> {
        if self.waiting()? == 0 {
            return Ok(None);
        }
        let mut header = [0; SLOT_HEADER];
        self.memory.read(self.tail, 0, &mut header);
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let mut wide = [[0; 8]; 2];
        wide[0].copy_from_slice(&header[..8]);
        wide[1].copy_from_slice(&header[8..16]);
        let [sequence, arrival] = wide;
        let length = word(20) as usize;
        if u64::from_ne_bytes(sequence) != self.tail.wrapping_add(1) || length > self.capacity().min(into.len()) {
            return Err(Corrupt);
        }
        self.memory.read(self.tail, SLOT_HEADER, &mut into[..length]);
        self.tail = self.tail.wrapping_add(1);
        self.memory.store(Word::Tail, self.tail);
        Ok(Some(Slot { stream: word(16), arrival: i64::from_ne_bytes(arrival), length }))
    }

    /// Ask to be woken. False when something waits already, so that there is no need to sleep.
    pub fn sleep(&self) -> Result<bool, Corrupt> {
        self.memory.store(Word::Sleeping, 1);
        fence(Ordering::SeqCst); // pairs with the one in `Writer::flush`
        Ok(self.waiting()? == 0)
    }

    /// Forget what woke us. False when the producer is gone, or has closed.
    pub fn woken(&self) -> bool {
        // What is left after this much wakes us again.
        match recv(&self.wake, &mut [0; 256], RecvFlags::DONTWAIT) {
            Ok((count, _)) => count > 0,
            Err(error) => matches!(error, Errno::AGAIN | Errno::INTR),
        }
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.memory.store(Word::ConsumerClosed, 1);
        let _ = shutdown(&self.wake, Shutdown::Both);
    }
}
