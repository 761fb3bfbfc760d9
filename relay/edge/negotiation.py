"""Answers WHIP and WHEP offers: pure functions from an offer, our side and a room's wishes to an answer and a plan.

All m-lines share one transport (RFC 9143). An m-line that cannot be served is rejected with port 0; when none can,
UnacceptableOffer says why for each.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.edge.codecs import ChosenFormat, choose, feedback_of
from relay.edge.extensions import SessionExtensions
from relay.edge.layers import layers_of, offered_rids
from relay.edge.plan import LocalEnd, Negotiated, NegotiationPolicy, SlotPlan, TrackPlan
from relay.edge.sdp import Fingerprint, Media, SessionDescription
from relay.edge.sdp_writer import AnsweredMedia, AnsweredSession, write_answer
from relay.errors import BadOffer, UnacceptableOffer
from relay.plane.contract import Kind

_PROTOCOLS = ("UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "RTP/SAVPF", "RTP/SAVP")
_VERIFIABLE = ("sha-256", "sha-384", "sha-512")


@dataclass(frozen=True, slots=True)
class _Transport:
    """The offerer's end of the one transport, and our part in the DTLS handshake."""

    ufrag: str
    password: str
    fingerprints: tuple[Fingerprint, ...]
    role: str
    ice_options: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Accepted:
    """An m-line that can be served, with what is common."""

    offered: Media
    kind: Kind
    formats: tuple[ChosenFormat, ...]


def answer_publish(offer: SessionDescription, local: LocalEnd, policy: NegotiationPolicy) -> Negotiated:
    """Answer a WHIP offer: every m-line that sends (sendonly or sendrecv) becomes a track.

    Raises UnacceptableOffer when no m-line can be served or the transport cannot be, BadOffer when it is incomplete.
    """
    bundle = _bundle(offer)
    transport = _transport(offer, bundle)
    accepted = _accept(offer, bundle, policy, ("sendonly", "sendrecv"), "send")
    extensions = SessionExtensions(sending=False)
    sections, tracks = [], []
    for media in offer.media:
        entry = accepted.get(media.line)
        if entry is None:
            sections.append(AnsweredMedia(media))
            continue
        sections.append(
            AnsweredMedia(
                offered=media,
                formats=entry.formats,
                direction="recvonly",
                extensions=extensions.negotiate(media),
                rids=offered_rids(media, policy.max_layers),
            )
        )
        tracks.append(_track(entry, policy.max_layers))
    return _finish(offer, local, transport, sections, extensions, tracks=tuple(tracks))


def answer_watch(offer: SessionDescription, local: LocalEnd, policy: NegotiationPolicy) -> Negotiated:
    """Answer a WHEP offer: every m-line that receives (recvonly or sendrecv) becomes a slot.

    A slot keeps every common codec under the offer's numbers, because it is re-bound across codecs. Raises as
    `answer_publish` does.
    """
    bundle = _bundle(offer)
    transport = _transport(offer, bundle)
    accepted = _accept(offer, bundle, policy, ("recvonly", "sendrecv"), "receive")
    extensions = SessionExtensions(sending=True)
    sections: list[AnsweredMedia] = []
    slots: list[SlotPlan] = []
    for media in offer.media:
        entry = accepted.get(media.line)
        if entry is None:
            sections.append(AnsweredMedia(media))
            continue
        slot = _slot(entry, slots, local)
        slots.append(slot)
        sections.append(
            AnsweredMedia(
                offered=media,
                formats=entry.formats,
                direction="sendonly",
                extensions=extensions.negotiate(media),
                msid=f"{slot.stream} {slot.stream}-{slot.kind.value}",
                ssrc=slot.ssrc,
                rtx_ssrc=slot.rtx_ssrc,
                cname=slot.cname,
            )
        )
    return _finish(offer, local, transport, sections, extensions, slots=tuple(slots))


def _track(entry: _Accepted, max_layers: int) -> TrackPlan:
    return TrackPlan(
        mid=entry.offered.mid,
        kind=entry.kind,
        payload_types=tuple(chosen.payload_type for chosen in entry.formats),
        layers=layers_of(entry.offered, max_layers),
        feedback=feedback_of(entry.formats),
        source=_source(entry),
        msid=entry.offered.msid,
    )


def _source(entry: _Accepted) -> str:
    """Guess what is shown: RFC 4796's content, else a stream or track id that says screen."""
    if "slides" in entry.offered.content or "screen" in entry.offered.msid.lower():
        return "screen"
    return "camera" if entry.kind is Kind.VIDEO else "microphone"


