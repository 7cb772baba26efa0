"""What the commands share: failures in one line, the tools' log, the text of results."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

import typer

from reileta import startup
from reileta.cli_help import GroupedCommands
from reileta.errors import DatabaseUnavailable
from reileta.observability import log
from reileta.settings import Settings

_HELP: Final = {"help_option_names": ["-h", "--help"]}
STORE: Final = ("data", "database")
"""The settings that a command needs to find the server's database."""


class Failed(typer.TyperException):
    """The command failed; exit status 1."""


def commands(about: str, *, epilog: str | None = None) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(
        cls=GroupedCommands,
        help=about,
        epilog=epilog,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={**_HELP},
    )


def attempt(settings: Settings, run: Callable[[], int]) -> int:
    """Runs the command; an error that the operator can fix becomes one line."""
    try:
        return run()
    except (
        startup.StartupError,
        DatabaseUnavailable,
        OSError,
        BaseExceptionGroup,
    ) as error:
        if isinstance(error, BaseExceptionGroup) and error.split(KeyboardInterrupt)[1] is None:
            raise KeyboardInterrupt from None
        message = startup.reason(error, listening_on=f"{settings.host}:{settings.port}")
        if message is None:
            raise
        raise Failed(message) from None


def tool_log() -> None:
    """A tool prints its result on standard output; only errors are logged."""
    log.configure("console", "error", stream=sys.stderr)


def print_lines(lines: Iterable[str]) -> None:
    """Writes to standard output in its encoding; a reader that closes the pipe is not an error."""
    out = sys.stdout
    encoding = out.encoding or "ascii"
    try:
        for line in lines:
            out.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        out.flush()
    except BrokenPipeError:
        # At exit, Python would try to write the rest and print an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def iso(at_ms: int) -> str:
    """The time in UTC, as ISO 8601 has it."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
