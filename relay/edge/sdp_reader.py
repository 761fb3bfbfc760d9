"""Reads SDP offers (RFC 8866, as WebRTC uses it: RFC 8829). One pass, bounded by `SdpLimits`; every fault is BadOffer.

Unknown attributes and line types are skipped, as RFC 8866 5.13 asks. What is read must be well formed and must not
contradict itself: the message names the line and shows the beginning of its text.
"""

from __future__ import annotations

from types import MappingProxyType

from relay.edge import sdp_fields as fields
from relay.edge.sdp import NOTHING, Fingerprint, Format, Media, Rid, SdpLimits, SessionDescription, Ssrc
from relay.edge.sdp_fields import SdpFault
from relay.edge.sdp_section import Section
from relay.errors import BadOffer

_SHOWN = 80


def parse(text: str, limits: SdpLimits = SdpLimits()) -> SessionDescription:  # noqa: B008 - frozen
    """Read an offer. Raises BadOffer for anything malformed, contradictory or beyond `limits`."""
    lines = split_lines(text, limits)
    session = Section("session", 1, limits)
    media: list[Section] = []
    seen: set[str] = set()
    origin = ""
    for number, line in lines:
        try:
            key, value = fields.key_and_value(line)
            if not seen or key == "v":
                fields.version(key, value)
            if key == "m":
                _start_media(media, seen, value, number, limits)
            elif key == "a":
                (media[-1] if media else session).read(value)
            elif key == "o":
                origin = fields.origin(value)
            if not media:
                seen.add(key)
        except SdpFault as fault:
            raise bad_offer(fault, number, line) from None
    if not media:
        raise BadOffer("The SDP has no m= line.")
    return _describe(origin, session, media)


def split_lines(text: str, limits: SdpLimits) -> list[tuple[int, str]]:
    """Number the lines that are not empty, CRLF or LF. Raises BadOffer when the text is empty, too long or has
    characters that no SDP may have."""
    if len(text) > limits.bytes or len(text.encode(errors="replace")) > limits.bytes:
        raise BadOffer(f"The SDP is longer than {limits.bytes} bytes.")
    if text.count("\n") > limits.lines:
        raise BadOffer(f"The SDP has more than {limits.lines} lines.")
    lines = [(n, line.removesuffix("\r")) for n, line in enumerate(text.split("\n"), 1)]
    for number, line in lines:
        if fields.has_controls(line):
            raise BadOffer(f"Line {number} of the SDP has control characters: {_shown(line)}.")
    lines = [(n, line) for n, line in lines if line]
    if not lines:
        raise BadOffer("The SDP is empty.")
    return lines


def bad_offer(fault: SdpFault, number: int, line: str) -> BadOffer:
    """Say which line is wrong, and why."""
    return BadOffer(f"Line {number} of the SDP: {fault}: {_shown(line)}.")


def _shown(line: str) -> str:
    return ascii(line if len(line) <= _SHOWN else line[:_SHOWN] + "…")


def _start_media(media: list[Section], seen: set[str], value: str, number: int, limits: SdpLimits) -> None:
    missing = [key for key in ("o", "s", "t") if key not in seen]
    if missing:
        raise SdpFault(f"{missing[0]}= must come before the first m=")
    fields.at_most(len(media) + 1, limits.media, "m= lines")
    section = Section("media", number, limits)
    section.start(value)
    media.append(section)
    fields.at_most(sum(len(m.numbers) for m in media), limits.all_payload_types, "payload types in all")


def _describe(origin: str, session: Section, sections: list[Section]) -> SessionDescription:
    media = tuple(_fold(section, session) for section in sections)
    mids = [m.mid for m in media if m.mid]
    known = set(mids)
    if len(known) != len(mids):
        raise BadOffer("Two m= lines of the SDP have the same mid.")
    grouped: set[str] = set()
    for group in session.bundle:
        for mid in group:
            if mid not in known:
                raise BadOffer(f"The BUNDLE group names mid {mid!r}, which no m= line has.")
            if mid in grouped:
                raise BadOffer(f"Mid {mid!r} is in the BUNDLE groups twice.")
            grouped.add(mid)
    return SessionDescription(
        origin=origin,
        bundle=tuple(session.bundle),
        ice_lite=session.ice_lite,
        allow_mixed=session.allow_mixed,
        media=media,
    )


def _fold(section: Section, session: Section) -> Media:
    """Make the value of an m-line, taking from the session what the m-line does not say itself."""
    one, default = section.single, session.single
    return Media(
        line=section.line,
        kind=section.kind,
        port=section.port,
        protocol=section.protocol,
        numbers=section.numbers,
        mid=one.get("mid", ""),
        direction=one.get("direction") or default.get("direction", "sendrecv"),
        ufrag=one.get("ice-ufrag") or default.get("ice-ufrag", ""),
        password=one.get("ice-pwd") or default.get("ice-pwd", ""),
        ice_options=frozenset(section.ice_options | session.ice_options),
        fingerprints=_unique(section.fingerprints or session.fingerprints),
        setup=one.get("setup") or default.get("setup", ""),
        formats=_formats(section),
        extensions=tuple({e.id: e for e in (*session.extensions, *section.extensions)}.values()),
        allow_mixed=section.allow_mixed or session.allow_mixed,
        rids=_rids(section),
        simulcast_send=section.simulcast_send,
        simulcast_receive=section.simulcast_receive,
        ssrcs=tuple(Ssrc(n, said.get("cname", ""), said.get("msid", "")) for n, said in section.ssrcs.items()),
        ssrc_groups=tuple(section.ssrc_groups),
        msid=one.get("msid") or next((s["msid"] for s in section.ssrcs.values() if s.get("msid")), ""),
        content=one.get("content", ""),
        rtcp_mux="rtcp-mux" in section.flags or "rtcp-mux-only" in section.flags,
        rtcp_mux_only="rtcp-mux-only" in section.flags,
        rtcp_rsize="rtcp-rsize" in section.flags,
        bundle_only="bundle-only" in section.flags,
        candidates=tuple(section.candidates),
        end_of_candidates="end-of-candidates" in section.flags or "end-of-candidates" in session.flags,
    )


def _unique(fingerprints: list[Fingerprint]) -> tuple[Fingerprint, ...]:
    return tuple(dict.fromkeys(fingerprints))


def _rids(section: Section) -> tuple[Rid, ...]:
    for direction, streams in (("send", section.simulcast_send), ("recv", section.simulcast_receive)):
        for stream in streams:
            rid = section.rids.get(stream.rid)
            if rid is None or rid.direction != direction:
                raise BadOffer(
                    f"The m-line at line {section.line} of the SDP has simulcast of rid {stream.rid!r}"
                    f" without a line a=rid:{stream.rid} {direction}."
                )
    return tuple(section.rids.values())


def _formats(section: Section) -> tuple[Format, ...]:
    everywhere = frozenset(section.feedback.get("*", ()))
    formats = []
    for number in section.payload_numbers:
        codec, clock_hz, channels = section.rtpmap.get(number) or fields.STATIC_FORMATS.get(number, ("", 0, 1))
        parameters = section.fmtp.get(number)
        feedback = section.feedback.get(str(number))
        formats.append(
            Format(
                number=number,
                codec=codec,
                clock_hz=clock_hz,
                channels=channels,
                # Shared when empty: an offer may have thousands of formats that say nothing.
                parameters=MappingProxyType(parameters) if parameters else NOTHING,
                feedback=everywhere | feedback if feedback else everywhere,
            )
        )
    return tuple(formats)
