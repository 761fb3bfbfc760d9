//! The Python module `relay.plane._native`.

mod testing;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    testing::register(module)
}
