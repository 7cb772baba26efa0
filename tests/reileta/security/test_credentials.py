from __future__ import annotations

import base64
import hashlib

import pytest

from reileta.security.credentials import KINDS, TokenKind, digest, new_token


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_its_kind_and_256_random_bits(kind: TokenKind) -> None:
    token = new_token(kind)
    prefix, _, rest = token.partition("_")
    assert prefix == kind
    assert len(base64.urlsafe_b64decode(rest + "=")) == 32


def test_no_token_comes_twice() -> None:
    assert len({new_token("ua") for _ in range(1000)}) == 1000


def test_the_digest_is_the_sha256() -> None:
    assert digest("ua_x") == hashlib.sha256(b"ua_x").digest()


def test_the_digest_takes_any_text() -> None:
    assert digest("\ud800") != digest("\udfff")
    assert len(digest("\x00é")) == 32
