"""Events: callbacks, and the next event as an awaitable."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

import anyio

Listener: TypeAlias = Callable[[Any], object]

_log = logging.getLogger("reileta_client")


class Emitter:
    """Something that has events, each with a name and one value."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = {}

    def on(self, name: str, listener: Listener) -> Callable[[], None]:
        """Calls `listener` at each such event, until the returned function is called.

        Listeners must not wait. One that raises is logged, and the others get their event.
        """
        listeners = self._listeners.setdefault(name, [])

        def call(value: Any) -> None:
            listener(value)

        listeners.append(call)

        def stop() -> None:
            if call in listeners:
                listeners.remove(call)

        return stop

    async def once(self, name: str) -> Any:
        """The value of the next such event."""
        came = anyio.Event()
        values: list[Any] = []

        def take(value: Any) -> None:
            values.append(value)
            came.set()

        stop = self.on(name, take)
        try:
            await came.wait()
        finally:
            stop()
        return values[0]

    def _emit(self, name: str, value: Any = None) -> None:
        for listener in tuple(self._listeners.get(name, ())):
            try:
                listener(value)
            except Exception:  # noqa: BLE001 - the program's own mistake must not end the connection
                _log.exception("a listener of %r failed", name)
