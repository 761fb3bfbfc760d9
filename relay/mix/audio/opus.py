"""Opus by libopus itself, the one that comes with PyAV.

PyAV's decoder takes packets only: it neither conceals a lost one nor reads the redundancy (in-band FEC) in the one
after it, and its objects cost 45 to 85 µs per frame. So the library inside PyAV's wheel is called directly, and the
system's where PyAV was built against that. Calls release the GIL. Sound is float32 of shape (samples, channels).
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relay.errors import PeerError, UsageError
from relay.mix.opus_packet import MAX_SAMPLES, RATE

Block = NDArray[np.float32]

MAX_PACKET = 1275  # bytes of a frame of 20 ms (RFC 6716 3.2.1)

LOOK_AHEAD_US = 2_500
"""So much later than its packet's timestamp says sound comes out of a decoder, when `Encoder` made the packet."""

# From opus_defines.h
_LOW_DELAY = 2051  # OPUS_APPLICATION_RESTRICTED_LOWDELAY
_RESET_STATE = 4028
_SET_BITRATE = 4002
_SET_COMPLEXITY = 4010
_SET_PREDICTION_DISABLED = 4046


@functools.cache
def library() -> Any:
    """Load libopus. Raises UsageError where there is none."""
    spec = importlib.util.find_spec("av")  # importing it would take 80 ms
    bundled = Path(spec.origin if spec and spec.origin else "av").parent.parent / "av.libs"
    found = [str(path) for path in sorted(bundled.glob("libopus-*.so*"))]
    for name in (*found, "libopus.so.0", "libopus.dylib"):  # find_library would run a compiler
        try:
            return _declare(ctypes.CDLL(name))
        except OSError:
            continue
    raise UsageError("libopus is neither in PyAV's wheel nor installed (Debian: libopus0)")


def _declare(opus: Any) -> Any:
    pointer, number = ctypes.c_void_p, ctypes.c_int
    opus.opus_strerror.argtypes, opus.opus_strerror.restype = [number], ctypes.c_char_p
    opus.opus_decoder_create.argtypes = [ctypes.c_int32, number, ctypes.POINTER(number)]
    opus.opus_encoder_create.argtypes = [ctypes.c_int32, number, number, ctypes.POINTER(number)]
    opus.opus_decoder_create.restype = opus.opus_encoder_create.restype = pointer
    opus.opus_decoder_destroy.argtypes = opus.opus_encoder_destroy.argtypes = [pointer]
    opus.opus_decoder_destroy.restype = opus.opus_encoder_destroy.restype = None
    opus.opus_decode_float.argtypes = [pointer, ctypes.c_char_p, ctypes.c_int32, pointer, number, number]
    opus.opus_encode_float.argtypes = [pointer, pointer, number, pointer, ctypes.c_int32]
    opus.opus_encode_float.restype = ctypes.c_int32
    return opus


class Decoder:
    """One stream's decoder. Not for several threads."""

    def __init__(self, channels: int) -> None:
        self._opus = library()
        error = ctypes.c_int()
        self._state = self._opus.opus_decoder_create(RATE, channels, ctypes.byref(error))
        if not self._state:
            raise UsageError(f"no Opus decoder: {self._text(error.value)}")
        self._pcm = np.empty((MAX_SAMPLES, channels), np.float32)
        self._at = self._pcm.ctypes.data

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._opus.opus_decoder_destroy(self._state)
            self._state = None

    def decode(self, packet: bytes) -> Block:
        """Decode a packet. PeerError when it is damaged."""
        return self._run(packet, MAX_SAMPLES, 0)

    def recover(self, following: bytes, samples: int) -> Block:
        """Decode the lost packet before `following` from its redundancy, or conceal where it has none."""
        return self._run(following, samples, 1)

    def conceal(self, samples: int) -> Block:
        """Continue what was heard; a multiple of 120 samples, fading away over some 100 ms."""
        return self._run(None, samples, 0)

    def reset(self) -> None:
        """Begin a new stream."""
        self._opus.opus_decoder_ctl(ctypes.c_void_p(self._state), _RESET_STATE)

    def _run(self, packet: bytes | None, samples: int, redundancy: int) -> Block:
        length = 0 if packet is None else len(packet)
        done = self._opus.opus_decode_float(self._state, packet, length, self._at, samples, redundancy)
        if done <= 0:
            raise PeerError(f"a packet that is no Opus: {self._text(done)}")
        return self._pcm[:done].copy()

    def _text(self, code: int) -> str:
        return str(self._opus.opus_strerror(code).decode())


class Encoder:
    """One mix's encoder, for frames of 20 ms.

    It uses the low-delay mode: only its MDCT layer depends so little on the past that a listener's decoder can go from
    one encoder's packets to another's.
    """

    def __init__(self, channels: int, bitrate: int, complexity: int) -> None:
        self._opus = library()
        self._channels = channels
        error = ctypes.c_int()
        self._state = self._opus.opus_encoder_create(RATE, channels, _LOW_DELAY, ctypes.byref(error))
        if not self._state:
            raise UsageError(f"no Opus encoder: {self._opus.opus_strerror(error.value).decode()}")
        self._packet = ctypes.create_string_buffer(MAX_PACKET)
        self._control(_SET_BITRATE, bitrate)
        self._control(_SET_COMPLEXITY, complexity)

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._opus.opus_encoder_destroy(self._state)
            self._state = None

    def encode(self, block: Block) -> bytes:
        """Encode 20 ms of shape (960, channels)."""
        block = np.ascontiguousarray(block, np.float32)
        if block.shape != (RATE // 50, self._channels):
            raise UsageError(f"a block of shape {block.shape}")
        at = block.ctypes.data
        done = self._opus.opus_encode_float(self._state, at, len(block), self._packet, MAX_PACKET)
        if done <= 0:
            raise UsageError(f"Opus cannot encode: {self._opus.opus_strerror(done).decode()}")
        return self._packet.raw[:done]

    def begin_after(self, previous: Block, block: Block) -> bytes:
        """Encode a block as the first of this encoder for a listener who heard another one's packets up to `previous`.

        The frames overlap, so `previous` is encoded too and thrown away; and nothing is predicted from the past.
        """
        self._opus.opus_encoder_ctl(ctypes.c_void_p(self._state), _RESET_STATE)
        self.encode(previous)
        self._control(_SET_PREDICTION_DISABLED, 1)
        packet = self.encode(block)
        self._control(_SET_PREDICTION_DISABLED, 0)
        return packet

    def _control(self, request: int, value: int) -> None:
        if self._opus.opus_encoder_ctl(ctypes.c_void_p(self._state), request, ctypes.c_int32(value)):
            raise UsageError(f"an Opus encoder refuses {value} for {request}")
