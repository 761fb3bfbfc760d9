"""Writes SDP answers (RFC 8829 5.3): ICE-lite, everything bundled on the first accepted m-line, candidates inline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relay.edge.codecs import ChosenFormat
from relay.edge.plan import LocalCandidate, LocalEnd
from relay.edge.sdp import ExtensionMap, Media

_KNOWN_ICE_OPTIONS = ("trickle", "ice2")


@dataclass(frozen=True, slots=True)
class AnsweredMedia:
    """How one m-line of the offer is answered; without `formats` it is rejected."""

    offered: Media
    formats: tuple[ChosenFormat, ...] = ()
    direction: str = "inactive"
    extensions: tuple[ExtensionMap, ...] = ()
    rids: tuple[str, ...] = ()
    """Received, in the offer's order; more than one make a simulcast line."""
    msid: str = ""
    """Stream and track id of what we send."""
    ssrc: int | None = None
    rtx_ssrc: int | None = None
    cname: str = ""


@dataclass(frozen=True, slots=True)
class AnsweredSession:
    """What holds for the whole answer. `setup` is passive or active."""

    local: LocalEnd
    setup: str
    ice_options: frozenset[str]
    bundled: bool
    allow_mixed: bool


def write_answer(session: AnsweredSession, sections: Sequence[AnsweredMedia]) -> str:
    """Write the answer, with CRLF line ends."""
    local = session.local
    accepted = [section for section in sections if section.formats]
    lines = ["v=0", f"o=costream {local.session_id} 1 IN IP4 127.0.0.1", "s=-", "t=0 0"]
    if session.bundled:
        lines.append(" ".join(["a=group:BUNDLE", *(section.offered.mid for section in accepted)]))
    if session.allow_mixed:
        lines.append("a=extmap-allow-mixed")
    lines += ["a=ice-lite", "a=msid-semantic:WMS *"]
    for section in sections:
        lines += _media_lines(session, section, section is accepted[0]) if section.formats else _rejected_lines(section)
    return "\r\n".join(lines) + "\r\n"


def candidate_lines(candidates: Sequence[LocalCandidate]) -> list[str]:
    """Write our candidates and that there are no more."""
    lines = []
    for place, candidate in enumerate(candidates, 1):
        related = "" if candidate.kind == "host" else " raddr 0.0.0.0 rport 0"
        lines.append(
            f"a=candidate:{place} 1 udp {candidate.priority} {candidate.host} {candidate.port}"
            f" typ {candidate.kind}{related}"
        )
    return [*lines, "a=end-of-candidates"]


def ice_option_lines(options: frozenset[str]) -> list[str]:
    """Repeat the offered ICE options that we know."""
    known = [option for option in _KNOWN_ICE_OPTIONS if option in options]
    return ["a=ice-options:" + " ".join(known)] if known else []


def _rejected_lines(section: AnsweredMedia) -> list[str]:
    offered = section.offered
    lines = [f"m={offered.kind} 0 {offered.protocol} {' '.join(offered.numbers)}", "c=IN IP4 0.0.0.0"]
    if offered.mid:
        lines.append(f"a=mid:{offered.mid}")
    return [*lines, "a=inactive"]


def _media_lines(session: AnsweredSession, section: AnsweredMedia, first: bool) -> list[str]:
    local, offered = session.local, section.offered
    numbers = " ".join(str(chosen.payload_type.number) for chosen in section.formats)
    port, address = _default_address(local)
    lines = [f"m={offered.kind} {port} {offered.protocol} {numbers}", f"c=IN {address}"]
    if first:
        lines += candidate_lines(local.candidates)
    lines += [f"a=ice-ufrag:{local.ufrag}", f"a=ice-pwd:{local.password}", *ice_option_lines(session.ice_options)]
    lines += [f"a=fingerprint:{f.algorithm} {f.value}" for f in local.fingerprints]
    lines.append(f"a=setup:{session.setup}")
    if offered.mid:
        lines.append(f"a=mid:{offered.mid}")
    lines += [_extension_line(extension) for extension in section.extensions]
    lines.append(f"a={section.direction}")
    if section.msid:
        lines.append(f"a=msid:{section.msid}")
    lines.append("a=rtcp-mux")
    if offered.rtcp_rsize:
        lines.append("a=rtcp-rsize")
    return lines + _format_lines(section) + _stream_lines(section)


def _default_address(local: LocalEnd) -> tuple[int, str]:
    if not local.candidates:
        return 9, "IP4 0.0.0.0"
    default = local.candidates[0]
    return default.port, f"{'IP6' if ':' in default.host else 'IP4'} {default.host}"


def _extension_line(extension: ExtensionMap) -> str:
    direction = f"/{extension.direction}" if extension.direction else ""
    return f"a=extmap:{extension.id}{direction} {extension.uri}"


def _format_lines(section: AnsweredMedia) -> list[str]:
    lines = []
    for chosen in section.formats:
        number = chosen.payload_type.number
        lines.append(f"a=rtpmap:{number} {chosen.rtpmap}")
        lines += [f"a=rtcp-fb:{number} {kind}" for kind in chosen.feedback]
        if chosen.fmtp:
            lines.append(f"a=fmtp:{number} {chosen.fmtp}")
    return lines


def _stream_lines(section: AnsweredMedia) -> list[str]:
    lines = [f"a=rid:{rid} recv" for rid in section.rids]
    if len(section.rids) > 1:
        lines.append("a=simulcast:recv " + ";".join(section.rids))
    if section.ssrc is None:
        return lines
    ssrcs = [section.ssrc] if section.rtx_ssrc is None else [section.ssrc, section.rtx_ssrc]
    if section.rtx_ssrc is not None:
        lines.append(f"a=ssrc-group:FID {section.ssrc} {section.rtx_ssrc}")
    for ssrc in ssrcs:
        lines += [f"a=ssrc:{ssrc} cname:{section.cname}", f"a=ssrc:{ssrc} msid:{section.msid}"]
    return lines
