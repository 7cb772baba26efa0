"""The command `reileta top`: the live figures of a running server, in the terminal."""

from __future__ import annotations

import os
from typing import Annotated, Final, Literal

import typer

from reileta.cli_options import WrongUse
from reileta.cli_tools import Failed

TOKEN: Final = "REILETA_TOKEN"  # noqa: S105 - the name of a variable
Sort = Literal["connected", "queued", "messages_per_s", "drain_size", "wait_ms", "backlog_bytes"]


def top(
    *,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Where the server is.", show_default=True)
    ] = "http://127.0.0.1:3032",
    username: Annotated[
        str, typer.Option("--username", "-u", help="An admin. Its password is asked for.")
    ] = "admin",
    token: Annotated[
        bool,
        typer.Option("--token", help=f"Use the token in {TOKEN} instead of a password."),
    ] = False,
    sort: Annotated[
        Sort, typer.Option("--sort", help="By what instances are sorted, the largest first.")
    ] = "connected",
    every_s: Annotated[
        float, typer.Option("--every", min=0.5, max=60, help="Seconds between two updates.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one picture, and end.")] = False,
) -> int:
    """Show what a running server does: nodes, figures, instances. Ctrl-C ends it."""
    from reileta import top as work

    try:
        server = work.server_at(url)
    except ValueError as error:
        raise WrongUse(f"URL: {error}") from None
    held = os.environ.get(TOKEN, "") if token else ""
    if token and not held:
        raise WrongUse(f"--token: {TOKEN} must hold the token of an admin")
    try:
        if held:
            watcher = work.Watcher(server, held, None)
        else:
            password = typer.prompt(f"Password of {username}", hide_input=True, err=True)
            watcher = work.Watcher(server, None, (username, password))
        try:
            work.show(watcher, sort=sort, every_ms=int(every_s * 1000), once=once)
        finally:
            watcher.close()
    except work.TopError as error:
        raise Failed(str(error)) from None
    except KeyboardInterrupt:
        return 0
    return 0
