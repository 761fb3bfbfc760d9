"""What Ray's autoscaler has machines from here: it starts Ray's nodes on this one, each as a machine with a clock of
its own where that is allowed. Loaded by the autoscaler's process, from the configuration (`provider: type: external`).
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import NODE_KIND_HEAD, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

from tests.workers.nodes import HEAD, JOURNAL, end_node, start_node


@dataclass
class Node:
    """A machine that was begun."""

    tags: dict[str, str]
    process: subprocess.Popen[bytes]


class LocalMachines(NodeProvider):
    """`provider_config` has the cluster's `directory` and its `head_type`. Machines are called `m1`, `m2`, …"""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._directory = Path(provider_config["directory"])
        self._head = {TAG_RAY_NODE_KIND: NODE_KIND_HEAD, TAG_RAY_USER_NODE_TYPE: provider_config["head_type"]}
        self._lock = RLock()  # the autoscaler calls from several threads
        self._nodes: dict[str, Node] = {}
        self._begun = 0

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        with self._lock:
            return [name for name in (HEAD, *self._nodes) if tag_filters.items() <= self.node_tags(name).items()]

    def is_running(self, node_id: str) -> bool:
        with self._lock:
            return node_id == HEAD or node_id in self._nodes

    def is_terminated(self, node_id: str) -> bool:
        return not self.is_running(node_id)

    def node_tags(self, node_id: str) -> dict[str, str]:
        with self._lock:
            return self._head if node_id == HEAD else self._nodes[node_id].tags

    def set_node_tags(self, node_id: str, tags: dict[str, str]) -> None:
        with self._lock:
            self.node_tags(node_id).update(tags)

    def create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],
        tags: dict[str, str],
        count: int,
        resources: dict[str, float],
        labels: dict[str, str],
    ) -> None:
        for _ in range(count):
            with self._lock:
                self._begun += 1
                name = f"m{self._begun}"
                kind = tags[TAG_RAY_USER_NODE_TYPE]
                self._note("begun", name, kind)
                instance = {"RAY_CLOUD_INSTANCE_ID": name, "RAY_NODE_TYPE_NAME": kind, "CLUSTER": str(self._directory)}
                address = (self._directory / "ray_current_cluster").read_text().strip()
                self._nodes[name] = Node(dict(tags), start_node(address, int(resources["CPU"]), instance))

    def terminate_node(self, node_id: str) -> None:
        with self._lock:
            node = self._nodes.pop(node_id)
            end_node(node.process)
            self._note("ended", node_id, node.tags[TAG_RAY_USER_NODE_TYPE])

    def _note(self, what: str, name: str, kind: str) -> None:
        with (self._directory / JOURNAL).open("a") as journal:
            journal.write(json.dumps([what, name, kind]) + "\n")
