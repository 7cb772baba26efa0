"""Publishes an instance's events to the hub, for subscribers who may see it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Protocol

from actors.delivery.sink import Sink
from actors.directory import Directory
from actors.hub.messages import HubMessage, Publish
from actors.runtime.mailbox import Ref
from actors.server import LiveServer
from reileta.errors import Overloaded
from reileta.ids import at
from reileta.protocol import events
from reileta.protocol.frames import encode
from reileta.protocol.views import registry
from reileta.rules.identity import Viewer
from reileta.rules.instance.instance import Instance
from reileta.rules.visibility import Audience


class NewsRelay(Protocol):
    """Publishes to subscribers at other nodes (`actors.cluster.hub_relay.HubRelay`)."""

    def news(
        self,
        event: str,
        instance_id: str,
        data: Callable[[], bytes],
        *,
        audience: Audience,
        inside: bool,
        informed: Collection[Sink],
    ) -> None:
        """`inside`, `informed` as in `Publish`: sockets inside, and these, have it already."""
        ...


class Publisher:
    """The publications of one instance. If the hub's mailbox is full, a publication is dropped and
    counted: the next one about the same object has all its content."""

    def __init__(
        self,
        rules: Instance,
        *,
        hub: Ref[HubMessage],
        directory: Directory,
        server: LiveServer,
        relay: NewsRelay | None = None,
    ) -> None:
        """`relay`: to other nodes; None: there are none."""
        self._relay = relay
        self._rules = rules
        self._id = rules.record.id
        self._hub = hub
        self._directory = directory
        self._server = server

    def publish(
        self, event: str, data: bytes, *, informed: Iterable[Sink] = (), overseers: bool = False
    ) -> None:
        """Publishes an event to subscribers.

        Sockets inside and those in `informed` have it already, and are left out. With `overseers`
        it goes only to subscribers who oversee the instance.
        """
        self._send(
            event, lambda: data, inside=self._id, informed=frozenset(informed), overseers=overseers
        )

    def publish_object(self) -> None:
        """Publishes the instance's object as it is now, to subscribers inside too."""
        record, occupancy = self._rules.record, self._directory.occupancy(self._id)

        def data() -> bytes:
            return encode(registry.instance_view(record, occupancy, self._server.site))

        self._send(events.UPDATE_INSTANCE, data)

    def _send(
        self,
        event: str,
        data: Callable[[], bytes],
        *,
        inside: str | None = None,
        informed: frozenset[Sink] = frozenset(),
        overseers: bool = False,
    ) -> None:
        rules, address = self._rules, self._server.address
        audience = (rules.oversight if overseers else rules.news_audience).frozen()

        def render(viewer: Viewer) -> bytes | None:
            shown = audience.admits(at(viewer.user, address), admin=viewer.admin)
            return data() if shown else None

        with suppress(Overloaded):  # the mailbox counts what it refuses
            self._hub.tell(Publish(event, self._id, render, inside, informed))
        if self._relay is not None:
            self._relay.news(
                event,
                self._id,
                data,
                audience=audience,
                inside=inside is not None,
                informed=informed,
            )
