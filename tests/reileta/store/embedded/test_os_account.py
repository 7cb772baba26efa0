from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

import pytest
import structlog

from reileta.observability import log_events
from reileta.startup import StartupError
from reileta.store.embedded import os_account
from reileta.store.embedded.os_account import Account, account_for, open_tree, open_way_to

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="of interest to root alone")

STRANGER = Account(12345, 54321)
"""An account that owns nothing."""


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
    with pytest.raises(StartupError, match="start Reileta as another user, or set --database"):
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
    opened = open_way_to(target, STRANGER)
    assert tmp_path / "closed" in opened
    assert tmp_path / "closed" / "open" not in opened
    assert mode(tmp_path / "closed") == 0o701
    assert mode(tmp_path / "closed" / "open") == 0o755
    assert mode(target) == 0o700
    assert open_way_to(target, STRANGER) == []


def test_a_folder_that_the_account_can_pass_already_stays_as_it_is(tmp_path: Path) -> None:
    owner, group = tmp_path.stat().st_uid, tmp_path.stat().st_gid
    folder = tmp_path / "folder"
    folder.mkdir()
    for bits, account in (
        (0o700, Account(owner, 54321)),
        (0o710, Account(12345, group)),
        (0o701, STRANGER),
    ):
        folder.chmod(bits)
        assert folder not in open_way_to(folder / "target", account)
        assert mode(folder) == bits


def test_a_mode_counts_for_owner_group_and_others_apart(tmp_path: Path) -> None:
    owner, group = tmp_path.stat().st_uid, tmp_path.stat().st_gid
    folder = tmp_path / "folder"
    folder.mkdir()
    for bits, account, opened in (
        (0o677, Account(owner, group), 0o777),
        (0o701, Account(12345, group), 0o711),
        (0o770, STRANGER, 0o771),
    ):
        folder.chmod(bits)
        assert folder in open_way_to(folder / "target", account)
        assert mode(folder) == opened


def test_a_created_account_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = pwd.getpwnam("daemon")
    made: list[str] = []

    def getpwnam(name: str) -> pwd.struct_passwd:
        if name not in made:
            raise KeyError(name)
        return daemon

    def useradd(command: list[str], **_: object) -> None:
        made.append(command[-1])

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    monkeypatch.setattr("shutil.which", lambda name, path: name)
    monkeypatch.setattr("subprocess.run", useradd)
    with structlog.testing.capture_logs() as logs:
        assert account_for(tmp_path / "new") == Account(daemon.pw_uid, daemon.pw_gid)
    assert [(entry["event"], entry["account"]) for entry in logs] == [
        (log_events.DATABASE_ACCOUNT_CREATED, os_account.ACCOUNTS[-1])
    ]


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
