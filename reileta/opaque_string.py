"""Passwords as the OpaqueString profile of RFC 8265 compares them. Pure."""

from __future__ import annotations

from typing import Final

from precis_i18n import get_profile

_PROFILE: Final = get_profile("OpaqueString")


def prepared(password: str) -> str:
    """The password in NFC, with each space of any alphabet as U+0020.

    Keyboards differ in what they send for the same letters, and these become equal.
    """
    return password if password.isascii() else _PROFILE.apply_five_rules(password)


def refused_character(password: str) -> str | None:
    """The first character that the profile does not allow; None if it allows all of them.

    It allows no control characters, no invisible ones, and none that Unicode has not assigned: a
    user could not type them again on another device.
    """
    try:
        _PROFILE.base.enforce(prepared(password), _PROFILE.name)
    except UnicodeEncodeError as error:
        return error.object[error.start]
    return None
