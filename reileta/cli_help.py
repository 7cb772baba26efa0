"""Help texts of commands: options and commands in groups, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup


def examples(*lines: str) -> str:
    """The end of a help text: one example a line."""
    # A backspace keeps the help's paragraphs from being filled.
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


class GroupedCommand(TyperCommand):
    """A command whose options are listed below the titles of their groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_parameters(self, ctx, formatter)


class GroupedCommands(TyperGroup):
    """Commands that are listed below the titles of their groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_parameters(self, ctx, formatter)
        commands = [self.commands[name] for name in self.list_commands(ctx)]
        width = formatter.width - 6 - max(len(str(one.name)) for one in commands)
        rows = [
            (one.rich_help_panel, (str(one.name), one.get_short_help_str(width)))  # type: ignore[attr-defined]
            for one in commands
        ]
        _write(formatter, "Commands", rows)


def _write_parameters(command: Any, ctx: Any, formatter: Any) -> None:
    records = [(one, one.get_help_record(ctx)) for one in command.get_params(ctx)]
    for kind, title in (("argument", "Arguments"), ("option", "Options")):
        rows = [
            (getattr(one, "rich_help_panel", None), record)
            for one, record in records
            if record is not None and one.param_type_name == kind
        ]
        _write(formatter, title, rows)


def _write(formatter: Any, title: str, rows: Sequence[tuple[object, tuple[str, str]]]) -> None:
    """Writes the rows below the titles of their groups; `title` is for those without a group.

    A command without a group has None or, in newer versions of Typer, a default object.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    named = [(group if isinstance(group, str) else None, row) for group, row in rows]
    for group, row in sorted(named, key=lambda row: row[0] is not None):
        groups.setdefault(title if group is None else group, []).append(row)
    for name, members in groups.items():
        with formatter.section(name):
            formatter.write_dl(members)
