"""Introductions: what a server says of a user of its own, before the user comes. Pure.

The server that hears it checks it like any input: a server speaks for its own users only.
"""

from __future__ import annotations

from collections.abc import Iterable

from reileta.errors import IntegrityInvalid
from reileta.ids import At, is_user_at
from reileta.rules.federation.remote_objects import host_of_url


def introduced_user(text: str, server: str) -> str:
    """The `UserIDAt` of a user whom a server introduces. `server` is its canonical address.

    Raises IntegrityInvalid unless the text names a user of exactly that server, port included.
    """
    name = str(At.parse(text)) if text else text
    if not is_user_at(name):
        raise IntegrityInvalid.field("user", "must be a user as u_…@server")
    if At.parse(name).server != server:
        raise IntegrityInvalid.field("user", f"must be a user of {server}")
    return name


def followed_users(names: Iterable[str], address: str) -> frozenset[str]:
    """The bare ids of the users whom an introduced user follows. `address`: this server's.

    Raises IntegrityInvalid if one of them is not a user of this server.
    """
    ids = set()
    for text in names:
        name = At.parse(text) if text else At(text)
        if name.server != address or not is_user_at(str(name)):
            raise IntegrityInvalid.field("follows", f"must be users of {address}, as u_…@server")
        ids.add(name.id)
    return frozenset(ids)


def picture_of(url: str | None, places: Iterable[str | None]) -> str | None:
    """A picture's URL, if it is an https URL at one of these places; else None.

    `places` are addresses and URLs of the server that names the picture: so nobody who looks at
    the user is led anywhere else. The URL is one that a user of this server could set, without
    characters that a browser would repair.
    """
    if url is None:
        return None
    place = _place(url)
    known = {_place(one if "://" in one else f"https://{one}") for one in places if one}
    return url if place is not None and place in known else None


def _place(url: str) -> str | None:
    """The canonical address in an https URL; None for another URL."""
    return host_of_url(url, secure=True) if url.startswith("https://") else None
