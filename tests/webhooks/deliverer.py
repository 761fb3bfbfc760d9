"""A process that delivers webhooks until it is killed: `python deliverer.py STORE NAME SETTINGS`."""

from __future__ import annotations

import asyncio
import sys

from relay.cluster.outbox import RedisOutbox
from relay.metrics import Metrics
from relay.settings import WebhookSettings
from signaling.webhooks.service import Webhooks


async def main(url: str, name: str, settings: str) -> None:
    outbox = RedisOutbox(url, socket_timeout_s=5.0)
    Webhooks(WebhookSettings.model_validate_json(settings), outbox, Metrics(), name).start()
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
