"""The command line: `reileta serve`, `bots create`, `admin grant` and `revoke`, `trace`, `replay`.

Wrong usage prints one line on standard error and exits with status 2. A start that fails for a
reason the operator can fix prints one line and exits with status 1. Commands import what they need
when they run, so that `reileta --version` does not load a server.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer

from reileta import __version__, cli_options, startup
from reileta.errors import DatabaseUnavailable, UserCannotUpdate
from reileta.init_process import run_under_init
from reileta.observability import log
from reileta.settings import Settings

_HELP: Final = {"help_option_names": ["-h", "--help"]}
_STORE: Final = ("data", "database")
"""The settings that a command needs to find the server's database."""


def _typer(about: str) -> typer.Typer:
    return typer.Typer(
        help=about,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={**_HELP},
    )


app: Final = _typer("Reileta, a realtime instance server for social VR.")
bots: Final = _typer("Create accounts for load tests.")
admin: Final = _typer("Manage the server's administrators.")
app.add_typer(bots, name="bots")
app.add_typer(admin, name="admin")


class Failed(typer.TyperException):
    """The command failed; exit status 1."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line (default: the process's own arguments) and returns the exit status."""
    try:
        status = app(
            args=None if arguments is None else [*arguments],
            prog_name="reileta",
            standalone_mode=False,
        )
    except typer.TyperException as error:
        line = " ".join(error.format_message().split())
        typer.echo(f"reileta: {line}", err=True)
        return error.exit_code
    except typer.Abort:
        return 130
    return status if isinstance(status, int) else 0


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"reileta {__version__}")
        raise typer.Exit


@app.callback()
def _reileta(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Reileta, a realtime instance server for social VR."""


@app.command()
@cli_options.with_settings()
def serve(**given: str | None) -> int:
    """Run the server until it is stopped (Ctrl-C or SIGTERM)."""
    settings = cli_options.read(given)

    def run() -> int:
        startup.check_tls(settings.tls_cert, settings.tls_key)
        from reileta import main as server

        return server.run(settings)

    return run_under_init(lambda: _attempt(settings, run))


@bots.command("create")
@cli_options.with_settings(_STORE)
def create_bots(
    *,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="Number of accounts to create.")],
    tokens: Annotated[
        Path, typer.Option(metavar="FILE", help="File for their tokens, one per line (mode 0600).")
    ],
    autopilot: Annotated[bool, typer.Option("--autopilot", help="Create Autopilots.")] = False,
    **given: str | None,
) -> int:
    """Create accounts for load tests, with one token each. The server may be running."""
    settings = cli_options.read(given)
    _tool_log()

    def run() -> int:
        from reileta.store import admin_commands

        # The file is opened first: if it can't be written, no account is created. It is truncated
        # last: if the accounts can't be created, older tokens in it are kept.
        with open(tokens, "w", encoding="ascii", opener=_private) as file:
            made = admin_commands.create_bots(settings, count, autopilot=autopilot)
            if file.seekable():
                file.truncate()
            file.writelines(f"{token}\n" for token in made)
        typer.echo(f"created {count} bots; their tokens are in {tokens}", err=True)
        return 0

    return _attempt(settings, run)


@admin.command("grant")
@cli_options.with_settings(_STORE)
def grant(
    *,
    username: Annotated[str, typer.Argument(help="The account's username.", show_default=False)],
    **given: str | None,
) -> int:
    """Make an account an administrator. The server may be running."""
    settings = cli_options.read(given)
    _tool_log()

    def run() -> int:
        from reileta.store import admin_commands

        if not admin_commands.grant_admin(settings, username):
            raise Failed(f"there is no user named {username}")
        typer.echo(f"{username} is now an admin", err=True)
        return 0

    return _attempt(settings, run)


@admin.command("revoke")
@cli_options.with_settings(_STORE)
def revoke(
    *,
    username: Annotated[str, typer.Argument(help="The account's username.", show_default=False)],
    **given: str | None,
) -> int:
    """Take the administrator role from an account, at once. The server may be running."""
    settings = cli_options.read(given)
    _tool_log()

    def run() -> int:
        from reileta.store import admin_commands

        try:
            found = admin_commands.revoke_admin(settings, username)
        except UserCannotUpdate:
            raise Failed("the main admin always stays an admin") from None
        if not found:
            raise Failed(f"there is no user named {username}")
        typer.echo(f"{username} is no longer an admin", err=True)
        return 0

    return _attempt(settings, run)


@app.command("trace")
def show_trace(
    *,
    trace: Annotated[
        str, typer.Argument(metavar="TRACE_ID", help="16 hexadecimal digits.", show_default=False)
    ],
    log_file: Annotated[
        Path | None,
        typer.Option("--log", metavar="FILE", help="A JSON log file; default: standard input."),
    ] = None,
    as_mermaid: Annotated[
        bool, typer.Option("--mermaid", help="Print the source of a Mermaid sequence diagram.")
    ] = False,
) -> int:
    """Draw what one request or frame caused, from the server's log (--log-format json)."""
    from reileta.diagnostics import trace_reader, trace_render

    wanted = trace_reader.trace_id(trace)
    if wanted is None:
        raise cli_options.WrongUse("TRACE_ID: must be 16 hexadecimal digits")
    if log_file is None and sys.stdin.isatty():
        raise cli_options.WrongUse("--log: is required unless a log is piped to standard input")
    with _reading(log_file) as log:
        found = trace_reader.find(log, wanted)
    for line in trace_render.remarks(found):
        typer.echo(f"reileta: {line}", err=True)
    if not found.events:
        raise Failed(trace_render.nothing(found, wanted))
    root = trace_reader.tree(found.events)
    _print(trace_render.mermaid(root) if as_mermaid else trace_render.draw(root, wanted))
    return 0


@app.command("replay")
def replay_recording(
    *,
    recording: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A recording made with --record.", show_default=False),
    ],
    steps: Annotated[
        bool, typer.Option("--steps", help="Show the effect of each message.")
    ] = False,
) -> int:
    """Replay a recording through the rules and show the instance's final state."""
    from reileta.diagnostics.recording import NotARecording
    from reileta.diagnostics.replay import Replay
    from reileta.diagnostics.replay_report import report

    with _reading(recording) as file:
        try:
            replay = Replay(file)
        except NotARecording as error:
            raise Failed(f"can't replay {recording}: {error}") from None
        _print(report(replay, steps=steps))
    return 0


@contextmanager
def _reading(path: Path | None) -> Iterator[BinaryIO]:
    """The file, or standard input for None. An error while opening it becomes a one-line
    failure."""
    if path is None:
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - errors of the block are not this file's
    except OSError as error:
        raise Failed(f"can't read {path}: {error.strerror}") from None
    with file:
        yield file


def _print(lines: Iterable[str]) -> None:
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


def _tool_log() -> None:
    """A tool prints its result on standard output; only errors are logged."""
    log.configure("console", "error", stream=sys.stderr)


def _private(path: str, flags: int) -> int:
    """Opens a file without truncating it and lets only its owner read it, even if it existed
    before."""
    descriptor = os.open(path, flags & ~os.O_TRUNC, 0o600)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.fchmod(descriptor, 0o600)
    return descriptor


def _attempt(settings: Settings, run: Callable[[], int]) -> int:
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
