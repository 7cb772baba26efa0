"""The commands `reileta clients …`: rules about clients."""

from __future__ import annotations

from typing import Annotated, Final, get_args

import typer

from reileta import cli_options
from reileta.cli_admin import REASON, UNTIL, reason_of, time_of
from reileta.cli_help import GroupedCommand, examples
from reileta.cli_tools import STORE, Failed, attempt, commands, iso, print_lines, tool_log
from reileta.errors import Overloaded
from reileta.rules.client_rules import (
    AGENT_RULES_LIMIT,
    RULES_LIMIT,
    ClientRule,
    ClientRuleKind,
    canonical_pattern,
)

Kind = Annotated[
    str, typer.Argument(metavar="KIND", help="network, agent or account.", show_default=False)
]
Pattern = Annotated[
    str,
    typer.Argument(
        metavar="PATTERN",
        help="An address or network; a User-Agent, with * for any text; or a user's id.",
        show_default=False,
    ),
]

clients: Final = commands(
    "Refuse clients. The server may be running: it notices within a second.",
    epilog=examples(
        "reileta clients list --data /srv/reileta",
        "reileta clients block network 192.0.2.0/24 --reason 'spam' --until 2027-01-31",
        "reileta clients block agent 'BadBot*'",
    ),
)


@clients.command(
    "list", cls=GroupedCommand, epilog=examples("reileta clients list --data /srv/reileta")
)
@cli_options.with_settings(STORE)
def list_rules(**given: str | None) -> int:
    """List the rules about clients."""
    settings = cli_options.read(given)
    tool_log()

    def run() -> int:
        from reileta.store import client_commands

        print_lines(map(_line, client_commands.list_rules(settings)))
        return 0

    return attempt(settings, run)


def _line(rule: ClientRule) -> str:
    words = [rule.kind, rule.pattern]
    if rule.until is not None:
        words.append(f"until={iso(rule.until)}")
    if rule.reason is not None:
        words.append(f"reason={rule.reason!r}")
    return "  ".join(words)


@clients.command(
    "block",
    cls=GroupedCommand,
    epilog=examples("reileta clients block account u_00000000-0000-4000-8000-000000000000"),
)
@cli_options.with_settings(STORE)
def block(
    *,
    kind: Kind,
    pattern: Pattern,
    reason: REASON = None,
    until: UNTIL = None,
    **given: str | None,
) -> int:
    """Refuse clients by network, User-Agent or account, and close their WebSockets."""
    settings = cli_options.read(given)
    of_kind, text = _rule(kind, pattern, settings.address or "")
    why, until_ms = reason_of(reason), time_of(until)
    tool_log()

    def run() -> int:
        from reileta.store import client_commands

        try:
            client_commands.put_rule(settings, of_kind, text, reason=why, until=until_ms)
        except Overloaded:
            limit = AGENT_RULES_LIMIT if of_kind == "agent" else RULES_LIMIT
            raise Failed(f"there are {limit:,} rules already") from None
        end = "" if until_ms is None else f" until {iso(until_ms)}"
        typer.echo(f"{of_kind} {text} is blocked{end}", err=True)
        return 0

    return attempt(settings, run)


@clients.command(
    "unblock", cls=GroupedCommand, epilog=examples("reileta clients unblock network 192.0.2.0/24")
)
@cli_options.with_settings(STORE)
def unblock(*, kind: Kind, pattern: Pattern, **given: str | None) -> int:
    """Delete the rule with exactly that kind and pattern."""
    settings = cli_options.read(given)
    of_kind, text = _rule(kind, pattern, settings.address or "")
    tool_log()

    def run() -> int:
        from reileta.store import client_commands

        if not client_commands.delete_rule(settings, of_kind, text):
            raise Failed(f"there is no rule about {of_kind} {text}")
        typer.echo(f"{of_kind} {text} is not blocked any more", err=True)
        return 0

    return attempt(settings, run)


def _rule(kind: str, pattern: str, address: str) -> tuple[ClientRuleKind, str]:
    for known in get_args(ClientRuleKind):
        if kind == known:
            try:
                return known, canonical_pattern(known, pattern, address)
            except ValueError as error:
                raise cli_options.WrongUse(f"PATTERN: {error}") from None
    raise cli_options.WrongUse("KIND: must be network, agent or account")
