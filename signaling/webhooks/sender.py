"""One try to deliver a webhook: a POST to an address that was looked up and checked just before."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from relay.addresses import in_a_thread, look_up
from relay.errors import BadRequest
from relay.settings import WebhookSettings

PORTS = {"https": 443, "http": 80}
MAX_URL = 2048
LOOK_UP_S = 5.0
MOST_ADDRESSES = 4
"""Of a name that are tried one after the other; they share the time of one try."""
LONGEST_RETRY_AFTER_S = 86_400


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a try. `reason` names it for programs: `http-503`, `unreachable`, `timeout`, `target-not-allowed`.

    `gone`: the endpoint wants no more (410). `retry_after` in seconds, 0 for not told.
    """

    ok: bool
    reason: str = ""
    gone: bool = False
    retry_after: float = 0.0


class Sender:
    """Sends to any number of endpoints, each on connections of its own. `close` it."""

    def __init__(self, settings: WebhookSettings, verify: object = True) -> None:
        self._settings, self._verify = settings, verify
        self._clients: dict[str, httpx2.AsyncClient] = {}

    async def check(self, url: str) -> None:
        """Raise BadRequest for an address that is none or not allowed. A name that cannot be looked up now passes: it
        is looked up and checked before every try."""
        host, port = check_url(url, allow_plain=self._settings.allow_plain_http)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(LOOK_UP_S):
                await self._look_up(host, port)

    async def send(self, endpoint: str, url: str, headers: Mapping[str, str], body: str) -> Outcome:
        """One try; never raises for what the other end does. Redirects are refused: they lead past the check."""
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await self._send(endpoint, url, headers, body)
        except TimeoutError:
            return Outcome(False, "timeout")
        except BadRequest as error:
            return Outcome(False, error.code or "bad-target")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError):
            return Outcome(False, "unreachable")

    async def _send(self, endpoint: str, url: str, headers: Mapping[str, str], body: str) -> Outcome:
        host, port = check_url(url, allow_plain=self._settings.allow_plain_http)
        addresses = (await self._look_up(host, port))[:MOST_ADDRESSES]
        parts = urlsplit(url)
        named = {"Host": parts.netloc, **headers}

        async def post(address: str, connect_s: float) -> Outcome:
            shown = f"[{address}]" if ":" in address else address
            request = self._client(endpoint).build_request(
                "POST",
                httpx2.URL(parts._replace(netloc=f"{shown}:{port}").geturl()),
                content=body.encode(),
                headers=named,
                extensions={"sni_hostname": host},
                timeout=httpx2.Timeout(self._settings.timeout_s, connect=connect_s),
            )
            # The answer's status says it all: its body is not read.
            response = await self._client(endpoint).send(request, stream=True)
            try:
                return outcome_of(response.status_code, response.headers.get("retry-after", ""))
            finally:
                await response.aclose()

        for address in addresses[:-1]:
            with contextlib.suppress(httpx2.ConnectError, httpx2.ConnectTimeout):  # nothing was sent
                return await post(address, self._settings.timeout_s / len(addresses))
        return await post(addresses[-1], self._settings.timeout_s)

    async def _look_up(self, host: str, port: int) -> list[str]:
        setting = "webhooks.allow_private_targets"
        return await in_a_thread(look_up, host, port, self._settings.allow_private_targets, setting)

    async def forget(self, endpoint: str) -> None:
        """Close an endpoint's connections."""
        client = self._clients.pop(endpoint, None)
        if client is not None:
            await client.aclose()

    async def close(self) -> None:
        """Close all connections."""
        for endpoint in list(self._clients):
            await self.forget(endpoint)

    def _client(self, endpoint: str) -> httpx2.AsyncClient:
        """One for each endpoint: a connection was verified for its name, and none may be used for another's."""
        if endpoint not in self._clients:
            self._clients[endpoint] = httpx2.AsyncClient(
                trust_env=False,
                follow_redirects=False,
                verify=self._verify,  # type: ignore[arg-type]
                timeout=httpx2.Timeout(self._settings.timeout_s),
                limits=httpx2.Limits(max_connections=self._settings.parallel, keepalive_expiry=20),
            )
        return self._clients[endpoint]


def check_url(url: str, *, allow_plain: bool) -> tuple[str, int]:
    """Return an endpoint's host and port. Raises BadRequest, which does not quote it: addresses may hold keys."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadRequest("the endpoint's url is no address", code="bad-target") from None
    printable = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in PORTS or not parts.hostname or len(url) > MAX_URL or not printable or port == 0:
        raise BadRequest("the endpoint's url has to be https://host/…", code="bad-target")
    if parts.username is not None or parts.fragment:
        raise BadRequest("the endpoint's url has a user name or a fragment", code="bad-target")
    if parts.scheme == "http" and not allow_plain:
        raise BadRequest("the endpoint's url is not https (see webhooks.allow_plain_http)", code="target-not-allowed")
    return parts.hostname, port or PORTS[parts.scheme]


def outcome_of(status: int, retry_after: str) -> Outcome:
    """What an answer means. `Retry-After` counts for 429 and 503, in seconds."""
    if 200 <= status < 300:
        return Outcome(True)
    told = retry_after.strip()
    wait = 0.0
    if status in {429, 503} and told.isascii() and told.isdigit() and len(told) <= 9:
        wait = float(min(int(told), LONGEST_RETRY_AFTER_S))
    return Outcome(False, f"http-{status}", status == 410, wait)


def wait_before(tries: int, settings: WebhookSettings, dice: float) -> float | None:
    """Seconds before the next try after so many have failed: three times as long each time, spread by `dice` (0 to 1)
    over half to all of that, so that many do not come at once. None: enough."""
    if tries >= settings.attempts:
        return None
    longest = min(settings.retry_min_ms / 1000 * 3.0 ** min(tries - 1, 40), settings.retry_max_s)
    return longest * (0.5 + dice / 2)
