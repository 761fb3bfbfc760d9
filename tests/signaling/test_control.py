"""The control API between a signaling service and a relay, over real sockets."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costream.tls import prepare_tls
from relay import errors, guards
from relay.egress.events import EgressRequest
from relay.egress.manager import EgressManager
from relay.errors import DeadlineExceeded, NodeUnreachable, NotFound, Overloaded, SettingsError
from relay.guards import DEADLINE_HEADER, within
from relay.ports import Answer, IceFragment, NodeRecord, Offer, RoomEvent, RoomStore, SlotChange
from relay.settings import ClusterSettings, EgressSettings, dev_settings
from signaling import tokens
from signaling.control.client import Deadlines, RemoteNode
from signaling.control.wire import error_member, read_error
from signaling.tokens import CONTROL_AUDIENCE, mint
from tests.egress.local import LocalEgress
from tests.egress.show import LiveFeeds
from tests.signaling.control_world import KEYS, PATIENT, Served, calling, serving
from tests.signaling.memory_node import ANSWER, link_end

OFFER = Offer("demo", "bob", "guest", "v=0\r\nö\x01\r\n", "OBS")
ERRORS = sorted(
    (
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.CostreamError) and kind.__module__ == errors.__name__
    ),
    key=lambda kind: kind.__name__,
)


@pytest.fixture
async def served(store: RoomStore) -> AsyncIterator[Served]:
    async with serving(store) as served:
        yield served


@pytest.fixture
def feeds() -> Iterator[LiveFeeds]:
    feeds = LiveFeeds()
    yield feeds
    feeds.stop()


@pytest.fixture
async def remote(served: Served) -> AsyncIterator[RemoteNode]:
    async with calling(served.record()) as remote:
        yield remote


async def test_every_method_says_what_the_node_says(served: Served, remote: RemoteNode) -> None:
    node = served.node
    assert await remote.publish(OFFER) == Answer("n1~s1", ANSWER, "ice-1")
    watching = Offer("demo", "carol", "viewer", "v=0", program=True, one_sound=True)
    assert await remote.watch(watching) == Answer("n1~s2", ANSWER, "ice-1")
    assert node.offers == [OFFER, watching]
    assert await remote.session("n1~s1") == node.session("n1~s1")
    assert await remote.sessions() == node.sessions()
    assert await remote.sessions("other") == []
    node.served_links["l1"] = link_end("l1")
    assert await remote.links() == [link_end("l1")]
    assert (await remote.change_link("l1", "open"))["carrying"] == ["backup"]
    with pytest.raises(NotFound):
        await remote.change_link("l2", "open")
    assert await remote.status() == node.status()
    assert await remote.trickle("n1~s1", "a=candidate", "ice-1") is None
    assert await remote.trickle("n1~s1", "a=ice-ufrag", "ice-1") == IceFragment("a=ice-ufrag:new\r\n", "ice-2")
    slot = await remote.change_slot("n1~s2", 0, SlotChange({"paused": True, "layer": None}))
    assert (slot["paused"], slot["pinned"]) == (True, True)
    node.documents["demo"], node.speakers["demo"] = {"id": "demo"}, "bob"
    assert (await remote.knows("demo"), await remote.knows("other")) == ({"id": "demo"}, None)
    assert (await remote.active_speaker("demo"), await remote.active_speaker("other")) == ("bob", None)
    await remote.admit("demo", "bob", True)
    await remote.close("n1~s1")
    with pytest.raises(NotFound):
        await remote.close("n1~s1")


async def test_egress_and_its_files_over_the_control_api(
    served: Served, remote: RemoteNode, feeds: LiveFeeds, tmp_path: Path
) -> None:
    feeds.start()
    manager = EgressManager(EgressSettings(), tmp_path, feeds, node="n1")
    served.node.egress = LocalEgress(manager)
    try:
        started = await remote.egress.start_egress(EgressRequest("demo", "hls"))
        egress = started["id"]
        assert started == await remote.egress.read_egress(egress)
        assert await remote.egress.list_egress("other") == []
        assert await remote.egress.find_hls("demo", "program") == egress
        with pytest.raises(NotFound):
            await remote.egress.find_hls("demo", "alice")
        with pytest.raises(errors.Conflict) as conflict:
            await remote.egress.start_egress(EgressRequest("demo", "hls"))
        assert conflict.value.code == "egress-exists"
        many = await asyncio.gather(*(remote.egress.playlist(egress, 0, 1) for _ in range(20)))
        assert {reply.etag for reply in many} == {many[0].etag}
        assert "part0.1.m4s" in many[0].text
        part = await remote.egress.file(egress, "part0.0.m4s")
        assert part == (tmp_path / "hls" / egress.removeprefix("n1~") / "part0.0.m4s").read_bytes()
        for name in ("part99.0.m4s", "..%2fsecret", "x"):
            with pytest.raises(NotFound):
                await remote.egress.file(egress, name)
        with pytest.raises(errors.BadRequest):
            await remote.egress.playlist(egress, 999, None)
        assert (await remote.egress.stop_egress(egress))["state"] == "ended"
        assert await remote.egress.file(egress, "part0.0.m4s") == part  # kept for those who are late
    finally:
        await manager.close()
    assert remote.breaker.is_closed


@pytest.mark.parametrize("kind", ERRORS)
async def test_every_error_comes_back_as_it_was(
    served: Served, remote: RemoteNode, kind: type[errors.CostreamError]
) -> None:
    fault = kind("why", code="seat-taken") if issubclass(kind, errors.RequestError) else kind("why")
    if isinstance(fault, Overloaded):
        fault.retry_after = 17

    async def publish(offer: Offer) -> Answer:
        raise fault

    served.node.publish = publish  # type: ignore[method-assign]
    with pytest.raises(kind) as caught:
        await remote.publish(OFFER)
    assert type(caught.value) is kind
    assert vars(caught.value) == vars(fault)
    assert str(caught.value) == "why"
    assert remote.breaker.is_closed


NAMES = st.sampled_from(["name", "detail", "code", "retry_after"]) | st.text()
LEAVES = st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([kind.__name__ for kind in ERRORS])
MEMBERS = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=8)


@given(MEMBERS)
def test_a_strange_error_is_read_or_left(member: Any) -> None:
    error = read_error(member)
    assert error is None or read_error(error_member(error)) is not None


def token(keys: dict[str, str] = KEYS, **changes: Any) -> str:
    wanted = {"room": "*", "identity": "sig", "role": "service", "audience": CONTROL_AUDIENCE + "n1"} | changes
    return mint(keys, ttl_s=60, now=time.time() + wanted.pop("later", 0), **wanted)


@pytest.mark.parametrize(
    "given_token",
    [
        pytest.param(None, id="none"),
        pytest.param("x.y.z", id="malformed"),
        pytest.param(token(audience=None), id="a backend's service token"),
        pytest.param(token(audience=CONTROL_AUDIENCE + "n2"), id="of another node"),
        pytest.param(token(audience="n1"), id="of another audience"),
        pytest.param(token(room="demo"), id="of one room"),
        pytest.param(token(role="owner"), id="an owner's"),
        pytest.param(token(later=-70), id="expired"),
        pytest.param(token({next(iter(KEYS)): "x" * 32}), id="signed with another key"),
    ],
)
@pytest.mark.parametrize("path", ["/status", "/sessions/n1~s1/events", "/publish"])
async def test_wrong_tokens_are_refused(served: Served, given_token: str | None, path: str) -> None:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{served.port}/control/v1") as client:
        headers = {"Authorization": f"Bearer {given_token}"} if given_token else {}
        response = await client.request("POST" if path == "/publish" else "GET", path, headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_control_token_opens_nothing_else(served: Served) -> None:
    with pytest.raises(tokens.InvalidToken, match="control API"):
        tokens.verify(token(), KEYS, time.time())
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{served.port}") as client:
        headers = {"Authorization": f"Bearer {token()}"}
        assert (await client.get("/v1/nodes", headers=headers)).status_code == 401
        assert (await client.get("/control/v1/status", headers=headers)).status_code == 200
        assert "control" not in (await client.get("/openapi.json")).text


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/publish", b"", 422),
        ("POST", "/publish", b"[]", 422),
        ("POST", "/publish", b'{"room": 1, "identity": "a", "role": "guest", "sdp": "v=0"}', 422),
        ("POST", "/publish", b"\xff" * 10, 422),
        ("POST", "/publish", b" " * 300_000, 413),
        ("PATCH", "/sessions/n1~s1/slots/x", b"{}", 400),
        ("PATCH", "/sessions/n1~s1/slots/0", b'{"changes": []}', 422),
        ("POST", "/sessions/n1~s1/trickle", b'{"fragment": "a", "more": 1}', 422),
        ("GET", "/admission", b"", 400),
        ("GET", "/nowhere", b"", 404),
    ],
)
async def test_bad_requests_are_problems(served: Served, method: str, path: str, body: bytes, status: int) -> None:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{served.port}/control/v1") as client:
        headers = {"Authorization": f"Bearer {token()}", "Content-Type": "application/json"}
        response = await client.request(method, path, content=body, headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")


async def test_other_keys_make_a_node_unreachable(served: Served) -> None:
    async with calling(served.record(), {next(iter(KEYS)): "other-" + "x" * 32}) as remote:
        with pytest.raises(NodeUnreachable, match="refused with 401"):
            await remote.status()


# --- events ---------------------------------------------------------------------------------------------------------


async def test_events_of_a_session(served: Served, remote: RemoteNode) -> None:
    with pytest.raises(NotFound):
        await remote.session_events("n1~s1")
    session = (await remote.watch(OFFER)).session
    events = await remote.session_events(session)
    sent = [RoomEvent((1 << 63) + number, "slot.bound", {"mid": "ö\n", "n": number}) for number in range(3)]
    for event in sent:
        served.node.queues[session].put_nowait(event)
    assert [await anext(events) for _ in sent] == sent


async def test_events_end_with_the_session(served: Served, remote: RemoteNode) -> None:
    session = (await remote.watch(OFFER)).session

    async def one(session: str) -> AsyncIterator[RoomEvent]:
        yield RoomEvent(1, "slot.bound", {})

    served.node.session_events = one  # type: ignore[method-assign]
    assert [event.sync_id async for event in await remote.session_events(session)] == [1]


async def test_events_that_are_cut_say_so(served: Served, remote: RemoteNode) -> None:
    events = await remote.session_events((await remote.watch(OFFER)).session)
    following = asyncio.ensure_future(anext(events))
    await served.stop()
    with pytest.raises(NodeUnreachable):
        await following


async def test_a_relay_that_stops_ends_the_streams(served: Served, remote: RemoteNode) -> None:
    events = await remote.session_events((await remote.watch(OFFER)).session)
    served.app.state.context.drain.begin()
    assert (await anext(events)).type == "node.draining"
    served.app.state.context.drain.end()
    with pytest.raises(NodeUnreachable, match="were cut"):
        await anext(events)


# --- nodes that do not answer ---------------------------------------------------------------------------------------


async def test_a_dead_node_costs_no_waiting(served: Served, remote: RemoteNode) -> None:
    await remote.status()
    await served.stop()
    with pytest.raises(NodeUnreachable):  # one call is enough: nobody listens there
        await remote.status()
    assert not remote.breaker.is_closed
    with pytest.raises(NodeUnreachable, match="of late"):
        await remote.publish(OFFER)
    again = Served(served.app.state.context.store, port=served.port)
    await again.start()
    remote.breaker.succeeded()  # what a probe finds, without waiting for its time
    assert (await remote.status())["id"] == "n1"
    await again.stop()


async def test_a_silent_node_is_given_up_in_time() -> None:
    """A partition: the connection stands, nothing comes back."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(swallow, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    async with calling(_record(url), deadlines=Deadlines(read=0.1)) as remote:
        with pytest.raises(NodeUnreachable, match="did not answer within"):
            await remote.status()
        with pytest.raises(NodeUnreachable, match="of late"):
            await remote.status()
    silent.close()


