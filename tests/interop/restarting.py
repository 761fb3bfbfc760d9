"""ICE restart (RFC 9725 section 4.3.2) by the libwebrtc clients."""

from __future__ import annotations

import re

import httpx2
import webrtc

from costream.synthetic import SyntheticHost, gathered
from costream.whip import Resource
from tests.interop.clients.wrtc_client import Watcher


async def restart_ice(client: SyntheticHost | Watcher, token: str) -> None:
    """Gather anew, on other local ports, PATCH the session and take the relay's new credentials."""
    pc, resource = client._pc, client.resource
    assert resource
    await pc.set_local_description(await pc.create_offer(webrtc.RTCOfferOptions(ice_restart=True)))
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/trickle-ice-sdpfrag",
        "If-Match": resource.etag,
    }
    async with httpx2.AsyncClient(trust_env=False) as http:
        fragment = fragment_of(await gathered(pc))
        response = await http.patch(resource.location, content=fragment.encode(), headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["etag"] != resource.etag
    answer = with_credentials(resource.answer, response.text)
    await pc.set_remote_description(webrtc.RTCSessionDescriptionInit(type="answer", sdp=answer))
    client.resource = Resource(answer, resource.location, response.headers["etag"])


def fragment_of(offer: str) -> str:
    """The SDP fragment (RFC 8840) with an offer's credentials and first m-line."""
    lines = offer.splitlines()
    wanted = ("a=ice-ufrag:", "a=ice-pwd:", "m=", "a=mid:")
    found = [next(line for line in lines if line.startswith(prefix)) for prefix in wanted]
    return "\r\n".join([*found, ""])


def with_credentials(answer: str, fragment: str) -> str:
    """An answer with the ufrag and password of the fragment that answered a restart."""
    for name in ("ice-ufrag", "ice-pwd"):
        found = re.search(rf"^a={name}:(\S+)", fragment, re.MULTILINE)
        assert found, fragment
        answer = re.sub(rf"^a={name}:\S+", f"a={name}:{found[1]}", answer, flags=re.MULTILINE)
    return answer
