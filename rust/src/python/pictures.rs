//! Pictures for Python: decoded ones into their cells of the program's.

#![allow(unsafe_code)] // the bytes of two buffers

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::scaling::{Plane, holds};

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
    fn holds(&self, width: usize, height: usize) -> bool {
        self.buffer.is_c_contiguous() && holds(self.buffer.len_bytes(), self.start, self.stride, width, height)
    }
}

/// Scaling of 4:2:0 pictures of one size into cells of another one: `rust/src/scaling.rs`.
#[pyclass]
pub struct Scaling {
    source: (usize, usize),
    target: (usize, usize),
    luma: Plane,
    chroma: Plane,
    line: Vec<u8>,
}

#[pymethods]
impl Scaling {
    /// ValueError for a size that is odd, steps above 2, and what this machine has no instructions for: only copying
    /// and halving need none.
    #[new]
    fn new(width: usize, height: usize, wide: usize, tall: usize) -> PyResult<Self> {
        let (source, target) = ((width, height), (wide, tall));
        let half = |size: (usize, usize)| (size.0 / 2, size.1 / 2);
        let even = [width, height, wide, tall].iter().all(|side| side.is_multiple_of(2));
        let planes = Plane::new(source, target, 0.5).zip(Plane::new(half(source), half(target), 0.25));
        let Some((luma, chroma)) = planes.filter(|_| even) else {
            return Err(PyValueError::new_err(format!("no scaling from {width}x{height} to {wide}x{tall} here")));
        };
        Ok(Self { source, target, luma, chroma, line: Vec::new() })
    }

    /// Three planes into three, each (buffer, offset of the first byte, stride). ValueError when one of them leaves its
    /// buffer, cannot be written, or is the plane that is read; then those before it were written.
    fn run(&mut self, from: [Place; 3], into: [Place; 3]) -> PyResult<()> {
        for (index, (from, into)) in from.iter().zip(&into).enumerate() {
            let part = if index == 0 { 1 } else { 2 };
            let size = |(width, height): (usize, usize)| (width / part, height / part);
            let ((width, height), (wide, tall)) = (size(self.source), size(self.target));
            if !from.holds(width, height) || !into.holds(wide, tall) {
                return Err(PyValueError::new_err("a plane is not within its buffer"));
            }
            let plane = if index == 0 { &self.luma } else { &self.chroma };
            scale(plane, from, into, &mut self.line)?;
        }
        Ok(())
    }
}

fn scale(plane: &Plane, from: &Place, into: &Place, line: &mut Vec<u8>) -> PyResult<()> {
    let (first, second) = (from.buffer.buf_ptr() as usize, into.buffer.buf_ptr() as usize);
    let apart = second + into.buffer.len_bytes() <= first || first + from.buffer.len_bytes() <= second;
    if into.buffer.readonly() || !apart {
        return Err(PyValueError::new_err("the target cannot be written, or is the source"));
    }
    // SAFETY: both are contiguous bytes of these lengths, which stay there while the buffers are held, and do not
    // overlap. The interpreter is held: what writes to the source meanwhile could only be a thread without it, and a
    // decoded picture has none.
    let (source, target) = unsafe {
        (
            std::slice::from_raw_parts(from.buffer.buf_ptr().cast::<u8>(), from.buffer.len_bytes()),
            std::slice::from_raw_parts_mut(into.buffer.buf_ptr().cast::<u8>(), into.buffer.len_bytes()),
        )
    };
    plane.run(&source[from.start..], from.stride, &mut target[into.start..], into.stride, line);
    Ok(())
}
