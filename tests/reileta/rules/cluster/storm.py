"""Random failures of a world, all drawn from one seed: the same seed gives the same run."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Final

from tests.reileta.rules.cluster.world import Flight, Node, Rules, World

RUN_MS: Final = 40_000.0
_TICK_MS: Final = 100.0
_OUTAGES_MS: Final = (300.0, 1_000.0, 1_900.0, 2_500.0, 4_000.0, 8_000.0)
_DELAYS_MS: Final = (1.0, 1.0, 10.0, 10.0, 300.0, 900.0, 2_200.0)


class Storm:
    """One run: nodes that pause or die, witnesses that pause, links that lose requests or answers,
    requests that arrive late, and a NATS that loses its data."""

    def __init__(self, seed: int, rules: Rules, nodes: int = 3) -> None:
        self._random = random.Random(seed)
        clocks = [
            (self._random.uniform(0.95, 1.05), self._random.uniform(0, 1e6)) for _ in range(nodes)
        ]
        self.world = World(rules, clocks)
        self.world.send = self._send  # type: ignore[method-assign]  # the driver decides
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.died_ms: dict[str, float] = {}
        self.taken_after_ms: list[float] = []
        self._cuts: list[tuple[str, float, float]] = []
        self._plan()

    def run(self) -> World:
        """Raises TwoHosts."""
        while self._queue and self._queue[0][0] < RUN_MS:
            at_ms, _, step = heapq.heappop(self._queue)
            self.world.advance(at_ms)
            step()
        return self.world

    def _at(self, at_ms: float, step: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (at_ms, next(self._numbers), step))

    def _after(self, ms: float, step: Callable[[], None]) -> None:
        self._at(self.world.now_ms + ms, step)

    # What goes wrong

    def _plan(self) -> None:
        for node in self.world.nodes:
            self._at(self._random.uniform(0, _TICK_MS), lambda node=node: self._tick(node))  # type: ignore[misc]
            for link in ("nats>", "nats<", "database>", "database<", "nats", "database"):
                self._cut_at_times(f"{node.name}-{link}", most=2)
            for start_ms, end_ms in self._spans(3):
                self._at(start_ms, lambda node=node: self._pause(node))  # type: ignore[misc]
                self._at(end_ms, lambda node=node: self._resume(node))  # type: ignore[misc]
        victim = self.world.nodes[0]
        if self._random.random() < 0.5:
            self._at(self._random.uniform(4_000, RUN_MS / 2), lambda: self._kill(victim))
        for witness in ("nats", "database"):
            self._cut_at_times(witness, most=2)
        for _ in range(self._random.choice([0, 0, 1, 2, 3])):
            self._at(self._random.uniform(2_000, RUN_MS), self._lose_data)

    def _spans(self, most: int) -> list[tuple[float, float]]:
        spans = []
        for _ in range(self._random.randint(0, most)):
            start_ms = self._random.uniform(2_000, RUN_MS)
            spans.append((start_ms, start_ms + self._random.choice(_OUTAGES_MS)))
        return spans

    def _cut_at_times(self, what: str, most: int) -> None:
        self._cuts += [(what, start_ms, end_ms) for start_ms, end_ms in self._spans(most)]

    def _cut(self, what: str) -> float | None:
        """Until when that is cut; None if it is not."""
        now_ms = self.world.now_ms
        ends = [end for name, start, end in self._cuts if name == what and start <= now_ms < end]
        return max(ends, default=None)

    # Nodes

    def _tick(self, node: Node) -> None:
        if node.dead:
            return
        if not node.paused:
            if node.lease.fallen:
                node.start()
            node.tick()
        self._after(_TICK_MS * self._random.uniform(0.9, 1.1), lambda: self._tick(node))

    def _pause(self, node: Node) -> None:
        node.paused = True

    def _resume(self, node: Node) -> None:
        if not node.dead:
            self.world.resume(node)

    def _kill(self, node: Node) -> None:
        node.die()
        self.died_ms[node.id] = self.world.now_ms

    def _lose_data(self) -> None:
        self.world.nats.lose_data()
        for node in self.world.nodes:
            self._after(self._random.uniform(1, 600), lambda node=node: self._reconnect(node))  # type: ignore[misc]

    def _reconnect(self, node: Node) -> None:
        if node.dead or node.server == self.world.nats.incarnation:
            return
        if node.paused:
            self._after(50, lambda: self._reconnect(node))
        else:
            node.reconnect()

    # Calls

    def _send(self, flight: Flight) -> None:
        self.world.flights.append(flight)
        self._after(self._delay(), lambda: self._arrive(flight))

    def _delay(self) -> float:
        return self._random.choice(_DELAYS_MS) * self._random.random()

    def _arrive(self, flight: Flight) -> None:
        """The request reaches its witness, if nothing is in the way."""
        link = f"{flight.node.name}-{flight.witness}"
        if self._cut(link) is not None or self._cut(link + ">") is not None:
            # TCP sends it again, unless the connection has been given up by then.
            if self._random.random() < 0.5:
                self._after(self._random.uniform(200, 6_000), lambda: self._arrive(flight))
            else:
                self.world.drop(flight)
            return
        paused_until_ms = self._cut(flight.witness)
        if paused_until_ms is not None:
            self._at(paused_until_ms, lambda: self._arrive(flight))
            return
        self.world.stale_reads = self._random.random() < 0.1
        before = self.world.takeovers
        going_on = self.world.carry(flight)
        if self.world.takeovers > before:
            self._note_takeover()
        if not going_on:
            return
        if self._cut(link) is not None or self._cut(link + "<") is not None:
            self.world.drop(flight)
        else:
            self._after(self._delay(), lambda: self._come_back(flight))

    def _note_takeover(self) -> None:
        for id_, died_ms in list(self.died_ms.items()):
            if self.world.rows[id_].fenced:
                self.taken_after_ms.append(self.world.now_ms - died_ms)
                del self.died_ms[id_]

    def _come_back(self, flight: Flight) -> None:
        if flight.node.paused:
            self._after(20, lambda: self._come_back(flight))
        else:
            self.world.carry(flight)
