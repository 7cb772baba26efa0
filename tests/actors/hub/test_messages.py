"""What the hub is told."""

from __future__ import annotations

from typing import get_args

from actors.hub import messages
from actors.runtime.message import Request


def test_only_subscriptions_are_answered() -> None:
    """Publishing and coming and going never wait, so nothing can wait for the hub by mistake."""
    answered = {one.__name__ for one in get_args(messages.HubMessage) if issubclass(one, Request)}
    assert answered == {"Subscribe", "Unsubscribe"}
