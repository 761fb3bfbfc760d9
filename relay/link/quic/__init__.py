"""`relay.link.transport` over aioquic: our own endpoint, identities checked on both sides, path MTU discovery."""

from __future__ import annotations
