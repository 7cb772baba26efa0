"""Asks the sockets inside whether their clients are still there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeAlias

import outcome
import trio

from actors.delivery.sink import Sink
from actors.instance.messages import InstanceMessage
from actors.runtime import Context

SilentSinks: TypeAlias = frozenset[Sink]
"""Sockets of which nothing was heard in the time that they had (`Sink.responds`)."""


def ask_whether_there(
    context: Context[InstanceMessage],
    sinks: Iterable[Sink],
    then: Callable[[SilentSinks], None],
) -> None:
    """Asks the sockets, beside the actor; `then` gets those that are silent, about a second later.

    Whoever handles a request that waits for this answers it in `then`, also if it fails.
    """

    def done(result: outcome.Outcome[SilentSinks]) -> None:
        then(result.unwrap())

    context.run(partial(_silent, tuple(sinks)), done)


async def _silent(sinks: Sequence[Sink]) -> SilentSinks:
    silent: set[Sink] = set()

    async def ask(sink: Sink) -> None:
        if not await sink.responds():
            silent.add(sink)

    async with trio.open_nursery() as nursery:
        for sink in sinks:
            nursery.start_soon(ask, sink)
    return frozenset(silent)
