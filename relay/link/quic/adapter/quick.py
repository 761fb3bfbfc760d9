"""The short way of 1-RTT packets: datagrams, acknowledgements and pings, without aioquic's builder and parser."""

from __future__ import annotations

from collections import deque
from typing import Any, cast

from aioquic import tls
from aioquic.quic.connection import END_STATES, QuicConnectionError, QuicNetworkPath, QuicReceiveContext
from aioquic.quic.crypto import CryptoContext
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.link import varint
from relay.link.quic import short
from relay.link.quic.adapter.general import SHORT_OVERHEAD, General, Wire
from relay.link.quic.adapter.recovery import Flight

MAX_ACK_RANGES = 256  # of packets received in disorder; what is older is not acknowledged
KEY_PACKETS = 1 << 22  # half of what one key may seal (RFC 9001 section 6.6)


class Quic(General):
    """A connection whose daily packets take few steps; all others go to aioquic."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._receive_keys: short.Keys | None = None
        self._old_keys: short.Keys | None = None  # of the phase before: packets that were under way
        self._send_keys: short.Keys | None = None
        self._sealed = 0  # packets with the present key
        self._heard_at = 0.0

    def receive_datagram(self, data: bytes, addr: Wire, now: float) -> None:
        if not (self._handshake_confirmed and data[0] < 0x80 and self._receive_short(data, addr, now)):
            super().receive_datagram(data, addr, now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Wire]]:
        if not self._handshake_confirmed or self._close_pending or self._state in END_STATES:
            return super().datagrams_to_send(now)
        self._pacing_at = None
        sent = self._send_short(now) if self._datagrams_pending else []
        if self._has_other_frames(now):  # without datagrams: a probe after a timeout has to be small to get through
            held, self._datagrams_pending = self._datagrams_pending, deque()
            waiting = self._pacing_at
            sent += super().datagrams_to_send(now)
            self._datagrams_pending, self._pacing_at = held, self._pacing_at or waiting
        return sent

    def _has_other_frames(self, now: float) -> bool:
        """Whether the general way has anything to write: acknowledgements, pings, streams, connection ids, …"""
        space = self._spaces[tls.Epoch.ONE_RTT]
        path = self._network_paths[0]
        return bool(
            (space.ack_at is not None and space.ack_at <= now)
            or self._ping_pending
            or self._probe_pending
            or self._streams
            or not path.is_validated
            or path.remote_challenges
            or self._handshake_done_pending
            or self._retire_connection_ids
            or len(self._network_paths) > 1
            or not all(number.was_sent for number in self._host_cids)
            or not self._crypto_streams[tls.Epoch.ONE_RTT].sender.buffer_is_empty
            or self._local_max_data.used * 2 > self._local_max_data.value
            or self._local_max_data.value != self._local_max_data.sent
        )

    def _keys(self, context: CryptoContext, known: short.Keys | None) -> short.Keys:
        """The keys of a direction, made anew when a key update has changed them."""
        assert context.aead is not None
        assert context.hp is not None
        seal = context.aead._aead
        if known is not None and known.seal is seal:
            return known
        return short.Keys(cast(AESGCM, seal), context.aead._iv, context.hp._encryptor, context.key_phase)

    def _receive_short(self, data: bytes, addr: Wire, now: float) -> bool:
        """Take a packet on the path in use. False, with nothing changed, when it needs the general way."""
        path = self._network_paths[0]
        size = len(self.host_cid)
        if addr != path.addr or not path.is_validated or data[1 : 1 + size] != self.host_cid:
            return False
        if self._state in END_STATES or self._close_pending:
            return False
        keys = self._keys(self._cryptos[tls.Epoch.ONE_RTT].recv, self._receive_keys)
        if keys is not self._receive_keys:
            self._old_keys, self._receive_keys = self._receive_keys, keys
        space = self._spaces[tls.Epoch.ONE_RTT]
        opened = short.read(keys, data, size, space.expected_packet_number)
        if opened is None and self._old_keys is not None:
            opened = short.read(self._old_keys, data, size, space.expected_packet_number)
            if opened is not None and opened.plain is None:
                return False  # of the phase to come
        if opened is None:
            return False
        number, plain = opened.number, opened.plain
        if plain is None or number in space.received_packets:
            return True
        eliciting = self._read_frames(plain, path, now)
        if eliciting is None:
            return True  # closing
        if number >= space.expected_packet_number:
            space.expected_packet_number = number + 1
            self._spin_bit = opened.spin != self._is_client
        if now != self._heard_at:
            self._heard_at = now
            self._close_at = now + self._idle_timeout()
            self._ack_eliciting_sent_since_receipt = False
        if number > space.largest_received_packet:
            space.largest_received_packet, space.largest_received_time = number, now
        space.ack_queue.add(number)
        space.received_packets.add(number)
        if len(space.ack_queue) > MAX_ACK_RANGES:
            space.ack_queue.shift()
        if eliciting and space.ack_at is None:
            space.ack_at = now + self._ack_delay
        return True

    def _read_frames(self, plain: bytes, path: QuicNetworkPath, now: float) -> bool | None:
        """Handle a payload; frames other than a link's daily ones go to aioquic. None when that ends the connection."""
        at, end, eliciting = 0, len(plain), False
        try:
            while at < end:
                kind = plain[at]
                if kind == short.DATAGRAM_WITH_LENGTH:
                    length, start = varint.decode(plain, at + 1)
                    at = start + length
                    if at > end:
                        break
                    self.arrived.append(plain[start:at])
                    eliciting = True
                elif kind == short.ACK:
                    ranges, delay, at = short.read_ack(plain, at + 1)
                    delay_s = (delay << self._remote_ack_delay_exponent) / 1e6
                    self._loss.acknowledge(ranges, delay_s, now, self._spaces[tls.Epoch.ONE_RTT])
                elif kind == short.PING:
                    at, eliciting = at + 1, True
                else:
                    break
        except varint.Malformed:
            pass  # aioquic says what is wrong with it
        if at == end and end:
            return eliciting
        context = QuicReceiveContext(tls.Epoch.ONE_RTT, self.host_cid, path, None, now, None)
        try:
            more, _ = self._payload_received(context, plain[min(at, end) :] if at < end else plain)
        except QuicConnectionError as error:
            self.close(error.error_code, error.frame_type, error.reason_phrase)
            return None
        return None if self._state in END_STATES else eliciting or more

    def _send_short(self, now: float) -> list[tuple[bytes, Wire]]:
        """Write queued datagrams into packets of their own, as far as window and pacing let them."""
        pair = self._cryptos[tls.Epoch.ONE_RTT]
        path, pacer, space = self._network_paths[0], self._loss._pacer, self._spaces[tls.Epoch.ONE_RTT]
        if not path.is_validated:
            return []
        if pair._update_key_requested or self._sealed > KEY_PACKETS:
            pair._update_key("local_update")
            self._sealed = 0
        keys = self._send_keys = self._keys(pair.send, self._send_keys)
        cid, number = self._peer_cid.cid, self._packet_number
        overhead = SHORT_OVERHEAD + len(cid)
        window = self._loss.congestion_window - self._loss.bytes_in_flight
        step = pacer.packet_time or 0.0
        pacer.update_bucket(now=now)
        out: list[tuple[bytes, Wire]] = []
        flights: list[Flight] = []
        queue = self._datagrams_pending
        total = 0
        while queue and (not step or pacer.bucket_time > 0):
            room = min(self._max_datagram_size, window - total) - overhead
            plain, tokens, frames, taken = short.pack(queue, room)
            if not frames:
                break
            data = short.write(keys, cid, self._spin_bit, number, plain)
            out.append((data, path.addr))
            flights.append(Flight(number, len(data), now, tokens))
            self.frames_sent += frames
            self.bytes_taken += taken
            total += len(data)
            number += 1
            pacer.bucket_time = max(0.0, pacer.bucket_time - step)
        else:
            if queue:
                self._pacing_at = now + step
        if flights:
            self._packet_number = number
            self._sealed += len(flights)
            path.bytes_sent += total
            self._loss.on_flight_sent(flights, total, now, space)
            if not self._ack_eliciting_sent_since_receipt:
                self._close_at = now + self._idle_timeout()
                self._ack_eliciting_sent_since_receipt = True
        return out
