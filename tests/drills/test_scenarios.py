"""Scenarios as files: those that ship are sound, and mistakes are named with file, line, key and what is allowed."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drills import listing
from drills.faults import FAULTS
from drills.faults.resources import faketime
from drills.run.guard import Refused, require_possible
from drills.scenario.figures import FIGURES
from drills.scenario.loading import ScenarioError, as_json, find, load, parse, shipped_files
from drills.scenario.model import DIMENSIONS, Scenario
from drills.scenario.units import Bound, seconds
from tests.drills.fabrics import need

GOOD = """\
title: A path goes dark
about: What it is about.
dimension: path failover
load:
  hosts: {count: 2}
steady_state:
  before: {freeze.max: "<= 0.5 s"}
method:
  - {at: 1s, fault: partition, from: [relay-a/1], to: [relay-b/1], for: 5s}
lasts: 8s
"""
SHIPPED = [path.stem for path in shipped_files()]


def wrong(text: str) -> str:
    """What is said against a text."""
    with pytest.raises(ScenarioError) as caught:
        parse(text, "f.yaml")
    return str(caught.value)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_can_be_read_and_names_only_what_is_there(name: str) -> None:
    need("tun")
    scenario = load(find(name))
    if faketime() is None and any(fault.fault == "clock-jump" for fault in scenario.method):
        pytest.skip("libfaketime is missing (Debian package libfaketime)")
    preparation = require_possible(scenario)
    assert preparation.missing == []
    assert scenario.steady_state.before, "without a steady state before, a drill proves nothing"
    assert scenario.steady_state.after


def test_the_named_drills_are_there() -> None:
    network = {"storm", "burst-loss", "black-hole", "asymmetric-partition", "flapping"}
    nodes = {"kill-relay", "kill-links", "kill-signaling", "redis-down", "rolling-upgrade"}
    resources = {"cpu-storm", "memory-pressure", "disk-full", "clock-jump"}
    programs = {"kill-mixer", "kill-compositor", "cpu-storm-beside-programs", "pk-across-partition"}
    assert network | nodes | resources | programs <= set(SHIPPED)
    assert {load(find(name)).dimension for name in SHIPPED} == set(DIMENSIONS)


def test_a_scenario_as_it_was_understood() -> None:
    scenario = parse(GOOD)
    plain = as_json(scenario)
    assert plain["steady_state"] == {"before: freeze.max": "<= 0.5 s"}
    assert (plain["method"][0]["at"], plain["method"][0]["lasts"], plain["load"]["traffic"]) == (1.0, 5.0, "drill")
    ((_, _, bound),) = scenario.steady_state.items()
    assert bound.limit == 500
    assert [bound.holds(value) for value in (500.0, 500.1, None)] == [True, False, False]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("partition", "partitoin", "f.yaml:9: method.0: there is no fault 'partitoin'; did you mean partition?"),
        ("from:", "form:", "f.yaml:9: method.0.form: there is no such key; did you mean for?; allowed: fault, at"),
        ("from:", "form:", "f.yaml:9: method.0.from: is missing"),
        ("lasts: 8s", "lasts: 3s", "f.yaml:9: method.0: partition at 1 s for 5 s is not over when the method ends"),
        (
            "lasts: 8s",
            "lasts: 8",
            "f.yaml:10: lasts: write a time with one of us, ms, s, min, for example 150ms; not 8",
        ),
        ("at: 1s", "at: -1s", "f.yaml:9: method.0.at: Input should be greater than or equal to 0"),
        ("at: 1s", "at: 9s", "f.yaml:9: method.0: partition at 9 s"),
        ("dimension:", "dimensoin:", "f.yaml:3: dimensoin: there is no such key; did you mean dimension?"),
        ("path failover", "luck", "f.yaml:3: dimension: Input should be 'path failover', 'delay'"),
        (
            "freeze.max",
            "freeze.mx",
            "f.yaml:7: steady_state.before: 'freeze.mx' is no figure; did you mean freeze.max?",
        ),
        ('"<= 0.5 s"', '"<= 0.5 %"', "f.yaml:7: steady_state.before: freeze.max: '<= 0.5 %': the unit has to be ms"),
        ('"<= 0.5 s"', "5", "f.yaml:7: steady_state.before: freeze.max: write a bound as `<= 150 ms`"),
        (
            "count: 2",
            "cuont: 2",
            "f.yaml:5: load.hosts.cuont: there is no such key; did you mean count?; allowed: count",
        ),
        ("count: 2", "count: 0", "f.yaml:5: load.hosts.count: Input should be greater than or equal to 1"),
        ("title: A path goes dark", "title: [", "f.yaml:3: no YAML"),
        ("about:", "title:", "f.yaml:2: title is given twice"),
        (GOOD, "- 1", "f.yaml: a scenario is a mapping"),
        (GOOD, "", "f.yaml: a scenario is a mapping"),
    ],
)
def test_mistakes_are_named(old: str, new: str, said: str) -> None:
    assert said in wrong(GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("load", "said"),
    [
        ("viewers: {play: program}", "f.yaml:4: load: viewers.play: program needs program: true"),
        ("pk: true", "f.yaml:4: load: pk: true needs rooms: 2, not 1"),
        ("rooms: 2, pk: true, program: true, viewers: {play: program}", "f.yaml:4: load: pk: true needs viewers.play"),
        ("rooms: 2, pk: true, pk_lasts: 5s", "f.yaml:4: load.pk_lasts: Input should be greater than or equal to 10"),
        (
            "program: true, hosts: {size: [330, 180]}",
            "f.yaml:4: load: a program needs program_size or hosts.size with a width by 32",
        ),
        (
            "program: true, program_size: [640, 361]",
            "f.yaml:4: load: a program needs program_size or hosts.size with a",
        ),
        ("program_fps: 60", "f.yaml:4: load: program_size and program_fps need program: true"),
        (
            "program: true, program_size: [640, 360], viewers: {play: program}",
            "f.yaml:4: load: program_size needs viewers.play: stage",
        ),
        (
            "chromium: {cuont: 1}",
            "f.yaml:4: load.chromium.cuont: there is no such key; did you mean count?; allowed: count, at, optional",
        ),
        ("chromium: {count: 9}", "f.yaml:4: load.chromium.count: Input should be less than or equal to 8"),
        ("chromium: {at: []}", "f.yaml:4: load.chromium.at: List should have at least 1 item"),
        ("chromium: 1", "f.yaml:4: load.chromium: Input should be a valid dictionary or instance of ChromiumPart"),
        ("viewers: {play: stgae}", "f.yaml:4: load.viewers.play: Input should be 'stage' or 'program'"),
    ],
)
def test_a_load_that_cannot_be(load: str, said: str) -> None:
    assert said in wrong(GOOD.replace("load:\n  hosts: {count: 2}", f"load: {{{load}}}"))


@pytest.mark.parametrize("name", ["kill-mixer", "kill-compositor", "kill-links"])
def test_only_relays_have_such_processes(name: str) -> None:
    need("tun")
    method = "{at: 1s, fault: partition, from: [relay-a/1], to: [relay-b/1], for: 5s}"
    text = GOOD.replace(method, f"{{at: 1s, fault: {name}, members: [signaling-1]}}")
    with pytest.raises(Refused, match="signaling-1 is a signaling, and this is done to a relay"):
        require_possible(parse(text))


def test_links_get_the_process_that_is_to_be_killed() -> None:
    need("tun")
    assert require_possible(load(find("kill-links"))).settings == {
        "relay-a": {"link.process": True},
        "relay-b": {"link.process": True},
    }


def test_an_impairment_that_cannot_be() -> None:
    text = GOOD.replace("fault: partition", "fault: impair, impairment: los=3%")
    assert "f.yaml:9: method.0.impairment: 'los=3%' is no impairment; did you mean loss?" in wrong(text)


def test_a_name_that_is_none() -> None:
    with pytest.raises(ScenarioError, match=r"there is no scenario blak-hole; did you mean black-hole\?"):
        find("blak-hole")
    assert find("black-hole").name == "black-hole.yaml"


def test_every_key_fault_and_figure_is_documented() -> None:
    models: list[Any] = [Scenario, *FAULTS.values()]
    for model in models:
        for key, _, means in listing.documented(model):
            assert len(means) > 5, f"{model.__name__}.{key}"
        assert model.__doc__
    rows = list(listing._all_keys(Scenario, ""))
    assert all(means for _, _, means in rows)
    assert {"load.hosts.codec", "cluster.settings", "steady_state.before"} <= {key for key, _, _ in rows}
    assert all(len(figure.means) > 5 for figure in FIGURES.values())


def test_times_need_a_unit() -> None:
    assert [seconds(text) for text in ("150ms", "2 s", "0.5min", "20us")] == pytest.approx([0.15, 2.0, 30.0, 2e-5])
    for bad in ("150", 150, "s", "1 h", "1e3s", None):
        with pytest.raises(ValueError, match="write a time"):
            seconds(bad)
    assert Bound.parse(">= 3", "").holds(3)


@settings(max_examples=60)
@given(st.text(max_size=300))
def test_no_text_breaks_the_reader(text: str) -> None:
    for candidate in (text, f"title: {text}\n{GOOD}", GOOD.replace("1s", text), GOOD.replace("load", text)):
        with contextlib.suppress(ScenarioError):
            parse(candidate)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**12) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60)
@given(st.sampled_from(["load", "method", "steady_state", "cluster", "seed", "lasts", "title"]), JSON)
def test_no_value_breaks_the_reader(key: str, value: Any) -> None:
    lines = {"load": "load: {}", "cluster": "cluster: {}", "seed": "seed: 1"}
    text = "\n".join(f"{name}: {json.dumps(value)}" if name == key else line for name, line in lines.items())
    rest = GOOD.replace("load:\n  hosts: {count: 2}\n", "")
    if key in ("method", "steady_state", "lasts", "title"):
        rest = f"{key}: {json.dumps(value)}\n" + "about: something longer\n"
    with contextlib.suppress(ScenarioError):
        parse(f"{text}\n{rest}")
