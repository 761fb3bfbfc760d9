"""The planning page's terms beside what a simulated cluster calls, and the page itself."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from drills.simulation import planning
from drills.simulation.run import simulate
from drills.simulation.world import Plan


def test_the_stores_terms_are_what_a_calm_cluster_calls() -> None:
    plan = Plan(nodes=20, hosts=1, viewers=1, hours=0.5, faults_per_hour=0.0, common_per_hour=0.0, seed=2)
    outcome = simulate(plan)
    assert outcome.violation is None
    expected = planning.store_calls(planning.Cluster(nodes=20, rooms=20, hosts=1, viewers=0, changes_per_s=0.0))
    assert outcome.ops["node.announce"] / outcome.virtual_s == pytest.approx(expected["heartbeats"], rel=0.05)
    # The simulation counts the reads of the list, not the waits on its stream that come before each.
    assert 2 * outcome.ops["node.look"] / outcome.virtual_s == pytest.approx(
        expected["looks at the directory"], rel=0.05
    )
    # All leases of a room and a node are renewed in one call.
    assert outcome.ops["lease.renew"] / outcome.virtual_s == pytest.approx(expected["renewals of leases"], rel=0.1)


def test_more_of_anything_costs_more() -> None:
    calm = planning.Cluster(nodes=100, rooms=100)
    for more in (planning.Cluster(nodes=200, rooms=100), planning.Cluster(nodes=100, rooms=200),
                 planning.Cluster(nodes=100, rooms=100, changes_per_s=1.0)):  # fmt: skip
        assert planning.messages(more) > planning.messages(calm)
    assert planning.records_read(planning.Cluster(nodes=200, rooms=0, turnover_per_s=1.0)) == 40_000


def test_the_page_and_its_curve_are_those_that_are_kept(tmp_path: Path) -> None:
    page, curve = planning.write(tmp_path)
    root = ElementTree.fromstring(curve.read_text())
    assert len(root.findall("{http://www.w3.org/2000/svg}polyline")) == 2 * len(planning.ROOMS_PER_NODE)
    docs = Path(__file__).parents[3] / "docs"
    for path in (page, curve):
        assert (docs / path.name).read_text() == path.read_text(), "run `costream planning`"
