"""Masks secrets in log events: the last line of defence, not the first.

Code that logs names the values it logs and so leaves secrets out. A token, password or e-mail
address can still be in an exception's text, a library's message or under a badly named key; here it
is masked. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

MASK: Final = "***"

_DEPTH: Final = 12
"""Nesting depth up to which values are searched; deeper ones are masked as text."""

_SECRET: Final = re.compile(
    r"authorization|auth(user|server)|cookies?|credentials?|emails?|integrityuser|nonce|passphrase"
    r"|passw(d|ords?)|payload|refresh|secrets?|suid|tokens?"
)
_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

_TOKEN: Final = re.compile(r"(?<![A-Za-z0-9])(ua|sa|ia|ur|na)_[A-Za-z0-9_-]{8,}")
_SCHEME: Final = re.compile(r"\b(Bearer|Basic)\s+[^\s,;'\"]+", re.IGNORECASE)
_ASSIGNED: Final = re.compile(
    r"\b(password|passwd|authuser|authserver|integrityuser|token|refresh|email|_suid(?:_\d+)?)="
    r"[^\s&;,'\"]+",
    re.IGNORECASE,
)
_URL_PASSWORD: Final = re.compile(r"(://[^\s:/@]*:)[^\s@/]+@")
# Input that pydantic and PostgreSQL quote in their errors
_PYDANTIC_INPUT: Final = re.compile(r"input_value=.*?, input_type=", re.DOTALL)
_POSTGRES_ROW: Final = re.compile(r"(Failing row contains |\)=)\(.*\)")
_ADDRESS: Final = re.compile(
    r"(?<![^\s\"'<>(),;:=\[\]{}])"
    r"(?P<local>[^\s@\"'<>(),;:=\[\]{}/*]+)@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"
)
_ID: Final = re.compile(r"[uwispf]_[0-9a-f-]{36}(:\S+)?")


def secret_key(key: str) -> bool:
    """Whether a key of that name, in any casing (`set-cookie`, `accessToken`), holds a secret."""
    return any(_SECRET.fullmatch(word.lower()) for word in _WORDS.findall(key))


def text(value: str) -> str:
    """The text with all tokens, passwords and e-mail addresses masked.

    References such as `u_…@server`, which look like e-mail addresses, are kept.
    """
    if "_" in value:
        value = _TOKEN.sub(rf"\1_{MASK}", value)
    if " " in value:
        value = _SCHEME.sub(rf"\1 {MASK}", value)
    if "=" in value:
        value = _PYDANTIC_INPUT.sub(f"input_value={MASK}, input_type=", value)
        value = _ASSIGNED.sub(rf"\1={MASK}", value)
    if "(" in value:
        value = _POSTGRES_ROW.sub(rf"\1({MASK})", value)
    if "@" in value:
        value = _URL_PASSWORD.sub(rf"\1{MASK}@", value)
        value = _ADDRESS.sub(_mask_address, value)
    return value


def _mask_address(match: re.Match[str]) -> str:
    return match[0] if _ID.fullmatch(match["local"]) else MASK


def value(item: object, *, depth: int = _DEPTH) -> object:
    """The value with secrets masked: containers are rebuilt, and unknown types become text."""
    if item is None or isinstance(item, bool | int | float):
        return item
    if isinstance(item, str):
        return text(item)
    if depth > 0:
        if isinstance(item, Mapping):
            return {
                text(str(key)): MASK
                if secret_key(str(key)) and inner is not None
                else value(inner, depth=depth - 1)
                for key, inner in item.items()
            }
        if isinstance(item, list | tuple | set | frozenset):
            return [value(inner, depth=depth - 1) for inner in item]
    return text(str(item))
