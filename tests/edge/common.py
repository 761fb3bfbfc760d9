"""What the tests of the edge share: the stored offers and a local end."""

from __future__ import annotations

import itertools
from pathlib import Path

from relay.edge.plan import LocalCandidate, LocalEnd
from relay.edge.sdp import Fingerprint

OFFERS = {path.stem: path.read_bytes().decode() for path in sorted((Path(__file__).parent / "offers").glob("*.sdp"))}
FINGERPRINT = Fingerprint("sha-256", ":".join(f"{i:02X}" for i in range(32)))


def local_end(fingerprints: tuple[Fingerprint, ...] = (FINGERPRINT,)) -> LocalEnd:
    """A local end whose SSRCs count up from 5000."""
    return LocalEnd(
        ufrag="relayufrag",
        password="relaypasswordrelaypassword",
        fingerprints=fingerprints,
        candidates=(LocalCandidate("192.0.2.9", 7443), LocalCandidate("2001:db8::9", 7443, priority=2_130_706_175)),
        session_id=42,
        new_ssrc=itertools.count(5000).__next__,
        cname="node-1",
    )


def answer_lines(answer: str, mid: str) -> list[str]:
    """The lines of the section of an answer that has `mid`."""
    for section in answer.split("\r\nm=")[1:]:
        lines = ("m=" + section).split("\r\n")
        if f"a=mid:{mid}" in lines:
            return lines
    raise AssertionError(f"no section with mid {mid}")
