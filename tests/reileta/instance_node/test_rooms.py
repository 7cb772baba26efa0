"""What an instance node does with what players say."""

from __future__ import annotations

from reileta.instance_node.rooms import Rooms
from reileta.protocol.node_link import (
    End,
    Enter,
    Fan,
    Hold,
    Host,
    Ping,
    Pong,
    Refuse,
    Say,
    Seat,
    Welcome,
    Window,
)

ROOM = "i_1"


def hosting() -> Rooms:
    rooms = Rooms()
    rooms.hear([Host(ROOM, 5, "w_1", "u_1@x", None, 8)])
    rooms.hear([Enter(ROOM, 5, 1, Seat("p_1", "u_1@x", "Ada", "owner"))])
    return rooms


def say(number: int, data: bytes = b"1", key: str | None = None) -> Say:
    return Say(ROOM, 5, number, "p_1", data, key)


def test_what_is_said_is_passed_on_once_and_in_order() -> None:
    rooms = hosting()
    sent = rooms.hear([say(2), say(3, b"2", "pose"), say(3, b"again")])
    assert sent == [
        Fan(ROOM, 5, 1, "data", "p_1", b"1", of=2),
        Fan(ROOM, 5, 2, "data", "p_1", b"2", "pose", of=3),
        Window(ROOM, 5, 3),
    ]
    assert rooms.hear([Ping(7)]) == [Pong(7)]
    assert rooms.hear([Say("i_2", 5, 1, "p_1", b"1"), Say(ROOM, 4, 9, "p_1", b"1")]) == [
        Window(ROOM, 5, 3)
    ]


def test_a_full_window_conflates_and_refuses() -> None:
    rooms, big = hosting(), b'"' + b"x" * 60_000 + b'"'
    rooms.hear([say(number, big) for number in range(2, 6)])
    sent = rooms.hear([say(6, big), say(7, big, "pose"), say(8, big, "pose")])
    assert [(one.kind, one.of) for one in sent if isinstance(one, Fan)] == [
        ("refused", 6),
        ("dropped", 7),
    ]
    released = rooms.hear([Window(ROOM, 5, 4)])
    assert [(one.kind, one.of) for one in released if isinstance(one, Fan)] == [("data", 8)]


def test_over_a_new_link_it_goes_on_or_begins_anew() -> None:
    rooms = hosting()
    rooms.hear([say(2), say(3)])
    assert rooms.holds() == [Hold(ROOM, 5, 3)]
    again = rooms.welcome(Welcome("n_1", 2, "x", "key", goes_on=[Hold(ROOM, 5, 1)]))
    assert [one.number for one in again if isinstance(one, Fan)] == [2]
    unknown = rooms.welcome(Welcome("n_1", 3, "x", "key", goes_on=[Hold(ROOM, 5, 99)]))
    assert unknown == [Refuse(ROOM, 5, "is not known any more")]
    rooms = hosting()
    assert rooms.welcome(Welcome("n_1", 2, "x", "key")) == []
    assert rooms.holds() == []


def test_an_instance_ends() -> None:
    rooms = hosting()
    rooms.hear([End(ROOM, 5)])
    assert rooms.holds() == []
