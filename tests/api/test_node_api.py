from __future__ import annotations

import inspect

from actors.node import Node
from api.node_api import GatewayPort, NodePort


def test_a_node_has_all_that_the_faces_ask_for() -> None:
    asked = {
        name
        for port in (NodePort, GatewayPort)
        for name in vars(port)
        if not name.startswith("_") and not isinstance(vars(port)[name], property)
    }
    assert {"session", "refreshed", "resource_lost", "moderate"} <= asked
    for name in asked:
        given = inspect.signature(getattr(Node, name)).parameters
        wanted = inspect.signature(getattr(GatewayPort, name)).parameters
        assert list(given) == list(wanted), name
