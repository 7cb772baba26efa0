"""`reileta` with instances that crash when a player sends `"crash"`, for tests of the console."""

from __future__ import annotations

import sys

from actors.instance.actor import InstanceActor
from actors.instance.messages import InstanceMessage, SendData
from reileta.cli import main


class WantedCrash(Exception):
    """What a player has asked for."""


_receive, _receive_now = InstanceActor.receive, InstanceActor.receive_now


def _crash_if_wanted(message: InstanceMessage) -> None:
    if isinstance(message, SendData) and message.data == b'"crash"':
        raise WantedCrash("as a test wants it")


async def _receive_or_crash(self: InstanceActor, message: InstanceMessage) -> None:
    _crash_if_wanted(message)
    await _receive(self, message)


def _receive_now_or_crash(self: InstanceActor, message: InstanceMessage) -> bool:
    _crash_if_wanted(message)
    return _receive_now(self, message)


if __name__ == "__main__":
    InstanceActor.receive = _receive_or_crash  # type: ignore[method-assign]
    InstanceActor.receive_now = _receive_now_or_crash  # type: ignore[method-assign]
    sys.exit(main())
