"""The load generator: one thread, epoll, open-loop pacing.

Message j is due at start + j / (players · rate), from each player in turn, whatever the server
does. Latency counts from the due time, not from the time of sending. So neither a slow server nor a
slow generator can hide a delay (no coordinated omission). The result includes how late the
generator was and how much CPU it used, because it must not be the bottleneck.
"""

from __future__ import annotations

import gc
import select
import socket
import ssl
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from benchmarks.connect import Client
from benchmarks.frames import PONG, Template, client_frame
from benchmarks.machine import cpu_seconds, usage
from benchmarks.stats import NS_PER_MS, Latency, next_prime, percentile
from benchmarks.tally import Stream, Tally, calm_percentile, closing_code, latencies_between

_NS: Final = 1_000_000_000
_SAMPLES_PER_S: Final = 20_000
"""Limit of parsed deliveries: each sample costs the generator a microsecond."""
_SAMPLE_EVERY: Final = 53
_TICK_NS: Final = 100 * NS_PER_MS
_REST_NS: Final = 500_000
"""Shortest interval between reads: a system call for each of a million deliveries would make the
generator the bottleneck. It adds up to 0.5 ms to every server's latency.
"""
_DISCARD_NS: Final = 2 * NS_PER_MS
"""Interval between two looks at connections whose bytes are discarded."""
_NEVER: Final = 1 << 62
_SELECT_LIMIT: Final = 1024
_PENDING_LIMIT_BYTES: Final = 1 << 20
"""Bytes that may wait for a server that does not read. Further messages count as sent and lost."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`rate` in messages per second and player; each `…_s` in seconds."""

    rate: float
    seconds: float
    warm_up_s: float = 1.0
    drain_s: float = 2.0
    server_pid: int | None = None
    actions: Sequence[tuple[float, Callable[[], None]]] = ()
    """Callbacks and the seconds after the beginning of the warm-up at which they run, in order."""
    read_every: int = 1
    """One in so many connections is read. Bytes for the others are counted, and discarded by the
    system, so that the load is not the limit of the highest rates (Linux, without TLS)."""


@dataclass(slots=True)
class Player:
    """One connection that sends `template` and counts received data."""

    client: Client
    template: Template
    audience: int
    """Number of players that should get each of its messages."""
    stream: Stream = field(default_factory=lambda: Stream(until_sample=1))
    pending: bytearray = field(default_factory=bytearray)
    discards: bool = False
    lost: bool = False


def can_discard(client: Client) -> bool:
    """Whether the system can discard what comes for the client, and say how many bytes it was."""
    return sys.platform == "linux" and not isinstance(client.sock, ssl.SSLSocket)


class LoadResult(msgspec.Struct, frozen=True):
    """The result of one run. `share` is delivered / expected, after the drain."""

    players: int
    rate: float
    seconds: float
    warm_up_s: float
    messages_per_s: float
    expected: int
    delivered: int
    share: float
    deliveries_per_s: float
    received_bytes_per_s: float
    latency: Latency | None
    late_p99_ms: float
    """How late the generator itself sent; included in the latency."""
    generator_cpu: float
    """The generator's share of its core while measuring."""
    lost_connections: int
    close_codes: dict[str, int]
    server_cpu: float | None
    """Cores that the server used while measuring, without child processes."""
    cpu_s_per_million: float | None
    """The server's CPU seconds per million deliveries."""
    rss_bytes: int | None
    """The server's memory after the load, without child processes."""
    rss_bytes_all: int | None
    calm_p99_ms: float | None = None
    """The median of the p99s of each 0.1 s: a machine that takes the core away now and then hardly
    changes it."""

    @property
    def sustained(self) -> bool:
        """At least 99.9% delivered, a p99 below 1 s, and deliveries that kept pace."""
        messages = self.messages_per_s * (self.seconds + self.warm_up_s)
        offered = self.expected / messages * self.messages_per_s
        return (
            self.share >= 0.999
            and self.latency is not None
            and self.latency.p99_ms < 1000
            and self.deliveries_per_s >= 0.97 * offered
        )


@dataclass(frozen=True, slots=True)
class _Mark:
    at_ns: int
    delivered: int
    received_bytes: int
    cpu_s: float
    server_cpu_s: float | None


