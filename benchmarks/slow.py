"""One slow reader among many fast ones: are the others affected, and what does it receive?

    python -m benchmarks.slow --url ws://host:3032 --tokens bots.txt --pid PID

Two runs. With keyed data, the slow reader alternately stops and continues reading: the p99 of the
fast readers is compared between both phases, and when it reads again it must get the newest value
of every key. With unkeyed data it does not read until the end: then it must get every message, or
have been closed with 4008. The server's memory is measured all the time.
"""

from __future__ import annotations

import select
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Final

import msgspec
import typer

from benchmarks import worker
from benchmarks.connect import Client, Target, open_all, upgrade, upgraded
from benchmarks.dialects import Reileta, decode, make_instances, read_tokens
from benchmarks.errors import BenchmarkError
from benchmarks.frames import CLOSE, PING, PONG, TEXT, Frame, client_frame, close_code
from benchmarks.load import Load, LoadResult, Plan, Player
from benchmarks.machine import usage
from benchmarks.rooms import Rooms
from benchmarks.stats import NS_PER_MS, percentile
from benchmarks.tally import latencies_between

_RECEIVE_BUFFER_BYTES: Final = 64 * 1024
"""Small, so that the reader is slow for the server, and not only for its own kernel."""
_SETTLE_S: Final = 0.5
"""The beginning of each phase is left out: a reader that continues gets its backlog first."""
_QUIET_S: Final = 1.5
_PATIENCE_S: Final = 60.0
"""A reader that stopped for half a minute may wait as long for the next packet: its kernel dropped
packets for which it had no room, and the sender retries at growing intervals.
"""
TOO_SLOW: Final = 4008


class SlowResult(msgspec.Struct, frozen=True):
    players: int
    fast_share: float
    fast_p99_without_ms: float
    fast_p99_with_ms: float
    ratio: float
    """p99 with the slow reader / without it."""
    keys: int
    keys_newest: int
    """Keys of which the slow reader has the newest value. It must be all of them."""
    keyed_sent: int
    keyed_received: int
    """Messages that the slow reader received: fewer, because older values were conflated."""
    keyed_in_order: bool
    unkeyed_sent: int
    unkeyed_received: int
    unkeyed_outcome: str
    """`all`, `closed 4008`, or what went wrong."""
    fast_share_unkeyed: float
    rss_before_bytes: int | None
    rss_max_bytes: int | None
    good: bool


class SlowReader:
    """A receiver that can stop reading. Stores all received data."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.fd = client.sock.fileno()
        self.frames: list[Frame] = []
        self.reading = True
        self.gone = False
        self.epoll: select.epoll | None = None

    def on_readable(self) -> None:
        """Called by the load's loop."""
        if not self._read() and self.epoll is not None:
            self.epoll.unregister(self.fd)

    def pause(self) -> None:
        if self.reading and not self.gone and self.epoll is not None:
            self.epoll.unregister(self.fd)
        self.reading = False

    def resume(self) -> None:
        if not self.reading and not self.gone and self.epoll is not None:
            self.epoll.register(self.fd, select.EPOLLIN)
        self.reading = True

    def finish(self, whole: Callable[[Reading], bool]) -> None:
        """Reads the rest: until the socket is closed, or it is quiet and all data is complete, or
        it takes too long."""
        deadline = time.monotonic() + _PATIENCE_S
        while not self.gone and time.monotonic() < deadline:
            if select.select([self.fd], [], [], _QUIET_S)[0]:
                self._read()
            elif whole(read(self.frames)):
                return

    def _read(self) -> bool:
        try:
            data = self.client.sock.recv(1 << 18)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        self.gone = self.gone or not data
        for frame in self.client.frames.feed(data):
            if frame.opcode == PING:
                self.client.sock.send(client_frame(frame.data, PONG))
            else:
                self.frames.append(frame)
        return not self.gone


