"""Webhooks end to end: what happens in a room arrives, signed, whatever the receiver and the processes do."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from relay.cluster import EmbeddedServer, RedisStore
from relay.cluster.outbox import RedisOutbox
from relay.errors import BadRequest, Conflict
from relay.metrics import Metrics
from relay.outbox import Delivery, Endpoint
from relay.settings import WebhookSettings
from signaling.webhooks.messages import make_secret
from signaling.webhooks.service import Webhooks
from tests.webhooks.receiver import Got, Receiver

ROOT = Path(__file__).parents[2]
OPEN: dict[str, Any] = {
    "allow_private_targets": True,
    "allow_plain_http": True,
    "retry_min_ms": 10,
    "retry_max_s": 0.05,
    "timeout_s": 20.0,
}


class Swallowing(RedisOutbox):
    """Its first cancellation is lost, as one is that meets the end of a send in wait_for of Python 3.11."""

    taking = swallowed = False

    async def take(self, name: str, endpoints: Mapping[str, int], wait_s: float) -> list[Delivery]:
        self.taking = True
        try:
            return await super().take(name, endpoints, wait_s)
        except asyncio.CancelledError:
            if self.swallowed:
                raise
            self.swallowed = True
            return []


class Worlds:
    """Processes that deliver, all in one here; ended after the test."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self.running: list[Webhooks] = []

    def start(self, name: str = "p1", **settings: Any) -> Webhooks:
        outbox = RedisOutbox(self.server.url, socket_timeout_s=5.0)
        made = Webhooks(WebhookSettings(**(OPEN | settings)), outbox, Metrics(), name)
        made.start()
        self.running.append(made)
        return made


@pytest.fixture
async def worlds(server: EmbeddedServer) -> AsyncIterator[Worlds]:
    worlds = Worlds(server)
    yield worlds
    for webhooks in worlds.running:
        await webhooks.close()


async def until(holds: Callable[[], object], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.02)


async def add(webhooks: Webhooks, receiver: Receiver, *events: str, room: str = "") -> Endpoint:
    made = await webhooks.add(receiver.url, events or ("*",), room, "", None)
    receiver.secrets.append(made.secrets[0].secret)
    return made


async def test_what_happens_in_rooms_arrives_signed(worlds: Worlds, store: RedisStore, receiver: Receiver) -> None:
    webhooks = worlds.start()
    await store.create("old", {})
    await asyncio.sleep(0.01)
    made = await add(webhooks, receiver)
    await store.create("demo", {})
    await store.append("demo", [("participant.joined", {"identity": "alice"}), ("speaker.changed", {})])
    webhooks.tell("link.moved", {"peer": "n2", "code": "LINK_UNSTABLE"})
    await store.delete("demo", ("room.ended", {"by": "alice"}))
    await until(lambda: len(receiver.got) >= 4)
    assert all(each.verified for each in receiver.got)
    assert sorted(receiver.types()) == ["link.moved", "participant.joined", "room.created", "room.ended"]
    assert {each.headers["content-type"] for each in receiver.got} == {"application/cloudevents+json"}
    joined = next(each for each in receiver.got if each.event["type"].endswith("joined"))
    assert (joined.event["id"], joined.event["subject"], joined.event["data"]) == (
        joined.id,
        "demo",
        {"identity": "alice"},
    )
    assert max(Counter(receiver.ids()).values()) == 1
    await until_view(webhooks, made.id, delivered=4, waiting=0, dead=0)


async def test_only_what_was_asked_for(worlds: Worlds, store: RedisStore, receiver: Receiver) -> None:
    webhooks = worlds.start()
    await add(webhooks, receiver, "room.*", room="demo")
    await store.create("other", {})
    await store.create("demo", {})
    await store.append("demo", [("participant.joined", {})])
    await store.delete("other", ("room.ended", {}))
    await store.delete("demo", ("room.ended", {}))
    await until(lambda: len(receiver.got) == 2)
    assert sorted((each.event["subject"], each.event["type"]) for each in receiver.got) == [
        ("demo", "dev.costream.room.created"),
        ("demo", "dev.costream.room.ended"),
    ]


async def test_a_receiver_that_refuses_gets_it_again_under_the_same_id(
    worlds: Worlds, store: RedisStore, receiver: Receiver
) -> None:
    tries: Counter[str] = Counter()

    def refuse_twice(got: Got) -> tuple[int, dict[str, str]]:
        tries[got.id] += 1
        return (204 if tries[got.id] > 2 else 500, {})

    receiver.answers = refuse_twice
    webhooks = worlds.start()
    made = await add(webhooks, receiver)
    await store.create("demo", {})
    await store.append("demo", [("app.x", {"n": n}) for n in range(5)])
    await until(lambda: len(tries) == 6 and min(tries.values()) >= 3)
    assert all(each.verified for each in receiver.got)
    bodies = {each.id: {other.body for other in receiver.got if other.id == each.id} for each in receiver.got}
    assert all(len(body) == 1 for body in bodies.values())
    await until_view(webhooks, made.id, delivered=6, waiting=0, retrying=0)


