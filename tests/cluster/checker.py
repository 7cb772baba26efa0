"""Judges what all clients of a cluster saw, by what was promised to them.

The records are those of clients and of the database, of one run and one clock. The checker knows
nothing of the server: it compares what clients saw with each other, and with what they sent.

- *Order*: all receivers saw one order in an instance. From one sender, nobody saw a message twice,
  or a later one before an earlier one; and nobody missed one, except where it was told.
- *One host*: after an instance fell, nobody heard anything of it before a new beginning.
- *Seats*: never were more players inside than the capacity.
- *Ghosts*: in the end, all clients inside see the same players.

What was acknowledged durably is compared by the scenarios, which know how to ask.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

SLACK_S: Final = 0.5
"""How late a frame may be seen that was sent before an instance fell: a host is silent for longer
before it falls."""
UNSURE: Final = (0, 16)
"""Answers to a message that somebody may get: it was accepted; or the instance failed then."""
TAIL_S: Final = 5.0
"""A message that was accepted so long before the end must have arrived."""


@dataclass(frozen=True)
class Record:
    """Something that a client did or saw. `at` is in seconds, on one clock for all."""

    at: float
    client: str
    """Who: a session."""
    socket: int
    """Which of its sockets; each connection is a new one."""
    instance: str


@dataclass(frozen=True)
class Joined(Record):
    """The client is inside. `players` is what it was told, itself included."""

    player: str
    players: frozenset[str]
    restored: bool = False
    """It was inside; the instance began anew."""


@dataclass(frozen=True)
class Sent(Record):
    """A message left the client; its messages are numbered per instance."""

    number: int


@dataclass(frozen=True)
class Answered(Record):
    """The message was accepted (0), or refused."""

    number: int
    code: int


@dataclass(frozen=True)
class Heard(Record):
    """A message of another client arrived."""

    sender: str
    number: int


@dataclass(frozen=True)
class Came(Record):
    """Another player came."""

    player: str


@dataclass(frozen=True)
class Went(Record):
    """A player went, another one or the client's own."""

    player: str


@dataclass(frozen=True)
class Outside(Record):
    """The client is no longer inside, as far as it knows: it left, or its socket is closed."""


@dataclass(frozen=True)
class Fell:
    """An instance lost its host: `after` a look at the database, and seen in the next one `at`."""

    after: float
    at: float
    instance: str


Mark = tuple[str, str, int]
"""What has one place in an instance's order: a message of a sender, or a player that came or
went."""


@dataclass
class Stay:
    """What one socket saw of an instance between two beginnings."""

    client: str
    socket: int
    since: float
    seen: list[tuple[float, Mark]] = field(default_factory=list)
    players: set[str] = field(default_factory=set)
    most: int = 0
    tenure: int = 0
    """How often the instance had fallen before: a player who comes back is another mark then."""
    until: float | None = None
    """When it ended; None if it did not."""
    restored: bool = False

    def note(self, at: float, mark: Mark) -> None:
        self.seen.append((at, mark))


def check(
    records: Iterable[Record],
    *,
    capacity: Mapping[str, int] | None = None,
    falls: Sequence[Fell] = (),
    ended: float | None = None,
) -> list[str]:
    """What was broken, a sentence each. `capacity` by instance. `ended`: when the run did; if
    given, what was accepted must have arrived, and those inside agree."""
    found: list[str] = []
    by_instance: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_instance[record.instance].append(record)
    for instance, told in by_instance.items():
        told.sort(key=lambda one: one.at)
        fell = sorted(fall.after for fall in falls if fall.instance == instance)
        stays = _stays(told, fell)
        wrong = [
            *_repeats(stays),
            *_missed(told, stays, ended),
            *_one_order(stays),
            *_one_host(stays, [fall for fall in falls if fall.instance == instance]),
            *_seats(told, stays, (capacity or {}).get(instance)),
        ]
        if ended is not None:
            wrong += _ghosts(stays)
        found += [f"{instance}: {what}" for what in wrong]
    return found


def _stays(told: Sequence[Record], fell: Sequence[float] = ()) -> list[Stay]:
    stays: list[Stay] = []
    current: dict[tuple[str, int], Stay] = {}
    for one in told:
        place = (one.client, one.socket)
        stay = current.get(place)
        match one:
            case Joined():
                if stay is not None:
                    stay.until = one.at
                stay = Stay(one.client, one.socket, one.at, restored=one.restored)
                stay.tenure = bisect_left(fell, one.at)
                stay.players = set(one.players)
                stay.most = len(stay.players)
                current[place] = stay
                stays.append(stay)
            case Outside():
                if stay is not None:
                    stay.until = one.at
                    del current[place]
            case Heard() if stay is not None:
                stay.note(one.at, ("said", one.sender, one.number))
            case Came() if stay is not None:
                stay.note(one.at, ("came", one.player, stay.tenure))
                stay.players.add(one.player)
                stay.most = max(stay.most, len(stay.players))
            case Went() if stay is not None:
                stay.note(one.at, ("went", one.player, stay.tenure))
                stay.players.discard(one.player)
            case _:
                pass
    return stays


def _repeats(stays: Sequence[Stay]) -> Iterator[str]:
    """What a socket saw twice, or of one sender in another order than it was sent."""
    for stay in stays:
        times = Counter(mark for _, mark in stay.seen)
        for mark, many in times.items():
            if many > 1:
                yield f"{stay.client} saw {mark} {many} times"
        last: dict[str, int] = {}
        for _, (kind, who, number) in stay.seen:
            if kind != "said":
                continue
            if number < last.get(who, -1):
                yield f"{stay.client} saw {number} of {who} after {last[who]}"
            last[who] = max(number, last.get(who, -1))


