"""Trickle fragments and the answer to an ICE restart."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.edge.fragment import parse_fragment, write_restart
from relay.edge.sdp import SdpLimits
from relay.errors import BadOffer
from tests.edge.common import local_end

PASSWORD = "P2uYro0UCOQ4zxjKXaWCBui1"
# RFC 9725 4.3.1, figure 4, with a second candidate.
TRICKLE = (
    "a=group:BUNDLE 0 1\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"
    "a=mid:0\r\n"
    "a=ice-ufrag:EsAw\r\n"
    f"a=ice-pwd:{PASSWORD}\r\n"
    "a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1\r\n"
    "a=candidate:3471623853 1 tcp 1518280447 192.0.2.2 9 typ host tcptype active generation 0\r\n"
    "a=end-of-candidates\r\n"
)


def test_reads_a_trickle_fragment() -> None:
    fragment = parse_fragment(TRICKLE)
    assert (fragment.ufrag, fragment.password, fragment.mids) == ("EsAw", PASSWORD, ("0",))
    assert [(mid, c.host, c.port, c.protocol) for mid, c in fragment.candidates] == [
        ("0", "192.0.2.1", 61764, "udp"),
        ("0", "192.0.2.2", 9, "tcp"),
    ]
    assert fragment.end_of_candidates


def test_reads_session_level_credentials_and_several_sections() -> None:
    text = f"a=ice-options:trickle ice2\na=ice-ufrag:EsAw\na=ice-pwd:{PASSWORD}\n" + "".join(
        f"m=audio 9 RTP/AVP 0\na=mid:{mid}\na=candidate:1 1 udp 1 host-{mid}.local 5 typ host\n" for mid in "ab"
    )
    fragment = parse_fragment(text)
    assert fragment.mids == ("a", "b")
    assert [(mid, c.host) for mid, c in fragment.candidates] == [("a", "host-a.local"), ("b", "host-b.local")]
    assert fragment.ice_options == {"trickle", "ice2"}
    assert not fragment.end_of_candidates


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a=mid:0\r\n",
        TRICKLE.replace("a=ice-pwd", "a=x"),
        TRICKLE.replace("a=ice-ufrag", "a=x"),
        TRICKLE + "a=ice-ufrag:Other\r\n",
        TRICKLE + "a=mid:1\r\n",
        TRICKLE + "m=video 9 RTP/AVP 0\r\na=mid:0\r\n",
        TRICKLE.replace("61764", "port"),
        TRICKLE.replace("EsAw\r\n", "E\r\n"),
        TRICKLE + "a=\x00",
        TRICKLE + "garbage",
        TRICKLE + "a=candidate:1 1 udp 1 192.0.2.1 1 typ host\r\n" * 31,
        TRICKLE + "m=audio 9 RTP/AVP 0\r\n" * 64,
        TRICKLE + "a=x\r\n" * 10_000,
    ],
)
def test_refuses_bad_fragments(text: str) -> None:
    with pytest.raises(BadOffer):
        parse_fragment(text)


def test_limits_are_settings() -> None:
    with pytest.raises(BadOffer, match="more than 1 candidates"):
        parse_fragment(TRICKLE, SdpLimits(candidates=1))


def test_answers_a_restart() -> None:
    text = write_restart(local_end(), ("0", "1"), frozenset({"trickle", "ice2"}))
    assert text.split("\r\n")[:4] == [
        "a=ice-lite",
        "a=ice-options:trickle ice2",
        "a=group:BUNDLE 0 1",
        "m=audio 9 UDP/TLS/RTP/SAVPF 0",
    ]
    fragment = parse_fragment(text)
    assert (fragment.ufrag, fragment.password) == ("relayufrag", "relaypasswordrelaypassword")
    assert [c.host for _, c in fragment.candidates] == ["192.0.2.9", "2001:db8::9"]
    assert fragment.end_of_candidates
    assert parse_fragment(write_restart(local_end(), ())).mids == ()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_fragments_are_read_or_refused(data: st.DataObject) -> None:
    text = TRICKLE
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(0, len(text)))
        until = data.draw(st.integers(where, min(len(text), where + 30)))
        text = text[:where] + data.draw(st.text(max_size=8)) + text[until:]
    try:
        parse_fragment(text)
    except BadOffer as refusal:
        assert str(refusal)  # noqa: PT017
