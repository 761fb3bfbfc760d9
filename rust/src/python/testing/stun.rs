//! STUN.

use std::net::{IpAddr, SocketAddr};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::stun::{self, Parsed};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(parse_stun, module)?)?;
    module.add_function(wrap_pyfunction!(verify_stun, module)?)?;
    module.add_function(wrap_pyfunction!(stun_success, module)?)?;
    module.add_function(wrap_pyfunction!(stun_error, module)?)?;
    Ok(())
}

fn source(host: &str, port: u16) -> PyResult<SocketAddr> {
    let ip: IpAddr = host.parse().map_err(|_| PyValueError::new_err("not an address"))?;
    Ok(SocketAddr::new(ip, port))
}

#[pyfunction]
fn parse_stun<'py>(py: Python<'py>, datagram: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    Ok(match stun::parse(datagram) {
        Parsed::Dropped(reason) => format!("{reason:?}").into_pyobject(py)?.into_any(),
        Parsed::Message { kind, transaction_id } => {
            (kind, PyBytes::new(py, &transaction_id)).into_pyobject(py)?.into_any()
        }
        Parsed::Request(found) => {
            let names = (PyBytes::new(py, found.username), found.local_ufrag, found.remote_ufrag);
            let roles = (found.priority, found.use_candidate, found.controlling, found.controlled);
            let rest = (found.integrity_at, found.fingerprint, found.unknown().to_vec());
            let refusals = (stun::refusal_before_integrity(&found), stun::refusal_after_integrity(&found));
            (PyBytes::new(py, &found.transaction_id), names, roles, rest, refusals).into_pyobject(py)?.into_any()
        }
    })
}

#[pyfunction]
fn verify_stun(datagram: &[u8], password: &[u8]) -> bool {
    match stun::parse(datagram) {
        Parsed::Request(request) => stun::verify_integrity(datagram, &request, password),
        _ => false,
    }
}

#[pyfunction]
fn stun_success<'py>(
    py: Python<'py>,
    id: [u8; 12],
    host: &str,
    port: u16,
    password: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::new();
    stun::binding_success(&id, source(host, port)?, password, &mut out);
    Ok(PyBytes::new(py, &out))
}

#[pyfunction]
fn stun_error<'py>(
    py: Python<'py>,
    id: [u8; 12],
    code: u16,
    password: Option<Vec<u8>>,
    unknown: Vec<u16>,
) -> Bound<'py, PyBytes> {
    let mut out = Vec::new();
    stun::binding_error(&id, code, password.as_deref(), &unknown, &mut out);
    PyBytes::new(py, &out)
}
