"""The grammar of single SDP fields. Each function reads one value in linear time or raises SdpFault with the reason."""

from __future__ import annotations

import re

from relay.edge.sdp import Candidate, ExtensionMap, Fingerprint, Rid, SimulcastStream, SsrcGroup

# RFC 3551 6: the static payload types that may stand without an rtpmap.
STATIC_FORMATS = {0: ("pcmu", 8000, 1), 8: ("pcma", 8000, 1), 9: ("g722", 8000, 1), 13: ("cn", 8000, 1)}

# Hash lengths in bytes (RFC 8122 5). Only those of `relay.edge.dtls` can be verified; the rest are read and not used.
HASH_LENGTHS = {"md5": 16, "sha-1": 20, "sha-224": 28, "sha-256": 32, "sha-384": 48, "sha-512": 64}

MAX_NAME = 64  # longest mid, rid or token of ours to echo; browsers use one or two characters
_MAX_U32 = 0xFFFFFFFF
_LINE = re.compile(r"([a-z])=(.*)", re.DOTALL)
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`{|}~0-9A-Za-z]+")  # RFC 8866 9, `token`
_RID = re.compile(r"[0-9A-Za-z_\-]+")
_ICE = re.compile(r"[0-9A-Za-z+/]+")
_HEX = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2})*")
_VISIBLE = re.compile(r"[!-~]+")
_HOST = re.compile(r"[0-9A-Za-z.:_%\-]+")


class SdpFault(Exception):
    """A field is wrong. The reader turns it into BadOffer with the line's number and text."""


def has_controls(line: str) -> bool:
    """Whether a line has characters that no SDP line may have (tab is let through)."""
    return _CONTROLS.search(line) is not None


def is_visible(text: str) -> bool:
    """Whether a short text has visible ASCII characters only."""
    return len(text) <= MAX_NAME and _VISIBLE.fullmatch(text) is not None


def key_and_value(line: str) -> tuple[str, str]:
    """Split `k=value`."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise SdpFault("this is no SDP line (a letter, '=' and a value)")
    return match[1], match[2]


def number(text: str, low: int, high: int, what: str) -> int:
    """Read a decimal number within bounds."""
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and low <= int(text) <= high):
        raise SdpFault(f"{what} must be a number from {low} to {high}")
    return int(text)


def version(key: str, value: str) -> None:
    """Check the first line."""
    if (key, value) != ("v", "0"):
        raise SdpFault("an SDP begins with v=0")


def at_most(count: int, most: int, what: str) -> None:
    """Check a count against a limit."""
    if count > most:
        raise SdpFault(f"more than {most} {what}")


def origin(value: str) -> str:
    """Read the user name of an o= line."""
    parts = value.split()
    if len(parts) != 6:
        raise SdpFault("o= needs six fields")
    return parts[0]


def token(value: str, what: str) -> str:
    """Read a token of at most `MAX_NAME` characters."""
    if len(value) > MAX_NAME or _TOKEN.fullmatch(value) is None:
        raise SdpFault(f"{what} must be a token of at most {MAX_NAME} characters")
    return value


def rid_name(value: str) -> str:
    """Read a restriction id (RFC 8851 10)."""
    if len(value) > MAX_NAME or _RID.fullmatch(value) is None:
        raise SdpFault(f"a rid has letters, digits, '-' and '_', at most {MAX_NAME}")
    return value


def ice_characters(value: str, low: int, what: str) -> str:
    """Read an ICE user fragment or password (RFC 8839 5.4)."""
    if not low <= len(value) <= 256 or _ICE.fullmatch(value) is None:
        raise SdpFault(f"{what} needs {low} to 256 letters, digits, '+' or '/'")
    return value


def ice_options(value: str) -> list[str]:
    """Read ICE options. libdatachannel joins them by commas, against RFC 8839 5.6."""
    return [token(option, "an ICE option") for option in value.replace(",", " ").split()]


def fingerprint(value: str) -> Fingerprint:
    """Read `sha-256 AB:CD:…`."""
    algorithm, _, digits = value.strip().partition(" ")
    algorithm, digits = algorithm.lower(), digits.strip()
    if _TOKEN.fullmatch(algorithm) is None or _HEX.fullmatch(digits) is None:
        raise SdpFault("a fingerprint is a hash name and hex pairs joined by colons")
    length = HASH_LENGTHS.get(algorithm)
    if length is not None and len(digits) != 3 * length - 1:
        raise SdpFault(f"a {algorithm} fingerprint has {length} bytes")
    return Fingerprint(algorithm, digits.upper())


def rtpmap(value: str) -> tuple[str, tuple[str, int, int]]:
    """Read `96 VP8/90000` or `111 opus/48000/2` as (number, (codec, clock rate, channels))."""
    payload, _, encoding = value.strip().partition(" ")
    parts = encoding.strip().split("/")
    if not 2 <= len(parts) <= 3:
        raise SdpFault("an rtpmap is a payload type and codec/clock rate[/channels]")
    codec = token(parts[0], "a codec name").lower()
    clock_hz = number(parts[1], 1, _MAX_U32, "a clock rate")
    return payload, (codec, clock_hz, number(parts[2], 1, 255, "the channels") if len(parts) == 3 else 1)


def fmtp(value: str) -> tuple[str, dict[str, str]]:
    """Read `96 a=1;b=2`. What is no list of pairs is kept whole under the key ""."""
    payload, _, rest = value.strip().partition(" ")
    parameters: dict[str, str] = {}
    rest = rest.strip()
    if "=" not in rest:
        return payload, {"": rest} if rest else {}
    for item in rest.split(";"):
        name, _, content = item.strip().partition("=")
        if name:
            parameters.setdefault(name.strip().lower(), content.strip())
    return payload, parameters


def extension(value: str) -> ExtensionMap:
    """Read `3/sendonly urn:… attributes`. Ids 4096 and up are place holders of an offer (RFC 8285 5)."""
    head, _, rest = value.strip().partition(" ")
    id_text, _, direction = head.partition("/")
    uri, _, attributes = rest.strip().partition(" ")
    if direction and direction not in ("sendrecv", "sendonly", "recvonly", "inactive"):
        raise SdpFault("an extmap direction is sendrecv, sendonly, recvonly or inactive")
    if _VISIBLE.fullmatch(uri) is None:
        raise SdpFault("an extmap needs a URI")
    return ExtensionMap(number(id_text, 1, 4351, "an extmap id"), uri, direction, attributes.strip())


def rid(value: str) -> Rid:
    """Read `q send pt=96;max-width=320`."""
    parts = value.split(None, 2)
    if len(parts) < 2 or parts[1] not in ("send", "recv"):
        raise SdpFault("a rid line is a name and 'send' or 'recv'")
    restrictions = {}
    for item in (parts[2] if len(parts) == 3 else "").split(";"):
        name, _, content = item.strip().partition("=")
        if name:
            restrictions[name.lower()] = content
    return Rid(rid_name(parts[0]), parts[1], restrictions)


def simulcast(value: str) -> dict[str, tuple[SimulcastStream, ...]]:
    """Read `send q;h;~f recv …`, the draft's `send rid=q;h` too; returns the lists by direction."""
    words = value.split()
    if len(words) not in (2, 4) or words[0] not in ("send", "recv"):
        raise SdpFault("simulcast is 'send' or 'recv' and a list of rids")
    lists = {}
    for direction, text in zip(words[::2], words[1::2], strict=True):
        if direction not in ("send", "recv") or direction in lists:
            raise SdpFault("simulcast has each of 'send' and 'recv' at most once")
        if text.startswith("pt="):
            raise SdpFault("simulcast by payload type is not supported")
        streams = [_simulcast_stream(item) for item in text.removeprefix("rid=").split(";")]
        if len({s.rid for s in streams}) != len(streams):
            raise SdpFault("simulcast names a rid twice")
        lists[direction] = tuple(streams)
    return lists


def _simulcast_stream(item: str) -> SimulcastStream:
    first = item.partition(",")[0]
    return SimulcastStream(rid_name(first.removeprefix("~")), first.startswith("~"))


def ssrc(value: str) -> tuple[int, str, str]:
    """Read `1234 cname:abc` as (SSRC, attribute, its value)."""
    head, _, rest = value.strip().partition(" ")
    name, _, content = rest.strip().partition(":")
    return number(head, 0, _MAX_U32, "an SSRC"), name, content.strip()


def ssrc_group(value: str, most: int) -> SsrcGroup:
    """Read `FID 1 2`."""
    parts = value.split()
    if len(parts) < 2 or len(parts) > most + 1:
        raise SdpFault(f"an SSRC group is a name and one to {most} SSRCs")
    return SsrcGroup(token(parts[0], "an SSRC group"), tuple(number(p, 0, _MAX_U32, "an SSRC") for p in parts[1:]))


def candidate(value: str) -> Candidate:
    """Read a candidate (RFC 8839 5.1) without its leading `candidate:`; extensions after the type are skipped."""
    parts = value.split()
    if len(parts) < 8 or parts[6] != "typ":
        raise SdpFault("a candidate has a foundation, component, transport, priority, address, port, 'typ' and a type")
    foundation, component, protocol, priority, host, port, _, kind = parts[:8]
    if len(host) > 255 or _HOST.fullmatch(host) is None:
        raise SdpFault("a candidate needs an address or a host name")
    tcp_type = parts[parts.index("tcptype") + 1] if "tcptype" in parts[8:-1] else ""
    return Candidate(
        foundation=foundation,
        component=number(component, 1, 256, "a component"),
        protocol=token(protocol, "a transport").lower(),
        priority=number(priority, 0, _MAX_U32, "a priority"),
        host=host,
        port=number(port, 0, 65_535, "a port"),
        kind=token(kind, "a candidate type").lower(),
        tcp_type=tcp_type,
    )
