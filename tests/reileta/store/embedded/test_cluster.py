from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reileta.startup import StartupError
from reileta.store.embedded import cluster as module
from reileta.store.embedded.cluster import Cluster, programs


@pytest.fixture
def cluster(data_folder: Path) -> Iterator[Cluster]:
    """A cluster that is not started yet, and is stopped after the test."""
    cluster = Cluster(data_folder, durable=False)
    yield cluster
    cluster.stop()


def ask(cluster: Cluster, sql: str) -> str:
    """The answer of another PostgreSQL client, psql."""
    done = subprocess.run(
        [str(programs() / "psql"), "-X", "-A", "-t", "-q", "-c", sql, cluster.url()],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": os.defpath},
    )
    return done.stdout.strip()


def test_it_is_made_once_and_keeps_what_it_was_told(cluster: Cluster) -> None:
    assert not cluster.answers()
    cluster.start()
    assert cluster.answers()
    ask(cluster, "CREATE TABLE kept AS SELECT 42 AS answer")
    first = cluster.pid
    cluster.stop()
    assert not cluster.answers()
    assert not Path(f"/proc/{first}").exists()
    cluster.start()
    assert ask(cluster, "SELECT answer FROM kept") == "42"


def test_it_is_reached_by_its_socket_alone(cluster: Cluster) -> None:
    cluster.start()
    assert ask(cluster, "SHOW listen_addresses") == ""
    assert cluster.socket_folder.stat().st_mode & 0o777 == 0o700
    assert cluster.folder.stat().st_mode & 0o777 == 0o700
    assert os.geteuid() != 0 or cluster.folder.stat().st_uid != 0


def test_it_waits_for_the_disk_and_sorts_by_itself(data_folder: Path) -> None:
    cluster = Cluster(data_folder)
    cluster.start()
    try:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert ask(cluster, f"SHOW {setting}") == "on"
        assert ask(cluster, "SELECT datlocprovider FROM pg_database LIMIT 1") == "b"
        assert ask(cluster, "SELECT lower('ÉMILE')") == "émile"
        assert ask(cluster, "SHOW server_encoding") == "UTF8"
    finally:
        cluster.stop()


def test_its_log_holds_no_values(cluster: Cluster, data_folder: Path) -> None:
    cluster.start()
    ask(cluster, "CREATE TABLE t (x text PRIMARY KEY); INSERT INTO t VALUES ('hunter2')")
    with pytest.raises(subprocess.CalledProcessError):
        ask(cluster, "INSERT INTO t VALUES ('hunter2')")
    log = (data_folder / "postgres.log").read_text()
    assert "duplicate key" in log
    assert "hunter2" not in log


