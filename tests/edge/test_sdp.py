"""The SDP reader: real offers, every limit, every contradiction, and mutations of the real offers."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.edge.negotiation import answer_publish, answer_watch
from relay.edge.plan import NegotiationPolicy
from relay.edge.sdp import SdpLimits, SimulcastStream, SsrcGroup
from relay.edge.sdp_reader import parse
from relay.errors import BadOffer, UnacceptableOffer
from tests.edge.common import FINGERPRINT, OFFERS, local_end

HEAD = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
FP_LINE = f"a=fingerprint:sha-256 {FINGERPRINT.value}\r\n"
VIDEO = "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:0\r\na=rtpmap:96 VP8/90000\r\n"


def offer(*lines: str) -> str:
    return HEAD + VIDEO + "".join(f"{line}\r\n" for line in lines)


@pytest.mark.parametrize("name", OFFERS)
def test_reads_the_offers_of_real_clients(name: str) -> None:
    description = parse(OFFERS[name])
    assert description.bundle, name
    for media in description.media:
        assert media.mid
        assert media.ufrag
        assert media.password
        assert media.fingerprints
        assert media.kind == "application" or (media.formats and media.rtcp_mux)
        assert not media.rejected


def test_reads_chromium_simulcast() -> None:
    description = parse(OFFERS["chromium-simulcast"])
    audio, camera, screen, data = description.media
    assert description.bundle == (("0", "1", "2", "3"),)
    assert description.allow_mixed
    assert [s.rid for s in camera.simulcast_send] == ["q", "h", "f"]
    assert camera.rids[0].direction == "send"
    assert camera.formats[0].codec == "vp8"
    assert camera.formats[0].feedback == {"goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"}
    assert camera.formats[1].parameters == {"apt": "96"}
    assert screen.ssrc_groups == (SsrcGroup("FID", (2310041634, 2236274677)),)
    assert audio.formats[0].channels == 2
    assert audio.candidates[0].host == "192.0.2.2"
    assert audio.candidates[2].tcp_type == "active"
    assert data.kind == "application"
    assert data.numbers == ("webrtc-datachannel",)
    assert data.formats == ()


def test_reads_firefox_bundle_only_and_session_fingerprint() -> None:
    description = parse(OFFERS["firefox-simulcast"])
    third = description.media[2]
    assert (third.port, third.bundle_only, third.rejected) == (0, True, False)
    assert third.fingerprints == description.media[0].fingerprints
    assert third.ice_options == {"trickle"}
    by_id = {e.id: e for e in description.media[1].extensions}
    assert by_id[9].direction == "sendonly"
    assert description.media[0].end_of_candidates
    assert description.media[0].formats[4].parameters == {"": "0-15"}


def test_reads_session_level_transport_of_libdatachannel() -> None:
    media = parse(OFFERS["obs"]).media[1]
    assert (media.ufrag, media.setup, media.ice_options) == ("fX4w", "actpass", {"ice2", "trickle"})


def test_reads_drafts_and_wildcards() -> None:
    media = parse(OFFERS["legacy-sim"]).media[0]
    assert "nack" in media.formats[0].feedback
    assert "nack" in media.formats[1].feedback
    media = parse(offer("a=rid:a send max-width=320;pt=96", "a=rid:b send", "a=simulcast: send rid=a,b;~b")).media[0]
    assert media.simulcast_send == (SimulcastStream("a"), SimulcastStream("b", paused=True))
    assert media.rids[0].restrictions == {"max-width": "320", "pt": "96"}
    media = parse(offer("a=extmap:3/recvonly urn:x some attributes")).media[0]
    assert (media.extensions[0].direction, media.extensions[0].attributes) == ("recvonly", "some attributes")
    assert parse("\n".join((HEAD + VIDEO).split("\r\n"))).media[0].mid == "0"


BAD_LINES = {
    "a=mid:": "token",
    "a=mid:1": "already says mid",
    "a=ice-ufrag:abc": "4 to 256",
    "a=ice-pwd:short": "22 to 256",
    "a=ice-pwd:with spaces in the password": "22 to 256",
    "a=fingerprint:sha-256 AA:BB": "32 bytes",
    "a=fingerprint:sha-256": "hash name",
    "a=setup:later": "setup is",
    "a=setup": "needs a value",
    "a=rtpmap:96 H264/90000": "already vp8",
    "a=rtpmap:96 VP8": "an rtpmap is",
    "a=rtpmap:200 VP8/90000": "from 0 to 127",
    "a=rtpmap:\u0669\u0666 VP8/90000": "from 0 to 127",
    "a=rtpmap:9_6 VP8/90000": "from 0 to 127",
    "a=rtpmap:98 VP8/" + "9" * 5000: "from 1 to",
    "a=rtcp-fb:999 nack": "from 0 to 127",
    "a=extmap:0 urn:x": "extmap id",
    "a=extmap:1/up urn:x": "extmap direction",
    "a=extmap:1": "a URI",
    "a=rid:q sideways": "'send' or 'recv'",
    "a=rid:q/ send": "a rid has",
    "a=simulcast:send": "a list of rids",
    "a=simulcast:send q;q": "a rid twice",
    "a=simulcast:send q send h": "at most once",
    "a=simulcast:send pt=96": "by payload type",
    "a=ssrc:4294967296 cname:x": "an SSRC",
    "a=ssrc-group:FID": "SSRC group",
    "a=candidate:1 1 udp 1 192.0.2.1 99999 typ host": "a port",
    "a=candidate:1 1 udp 1 192.0.2.1": "a candidate has",
    "a=candidate:1 1 udp 1 <script> 1 typ host": "host name",
    "m=audio": "m= needs",
    "m=audio 70000 RTP/SAVPF 0": "the port",
    "m=audio 9 RTP/SAVPF 0 0": "stands twice",
    "m=audio 9 RTP/SAVPF x": "payload type",
    "no equals sign": "no SDP line",
    "A=mid:0": "no SDP line",
    "a=nul\x00": "control characters",
    "a=surrogate\ud800": "control characters",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_names_the_bad_line(line: str) -> None:
    with pytest.raises(BadOffer) as caught:
        parse(offer(line))
    assert "ine 8 of the SDP" in str(caught.value)
    assert BAD_LINES[line] in str(caught.value)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


CONTRADICTIONS = {
    "two directions": offer("a=sendonly", "a=recvonly"),
    "two ufrags": offer("a=ice-ufrag:aaaa", "a=ice-ufrag:bbbb"),
    "two fmtps": offer("a=fmtp:96 x=1", "a=fmtp:96 x=2"),
    "extension id twice": offer("a=extmap:1 urn:a", "a=extmap:1 urn:b"),
    "rid twice": offer("a=rid:q send", "a=rid:q send"),
    "two simulcasts": offer("a=rid:q send", "a=simulcast:send q", "a=simulcast:send q"),
    "simulcast without rid": offer("a=simulcast:send q"),
    "simulcast against rid": offer("a=rid:q recv", "a=simulcast:send q"),
    "ssrc with two cnames": offer("a=ssrc:1 cname:a", "a=ssrc:1 cname:b"),
    "mid twice": offer() + VIDEO,
    "bundle of an unknown mid": HEAD + "a=group:BUNDLE 0 7\r\n" + VIDEO,
    "bundle of a mid twice": HEAD + "a=group:BUNDLE 0 0\r\n" + VIDEO,
    "no version": offer().removeprefix("v=0\r\n"),
    "wrong version": "v=1" + offer().removeprefix("v=0"),
    "no origin": offer().replace("o=- 1 1 IN IP4 127.0.0.1\r\n", ""),
    "short origin": offer().replace("o=- 1 1", "o=-"),
    "no name": offer().replace("s=-\r\n", ""),
    "no time": offer().replace("t=0 0\r\n", ""),
    "no media": HEAD,
    "nothing": "",
    "only blank lines": "\r\n" * 9,
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_refuses_contradictions_and_gaps(case: str) -> None:
    with pytest.raises(BadOffer):
        parse(CONTRADICTIONS[case])


LIMITS = SdpLimits(
    bytes=4000, lines=80, media=2, attributes=70, candidates=3, ssrcs=4, payload_types=5, all_payload_types=8
)
WITHIN_AND_BEYOND = {
    "bytes": lambda n: offer("a=x:" + "y" * (4000 - len(offer("a=x:")) + n)),
    "wide bytes": lambda n: offer("a=x:" + "é" * ((4000 - len(offer("a=x:"))) // 2 + n)),
    "lines": lambda n: offer() + "\n" * (80 - offer().count("\n") + n),
    "media": lambda n: offer() + "m=audio 0 RTP/SAVPF 0\r\n" * (1 + n),
    "attributes": lambda n: offer(*["a=x"] * (68 + n)),
    "candidates": lambda n: offer(*["a=candidate:1 1 udp 1 192.0.2.1 1 typ host"] * (3 + n)),
    "ssrcs": lambda n: offer(*[f"a=ssrc:{i} cname:x" for i in range(4 + n)]),
    "fingerprints": lambda n: offer(*[FP_LINE.strip()] * (16 + n)),
    "extensions": lambda n: HEAD + VIDEO + "".join(f"a=extmap:{i} urn:x\r\n" for i in range(1, 65 + n)),
    "ice options": lambda n: offer("a=ice-options:" + " ".join(f"o{i}" for i in range(16 + n))),
    "ssrc groups": lambda n: offer(*["a=ssrc-group:FID 1 2"] * (4 + n)),
    "ssrcs of a group": lambda n: offer("a=ssrc-group:SIM " + " ".join("1234"[: 4 + n] + "5" * n)),
    "all payload types": lambda n: offer("m=audio 9 RTP/SAVPF 1 2 3 4 5", "a=x").replace(
        VIDEO, "m=video 9 RTP/SAVPF 96 97 98" + " 99" * n + "\r\n"
    ),
    "payload types": lambda n: HEAD + "m=audio 9 RTP/SAVPF " + " ".join(map(str, range(5 + n))),
}


@pytest.mark.parametrize("limit", WITHIN_AND_BEYOND)
def test_holds_each_limit_exactly(limit: str) -> None:
    assert parse(WITHIN_AND_BEYOND[limit](0), LIMITS).media
    with pytest.raises(BadOffer, match=r"more than|longer than|one to"):
        parse(WITHIN_AND_BEYOND[limit](1), LIMITS)


def cpu_time_of(text: str) -> float:
    began = time.process_time()
    try:
        parse(text)
    except BadOffer:
        pass
    return time.process_time() - began


def test_worst_cases_are_read_quickly(capsys: pytest.CaptureFixture[str]) -> None:
    """The time is printed, not asserted: a shared machine decides no test."""
    room = 32_768 - len(HEAD + VIDEO)
    full = "".join(f"m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:{i}\r\na=rtpmap:96 VP8/90000\r\n" for i in range(1, 63))
    shapes = {
        "ssrc lines": "".join(f"a=ssrc:{i} cname:x\r\n" for i in range(1700)),
        "one long rid list": "a=simulcast:send " + ";".join(f"r{i}" for i in range(5000)),
        "one long fmtp": "a=fmtp:96 " + ";".join(f"k{i}=v" for i in range(3600)),
        "one long candidate": "a=candidate:" + "x " * 16_000,
        "semicolons": "a=fmtp:96 =" + ";" * 32_000,
        "extmaps": "".join(f"a=extmap:{i} u\r\n" for i in range(1, 2300)),
        "colons": "a=fingerprint:sha-256 " + "AA:" * 10_000,
        "spaces": "a=rtpmap:96" + " " * 32_000,
        "blank lines": "\n" * 32_000,
        "empty attributes": "a=\n" * 10_000,
        "m-lines": "m=a 0 x 0\r\n" * 2900,
        "most payload types": "".join(
            f"m=video 9 UDP/TLS/RTP/SAVPF {' '.join(map(str, range(128)))}\r\na=mid:{i}\r\n" for i in range(1, 60)
        ),
        "most m-lines": full,
        "wildcards": "".join(f"a=rtcp-fb:* f{i}\r\n" for i in range(500)) + full,
    }
    worst = 0.0
    for text in shapes.values():
        worst = max(worst, min(cpu_time_of(HEAD + VIDEO + text[:room]) for _ in range(3)))
    with capsys.disabled():
        print(f"\nworst 32 KiB offer: {worst * 1e3:.1f} ms of CPU")


mutations = st.lists(
    st.tuples(
        st.sampled_from(["cut", "double", "swap", "delete", "insert", "truncate"]),
        st.integers(0, 400),
        st.integers(0, 400),
        st.sampled_from(
            ["", " ", ":", ";", "=", "0", "-1", "99999999999999999999", "\x00", "é", "a=", "send", "/", "~", ",", "\r"]
        ),
    ),
    min_size=1,
    max_size=6,
)


def mutate(text: str, edits: list[tuple[str, int, int, str]]) -> str:
    lines = text.split("\r\n")
    for kind, where, column, piece in edits:
        if not lines:
            break
        i = where % len(lines)
        line = lines[i]
        j = column % (len(line) + 1)
        match kind:
            case "cut":
                lines[i] = line[:j]
            case "double":
                lines.insert(column % len(lines), line)
            case "swap":
                k = column % len(lines)
                lines[i], lines[k] = lines[k], line
            case "delete":
                del lines[i]
            case "insert":
                lines[i] = line[:j] + piece + line[j:]
            case _:
                lines = lines[: i + 1]
    return "\r\n".join(lines)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(OFFERS)), mutations)
def test_mutated_offers_are_answered_or_refused(name: str, edits: list[tuple[str, int, int, str]]) -> None:
    text = mutate(OFFERS[name], edits)
    for answer in (answer_publish, answer_watch):
        try:
            negotiated = answer(parse(text), local_end(), NegotiationPolicy())
        except (BadOffer, UnacceptableOffer) as refusal:
            assert str(refusal)  # noqa: PT017
        else:
            assert len(parse(negotiated.answer).media) == len(parse(text).media)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400) | st.lists(st.text(max_size=40), max_size=20).map(lambda x: offer(*(f"a={y}" for y in x))))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except BadOffer as refusal:
        assert str(refusal)  # noqa: PT017
