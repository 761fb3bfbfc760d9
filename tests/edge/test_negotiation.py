"""Offers of real clients become answers and plans."""

from __future__ import annotations

import pytest

from relay.edge.codecs import slot_payload_type
from relay.edge.negotiation import answer_publish, answer_watch
from relay.edge.plan import Negotiated, NegotiationPolicy
from relay.edge.sdp_reader import parse
from relay.errors import BadOffer, UnacceptableOffer
from relay.plane.contract import Feedback, Kind, LayerSpec, PayloadType
from tests.edge.common import FINGERPRINT, OFFERS, answer_lines, local_end

POLICY = NegotiationPolicy()


def publish(text: str, policy: NegotiationPolicy = POLICY) -> Negotiated:
    return answer_publish(parse(text), local_end(), policy)


def watch(text: str, policy: NegotiationPolicy = POLICY) -> Negotiated:
    return answer_watch(parse(text), local_end(), policy)


def codecs(payload_types: tuple[PayloadType, ...]) -> list[str]:
    return list(dict.fromkeys(p.codec for p in payload_types if p.codec != "rtx"))


@pytest.mark.parametrize("name", OFFERS)
def test_answers_every_client(name: str) -> None:
    text = OFFERS[name]
    negotiated = watch(text) if "watch" in name else publish(text)
    offer, answer = parse(text), parse(negotiated.answer)
    assert answer.ice_lite
    assert [m.mid for m in answer.media] == [m.mid for m in offer.media]
    assert [m.kind for m in answer.media] == [m.kind for m in offer.media]
    served = [m for m in answer.media if m.kind != "application"]
    assert answer.bundle == (tuple(m.mid for m in served),)
    for offered, answered in zip(offer.media, answer.media, strict=True):
        if offered.kind == "application":
            assert answered.rejected
            continue
        assert (answered.ufrag, answered.password) == ("relayufrag", "relaypasswordrelaypassword")
        assert answered.fingerprints == (FINGERPRINT,)
        assert answered.rtcp_mux
        assert answered.rtcp_rsize == offered.rtcp_rsize
        assert answered.setup == ("active" if offered.setup == "passive" else "passive")
        offered_ids = {e.id: e.uri for e in offered.extensions}
        assert all(offered_ids[e.id] == e.uri for e in answered.extensions)
        offered_formats = {f.number: f for f in offered.formats}
        for chosen in answered.formats:
            assert offered_formats[chosen.number].codec == chosen.codec
            assert chosen.feedback <= offered_formats[chosen.number].feedback
    assert [c.host for c in served[0].candidates] == ["192.0.2.9", "2001:db8::9"]
    assert served[0].end_of_candidates
    assert negotiated.remote_ufrag == offer.media[0].ufrag
    assert negotiated.remote_fingerprints == offer.media[0].fingerprints


@pytest.mark.parametrize(
    ("name", "role"), [("ffmpeg-whip", "client"), ("obs", "server"), ("chromium-publish", "server")]
)
def test_dtls_role(name: str, role: str) -> None:
    assert publish(OFFERS[name]).dtls_role == role


def test_active_offers_are_answered_passively() -> None:
    negotiated = publish(OFFERS["obs"].replace("setup:actpass", "setup:active"))
    assert negotiated.dtls_role == "server"
    assert "a=setup:passive" in negotiated.answer


def test_chromium_simulcast() -> None:
    negotiated = publish(OFFERS["chromium-simulcast"])
    microphone, camera, second = negotiated.tracks
    assert (microphone.kind, microphone.source, microphone.mid) == (Kind.AUDIO, "microphone", "0")
    assert microphone.feedback == Feedback(transport_cc=True)
    assert microphone.payload_types == (PayloadType(111, "opus", 48000),)
    assert camera.layers == (LayerSpec("q"), LayerSpec("h"), LayerSpec("f"))
    assert camera.feedback == Feedback(nack=True, pli=True, fir=True, remb=True, transport_cc=True)
    assert second.layers == (LayerSpec(ssrc=2310041634, rtx_ssrc=2236274677),)
    assert dict(negotiated.extensions)["rid"] == 10
    assert len(dict(negotiated.extensions)) == len({i for _, i in negotiated.extensions})
    lines = answer_lines(negotiated.answer, "1")
    assert [line for line in lines if "rid" in line and "extmap" not in line] == [
        "a=rid:q recv",
        "a=rid:h recv",
        "a=rid:f recv",
    ]
    assert "a=simulcast:recv q;h;f" in lines
    assert "a=recvonly" in lines
    assert "a=fmtp:111 minptime=10;useinbandfec=1" in answer_lines(negotiated.answer, "0")


