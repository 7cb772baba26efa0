"""Runs the command `reileta` in forks of a process that has imported everything already.

To import the server takes over a second of a core, and hundreds of tests start it. A fork does the
rest of a start as servers of a test's own process do (`quick_start.py`), with the command line that
was made before. It has a process, descriptors, an environment and an end of its own; only the
objects that are left then are not freed one by one, which would copy the memory that it shares.
`tests/e2e/test_process.py` starts servers as operators do.

    process = await start("serve", "--port", "0")

The forking process (`python -m tests.forked SOCKET`) has one thread, and is started when it is
first needed. It ends with this one. It is told of each start by a connection of its own, which then
tells the fork's process id, and its exit status in the end.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest
import trio
import typer.main

REQUEST_BYTES: Final = 128 * 1024
_NUMBER_BYTES: Final = 8
_STARTS: Final = 3
"""Standard input, output and error."""


class ForkedProcess:
    """A fork that runs the command; as `trio.Process`, as far as tests need it."""

    def __init__(
        self,
        pid: int,
        told: socket.socket,
        stdout: trio.lowlevel.FdStream,
        stderr: trio.lowlevel.FdStream,
    ) -> None:
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: int | None = None
        self._told = told

    def poll(self) -> int | None:
        """The exit status, if it has ended; minus the signal's number if that ended it."""
        if self.returncode is None:
            try:
                status = self._told.recv(_NUMBER_BYTES)
            except BlockingIOError:
                return None
            assert status, "the forking process has ended"
            self.returncode = int.from_bytes(status, signed=True)
            self._told.close()
        return self.returncode

    async def wait(self) -> int:
        """Waits for its end; the exit status."""
        while self.poll() is None:
            await trio.lowlevel.wait_readable(self._told)
        await trio.lowlevel.checkpoint()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: signal.Signals | int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: bytes
    stderr: bytes


async def start(
    *arguments: str, env: Mapping[str, str] | None = None, world: Mapping[str, Any] | None = None
) -> ForkedProcess:
    """Runs `reileta` with these arguments, and pipes for what it says.

    `world`: what is unlike here. `network`: the file of a network namespace. `clock_s`: how fast
    the wall clock is. `observe`: a path at which `tests.chaos.soak.observed` answers.
    """
    away, (out, said), (err, complained) = os.open(os.devnull, os.O_RDONLY), os.pipe(), os.pipe()
    told = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        told.connect(_forking())
        request = {
            "arguments": arguments,
            "env": dict(env or os.environ),
            "cwd": os.getcwd(),
            "world": dict(world or {}),
        }
        data = json.dumps(request).encode("utf-8", "surrogateescape")
        assert len(data) < REQUEST_BYTES
        socket.send_fds(told, [data], [away, said, complained])
        told.setblocking(False)
        await trio.lowlevel.wait_readable(told)
        pid = int.from_bytes(told.recv(_NUMBER_BYTES))
    except BaseException:
        told.close()
        os.close(out)
        os.close(err)
        raise
    finally:
        for descriptor in (away, said, complained):
            os.close(descriptor)
    streams = [trio.lowlevel.FdStream(descriptor) for descriptor in (out, err)]
    return ForkedProcess(pid, told, *streams)


async def run(*arguments: str, env: Mapping[str, str] | None = None) -> Done:
    """Runs `reileta` with these arguments, to its end."""
    process = await start(*arguments, env=env)
    said: dict[str, bytes] = {"stdout": b"", "stderr": b""}

    async def read(name: str, stream: trio.lowlevel.FdStream) -> None:
        async with stream:
            async for chunk in stream:
                said[name] += chunk

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, "stdout", process.stdout)
            nursery.start_soon(read, "stderr", process.stderr)
        return Done(await process.wait(), **said)
    except BaseException:
        process.kill()
        raise


@cache
def _forking() -> str:
    """Where the forking process listens."""
    folder = tempfile.mkdtemp(prefix="reileta-forking-")
    path = f"{folder}/socket"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.forked", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.read()  # it closes it when it listens

    def end() -> None:
        process.communicate()
        os.unlink(path)
        os.rmdir(folder)

    atexit.register(end)
    return path


# In the forking process


def main(path: str) -> int:
    """Forks for whoever connects, until standard input ends."""
    from reileta import cli, main  # noqa: F401 - what all forks need
    from tests.quick_start import start_quickly

    patch = pytest.MonkeyPatch()
    start_quickly(patch)
    command = typer.main.get_command(cli.app)
    _complete(command)
    patch.setattr(typer.main, "get_command", {cli.app: command}.__getitem__)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(path)
    listening.listen(16)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())  # whoever waits reads the end
    gc.collect()
    gc.freeze()
    poll = select.poll()
    poll.register(0, select.POLLHUP)
    poll.register(listening, select.POLLIN)
    running: dict[int, tuple[int, socket.socket]] = {}
    """By the descriptor of the process: its number, and whom to tell of its end."""
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == 0:
                return 0
            if descriptor in running:
                pid, told = running.pop(descriptor)
                poll.unregister(descriptor)
                _, status = os.waitpid(pid, 0)
                os.close(descriptor)
                _tell(told, os.waitstatus_to_exitcode(status))
                told.close()
                continue
            told, _ = listening.accept()
            data, descriptors, _, _ = socket.recv_fds(told, REQUEST_BYTES, _STARTS)
            if len(descriptors) != _STARTS:
                told.close()
                continue
            pid = os.fork()
            if pid == 0:
                for one in (listening, told, *(other for _, other in running.values())):
                    one.close()
                for other in running:
                    os.close(other)
                _command(json.loads(data), descriptors)
            for one_of_its in descriptors:
                os.close(one_of_its)
            watched = os.pidfd_open(pid)
            running[watched] = (pid, told)
            poll.register(watched, select.POLLIN)
            _tell(told, pid)


def _complete(command: Any) -> None:
    """Makes what a command line makes of its options when it first reads them."""
    for parameter in command.params:
        parameter.get_runtime_param()
    for part in getattr(command, "commands", {}).values():
        _complete(part)


def _tell(told: socket.socket, number: int) -> None:
    try:
        told.send(number.to_bytes(_NUMBER_BYTES, signed=True))
    except OSError:
        return  # nobody waits any more


def _command(request: Any, descriptors: list[int]) -> NoReturn:
    """Becomes the command, in a fork, and ends with it."""
    from reileta.cli import main as command

    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    _enter_world(**request["world"])
    sys.argv = ["reileta", *request["arguments"]]
    status = command()
    atexit._run_exitfuncs()  # noqa: SLF001 - nothing public calls them
    with suppress(OSError):  # whoever reads has gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _enter_world(
    network: str | None = None, clock_s: float = 0.0, observe: str | None = None
) -> None:
    """Makes the world of this process as `start` says."""
    if network is not None:
        from tests.cluster.spaces import move_to

        move_to(Path(network))
    if clock_s:
        set_clock(clock_s)
    if observe is not None:
        from tests.chaos.soak.observed import be_observed

        be_observed(observe)


def set_clock(fast_s: float) -> None:
    """Makes the wall clock of this process fast (or slow, below 0); durations stay as they are."""
    plain, plain_ns = time.time, time.time_ns
    fast_ns = int(fast_s * 1_000_000_000)

    def fast() -> float:
        return plain() + fast_s

    def fast_by_ns() -> int:
        return plain_ns() + fast_ns

    setattr(time, "time", fast)  # noqa: B010
    setattr(time, "time_ns", fast_by_ns)  # noqa: B010


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
