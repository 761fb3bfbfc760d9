"""The fabric, in both kinds: what it carries, that each impairment does what the pure one says, who may change it."""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import NoReturn

import pytest

from drills.fabric import OUTSIDE, Fabric, FabricError, LoopbackFabric, namespaces, open_fabric
from drills.fabric.base import ROOT
from drills.fabric.control import ControlClient
from drills.fabric.impairment import GilbertElliott, Impairment, Lane
from tests.drills.fabrics import Kind, eventually, need, start, told

SEED = 11


@pytest.fixture(scope="module", params=["tun", "loopback"])
def shared(request: pytest.FixtureRequest) -> Iterator[Fabric]:
    kind: Kind = request.param
    need(kind)
    with open_fabric(kind, seed=SEED) as fabric:
        for name in ("a", "b"):
            fabric.add_host(name, paths=2)
        for path in (1, 2):
            start(fabric, "b", "udp_echo", fabric.bind_address("b", path), 5000)
        fabric.expose("b", 5000, "udp")
        yield fabric


@pytest.fixture
def fabric(shared: Fabric) -> Iterator[Fabric]:
    yield shared
    shared.heal()


def ask(fabric: Fabric, count: int, every_us: int = 1000, path: int = 1) -> list[tuple[int, int]]:
    """Numbers and round trips in µs of what came back to `a` from the echo on `b`."""
    addresses = fabric.bind_address("a", path), fabric.address("b", path)
    return [(n, us) for n, us in told(start(fabric, "a", "udp_ask", *addresses, 5000, count, every_us))["trips"]]


def lane(fabric: Fabric, src: str, dst: str, path: int = 1) -> dict[str, int]:
    wanted = fabric.address(src, path), fabric.address(dst, path)
    found: list[dict[str, int]] = [each for each in fabric.counters()["lanes"] if (each["src"], each["dst"]) == wanted]
    return found[0] if found else dict.fromkeys(("entered", "delivered", "black_holed"), 0)


def check_conserved(fabric: Fabric) -> None:
    """Every packet that entered came out, was dropped for a reason, or is on its way."""
    for each in fabric.counters()["lanes"]:
        out = each["delivered"] + each["undeliverable"] + each["in_flight"]
        dropped = each["lost"] + each["black_holed"] + each["overflowed"]
        assert each["entered"] + each["duplicated"] == out + dropped, each


def test_udp_goes_through(fabric: Fabric, capsys: pytest.CaptureFixture[str]) -> None:
    trips = ask(fabric, 500)
    assert sorted(n for n, _ in trips) == list(range(500))
    flood = start(fabric, "b", "udp_sink", fabric.bind_address("b"), 5001, 20_000)
    fabric.expose("b", 5001, "udp")
    told(start(fabric, "a", "udp_flood", fabric.bind_address("a"), fabric.address("b"), 5001, 20_000, 25, 1100))
    came = told(flood)
    assert came["numbers"] == sorted(set(came["numbers"]))
    check_conserved(fabric)
    times = came["times"]
    rate = len(times) / (times[-1] - times[0]) * 1e6
    taken = sorted(us for _, us in trips)
    with capsys.disabled():
        print(
            f"\n{fabric.kind}: round trip p50/p99 {taken[250]}/{taken[495]} µs; of 40,000 packets/s offered "
            f"{rate:,.0f}/s came, {len(times) / 200:.1f} %"
        )


def test_tcp_goes_through(fabric: Fabric, capsys: pytest.CaptureFixture[str]) -> None:
    sink = start(fabric, "b", "tcp_sink", fabric.bind_address("b"), 6000)
    fabric.expose("b", 6000, "tcp")
    fabric.impair("a", "b", Impairment(delay_us=20_000), both=True)
    sent = told(start(fabric, "a", "tcp_send", fabric.bind_address("a"), fabric.address("b"), 6000, 5_000_000))
    came = told(sink)
    assert sent["thanked"]
    assert came["bytes"] == 5_000_000
    assert sent["took"] >= 40_000
    check_conserved(fabric)
    with capsys.disabled():
        print(f"\n{fabric.kind}: TCP at 40 ms: {came['bytes'] * 8 / sent['took']:,.0f} Mbit/s")


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        (Impairment(loss=0.08), 1),
        (Impairment(bursts=GilbertElliott.bursts(0.12, 4)), 2),
        (Impairment(duplicate=0.1, loss=0.3), 1),
    ],
    ids=["loss", "bursts", "duplicates"],
)
def test_what_gets_through_is_what_the_lane_says(fabric: Fabric, asked: Impairment, path: int) -> None:
    """Not just the share: the very packets, from the seed. The path back stays clear."""
    fabric.add_host("d", paths=2)
    port = 5002
    try:
        sink = start(fabric, "d", "udp_sink", fabric.bind_address("d", path), port, 10**9)
        fabric.expose("d", port, "udp")
        fabric.impair("a", f"d/{path}", asked)
        src, dst = fabric.bind_address("a", path), fabric.address("d", path)
        # Fewer than a device queues: a forwarder that is kept from its core loses none of them.
        told(start(fabric, "a", "udp_flood", src, dst, port, 1500, 200, 200))
        twin = Lane(asked, f"{SEED}/{fabric.address('a', path)}/{dst}")
        expected = [number for number in range(1500) for _ in twin.enter(number, 200)]
        assert told(sink)["numbers"] == expected
        assert lane(fabric, "a", "d", path)["lost"] == twin.counts.lost > 0
    finally:
        fabric.remove_host("d")


