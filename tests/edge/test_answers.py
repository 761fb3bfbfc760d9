"""Real WebRTC stacks take our answers: aiortc, libwebrtc (wrtc) and Chromium each make an offer and set the answer."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable

import pytest

from relay.edge.negotiation import answer_publish, answer_watch
from relay.edge.plan import Negotiated, NegotiationPolicy
from relay.edge.sdp_reader import parse
from tests.edge.common import local_end

POLICY = NegotiationPolicy(video_codecs=("h264", "vp8", "vp9", "av1"))


def answer(sdp: str, sending: bool) -> Negotiated:
    return (answer_publish if sending else answer_watch)(parse(sdp), local_end(), POLICY)


@pytest.mark.parametrize("sending", [True, False])
async def test_aiortc_takes_the_answer(sending: bool) -> None:
    aiortc = pytest.importorskip("aiortc")
    connection = aiortc.RTCPeerConnection()
    try:
        for kind in ("audio", "video"):
            connection.addTransceiver(kind, direction="sendonly" if sending else "recvonly")
        await connection.setLocalDescription(await connection.createOffer())
        negotiated = answer(connection.localDescription.sdp, sending)
        await connection.setRemoteDescription(aiortc.RTCSessionDescription(negotiated.answer, "answer"))
        assert connection.signalingState == "stable"
        ours = "sendonly" if sending else "recvonly"
        assert [t.currentDirection for t in connection.getTransceivers()] == [ours, ours]
    finally:
        await connection.close()


@pytest.mark.interop
@pytest.mark.parametrize("sending", [True, False])
async def test_libwebrtc_takes_the_answer(sending: bool) -> None:
    webrtc = pytest.importorskip("webrtc", reason="pip install wrtc")
    ours = "sendonly" if sending else "recvonly"
    encodings = [webrtc.RTCRtpEncodingParameters(rid=rid) for rid in "qhf"] if sending else []
    connection = webrtc.RTCPeerConnection()
    try:
        connection.add_transceiver("audio", webrtc.RTCRtpTransceiverInit(direction=ours))
        init = webrtc.RTCRtpTransceiverInit(direction=ours, send_encodings=encodings)
        video = connection.add_transceiver("video", init)
        connection.create_data_channel("unwanted")
        await connection.set_local_description()
        negotiated = answer(connection.local_description.sdp, sending)
        description = webrtc.RTCSessionDescription(webrtc.RTCSdpType.answer, negotiated.answer)
        await connection.set_remote_description(description)
        assert connection.signaling_state == webrtc.RTCSignalingState.stable
        assert [t.current_direction.value for t in connection.get_transceivers()] == [ours, ours]
        if sending:
            kept = video.sender.get_parameters().encodings
            assert [(e.rid, e.active) for e in kept] == [("q", True), ("h", True), ("f", True)]
            assert [layer.rid for layer in negotiated.tracks[1].layers] == ["q", "h", "f"]
    finally:
        connection.close()


OFFER_IN_CHROMIUM = """async sending => {
  const pc = window.pc = new RTCPeerConnection();
  const direction = sending ? 'sendonly' : 'recvonly';
  window.streams = [];
  pc.ontrack = event => streams.push(event.track.kind + ' ' + event.streams[0].id);
  if (sending) {
    const media = await navigator.mediaDevices.getUserMedia({audio: true, video: true});
    pc.addTransceiver(media.getAudioTracks()[0], {direction, streams: [media]});
    pc.addTransceiver(media.getVideoTracks()[0], {direction, streams: [media], sendEncodings: [
      {rid: 'q', scaleResolutionDownBy: 4}, {rid: 'h', scaleResolutionDownBy: 2}, {rid: 'f'}]});
  } else {
    pc.addTransceiver('audio', {direction});
    for (let i = 0; i < 3; i++) pc.addTransceiver('video', {direction});
  }
  pc.createDataChannel('unwanted');
  await pc.setLocalDescription();
  return pc.localDescription.sdp;
}"""
ANSWER_IN_CHROMIUM = """async sdp => {
  await pc.setRemoteDescription({type: 'answer', sdp});
  return {
    state: pc.signalingState,
    trickle: pc.canTrickleIceCandidates,
    directions: pc.getTransceivers().map(t => t.currentDirection),
    rids: pc.getSenders().flatMap(s => s.getParameters().encodings.map(e => e.rid + ' ' + e.active)),
    codecs: pc.getSenders().map(s => (s.getParameters().codecs[0] || {}).mimeType),
    streams,
  };
}"""


def in_chromium(talk: Callable[[object], None]) -> None:
    """Run `talk` on a fresh page of a headless Chromium with fake devices."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--use-fake-device-for-media-stream=fps=30", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        try:
            page = browser.new_page()
            page.route("https://edge.test/", lambda route: route.fulfill(body="<!doctype html>"))
            page.goto("https://edge.test/")
            talk(page)
        finally:
            browser.close()


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("chromium") is None, reason="apt install chromium")
async def test_chromium_takes_the_answers() -> None:
    pytest.importorskip("playwright", reason="pip install playwright")

    def talk(page: object) -> None:
        evaluate = page.evaluate  # type: ignore[attr-defined]
        negotiated = answer(evaluate(OFFER_IN_CHROMIUM, True), True)
        seen = evaluate(ANSWER_IN_CHROMIUM, negotiated.answer)
        assert seen["state"] == "stable"
        assert seen["trickle"] is True
        assert seen["directions"] == ["sendonly", "sendonly"]
        assert seen["rids"][-3:] == ["q true", "h true", "f true"]
        assert seen["codecs"] == ["audio/opus", "video/H264"]
        negotiated = answer(evaluate(OFFER_IN_CHROMIUM, False), False)
        seen = evaluate(ANSWER_IN_CHROMIUM, negotiated.answer)
        assert seen["state"] == "stable"
        assert seen["directions"] == ["recvonly"] * 4
        assert seen["streams"] == ["audio slot-0", "video slot-0", "video slot-1", "video slot-2"]

    await asyncio.to_thread(in_chromium, talk)
