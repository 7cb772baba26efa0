"""The command line: `reileta serve`, `ins`, `top`, `trace`, `replay`, and groups of commands.

Wrong usage prints one line on standard error and exits with status 2. A start that fails for a
reason the operator can fix prints one line and exits with status 1. Commands import what they need
when they run, so that `reileta --version` does not load a server.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer

from reileta import __version__, cli_options, startup
from reileta.cli_admin import admin
from reileta.cli_bots import bots
from reileta.cli_clients import clients
from reileta.cli_cluster import cluster, node
from reileta.cli_help import GroupedCommand, examples
from reileta.cli_key import key
from reileta.cli_servers import servers
from reileta.cli_tools import Failed, attempt, commands, print_lines
from reileta.cli_top import top
from reileta.init_process import run_under_init

_RUN: Final = "Run a server"
_ACCOUNTS: Final = "Accounts"
_SERVERS: Final = "Other servers"
_CLUSTER: Final = "Cluster"
_LOOK: Final = "Look for causes"

app: Final = commands(
    "Reileta, a realtime instance server for social VR.",
    epilog=examples(
        "reileta serve --port 4000 --data /srv/reileta",
        "reileta admin grant ann --data /srv/reileta",
        "reileta serve --help",
    ),
)


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


@app.command(
    cls=GroupedCommand,
    rich_help_panel=_RUN,
    epilog=examples(
        "reileta serve",
        "reileta serve --host 0.0.0.0 --address play.example.org --data /srv/reileta",
        "reileta serve --tls-cert fullchain.pem --tls-key privkey.pem --log-format json",
    ),
)
@cli_options.with_settings()
def serve(**given: str | None) -> int:
    """Run the server until it is stopped (Ctrl-C or SIGTERM)."""
    settings = cli_options.read(given)

    def run() -> int:
        startup.check_tls(settings.tls_cert, settings.tls_key)
        from reileta import main as server

        return server.run(settings)

    return run_under_init(lambda: attempt(settings, run))


app.add_typer(admin, name="admin", rich_help_panel=_ACCOUNTS)
app.add_typer(bots, name="bots", rich_help_panel=_ACCOUNTS)
app.add_typer(key, name="key", rich_help_panel=_SERVERS)
app.add_typer(clients, name="clients", rich_help_panel=_SERVERS)
app.add_typer(servers, name="servers", rich_help_panel=_SERVERS)
app.add_typer(node, name="node", rich_help_panel=_CLUSTER)
app.add_typer(cluster, name="cluster", rich_help_panel=_CLUSTER)


app.command(
    "top",
    cls=GroupedCommand,
    rich_help_panel=_LOOK,
    epilog=examples(
        "reileta top",
        "reileta top https://play.example.org --username ann --sort messages_per_s",
        "REILETA_TOKEN=ua_… reileta top --token --once",
    ),
)(top)


@app.command(
    cls=GroupedCommand,
    rich_help_panel=_RUN,
    epilog=examples(
        "REILETA_NODE_TOKEN=na_… reileta ins --gateway wss://play.example.org",
        "reileta ins --gateway wss://play.example.org --token-file /etc/reileta/node.token",
    ),
)
def ins(
    *,
    gateway: Annotated[
        str, typer.Option(metavar="URL", help="The server, wss://… or ws://….", show_default=False)
    ],
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            envvar="REILETA_NODE_TOKEN",
            help="The node's token, na_…. Others see it in the list of processes: use the"
            " environment or a file.",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A file with the node's token.", show_default=False),
    ] = None,
    capacity: Annotated[int, typer.Option(min=1, max=100, help="Instances it hosts.")] = 100,
    direct: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Also listens there, for direct connections of clients.",
            show_default=False,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TLS for --direct: the chain.", show_default=False),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TLS for --direct: the key.", show_default=False),
    ] = None,
) -> int:
    """Run an instance node, which hosts instances for a server over a link."""
    from reileta.instance_node import link, program
    from reileta.observability import log

    if not link.is_gateway(gateway):
        raise cli_options.WrongUse(
            "--gateway: must be wss:// or ws://, a host, and a path if the server has a base path"
        )
    if token_file is not None:
        with _reading(token_file) as file:
            token = file.read(1024).decode("ascii", "replace").strip()
    if not token or not token.startswith("na_"):
        raise cli_options.WrongUse(
            "--token, --token-file or REILETA_NODE_TOKEN: must be the token of a node, na_…"
        )
    host, _, port = (direct or "").rpartition(":")
    if direct is not None and not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise cli_options.WrongUse("--direct: must be HOST:PORT")
    if (tls_cert is None) != (tls_key is None) or (tls_cert is not None and direct is None):
        raise cli_options.WrongUse("--tls-cert, --tls-key: belong together, and to --direct")
    log.configure()
    try:
        listening = None
        if direct is not None:
            listening = program.Listening(host.strip("[]"), int(port), tls_cert, tls_key)
        program.run(gateway, token, capacity, listening)
    except startup.StartupError as error:
        raise Failed(str(error)) from None
    return 0


@app.command(
    "trace",
    cls=GroupedCommand,
    rich_help_panel=_LOOK,
    epilog=examples("reileta trace 00f067aa0ba902b7 --log reileta.log"),
)
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
    print_lines(trace_render.mermaid(root) if as_mermaid else trace_render.draw(root, wanted))
    return 0


@app.command(
    "replay",
    cls=GroupedCommand,
    rich_help_panel=_LOOK,
    epilog=examples("reileta replay recordings/i_1.1.1.recording --steps"),
)
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
        print_lines(report(replay, steps=steps))
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
