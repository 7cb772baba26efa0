"""What references mean, where no endpoint's own test says it."""

from __future__ import annotations

import pytest

from api.http.lookups import world_ref
from tests.api.fakes import ADDRESS, FakeNode

WORLD = "w_00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (WORLD, WORLD),
        (f"{WORLD}:1.2", f"{WORLD}:1.2"),
        (f"{WORLD}@{ADDRESS}", WORLD),
        (f"{WORLD}:1.2@{ADDRESS}", f"{WORLD}:1.2"),
        (f"{WORLD}:1.2@other.example", f"{WORLD}:1.2@other.example"),
        (f"{WORLD}:1.2@OTHER.example.:443", f"{WORLD}:1.2@other.example"),
        (f"{WORLD}@{ADDRESS.upper()}", WORLD),
        (f"{WORLD}@", None),
        (f"{WORLD}@127.1", None),
        (f"{WORLD}:", None),
        (f"{WORLD}:" + "1" * 33, None),
        (f"{WORLD}:a/b", None),
        ("w_1", None),
        ("u_00000000-0000-4000-8000-000000000000", None),
        ("", None),
        ("@", None),
    ],
)
async def test_a_world_as_records_keep_it(node: FakeNode, text: str, kept: str | None) -> None:
    assert world_ref(node.as_node(), text) == kept
