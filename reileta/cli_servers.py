"""The commands `reileta servers …`: rules about other servers, and their keys."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from reileta import cli_options
from reileta.cli_admin import REASON, UNTIL, reason_of, time_of
from reileta.cli_help import GroupedCommand, examples
from reileta.cli_tools import STORE, Failed, attempt, commands, iso, print_lines, tool_log
from reileta.errors import Overloaded
from reileta.records import PeerServer
from reileta.rules.federation.addresses import canonical, host_of
from reileta.rules.federation.server_rules import RULES_LIMIT, Rule, RuleKind
from reileta.settings import Settings

_RULES: Final = "Rules"
_KEYS: Final = "Servers"
Host = Annotated[
    str,
    typer.Argument(
        metavar="HOST",
        help="The host; the rule holds for it and all hosts below it, at any port.",
        show_default=False,
    ),
]

servers: Final = commands(
    "Manage other servers. The server may be running: it notices within a second.",
    epilog=examples(
        "reileta servers list --data /srv/reileta",
        "reileta servers block evil.example --reason 'spam'",
        "reileta servers accept-key b.example.org 9PGcCnTc3qSCt74zE1v5etMxaXgo7pycPPi9wz0CwRI",
    ),
)


@servers.command(
    "list",
    cls=GroupedCommand,
    rich_help_panel=_KEYS,
    epilog=examples("reileta servers list --data /srv/reileta"),
)
@cli_options.with_settings(STORE)
def list_servers(**given: str | None) -> int:
    """List the servers that are known, with their keys, and the rules about servers."""
    settings = cli_options.read(given)
    tool_log()

    def run() -> int:
        from reileta.store import server_commands

        found = server_commands.list_servers(settings)
        print_lines(map(_server_line, found.servers))
        print_lines(_rule_line(rule) for rule in found.rules if rule.holds(found.now_ms))
        return 0

    return attempt(settings, run)


def _server_line(server: PeerServer) -> str:
    words = [server.address, server.state, f"key={server.public_key}"]
    if server.offered_key is not None:
        words.append(f"offered={server.offered_key}")
    if server.last_seen is not None:
        words.append(f"seen={iso(server.last_seen)}")
    return "  ".join(words)


def _rule_line(rule: Rule) -> str:
    words = [rule.pattern, f"rule={rule.kind}"]
    if rule.until is not None:
        words.append(f"until={iso(rule.until)}")
    if rule.reason is not None:
        words.append(f"reason={rule.reason!r}")
    return "  ".join(words)


@servers.command(
    "block",
    cls=GroupedCommand,
    rich_help_panel=_RULES,
    epilog=examples("reileta servers block evil.example --reason 'spam' --until 2027-01-31"),
)
@cli_options.with_settings(STORE)
def block(*, host: Host, reason: REASON = None, until: UNTIL = None, **given: str | None) -> int:
    """Block a host and all hosts below it: nothing goes there or comes from there."""
    return _put(given, host, "block", reason, until, "is blocked")


@servers.command(
    "allow",
    cls=GroupedCommand,
    rich_help_panel=_RULES,
    epilog=examples("reileta servers allow b.example.org"),
)
@cli_options.with_settings(STORE)
def allow(*, host: Host, reason: REASON = None, until: UNTIL = None, **given: str | None) -> int:
    """Allow a host and all hosts below it, for --federation allowlist, or inside of a silenced
    domain. A block of a parent domain wins."""
    return _put(given, host, "allow", reason, until, "is allowed")


@servers.command(
    "silence",
    cls=GroupedCommand,
    rich_help_panel=_RULES,
    epilog=examples("reileta servers silence noisy.example"),
)
@cli_options.with_settings(STORE)
def silence(*, host: Host, reason: REASON = None, until: UNTIL = None, **given: str | None) -> int:
    """Silence a host and all hosts below it: they can read and be read, but their users can't
    come."""
    return _put(given, host, "silence", reason, until, "is silenced")


@servers.command(
    "unblock",
    cls=GroupedCommand,
    rich_help_panel=_RULES,
    epilog=examples("reileta servers unblock evil.example"),
)
@cli_options.with_settings(STORE)
def unblock(*, host: Host, **given: str | None) -> int:
    """Delete the rule about a host, of whatever kind."""
    settings = cli_options.read(given)
    pattern = _host(host)
    tool_log()

    def run() -> int:
        from reileta.store import server_commands

        if not server_commands.delete_rule(settings, pattern):
            raise Failed(f"there is no rule about {pattern}")
        typer.echo(f"{pattern} has no rule", err=True)
        return 0

    return attempt(settings, run)


@servers.command(
    "accept-key",
    cls=GroupedCommand,
    rich_help_panel=_KEYS,
    epilog=examples(
        "reileta servers accept-key b.example.org 9PGcCnTc3qSCt74zE1v5etMxaXgo7pycPPi9wz0CwRI"
    ),
)
@cli_options.with_settings(STORE)
def accept_key(
    *,
    server: Annotated[
        str, typer.Argument(metavar="SERVER", help="host or host:port.", show_default=False)
    ],
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY", help="The offered key, as `list` shows it.", show_default=False
        ),
    ],
    **given: str | None,
) -> int:
    """Accept a server's new key. Compare it with what its operator says, on another way."""
    settings = cli_options.read(given)
    try:
        address = canonical(server)
    except ValueError as error:
        raise cli_options.WrongUse(f"SERVER: {error}") from None
    tool_log()

    def run() -> int:
        from reileta.store import server_commands

        found = server_commands.accept_key(settings, address, key)
        if found is None:
            raise Failed(f"{address} is not known")
        if found.public_key != key:
            offers = "no other key" if found.offered_key is None else found.offered_key
            raise Failed(f"{address} offers {offers}")
        typer.echo(f"{address} has the key {key}", err=True)
        return 0

    return attempt(settings, run)


def _put(
    given: dict[str, str | None],
    host: str,
    kind: RuleKind,
    reason: str | None,
    until: str | None,
    done: str,
) -> int:
    settings: Settings = cli_options.read(given)
    pattern, why, until_ms = _host(host), reason_of(reason), time_of(until)
    tool_log()

    def run() -> int:
        from reileta.store import server_commands

        try:
            server_commands.put_rule(settings, pattern, kind, reason=why, until=until_ms)
        except Overloaded:
            raise Failed(f"there are {RULES_LIMIT:,} rules already") from None
        typer.echo(
            f"{pattern} {done}" + ("" if until_ms is None else f" until {iso(until_ms)}"), err=True
        )
        return 0

    return attempt(settings, run)


def _host(text: str) -> str:
    try:
        return host_of(canonical(text))
    except ValueError as error:
        raise cli_options.WrongUse(f"HOST: {error}") from None
