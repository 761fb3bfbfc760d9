"""Collects one section of an SDP, the session's or an m-line's, and refuses what is too much or contradictory."""

from __future__ import annotations

from collections.abc import Callable

from relay.edge import sdp_fields as fields
from relay.edge.sdp import Candidate, ExtensionMap, Fingerprint, Rid, SdpLimits, SimulcastStream, SsrcGroup
from relay.edge.sdp_fields import SdpFault

_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
_FLAGS = ("rtcp-mux", "rtcp-mux-only", "rtcp-rsize", "bundle-only", "end-of-candidates")
_SETUPS = ("actpass", "active", "passive", "holdconn")
# What stands at session level is folded into every m-line, so these bound a product.
_MAX_FINGERPRINTS = 16
_MAX_EXTENSIONS = 64
_MAX_ICE_OPTIONS = 16
_MAX_FEEDBACK = 16  # per payload type; WebRTC defines about ten
_MAX_SHOWN_ID = 256  # msid: two tokens, browsers use UUIDs


class Section:
    """A section being read. `single` holds the attributes that may stand once."""

    def __init__(self, level: str, line: int, limits: SdpLimits) -> None:
        self.level = level
        self.line = line
        self.kind = ""
        self.port = 0
        self.protocol = ""
        self.numbers: tuple[str, ...] = ()
        self.payload_numbers: tuple[int, ...] = ()
        self.single: dict[str, str] = {}
        self.flags: set[str] = set()
        self.bundle: list[tuple[str, ...]] = []
        self.ice_lite = False
        self.allow_mixed = False
        self.ice_options: set[str] = set()
        self.fingerprints: list[Fingerprint] = []
        self.rtpmap: dict[int, tuple[str, int, int]] = {}
        self.fmtp: dict[int, dict[str, str]] = {}
        self.feedback: dict[str, set[str]] = {}
        self.extensions: list[ExtensionMap] = []
        self.rids: dict[str, Rid] = {}
        self.simulcast_send: tuple[SimulcastStream, ...] = ()
        self.simulcast_receive: tuple[SimulcastStream, ...] = ()
        self.ssrcs: dict[int, dict[str, str]] = {}
        self.ssrc_groups: list[SsrcGroup] = []
        self.candidates: list[Candidate] = []
        self._limits = limits
        self._count = 0
        self._extension_ids: dict[int, str] = {}

    def start(self, value: str) -> None:
        """Read the value of the m= line."""
        parts = value.split()
        if len(parts) < 4:
            raise SdpFault("m= needs a kind, port, protocol and formats")
        self.kind = fields.token(parts[0], "the kind of media")
        self.port = fields.number(parts[1].partition("/")[0], 0, 65_535, "the port")
        if not fields.is_visible(parts[2]):
            raise SdpFault("the protocol is malformed")
        self.protocol = parts[2]
        self.numbers = tuple(parts[3:])
        if len(self.numbers) > self._limits.payload_types:
            raise SdpFault(f"more than {self._limits.payload_types} payload types")
        if "RTP/" not in self.protocol:
            self.numbers = tuple(fields.token(name, "a format") for name in self.numbers)
        else:
            self.payload_numbers = tuple(fields.number(n, 0, 127, "a payload type") for n in self.numbers)
            if len(set(self.payload_numbers)) != len(self.payload_numbers):
                raise SdpFault("a payload type stands twice")

    def read(self, attribute: str) -> None:
        """Read the value of an a= line. Raises SdpFault."""
        self._count += 1
        if self._count > self._limits.attributes:
            raise SdpFault(f"more than {self._limits.attributes} attributes in a section")
        name, colon, value = attribute.partition(":")
        reader = _READERS.get(name)
        if reader is not None:
            if not colon and name != "ice-lite" and name != "extmap-allow-mixed":
                raise SdpFault(f"{name} needs a value")
            reader(self, value)
        elif name in _DIRECTIONS:
            self._once("direction", name)
        elif name in _FLAGS:
            self.flags.add(name)

    def _once(self, name: str, value: str) -> None:
        if self.single.setdefault(name, value) != value:
            raise SdpFault(f"the section already says {name} {self.single[name][:40]!r}")

    def _group(self, value: str) -> None:
        words = value.split()
        if words[:1] == ["BUNDLE"] and self.level == "session":
            self.bundle.append(tuple(fields.token(mid, "a mid") for mid in words[1:]))

    def _ice_lite(self, _: str) -> None:
        self.ice_lite = True

    def _allow_mixed(self, _: str) -> None:
        self.allow_mixed = True

    def _mid(self, value: str) -> None:
        self._once("mid", fields.token(value.strip(), "a mid"))

    def _ufrag(self, value: str) -> None:
        self._once("ice-ufrag", fields.ice_characters(value.strip(), 4, "the ICE user fragment"))

    def _password(self, value: str) -> None:
        self._once("ice-pwd", fields.ice_characters(value.strip(), 22, "the ICE password"))

    def _options(self, value: str) -> None:
        self.ice_options.update(fields.ice_options(value))
        fields.at_most(len(self.ice_options), _MAX_ICE_OPTIONS, "ICE options")

    def _fingerprint(self, value: str) -> None:
        self.fingerprints.append(fields.fingerprint(value))
        fields.at_most(len(self.fingerprints), _MAX_FINGERPRINTS, "fingerprints")

    def _setup(self, value: str) -> None:
        if value.strip() not in _SETUPS:
            raise SdpFault("setup is actpass, active, passive or holdconn")
        self._once("setup", value.strip())

    def _msid(self, value: str) -> None:
        # Several streams may be named; the first one is kept.
        self.single.setdefault("msid", value.strip()[:_MAX_SHOWN_ID])

    def _content(self, value: str) -> None:
        self.single.setdefault("content", value.strip()[:_MAX_SHOWN_ID].lower())

    def _rtpmap(self, value: str) -> None:
        payload, mapped = fields.rtpmap(value)
        number = fields.number(payload, 0, 127, "a payload type")
        if self.rtpmap.setdefault(number, mapped) != mapped:
            raise SdpFault(f"payload type {number} is already {self.rtpmap[number][0]}")

    def _fmtp(self, value: str) -> None:
        payload, parameters = fields.fmtp(value)
        known = self.fmtp.setdefault(fields.number(payload, 0, 127, "a payload type"), {})
        for name, content in parameters.items():
            if known.setdefault(name, content) != content:
                raise SdpFault(f"payload type {payload} already has another {name[:40]!r}")

    def _feedback(self, value: str) -> None:
        payload, _, kind = value.strip().partition(" ")
        if payload != "*":
            payload = str(fields.number(payload, 0, 127, "a payload type"))
        known = self.feedback.setdefault(payload, set())
        if len(known) < _MAX_FEEDBACK:
            known.add(" ".join(kind.split()).lower())

    def _extension(self, value: str) -> None:
        extension = fields.extension(value)
        if self._extension_ids.setdefault(extension.id, extension.uri) != extension.uri:
            raise SdpFault(f"extension id {extension.id} is already taken in this section")
        self.extensions.append(extension)
        fields.at_most(len(self.extensions), _MAX_EXTENSIONS, "header extensions")

    def _rid(self, value: str) -> None:
        rid = fields.rid(value)
        if rid.name in self.rids:
            raise SdpFault(f"rid {rid.name!r} stands twice")
        self.rids[rid.name] = rid

    def _simulcast(self, value: str) -> None:
        if self.simulcast_send or self.simulcast_receive:
            raise SdpFault("the section already has simulcast")
        lists = fields.simulcast(value)
        self.simulcast_send = lists.get("send", ())
        self.simulcast_receive = lists.get("recv", ())

    def _ssrc(self, value: str) -> None:
        number, name, content = fields.ssrc(value)
        said = self.ssrcs.setdefault(number, {})
        if len(self.ssrcs) > self._limits.ssrcs:
            raise SdpFault(f"more than {self._limits.ssrcs} SSRCs in a section")
        if name in ("cname", "msid") and said.setdefault(name, content[:_MAX_SHOWN_ID]) != content[:_MAX_SHOWN_ID]:
            raise SdpFault(f"SSRC {number} already has another {name}")

    def _ssrc_group(self, value: str) -> None:
        if len(self.ssrc_groups) >= self._limits.ssrcs:
            raise SdpFault(f"more than {self._limits.ssrcs} SSRC groups in a section")
        self.ssrc_groups.append(fields.ssrc_group(value, self._limits.ssrcs))

    def _candidate(self, value: str) -> None:
        if len(self.candidates) >= self._limits.candidates:
            raise SdpFault(f"more than {self._limits.candidates} candidates in a section")
        self.candidates.append(fields.candidate(value))


_READERS: dict[str, Callable[[Section, str], None]] = {
    "group": Section._group,
    "ice-lite": Section._ice_lite,
    "extmap-allow-mixed": Section._allow_mixed,
    "mid": Section._mid,
    "ice-ufrag": Section._ufrag,
    "ice-pwd": Section._password,
    "ice-options": Section._options,
    "fingerprint": Section._fingerprint,
    "setup": Section._setup,
    "msid": Section._msid,
    "content": Section._content,
    "rtpmap": Section._rtpmap,
    "fmtp": Section._fmtp,
    "rtcp-fb": Section._feedback,
    "extmap": Section._extension,
    "rid": Section._rid,
    "simulcast": Section._simulcast,
    "ssrc": Section._ssrc,
    "ssrc-group": Section._ssrc_group,
    "candidate": Section._candidate,
}
