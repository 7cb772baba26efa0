"""The commands `reileta node …` and `reileta cluster …`: operating several nodes."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from reileta import cli_options
from reileta.cli_help import GroupedCommand, examples
from reileta.cli_tools import STORE, Failed, attempt, commands, iso, print_lines, tool_log

_CLUSTER: Final = (*STORE, "nats", "cluster")
Name = Annotated[
    str, typer.Argument(metavar="NODE", help="The node's name or id.", show_default=False)
]

node: Final = commands(
    "List and drain the nodes of a cluster.",
    epilog=examples(
        "reileta node list --database postgresql://db/reileta",
        "reileta node drain one --database postgresql://db/reileta --nats nats://nats:4222",
    ),
)
cluster: Final = commands(
    "Look at the leases of a cluster, and mend it after a restore.",
    epilog=examples(
        "reileta cluster status --database postgresql://db/reileta --nats nats://nats:4222",
        "reileta cluster bump --database postgresql://db/reileta",
    ),
)


@node.command(
    "list",
    cls=GroupedCommand,
    epilog=examples("reileta node list --database postgresql://db/reileta"),
)
@cli_options.with_settings(_CLUSTER)
def list_nodes(**given: str | None) -> int:
    """List the nodes that run, with what they host; with --nats also how busy they are."""
    settings = cli_options.read(given)
    tool_log()

    def run() -> int:
        from reileta.cluster import commands as work

        seen = work.look(settings)
        lines = []
        for row in seen.rows:
            if row.fenced_at is not None:
                continue
            words = [row.name, row.id, f"roles={','.join(row.roles)}"]
            words += [f"instances={row.instances}", f"version={row.version}"]
            record = (seen.records or {}).get(row.id)
            if record is not None and record.about is not None:
                about = record.about
                words += [f"players={about.players}", f"load={about.load:.2f}"]
                words += ["draining"] if about.draining else []
            words.append(f"since={iso(row.started_at)}")
            lines.append("  ".join(words))
        print_lines(lines)
        return 0

    return attempt(settings, run)


@node.command(
    "drain",
    cls=GroupedCommand,
    epilog=examples(
        "reileta node drain one --database postgresql://db/reileta --nats nats://nats:4222"
    ),
)
@cli_options.with_settings(_CLUSTER)
def drain(
    *,
    name: Name,
    undo: Annotated[bool, typer.Option("--undo", help="Take instances again.")] = False,
    **given: str | None,
) -> int:
    """Have a node take no more instances, and hand over those that it has. Stop it after that."""
    settings = cli_options.read(given)
    tool_log()

    def run() -> int:
        from reileta.cluster import commands as work

        left = work.drain(settings, name, on=not undo)
        if left is None:
            raise Failed(f"there is no node {name}")
        said = "takes instances again" if undo else "takes no more instances"
        print_lines([f"{name} {said}; it has {left}"])
        return 0

    return attempt(settings, run)


@node.command(
    "yield",
    cls=GroupedCommand,
    epilog=examples("reileta node yield one --database postgresql://db/reileta"),
)
@cli_options.with_settings(_CLUSTER)
def yield_up(*, name: Name, **given: str | None) -> int:
    """Have a node give all its instances back at once; other nodes host them anew. For a node that
    is alive in the database and reaches nobody."""
    settings = cli_options.read(given)
    tool_log()

    def run() -> int:
        from reileta.cluster import commands as work

        if not work.yield_up(settings, name):
            raise Failed(f"there is no node {name}")
        print_lines([f"{name} is asked to give its instances back"])
        return 0

    return attempt(settings, run)


@cluster.command(
    "status",
    cls=GroupedCommand,
    epilog=examples(
        "reileta cluster status --database postgresql://db/reileta --nats nats://nats:4222"
    ),
)
@cli_options.with_settings(_CLUSTER)
def status(**given: str | None) -> int:
    """Show each lease as both witnesses have it, nodes that fell within a day, the epochs, and
    what the relays have met since their start: gaps in messages, replays, snapshots instead
    (restores), and gateways that are behind (lagging)."""
    settings = cli_options.read(given)
    tool_log()

    def run() -> int:
        from reileta.cluster import commands as work

        seen = work.look(settings)
        if seen.records is None:
            nats = "not asked (no --nats)" if settings.nats is None else "does not answer"
            print_lines([f"NATS  {nats}"])
        lines = []
        for row in seen.rows:
            if row.fenced_at is not None:
                by = "itself" if row.fenced_by == row.id else row.fenced_by
                lines.append(f"{row.name}  {row.id}  fell={iso(row.fenced_at)}  by={by}")
                continue
            words = [row.name, row.id, f"beat={row.beat}"]
            words.append(f"nats_ok={'yes' if row.nats_ok else 'no'}")
            if seen.records is not None:
                record = seen.records.get(row.id)
                words.append(
                    "record=none"
                    if record is None
                    else f"record={record.record.state}:{record.record.beat}"
                )
            words.append(f"instances={row.instances}")
            relay = seen.relays.get(row.id)
            if relay is not None:
                words += [f"gaps={relay.gaps}", f"replays={relay.replays}"]
                words += [f"restores={relay.restores}", f"lagging={relay.lagging}"]
            lines.append("  ".join(words))
        lines.append(f"instances without a host={seen.vacant}  epoch={seen.highest_epoch}")
        print_lines(lines)
        return 0

    return attempt(settings, run)


@cluster.command(
    "bump",
    cls=GroupedCommand,
    epilog=examples("reileta cluster bump --database postgresql://db/reileta"),
)
@cli_options.with_settings(_CLUSTER)
def bump(**given: str | None) -> int:
    """Make all nodes and epochs of before invalid. Run it after the database was restored from a
    backup, before the first node starts."""
    settings = cli_options.read(given)
    tool_log()

    def run() -> int:
        from reileta.cluster import commands as work

        work.bump(settings)
        print_lines(["all epochs are raised, and all nodes of before are fenced"])
        return 0

    return attempt(settings, run)