class Load:
    """One run with players that are already in their rooms."""

    def __init__(
        self,
        players: Sequence[Player],
        plan: Plan,
        progress: Callable[[float], None] = lambda share: None,
        others: Mapping[int, Callable[[], None]] | None = None,
    ) -> None:
        """`others`: further file descriptors, with the callback for when one is readable."""
        self._players = players
        self._plan = plan
        self._progress = progress
        self._others = others or {}
        audience = sum(player.audience for player in players)
        wanted = int(audience * plan.rate / plan.read_every / _SAMPLES_PER_S)
        self.tally = Tally(sample_every=next_prime(max(_SAMPLE_EVERY, wanted)))
        self.begin_ns = 0
        self.epoll = select.epoll()
        self._discarding = select.epoll()
        """Of the connections whose bytes are discarded."""
        self._by_fd = {player.client.sock.fileno(): player for player in players}
        self._late_ns = array("q")
        self._expected = 0
        self._codes: Counter[str] = Counter()
        self._lost = 0
        self._actions = list(plan.actions)
        self._gap_ns = _NS / (len(players) * plan.rate)
        self._due_ns = self._stop_ns = _NEVER
        self._sent = 0

    def run(self) -> LoadResult:
        """Warms up, measures, drains. The connections stay open."""
        for number, player in enumerate(self._players):
            player.stream = self.tally.stream(number)
            player.discards = number % self._plan.read_every != 0 and can_discard(player.client)
            player.client.sock.setblocking(False)
            self._epoll_of(player).register(player.client.sock, select.EPOLLIN)
        for fd in self._others:
            self.epoll.register(fd, select.EPOLLIN)
        gc.collect()
        gc.disable()  # a collection's pause would look like latency of the server
        try:
            before, after = self._loop()
        finally:
            gc.enable()
            self.epoll.close()
            self._discarding.close()
        return self._result(before, after)

    def _loop(self) -> tuple[_Mark, _Mark]:
        plan, tally, others, by_fd = self._plan, self.tally, self._others, self._by_fd
        space, arrived, ping = tally.space, tally.arrived, tally.ping
        clock, poll, many = time.monotonic_ns, self.epoll.poll, len(by_fd) + len(others)
        begin = self.begin_ns = self._due_ns = clock() + 10 * NS_PER_MS
        measured = begin + int(plan.warm_up_s * _NS)
        stop = self._stop_ns = measured + int(plan.seconds * _NS)
        end = stop + int(plan.drain_s * _NS)
        next_tick, last_round = begin, 0
        next_discard = begin if plan.read_every > 1 else _NEVER
        before: _Mark | None = None
        after: _Mark | None = None
        while (now := clock()) < end:
            if now >= next_tick:
                if before is None and now >= measured:
                    before = self._mark(now)
                if after is None and now >= stop:
                    after = self._mark(now)
                if after is not None and tally.delivered >= self._expected:
                    break
                self._tick(now, begin, end)
                next_tick += _TICK_NS
            if now >= self._due_ns:
                self._send_due(now)
            if now >= next_discard:
                self._discard()
                next_discard = now + _DISCARD_NS
            if now - last_round < _REST_NS:
                wake = min(self._due_ns, last_round + _REST_NS)
                time.sleep(max(0, wake - clock()) / _NS)
                continue
            self._wait(min(self._due_ns, next_tick, next_discard) - clock())
            last_round = clock()
            for fd, event in poll(0, many):
                now = clock()
                if now >= self._due_ns:
                    self._send_due(now)
                player = by_fd.get(fd)
                if player is None:
                    others[fd]()
                    continue
                if event & select.EPOLLOUT:
                    self._flush(player)
                if not event & ~select.EPOLLOUT or player.lost:
                    continue
                try:
                    size = player.client.sock.recv_into(space)
                except (BlockingIOError, ssl.SSLWantReadError):
                    continue
                except OSError:
                    size = 0
                if size == 0:
                    self._lose(player)
                    continue
                arrived(player.stream, size, clock())
                asked = ping(size)
                if asked is not None:
                    self._push(player, client_frame(asked, PONG))
        self._progress(1.0)
        final = after or self._mark(now)
        return before or final, final

    def _epoll_of(self, player: Player) -> select.epoll:
        return self._discarding if player.discards else self.epoll

    def _discard(self) -> None:
        """Counts the bytes that have come on the connections that are not read."""
        space = self.tally.space
        for fd, event in self._discarding.poll(0):
            if (now := time.monotonic_ns()) >= self._due_ns:
                self._send_due(now)
            player = self._by_fd[fd]
            if event & select.EPOLLOUT:
                self._flush(player)
            if not event & ~select.EPOLLOUT or player.lost:
                continue
            try:
                size = player.client.sock.recv_into(space, len(space), socket.MSG_TRUNC)
            except BlockingIOError:
                continue
            except OSError:
                size = 0
            if size == 0:
                self._lose(player)
            else:
                self.tally.discarded(player.stream, size)

    def _wait(self, wait_ns: int) -> None:
        """Waits until a socket is readable or a message is due.

        epoll_wait rounds up to whole milliseconds, which would be seen as latency. select does not,
        and it can wait for an epoll whose descriptor is below 1,024.
        """
        if wait_ns <= 0:
            return
        if self.epoll.fileno() < _SELECT_LIMIT:
            select.select([self.epoll], [], [], wait_ns / _NS)
        else:
            time.sleep(min(wait_ns, NS_PER_MS) / _NS)

    def _send_due(self, now_ns: int) -> None:
        """Sends all messages that are due by now: usually one."""
        players = self._players
        while self._due_ns <= now_ns:
            due = self._due_ns
            if due >= self._stop_ns:
                self._due_ns = _NEVER
                return
            self._send(players[self._sent % len(players)], due, now_ns)
            self._sent += 1
            self._due_ns = self.begin_ns + int(self._sent * self._gap_ns)

    def _send(self, player: Player, due_ns: int, now_ns: int) -> None:
        self._late_ns.append(now_ns - due_ns)
        self._expected += player.audience
        if not player.lost:
            self._push(player, player.template.stamped(due_ns))

    def _push(self, player: Player, frame: bytes | bytearray) -> None:
        if player.pending:
            if len(player.pending) < _PENDING_LIMIT_BYTES:
                player.pending += frame
            return
        try:
            size = player.client.sock.send(frame)
        except (BlockingIOError, ssl.SSLWantWriteError):
            size = 0
        except OSError:
            self._lose(player)
            return
        if size < len(frame):
            player.pending += frame[size:]
            both = select.EPOLLIN | select.EPOLLOUT
            self._epoll_of(player).modify(player.client.sock, both)

    def _flush(self, player: Player) -> None:
        try:
            size = player.client.sock.send(player.pending)
        except (BlockingIOError, ssl.SSLWantWriteError):
            return
        except OSError:
            self._lose(player)
            return
        del player.pending[:size]
        if not player.pending:
            self._epoll_of(player).modify(player.client.sock, select.EPOLLIN)

    def _lose(self, player: Player) -> None:
        if player.lost:
            return
        player.lost = True
        self._lost += 1
        code = closing_code(player.stream.tail)
        self._codes["none" if code is None else str(code)] += 1
        self._epoll_of(player).unregister(player.client.sock)

    def _tick(self, now_ns: int, begin_ns: int, end_ns: int) -> None:
        while self._actions and now_ns >= begin_ns + int(self._actions[0][0] * _NS):
            self._actions.pop(0)[1]()
        self._progress(min(1.0, max(0.0, (now_ns - begin_ns) / (end_ns - begin_ns))))

    def _mark(self, now_ns: int) -> _Mark:
        received = sum(player.stream.received_bytes for player in self._players)
        return _Mark(
            now_ns,
            self.tally.delivered,
            received,
            time.process_time(),
            cpu_seconds(self._plan.server_pid),
        )

    def _result(self, before: _Mark, after: _Mark) -> LoadResult:
        plan, tally = self._plan, self.tally
        span_s = max(1e-9, (after.at_ns - before.at_ns) / _NS)
        delivered = after.delivered - before.delivered
        cpu_s = None
        if before.server_cpu_s is not None and after.server_cpu_s is not None:
            cpu_s = after.server_cpu_s - before.server_cpu_s
        memory = usage(plan.server_pid)
        latencies = latencies_between(tally, before.at_ns, after.at_ns)
        calm_ns = calm_percentile(tally, before.at_ns, after.at_ns, 0.99)
        return LoadResult(
            players=len(self._players),
            rate=plan.rate,
            seconds=plan.seconds,
            warm_up_s=plan.warm_up_s,
            messages_per_s=len(self._players) * plan.rate,
            expected=self._expected,
            delivered=tally.delivered,
            share=tally.delivered / self._expected if self._expected else 0.0,
            deliveries_per_s=delivered / span_s,
            received_bytes_per_s=(after.received_bytes - before.received_bytes) / span_s,
            latency=Latency.of(latencies),
            late_p99_ms=percentile(sorted(self._late_ns), 0.99) / NS_PER_MS if self._late_ns else 0,
            generator_cpu=(after.cpu_s - before.cpu_s) / span_s,
            lost_connections=self._lost,
            close_codes=dict(self._codes),
            server_cpu=None if cpu_s is None else cpu_s / span_s,
            cpu_s_per_million=None if cpu_s is None or not delivered else cpu_s / delivered * 1e6,
            rss_bytes=None if memory is None else memory.rss_bytes,
            rss_bytes_all=None if memory is None else memory.rss_bytes_all,
            calm_p99_ms=None if calm_ns is None else calm_ns / NS_PER_MS,
        )
