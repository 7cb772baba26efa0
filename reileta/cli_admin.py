"""The commands `reileta admin …`: accounts of a server, whether or not it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from pydantic import TypeAdapter, ValidationError

from reileta import cli_options
from reileta.cli_help import GroupedCommand, examples
from reileta.cli_tools import STORE, Failed, attempt, commands, iso, print_lines, tool_log
from reileta.errors import UserCannotUpdate
from reileta.protocol.input_types import MAX_TIME_MS, Password, Reason
from reileta.records import AuditEntry, User
from reileta.settings import Settings

_ROLE: Final = "Administrators"
_ACCOUNT: Final = "Accounts"
REASON = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why. At most 500 characters.")
]
UNTIL = Annotated[
    str | None,
    typer.Option(
        "--until",
        metavar="TIME",
        help="When it ends, as 2027-01-31 or 2027-01-31T18:00, in UTC.",
    ),
]
Username = Annotated[str, typer.Argument(help="The account's username.", show_default=False)]

admin: Final = commands(
    "Manage administrators and accounts. The server may be running: it notices within a second.",
    epilog=examples(
        "reileta admin grant ann --data /srv/reileta",
        "reileta admin suspend bob --reason 'spam' --until 2027-01-31",
        "reileta admin log --limit 20",
    ),
)


def _reason(error: UserCannotUpdate) -> str:
    return "; ".join(detail.message for detail in error.details) or error.message


def _change(settings: Settings, username: str, work: Callable[[], bool], done: str) -> int:
    """Runs a change of an account, and prints what was done."""
    tool_log()

    def run() -> int:
        try:
            found = work()
        except UserCannotUpdate as error:
            raise Failed(_reason(error)) from None
        if not found:
            raise Failed(f"there is no user named {username}")
        typer.echo(f"{username} {done}", err=True)
        return 0

    return attempt(settings, run)


@admin.command(
    "grant",
    cls=GroupedCommand,
    rich_help_panel=_ROLE,
    epilog=examples("reileta admin grant ann --data /srv/reileta"),
)
@cli_options.with_settings(STORE)
def grant(*, username: Username, **given: str | None) -> int:
    """Make an account an administrator. The server may be running."""
    from reileta.store import admin_commands

    settings = cli_options.read(given)
    return _change(
        settings,
        username,
        lambda: admin_commands.grant_admin(settings, username),
        "is now an admin",
    )


@admin.command(
    "revoke",
    cls=GroupedCommand,
    rich_help_panel=_ROLE,
    epilog=examples("reileta admin revoke ann --data /srv/reileta"),
)
@cli_options.with_settings(STORE)
def revoke(*, username: Username, **given: str | None) -> int:
    """Take the administrator role from an account, at once. The server may be running."""
    from reileta.store import admin_commands

    settings = cli_options.read(given)
    return _change(
        settings,
        username,
        lambda: admin_commands.revoke_admin(settings, username),
        "is no longer an admin",
    )


@admin.command(
    "list",
    cls=GroupedCommand,
    rich_help_panel=_ROLE,
    epilog=examples("reileta admin list --data /srv/reileta"),
)
@cli_options.with_settings(STORE)
def list_admins(**given: str | None) -> int:
    """List the administrators: username, id, and whether the account is suspended."""
    settings = cli_options.read(given)
    tool_log()

    def run() -> int:
        from reileta.store import admin_commands

        now_ms, admins = admin_commands.list_admins(settings)
        print_lines(_admin_line(user, now_ms) for user in admins)
        return 0

    return attempt(settings, run)


def _admin_line(user: User, now_ms: int) -> str:
    if not user.suspended(now_ms):
        return f"{user.username}  {user.id}"
    until = "it is lifted" if user.suspended_until is None else iso(user.suspended_until)
    return f"{user.username}  {user.id}  suspended until {until}"


@admin.command(
    "log",
    cls=GroupedCommand,
    rich_help_panel=_ROLE,
    epilog=examples(
        "reileta admin log --limit 20", "reileta admin log --user ann --data /srv/reileta"
    ),
)
@cli_options.with_settings(STORE)
def show_log(
    *,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Number of entries.")] = 50,
    user: Annotated[
        str | None, typer.Option(metavar="USERNAME", help="Only actions of or on this user.")
    ] = None,
    **given: str | None,
) -> int:
    """Show the audit log, newest first: what administrators and commands did."""
    settings = cli_options.read(given)
    tool_log()

    def run() -> int:
        from reileta.store import admin_commands

        print_lines(map(_entry_line, admin_commands.read_audit(settings, limit, user)))
        return 0

    return attempt(settings, run)


def _entry_line(entry: AuditEntry) -> str:
    words = [iso(entry.created_at), entry.via, entry.by_name, entry.action]
    target = entry.target_name or entry.target
    if target is not None:
        words.append(target)
    words += [f"{name}={value!r}" for name, value in entry.details.items()]
    if entry.result != "done":
        words.append("unknown" if entry.result is None else f"refused ({entry.error})")
    # Targets and reasons are a client's text.
    return " ".join(word if word.isprintable() else ascii(word) for word in words)


@admin.command(
    "reset-password",
    cls=GroupedCommand,
    rich_help_panel=_ACCOUNT,
    epilog=examples(
        "reileta admin reset-password admin --data /srv/reileta",
        "reileta admin reset-password ann --stdin < password.txt",
    ),
)
@cli_options.with_settings(STORE)
def reset_password(
    *,
    username: Username,
    stdin: Annotated[
        bool,
        typer.Option(
            "--stdin", help="Read the new password from the first line of standard input."
        ),
    ] = False,
    **given: str | None,
) -> int:
    """Give an account a new password, and end its sessions. Without --stdin, a random password is
    made and printed."""
    settings = cli_options.read(given)
    tool_log()
    password = _given_password() if stdin else None

    def run() -> int:
        from reileta.store import admin_commands

        try:
            made = admin_commands.reset_password(settings, username, password)
        except UserCannotUpdate as error:
            raise Failed(_reason(error)) from None
        if made is None:
            raise Failed(f"there is no user named {username}")
        if password is None:
            print_lines([made])
        typer.echo(f"{username} has a new password; its sessions have ended", err=True)
        return 0

    return attempt(settings, run)


def _given_password() -> str:
    line = sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    return _checked(Password, line, "the password on standard input")


def _checked(kind: Any, text: str, name: str) -> str:
    """The text, if it is of that type. Raises WrongUse, without the text."""
    try:
        adapter: TypeAdapter[str] = TypeAdapter(kind)
        checked = adapter.validate_python(text)
    except ValidationError as error:
        raise cli_options.WrongUse(f"{name}: {error.errors()[0]['msg']}") from None
    return checked


@admin.command(
    "suspend",
    cls=GroupedCommand,
    rich_help_panel=_ACCOUNT,
    epilog=examples(
        "reileta admin suspend bob --reason 'spam' --until 2027-01-31",
        "reileta admin suspend bob --data /srv/reileta",
    ),
)
@cli_options.with_settings(STORE)
def suspend(
    *,
    username: Username,
    reason: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Why; the user reads it when it logs in. At most 500 characters."
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="When the suspension ends, as 2027-01-31 or 2027-01-31T18:00, in UTC. Without it, "
            "when it is lifted.",
        ),
    ] = None,
    **given: str | None,
) -> int:
    """Suspend an account: it can't log in, and its sessions end at once."""
    from reileta.store import admin_commands

    settings = cli_options.read(given)
    why, until_ms = reason_of(reason), time_of(until)
    return _change(
        settings,
        username,
        lambda: admin_commands.suspend_user(settings, username, until=until_ms, reason=why),
        "is suspended" + ("" if until_ms is None else f" until {iso(until_ms)}"),
    )


def reason_of(text: str | None) -> str | None:
    """The text of `--reason`. Raises WrongUse."""
    return None if text is None else _checked(Reason, text, "--reason")


def time_of(text: str | None) -> int | None:
    """The time of `--until` in ms. Raises WrongUse unless it is in the future."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise cli_options.WrongUse("--until: must be a time such as 2027-01-31T18:00") from None
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    if time <= datetime.now(UTC):
        raise cli_options.WrongUse("--until: must be in the future")
    return min(int(time.timestamp() * 1000), MAX_TIME_MS)


@admin.command(
    "unsuspend",
    cls=GroupedCommand,
    rich_help_panel=_ACCOUNT,
    epilog=examples("reileta admin unsuspend bob --data /srv/reileta"),
)
@cli_options.with_settings(STORE)
def unsuspend(*, username: Username, **given: str | None) -> int:
    """Lift the suspension of an account. The user logs in again."""
    from reileta.store import admin_commands

    settings = cli_options.read(given)
    return _change(
        settings,
        username,
        lambda: admin_commands.unsuspend_user(settings, username),
        "is not suspended",
    )
