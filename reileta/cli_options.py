"""Command-line options generated from the settings.

The option `--log-level` and the variable `REILETA_LOG_LEVEL` set `log_level`. Options are passed on
as text; the settings' own types validate them, as they do environment variables.
"""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from reileta.settings import Settings, group_of

PREFIX: Final = "REILETA_"


class WrongUse(typer.TyperException):
    """An option or an environment variable has a value that can't be used."""

    exit_code = 2


def flag(name: str) -> str:
    """`--log-level` for `log_level`."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """`REILETA_LOG_LEVEL` for `log_level`."""
    return PREFIX + name.upper()


def with_settings(
    names: Collection[str] | None = None,
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Adds an option for each named setting (None: for all) to a command that takes `**given`.

    The command gets each option's text, or None for an option that was not used; pass them to
    `read`.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        own = [
            parameter
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        made = [
            _parameter(name, field)
            for name, field in Settings.model_fields.items()
            if names is None or name in names
        ]
        # Typer reads a command's options from its signature.
        cast(Any, command).__signature__ = inspect.Signature([*own, *made])
        return command

    return decorate


def read(given: Mapping[str, str | None]) -> Settings:
    """Settings from options, then the environment, then the defaults. Raises WrongUse.

    The message never quotes a value, since a database URL can hold a password.
    """
    try:
        return Settings(**{name: text for name, text in given.items() if text is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        messages = [_sentence(fault["loc"], fault["msg"], given) for fault in error.errors()]
        raise WrongUse("; ".join(messages)) from None


def _sentence(path: tuple[int | str, ...], message: str, given: Mapping[str, str | None]) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    if not path:
        return message
    name = str(path[0])
    from_environment = given.get(name) is None and variable(name) in os.environ
    return f"{variable(name) if from_environment else flag(name)}: {message}"


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    default = field.get_default()
    notes = [variable(name)]
    if default is not None:
        notes.append(f"default {_shown(default)}")
    help_text = (field.description or "").replace("`", "")
    option = typer.Option(
        flag(name),
        metavar=_metavar(field),
        help=f"{help_text} [{', '.join(notes)}]",
        show_default=False,
        rich_help_panel=group_of(name),
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[str | None, option],
    )


def _metavar(field: FieldInfo) -> str:
    kinds = [kind for kind in typing.get_args(field.annotation) if kind is not type(None)]
    if typing.get_origin(field.annotation) is Literal:
        return "|".join(kinds)
    kind = kinds[0] if kinds else field.annotation
    return {bool: "on|off", int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(
        cast(type, kind), "TEXT"
    )


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return str(default)
