"""Asks an actor with a time limit.

`Ref.ask` waits as long as the actor takes. Code that serves a waiting client bounds that wait here,
so the limit and the error are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import trio

from actors.runtime.errors import AskTimedOut
from actors.runtime.mailbox import Recipient
from actors.runtime.message import Message, Request

M = TypeVar("M", bound=Message)
R = TypeVar("R")

ASK_TIMEOUT_S: Final = 15.0
"""How long a client's request or command waits for actors."""
NESTED_ASK_TIMEOUT_S: Final = 10.0
"""How long an actor waits for another while it handles a request of its own. It is shorter than
`ASK_TIMEOUT_S`, so that the first requester still gets the answer."""


@contextmanager
def ask_timeout(seconds: float = ASK_TIMEOUT_S) -> Iterator[None]:
    """Bounds one or more asks, with the work around them.

    Raises:
        AskTimedOut: the block took longer than `seconds`. The actor may still handle the request.
    """
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError:
        raise AskTimedOut from None


async def ask(ref: Recipient[M], request: Request[R]) -> R:
    """Sends a request and waits at most `ASK_TIMEOUT_S` for its answer.

    Raises:
        AskTimedOut: no answer came in time. The actor may still handle the request.
        ReiletaError: all that `Ref.ask` raises.
    """
    with ask_timeout():
        return await ref.ask(request)
