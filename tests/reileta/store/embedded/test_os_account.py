from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

import pytest

from reileta.startup import StartupError
from reileta.store.embedded import os_account
from reileta.store.embedded.os_account import Account, account_for, open_tree, open_way_to

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="of interest to root alone")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_who_is_not_root_runs_it_as_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert account_for(tmp_path) is None


def test_root_runs_it_as_an_account_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os_account, "ACCOUNTS", ("no-such-account", "daemon"))
    daemon = pwd.getpwnam("daemon")
    assert account_for(tmp_path / "new") == Account(daemon.pw_uid, daemon.pw_gid)


@as_root
def test_the_owner_of_a_cluster_runs_it_again(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 54321)
    assert account_for(tmp_path) == Account(12345, 54321)


def test_root_without_any_account_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os_account, "ACCOUNTS", ("no-such-account",))
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(StartupError, match="start Reileta as another user, or use --database"):
        account_for(tmp_path / "new")


@as_root
def test_an_account_owns_what_it_is_given(tmp_path: Path) -> None:
    Account(12345, 54321).own(tmp_path)
    assert (tmp_path.stat().st_uid, tmp_path.stat().st_gid) == (12345, 54321)


def test_the_way_is_opened_for_passing_through_alone(tmp_path: Path) -> None:
    target = tmp_path / "closed" / "open" / "target"
    target.mkdir(parents=True)
    target.chmod(0o700)
    (tmp_path / "closed").chmod(0o700)
    (tmp_path / "closed" / "open").chmod(0o755)
    opened = open_way_to(target)
    assert tmp_path / "closed" in opened
    assert tmp_path / "closed" / "open" not in opened
    assert mode(tmp_path / "closed") == 0o701
    assert mode(tmp_path / "closed" / "open") == 0o755
    assert mode(target) == 0o700
    assert open_way_to(target) == []


def test_a_tree_is_opened_for_reading(tmp_path: Path) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    (folder / "table").write_text("")
    (folder / "program").write_text("")
    (folder / "table").chmod(0o600)
    (folder / "program").chmod(0o700)
    (folder / "dangling").symlink_to(tmp_path / "nothing")
    folder.chmod(0o700)
    open_tree(folder)
    assert mode(folder) == 0o705
    assert mode(folder / "table") == 0o604
    assert mode(folder / "program") == 0o705