class Reading(msgspec.Struct, frozen=True):
    """Data that the slow reader received: due times of each sender's messages, and the close."""

    stamps: dict[int, list[int]]
    close: int | None

    @property
    def count(self) -> int:
        return sum(map(len, self.stamps.values()))

    @property
    def in_order(self) -> bool:
        return all(
            earlier < later
            for stamps in self.stamps.values()
            for earlier, later in pairwise(stamps)
        )

    def newest(self, last: Mapping[int, int]) -> int:
        """Number of senders whose last message was received."""
        return sum(self.stamps.get(sender, [0])[-1] == stamp for sender, stamp in last.items())


class _Payload(msgspec.Struct):
    s: str
    t: str


class _Data(msgspec.Struct):
    player: str
    data: _Payload


def read(frames: Iterable[Frame]) -> Reading:
    """Parses the slow reader's frames."""
    stamps: dict[int, list[int]] = defaultdict(list)
    close: int | None = None
    for frame in frames:
        if frame.opcode == CLOSE:
            close = close_code(frame.data)
        if frame.opcode != TEXT:
            continue
        message = decode(frame.data)
        if message.command == "instance-data" and message.state is None:
            data = msgspec.json.decode(message.data, type=_Data).data
            stamps[int(data.s)].append(int(data.t))
    return Reading(dict(stamps), close)


def outcome(reading: Reading, sent: int, *, gone: bool) -> str:
    """The outcome of the unkeyed messages."""
    if reading.close == TOO_SLOW:
        return f"closed {TOO_SLOW}"
    if reading.close is not None:
        return f"closed {reading.close}"
    if reading.count == sent:
        return "all"
    return "closed without a code" if gone else f"lost {sent - reading.count}"


