"""Errors by who is guilty, so that a handler knows how far the damage goes.

`PeerError` closes at most that peer. `UsageError` is our own bug and surfaces. `Overloaded` is neither: the node is
full and says when to come back. The rest are answers to a request; each has one problem class in the API.
"""

from __future__ import annotations


class CostreamError(Exception):
    """Root of all errors raised on purpose."""


class PeerError(CostreamError):
    """A remote end sent something wrong. Close that peer, keep the node."""


class UsageError(CostreamError):
    """The caller broke a contract inside this process: a bug of ours."""


class SettingsError(CostreamError):
    """A setting is unknown, malformed or out of range. Names the file, the line and the nearest right key."""


class Overloaded(CostreamError):
    """The node is at a limit; those inside keep playing.

    `retry_after` is in whole seconds.
    """

    def __init__(self, reason: str, retry_after: int = 5) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class StoreUnavailable(Overloaded):
    """The room store does not answer. Live sessions play on; changes have to wait."""


class NodeUnreachable(Overloaded):
    """The node that this concerns does not answer. It may have carried out what it was asked."""


class DeadlineExceeded(Overloaded):
    """Whoever asked waits no longer, so the work was not begun."""


class NodeFailed(CostreamError):
    """A part of this process is lost that only a new process can replace: whatever started it should do so again."""


class CorruptDocument(CostreamError):
    """The store holds a room that cannot be read: not JSON, or fields missing or of the wrong type. Names the field."""


class RequestError(CostreamError):
    """A request that cannot be served as asked.

    `code` names the case for programs (kebab-case, e.g. `seat-taken`); empty when the class alone says it all.
    """

    def __init__(self, detail: str = "", *, code: str = "") -> None:
        super().__init__(detail)
        self.code = code


class BadOffer(RequestError):
    """The SDP is malformed, too large or contradictory (400)."""


class UnacceptableOffer(RequestError):
    """The SDP is well formed, but nothing in it can be answered: no common codec, no DTLS, wrong directions (422)."""


class BadRequest(RequestError):
    """A field is missing, of the wrong type or out of range (400)."""


class Forbidden(RequestError):
    """The token is good, but its role may not do this (403)."""


class NotFound(RequestError):
    """No such room, participant, publication, session or slot (404)."""


class Conflict(RequestError):
    """The state does not allow this now: seat taken, room exists, no open invitation (409)."""


class LeaseHeld(Conflict):
    """Another node is the origin of the publication: `owner`, under `epoch`."""

    def __init__(self, detail: str = "", *, code: str = "", owner: str = "", epoch: int = 0) -> None:
        super().__init__(detail, code=code)
        self.owner = owner
        self.epoch = epoch


class PreconditionFailed(RequestError):
    """The entity tag given with If-Match is not the current one (412)."""


class PreconditionRequired(RequestError):
    """An ICE restart without If-Match (428)."""
