"""The links of instance nodes to this process, and the instances that live on these nodes.

The database gives each link its number, so that a node has one link at a time over all processes:
a new one replaces the one before, wherever that is. Every `SEEN_S`, and when something about a node
changes, this looks whether its link is still the one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import trio

from actors.links.direct_proofs import Proofs
from actors.links.port import HostedPort, Link
from actors.links.reachability import Reachability
from reileta.clock import Clock
from reileta.errors import CredentialInvalid, DatabaseUnavailable, NodeNotFound, TooManyRequests
from reileta.observability import log_events
from reileta.observability.activity_log import ActivityLog
from reileta.observability.metrics import Metrics
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.node_link import Hello, Hold, Key
from reileta.records import DirectAddress, HostNode
from reileta.store.host_nodes import SEEN_S, HostNodes

CUT_S: Final = 60.0
"""How long a node whose link was cut for its form can't open another one."""
CHECKS: Final = 4096
"""Nodes that are to be looked at; more are looked at when their time comes."""


class OpenLink(Link, Protocol):
    """A node's socket, as this file uses it."""

    node: str
    token_hash: bytes
    number: int
    """Of the link; 0 before it has one."""

    def end(self, code: CloseCode, reason: str) -> None:
        """Closes the socket. What still comes over it is dropped."""
        ...

    def forget(self, port: HostedPort) -> None:
        """An instance has ended, which the node hosts."""
        ...

    def tell(self, item: object) -> None:
        """Sends an item that no window bounds."""
        ...


