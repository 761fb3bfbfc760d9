"""A load on a real `costream dev` node, with real clients; its end, also when it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil  # type: ignore[import-untyped]
import pytest

from tests.interop.relays import KEYS, ROOT, free_ports, token

pytest.importorskip("webrtc", reason="the load's clients need the package wrtc")

READY_S, END_S = 60.0, 90.0


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a node that runs, for all loads of a file: each shows what it left there."""
    tmp_path = tmp_path_factory.mktemp("relay")
    port, plain = free_ports()
    environment = {**os.environ, "COSTREAM_AUTH__KEYS": json.dumps(KEYS), "PYTHONPATH": str(ROOT)}
    settings = [f"http.port={port}", f"media.port={port}", f"http.plain_port={plain}", "rate.api_per_minute=100000",
                "rate.joins_per_minute=10000"]  # fmt: skip
    argv = [sys.executable, "-m", "costream.cli", "dev", *(part for each in settings for part in ("--set", each))]
    with (tmp_path / "relay.log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        until(lambda: answers(f"http://127.0.0.1:{plain}/readyz"), READY_S)
        yield f"http://127.0.0.1:{plain}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, trust_env=False, timeout=2.0).status_code == 200
    except httpx2.HTTPError:
        return False


def until(holds: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)


def started(relay: str, out: Path, *more: str) -> subprocess.Popen[str]:
    (name, secret), *_ = KEYS.items()
    environment = {**os.environ, "COSTREAM_SECRET": secret, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "costream.cli", "load", "--url", relay, "--key-id", name, "--out", str(out), *more]
    return subprocess.Popen(argv, cwd=out, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def rooms(relay: str) -> list[str]:
    answer = httpx2.get(f"{relay}/v1/rooms", headers={"Authorization": f"Bearer {token('*', 'tests', 'service')}"},
                        trust_env=False)  # fmt: skip
    return [room["id"] for room in answer.json()["rooms"] if room["id"].startswith("load")]


def lines(out: Path) -> list[dict[str, Any]]:
    files = list(out.glob("*/record.jsonl"))
    text = files[0].read_text() if files else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def left_behind(process: subprocess.Popen[str]) -> list[str]:
    """Processes that a load started and did not end."""
    mark = f"-{process.pid}-"
    found = []
    for each in psutil.process_iter():
        try:
            if mark in each.environ().get("COSTREAM_DRILL_OWNER", ""):
                found.append(str(each))
        except psutil.Error:
            continue
    return found


@pytest.mark.timeout(240)
def test_viewers_join_switch_leave_and_return(relay: str, tmp_path: Path) -> None:
    options = "--rooms 1 --hosts 1 --viewers 2 --seconds 20 --ramp 2 --stay 5 --away 1 --switch 2 --seed 3"
    process = started(relay, tmp_path, *options.split())
    text, _ = process.communicate(timeout=END_S)
    assert process.returncode == 0, text
    told = lines(tmp_path)
    clients = [line for line in told if line["kind"] == "client"]
    events = {line["event"] for line in clients}
    assert {"joining", "joined", "left", "switched"} <= events, events
    viewers = {line["viewer"] for line in clients if line["event"] == "joined"}
    assert viewers >= {"host-1-1", "viewer-1", "viewer-2"}
    assert [line for line in clients if line["event"] == "frame" and line["publisher"] == 1]
    assert {(line["status"], line["reason"]) for line in clients if line["event"] == "switched"} == {(200, "")}
    returned = [line for line in clients if line["event"] == "joining" and line["viewer"].startswith("viewer")]
    assert len(returned) > 2
    assert {line["status"] for line in told if line["kind"] == "api"} == {200}
    summary = json.loads(next(tmp_path.glob("*/summary.json")).read_text())
    assert summary["joins"] >= 2
    assert summary["frames"] > 0
    assert not summary["interrupted"]
    assert rooms(relay) == []
    assert left_behind(process) == []


@pytest.mark.timeout(240)
def test_an_interrupted_load_leaves_nothing(relay: str, tmp_path: Path) -> None:
    """By either signal; two loads at once."""
    loads = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        out = tmp_path / number.name
        out.mkdir()
        words = ("--viewers", "1", "--seconds", "100", "--ramp", "0", "--seed", str(number.value))
        loads[number] = out, started(relay, out, *words)
    for out, process in loads.values():
        until(lambda: any(line.get("event") == "joined" for line in lines(out)) or process.poll() is not None, END_S)  # noqa: B023
    assert set(rooms(relay)) == {"load-2-1", "load-15-1"}
    for number, (out, process) in loads.items():
        process.send_signal(number)
        text, _ = process.communicate(timeout=END_S)
        assert process.returncode == 130, text
        assert "interrupted" in text
        assert left_behind(process) == []
        assert lines(out)[-1]["what"] == "over"
        assert f"load-{number.value}-1" not in rooms(relay)
    assert rooms(relay) == []


def test_a_target_that_is_not_there_is_told(tmp_path: Path) -> None:
    process = started("http://127.0.0.1:9", tmp_path)
    text, _ = process.communicate(timeout=END_S)
    assert process.returncode == 1
    assert "does not answer" in text


def test_a_target_that_is_no_test_cluster_gets_nothing(tmp_path: Path) -> None:
    process = started("http://192.0.2.1:7080", tmp_path)
    text, _ = process.communicate(timeout=END_S)
    assert process.returncode != 0
    assert "not labelled as a test cluster" in text
    assert list(tmp_path.iterdir()) == []
