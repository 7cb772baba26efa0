"""Other servers for a `FakeNode`, which answer what a test says."""

from __future__ import annotations

from reileta.federation.knowledge import Knowledge
from reileta.federation.remote_reads import RemoteReads
from tests.api.fakes import FakeNode
from tests.reileta.federation.fake_peers import FakePeers


def connected(node: FakeNode) -> FakePeers:
    """The servers whose objects the node reads. By default they have none."""
    peers = FakePeers()
    knowledge = Knowledge(node.store, node.peers)
    node.remote_reads = RemoteReads(
        peers,
        address=node.address,
        source=peers.source,
        existing=knowledge.existing,
        clock=node.clock,
        metrics=node.metrics,
        activity=node.activity,
        limited=False,
    )
    return peers