async def until_view(webhooks: Webhooks, endpoint: str, **wanted: object) -> dict[str, Any]:
    deadline = time.monotonic() + 90
    while True:
        view = await webhooks.view(await webhooks.find(endpoint))
        if all(view[name] == value for name, value in wanted.items()):
            return view
        assert time.monotonic() < deadline, view
        await asyncio.sleep(0.03)


async def test_a_receiver_that_never_takes_it_leaves_dead_letters_that_can_be_revived(
    worlds: Worlds, store: RedisStore, receiver: Receiver
) -> None:
    receiver.answers = lambda got: (302, {"Location": "http://127.0.0.1:1/"})
    webhooks = worlds.start(attempts=3)
    made = await add(webhooks, receiver)
    await store.create("demo", {})
    view = await until_view(webhooks, made.id, dead=1, waiting=0, retrying=0)
    assert view["given_up"] == 1
    assert len(receiver.got) == 3
    (dead,) = await webhooks.dead(made.id, 10)
    assert (dead["type"], dead["reason"], dead["tries"]) == ("room.created", "http-302", 3)
    assert dead["id"] == receiver.got[0].id
    receiver.answers = lambda got: (200, {})
    assert await webhooks.revive(made.id) == 1
    await until_view(webhooks, made.id, dead=0, delivered=1)
    assert receiver.got[-1].id == dead["id"]


async def test_a_receiver_that_is_gone_for_good_is_not_asked_again(
    worlds: Worlds, store: RedisStore, receiver: Receiver
) -> None:
    receiver.answers = lambda got: (410, {})
    webhooks = worlds.start()
    made = await add(webhooks, receiver)
    await store.create("demo", {})
    view = await until_view(webhooks, made.id, active=False, dead=1)
    assert "410" in view["reason"]
    await store.append("demo", [("app.x", {})])
    receiver.answers = lambda got: (204, {})
    await webhooks.revive(made.id)
    await until_view(webhooks, made.id, active=True, delivered=1)


async def test_one_that_is_slow_to_come_back_is_waited_for(
    worlds: Worlds, store: RedisStore, receiver: Receiver
) -> None:
    """Nobody listens: everything waits, and comes once somebody does."""
    webhooks = worlds.start(attempts=100)
    made = await add(webhooks, receiver)
    receiver.stop()
    await store.create("demo", {})
    await store.append("demo", [("app.x", {"n": n}) for n in range(20)])
    deadline = time.monotonic() + 90
    while not (await webhooks.view(made))["retrying"]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    receiver.start()
    await until(lambda: len(set(receiver.ids())) == 21)
    await until_view(webhooks, made.id, delivered=21, waiting=0, retrying=0)


async def test_one_that_hangs_does_not_hold_up_the_others(
    worlds: Worlds, store: RedisStore, receiver: Receiver
) -> None:
    slow = Receiver()
    slow.start()
    slow.released.clear()
    try:
        webhooks = worlds.start(timeout_s=10.0)
        await add(webhooks, slow)
        await add(webhooks, receiver)
        await store.create("demo", {})
        await store.append("demo", [("app.x", {"n": n}) for n in range(30)])
        await until(lambda: len(set(receiver.ids())) == 31)
        assert len(slow.got) <= 2 * webhooks._settings.parallel
    finally:
        slow.stop()


def spawn(url: str) -> subprocess.Popen[bytes]:
    """A process that delivers, with little patience."""
    settings = WebhookSettings(**(OPEN | {"timeout_s": 0.5})).model_dump_json()
    command = [sys.executable, str(Path(__file__).parent / "deliverer.py"), url, "victim", settings]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT)


async def test_a_deliverer_killed_in_the_middle_loses_nothing(
    worlds: Worlds, store: RedisStore, receiver: Receiver, server: EmbeddedServer
) -> None:
    """Killed with requests on the way; another process delivers them, under the same ids, once they are overdue."""
    receiver.released.clear()
    idle = worlds.start("idle", deliver=False)
    made = await add(idle, receiver)
    victim = spawn(server.url)
    try:
        await store.create("demo", {})
        await store.append("demo", [("app.x", {"n": n}) for n in range(10)])
        await until(lambda: receiver.got)
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    before = set(receiver.ids())
    receiver.released.set()
    assert (await idle.view(made))["delivered"] < 11
    worlds.start("heir", timeout_s=0.5)
    await until_view(idle, made.id, waiting=0, retrying=0, delivered=11)
    assert len(set(receiver.ids())) == 11
    assert before <= set(receiver.ids())
    assert all(each.verified for each in receiver.got)


