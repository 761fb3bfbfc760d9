"""One participant's sound: RTP packets in, 20 ms of samples per tick out, with its gain on.

Wherever the sound does not go on from what was heard last (a frame skipped, a pause, a new stream), the decoder's own
continuation is faded into what comes instead.
"""

from __future__ import annotations

import copy
import math
from collections import deque

import numpy as np

from relay.errors import PeerError
from relay.mix.audio.opus import Block, Decoder
from relay.mix.jitter import FRAME, JitterBuffer
from relay.mix.jitter_steps import Conceal, JitterSettings, Play, Quiet, Recover, Skip, Step
from relay.mix.voices import Ramp, cross_fade, energy
from relay.plane.reference.rtp import parse
from relay.stage.capture import capture_anchor
from relay.stage.lips import Told
from relay.stage.sender_clock import Anchor

QUEUE = 256  # packets between two ticks; 20 ms have one to eight
TAIL = 480  # samples of continuation to fade from
QUIET = 1e-6  # mean square (-60 dBov) below which nobody hears a frame that is left out
STOPPED_US = 2_000_000


PacketQueue = deque[tuple[int, bytes]]
"""RTP packets with their arrival in µs, from whoever reads the ring to whoever mixes."""


def packet_queue() -> PacketQueue:
    """Return an empty one that keeps the newest `QUEUE`."""
    return deque(maxlen=QUEUE)


