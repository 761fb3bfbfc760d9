"""The HTTP half of WHIP (RFC 9725) and WHEP for clients: an offer goes out, a session resource comes back."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Self
from urllib.parse import urljoin

import httpx2

MOST_REDIRECTS = 3


class Refused(Exception):
    """The endpoint did not answer 201 with SDP. `status` is what it said instead, `body` its first 500 characters."""

    def __init__(self, status: int, body: str, headers: dict[str, str]) -> None:
        super().__init__(f"the endpoint answered {status}: {body[:500]}")
        self.status, self.body, self.headers = status, body[:500], headers


@dataclass(frozen=True, slots=True)
class Resource:
    """A session at the endpoint: the answer, the address to PATCH and DELETE, and its entity tag ("" without)."""

    answer: str
    location: str
    etag: str


class Endpoint:
    """One WHIP or WHEP address. `verify=False` accepts a self-signed certificate."""

    def __init__(self, url: str, token: str = "", *, verify: bool = True, timeout: float = 10.0) -> None:
        self.url = url
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx2.AsyncClient(verify=_context(verify), headers=headers, timeout=timeout, trust_env=False)

    async def offer(self, sdp: str) -> Resource:
        """POST an offer. Raises Refused, or httpx2.HTTPError when nobody answers.

        Where it is sent to another node the token goes along (RFC 9725 section 4.6), which httpx2 would not do.
        """
        url = self.url
        for _ in range(MOST_REDIRECTS + 1):
            response = await self._client.post(url, content=sdp.encode(), headers={"Content-Type": "application/sdp"})
            if response.status_code not in (307, 308) or "location" not in response.headers:
                break
            url = urljoin(url, response.headers["location"])
        if response.status_code != 201 or "location" not in response.headers:
            raise Refused(response.status_code, response.text, dict(response.headers))
        location = urljoin(str(response.url), response.headers["location"])
        return Resource(response.text, location, response.headers.get("etag", ""))

    async def trickle(self, resource: Resource, fragment: str) -> int:
        """PATCH an SDP fragment (RFC 8840) and return the status."""
        headers = {"Content-Type": "application/trickle-ice-sdpfrag"}
        if resource.etag:
            headers["If-Match"] = resource.etag
        return (await self._client.patch(resource.location, content=fragment.encode(), headers=headers)).status_code

    async def delete(self, resource: Resource) -> int:
        """End the session and return the status."""
        return (await self._client.delete(resource.location)).status_code

    async def close(self) -> None:
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _context(verify: bool) -> ssl.SSLContext:
    if verify:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
