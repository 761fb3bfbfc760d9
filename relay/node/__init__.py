from relay.node.node import Node, make_node_id

__all__ = ["Node", "make_node_id"]