def test_its_log_is_begun_anew_when_it_has_grown(
    cluster: Cluster, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.start()
    cluster.stop()
    monkeypatch.setattr(module, "LOG_LIMIT_BYTES", 10)
    before = (data_folder / "postgres.log").read_text()
    cluster.start()
    assert (data_folder / "postgres.log.1").read_text() == before
    assert before not in (data_folder / "postgres.log").read_text()


def test_a_long_path_has_its_socket_elsewhere(data_folder: Path) -> None:
    folder = data_folder / ("long" * 20) / "ü" / "data"
    cluster = Cluster(folder, durable=False)
    try:
        cluster.start()
        assert ask(cluster, "SELECT 1") == "1"
        assert folder not in cluster.socket_folder.parents
        assert cluster.socket_folder == Cluster(folder).socket_folder
        assert cluster.socket_folder.stat().st_mode & 0o777 == 0o700
    finally:
        cluster.stop()
        cluster.socket_folder.rmdir()


def test_a_socket_folder_that_is_anothers_is_refused(cluster: Cluster, data_folder: Path) -> None:
    (data_folder / "elsewhere").mkdir()
    cluster.socket_folder.symlink_to(data_folder / "elsewhere")
    with pytest.raises(StartupError, match="belongs to another account"):
        cluster.start()


def test_a_server_that_was_killed_is_started_again(
    data_folder: Path, request: pytest.FixtureRequest
) -> None:
    cluster = Cluster(data_folder)
    request.addfinalizer(cluster.stop)
    cluster.start()
    ask(cluster, "CREATE TABLE kept AS SELECT 42 AS answer")
    os.kill(cluster.pid, signal.SIGKILL)
    while cluster.status() is None:
        pass
    assert cluster.status() == -signal.SIGKILL
    while True:
        try:
            cluster.start()
        except StartupError as error:
            if "shared memory block" in str(error):
                continue  # its other processes end a moment later
            raise
        break
    assert ask(cluster, "SELECT answer FROM kept") == "42"


def test_a_server_that_was_left_behind_is_taken_over(cluster: Cluster, data_folder: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from reileta.store.embedded.cluster import Cluster\n"
        "cluster = Cluster(Path(sys.argv[1]), durable=False); cluster.start()\n"
        "print(cluster.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, str(data_folder)],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[4],
    )
    assert killed.returncode == -signal.SIGKILL
    left_behind = int(killed.stdout)
    assert cluster.answers()
    ask(cluster, "CREATE TABLE kept AS SELECT 42 AS answer")
    cluster.start()
    assert cluster.pid != left_behind
    assert ask(cluster, "SELECT answer FROM kept") == "42"


def test_a_number_that_is_another_process_now_does_no_harm(cluster: Cluster) -> None:
    cluster.start()
    cluster.stop()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        lines = [str(bystander.pid), str(cluster.folder), "0", "5432", "", "", "", "ready"]
        pid_file = cluster.folder / "postmaster.pid"
        pid_file.write_text("\n".join(lines))
        cluster.start()
        assert ask(cluster, "SELECT 1") == "1"
        assert bystander.poll() is None
        bystander.communicate(b"\n")
        assert bystander.returncode == 0


@pytest.mark.parametrize("content", ["", "rubbish\n", "-1\n", "0\n"])
def test_a_broken_pid_file_does_no_harm(cluster: Cluster, content: str) -> None:
    cluster.start()
    cluster.stop()
    (cluster.folder / "postmaster.pid").write_text(content)
    cluster.start()
    assert ask(cluster, "SELECT 1") == "1"


def test_a_first_start_that_was_cut_off_is_begun_anew(cluster: Cluster, data_folder: Path) -> None:
    (data_folder / "postgres.new" / "base").mkdir(parents=True)
    cluster.start()
    assert ask(cluster, "SELECT 1") == "1"
    assert not (data_folder / "postgres.new").exists()


def test_a_cluster_of_another_version_is_refused_unharmed(cluster: Cluster) -> None:
    cluster.start()
    cluster.stop()
    (cluster.folder / "PG_VERSION").write_text("12\n")
    with pytest.raises(StartupError, match="was written by PostgreSQL 12, this is") as caught:
        cluster.start()
    assert "\n" not in str(caught.value)


def test_a_folder_with_something_else_in_it_is_refused_unharmed(
    cluster: Cluster, data_folder: Path
) -> None:
    (data_folder / "postgres").mkdir()
    (data_folder / "postgres" / "thesis.txt").write_text("mine")
    with pytest.raises(StartupError, match="not a PostgreSQL cluster"):
        cluster.start()
    assert (data_folder / "postgres" / "thesis.txt").read_text() == "mine"


def test_a_start_that_fails_says_what_postgresql_said(data_folder: Path) -> None:
    cluster = Cluster(data_folder, parameters={"max_connections": "none"}, durable=False)
    with pytest.raises(StartupError, match="max_connections") as caught:
        cluster.start()
    assert "\n" not in str(caught.value)
    assert not cluster.answers()


def test_a_data_folder_that_is_a_file_is_one_line(data_folder: Path) -> None:
    (data_folder / "file").write_text("")
    with pytest.raises(StartupError, match="can't start PostgreSQL in"):
        Cluster(data_folder / "file").start()


def test_a_server_that_does_not_stop_in_order_is_stopped_at_once(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.start()
    pid = cluster.pid
    monkeypatch.setattr(module, "STOP_S", 0.1)
    os.kill(pid, signal.SIGSTOP)  # it can do nothing, so that only SIGKILL is left
    cluster.stop()
    assert not Path(f"/proc/{pid}").exists()


def test_stopping_what_does_not_run_is_nothing(cluster: Cluster) -> None:
    cluster.stop()
    cluster.start()
    cluster.stop()
    cluster.stop()


def test_without_the_wheel_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StartupError, match="install it, or use --database"):
        programs()


def test_a_user_id_without_a_name_gets_advice_in_one_line(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(StartupError, match="/etc/passwd") as caught:
        cluster.start()
    assert "--database" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not cluster.folder.exists()
