//! From the contract's dataclasses to commands.

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use zeroize::Zeroizing;

use crate::core::contract::{
    Command, ExtensionIds, Feedback, Kind, LayerSpec, Media, NewSlot, PayloadType, PlaneConfig,
};
use crate::error::UsageError;
use crate::io::pages::Memory;
use crate::rtp::EXTENSIONS;
use crate::srtp::Profile;

/// `relay.errors.UsageError` with this text.
pub fn usage_text(text: &str) -> PyErr {
    Python::attach(|py| {
        let made = py.import("relay.errors").and_then(|errors| errors.getattr("UsageError")?.call1((text,)));
        made.map_or_else(|error| error, PyErr::from_value)
    })
}

/// `relay.errors.UsageError` of one of ours.
pub fn usage(error: UsageError) -> PyErr {
    usage_text(&error.0)
}

/// A field of a dataclass; what does not fit our type is a UsageError that names it.
fn get<'py, T: for<'a> FromPyObject<'a, 'py>>(from: &Bound<'py, PyAny>, name: &str) -> PyResult<T> {
    let value = from.getattr(name)?;
    value.extract().map_err(|_| usage_text(&format!("{name} cannot be {value}")))
}

/// A 64-bit number; wider ones saturate, for no limit of ours lies beyond.
fn wide(from: &Bound<'_, PyAny>, name: &str) -> PyResult<i64> {
    let value = from.getattr(name)?;
    value.extract().or_else(|_| Ok(if value.gt(0)? { i64::MAX } else { i64::MIN }))
}

pub fn config(from: &Bound<'_, PyAny>) -> PyResult<PlaneConfig> {
    let memory: String = get(from, "slab_memory")?;
    let seed = from.getattr("seed")?.call_method1("__and__", (u64::MAX,))?.extract()?;
    Ok(PlaneConfig {
        keyframe_interval_us: get(from, "keyframe_interval_us")?,
        layer_silence_us: get(from, "layer_silence_us")?,
        history_video: get(from, "history_video")?,
        history_audio: get(from, "history_audio")?,
        estimate_start: get(from, "estimate_start")?,
        estimate_min: get(from, "estimate_min")?,
        estimate_max: get(from, "estimate_max")?,
        transport_cc_interval_us: get(from, "transport_cc_interval_us")?,
        report_interval_us: get(from, "report_interval_us")?,
        address_stale_us: get(from, "address_stale_us")?,
        max_addresses: get(from, "max_addresses")?,
        wall_offset_us: get(from, "wall_offset_us")?,
        seed,
        pad_video: get(from, "pad_video")?,
        slab_packets: get(from, "slab_packets")?,
        slab_memory: Memory::by_name(&memory).ok_or_else(|| usage_text("slab_memory must be plain, locked or huge"))?,
    })
}

fn extensions(from: &Bound<'_, PyAny>) -> PyResult<ExtensionIds> {
    let mut ids = ExtensionIds::default();
    let pairs: Vec<(String, u8)> = get(from, "extensions")?;
    for (name, id) in pairs {
        if let Some(place) = EXTENSIONS.iter().position(|known| *known == name) {
            ids.0[place] = id;
        }
    }
    Ok(ids)
}

fn kind(from: &Bound<'_, PyAny>) -> PyResult<Kind> {
    let name: String = from.getattr("kind")?.getattr("value")?.extract()?;
    match name.as_str() {
        "audio" => Ok(Kind::Audio),
        "video" => Ok(Kind::Video),
        _ => Err(usage_text("kind must be audio or video")),
    }
}

fn payload_types(from: &Bound<'_, PyAny>) -> PyResult<Vec<PayloadType>> {
    let all: Bound<'_, PyTuple> = from.getattr("payload_types")?.cast_into()?;
    all.iter()
        .map(|one| {
            Ok(PayloadType {
                number: get(&one, "number")?,
                codec: get(&one, "codec")?,
                clock_hz: get(&one, "clock_hz")?,
                apt: get(&one, "apt")?,
                profile: get(&one, "profile")?,
            })
        })
        .collect()
}

fn feedback(from: &Bound<'_, PyAny>) -> PyResult<Feedback> {
    let agreed = from.getattr("feedback")?;
    Ok(Feedback {
        nack: get(&agreed, "nack")?,
        pli: get(&agreed, "pli")?,
        fir: get(&agreed, "fir")?,
        remb: get(&agreed, "remb")?,
        transport_cc: get(&agreed, "transport_cc")?,
    })
}

