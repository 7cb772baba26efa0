from __future__ import annotations

from typing import get_args

from actors.instance.messages import SessionMessage
from actors.runtime.message import Request
from actors.session import messages


def test_all_of_them_are_for_a_session() -> None:
    assert set(get_args(messages.EstateMessage)) <= set(get_args(SessionMessage))


def test_errands_are_answered() -> None:
    assert all(issubclass(one, Request) for one in get_args(messages.Errand))
