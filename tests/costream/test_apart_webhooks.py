"""A signaling service apart, without any relay: it takes webhooks and delivers what happens in the store's rooms."""

from __future__ import annotations

import time
from pathlib import Path

import httpx2

from costream.apart import running_signaling
from costream.tls import prepare_tls
from relay.settings import load_signaling_settings
from signaling.tokens import mint
from tests.cluster.servers import single
from tests.egress.world import until
from tests.webhooks.receiver import Receiver

KEYS = {"test": "t" * 32}


async def test_a_room_that_is_made_there_is_told(tmp_path: Path, receiver: Receiver) -> None:
    async with single() as (_, url):
        wanted = {
            "store.url": url,
            "store.socket_timeout_s": 20.0,
            "store.connect_timeout_s": 20.0,
            "auth.keys": KEYS,
            "http.host": "127.0.0.1",
            "http.port": 0,
            "http.plain_port": 0,
            "node.state_dir": str(tmp_path),
            "webhooks.allow_private_targets": True,
            "webhooks.allow_plain_http": True,
        }
        settings = load_signaling_settings(None, {}, wanted)
        prepare_tls(settings)
        token = mint(KEYS, room="*", identity="backend", role="service", ttl_s=600, now=time.time())
        headers = {"Authorization": f"Bearer {token}"}
        async with running_signaling(settings) as app:
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
                made = await client.post("/v1/webhooks", json={"url": receiver.url})
                assert made.status_code == 201, made.text
                receiver.secrets.append(made.json()["secret"])
                assert (await client.post("/v1/rooms", json={"id": "demo"})).status_code == 201
                await until(lambda: receiver.got)
                refused = await client.post("/v1/rooms/demo/egress", json={"kind": "hls"})
                assert refused.status_code == 503, refused.text  # no relay is there to do it
                assert (await client.delete("/v1/rooms/demo")).status_code == 204
        # It says what happened last before it ends.
        assert set(receiver.types()) == {"room.created", "room.ended"}
        assert all(each.verified for each in receiver.got)
