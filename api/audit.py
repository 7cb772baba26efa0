"""Writes the actions of admins to the audit log, before they take effect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

from reileta.errors import DatabaseUnavailable, ReiletaError
from reileta.protocol.input_types import Input
from reileta.records import AuditVia, User
from reileta.rules.identity import Principal
from reileta.rules.resource.json_values import Json
from reileta.store.audit_log import AuditLog

T = TypeVar("T")

TEXT_LIMIT: Final = 500
"""Characters of a text in an entry; a longer one is cut."""


@dataclass(slots=True)
class AuditNote:
    """What an entry says about an action. The handler can add to it while it acts."""

    target: str | None = None
    target_name: str | None = None
    details: dict[str, Json] = field(default_factory=dict)

    def begun(self, args: Mapping[str, str], *params: Input) -> AuditNote:
        """The note with the variable parts of the path, and the names of the given fields. Their
        values are left out: one can be a password."""
        if args:
            self.target = _storable("/".join(args.values()))[:TEXT_LIMIT]
        given = sorted(name for one in params for name in one.given())
        if given:
            self.details["fields"] = list[Json](given)
        return self

    def about(self, user: User) -> None:
        """The action is about that user."""
        self.target, self.target_name = user.id, user.username

    def add(self, **details: Json) -> None:
        """Adds details; None is left out."""
        for name, value in details.items():
            if value is not None:
                self.details[name] = value[:TEXT_LIMIT] if isinstance(value, str) else value


async def audit(
    log: AuditLog,
    note: AuditNote,
    action: str,
    *,
    via: AuditVia,
    by: Principal,
    act: Callable[[], Awaitable[T]],
) -> T:
    """Writes an entry, acts, and completes the entry with the result.

    Raises DatabaseUnavailable before it acts, if there can be no entry, and what `act` raises.
    """
    number = await log.begin(
        action,
        via=via,
        by_id=by.user.id,
        by_name=by.user.username,
        target=note.target,
        target_name=note.target_name,
        details=note.details,
    )
    try:
        result = await act()
    except ReiletaError as refused:
        await _finish(log, number, note, refused.code)
        raise
    await _finish(log, number, note, None)
    return result


async def note_done(
    log: AuditLog, note: AuditNote, action: str, *, via: AuditVia, by: Principal
) -> None:
    """Writes an entry for an action that took effect at once, with or without a database. If the
    database is down, only the moderation log has it, later."""
    with suppress(DatabaseUnavailable):
        await log.begin(
            action,
            via=via,
            by_id=by.user.id,
            by_name=by.user.username,
            target=note.target,
            details=note.details,
            done=True,
        )


async def _finish(log: AuditLog, number: int, note: AuditNote, error: int | None) -> None:
    with suppress(DatabaseUnavailable):  # the entry stays, without a result
        await log.finish(
            number,
            error=error,
            target=note.target,
            target_name=note.target_name,
            details=note.details,
        )


def _storable(text: str) -> str:
    """The text without what PostgreSQL can't store."""
    return text.replace("\x00", "").encode(errors="replace").decode()
