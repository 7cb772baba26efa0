"""The checker finds what is planted, and nothing in a sound run."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from tests.cluster.checker import (
    Answered,
    Came,
    Fell,
    Heard,
    Joined,
    Outside,
    Record,
    Sent,
    Went,
    check,
)

ROOM = "i_1"
CLIENTS = ("ann", "bob", "cem")


class Course:
    """Records of clients that are inside; each step takes 10 ms."""

    def __init__(self, clients: Sequence[str] = CLIENTS) -> None:
        self.records: list[Record] = []
        self.at = 100.0
        self.clients = clients
        self.sockets = dict.fromkeys(clients, 1)
        for client in clients:
            self.join(client)

    def step(self) -> float:
        self.at += 0.01
        return self.at

    def join(self, client: str, *, restored: bool = False) -> None:
        self.records.append(
            Joined(
                self.step(),
                client,
                self.sockets[client],
                ROOM,
                f"p_{client}",
                frozenset(f"p_{one}" for one in self.clients),
                restored,
            )
        )

    def leave(self, client: str) -> None:
        self.records.append(Outside(self.step(), client, self.sockets[client], ROOM))

    def say(self, client: str, number: int, *, code: int | None = 0) -> None:
        """Sends it; nobody hears it yet."""
        self.records.append(Sent(self.step(), client, self.sockets[client], ROOM, number))
        if code is not None:
            self.records.append(
                Answered(self.step(), client, self.sockets[client], ROOM, number, code)
            )

    def hear(self, client: str, sender: str, number: int, socket: int | None = None) -> None:
        which = self.sockets[client] if socket is None else socket
        self.records.append(Heard(self.step(), client, which, ROOM, sender, number))

    def spread(self, sender: str, number: int) -> None:
        """Says it, and all others hear it."""
        self.say(sender, number)
        for client in self.clients:
            if client != sender:
                self.hear(client, sender, number)

    def came(self, client: str, player: str) -> None:
        self.records.append(Came(self.step(), client, self.sockets[client], ROOM, player))

    def went(self, client: str, player: str) -> None:
        self.records.append(Went(self.step(), client, self.sockets[client], ROOM, player))

    def wrong(self, *, capacity: int = 3, falls: Sequence[float] = ()) -> list[str]:
        return check(
            self.records,
            capacity={ROOM: capacity},
            falls=[Fell(at - 0.05, at, ROOM) for at in falls],
            ended=self.at + 10,
        )


def talked() -> Course:
    """Everybody said something."""
    course = Course()
    for number in range(1, 4):
        for sender in CLIENTS:
            course.spread(sender, number)
    return course


def test_a_sound_run_is_sound() -> None:
    assert talked().wrong() == []


@pytest.mark.parametrize("seed", range(20))
def test_receivers_may_be_late_each_in_its_own_way(seed: int) -> None:
    """One order, which everybody sees at a pace of its own."""
    chance = random.Random(seed)
    course = Course()
    order = [(sender, number) for number in range(1, 30) for sender in CLIENTS]
    waiting: dict[str, list[tuple[str, int]]] = {client: [] for client in CLIENTS}
    for sender, number in order:
        course.say(sender, number)
        for client in CLIENTS:
            if client != sender:
                waiting[client].append((sender, number))
        late = chance.choice(CLIENTS)
        for _ in range(chance.randrange(4)):
            if waiting[late]:
                course.hear(late, *waiting[late].pop(0))
    for client, rest in waiting.items():
        for one in rest:
            course.hear(client, *one)
    assert course.wrong() == []


def test_what_was_lost_with_a_host_is_no_fault() -> None:
    """It was accepted; then the instance began anew."""
    course = talked()
    course.say("ann", 4)
    course.hear("bob", "ann", 4)
    course.say("bob", 4, code=None)
    for client in CLIENTS:
        course.join(client, restored=True)
    course.spread("ann", 5)
    course.spread("bob", 5)
    assert course.wrong() == []


@pytest.mark.parametrize("heard", [True, False])
def test_of_a_failed_instance_nobody_knows_what_it_passed_on(heard: bool) -> None:
    course = talked()
    course.say("ann", 4, code=16)
    if heard:
        course.hear("bob", "ann", 4)
        course.hear("cem", "ann", 4)
    course.spread("ann", 5)
    assert course.wrong() == []


def test_whoever_comes_back_may_have_missed_something() -> None:
    course = talked()
    course.leave("cem")
    course.say("ann", 4)
    course.hear("bob", "ann", 4)
    course.sockets["cem"] = 2
    course.join("cem")
    course.spread("ann", 5)
    assert course.wrong() == []


def _repeated(course: Course) -> None:
    course.hear("bob", "ann", 3)


def _reordered(course: Course) -> None:
    course.say("ann", 4)
    course.say("ann", 5)
    for client, order in (("bob", (4, 5)), ("cem", (5, 4))):
        for number in order:
            course.hear(client, "ann", number)


def _two_orders(course: Course) -> None:
    course.say("ann", 4)
    course.say("bob", 4)
    course.say("cem", 4)
    course.hear("ann", "bob", 4)
    course.hear("ann", "cem", 4)
    course.hear("bob", "cem", 4)
    course.hear("bob", "ann", 4)
    course.hear("cem", "ann", 4)
    course.hear("cem", "bob", 4)


def _came_before_or_after(course: Course) -> None:
    course.say("cem", 4)
    course.hear("ann", "cem", 4)
    course.came("ann", "p_dee")
    course.came("bob", "p_dee")
    course.hear("bob", "cem", 4)
    course.came("cem", "p_dee")


def _missed_what_was_accepted(course: Course) -> None:
    course.say("ann", 4)
    course.hear("cem", "ann", 4)
    course.spread("ann", 5)


def _missed_by_all(course: Course) -> None:
    course.say("ann", 4)
    course.spread("ann", 5)


def _missed_what_others_saw(course: Course) -> None:
    course.say("ann", 4, code=None)
    course.hear("cem", "ann", 4)
    course.spread("ann", 5)


def _missed_the_last(course: Course) -> None:
    course.say("ann", 4)
    course.hear("cem", "ann", 4)


def _missed_the_first_after_coming_in(course: Course) -> None:
    course.leave("cem")
    course.sockets["cem"] = 2
    course.join("cem")
    course.say("ann", 4)
    course.hear("bob", "ann", 4)
    course.spread("ann", 5)


def _refused_and_seen(course: Course) -> None:
    course.say("ann", 4, code=122)
    course.hear("bob", "ann", 4)
    course.hear("cem", "ann", 4)


def _never_sent(course: Course) -> None:
    for client in ("bob", "cem"):
        course.hear(client, "ann", 4)


def _ghost(course: Course) -> None:
    course.came("bob", "p_dee")
    course.came("cem", "p_dee")


def _a_ghost_that_one_sees(course: Course) -> None:
    course.went("bob", "p_cem")
    course.went("ann", "p_cem")


@pytest.mark.parametrize(
    "plant",
    [
        _repeated,
        _reordered,
        _two_orders,
        _came_before_or_after,
        _missed_what_was_accepted,
        _missed_by_all,
        _missed_what_others_saw,
        _missed_the_last,
        _missed_the_first_after_coming_in,
        _refused_and_seen,
        _never_sent,
        _ghost,
        _a_ghost_that_one_sees,
    ],
)
def test_a_planted_fault_is_found(plant: Callable[[Course], None]) -> None:
    course = talked()
    plant(course)
    assert course.wrong(capacity=8)


def test_frames_of_a_host_that_fell_are_found() -> None:
    course = talked()
    fall = course.step()
    course.at += 1
    for client in ("ann", "bob"):
        course.join(client, restored=True)
    course.say("ann", 4)
    course.hear("bob", "ann", 4)
    course.say("cem", 4, code=None)
    before = course.wrong(falls=[fall])
    course.hear("cem", "ann", 4)
    assert not any("had fallen" in one for one in before)
    assert any("had fallen" in one for one in course.wrong(falls=[fall]))


def test_two_hosts_are_found_though_each_is_sound() -> None:
    """Two halves, each with a host of its own: everybody hears only its half."""
    course = Course(("ann", "bob", "cem", "dee"))
    for number in range(1, 5):
        for pair in (("ann", "bob"), ("cem", "dee")):
            course.say(pair[0], number)
            course.hear(pair[1], pair[0], number)
    assert any("never saw" in one for one in course.wrong(capacity=4))


def test_more_players_than_seats_are_found() -> None:
    course = talked()
    assert course.wrong(capacity=3) == []
    assert any("saw 3 players" in one for one in course.wrong(capacity=2))


def test_seats_that_were_given_twice_are_found() -> None:
    """By two hosts, of which each knows one player."""
    records: list[Record] = [
        Joined(1.0, "ann", 1, ROOM, "p_1", frozenset({"p_1"})),
        Joined(2.0, "bob", 2, ROOM, "p_2", frozenset({"p_2"})),
        Outside(3.0, "ann", 1, ROOM),
        Outside(4.0, "bob", 2, ROOM),
    ]
    assert check(records, capacity={ROOM: 1}) == [
        f"{ROOM}: 2 clients were inside at a time; the capacity is 1"
    ]


def test_one_after_the_other_is_no_fault() -> None:
    records: list[Record] = [
        Joined(1.0, "ann", 1, ROOM, "p_1", frozenset({"p_1"})),
        Outside(1.5, "ann", 1, ROOM),
        Joined(2.0, "bob", 2, ROOM, "p_2", frozenset({"p_2"})),
    ]
    assert check(records, capacity={ROOM: 1}, ended=20.0) == []
