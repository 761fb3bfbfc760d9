"""Publishes by WHIP as OBS does, with OBS's own transport library (libdatachannel). A stand-alone program.

It runs in whatever Python has libdatachannel-py (>= 3.12), with PyAV and numpy; `datachannel.py` starts it. Like OBS:
the offer has no candidates and says `setup:actpass`, both tracks are sendonly with fixed payload types (111 and 96),
nothing is ever PATCHed, the answer must be 201 with a Location, media must be connected within 8 s, key frames come at
their interval however often the relay asks, and DELETE must answer exactly 200.

Tells what happens in JSON lines on standard output; ends when standard input does.
"""

from __future__ import annotations

import argparse
import fractions
import json
import os
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import av
import numpy as np
from libdatachannel import (
    Configuration,
    Description,
    FrameInfo,
    H264RtpPacketizer,
    NalUnit,
    OpusRtpPacketizer,
    PeerConnection,
    PliHandler,
    RtcpNackResponder,
    RtcpSrReporter,
    RtpPacketizationConfig,
)

from costream.painting import CLOCK_MODULUS, TestPicture
from costream.tones import RATE, Tone

CONNECT_WITHIN = 8.0  # s, OBS's patience
AUDIO_SSRC, VIDEO_SSRC = 0x0B5A, 0x0B5B
OPUS, H264 = 111, 96
USER_AGENT = "Mozilla/5.0 (OBS-Studio-like test client)"
_PROFILE_LEVEL = {"high": "64001f", "main": "4d001f", "baseline": "42e01f"}
_lock = threading.Lock()


def tell(event: str, **details: object) -> None:
    """One JSON line; libdatachannel's callbacks come from threads of its own."""
    with _lock:
        print(json.dumps({"event": event, "at": time.time(), **details}), flush=True)


def http(method: str, url: str, token: str, body: str = "") -> tuple[int, dict[str, str], str]:
    """Status, headers (lower case) and body of an answer. Certificates are not verified: the relay signs its own."""
    headers = {"Authorization": f"Bearer {token}", "User-Agent": USER_AGENT}
    if body:
        headers["Content-Type"] = "application/sdp"
    request = urllib.request.Request(url, body.encode() or None, headers, method=method)
    context = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read().decode(errors="replace")


class Publisher:
    """The connection and its two tracks."""

    def __init__(self, profile: str) -> None:
        configuration = Configuration()
        configuration.disable_auto_gathering = True
        self.pc = PeerConnection(configuration)
        self.connected = threading.Event()
        self.over = threading.Event()
        self.pc.on_state_change(self._state)
        self.audio = self.pc.add_track(self._audio_line())
        self.video = self.pc.add_track(self._video_line(profile))
        opus = RtpPacketizationConfig(AUDIO_SSRC, "obs", OPUS, RATE)
        h264 = RtpPacketizationConfig(VIDEO_SSRC, "obs", H264, 90_000)
        self._chain(self.audio, OpusRtpPacketizer(opus), opus)
        self._chain(self.video, H264RtpPacketizer(NalUnit.Separator.StartSequence, h264, 1200), h264)
        self.video.chain_media_handler(PliHandler(lambda: tell("pli")))  # told, and ignored as OBS does

    def offer(self) -> str:
        self.pc.set_local_description(Description.Type.Offer)
        return str(self.pc.local_description())

    def answer(self, sdp: str) -> None:
        self.pc.set_remote_description(Description(sdp, Description.Type.Answer))
        self.pc.gather_local_candidates()

    @staticmethod
    def _audio_line() -> Description.Audio:
        line = Description.Audio("0", Description.Direction.SendOnly)
        line.add_opus_codec(OPUS)
        line.add_ssrc(AUDIO_SSRC, "obs", "obs-stream", "obs-stream-audio")
        return line

    @staticmethod
    def _video_line(profile: str) -> Description.Video:
        line = Description.Video("1", Description.Direction.SendOnly)
        level = _PROFILE_LEVEL[profile]
        line.add_h264_codec(H264, f"profile-level-id={level};packetization-mode=1;level-asymmetry-allowed=1")
        line.add_ssrc(VIDEO_SSRC, "obs", "obs-stream", "obs-stream-video")
        return line

    @staticmethod
    def _chain(track: object, packetizer: object, configuration: RtpPacketizationConfig) -> None:
        track.set_media_handler(packetizer)
        track.chain_media_handler(RtcpSrReporter(configuration))
        track.chain_media_handler(RtcpNackResponder())

    def _state(self, state: PeerConnection.State) -> None:
        tell("state", state=state.name.lower())
        if state == PeerConnection.State.Connected:
            self.connected.set()
        if state in (PeerConnection.State.Failed, PeerConnection.State.Closed, PeerConnection.State.Disconnected):
            self.over.set()


