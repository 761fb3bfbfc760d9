"""Drills for real targets: scripts that a shell takes, each tool's words, and refusals before anything is written."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from drills.fabric.base import ROOT
from drills.fabric.impairment import BLACK_HOLE, GilbertElliott, Impairment
from drills.render import RenderError, chaos_mesh, netem, pumba, render
from drills.run.guard import Refused

INVENTORY = ROOT / "configs" / "drills" / "inventory.example.yml"
NETWORK = ["storm", "black-hole", "asymmetric-partition", "flapping"]
PROCESSES = ["kill-relay", "kill-signaling", "redis-down", "cpu-storm", "rolling-upgrade"]
STORM = Impairment(delay_us=150_000, jitter_us=20_000, correlation=0.25)


def inventory(tmp_path: Path, **changes: Any) -> Path:
    """The example with everything on this machine, and changes to each member."""
    plain = yaml.safe_load(INVENTORY.read_text())
    plain["members"]["signaling-2"] = dict(plain["members"]["signaling-1"])
    for place in plain["members"].values():
        place.update({"ssh": "", **changes})
    path = tmp_path / "inventory.yml"
    path.write_text(yaml.safe_dump(plain))
    return path


def is_shell(text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", ["tc", "pumba", "chaos-mesh"])
@pytest.mark.parametrize("name", [*NETWORK, *PROCESSES])
def test_what_ships_can_be_rendered(name: str, target: str, tmp_path: Path) -> None:
    text = render(name, target, inventory(tmp_path))
    if target == "chaos-mesh":
        workflow = yaml.safe_load(text)
        names = {template["name"] for template in workflow["spec"]["templates"]}
        children = {child for template in workflow["spec"]["templates"] for child in template.get("children", ())}
        assert children | {"method"} == names
        for template in workflow["spec"]["templates"]:
            for kind in ("networkChaos", "podChaos", "stressChaos"):
                if kind in template:
                    labels = template[kind]["selector"]["labelSelectors"]
                    assert labels["costream.io/cluster"] == "test"
    else:
        is_shell(text)
        assert "costream.io/cluster" in text


def test_the_words_of_netem() -> None:
    assert netem.netem(STORM) == "limit 100000 delay 150000us 20000us 25% distribution normal"
    assert netem.netem(BLACK_HOLE) == "loss 100%"
    bursts = Impairment(bursts=GilbertElliott.bursts(0.12, 5))
    assert netem.netem(bursts) == "limit 100000 loss gemodel 2.72727% 20% 100% 0%"
    assert netem.gemodel(GilbertElliott(0.01, 0.3, h=0.25, k=0.999)) == "loss gemodel 1% 30% 75% 0.1%"
    many = Impairment(delay_us=1000, loss=0.01, duplicate=0.02, corrupt=0.03, reorder=0.04, rate_bps=2_000_000)
    words = "limit 100000 delay 1000us loss random 1% duplicate 2% corrupt 3% reorder 4% rate 2000000bit"
    assert netem.netem(many) == words


def test_the_words_of_pumba_and_chaos_mesh() -> None:
    (delay,) = pumba.commands(STORM)
    assert delay == "delay --time 150 --jitter 20 --correlation 25 --distribution normal"
    (loss,) = pumba.commands(Impairment(bursts=GilbertElliott.bursts(0.12, 5)))
    assert loss == "loss-gemodel --pg 2.72727 --pb 20 --one-h 100 --one-k 0"
    found = chaos_mesh.network(STORM)
    assert found == {"action": "delay", "delay": {"latency": "150000us", "jitter": "20000us", "correlation": "25"}}
    assert chaos_mesh.network(Impairment(rate_bps=2_000_000))["bandwidth"]["rate"] == "2000kbit"
    assert chaos_mesh.network(Impairment(loss=0.1, delay_us=1000))["action"] == "netem"


@pytest.mark.parametrize(
    ("call", "impairment", "said"),
    [
        (chaos_mesh.network, Impairment(bursts=GilbertElliott.bursts(0.12, 5)), "no Gilbert-Elliott loss"),
        (chaos_mesh.network, Impairment(rate_bps=1000, loss=0.1), "not both in one step"),
        (lambda one: list(pumba.commands(one)), Impairment(delay_us=1000, loss=0.1), "one impairment of an interface"),
        (lambda one: list(pumba.commands(one)), Impairment(delay_us=1000, reorder=0.1), "cannot reorder"),
    ],
)
def test_what_a_tool_cannot_do_is_said(call: Any, impairment: Impairment, said: str) -> None:
    with pytest.raises(RenderError, match=said):
        call(impairment)


def test_pumba_gets_equal_impairments_of_an_interface_at_once(tmp_path: Path) -> None:
    text = render("black-hole", "pumba", inventory(tmp_path))
    lines = [line for line in text.splitlines() if line.startswith("pumba") and "costream-relay-a-1" in line]
    assert len(lines) == 1
    assert "--target 192.0.2.12,192.0.2.13" in lines[0]


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [{}, {"costream.io/cluster": "production"}, {"cluster": "test"}])
@pytest.mark.parametrize("target", ["tc", "pumba", "chaos-mesh"])
def test_what_is_not_labelled_as_a_test_cluster_is_refused(labels: Any, target: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"relay-a is not labelled costream.io/cluster=test"):
        render("black-hole", target, inventory(tmp_path, labels=labels))


@pytest.mark.parametrize(
    ("name", "target", "changes", "said"),
    [
        ("black-hole", "kubernetes", {}, "there is no target kubernetes; there are tc, pumba, chaos-mesh"),
        ("clock-jump", "tc", {}, "clock-jump is done by the local test cluster only"),
        ("black-hole", "tc", {"addresses": []}, "no address for relay-b/1"),
        ("kill-relay", "tc", {"unit": ""}, "no unit for relay-c"),
        ("kill-relay", "pumba", {"container": ""}, "no container for relay-"),
        ("kill-relay", "chaos-mesh", {"pod": {}}, "no pod for relay-c"),
        ("black-hole", "tc", {"adresses": []}, "members.relay-a.adresses: Extra inputs are not permitted"),
        ("storm-at-the-door", "tc", {}, "nothing of this scenario happens at a member"),
    ],
)
def test_what_cannot_be_rendered_is_refused(
    name: str, target: str, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(RenderError, match=said):
        render(name, target, inventory(tmp_path, **changes))


def test_an_inventory_that_is_none(tmp_path: Path) -> None:
    for text in ("", "members: {}", "members: [1]", "[", "members: {relay-a: {}}\nnamespace: Not Good"):
        (tmp_path / "i.yml").write_text(text)
        with pytest.raises(RenderError, match=r"i\.yml"):
            render("black-hole", "tc", tmp_path / "i.yml")
    with pytest.raises(RenderError, match="nowhere"):
        render("black-hole", "tc", tmp_path / "nowhere.yml")


# --- the scripts, with programs on the path that write down how they are called ---------------------------------------


def script(tmp_path: Path, target: str, name: str, programs: dict[str, str]) -> tuple[Path, dict[str, str]]:
    """A script and its environment. `programs` are the bodies of the programs it finds; each call is in `calls`."""
    path = tmp_path / "drill.sh"
    path.write_text(render(name, target, inventory(tmp_path)).replace("/etc/costream-cluster", str(tmp_path / "label")))
    tools = tmp_path / "tools"
    tools.mkdir()
    for program, body in programs.items():
        tool = tools / program
        tool.write_text(f'#!/bin/sh\necho "{program} $*" >> {tmp_path}/calls\n{body}\n')
        tool.chmod(0o755)
    return path, {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}


def calls(tmp_path: Path) -> list[str]:
    path = tmp_path / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_the_script_refuses_a_host_without_the_label_and_injects_nothing(tmp_path: Path) -> None:
    path, env = script(tmp_path, "tc", "black-hole", {"tc": ""})
    done = subprocess.run(["bash", str(path)], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "costream.io/cluster=test; nothing was injected" in done.stderr
    assert calls(tmp_path) == []


def test_pumbas_script_refuses_a_container_without_the_label(tmp_path: Path) -> None:
    path, env = script(tmp_path, "pumba", "black-hole", {"pumba": "", "docker": "echo production"})
    done = subprocess.run(["bash", str(path)], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "nothing was injected" in done.stderr
    assert not [call for call in calls(tmp_path) if call.startswith("pumba")]


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_script_injects_in_order_and_takes_back(tmp_path: Path, interrupted: bool) -> None:
    if os.geteuid() != 0:
        pytest.skip("the script refuses without root")
    (tmp_path / "label").write_text("costream.io/cluster=test\n")
    waits = {"sleep": "exec /bin/sleep 5" if interrupted else ""}
    path, env = script(tmp_path, "tc", "black-hole", {"tc": "", **waits})
    with subprocess.Popen(["bash", str(path)], env=env, start_new_session=True) as process:
        if interrupted:
            while not any(call.startswith("sleep") for call in calls(tmp_path)):
                assert process.poll() is None
            os.killpg(process.pid, signal.SIGTERM)
        code = process.wait(60)
    made = calls(tmp_path)
    assert code == (130 if interrupted else 0)
    assert made[-1] == "tc qdisc del dev eth0 root"
    assert made[0] == "tc qdisc replace dev eth0 root handle 1: prio bands 16"
    holes = [call for call in made if "netem loss 100%" in call]
    assert len(holes) == (0 if interrupted else 4)
