"""What is known of one path of a link."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PathReport:
    """What one path's transport reports. Times are microseconds on the monotonic clock."""

    now: int
    rtt_us: tuple[int, ...]  # RTT samples since the previous report
    sent: int  # packets that carried datagrams or pings, since the beginning; `lost` as QUIC declared
    acked: int
    lost: int
    oldest_unacked: int | None  # send time of the oldest ack-eliciting packet still in flight
    pto_us: int
    closed: bool = False