def test_firefox_extension_directions() -> None:
    lines = answer_lines(publish(OFFERS["firefox-simulcast"]).answer, "1")
    assert "a=extmap:9/recvonly urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id" in lines
    assert not any("playout-delay" in line for line in lines)  # it only wants to receive that
    assert "a=rtpmap:123 ulpfec/90000" not in lines


def test_policy_orders_the_publishers_codecs() -> None:
    track = publish(OFFERS["chromium-publish"], NegotiationPolicy(video_codecs=("h264", "vp8"))).tracks[1]
    assert codecs(track.payload_types) == ["h264", "vp8"]
    assert track.payload_types[:2] == (
        PayloadType(108, "h264", 90000, profile="42e01f/1"),
        PayloadType(109, "rtx", 90000, apt=108),
    )
    modes = [p.profile[-1] for p in track.payload_types if p.codec == "h264"]
    assert modes == sorted(modes, reverse=True)
    assert publish(OFFERS["chromium-publish"]).tracks[1].payload_types[0].codec == "vp8"


def test_viewers_keep_every_common_codec_and_get_ssrcs() -> None:
    negotiated = watch(OFFERS["chromium-watch"])
    assert [s.index for s in negotiated.slots] == [0, 1, 2, 3]
    assert [s.stream for s in negotiated.slots] == ["slot-0", "slot-0", "slot-1", "slot-2"]
    assert [s.kind for s in negotiated.slots] == [Kind.AUDIO] + [Kind.VIDEO] * 3
    assert [(s.ssrc, s.rtx_ssrc) for s in negotiated.slots] == [(5000, None), (5001, 5002), (5003, 5004), (5005, 5006)]
    assert codecs(negotiated.slots[1].payload_types) == ["vp8", "h264", "vp9", "av1"]
    assert not {"rid", "rrid", "dependency_descriptor"} & dict(negotiated.extensions).keys()
    lines = answer_lines(negotiated.answer, "1")
    assert "a=sendonly" in lines
    assert "a=msid:slot-0 slot-0-video" in lines
    assert "a=ssrc-group:FID 5001 5002" in lines
    assert "a=ssrc:5002 cname:node-1" in lines
    assert "a=ssrc:5002 msid:slot-0 slot-0-video" in lines


@pytest.mark.parametrize("name", ["chromium-sendrecv", "firefox-sendrecv"])
def test_sendrecv_is_answered_by_what_is_asked(name: str) -> None:
    assert [m.direction for m in parse(publish(OFFERS[name]).answer).media] == ["recvonly", "recvonly"]
    assert [m.direction for m in parse(watch(OFFERS[name]).answer).media] == ["sendonly", "sendonly"]


def test_obs() -> None:
    negotiated = publish(OFFERS["obs-simulcast"])
    assert [layer.rid for layer in negotiated.tracks[1].layers] == ["3", "2", "1", "0"]
    assert "a=simulcast:recv 0;1;2;3" in negotiated.answer
    assert "a=fmtp:111 minptime=10;useinbandfec=1;stereo=1" in negotiated.answer
    assert negotiated.tracks[1].payload_types == (PayloadType(96, "h264", 90000, profile="64001f/1"),)
    assert "a=ice-options:trickle ice2" in negotiated.answer


def test_ffmpeg_has_no_pli_and_its_ssrcs_are_known() -> None:
    track = publish(OFFERS["ffmpeg-whip-high"]).tracks[1]
    assert track.feedback == Feedback(nack=True)
    assert track.layers == (LayerSpec(ssrc=3034818049, rtx_ssrc=3034818050),)


def test_gstreamer_bundle_only_audio_is_served() -> None:
    negotiated = publish(OFFERS["gstreamer"])
    assert [t.mid for t in negotiated.tracks] == ["video0", "audio1"]
    assert "stereo=1" in negotiated.answer
    assert "sprop-parameter-sets" not in negotiated.answer


