"""Tokens of other servers are stored encrypted."""

from __future__ import annotations

from reileta.federation.sealing import Sealing
from reileta.security.server_key import ServerKey

TOKEN = "sa_" + "x" * 43


def test_only_the_servers_own_key_opens_what_it_sealed() -> None:
    key = ServerKey.generate()
    sealed = Sealing(key).seal(TOKEN, "b.example")
    assert TOKEN.encode() not in sealed
    assert Sealing(key).open(sealed, "b.example") == TOKEN
    assert Sealing(ServerKey.generate()).open(sealed, "b.example") is None


def test_what_is_sealed_for_one_server_is_not_opened_for_another() -> None:
    sealing = Sealing(ServerKey.generate())
    assert sealing.open(sealing.seal(TOKEN, "b.example"), "c.example") is None


def test_what_was_changed_or_cut_is_not_opened() -> None:
    sealing = Sealing(ServerKey.generate())
    sealed = sealing.seal(TOKEN, "b.example")
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for wrong in (changed, sealed[:20], b"", sealed + b"x"):
        assert sealing.open(wrong, "b.example") is None


def test_a_text_is_never_sealed_the_same_way_twice() -> None:
    sealing = Sealing(ServerKey.generate())
    assert sealing.seal(TOKEN, "b.example") != sealing.seal(TOKEN, "b.example")
