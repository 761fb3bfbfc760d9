//! Pictures for Python: the one scaling that is worth code of its own, to half the size.

#![allow(unsafe_code)] // the bytes of two buffers

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A plane within a buffer: where it begins, and the bytes from one line to the next.
#[derive(FromPyObject)]
pub struct Place {
    #[pyo3(item(0))]
    buffer: PyBuffer<u8>,
    #[pyo3(item(1))]
    start: usize,
    #[pyo3(item(2))]
    stride: usize,
}

impl Place {
    /// Whether `height` lines of `width` bytes lie within the buffer.
    fn holds(&self, width: usize, height: usize) -> bool {
        let last = height.checked_sub(1).and_then(|lines| lines.checked_mul(self.stride));
        let end = last.and_then(|last| last.checked_add(self.start)?.checked_add(width));
        width <= self.stride && end.is_some_and(|end| end <= self.buffer.len_bytes())
    }
}

/// Both bytes of each pair as one number, which compilers turn into vectors where pairs of bytes are not.
fn halve_line(out: &mut [u8], upper: &[u8], lower: &[u8]) {
    let both = |pair: &[u8; 2]| {
        let joined = u16::from_le_bytes(*pair);
        (joined & 0xFF) + (joined >> 8)
    };
    for ((out, upper), lower) in out.iter_mut().zip(upper.as_chunks().0).zip(lower.as_chunks().0) {
        *out = ((both(upper) + both(lower) + 2) >> 2) as u8;
    }
}

/// Write each two by two bytes of a plane as their rounded mean into another one of `width` x `height`. Both are
/// (buffer, offset of the first byte, stride). ValueError when one of them leaves its buffer, or both are the same.
#[pyfunction]
pub fn halve(source: Place, target: Place, width: usize, height: usize) -> PyResult<()> {
    let wrong = |what: &'static str| PyValueError::new_err(what);
    let doubled = width.checked_mul(2).zip(height.checked_mul(2));
    let held = doubled.is_some_and(|(width, height)| source.holds(width, height)) && target.holds(width, height);
    if !held || !source.buffer.is_c_contiguous() || !target.buffer.is_c_contiguous() {
        return Err(wrong("a plane is not within its buffer"));
    }
    let (from, into) = (&source.buffer, &target.buffer);
    let (first, second) = (from.buf_ptr() as usize, into.buf_ptr() as usize);
    if into.readonly() || (first < second + into.len_bytes() && second < first + from.len_bytes()) {
        return Err(wrong("the target cannot be written, or is the source"));
    }
    // SAFETY: both are contiguous bytes of these lengths, which stay there while the buffers are held, and do not
    // overlap. The interpreter is held: what writes to the source meanwhile could only be a thread without it, and a
    // decoded picture has none.
    let (from, into) = unsafe {
        (
            std::slice::from_raw_parts(from.buf_ptr().cast::<u8>(), from.len_bytes()),
            std::slice::from_raw_parts_mut(into.buf_ptr().cast::<u8>(), into.len_bytes()),
        )
    };
    for line in 0..height {
        let upper = &from[source.start + 2 * line * source.stride..][..2 * width];
        let lower = &from[source.start + (2 * line + 1) * source.stride..][..2 * width];
        halve_line(&mut into[target.start + line * target.stride..][..width], upper, lower);
    }
    Ok(())
}
