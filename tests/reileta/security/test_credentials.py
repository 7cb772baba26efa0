from __future__ import annotations

import base64
import hashlib

import pytest

from reileta.security.credentials import KINDS, TokenKind, digest, new_seed, new_token, successor


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_its_kind_and_256_random_bits(kind: TokenKind) -> None:
    token = new_token(kind)
    prefix, _, rest = token.partition("_")
    assert prefix == kind
    assert len(base64.urlsafe_b64decode(rest + "=")) == 32


def test_no_token_comes_twice() -> None:
    assert len({new_token("ua") for _ in range(1000)}) == 1000


@pytest.mark.parametrize("kind", KINDS)
def test_a_successor_has_the_form_of_a_token(kind: TokenKind) -> None:
    made = successor(new_token("ur"), new_seed(), kind)
    assert made.startswith(f"{kind}_")
    assert len(base64.urlsafe_b64decode(made.removeprefix(f"{kind}_") + "=")) == 32


def test_a_successor_depends_on_the_key_the_seed_and_the_kind() -> None:
    key, seed = new_token("ur"), new_seed()
    assert successor(key, seed, "ur") == successor(key, seed, "ur")
    others = [
        successor(key, seed, "ur")[3:],
        successor(key, seed, "ua")[3:],
        successor(key, new_seed(), "ur")[3:],
        successor(new_token("ur"), seed, "ur")[3:],
    ]
    assert len(set(others)) == 4


def test_a_successor_is_made_of_any_text() -> None:
    assert successor("\ud800", b"", "ur") != successor("\udfff", b"", "ur")


def test_the_digest_is_the_sha256() -> None:
    assert digest("ua_x") == hashlib.sha256(b"ua_x").digest()


def test_the_digest_takes_any_text() -> None:
    assert digest("\ud800") != digest("\udfff")
    assert len(digest("\x00é")) == 32