def _slot(entry: _Accepted, before: list[SlotPlan], local: LocalEnd) -> SlotPlan:
    payload_types = tuple(chosen.payload_type for chosen in entry.formats)
    repaired = any(payload_type.codec == "rtx" for payload_type in payload_types)
    return SlotPlan(
        index=len(before),
        mid=entry.offered.mid,
        kind=entry.kind,
        payload_types=payload_types,
        feedback=feedback_of(entry.formats),
        ssrc=local.new_ssrc(),
        rtx_ssrc=local.new_ssrc() if repaired else None,
        stream=f"slot-{sum(slot.kind is entry.kind for slot in before)}",
        cname=local.cname,
    )


def _bundle(offer: SessionDescription) -> list[Media]:
    """Return the m-lines that share the transport; the first one in the group's order leads (RFC 9143 7.2)."""
    if offer.bundle:
        by_mid = {media.mid: media for media in offer.media}
        group = [by_mid[mid] for mid in offer.bundle[0]]
        return [media for media in group if not media.rejected]
    alive = [media for media in offer.media if not media.rejected]
    if len(alive) > 1:
        raise UnacceptableOffer(
            "The offer has several m-lines without BUNDLE; this relay has one port for all of them."
        )
    return alive


def _transport(offer: SessionDescription, bundle: list[Media]) -> _Transport:
    lead = next((media for media in bundle if media.ufrag), None) or next(iter(bundle), None)
    if lead is None:
        raise UnacceptableOffer("Every m-line of the offer is switched off (port 0).")
    if not lead.ufrag or not lead.password:
        raise BadOffer(f"The m-line at line {lead.line} needs ice-ufrag and ice-pwd.")
    if offer.ice_lite:
        raise UnacceptableOffer("The offer is ICE-lite; this relay is too, so nobody would send checks.")
    if not any(f.algorithm in _VERIFIABLE for f in lead.fingerprints):
        raise UnacceptableOffer(f"The offer has no DTLS fingerprint by {', '.join(_VERIFIABLE)}.")
    if lead.setup == "holdconn":
        raise UnacceptableOffer("The offer holds the connection back (setup:holdconn).")
    return _Transport(
        ufrag=lead.ufrag,
        password=lead.password,
        fingerprints=lead.fingerprints,
        # The DTLS server chooses the SRTP profile, so we are it whenever the offer lets us (RFC 8842 5.2).
        role="client" if lead.setup == "passive" else "server",
        ice_options=lead.ice_options,
    )


def _accept(
    offer: SessionDescription, bundle: list[Media], policy: NegotiationPolicy, directions: tuple[str, str], verb: str
) -> dict[int, _Accepted]:
    """Return the m-lines that can be served, by line number. Raises UnacceptableOffer when there is none."""
    shared = {media.line for media in bundle}
    accepted: dict[int, _Accepted] = {}
    reasons = []
    for media in offer.media:
        entry = _accept_one(media, policy, directions, verb) if media.line in shared else "it is not bundled or off"
        if isinstance(entry, str):
            reasons.append(f"line {media.line} ({media.kind}): {entry}")
        elif len(accepted) < policy.max_media:
            accepted[media.line] = entry
    if not accepted:
        shown = "; ".join(reasons[:4])
        raise UnacceptableOffer(f"No m-line of the offer can be served: {shown}.")
    return accepted


def _accept_one(media: Media, policy: NegotiationPolicy, directions: tuple[str, str], verb: str) -> _Accepted | str:
    """Return what is common, or the reason why the m-line cannot be served."""
    if media.kind not in ("audio", "video"):
        return "only audio and video are served"
    if media.protocol not in _PROTOCOLS:
        return f"{media.protocol} is not RTP over DTLS-SRTP"
    if media.direction not in directions:
        return f"it is {media.direction}, but has to {verb}"
    if not media.rtcp_mux:
        return "it lacks rtcp-mux"
    kind = Kind(media.kind)
    codecs = policy.audio_codecs if kind is Kind.AUDIO else policy.video_codecs
    formats = choose(media, codecs)
    if not formats:
        offered = sorted({f.codec for f in media.formats if f.codec and f.codec != "rtx"})
        return f"no common codec (room: {', '.join(codecs)}; offer: {', '.join(offered[:12])})"
    return _Accepted(media, kind, formats)


def _finish(
    offer: SessionDescription,
    local: LocalEnd,
    transport: _Transport,
    sections: list[AnsweredMedia],
    extensions: SessionExtensions,
    *,
    tracks: tuple[TrackPlan, ...] = (),
    slots: tuple[SlotPlan, ...] = (),
) -> Negotiated:
    session = AnsweredSession(
        local=local,
        setup="active" if transport.role == "client" else "passive",
        ice_options=transport.ice_options,
        bundled=bool(offer.bundle),
        allow_mixed=any(media.allow_mixed for media in offer.media),
    )
    return Negotiated(
        answer=write_answer(session, sections),
        remote_ufrag=transport.ufrag,
        remote_password=transport.password,
        remote_fingerprints=transport.fingerprints,
        dtls_role=transport.role,
        extensions=extensions.agreed,
        tracks=tracks,
        slots=slots,
    )
