from __future__ import annotations

from reileta.rules.instance.seats import Player, Seats
from tests.reileta.instances import user


def player(number: int, of: int) -> Player:
    return Player(f"p_{number}", user(of), f"s_{number}", "name", number)


def test_two_sessions_of_a_user_are_two_players() -> None:
    seats = Seats()
    first, other, second = player(1, of=1), player(2, of=2), player(3, of=1)
    for one in (first, other, second):
        seats.occupy(one)
    assert list(seats.players) == ["p_1", "p_2", "p_3"]
    assert seats.of_user(user(1)) == [first, second]
    assert seats.of_user(user(9)) == []
    assert list(seats.users) == [user(1), user(2)]
    assert seats.vacate(first) is False
    # Its user has been inside without a break, and still stands first.
    assert list(seats.users) == [user(1), user(2)]
    assert seats.vacate(second) is True
    assert list(seats.users) == [user(2)]
    assert (len(seats), seats.of_session("s_1"), seats.of_session("s_2")) == (1, None, other)


def test_the_first_loss_counts_until_regained() -> None:
    seats = Seats()
    one = player(1, of=1)
    seats.occupy(one)
    seats.start_grace("s_1", 100)
    seats.start_grace("s_1", 200)
    seats.start_grace("s_9", 50)  # not inside
    assert (seats.overdue(99), seats.overdue(100)) == ([], [one])
    seats.end_grace("s_1")
    assert seats.overdue(1000) == []
    seats.start_grace("s_1", 2000)
    assert list(seats.deadlines) == [2000]
    seats.vacate(one)
    assert list(seats.deadlines) == []


def test_overdue_in_order_of_their_deadlines() -> None:
    seats = Seats()
    some = [player(number, of=number) for number in (1, 2, 3)]
    for one, until in zip(some, (30, 10, 20), strict=True):
        seats.occupy(one)
        seats.start_grace(one.session, until)
    assert [one.id for one in seats.overdue(30)] == ["p_2", "p_3", "p_1"]
