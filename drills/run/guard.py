"""Refuses a drill before anything is started: what the scenario names has to exist, and this machine has to allow it.

Faults are injected into clusters that say of themselves that they are for tests, and into no others. The local cluster
says so in a file that it alone can have; real targets by a label (see `drills.render`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from drills.chromium.finding import why_not as why_no_chromium
from drills.fabric import why_no_namespaces
from drills.faults import Preparation
from drills.run.cast import ScenarioCast
from drills.scenario.model import Scenario
from relay.errors import CostreamError

LABEL = "costream.io/cluster"
TEST = "test"
LABEL_FILE = "cluster-label"
_PACKAGES = {"webrtc": "wrtc", "hdrh": "hdrhistogram", "yaml": "pyyaml"}


class Refused(CostreamError):
    """A drill was refused; nothing has been started. One line per reason."""


def require_possible(scenario: Scenario) -> Preparation:
    """Return what the faults need from the start on. Raises Refused with all reasons."""
    preparation = Preparation()
    reasons = list(_reasons(scenario, preparation))
    if reasons:
        raise Refused("\n".join(reasons))
    return preparation


def left_out(scenario: Scenario) -> list[str]:
    """What a scenario would like to have and this machine has not, with the reason; the drill goes on without it."""
    chromium = scenario.load.chromium
    if not chromium.count or not chromium.optional or (reason := why_no_chromium()) is None:
        return []
    return [f"load.chromium: no viewer in Chromium ({chromium.count} wanted in each room): {reason}"]


def require_test_cluster(directory: Path) -> None:
    """Raise Refused unless the cluster in a directory is labelled as one for tests."""
    try:
        label = (directory / LABEL_FILE).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        label = ""
    if label != f"{LABEL}={TEST}":
        raise Refused(
            f"{directory} is no test cluster: it has no {LABEL_FILE} with {LABEL}={TEST}; nothing was injected"
        )


def label_as_test_cluster(directory: Path) -> None:
    """What whoever starts a test cluster does."""
    (directory / LABEL_FILE).write_text(f"{LABEL}={TEST}\n", encoding="ascii")


def _reasons(scenario: Scenario, preparation: Preparation) -> Iterator[str]:
    cast = ScenarioCast(scenario)
    for number, fault in enumerate(scenario.method):
        try:
            fault.check(cast)
        except ValueError as error:
            yield f"method.{number} ({fault.fault}): {error}"
        else:
            fault.prepare(preparation)
    load = scenario.load
    places = {"hosts": load.hosts.at, "viewers": load.viewers.at}
    if load.chromium.count:
        places["chromium"] = load.chromium.at
    for where, names in places.items():
        for name in names:
            try:
                cast.member(name, "relay", "signaling")
            except ValueError as error:
                yield f"load.{where}.at: {error}"
    try:
        cast.member(load.newcomers_at, "relay", "signaling")
    except ValueError as error:
        yield f"load.newcomers_at: {error}"
    seats = load.hosts.count + load.hosts.voices
    if seats > 64:
        yield f"load.hosts: {seats} hosts with and without pictures; a room has 64 seats"
    yield from dict.fromkeys(preparation.missing)
    if load.chromium.count and not load.chromium.optional and (reason := why_no_chromium()):
        yield f"load.chromium: {reason}"
    if scenario.root and (reason := why_no_namespaces()):
        yield f"root: this drill needs network namespaces, and {reason}"
    for module, package in _PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            yield f"the Python package {package} is not installed (pip install 'costream[drills]')"