# --- deadlines ------------------------------------------------------------------------------------------------------


async def test_the_deadline_travels_and_the_relay_keeps_it(served: Served, remote: RemoteNode) -> None:
    left: list[float] = []

    async def publish(offer: Offer) -> Answer:
        left.append(guards.remaining(60))
        return Answer("n1~s1", ANSWER, "ice-1")

    served.node.publish = publish  # type: ignore[method-assign]
    await remote.publish(OFFER)
    with within(5):
        await remote.publish(OFFER)
    assert 5 < left[0] <= PATIENT.change  # the call's own
    assert 0 < left[1] <= 5


@pytest.mark.parametrize(("header", "status"), [("0", 503), ("-5", 503), ("60000", 200), ("x", 400), ("1e3", 400)])
async def test_a_relay_does_not_begin_what_nobody_waits_for(served: Served, header: str, status: int) -> None:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{served.port}/control/v1") as client:
        headers = {"Authorization": f"Bearer {token()}", DEADLINE_HEADER: header}
        response = await client.get("/status", headers=headers)
    assert response.status_code == status
    if status == 503:
        assert response.json()["error"]["name"] == "DeadlineExceeded"


async def test_no_call_is_made_when_the_time_is_over(served: Served, remote: RemoteNode) -> None:
    with within(-1), pytest.raises(DeadlineExceeded):
        await remote.publish(OFFER)
    assert served.node.offers == []
    assert remote.breaker.is_closed