class Encoders:
    """H264 in Annex B with parameter sets in every key frame, and Opus in 20 ms frames."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._picture = TestPicture(options.width, options.height, options.publisher, "OBS")
        self._tone = Tone(options.tone)
        self.counter = self.chunks = 0
        video = av.CodecContext.create("libx264", "w")
        video.width, video.height, video.pix_fmt = options.width, options.height, "yuv420p"
        video.time_base, video.framerate = fractions.Fraction(1, options.fps), fractions.Fraction(options.fps)
        video.bit_rate, video.gop_size, video.max_b_frames = options.bitrate, options.fps * options.gop, 0
        video.options = {"preset": "veryfast", "tune": "zerolatency", "profile": options.profile}
        audio = av.CodecContext.create("libopus", "w")
        audio.sample_rate, audio.format, audio.layout = RATE, "s16", "stereo"
        audio.bit_rate = 128_000
        self._video, self._audio = video, audio

    def picture(self) -> bytes:
        raw = self._picture.frame(self.counter, int(time.time() * 1000) % CLOCK_MODULUS)
        frame = av.VideoFrame.from_ndarray(raw, format="yuv420p")
        frame.pts = self.counter
        self.counter += 1
        return b"".join(bytes(packet) for packet in self._video.encode(frame))

    def sound(self) -> list[bytes]:
        mono = self._tone.samples(RATE // 50)
        frame = av.AudioFrame.from_ndarray(np.repeat(mono, 2).reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate, frame.pts = RATE, self.chunks * (RATE // 50)
        self.chunks += 1
        return [bytes(packet) for packet in self._audio.encode(frame)]


def stream(publisher: Publisher, encoders: Encoders, fps: int, stop: threading.Event) -> None:
    """Send both tracks in time until told to stop or the connection is over; tells the count once a second.

    The first frames are dropped: the connection says that it is connected a moment before its tracks are open.
    """
    begin, told = time.monotonic(), 0.0
    while not stop.is_set() and not publisher.over.is_set():
        now = time.monotonic() - begin
        while encoders.chunks / 50 <= now:
            timestamp = encoders.chunks * (RATE // 50)
            for packet in encoders.sound():
                if not publisher.audio.is_open():
                    break
                publisher.audio.send_frame(packet, FrameInfo(timestamp % (1 << 32)))
        if encoders.counter / fps <= now:
            timestamp = encoders.counter * 90_000 // fps
            picture = encoders.picture()
            if publisher.video.is_open():
                publisher.video.send_frame(picture, FrameInfo(timestamp % (1 << 32)))
        if now - told >= 1:
            told = now
            tell("sent", counter=encoders.counter)
        stop.wait(0.004)


def main() -> int:
    options = _options()
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    publisher = Publisher(options.profile)
    offer = publisher.offer()
    tell("offer", sdp=offer)
    status, headers, answer = http("POST", options.url, options.token, offer)
    tell("answer", status=status, location=headers.get("location", ""), sdp=answer)
    if status != 201 or not headers.get("location"):
        return 2
    location = urllib.parse.urljoin(options.url, headers["location"])
    publisher.answer(answer)
    if not publisher.connected.wait(CONNECT_WITHIN):
        tell("timeout", seconds=CONNECT_WITHIN)
    else:
        stream(publisher, Encoders(options), options.fps, stop)
    deleted, _, _ = http("DELETE", location, options.token)
    tell("deleted", status=deleted)
    publisher.pc.close()
    return 0 if deleted == 200 and publisher.connected.is_set() else 3


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("token")
    parser.add_argument("--publisher", type=int, default=1)
    parser.add_argument("--profile", choices=sorted(_PROFILE_LEVEL), default="high")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--gop", type=int, default=2, help="seconds between key frames")
    parser.add_argument("--bitrate", type=int, default=1_000_000, help="bit/s")
    parser.add_argument("--tone", type=float, default=440.0, help="Hz")
    return parser.parse_args()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # libdatachannel's threads may call back into an interpreter that is being taken down: it aborts