async def test_two_processes_share_the_work(worlds: Worlds, store: RedisStore, receiver: Receiver) -> None:
    first, _ = worlds.start("p1"), worlds.start("p2")
    made = await add(first, receiver)
    await store.create("demo", {})
    for _ in range(10):
        await store.append("demo", [("app.x", {"n": n}) for n in range(10)])
    await until_view(first, made.id, delivered=101, waiting=0)
    assert max(Counter(receiver.ids()).values()) == 1
    await first.close()  # whoever leads may go: the other goes on
    await store.append("demo", [("app.last", {})])
    await until(lambda: "app.last" in receiver.types())


async def test_a_new_secret_and_the_old_one_sign_for_a_while(
    worlds: Worlds, store: RedisStore, receiver: Receiver
) -> None:
    webhooks = worlds.start(rotation_s=60.0)
    made = await add(webhooks, receiver)
    rotated = await webhooks.rotate(made.id)
    assert rotated.secrets[0] != made.secrets[0]
    await store.create("demo", {})
    await until(lambda: receiver.got)
    assert receiver.got[0].verified  # by the old one, which is all that the receiver knows yet
    receiver.secrets[:] = [rotated.secrets[0].secret]
    await store.append("demo", [("app.x", {})])
    await until(lambda: len(receiver.got) == 2)
    assert receiver.got[1].verified
    brief = worlds.start("p2", rotation_s=0.0, deliver=False)
    last = await brief.rotate(made.id)
    assert [each.until for each in last.secrets] == [None]


async def test_private_addresses_are_refused_when_made_and_when_sent(
    worlds: Worlds, store: RedisStore, receiver: Receiver
) -> None:
    strict = worlds.start("strict", allow_private_targets=False, attempts=1)
    with pytest.raises(BadRequest) as refused:
        await strict.add(receiver.url, ("*",), "", "", None)
    assert refused.value.code == "target-not-allowed"
    lax = worlds.start("lax", deliver=False)
    made = await add(lax, receiver)  # a name that had another address when it was made comes to the same
    await store.create("demo", {})
    await until_view(strict, made.id, dead=1)
    assert (await strict.dead(made.id, 1))[0]["reason"] == "target-not-allowed"
    assert receiver.got == []


async def test_endpoints_of_the_settings(worlds: Worlds, store: RedisStore, receiver: Receiver) -> None:
    secret = make_secret(b"s" * 32)
    receiver.secrets.append(secret)
    backend = {"url": receiver.url, "secrets": (secret,), "events": ("room.*",)}
    webhooks = worlds.start(endpoints={"backend": backend})
    deadline = time.monotonic() + 90
    while not await webhooks.all():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    await store.create("demo", {})
    await until(lambda: receiver.got)
    assert receiver.got[0].verified
    for refused in (webhooks.remove("backend"), webhooks.rotate("backend")):
        with pytest.raises(Conflict) as why:
            await refused
        assert why.value.code == "webhook-in-settings"


async def test_a_store_that_goes_away_and_comes_back(
    worlds: Worlds, store: RedisStore, receiver: Receiver, server: EmbeddedServer
) -> None:
    webhooks = worlds.start()
    await add(webhooks, receiver)
    await store.create("demo", {})
    await until(lambda: receiver.got)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        webhooks.tell("link.moved", {"peer": "n2"})
        await asyncio.sleep(0.5)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await until(lambda: "link.moved" in receiver.types())


async def test_ending_leaves_no_task(worlds: Worlds, store: RedisStore, receiver: Receiver) -> None:
    before = len(asyncio.all_tasks())
    webhooks = worlds.start()
    await add(webhooks, receiver)
    await store.create("demo", {})
    await until(lambda: receiver.got)
    await webhooks.close()
    worlds.running.remove(webhooks)
    await asyncio.sleep(0.05)
    assert len(asyncio.all_tasks()) == before


async def test_a_client_that_swallows_a_cancellation_does_not_hold_up_the_end(
    server: EmbeddedServer, receiver: Receiver
) -> None:
    outbox = Swallowing(server.url, socket_timeout_s=5.0)
    webhooks = Webhooks(WebhookSettings(**OPEN), outbox, Metrics(), "p1")
    webhooks.start()
    await add(webhooks, receiver)
    await until(lambda: outbox.taking)
    async with asyncio.timeout(30):
        await webhooks.close()
    assert outbox.swallowed
