//! Shared-memory rings for Python: the header's words with the fences that Python lacks, and both ends as the shard has
//! them.

use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::io::shared_ring::{Corrupt, Memory, Reader, Word, Writer, duplicate};

const WORDS: [Word; 10] = [
    Word::Magic,
    Word::Version,
    Word::SlotSize,
    Word::Slots,
    Word::Head,
    Word::Dropped,
    Word::ProducerClosed,
    Word::Tail,
    Word::Sleeping,
    Word::ConsumerClosed,
];

fn corrupt(_: Corrupt) -> PyErr {
    PyValueError::new_err("the ring's other side wrote what cannot be")
}

/// The words of a ring's header by their places. Loads and stores are seen in their order by the other side.
#[pyclass(frozen)]
pub struct RingWords(Memory);

impl RingWords {
    fn word(place: usize) -> PyResult<Word> {
        let known = WORDS.into_iter().find(|&word| word as usize == place);
        known.ok_or_else(|| PyIndexError::new_err("no such word"))
    }
}

#[pymethods]
impl RingWords {
    #[new]
    fn new(memory: i32) -> PyResult<Self> {
        Ok(Self(Memory::map(duplicate(memory)?)?))
    }

    fn load(&self, place: usize) -> PyResult<u64> {
        Ok(self.0.load_ordered(Self::word(place)?))
    }

    fn store(&self, place: usize, value: u64) -> PyResult<()> {
        self.0.store_ordered(Self::word(place)?, value);
        Ok(())
    }
}

/// The producer's end.
#[pyclass]
pub struct RingWriter(Writer);

#[pymethods]
impl RingWriter {
    #[new]
    fn new(memory: i32, wake: i32) -> PyResult<Self> {
        Ok(Self(Writer::new(Memory::map(duplicate(memory)?)?, duplicate(wake)?)))
    }

    fn put(&mut self, stream: u32, arrival: i64, packet: &[u8]) -> bool {
        self.0.put(stream, arrival, packet)
    }

    fn flush(&mut self) {
        self.0.flush();
    }

    #[getter]
    fn dropped(&self) -> u64 {
        self.0.dropped
    }
}

/// The consumer's end.
#[pyclass]
pub struct RingReader {
    reader: Reader,
    buffer: Vec<u8>,
}

#[pymethods]
impl RingReader {
    #[new]
    fn new(memory: i32, wake: i32) -> PyResult<Self> {
        let reader = Reader::new(Memory::map(duplicate(memory)?)?, duplicate(wake)?);
        Ok(Self { buffer: vec![0; reader.capacity()], reader })
    }

    /// The next packet as (stream, arrival, bytes), or None. ValueError when the other side wrote what cannot be.
    fn take<'py>(&mut self, py: Python<'py>) -> PyResult<Option<(u32, i64, Bound<'py, PyBytes>)>> {
        let slot = self.reader.take(&mut self.buffer).map_err(corrupt)?;
        Ok(slot.map(|slot| (slot.stream, slot.arrival, PyBytes::new(py, &self.buffer[..slot.length]))))
    }

    /// Ask to be woken; false when something waits already.
    fn sleep(&self) -> PyResult<bool> {
        self.reader.sleep().map_err(corrupt)
    }

    /// Forget what woke us; false when the producer is gone.
    fn woken(&self) -> bool {
        self.reader.woken()
    }
}