class HostLinks:
    """The links to this process, by node."""

    def __init__(
        self,
        hosts: HostNodes,
        clock: Clock,
        *,
        activity: ActivityLog,
        grace_s: float,
        process: Callable[[], str],
        changed: Callable[[HostNode], None],
        gone: Callable[[str], None],
        proofs: Proofs,
        metrics: Metrics,
    ) -> None:
        """`process`: the id of this process among those of the server. `changed` publishes a node,
        `gone` ends an instance whose node was deleted."""
        self.metrics = metrics
        self._reachability = Reachability(proofs, self._reach)
        self.elsewhere: Callable[[str, str], None] = lambda node, process: None
        """Called with a node whose instances run here, and the process that has its link."""
        self._hosts = hosts
        self._activity = activity
        self._grace_s = grace_s
        self.process = process
        self._changed = changed
        self._gone = gone
        self._links: dict[str, OpenLink] = {}
        self._ports: dict[str, dict[str, HostedPort]] = {}
        self._epochs = itertools.count(clock.now_ms())
        self._cut_until: dict[str, float] = {}
        self._to_check: dict[str, None] = {}
        self._renamed: set[str] = set()
        """Nodes whose links are to be published again, since this process has another id."""
        self._stirred = trio.Event()

    def __len__(self) -> int:
        return len(self._links)

    def debug_counts(self) -> dict[str, int]:
        """The sizes of the tables, for tests that look for leaks."""
        return {
            "links": len(self._links),
            "hosted instances": sum(map(len, self._ports.values())),
            "direct addresses": len(self._reachability),
        }

    # Instances ---------------------------------------------------------------------------------

    async def port(self, instance_id: str, node_id: str) -> HostedPort:
        """The end of an instance that is about to start. Raises NodeNotFound."""
        host = await self._hosts.get(node_id)
        if host is None:
            raise NodeNotFound
        return HostedPort(
            instance_id,
            host,
            grace_s=self._grace_s,
            epochs=lambda: next(self._epochs),
            begun=self._begun,
            ended=self._ended,
            doubted=self._reachability.doubt,
            missed=self.refresh,
        )

    def _count(self) -> None:
        ports = sum(len(self._ports.get(node_id, ())) for node_id in self._links)
        self.metrics.links, self.metrics.linked_instances = len(self._links), ports

    def _begun(self, port: HostedPort) -> None:
        """The instance's actor runs: not every end that was made for one gets one."""
        self._ports.setdefault(port.node, {})[port.id] = port
        port.link = self._links.get(port.node)
        port.direct = self._reachability.address(port.node)
        self._count()

    def _ended(self, port: HostedPort) -> None:
        ports = self._ports.get(port.node, {})
        if ports.get(port.id) is port:
            del ports[port.id]
            if not ports:
                del self._ports[port.node]
        self._count()
        link = self._links.get(port.node)
        if link is not None and port.epoch:
            link.forget(port)

    def ports(self, node_id: str) -> dict[str, HostedPort]:
        """The instances that run and live on the node."""
        return self._ports.get(node_id, {})

    def has(self, node_id: str) -> bool:
        """Whether the node is linked to this process."""
        return node_id in self._links

    # Links -------------------------------------------------------------------------------------

    def ensure_not_cut(self, node_id: str) -> None:
        """Raises TooManyRequests for a node whose link was cut a moment ago."""
        until, now = self._cut_until.get(node_id, 0.0), trio.current_time()
        if until > now:
            raise TooManyRequests(until - now)
        self._cut_until.pop(node_id, None)

    async def open(self, link: OpenLink, hello: Hello, welcome: Callable[..., None]) -> None:
        """A node has said hello over a new link. `welcome` gets the node and what goes on.

        Raises CredentialInvalid, and DatabaseUnavailable.
        """
        host = await self._hosts.link(
            link.node, link.token_hash, server=self.process(), version=_shown(hello.software)
        )
        if host is None:
            raise CredentialInvalid
        link.number = host.link
        before = self._links.get(link.node)
        if before is not None:
            if before.number > link.number:
                link.end(CloseCode.REPLACED, "replaced by a newer link")
                return
            self.detach(before)
            before.end(CloseCode.REPLACED, "replaced by a newer link")
        self._links[link.node] = link
        holds = {hold.instance: hold for hold in hello.holds}
        ports = self.ports(link.node)
        goes_on: list[Hold] = []
        for port in ports.values():
            port.draining = host.draining
            on = port.resume(link, holds.get(port.id))
            if on is not None:
                goes_on.append(on)
        self._count()
        welcome(host, goes_on)
        for port in tuple(ports.values()):
            link.wake(port)
            port.news()
        self.refresh(host.id)  # whether clients reach it
        self._activity.note(log_events.NODE_LINKED, None, node=host.id, link=host.link)
        self._changed(host)

    async def closed(self, link: OpenLink, reason: str) -> None:
        """A link has ended."""
        self.detach(link)
        if not link.number:
            return
        self._activity.note(
            log_events.NODE_UNLINKED, None, node=link.node, link=link.number, reason=reason
        )
        with suppress(DatabaseUnavailable):  # then it is offline after a while
            host = await self._hosts.unlink(link.node, link=link.number)
            if host is not None:
                self._changed(host)

    def detach(self, link: OpenLink) -> None:
        """What comes over the link does not count any more, and nothing goes out over it."""
        if self._links.get(link.node) is link:
            del self._links[link.node]
            self._reachability.forget(link.node)
            self._count()
        for port in tuple(self.ports(link.node).values()):
            port.lose(link)

    async def cut(self, link: OpenLink, reason: str) -> None:
        """A node has broken the form too often: its owner is told."""
        self._cut_until[link.node] = trio.current_time() + CUT_S
        with suppress(DatabaseUnavailable):
            host = await self._hosts.note_fault(link.node, reason)
            if host is not None:
                self._changed(host)

    # Changes -----------------------------------------------------------------------------------

    def refresh(self, node_id: str) -> None:
        """Something about the node has changed; its link is looked at soon."""
        if (node_id in self._links or node_id in self._ports) and len(self._to_check) < CHECKS:
            self._to_check[node_id] = None
            self._stirred.set()

    def look_for_links(self) -> None:
        """News of links at other processes may be lost."""
        for node_id in self._ports.keys() - self._links.keys():
            self.refresh(node_id)

    def deleted(self, node_id: str, instances: Sequence[str] = ()) -> None:
        """The node was deleted, with the instances that live on it."""
        link = self._links.get(node_id)
        if link is not None:
            self.detach(link)
            link.end(CloseCode.CREDENTIAL_GONE, "the node was deleted")
        for instance_id in {*instances, *self.ports(node_id)}:
            self._gone(instance_id)

    def fell(self, was: str) -> None:
        """This process goes on as another node of the cluster: its links say so."""
        self._renamed.update(self._links)
        for node_id in (*self._links, *self._ports):
            self.refresh(node_id)

    def take_key(self, public_key: str) -> None:
        """The server signs with another key from now on."""
        for link in self._links.values():
            link.tell(Key(public_key))

    def _reach(self, node_id: str, direct: DirectAddress | None) -> None:
        """Where clients can reach the node from now on; None: they can't any more."""
        event = log_events.DIRECT_WITHDRAWN if direct is None else log_events.DIRECT_PROVED
        self._activity.note(event, None, node=node_id)
        for port in tuple(self.ports(node_id).values()):
            port.reach(direct)

    def send_away(self) -> None:
        """Ends all links: their nodes come back at another process."""
        for link in tuple(self._links.values()):
            self.detach(link)
            link.end(CloseCode.GOING_AWAY, "come back at another gateway")

    async def run(self) -> None:
        """Looks at links, and at where clients can reach their nodes; for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reachability.run)
            await self._look()

    async def _look(self) -> None:
        next_at = trio.current_time() + SEEN_S
        while True:
            with trio.move_on_at(next_at):
                await self._stirred.wait()
            self._stirred = trio.Event()
            checked, self._to_check = list(self._to_check), {}
            if trio.current_time() >= next_at:
                next_at = trio.current_time() + SEEN_S
                checked = list(dict.fromkeys((*self._links, *self._ports, *checked)))
                now = trio.current_time()
                self._cut_until = {one: at for one, at in self._cut_until.items() if at > now}
            for node_id in checked:
                with suppress(DatabaseUnavailable):  # the next time
                    await self._check(node_id)

    async def _check(self, node_id: str) -> None:
        """Looks at a node that is linked to this process, or has instances here."""
        link = self._links.get(node_id)
        noted = link is not None and await self._hosts.seen(
            node_id, link.token_hash, link=link.number, server=self.process()
        )
        host = await self._hosts.get(node_id)
        if host is None:
            self.deleted(node_id)
            return
        for port in self.ports(node_id).values():
            port.draining = host.draining
        if node_id in self._renamed:
            self._renamed.discard(node_id)
            if noted:
                self._changed(host)
        if host.server not in (None, self.process()) and node_id in self._ports:
            self.elsewhere(node_id, host.server)
        if link is None or self._links.get(node_id) is not link:
            return
        if noted:
            self._reachability.follow(node_id, host.direct, link.token_hash)
            return
        self.detach(link)
        if host.link != link.number:
            link.end(CloseCode.REPLACED, "replaced by a newer link")
        else:
            link.end(CloseCode.CREDENTIAL_GONE, "the token is no longer valid")


def _shown(software: str) -> str:
    """A node's name for its program, without characters that could deceive those who see it."""
    return "".join(filter(str.isprintable, software))[:64]