fn media(from: &Bound<'_, PyAny>) -> PyResult<Media> {
    let layers: Bound<'_, PyTuple> = from.getattr("layers")?.cast_into()?;
    let layers = layers.iter().map(|one| {
        Ok(LayerSpec { rid: get(&one, "rid")?, ssrc: get(&one, "ssrc")?, rtx_ssrc: get(&one, "rtx_ssrc")? })
    });
    Ok(Media {
        mid: get(from, "mid")?,
        payload_types: payload_types(from)?,
        layers: layers.collect::<PyResult<_>>()?,
        feedback: feedback(from)?,
    })
}

fn keys(from: &Bound<'_, PyAny>) -> PyResult<Command> {
    let name: String = from.getattr("profile")?.getattr("value")?.extract()?;
    let profile = Profile::by_name(&name).ok_or_else(|| usage_text("unknown protection profile"))?;
    let key = |name: &str| -> PyResult<Zeroizing<Vec<u8>>> { Ok(Zeroizing::new(get(from, name)?)) };
    Ok(Command::SetKeys { session: get(from, "session")?, profile, tx_key: key("tx_key")?, rx_key: key("rx_key")? })
}

/// A command of the contract, by the name of its class.
pub fn command(from: &Bound<'_, PyAny>) -> PyResult<Command> {
    let name = from.get_type().name()?;
    Ok(match name.to_str()? {
        "OpenSession" => Command::OpenSession {
            session: get(from, "session")?,
            ufrag: get(from, "ufrag")?,
            password: get(from, "password")?,
            extensions: extensions(from)?,
            shard: get(from, "shard")?,
        },
        "RestartIce" => Command::RestartIce {
            session: get(from, "session")?,
            ufrag: get(from, "ufrag")?,
            password: get(from, "password")?,
        },
        "SetKeys" => keys(from)?,
        "SendDtls" => Command::SendDtls { session: get(from, "session")?, datagram: get(from, "datagram")? },
        "CloseSession" => Command::CloseSession { session: get(from, "session")? },
        "AddTrack" => Command::AddTrack {
            track: get(from, "track")?,
            session: get(from, "session")?,
            kind: kind(from)?,
            media: media(from)?,
        },
        "RemoveTrack" => Command::RemoveTrack { track: get(from, "track")? },
        "MoveTrack" => {
            Command::MoveTrack { track: get(from, "track")?, session: get(from, "session")?, media: media(from)? }
        }
        "MuteTrack" => Command::MuteTrack { track: get(from, "track")?, muted: get(from, "muted")? },
        "RequestKeyframe" => Command::RequestKeyframe { track: get(from, "track")?, layer: get(from, "layer")? },
        "AddSlot" => Command::AddSlot(NewSlot {
            slot: get(from, "slot")?,
            session: get(from, "session")?,
            kind: kind(from)?,
            mid: get(from, "mid")?,
            ssrc: get(from, "ssrc")?,
            rtx_ssrc: get(from, "rtx_ssrc")?,
            payload_types: payload_types(from)?,
            feedback: feedback(from)?,
            cname: get(from, "cname")?,
        }),
        "BindSlot" => Command::BindSlot {
            slot: get(from, "slot")?,
            track: get(from, "track")?,
            layer: get(from, "layer")?,
            payload_type: get(from, "payload_type")?,
        },
        "SetLayer" => Command::SetLayer { slot: get(from, "slot")?, layer: get(from, "layer")? },
        "PauseSlot" => Command::PauseSlot { slot: get(from, "slot")?, paused: get(from, "paused")? },
        "RemoveSlot" => Command::RemoveSlot { slot: get(from, "slot")? },
        "ProbeBandwidth" => Command::ProbeBandwidth {
            session: get(from, "session")?,
            bitrate: wide(from, "bitrate")?,
            duration_us: wide(from, "duration_us")?,
        },
        "AddTap" => Command::AddTap {
            tap: get(from, "tap")?,
            track: get(from, "track")?,
            layer: get(from, "layer")?,
            ring: get(from, "ring")?,
            canonical: get(from, "canonical")?,
        },
        "RemoveRingTaps" => Command::RemoveRingTaps { ring: get(from, "ring")? },
        "RemoveTap" => Command::RemoveTap { tap: get(from, "tap")? },
        other => return Err(usage_text(&format!("{other} is not a command"))),
    })
}