def _missed(told: Sequence[Record], stays: Sequence[Stay], ended: float | None) -> Iterator[str]:
    """Messages that were accepted, or that others saw, and that a receiver missed; and messages
    that were refused, and arrived all the same."""
    sent: dict[str, dict[int, float]] = defaultdict(dict)
    codes: dict[tuple[str, int], int] = {}
    answered: dict[tuple[str, int], float] = {}
    seen: dict[str, set[int]] = defaultdict(set)
    for one in told:
        match one:
            case Sent():
                sent[one.client][one.number] = one.at
            case Answered():
                codes[one.client, one.number] = one.code
                answered[one.client, one.number] = one.at
            case Heard():
                seen[one.sender].add(one.number)
            case _:
                pass
    for sender, numbers in seen.items():
        for number in sorted(numbers):
            if codes.get((sender, number), 0) not in UNSURE:
                yield f"{number} of {sender} was refused ({codes[sender, number]}) and seen"
            if number not in sent[sender]:
                yield f"{number} of {sender} was seen, and never sent"
    for stay in stays:
        heard: dict[str, list[int]] = defaultdict(list)
        for _, (kind, who, number) in stay.seen:
            if kind == "said":
                heard[who].append(number)
        for sender, sends in sent.items():
            if sender == stay.client:
                continue
            got = set(heard[sender])
            first = min(got, default=None)
            last = max(got, default=-1)
            for number, at in sends.items():
                if number in got:
                    continue
                accepted = codes.get((sender, number)) == 0
                if not accepted and number not in seen[sender]:
                    continue
                inside = at > stay.since or (first is not None and number > first)
                if number < last and inside:
                    yield f"{stay.client} missed {number} of {sender}, and saw {last}"
                elif (
                    ended is not None
                    and stay.until is None
                    and accepted
                    and at > stay.since
                    and answered[sender, number] < ended - TAIL_S
                ):
                    yield f"{stay.client} never saw {number} of {sender}"


def _one_order(stays: Sequence[Stay]) -> Iterator[str]:
    """Whether one order explains what all sockets saw; if not, some marks that contradict."""
    after: dict[Mark, set[Mark]] = defaultdict(set)
    before: Counter[Mark] = Counter()
    marks: set[Mark] = set()
    for stay in stays:
        previous: Mark | None = None
        for _, mark in stay.seen:
            marks.add(mark)
            if previous is not None and previous != mark and mark not in after[previous]:
                after[previous].add(mark)
                before[mark] += 1
            previous = mark
    free = [mark for mark in marks if not before[mark]]
    placed = 0
    while free:
        mark = free.pop()
        placed += 1
        for later in after[mark]:
            before[later] -= 1
            if not before[later]:
                free.append(later)
    if placed < len(marks):
        tangled = sorted(mark for mark in marks if before[mark])
        yield f"no one order: {len(tangled)} marks contradict, such as {_circle(tangled, after)}"


def _circle(tangled: Sequence[Mark], after: Mapping[Mark, set[Mark]]) -> list[Mark]:
    """Marks of which each was seen before the next, and the last before the first."""
    rest = set(tangled)
    # Leave out what only follows a circle.
    while True:
        ends = {mark for mark in rest if not after.get(mark, set()) & rest}
        if not ends:
            break
        rest -= ends
    path = [min(rest)]
    while True:
        following = min(after[path[-1]] & rest)
        if following in path:
            return path[path.index(following) :]
        path.append(following)


def _one_host(stays: Sequence[Stay], falls: Sequence[Fell]) -> Iterator[str]:
    """Frames of a host after it fell: of a stay that began before."""
    for fall in falls:
        for stay in stays:
            if stay.since >= fall.after:
                continue
            late = [(at, mark) for at, mark in stay.seen if at > fall.at + SLACK_S]
            if late:
                at, mark = late[0]
                yield (
                    f"{stay.client} saw {len(late)} frames of a host that had fallen, the first "
                    f"{at - fall.at:.2f} s later: {mark}"
                )


def _seats(told: Sequence[Record], stays: Sequence[Stay], capacity: int | None) -> Iterator[str]:
    """More players than there are seats: in the eyes of one client, or of all together."""
    if capacity is None:
        return
    for stay in stays:
        if stay.most > capacity:
            yield f"{stay.client} saw {stay.most} players; the capacity is {capacity}"
    inside: dict[str, set[int]] = defaultdict(set)
    worst = 0
    for one in told:
        match one:
            case Joined():
                inside[one.client].add(one.socket)
            case Outside():
                inside[one.client].discard(one.socket)
            case _:
                continue
        worst = max(worst, sum(bool(sockets) for sockets in inside.values()))
    if worst > capacity:
        yield f"{worst} clients were inside at a time; the capacity is {capacity}"


def _ghosts(stays: Sequence[Stay]) -> Iterator[str]:
    """Clients that see other players than most do at the end."""
    views = {stay.client: frozenset(stay.players) for stay in stays if stay.until is None}
    if len(set(views.values())) <= 1:
        return
    (usual, _), *_ = Counter(views.values()).most_common()
    for client, view in sorted(views.items()):
        if view != usual:
            more, less = sorted(view - usual), sorted(usual - view)
            yield f"{client} sees {more} and not {less}; most see {len(usual)} players"
