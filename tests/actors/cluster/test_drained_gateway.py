"""Where a node that is drained sends clients with new WebSockets."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from actors.node import GatewaySeen
from tests.actors.node_harness import open_harness


@dataclass
class Seen:
    """A node, as it described itself last."""

    id: str
    url: str | None
    load: float = 0.0
    roles: tuple[str, ...] = ("eta", "ins", "reil")
    state: str = "up"


async def test_a_drained_node_sends_clients_only_to_another_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_harness(monkeypatch) as harness:
        node = harness.node
        own = node.server.site.url
        nodes = {one.id: one for one in (Seen("a", own), Seen("b", own), Seen("c", own, 0.5))}
        hosting = SimpleNamespace(draining=False)
        cluster = SimpleNamespace(member=SimpleNamespace(node="a", nodes=nodes), hosting=hosting)
        monkeypatch.setattr(node, "cluster", cluster)
        assert node.instead() is None
        assert node.instead_for_links() is None
        hosting.draining = True
        # All are reached at one address: a client would come back to this node.
        assert node.instead() is None
        assert node.instead_for_links() is not None
        nodes["c"].url = "https://c.example:8443"
        assert node.instead() == GatewaySeen(secure=True, address="c.example:8443")
        nodes["c"].state = "down"
        assert node.instead() is None
