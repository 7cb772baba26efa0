"""Two PostgreSQL servers, of which one replicates the other synchronously, and their faults.

The standby confirms each commit, so no failover may lose what was acknowledged. Everything but
`Pair` blocks.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import trio

from reileta.store.embedded.cluster import programs
from reileta.store.embedded.os_account import account_for, open_way_to

T = TypeVar("T")

SUPERUSER: Final = "reileta"
PORT: Final = 5432
PATIENCE_S: Final = 60.0
_PARAMETERS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    "wal_level": "replica",
    "max_wal_senders": "4",
    "wal_retrieve_retry_interval": "200ms",
    "fsync": "off",  # the machine stays up; only processes are killed
    "log_min_messages": "warning",
}


class PostgresFailed(Exception):
    """A program of PostgreSQL failed."""


class Postgres:
    """One server in a folder of its own, reached by a Unix socket; with `network`, an address and
    the addresses that it trusts, by TCP, too."""

    def __init__(self, folder: Path, *, network: tuple[str, str] | None = None) -> None:
        folder.mkdir(mode=0o711)
        self.data = folder / "postgres"
        self.socket = folder / "socket"
        self._log = folder / "postgres.log"
        self._network = network
        self._programs = programs()
        self._account = account_for(self.data)
        self._process: subprocess.Popen[bytes] | None = None
        self.socket.mkdir(mode=0o700)
        if self._account is not None:
            self._account.own(self.socket)
            open_way_to(self.data, self._account)
            open_way_to(self._programs / "postgres", self._account)

    def run(self, program: str, *arguments: str) -> str:
        """Runs a program of PostgreSQL; its output. Raises PostgresFailed."""
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            **self._as_account(),
        )
        if done.returncode != 0:
            raise PostgresFailed(f"{program}: {done.stderr.strip()}")
        return str(done.stdout).strip()

    def sql(self, statement: str) -> str:
        """The first column of the rows of a statement."""
        where = ("-h", str(self.socket), "-p", str(PORT), "-U", SUPERUSER, "-d", "postgres")
        return self.run("psql", *where, "-XAtc", statement)

    def make(self) -> None:
        """Creates an empty cluster."""
        self._own_data()
        options = ("--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--locale=C")
        who = f"--username={SUPERUSER}"
        self.run("initdb", f"--pgdata={self.data}", who, "--no-sync", *options)
        if self._network is not None:
            with (self.data / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {self._network[1]} trust\n")

    def copy(self, primary: Postgres) -> None:
        """Makes this server a standby of that one, from a copy of its data."""
        if self.data.exists():
            shutil.rmtree(self.data)
        self._own_data()
        where = ("-h", str(primary.socket), "-p", str(PORT), "-U", SUPERUSER)
        self.run("pg_basebackup", *where, "-D", str(self.data), "-R", "-c", "fast", "--no-sync")

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        command = [str(self._programs / "postgres"), "-D", str(self.data)]
        command += ["-k", str(self.socket), "-p", str(PORT)]
        for name, value in _PARAMETERS.items():
            command += ["-c", f"{name}={value}"]
        if self._network is not None:
            command += ["-c", f"listen_addresses={self._network[0]}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as_account(),
            )
        wait(self._answers, f"PostgreSQL in {self.data} does not start")

    def stop(self, sign: int = signal.SIGINT) -> None:
        """Ends it by a signal, and waits until all of its processes have ended."""
        if self._process is None:
            return
        processes = self._processes()
        self._process.send_signal(sign)
        self._process.wait(PATIENCE_S)
        self._process = None
        for process in processes:
            wait(partial(_ended, process), f"process {process} does not end")

    def hang(self, seconds: float) -> None:
        """Stops all of its processes for a while, as a disk that does not answer does."""
        processes = self._processes()
        try:
            for process in processes:
                _signal(process, signal.SIGSTOP)
            time.sleep(seconds)
        finally:
            for process in processes:
                _signal(process, signal.SIGCONT)

    def _processes(self) -> list[int]:
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise PostgresFailed(self._log.read_text()[-2000:])
        try:
            return self.sql("SELECT 1") == "1"
        except PostgresFailed:
            return False

    def _own_data(self) -> None:
        self.data.mkdir(mode=0o700)
        if self._account is not None:
            self._account.own(self.data)

    def _as_account(self) -> dict[str, Any]:
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
        common: dict[str, Any] = {"cwd": "/", "env": environment}
        if self._account is None:
            return common
        more = {"user": self._account.uid, "group": self._account.gid, "extra_groups": []}
        return {**common, **more}


class Pair:
    """A primary and its standby. `url` names both; the server finds the one that takes writes."""

    def __init__(self, folder: Path) -> None:
        self.primary = Postgres(folder / "a")
        self.standby = Postgres(folder / "b")
        hosts = quote(f"{self.primary.socket},{self.standby.socket}", safe="")
        self.url: Final = f"postgresql://{SUPERUSER}@/postgres?host={hosts}&port={PORT},{PORT}"

    async def start(self) -> None:
        """Makes and starts both."""
        await _blocking(self.primary.make)
        await _blocking(self.primary.start)
        await self._pair()

    async def stop(self) -> None:
        """Ends both at once."""
        for one in (self.standby, self.primary):
            await _blocking(partial(one.stop, signal.SIGQUIT))

    async def sql(self, statement: str) -> str:
        """Asks the primary."""
        return await _blocking(lambda: self.primary.sql(statement))

    async def fail_over(self) -> None:
        """Kills the primary, and makes the standby the primary."""
        old, new = self.primary, self.standby
        await _blocking(lambda: old.stop(signal.SIGKILL))
        await _blocking(lambda: new.run("pg_ctl", "promote", "-w", "-D", str(new.data)))
        self.primary, self.standby = new, old

    async def repair(self) -> None:
        """Makes the server that was killed a standby again."""
        await self._pair()

    async def restart(self) -> None:
        """Stops the primary in order, and starts it again."""
        await _blocking(self.primary.stop)
        await _blocking(self.primary.start)

    async def hang(self, seconds: float) -> None:
        """Lets the primary hang for a while."""
        await _blocking(lambda: self.primary.hang(seconds))

    async def end_connections(self) -> None:
        """Ends the connections of the server."""
        await self.sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE application_name LIKE 'reileta %'"
        )

    async def _pair(self) -> None:
        primary, standby = self.primary, self.standby
        await _blocking(lambda: standby.copy(primary))
        await _blocking(standby.start)
        # Else it would wait for a standby of its own when it becomes the primary.
        await _blocking(lambda: standby.sql("ALTER SYSTEM RESET synchronous_standby_names"))
        streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        await _blocking(
            lambda: wait(lambda: primary.sql(streaming) == "1", "the standby does not replicate")
        )
        await self.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await self.sql("SELECT pg_reload_conf()")


def wait(condition: Callable[[], bool], otherwise: str) -> None:
    """Waits until something is so. Raises PostgresFailed."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise PostgresFailed(otherwise)
        time.sleep(0.05)


def _ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _signal(process: int, sign: int) -> None:
    try:
        os.kill(process, sign)
    except ProcessLookupError:
        return


async def _blocking(work: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(work)
