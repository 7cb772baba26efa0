"""The commands `reileta key rotate` and `accept`: a new key for the server."""

from __future__ import annotations

from typing import Final

import typer

from reileta import cli_options
from reileta.cli_help import GroupedCommand, examples
from reileta.cli_tools import STORE, attempt, commands, print_lines, tool_log

key: Final = commands(
    "Replace the key by which other servers know this one. The server may be running.",
    epilog=examples("reileta key rotate --data /srv/reileta"),
)


@key.callback()
def _key() -> None:
    """Replace the key by which other servers know this one. The server may be running."""


@key.command(
    "rotate",
    cls=GroupedCommand,
    epilog=examples("reileta key rotate --data /srv/reileta"),
)
@cli_options.with_settings((*STORE, "key"))
def rotate(**given: str | None) -> int:
    """Make a new key, and print its public half. The server takes it at SIGHUP or at its next
    start, and signs it with the old one, so that other servers accept it."""
    settings = cli_options.read(given)
    tool_log()

    def run() -> int:
        from reileta.store import admin_commands

        print_lines([admin_commands.rotate_key(settings)])
        typer.echo("the server takes the new key at SIGHUP, or when it starts again", err=True)
        return 0

    return attempt(settings, run)


@key.command(
    "accept",
    cls=GroupedCommand,
    epilog=examples("reileta key accept --data /srv/reileta"),
)
@cli_options.with_settings((*STORE, "key"))
def accept(**given: str | None) -> int:
    """Accept the key of the file in place of a lost one. The server then starts with it. A missing
    file is made. Prints the public half. Other servers don't know the key: their admins must accept
    it, too."""
    settings = cli_options.read(given)
    tool_log()

    def run() -> int:
        from reileta.store import admin_commands

        print_lines([admin_commands.accept_key(settings)])
        return 0

    return attempt(settings, run)