class Watch:
    """The server's highest memory."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self.before = self.highest = self._rss()

    def look(self) -> None:
        rss = self._rss()
        if rss is not None and self.highest is not None:
            self.highest = max(self.highest, rss)

    def _rss(self) -> int | None:
        found = usage(self._pid)
        return None if found is None else found.rss_bytes


class Scene:
    """Fast players and one slow reader in a fresh instance."""

    def __init__(
        self, target: Target, tokens: Sequence[str], players: int, key: str | None
    ) -> None:
        self._keyed = key is not None
        instance = make_instances(target, tokens[0], 1, players + 1)[0]
        dialect = Reileta(tokens, [instance], players + 1, key)
        self._clients = open_all(target, dialect, range(players))
        rooms = Rooms(target, dialect, players, players)
        self.players: list[Player] = rooms.seat(self._clients)
        slow = Client(target.connect(receive_buffer=_RECEIVE_BUFFER_BYTES))
        self._clients.append(slow)
        upgrade(slow, target, dialect.path(players), dialect.headers(players))
        upgraded(slow)
        slow.send(dialect.greeting(players) or b"")
        while not dialect.greeted(players, slow.receive()):
            pass
        slow.sock.setblocking(False)
        self.slow = SlowReader(slow)

    def run(self, plan: Plan, progress: worker.Share) -> tuple[Load, LoadResult]:
        load = Load(self.players, plan, progress, {self.slow.fd: self.slow.on_readable})
        self.slow.epoll = load.epoll
        result = load.run()
        self.slow.epoll = None
        sent, last = result.expected // (len(self.players) - 1), self.last_sent()

        def whole(reading: Reading) -> bool:
            """Receives everything that can still arrive."""
            if reading.close is not None or reading.count >= sent:
                return True
            return self._keyed and reading.newest(last) == len(last)

        self.slow.finish(whole)
        return load, result

    def last_sent(self) -> dict[int, int]:
        return {number: one.template.last_ns for number, one in enumerate(self.players)}

    def close(self) -> None:
        for client in self._clients:
            client.close()


def turns(rounds: int, turn_s: float, warm_up_s: float) -> list[tuple[float, float, bool]]:
    """(begin, end, slow) of each phase, in seconds after the start: alternating, fast first."""
    return [
        (warm_up_s + number * turn_s, warm_up_s + (number + 1) * turn_s, number % 2 == 1)
        for number in range(2 * rounds)
    ]


def pooled_p99_ms(load: Load, spans: Iterable[tuple[float, float]]) -> float:
    """The p99 over all deliveries due in those phases, in milliseconds."""
    pooled: list[int] = []
    for begin, end in spans:
        first = load.begin_ns + int((begin + _SETTLE_S) * 1e9)
        pooled += latencies_between(load.tally, first, load.begin_ns + int(end * 1e9))
    if not pooled:
        raise BenchmarkError("nothing was delivered to the fast readers")
    return percentile(sorted(pooled), 0.99) / NS_PER_MS


def measure(
    target: Target,
    tokens: Sequence[str],
    players: int,
    rate: float,
    turn_s: float,
    rounds: int,
    pid: int | None,
    progress: worker.Share,
) -> SlowResult:
    """Both runs, one after the other."""
    if len(tokens) <= players:
        raise BenchmarkError(f"{players} fast players and a slow one need {players + 1} tokens")
    watch = Watch(pid)
    plan_of_turns = turns(rounds, turn_s, 1.0)
    scene = Scene(target, tokens, players, "position")
    try:
        slow = scene.slow
        actions = [
            (begin, slow.pause if is_slow else slow.resume) for begin, _, is_slow in plan_of_turns
        ]
        looks = [(begin + turn_s / 2, watch.look) for begin, _, _ in plan_of_turns]
        plan = Plan(rate, 2 * rounds * turn_s, actions=sorted(actions + looks, key=_when))
        load, keyed = scene.run(plan, worker.part(progress, 0.05, 0.6))
        reading, last = read(slow.frames), scene.last_sent()
    finally:
        scene.close()
    without = pooled_p99_ms(load, [(b, e) for b, e, is_slow in plan_of_turns if not is_slow])
    with_slow = pooled_p99_ms(load, [(b, e) for b, e, is_slow in plan_of_turns if is_slow])
    scene = Scene(target, tokens, players, None)
    try:
        plan = Plan(
            rate,
            rounds * 2 * turn_s,
            actions=[(0.0, scene.slow.pause), *((at, watch.look) for at in (turn_s, 2 * turn_s))],
        )
        _, unkeyed = scene.run(plan, worker.part(progress, 0.65, 1))
        unkeyed_reading, gone = read(scene.slow.frames), scene.slow.gone
    finally:
        scene.close()
    watch.look()
    sent = unkeyed.expected // (players - 1)
    became = outcome(unkeyed_reading, sent, gone=gone)
    newest = reading.newest(last)
    return SlowResult(
        players=players,
        fast_share=keyed.share,
        fast_p99_without_ms=without,
        fast_p99_with_ms=with_slow,
        ratio=with_slow / without,
        keys=players,
        keys_newest=newest,
        keyed_sent=keyed.expected // (players - 1),
        keyed_received=reading.count,
        keyed_in_order=reading.in_order,
        unkeyed_sent=sent,
        unkeyed_received=unkeyed_reading.count,
        unkeyed_outcome=became,
        fast_share_unkeyed=unkeyed.share,
        rss_before_bytes=watch.before,
        rss_max_bytes=watch.highest,
        good=newest == players and reading.in_order and became in ("all", f"closed {TOO_SLOW}"),
    )


def _when(action: tuple[float, object]) -> float:
    return action[0]


def main(
    url: worker.Url,
    tokens: worker.Tokens,
    players: Annotated[int, typer.Option(min=2, help="Fast players.")] = 100,
    rate: Annotated[float, typer.Option(min=0.1, help="Messages/s per player.")] = 20,
    turn: Annotated[float, typer.Option(min=1, help="Seconds of each phase.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Phases of each kind.")] = 3,
    pid: worker.Pid = None,
    core: worker.Core = None,
    json: worker.Json = False,
) -> None:
    """How one slow reader affects the others, and what it receives."""

    def job(progress: worker.Share) -> SlowResult:
        known = read_tokens(tokens)
        return measure(Target.parse(url), known, players, rate, turn, rounds, pid, progress)

    worker.work(f"a slow reader among {players}", job, as_json=json, core=core)


if __name__ == "__main__":
    typer.run(main)
