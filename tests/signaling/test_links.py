"""The links between nodes in the API: who may see and move them."""

from __future__ import annotations

from tests.signaling.api_client import Api, problem
from tests.signaling.memory_node import link_end


async def test_links_are_listed_with_the_node_that_tells(api: Api) -> None:
    api.node.served_links["l1"] = link_end("l1")
    (found,) = (await api.call("GET", "/v1/links", "service")).json()["links"]
    assert (found["node"], found["peer"], found["carrying"]) == ("n1", "n2", ["primary"])
    assert found["paths"]["primary"]["verdict"] == "good"
    assert "backup" not in found["paths"]


async def test_a_link_is_moved_by_hand_and_back(api: Api) -> None:
    api.node.served_links["l1"] = link_end("l1")
    for action, path in (("open", "backup"), ("reset", "primary")):
        moved = await api.call("POST", "/v1/links/l1/breaker", "service", json={"action": action})
        assert (moved.status_code, moved.json()["carrying"]) == (200, [path])


async def test_wrong_moves_are_refused(api: Api) -> None:
    path = "/v1/links/l1/breaker"
    assert problem(await api.call("POST", path, "service", json={"action": "open"})) == (404, "link-not-found")
    api.node.served_links["l1"] = link_end("l1")
    assert problem(await api.call("POST", path, "service", json={"action": "close"})) == (422, "invalid-request")
    assert problem(await api.call("POST", path, "owner", json={"action": "open"})) == (403, "forbidden")
    assert problem(await api.call("POST", path, json={"action": "open"}))[0] == 401
    assert api.node.served_links["l1"]["carrying"] == ["primary"]
