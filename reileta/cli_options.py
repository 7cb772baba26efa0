"""Command-line options made from the settings, so that the two can't drift apart.

An option `--log-level` is the setting `log_level`, as is the variable `REILETA_LOG_LEVEL`. Options
are taken as text and judged by the settings' own types, whichever way they came.
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

from reileta.settings import Settings

PREFIX: Final = "REILETA_"


class WrongUse(typer.TyperException):
    """An option or a variable of the environment can't be used as it was given."""

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
    """Gives a command, which takes `**given`, an option for each setting named; None: for all.

    The command gets each option's text, or None where it was not given: `read` takes that.
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
    """The settings from options, then the environment, then the defaults; WrongUse if one is off.

    The message never quotes a value, since a database's URL holds a password.
    """
    try:
        return Settings(**{name: text for name, text in given.items() if text is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        said = [_sentence(one["loc"], one["msg"], given) for one in error.errors()]
        raise WrongUse("; ".join(said)) from None


def _sentence(place: tuple[int | str, ...], message: str, given: Mapping[str, str | None]) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    if not place:
        return message
    name = str(place[0])
    from_environment = given.get(name) is None and variable(name) in os.environ
    return f"{variable(name) if from_environment else flag(name)}: {message}"


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    default = field.get_default()
    notes = [variable(name)]
    if default is not None:
        notes.append(f"default {_said(default)}")
    said = (field.description or "").replace("`", "")
    option = typer.Option(
        flag(name), metavar=_metavar(field), help=f"{said} [{', '.join(notes)}]", show_default=False
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


def _said(default: object) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return str(default)
