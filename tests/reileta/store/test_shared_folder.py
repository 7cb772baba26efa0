"""Nodes of a cluster with different folders of files don't start."""

from __future__ import annotations

from pathlib import Path

import pytest

from reileta.startup import StartupError
from reileta.store import Store
from reileta.store.shared_folder import ID_FILE, ensure_shared_folder


async def test_the_first_node_makes_its_folder_the_clusters(store: Store, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    for _ in range(2):
        await ensure_shared_folder(store.database, shared)
    assert (shared / ID_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("own_id", [None, "another cluster's"])
async def test_another_folder_is_refused_with_what_to_do(
    store: Store, tmp_path: Path, own_id: str | None
) -> None:
    await ensure_shared_folder(store.database, tmp_path / "shared")
    other = tmp_path / "other"
    if own_id is not None:
        other.mkdir()
        (other / ID_FILE).write_text(own_id)
    with pytest.raises(StartupError, match="same folder") as refused:
        await ensure_shared_folder(store.database, other)
    known = (tmp_path / "shared" / ID_FILE).read_text().strip()
    assert known in str(refused.value)
    (other / ID_FILE).write_text(f"{known}\n")
    await ensure_shared_folder(store.database, other)


async def test_a_folder_that_cant_be_used_is_named(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="file"):
        await ensure_shared_folder(store.database, tmp_path / "file" / "files")
