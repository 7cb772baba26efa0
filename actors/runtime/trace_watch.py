"""Watches some traces for the console, while somebody looks.

The samplers of the edges choose them: about `PER_S` a second at each edge, of all that begin there.
What is logged about them goes through `take`, a processor of the log, which keeps events out of the
log that are there only for the console. While nobody looks, no trace is chosen, and `take` does
nothing.
"""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from typing import Any, Final

import structlog
import trio

from actors.runtime.trace import Sampler
from reileta.rules.console.traces import SlowTrace, SlowTraces

PER_S: Final = 10.0
"""Traces that are chosen a second, at each edge."""
STEP_S: Final = 1.0


class TraceWatch:
    """The traces that the console shows. `step` is called every `STEP_S` while somebody looks."""

    def __init__(self) -> None:
        self._traces = SlowTraces()
        self._shares: dict[Sampler, float] = {}
        self._on = False
        self._started = trio.Event()

    async def looked_at(self) -> None:
        """Waits until somebody looks."""
        await self._started.wait()

    def add(self, sampler: Sampler) -> None:
        """Adds a place where traces begin."""
        self._shares[sampler] = 0.0

    @property
    def on(self) -> bool:
        return self._on

    @property
    def slowest(self) -> tuple[SlowTrace, ...]:
        """The slowest traces so far, the slowest first."""
        return self._traces.slowest

    def start(self) -> None:
        """Somebody looks."""
        if not self._on:
            self._on = True
            self._started.set()
            for sampler in self._shares:
                self._draw(sampler, 1.0)

    def stop(self) -> None:
        """Nobody looks any more."""
        self._on = False
        self._started = trio.Event()
        self._traces.stop()
        for sampler in self._shares:
            self._draw(sampler, 0.0)

    def step(self) -> None:
        """Finishes traces, and adapts the shares to how many begin."""
        self._traces.settle(trio.current_time())
        if not self._on:
            return
        for sampler, share in self._shares.items():
            wanted = PER_S * STEP_S / sampler.drawn if sampler.drawn else 2.0
            self._draw(sampler, min(1.0, share * wanted))

    def _draw(self, sampler: Sampler, share: float) -> None:
        self._shares[sampler] = share
        sampler.drawn = 0
        sampler.watch(share, self._begin)

    def _begin(self, trace: int, logged: bool) -> bool:
        """Watches a trace, if there is room."""
        return self._traces.begin(f"{trace:016x}", trio.current_time(), logged=logged)

    def take(
        self, logger: object, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """A structlog processor: takes what is logged about watched traces."""
        trace = event.get("trace")
        if trace is None or not self._traces.watches(trace):
            return event
        keys = {name: value for name, value in event.items() if name not in ("event", "trace")}
        at_us = time.time_ns() // 1000
        if not self._traces.take(trace, at_us, event["event"], keys):
            raise structlog.DropEvent
        return event
