from __future__ import annotations

import hashlib

import pytest

from reileta.media.files import is_hash


def test_a_hash_is_a_sha256_in_lower_case_hex() -> None:
    assert is_hash(hashlib.sha256(b"x").hexdigest())


@pytest.mark.parametrize(
    "text", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "../" + "a" * 61, "a" * 64 + "\n"]
)
def test_nothing_else_names_a_file(text: str) -> None:
    assert not is_hash(text)
