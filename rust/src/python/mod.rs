//! The Python module `relay.plane._native`.

mod cluster;
mod commands;
mod events;
mod forwarder;
mod pictures;
mod plane;
mod rings;
mod testing;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<forwarder::Forwarder>()?;
    module.add_class::<plane::NativePlane>()?;
    module.add_class::<plane::Snapshot>()?;
    module.add_class::<pictures::Scaling>()?;
    module.add_class::<rings::RingWords>()?;
    module.add_class::<rings::RingWriter>()?;
    module.add_class::<rings::RingReader>()?;
    testing::register(module)
}
