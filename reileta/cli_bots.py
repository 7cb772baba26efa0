"""The commands `reileta bots …`: accounts for load tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, TextIO

import typer

from reileta import cli_options
from reileta.cli_help import GroupedCommand, examples
from reileta.cli_tools import STORE, Failed, attempt, commands, iso, print_lines, tool_log

bots: Final = commands(
    "Create and remove accounts for load tests. The server may be running.",
    epilog=examples(
        "reileta bots create --count 300 --tokens bots.txt",
        "reileta bots list",
        "reileta bots remove bot_1a2b3c4d5e",
    ),
)


@bots.command(
    "create",
    cls=GroupedCommand,
    epilog=examples("reileta bots create --count 300 --tokens bots.txt --data /srv/reileta"),
)
@cli_options.with_settings(STORE)
def create_bots(
    *,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="Number of accounts to create.")],
    tokens: Annotated[
        Path,
        typer.Option(metavar="FILE", help="A new file for their tokens, one per line (mode 0600)."),
    ],
    autopilot: Annotated[bool, typer.Option("--autopilot", help="Create Autopilots.")] = False,
    **given: str | None,
) -> int:
    """Create accounts for load tests, with one token each. The server may be running."""
    settings = cli_options.read(given)
    tool_log()

    def run() -> int:
        from reileta.store import admin_commands

        # The file is opened first: if it can't be written, no account is created.
        with _token_file(tokens) as file:
            made = admin_commands.create_bots(settings, count, autopilot=autopilot)
            file.writelines(f"{token}\n" for token in made)
        typer.echo(f"created {count} bots; their tokens are in {tokens}", err=True)
        return 0

    return attempt(settings, run)


@bots.command("list", cls=GroupedCommand, epilog=examples("reileta bots list --data /srv/reileta"))
@cli_options.with_settings(STORE)
def list_bots(**given: str | None) -> int:
    """List the batches of bots: name, number of accounts, time of creation."""
    settings = cli_options.read(given)
    tool_log()

    def run() -> int:
        from reileta.store import admin_commands

        batches = admin_commands.list_bots(settings)
        print_lines(f"{one.name}  {one.count}  {iso(one.created_at)}" for one in batches)
        return 0

    return attempt(settings, run)


@bots.command(
    "remove",
    cls=GroupedCommand,
    epilog=examples(
        "reileta bots remove bot_1a2b3c4d5e", "reileta bots remove --all --data /srv/reileta"
    ),
)
@cli_options.with_settings(STORE)
def remove_bots(
    *,
    batch: Annotated[
        str | None,
        typer.Argument(help="The name of a batch, as `bots list` has it.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all batches.")] = False,
    **given: str | None,
) -> int:
    """Delete the accounts of a batch, as if each had deleted itself. Other accounts stay."""
    settings = cli_options.read(given)
    if (batch is None) != everything:
        raise cli_options.WrongUse("name either one batch or --all")
    tool_log()

    def run() -> int:
        from reileta.store import admin_commands

        removed = admin_commands.remove_bots(settings, batch)
        if not removed and batch is not None:
            raise Failed(f"there is no batch named {batch}: see `reileta bots list`")
        typer.echo(f"removed {removed} bots", err=True)
        return 0

    return attempt(settings, run)


@contextmanager
def _token_file(path: Path) -> Iterator[TextIO]:
    """A new file, or a pipe or a device that exists. A file that nothing was written to is
    removed. Raises Failed if there is a file already, so that no tokens are lost."""
    regular = not path.exists() or path.is_file()
    try:
        file = open(path, "x" if regular else "w", encoding="ascii", opener=_private)  # noqa: SIM115 - errors of the block are not this file's
    except FileExistsError:
        raise Failed(
            f"{path} exists already, and its tokens would be lost: name a new file"
        ) from None
    with file:
        done = False
        try:
            yield file
            done = True
        finally:
            if not done and regular and not file.tell():
                path.unlink()


def _private(path: str, flags: int) -> int:
    """Opens a file that only its owner can read."""
    return os.open(path, flags, 0o600)
