from __future__ import annotations

from typing import get_args

from actors import estate_messages
from actors.message import Request
from actors.messages import SessionMessage


def test_all_of_them_are_for_a_session() -> None:
    assert set(get_args(estate_messages.EstateMessage)) <= set(get_args(SessionMessage))


def test_errands_are_answered() -> None:
    assert all(issubclass(one, Request) for one in get_args(estate_messages.Errand))
