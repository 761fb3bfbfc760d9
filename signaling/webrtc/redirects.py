"""Sending a WHIP or WHEP client to another node with 307 (RFC 9725 section 4.6)."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

from fastapi import Request

from relay import errors
from signaling.problems import Problem, problem_of

VIA = "via"
"""Query parameter of a redirected request: it is not redirected again, or two full nodes would play ball with it."""
REGION_HEADER, REGION_QUERY = "X-Region", "region"
_MOST_REGION = 64


def region_of(request: Request) -> str:
    """Return the region that the client, or the load balancer before us, names; empty for none."""
    named = request.headers.get(REGION_HEADER) or request.query_params.get(REGION_QUERY) or ""
    return named.strip() if len(named) <= _MOST_REGION and named.isprintable() else ""


def may_follow(request: Request) -> bool:
    """Whether a redirect helps. Browsers drop the Authorization header on the way to another origin (Fetch standard,
    HTTP-redirect fetch), so a page would end with 401."""
    return VIA not in request.query_params and "sec-fetch-mode" not in request.headers


def redirect_url(request: Request, base: str) -> str:
    """Return where to send a request: the same path and query at another node's public URL."""
    query = [*parse_qsl(request.url.query, keep_blank_values=True), (VIA, "redirect")]
    return f"{base.rstrip('/')}{request.url.path}?{urlencode(query)}"


def redirected(request: Request, base: str, refusal: Problem | errors.Overloaded) -> str:
    """Return where to send a request that is refused here. Raises the refusal when there is nowhere else, and for a
    page with the member `elsewhere`, the base URL of the node to offer to instead."""
    if base and may_follow(request):
        return redirect_url(request, base)
    problem = refusal if isinstance(refusal, Problem) else problem_of(refusal)
    if not base or VIA in request.query_params or problem is None:
        raise refusal
    problem.members["elsewhere"] = base
    raise problem from None
