"""Resolves the names of other servers, in threads of their own."""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from ipaddress import ip_address
from typing import Any, Final

import trio

from reileta.errors import NoResponse
from reileta.rules.federation.networks import IPAddress

Resolve = Callable[[str], Awaitable[Sequence[IPAddress]]]
"""All addresses of a host's name. Raises NoResponse if there are none."""

TIMEOUT_S: Final = 2.0
ADDRESSES: Final = 64
"""Addresses of one name; a name with more of them is refused."""
THREADS: Final = 4
"""Threads for names that have answered before, and as many for all others. A thread can't be
interrupted: it is in use until the system's resolver gives up. So names that never answer could
take all threads, and those that do answer have some that such names can't take."""
ANSWERED: Final = 1024
"""Number of names that count as having answered before."""


class Resolver:
    """Asks the system's resolver, for at most `TIMEOUT_S`.

    Args:
        getaddrinfo: the function of the system, or of a test; runs in a thread.
    """

    def __init__(self, getaddrinfo: Callable[..., Sequence[Any]] = socket.getaddrinfo) -> None:
        self._getaddrinfo = getaddrinfo
        self._known = trio.CapacityLimiter(THREADS)
        self._others = trio.CapacityLimiter(THREADS)
        self._answered: OrderedDict[str, None] = OrderedDict()

    async def __call__(self, name: str) -> Sequence[IPAddress]:
        """All addresses of the name, in the order of the system's preference.

        Raises NoResponse: there are none, or too many, or there is no answer in time.
        """
        ask = partial(self._getaddrinfo, name, None, type=socket.SOCK_STREAM)
        limiter = self._known if name in self._answered else self._others
        self._answered.pop(name, None)  # until it answers again
        with trio.move_on_after(TIMEOUT_S):
            try:
                entries = await trio.to_thread.run_sync(
                    ask, limiter=limiter, abandon_on_cancel=True
                )
            except (OSError, UnicodeError) as error:
                raise NoResponse(cause=f"DNS: {_reason(error)}") from None
            addresses = list(dict.fromkeys(ip_address(entry[4][0]) for entry in entries))
            if not 0 < len(addresses) <= ADDRESSES:
                raise NoResponse(cause=f"DNS: {len(addresses)} addresses")
            self._note(name)
            return addresses
        raise NoResponse(cause=f"DNS: no answer within {TIMEOUT_S:g} s")

    def _note(self, name: str) -> None:
        self._answered[name] = None
        if len(self._answered) > ANSWERED:
            self._answered.popitem(last=False)


def _reason(error: OSError | UnicodeError) -> str:
    return (error.strerror or "failed") if isinstance(error, OSError) else "not a name"
