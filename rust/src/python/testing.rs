//! `_native.testing`: the leaves as Python sees them, so that a test can hold each against its reference.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::UsageError;

mod measures;
mod packets;
mod rtcp;
mod stun;

fn usage(error: UsageError) -> PyErr {
    PyValueError::new_err(error.0)
}

/// Add the submodule `testing`.
pub fn register(parent: &Bound<'_, PyModule>) -> PyResult<()> {
    let module = PyModule::new(parent.py(), "testing")?;
    module.add_function(wrap_pyfunction!(break_shard, &module)?)?;
    module.add_class::<super::cluster::Cluster>()?;
    packets::register(&module)?;
    stun::register(&module)?;
    rtcp::register(&module)?;
    measures::register(&module)?;
    parent.add_submodule(&module)
}

/// Have a shard's thread panic.
#[pyfunction]
fn break_shard(plane: PyRef<'_, super::plane::NativePlane>, shard: usize) {
    super::plane::break_shard(&plane, shard);
}