def test_ssrc_simulcast_of_old_browsers() -> None:
    track = publish(OFFERS["legacy-sim"]).tracks[0]
    assert track.layers == tuple(LayerSpec(ssrc=1000 + i, rtx_ssrc=2000 + i) for i in (1, 2, 3))
    assert track.source == "screen"
    assert track.feedback == Feedback(nack=True, pli=True, remb=True)


@pytest.mark.parametrize(
    ("offered", "lowest_first"),
    [
        ("q;h;f", "q h f"),
        ("f;h;q", "q h f"),
        ("~f;h;q", "q h f"),
        ("h;m;l", "l m h"),
        ("high;low", "low high"),
        ("hi;mid;lo", "lo mid hi"),
        ("r0;r1;r2", "r0 r1 r2"),
        ("best;good;poor", "poor good best"),
        ("2;1;0", "0 1 2"),
    ],
)
def test_layers_lowest_first(offered: str, lowest_first: str) -> None:
    text = OFFERS["chromium-simulcast"].replace("a=simulcast:send q;h;f", f"a=simulcast:send {offered}")
    names = offered.replace("~", "").split(";")
    rids = "".join(f"a=rid:{name} send\r\n" for name in names)
    text = text[: text.index("a=rid:")] + rids + text[text.index("a=simulcast:") :]
    assert [layer.rid for layer in publish(text).tracks[1].layers] == lowest_first.split()


def test_sizes_in_rid_lines_beat_names() -> None:
    text = OFFERS["chromium-simulcast"]
    for rid, size in (("q", 1280), ("h", 640), ("f", 320)):
        text = text.replace(f"a=rid:{rid} send", f"a=rid:{rid} send max-width={size};max-height={size}")
    assert [layer.rid for layer in publish(text).tracks[1].layers] == ["f", "h", "q"]


def test_layers_and_media_beyond_the_policy_are_left_out() -> None:
    negotiated = publish(OFFERS["obs-simulcast"], NegotiationPolicy(max_layers=2, max_media=2))
    assert "a=simulcast:recv 0;1\r\n" in negotiated.answer
    negotiated = watch(OFFERS["chromium-watch"], NegotiationPolicy(max_media=2))
    assert len(negotiated.slots) == 2
    assert [m.rejected for m in parse(negotiated.answer).media] == [False, False, True, True]


def test_one_m_line_needs_no_bundle_nor_mid() -> None:
    text = OFFERS["legacy-sim"].replace("a=group:BUNDLE video\r\n", "").replace("a=mid:video\r\n", "")
    negotiated = publish(text)
    assert negotiated.tracks[0].mid == ""
    assert "BUNDLE" not in negotiated.answer


def test_part_of_an_offer_may_be_refused() -> None:
    negotiated = publish(OFFERS["chromium-publish"], NegotiationPolicy(audio_codecs=()))
    assert [t.mid for t in negotiated.tracks] == ["1"]
    assert "a=group:BUNDLE 1\r\n" in negotiated.answer
    rejected = answer_lines(negotiated.answer, "0")
    assert rejected[0] == "m=audio 0 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126"
    # The transport attributes moved to the m-line that now leads the bundle.
    assert any(line.startswith("a=candidate:") for line in answer_lines(negotiated.answer, "1"))