async def test_what_is_no_relay_is_no_bug_of_ours() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n<htm>")
        await writer.drain()
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with calling(_record(f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}")) as remote:
        with pytest.raises(NodeUnreachable, match="without JSON"):
            await remote.status()
    other.close()


def _record(url: str) -> NodeRecord:
    return NodeRecord(id="n1", control_url=url, region="", version="0")


# --- trust ----------------------------------------------------------------------------------------------------------


def certificate(directory: Path) -> tuple[Path, Path]:
    settings = dev_settings(environ={}, overrides={"node.state_dir": str(directory)})
    files = prepare_tls(settings)
    return files.certificate, files.key


async def test_tls_is_pinned_by_the_directory(store: RoomStore, tmp_path: Path) -> None:
    own, other = certificate(tmp_path / "a"), certificate(tmp_path / "b")
    async with serving(store, tls=own) as served:
        async with calling(served.record()) as remote:
            assert (await remote.status())["id"] == "n1"
        async with calling(served.record(certificate=other[0].read_text())) as remote:
            with pytest.raises(NodeUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
                await remote.status()


async def test_tls_by_a_ca(store: RoomStore, tmp_path: Path) -> None:
    own, other = certificate(tmp_path / "a"), certificate(tmp_path / "b")
    async with serving(store, tls=own) as served:
        async with calling(served.record(certificate=""), settings=ClusterSettings(control_ca=str(own[0]))) as remote:
            assert (await remote.status())["id"] == "n1"
        async with calling(served.record(), settings=ClusterSettings(control_ca=str(other[0]))) as remote:
            with pytest.raises(NodeUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
                await remote.status()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://203.0.113.7:7080", "allow_plain_http"),
        ("https://203.0.113.7:7443", "no usable certificate"),
        ("ftp://203.0.113.7", "no usable control_url"),
        ("http://[", "no usable control_url"),
        ("", "no usable control_url"),
    ],
)
async def test_what_is_never_called(url: str, reason: str) -> None:
    with pytest.raises(NodeUnreachable, match=reason):
        async with calling(_record(url)):
            pass


async def test_plain_http_by_permission() -> None:
    async with calling(_record("http://203.0.113.7"), settings=ClusterSettings(allow_plain_http=True)) as remote:
        assert remote.node_id == "n1"


async def test_a_ca_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="control_ca"):
        async with calling(_record(""), settings=ClusterSettings(control_ca=str(tmp_path / "none"))):
            pass