def test_delay_and_rate(fabric: Fabric, capsys: pytest.CaptureFixture[str]) -> None:
    """Never early; how late is printed, as it depends on the machine."""
    fabric.impair("a", "b", Impairment(delay_us=150_000, jitter_us=20_000, correlation=0.25, distribution="uniform"))
    trips = [us for _, us in ask(fabric, 400)]
    assert len(trips) == 400
    assert min(trips) >= 130_000
    fabric.heal()
    fabric.impair("b", "a", Impairment(rate_bps=50_000, queue_bytes=1250))
    before = lane(fabric, "b", "a")["delivered"]
    slowed = [us for _, us in ask(fabric, 400)]
    after = lane(fabric, "b", "a")
    assert after["overflowed"] > 0
    assert after["delivered"] - before == len(slowed)
    assert max(slowed) >= 180_000  # 1250 bytes wait 200 ms
    check_conserved(fabric)
    with capsys.disabled():
        late = fabric.counters()["late_us"]
        print(f"\n{fabric.kind}: 150 ms ± 20 asked, median {statistics.median(trips) / 1000:.1f} ms; overshoot {late}")


def test_there_is_a_default_route(fabric: Fabric) -> None:
    """Firefox needs one to gather candidates. Where it leads nobody answers, and that is counted."""
    if fabric.kind == "loopback":
        pytest.skip("the hosts have this machine's routes")
    before = fabric.counters()["unroutable"]
    told(start(fabric, "a", "udp_flood", fabric.address("a"), "203.0.113.1", 9, 3, 0, 100))
    eventually(lambda: fabric.counters()["unroutable"] >= before + 3)


def test_an_asymmetric_partition(fabric: Fabric) -> None:
    fabric.partition("b/1", "a/1", one_way=True)
    before = lane(fabric, "a", "b")["delivered"]
    assert ask(fabric, 20) == []
    assert lane(fabric, "a", "b")["delivered"] == before + 20
    assert lane(fabric, "b", "a")["black_holed"] == 20
    assert len(ask(fabric, 20, path=2)) == 20
    assert fabric.heal("a/1", "b/1") == 1
    assert len(ask(fabric, 20)) == 20


def test_a_host_is_cut_off_and_comes_back(fabric: Fabric) -> None:
    fabric.cut("b")
    assert ask(fabric, 10) == ask(fabric, 10, path=2) == []
    assert fabric.heal("b") == 2
    assert len(ask(fabric, 10)) == 10


def test_another_process_changes_it(fabric: Fabric) -> None:
    code = (
        "import sys; from pathlib import Path; from drills.fabric.control import *\n"
        "from drills.fabric.rules import FabricError\n"
        "client = ControlClient(Path(sys.argv[1])); client.partition('a', 'b')\n"
        "print(len(client.rules()['rules']))\n"
        "try: client.ask('attach', host='x', addresses=['10.0.0.1'])\n"
        "except FabricError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(fabric.control)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["2", "only the fabric's owner may attach"]
    assert ask(fabric, 5) == []


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b"{}", b'{"do": "fly"}', b'{"do": "impair"}', b'{"do": "heal", "src": "nobody"}', b"\xff\xfe",
     b'{"do": "impair", "src": "a", "dst": "b/3", "impairment": {}}',
     b'{"do": "impair", "src": "a", "dst": "b", "impairment": {"loss": "much"}}'],
)  # fmt: skip
def test_bad_requests_are_answered(fabric: Fabric, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(5)
        stranger.connect(str(fabric.control))
        stranger.sendall(line + b"\n")
        assert b'"ok": false' in stranger.recv(4096)
    assert ControlClient(fabric.control).rules()["rules"] == []


def test_a_call_that_was_interrupted_does_not_shift_the_answers(
    fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Ctrl-C during a call, between the request and its answer: what comes next gets its own."""

    def interrupted(_number: int) -> NoReturn:
        raise KeyboardInterrupt

    client = ControlClient(fabric.control)
    with monkeypatch.context() as patch:
        patch.setattr(client, "_answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.partition("a", "b")
    assert client.heal() == 2
    assert client.counters()["lanes"] is not None
    client.close()


def test_a_request_without_end_costs_only_its_sender(fabric: Fabric) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(5)
        stranger.connect(str(fabric.control))
        with pytest.raises(OSError):
            stranger.sendall(bytes(16 * 1024 * 1024))
    assert len(ask(fabric, 5)) == 5


def test_it_keeps_to_what_it_made(fabric: Fabric) -> None:
    for refused in (
        lambda: fabric.run("nobody", ["true"]),
        lambda: fabric.add_host("a"),
        lambda: fabric.add_host("../a"),
        lambda: fabric.add_host("c", paths=10),
        lambda: fabric.impair("a", "10.0.0.1", Impairment(loss=1)),
        lambda: fabric.impair("a/3", "b", Impairment(loss=1)),
        lambda: fabric.cut("nobody"),
        lambda: fabric.remove_host(OUTSIDE),
        lambda: namespaces.remove("somebody"),
        lambda: namespaces.create("somebody"),
    ):
        with pytest.raises(FabricError):
            refused()
    assert sorted(fabric.hosts) == ["a", "b", OUTSIDE]


def test_without_root_it_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "why_not", lambda: "this needs root")
    with open_fabric() as fabric:
        assert isinstance(fabric, LoopbackFabric)
    with pytest.raises(FabricError, match="this needs root"):
        open_fabric("tun")