OBS = OFFERS["obs"]
UNACCEPTABLE = {
    "no fingerprint": (OBS.replace("a=fingerprint:sha-256", "a=x-fingerprint:"), "fingerprint"),
    "a hash nobody trusts": (
        OBS.replace(
            OBS[OBS.index("a=fingerprint") : OBS.index("m=audio")], "a=fingerprint:sha-1 " + "AA:" * 19 + "AA\r\n"
        ),
        "fingerprint",
    ),
    "holdconn": (OBS.replace("setup:actpass", "setup:holdconn"), "holds"),
    "no bundle": (OBS.replace("a=group:BUNDLE 0 1", "a=x"), "BUNDLE"),
    "no rtcp-mux": (OBS.replace("a=rtcp-mux\r\n", ""), "rtcp-mux"),
    "wrong way": (OFFERS["chromium-watch"], "has to send"),
    "no common codec": (
        OBS.replace("H264/90000", "H265/90000").replace("opus/48000/2", "PCMU/8000"),
        "no common codec",
    ),
    "plain RTP": (OBS.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"), "DTLS"),
    "all off": (OBS.replace(" 9 UDP", " 0 UDP"), "port 0"),
    "both lite": (OBS.replace("a=setup", "a=ice-lite\r\na=setup"), "ICE-lite"),
    "data only": (
        OFFERS["firefox-watch"].replace("m=audio", "m=application").replace("m=video", "m=text"),
        "only audio and video",
    ),
}


@pytest.mark.parametrize("case", UNACCEPTABLE)
def test_what_cannot_be_answered(case: str) -> None:
    text, reason = UNACCEPTABLE[case]
    with pytest.raises(UnacceptableOffer, match=reason):
        publish(text)


def test_watchers_must_receive() -> None:
    with pytest.raises(UnacceptableOffer, match="has to receive"):
        watch(OBS)


def test_ice_credentials_are_needed() -> None:
    with pytest.raises(BadOffer, match="ice-ufrag"):
        publish(OBS.replace("a=ice-pwd", "a=x"))


def test_one_extension_id_has_one_meaning_in_a_session() -> None:
    # GStreamer's m-lines may number extensions each in their own way: the first meaning of id 1 holds.
    text = OFFERS["gstreamer"]
    audio = text.rindex("a=extmap:1 ")
    text = (
        text[:audio] + "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n" + text[audio:].split("\r\n", 1)[1]
    )
    negotiated = publish(text)
    assert negotiated.extensions == (("transport_cc", 1),)
    assert not any("extmap" in line for line in answer_lines(negotiated.answer, "audio1"))
    # The same extension under another id is not answered either.
    text = text.replace(
        "extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        "extmap:2 " + "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    )
    assert publish(text).extensions == (("transport_cc", 1),)


@pytest.mark.parametrize(("mixed", "expected"), [(True, [("mid", 20)]), (False, [])])
def test_two_byte_ids_need_consent_and_are_never_sent(mixed: bool, expected: list[tuple[str, int]]) -> None:
    text = OBS + ("a=extmap-allow-mixed\r\n" if mixed else "")
    text += "a=extmap:20 urn:ietf:params:rtp-hdrext:sdes:mid\r\n"
    assert list(publish(text).extensions) == expected
    assert watch(text.replace("sendonly", "recvonly")).extensions == ()


def test_nonsense_parameters_are_not_echoed() -> None:
    text = OBS.replace("minptime=10", "minptime=<script>").replace("42e01f", "zz")
    negotiated = publish(text)
    assert "script" not in negotiated.answer
    assert [t.mid for t in negotiated.tracks] == ["0"]


def h264(number: int, profile: str) -> PayloadType:
    return PayloadType(number, "h264", 90000, profile=profile)


@pytest.mark.parametrize(
    ("track", "expected"),
    [
        (h264(1, "42e01f/1"), 108),
        (h264(1, "42001f/1"), 102),
        (h264(1, "42c02a/1"), 108),
        (h264(1, "64001f/1"), 102),
        (h264(1, "42e01f/0"), 114),
        (h264(1, "64001f/0"), 102),
        (PayloadType(1, "vp9", 90000, profile="2"), 100),
        (PayloadType(1, "vp9", 90000, profile="1"), None),
        (PayloadType(1, "vp8", 90000), 96),
        (PayloadType(1, "opus", 48000), None),
    ],
)
def test_slot_payload_type(track: PayloadType, expected: int | None) -> None:
    slot = (
        PayloadType(96, "vp8", 90000),
        h264(102, "42001f/1"),
        h264(104, "42001f/0"),
        h264(108, "42e01f/1"),
        h264(114, "42e01f/0"),
        PayloadType(98, "vp9", 90000, profile="0"),
        PayloadType(100, "vp9", 90000, profile="2"),
    )
    found = slot_payload_type(slot, track)
    assert (found.number if found else None) == expected


def test_a_mode_1_stream_never_goes_out_as_mode_0() -> None:
    assert slot_payload_type((h264(104, "42e01f/0"),), h264(1, "42e01f/1")) is None
