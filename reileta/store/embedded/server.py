"""Runs the embedded PostgreSQL, for one server and its commands.

Three locks in the data folder, which the system releases when a process dies:

    server.lock     held by the server while it runs: a second server on the folder is refused
    postgres.lock   held by the process that runs PostgreSQL: the server, or a command without one
    serving.lock    held by the server while commands can use its PostgreSQL

A command (`shared`) uses the PostgreSQL of a running server. If there is none, it starts PostgreSQL
and stops it again; other commands, or a server that starts, wait for that.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog
import trio

from reileta.concurrency import plain_nursery
from reileta.observability import log_events
from reileta.startup import StartupError
from reileta.store.embedded.cluster import Cluster

RESTART_S: Final = 1.0
"""Seconds before a PostgreSQL that died is restarted, and between attempts."""
TURN_S: Final = 30.0
"""Seconds to wait for a command that uses PostgreSQL."""
WATCH_S: Final = 0.25
"""Seconds between checks where the system can't report the end of a process."""
POLL_S: Final = 0.05


class FolderLock:
    """An exclusive lock on a file, held until it is released or this process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def take(self) -> bool:
        """Takes the lock if it is free; whether it did."""
        self._handle = self._lock(fcntl.LOCK_EX)
        return self._handle is not None

    def held(self) -> bool:
        """Whether any process holds it. Processes that check don't see each other as holders."""
        handle = self._lock(fcntl.LOCK_SH)
        if handle is not None:
            os.close(handle)
        return handle is None

    def _lock(self, kind: int) -> int | None:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        return handle

    def give_back(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


@asynccontextmanager
async def open_embedded(
    data: Path, *, shared: bool = False, cluster: Cluster | None = None
) -> AsyncIterator[str]:
    """The URL of the data folder's PostgreSQL, which runs, and is restarted, during the body.

    `shared` is for commands. Raises StartupError if it can't be started, or if a server uses the
    folder already.
    """
    try:
        cluster = cluster or Cluster(data)
        if shared:
            _ensure_used(data, cluster)
        else:
            await trio.Path(data).mkdir(mode=0o711, parents=True, exist_ok=True)
        async with _used(data, cluster) if shared else _owned(data, cluster):
            yield cluster.url()
    except OSError as error:
        raise StartupError(f"can't use the data folder {data}: {error.strerror}") from error


def _ensure_used(data: Path, cluster: Cluster) -> None:
    """Raises StartupError if no server has ever used the folder; nothing is created there."""
    if not (data / "postgres.lock").exists():
        _ensure_made(data, cluster)


def _ensure_made(data: Path, cluster: Cluster) -> None:
    """Raises StartupError if the folder has no database: a command creates none."""
    if not (cluster.folder / "PG_VERSION").exists():
        raise StartupError(
            f"there is no database in {data}: check --data, or start a server with it first"
        )


@asynccontextmanager
async def _owned(data: Path, cluster: Cluster) -> AsyncIterator[None]:
    """For the server: it runs PostgreSQL, and commands can use it."""
    server, serving = FolderLock(data / "server.lock"), FolderLock(data / "serving.lock")
    postgres = FolderLock(data / "postgres.lock")
    if not server.take():
        raise StartupError(f"another server uses the data folder {data}")
    try:
        await _take(postgres, f"another command uses the data folder {data} and does not end")
        async with _running(cluster):
            # A command that checks the lock holds it for an instant.
            await _take(serving, f"another process holds {data / 'serving.lock'}")
            try:
                yield
            finally:
                serving.give_back()  # before PostgreSQL stops: no command must start using it then
    finally:
        for lock in (postgres, server):
            lock.give_back()


@asynccontextmanager
async def _used(data: Path, cluster: Cluster) -> AsyncIterator[None]:
    """For a command: the server's PostgreSQL, or its own if there is no server."""
    serving, postgres = FolderLock(data / "serving.lock"), FolderLock(data / "postgres.lock")
    deadline = time.monotonic() + TURN_S
    while time.monotonic() < deadline:
        if serving.held():
            if cluster.answers():
                yield
                return
        elif postgres.take():
            try:
                _ensure_made(data, cluster)
                async with _running(cluster):
                    yield
            finally:
                postgres.give_back()
            return
        await trio.sleep(POLL_S)
    raise StartupError(f"the database in {data} is in use and does not answer")


async def _take(lock: FolderLock, otherwise: str) -> None:
    deadline = time.monotonic() + TURN_S
    while not lock.take():
        if time.monotonic() > deadline:
            raise StartupError(otherwise)
        await trio.sleep(POLL_S)


@asynccontextmanager
async def _running(cluster: Cluster) -> AsyncIterator[None]:
    """Starts PostgreSQL for the body, watches it, and stops it afterwards."""
    log = structlog.get_logger()
    await trio.to_thread.run_sync(cluster.start)
    try:
        log.info(log_events.DATABASE_STARTED, folder=str(cluster.folder))
        async with plain_nursery() as nursery:
            nursery.start_soon(_watch, cluster)
            yield
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(cluster.stop)
        log.info(log_events.DATABASE_STOPPED)


async def _watch(cluster: Cluster) -> None:
    """Restarts PostgreSQL whenever it dies; the connection pool reconnects by itself."""
    log = structlog.get_logger()
    while True:
        status = await _ended(cluster)
        log.error(log_events.DATABASE_DIED, status=status)
        while True:
            await trio.sleep(RESTART_S)
            try:
                await trio.to_thread.run_sync(cluster.start)
            except StartupError as error:
                # Its child processes may not have noticed yet that it died.
                log.warning(log_events.DATABASE_DIED, reason=str(error))
            else:
                log.info(log_events.DATABASE_STARTED, folder=str(cluster.folder))
                break


async def _ended(cluster: Cluster) -> int:
    """Waits until the server ends; its exit status, negative for a signal."""
    while (status := cluster.status()) is None:
        if sys.platform != "linux":
            await trio.sleep(WATCH_S)
            continue
        try:
            handle = os.pidfd_open(cluster.pid)
        except OSError:  # no descriptor is left, or a sandbox forbids it
            await trio.sleep(WATCH_S)
            continue
        try:
            await trio.lowlevel.wait_readable(handle)
        finally:
            os.close(handle)
    return status
