"""What an instance says to the hub, for those who subscribed to it and may see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from actors.delivery.sink import Sink
from actors.directory import Directory
from actors.hub.messages import HubMessage, Publish
from actors.runtime.ref import Ref
from reileta.errors import Overloaded
from reileta.ids import at
from reileta.protocol import events
from reileta.protocol.frames import encode
from reileta.protocol.views import registry
from reileta.rules.identity import Viewer
from reileta.rules.instance.instance import Instance


class Publisher:
    """One instance's publications. One that finds the hub's mailbox full is dropped, and counted:
    the next about the same object says all that it said."""

    def __init__(
        self,
        rules: Instance,
        *,
        hub: Ref[HubMessage],
        directory: Directory,
        address: str,
        secure: bool,
    ) -> None:
        self._rules = rules
        self._id = rules.record.id
        self._hub = hub
        self._directory = directory
        self._address = address
        self._secure = secure

    def tell(
        self, event: str, data: bytes, *, told: Iterable[Sink] = (), overseers: bool = False
    ) -> None:
        """Something happened inside. Those inside and those in `told` know it already; with
        `overseers`, it is for those alone who oversee the instance."""
        self._publish(
            event, lambda: data, inside=self._id, told=frozenset(told), overseers=overseers
        )

    def update(self) -> None:
        """The object is another than it was, which those inside are not told by themselves."""
        record, occupancy = self._rules.record, self._directory.occupancy(self._id)

        def data() -> bytes:
            return encode(
                registry.instance_view(
                    record, occupancy, address=self._address, secure=self._secure
                )
            )

        self._publish(events.UPDATE_INSTANCE, data)

    def _publish(
        self,
        event: str,
        data: Callable[[], bytes],
        *,
        inside: str | None = None,
        told: frozenset[Sink] = frozenset(),
        overseers: bool = False,
    ) -> None:
        rules, address = self._rules, self._address
        audience = (rules.oversight if overseers else rules.news_audience).frozen()

        def render(viewer: Viewer) -> bytes | None:
            shown = audience.admits(at(viewer.user, address), admin=viewer.admin)
            return data() if shown else None

        with suppress(Overloaded):  # `Ref.tell` counts what a full mailbox refuses
            self._hub.tell(Publish(event, self._id, render, inside, told))
