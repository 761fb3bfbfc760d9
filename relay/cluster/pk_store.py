"""PK records on a server that speaks the Redis protocol: one key each, so that one compare-and-set decides for two
rooms, also where these live on different shards of a Redis Cluster."""

from __future__ import annotations

import json
from typing import Any

from redis.asyncio import Redis

from relay.cluster.gate import StoreGate
from relay.errors import Conflict, CorruptDocument, NotFound, Overloaded
from relay.ports import ChangeRecord

KEEP_S = 3600.0
"""A record is forgotten so long after its last change and what it was still good for."""
_ATTEMPTS = 64

# KEYS: record. ARGV: expected version (0: there must be none), document, milliseconds to live
_WRITE = """
local version = redis.call('HGET', KEYS[1], 'version') or '0'
if version ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'document', ARGV[2], 'version', version + 1)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""


class RedisPkStore:
    """A `PkStore` on the connections of a `RedisStore`."""

    def __init__(self, client: Redis, gate: StoreGate) -> None:
        self._client = client
        self._gate = gate
        self._write = client.register_script(_WRITE)

    async def create(self, pk: str, document: dict[str, Any], ttl_s: float) -> None:
        """Store a new record. Raises Conflict when there is one of this name."""
        if not await self._put(pk, "0", document, ttl_s):
            raise Conflict(f"PK {pk} exists already")

    async def read(self, pk: str) -> dict[str, Any]:
        """Read a record. Raises NotFound, CorruptDocument."""
        return (await self._read(pk))[0]

    async def change(self, pk: str, apply: ChangeRecord, ttl_s: float) -> dict[str, Any]:
        """Change a record under compare-and-set and return it. See `PkStore.change`."""
        for _ in range(_ATTEMPTS):
            document, version = await self._read(pk)
            changed = apply(document)
            if changed is document or await self._put(pk, version, changed, ttl_s):
                return changed
        raise Overloaded(f"PK {pk} is changed by too many at once", retry_after=1)

    async def _put(self, pk: str, version: str, document: dict[str, Any], ttl_s: float) -> bool:
        body = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        arguments = (version, body, round((ttl_s + KEEP_S) * 1000))
        return bool(await self._gate.run(lambda: self._write(keys=[_key(pk)], args=arguments)))

    async def _read(self, pk: str) -> tuple[dict[str, Any], str]:
        async def find() -> list[Any]:
            found: list[Any] = await self._client.hmget(_key(pk), ["document", "version"])
            return found

        body, version = await self._gate.run(find, repeatable=True)
        if version is None:
            raise NotFound(f"no PK {pk}", code="pk-not-found")
        try:
            document = json.loads(body or "")
        except ValueError as error:
            raise CorruptDocument(f"PK {pk}: the store holds no JSON for it: {error}") from error
        if not isinstance(document, dict):
            raise CorruptDocument(f"PK {pk}: the store holds JSON that is no object")
        return document, version


def _key(pk: str) -> str:
    return f"costream:pk:{{{pk}}}"
