"""SDP fragments of trickle ICE (`application/trickle-ice-sdpfrag`, RFC 8840 9): what WHIP and WHEP clients PATCH, and
the answer to an ICE restart (RFC 9725 4.3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from relay.edge import sdp_fields as fields
from relay.edge.plan import LocalEnd
from relay.edge.sdp import Candidate, SdpLimits
from relay.edge.sdp_fields import SdpFault
from relay.edge.sdp_reader import bad_offer, split_lines
from relay.edge.sdp_writer import candidate_lines, ice_option_lines
from relay.errors import BadOffer

_MEDIA_TYPE_LINE = "m=audio 9 UDP/TLS/RTP/SAVPF 0"  # RFC 8840 4.3: kind and formats of a fragment's m-lines say nothing


@dataclass(frozen=True, slots=True)
class Fragment:
    """What a fragment says. New credentials restart ICE. `mids` are those that its m-lines name, in order; the lead one
    of the BUNDLE group carries all candidates."""

    ufrag: str
    password: str
    mids: tuple[str, ...] = ()
    candidates: tuple[tuple[str, Candidate], ...] = ()
    """With the mid of each; empty before the first m-line."""
    end_of_candidates: bool = False
    ice_options: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Collected:
    limits: SdpLimits
    ufrags: set[str] = field(default_factory=set)
    passwords: set[str] = field(default_factory=set)
    mids: list[str] = field(default_factory=list)
    media: int = 0
    mid: str = ""
    candidates: list[tuple[str, Candidate]] = field(default_factory=list)
    ended: bool = False
    options: set[str] = field(default_factory=set)

    def read(self, attribute: str) -> None:
        name, _, value = attribute.partition(":")
        value = value.strip()
        if name == "ice-ufrag":
            self.ufrags.add(fields.ice_characters(value, 4, "the ICE user fragment"))
        elif name == "ice-pwd":
            self.passwords.add(fields.ice_characters(value, 22, "the ICE password"))
        elif name == "mid":
            self.mid = fields.token(value, "a mid")
            if self.media == 0 or len(self.mids) >= self.media or self.mid in self.mids:
                raise SdpFault("each m-line of a fragment has one mid of its own")
            self.mids.append(self.mid)
        elif name == "candidate":
            if len(self.candidates) >= self.limits.candidates * max(1, self.media):
                raise SdpFault(f"more than {self.limits.candidates} candidates for each m-line")
            self.candidates.append((self.mid, fields.candidate(value)))
        elif name == "end-of-candidates":
            self.ended = True
        elif name == "ice-options":
            self.options.update(fields.ice_options(value))


def parse_fragment(text: str, limits: SdpLimits = SdpLimits()) -> Fragment:  # noqa: B008 - frozen
    """Read a fragment. Raises BadOffer when it is malformed, too large, or names no or several ICE credentials."""
    collected = _Collected(limits)
    for number, line in split_lines(text, limits):
        try:
            key, value = fields.key_and_value(line)
            if key == "a":
                collected.read(value)
            elif key == "m":
                collected.media += 1
                collected.mid = ""
                fields.at_most(collected.media, limits.media, "m= lines")
        except SdpFault as fault:
            raise bad_offer(fault, number, line) from None
    if len(collected.ufrags) != 1 or len(collected.passwords) != 1:
        raise BadOffer("An SDP fragment needs exactly one ice-ufrag and one ice-pwd.")
    return Fragment(
        ufrag=collected.ufrags.pop(),
        password=collected.passwords.pop(),
        mids=tuple(collected.mids),
        candidates=tuple(collected.candidates),
        end_of_candidates=collected.ended,
        ice_options=frozenset(collected.options),
    )


def write_restart(local: LocalEnd, mids: Sequence[str], ice_options: frozenset[str] = frozenset({"trickle"})) -> str:
    """Write the fragment that answers an ICE restart: our new credentials and all our candidates, on the first of the
    session's bundled mids."""
    lines = ["a=ice-lite", *ice_option_lines(ice_options)]
    if mids:
        lines += [" ".join(["a=group:BUNDLE", *mids]), _MEDIA_TYPE_LINE, f"a=mid:{mids[0]}"]
    lines += [f"a=ice-ufrag:{local.ufrag}", f"a=ice-pwd:{local.password}", *candidate_lines(local.candidates)]
    return "\r\n".join(lines) + "\r\n"
