from __future__ import annotations

from typing import get_args

from actors.runtime.message import Request
from actors.session import messages


def test_requests_about_the_resource_are_answered() -> None:
    assert all(issubclass(one, Request) for one in get_args(messages.ResourceRequest))
