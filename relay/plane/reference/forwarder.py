"""The packet plane as one machine: commands, datagrams and times in; datagrams, events and copies out.

Everything it sends is a function of the configuration (with its seed), the commands, the datagrams and their times.
"""

from __future__ import annotations

from dataclasses import replace

from relay.errors import UsageError
from relay.plane.contract import SLAB_MEMORY, Address, Command, Event, LayerStats, PlaneConfig, PlaneStats
from relay.plane.reference import commands, egress, feedback, ingress, keyframes, reports, transport
from relay.plane.reference.egress import MAX_PAD
from relay.plane.reference.packets import MOST
from relay.plane.reference.state import MAX_DATAGRAM, Core, Layer
from relay.plane.reference.timers import Timer


class Forwarder:
    """The plane without I/O. Nothing that a peer sends raises; a wrong command raises UsageError and changes nothing.

    `now` never goes backwards between calls. After every call drain `transmit()`, `events()` and `taps()`, and see
    that `handle_timeout` is called at `next_timeout()`.
    """

    def __init__(self, config: PlaneConfig) -> None:
        """Raises UsageError for a configuration that cannot work."""
        self._core = Core(config)
        self._datagrams_out = 0
        self._bytes_out = 0
        if config.max_addresses < 1:
            raise UsageError("max_addresses must be at least 1")
        if not 0 < config.estimate_min <= config.estimate_start <= config.estimate_max:
            raise UsageError("estimate_min, estimate_start and estimate_max must be positive and ascend")
        for name in ("keyframe_interval_us", "layer_silence_us", "transport_cc_interval_us", "report_interval_us"):
            if getattr(config, name) <= 0:
                raise UsageError(f"{name} must be positive")
        for packets in (config.history_video, config.history_audio):
            if packets & (packets - 1) or not 0 < packets <= 32768:
                raise UsageError(f"a history of {packets} packets: not a power of two up to 32768")
        if not 1 <= config.slab_packets <= MOST:
            raise UsageError(f"a slab of {config.slab_packets} packets: not 1 to {MOST}")
        if not 1 <= config.pad_video <= MAX_PAD:
            raise UsageError(f"padding to {config.pad_video} bytes: not 1 to {MAX_PAD}")
        if config.slab_memory not in SLAB_MEMORY:
            raise UsageError(f"slab_memory must be one of {', '.join(SLAB_MEMORY)}")

    def apply(self, command: Command, now: int) -> None:
        """Carry out a command. Raises UsageError for unknown or used handles and for contradictions."""
        core = self._core
        core.now = now
        commands.apply(core, command, now)

    def receive(self, datagram: bytes, source: Address, now: int) -> None:
        """Take a datagram of any content from anyone: STUN, DTLS or (S)RTP by its first byte (RFC 7983)."""
        core = self._core
        core.now = now
        core.datagrams_in += 1
        size = len(datagram)
        core.bytes_in += size
        if not size:
            core.drop("empty")
            return
        first = datagram[0]
        if size > MAX_DATAGRAM:
            reason = "oversize"
        elif 128 <= first < 192:
            session = core.by_address.get(source)
            if session is None:
                reason = "srtp_stranger"
            elif size < 12:
                reason = "srtp_short"
            else:
                if 192 <= datagram[1] <= 223:  # RFC 5761 4
                    reason = reports.receive_rtcp(core, session, datagram, now)
                else:
                    reason = ingress.receive_rtp(core, session, datagram, now)
                if reason not in _UNAUTHENTICATED:
                    session.addresses[source] = now
        elif first < 4:
            reason = transport.receive_stun(core, datagram, source, now)
        elif 20 <= first < 64:
            reason = transport.receive_dtls(core, datagram, source)
        else:
            reason = "unknown_protocol"
        if reason:
            core.drop(reason)
        else:
            core.handled += 1

    def inject(self, track: int, layer: int, packet: bytes, now: int) -> None:
        """Take a plaintext RTP packet as if a publisher had sent it. Its header extension ids are those of
        `state.INJECT_EXTENSIONS`. UsageError for an unknown track or layer, or one that belongs to a session.

        A packet that is too long, malformed, a duplicate or of an unknown payload type is dropped and counted as
        `inject_…`.
        """
        core = self._core
        core.now = now
        found = core.tracks.get(track)
        if found is None or found.session is not None or not 0 <= layer < len(found.layers):
            raise UsageError(f"layer {layer} of track {track} does not take injected packets")
        reason = ingress.inject(core, found, layer, packet, now)
        if reason:
            core.drop("inject_" + reason.removeprefix("rtp_"))

    def next_timeout(self) -> int | None:
        """When `handle_timeout` has something to do; None while nothing is due ever."""
        return self._core.timers.next()

    def handle_timeout(self, now: int) -> None:
        """Do what is due at or before `now`."""
        core = self._core
        core.now = now
        while (key := core.timers.pop(now)) is not None:
            self._fire(*key, now)

    def _fire(self, timer: int, handle: int, index: int, now: int) -> None:
        core = self._core
        match timer:
            case Timer.TRANSPORT_FEEDBACK:
                feedback.transport_feedback_due(core, core.sessions[handle], now)
            case Timer.NACK:
                feedback.check_losses(core, self._layer(handle, index), now)
            case Timer.KEYFRAME:
                keyframes.keyframe_due(core, self._layer(handle, index), now)
            case Timer.SILENCE:
                ingress.silence_due(core, self._layer(handle, index), now)
            case Timer.RECEIVER_REPORT:
                feedback.receiver_report_due(core, core.sessions[handle], now)
            case Timer.SENDER_REPORT:
                egress.sender_report_due(core, core.slots[handle], now)
            case Timer.PROBE:
                egress.probe_due(core, core.sessions[handle], now)
            case Timer.ESTIMATE:
                session = core.sessions[handle]
                reports.tell_estimate(core, session, session.stats.estimate, now)
            case Timer.LOUDNESS:
                ingress.loudness_due(core, now)

    def _layer(self, track: int, index: int) -> Layer:
        return self._core.tracks[track].layers[index]

    def transmit(self) -> list[tuple[bytes, Address]]:
        """Take what is to be sent, in order."""
        core = self._core
        out = core.out
        if out:
            core.out = []
            self._datagrams_out += len(out)
            self._bytes_out += sum([len(datagram) for datagram, _ in out])
        return out

    def events(self) -> list[Event]:
        """Take what happened, in order."""
        core = self._core
        events, core.events = core.events, []
        return events

    def taps(self) -> list[tuple[int, bytes, int]]:
        """Take the tapped packets: (tap, plaintext RTP, arrival). At most 4096 wait; the rest is counted as lost."""
        return [(tap, packet, arrival) for tap, packet, arrival, _ in self.taps_by_ring()]

    def taps_by_ring(self) -> list[tuple[int, bytes, int, int | None]]:
        """Take the tapped packets as `taps()` does, each with the ring that it is for."""
        core = self._core
        tapped, core.tapped = core.tapped, []
        return [(tap, packet, arrival, ring) for tap, packet, arrival, ring, _ in tapped]

    @property
    def taps_dropped(self) -> int:
        """Tapped packets that were lost because `taps()` was not drained."""
        return self._core.taps_dropped

    @property
    def handled(self) -> int:
        """Datagrams that were not dropped: `datagrams_in` is this plus the drops of datagrams.

        Not among those are reasons that begin with `out_` (what could not be sent) or `inject_`.
        """
        return self._core.handled

    def stats(self) -> PlaneStats:
        """Count everything, as of the latest call that had a time."""
        core, now = self._core, self._core.now
        sessions = {handle: replace(session.stats) for handle, session in core.sessions.items()}
        tracks = {handle: [_layer_stats(layer, now) for layer in track.layers] for handle, track in core.tracks.items()}
        slots = {handle: replace(slot.stats, bitrate=slot.rate.value(now)) for handle, slot in core.slots.items()}
        return PlaneStats(
            sessions=sessions,
            tracks=tracks,
            slots=slots,
            drops=dict(core.drops),
            datagrams_in=core.datagrams_in,
            datagrams_out=self._datagrams_out + len(core.out),
            bytes_in=core.bytes_in,
            bytes_out=self._bytes_out + sum(len(datagram) for datagram, _ in core.out),
            slab_free=core.slab.free,
            slab_total=core.slab.total,
            unkept=core.unkept,
        )

    @property
    def slab(self) -> tuple[int, int]:
        """Free and all places for ingress packets."""
        return self._core.slab.free, self._core.slab.total

    def table_sizes(self) -> dict[str, int]:
        """How much is remembered: all zero once every session, track, slot and tap is gone."""
        core = self._core
        return {
            "sessions": len(core.sessions),
            "tracks": len(core.tracks),
            "slots": len(core.slots),
            "taps": len(core.taps),
            "addresses": len(core.by_address),
            "ufrags": len(core.by_ufrag),
            "timers": len(core.timers),
            "heard": len(core.heard),
            "packets": core.slab.total - core.slab.free,
        }


_UNAUTHENTICATED = frozenset(
    ("srtp_no_keys", "srtp_auth", "srtp_replay", "srtp_oversize", "srtp_malformed", "srtp_closed", "srtp_streams")
)


def _layer_stats(layer: Layer, now: int) -> LayerStats:
    detector = layer.source.detector if layer.source is not None else None
    lost = layer.lost_before + (detector.given_up if detector is not None else 0)
    return replace(layer.stats, lost=lost, bitrate=layer.rate.value(now))
