"""The commands' names."""

from __future__ import annotations

from reileta.protocol import commands


def test_commands_have_the_protocols_names() -> None:
    names = {value for name, value in vars(commands).items() if name.isupper()}
    assert names >= {
        "ping",
        "authenticate",
        "subscribe",
        "unsubscribe",
        "instance-join",
        "instance-leave",
        "instance-data",
    }
    assert all(name.lower().replace("_", "-") == getattr(commands, name) for name in _constants())


def _constants() -> list[str]:
    return [name for name in vars(commands) if name.isupper()]