class Input:
    """One input of a room. `feed` may be called by another thread than `tick`."""

    def __init__(
        self,
        channels: int,
        settings: JitterSettings,
        *,
        gain: float = 1.0,
        muted: bool = False,
        payload_type: int | None = None,
        queue: PacketQueue | None = None,
    ) -> None:
        """UsageError for a gain that cannot be."""
        self.ramp = Ramp()
        self.ramp.move(0.0 if muted else gain)
        self._queue = packet_queue() if queue is None else queue
        self.jitter = JitterBuffer(settings)
        self.damaged = 0
        self.received = 0
        self.last_packet: int | None = None
        self._settings = settings
        self._channels = channels
        self._payload_type = payload_type
        self._anchors: dict[Told, Anchor] = {}
        self._decoder = Decoder(channels)
        self._ready: deque[tuple[int, Block | None]] = deque()
        self._samples = 0
        self._tail: Block | None = None
        self._sounding = False
        self._quiet = True

    def rescued(self, *, anew: bool = False) -> Input:
        """The same input for another thread, with a decoder of its own; the old one may still be in use.

        `anew` forgets the packets that wait.
        """
        other = copy.copy(self)
        other.ramp, other._anchors = copy.copy(self.ramp), self._anchors.copy()
        try:
            other.jitter = JitterBuffer(self._settings) if anew else copy.deepcopy(self.jitter)
        except RuntimeError:  # the old thread has just changed it
            other.jitter = JitterBuffer(self._settings)
        other._decoder = Decoder(self._channels)
        other._ready, other._samples = deque(), 0
        other._tail, other._sounding = None, False
        return other

    def feed(self, arrival: int, packet: bytes) -> None:
        """Take an RTP packet; the oldest falls out when nobody ticks."""
        self._queue.append((arrival, packet))

    def tick(self, now: int) -> Block | None:
        """Return the 20 ms that play from `now` (µs) on, shape (960, channels); None for silence."""
        self._take(now)
        while self._samples < FRAME:
            step = self.jitter.step(now, self._samples, quiet=self._quiet)
            if self.ramp.silent:
                self._pass_over(step)
            else:
                self._render(step)
        block = self._cut_frame()
        if block is None:
            self._quiet = True
            self._advance_ramp()
            return None
        power = energy(block)
        if not math.isfinite(power):
            self.damaged += 1
            self._decoder.reset()
            return None
        self._quiet = power < QUIET
        return self.ramp.apply(block)

    def _take(self, now: int) -> None:
        if self.last_packet is None:
            self.last_packet = now  # from here on it may be missed
        while self._queue:
            arrival, data = self._queue.popleft()
            self.received += 1
            packet = parse(data, min(arrival, now))
            if packet is None:
                self.damaged += 1
                continue
            if self._payload_type not in {None, packet.payload_type}:
                continue  # comfort noise, telephone events
            self.last_packet = now
            if not packet.payload:
                continue  # padding only
            if (anchor := capture_anchor(packet)) is not None:
                self._anchors["capture"] = anchor
            self.jitter.put(packet.ssrc, packet.seq, packet.timestamp, packet.payload, packet.arrival)

    def wait_at_least(self, least_us: int, more_us: int) -> None:
        """See `JitterBuffer.wait_at_least`."""
        self._settings = self._settings.waiting(least_us, more_us)
        self.jitter.wait_at_least(least_us, more_us)

    def anchor(self, ssrc: int, timestamp: int, captured: int) -> None:
        """By its sender's reports, a timestamp of this stream is of this moment (µs of the sender's clock)."""
        self._anchors["report"] = Anchor(ssrc, timestamp, captured)

    def lag(self, told: Told) -> int | None:
        """How long after capture the fastest packets come by the sender's clock, µs; None while that is not known."""
        anchor = self._anchors.get(told)
        return None if anchor is None else self.jitter.lag(*anchor)

    def stopped(self, now: int) -> bool:
        """Whether nothing has come for 2 s."""
        return self.last_packet is None or now - self.last_packet > STOPPED_US

    def _render(self, step: Step) -> None:
        match step:
            case Play(payload, samples, cut, fresh):
                if cut or fresh:
                    self._tail = self._continuation()
                if fresh:
                    self._decoder.reset()
                self._append(self._decode(payload, samples))
            case Skip(payload, samples):
                block = self._decode(payload, samples)
                self._tail = block if self._tail is None else cross_fade(self._tail, block)
            case Recover(payload, samples):
                try:
                    block = self._decoder.recover(payload, samples)
                except PeerError:
                    block = self._decoder.conceal(samples)
                self._append(block)
            case Conceal(samples):
                self._append(self._decoder.conceal(samples))
            case Quiet(samples):
                if self._sounding or self._tail is not None:
                    tail = self._continuation() if self._tail is None else self._tail
                    self._tail = None
                    self._put(samples, cross_fade(tail, np.zeros((samples, self._channels), np.float32)))
                else:
                    self._put(samples, None)
                self._sounding = False

    def _decode(self, payload: bytes, samples: int) -> Block:
        try:
            return self._decoder.decode(payload)
        except PeerError:
            self.damaged += 1
            return self._decoder.conceal(samples)

    def _continuation(self) -> Block:
        """What would have been heard next."""
        if self._sounding:
            return self._decoder.conceal(TAIL)
        return np.zeros((TAIL, self._channels), np.float32)

    def _append(self, block: Block) -> None:
        if self._tail is not None:
            block = cross_fade(self._tail, block)
            self._tail = None
        self._sounding = True
        self._put(len(block), block)

    def _pass_over(self, step: Step) -> None:
        """Muted: keep the time, and leave the decoder alone."""
        self._tail, self._sounding = None, False
        if not isinstance(step, Skip):
            self._put(step.samples, None)

    def _put(self, samples: int, block: Block | None) -> None:
        self._ready.append((samples, block))
        self._samples += samples

    def _cut_frame(self) -> Block | None:
        """Take 20 ms from what is ready."""
        self._samples -= FRAME
        samples, block = self._ready[0]
        if samples == FRAME:
            self._ready.popleft()
            return block
        parts: list[Block] = []
        missing, heard = FRAME, False
        while missing:
            samples, block = self._ready.popleft()
            count = min(samples, missing)
            heard = heard or block is not None
            parts.append(np.zeros((count, self._channels), np.float32) if block is None else block[:count])
            if count < samples:
                self._ready.appendleft((samples - count, None if block is None else block[count:]))
            missing -= count
        return np.concatenate(parts) if heard else None

    def _advance_ramp(self) -> None:
        if self.ramp.gain != self.ramp.target:
            self.ramp.apply(np.zeros((FRAME, 1), np.float32))
