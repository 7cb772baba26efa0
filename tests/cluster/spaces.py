"""Network namespaces for the ground of the cluster's tests: one machine each, and cables to cut.

    tests ── bridge ──┬── node a, node b, node c      10.231.0.11, .12, .13
       10.231.0.254   ├── NATS                        10.231.0.1 (.2, .3)
                      └── PostgreSQL                  10.231.0.9

`enter` starts this process anew in namespaces of its own: of network, mounts and processes.
In these, everything here is made. So several runs never meet, and nothing of a run is left when it
ends, however it ends: its last process takes all of it along.

A cut makes the kernel send to an address that nobody has. It is silent, one way if wanted, and
loses what is sent meanwhile, as a cable does; TCP sends it again after the cut heals.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, Self

_INSIDE: Final = "REILETA_TEST_SPACES"
_UNSHARE: Final = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_PLACE: Final = Path("/run/netns")
_NETWORK: Final = 0x40000000  # CLONE_NEWNET
_NOBODY: Final = "02:00:00:00:00:99"
NET: Final = "10.231.0"
TESTS: Final = f"{NET}.254"
_WIRE: Final = "wire"


def unavailable() -> str | None:
    """Why this process can't have namespaces of its own; None: it can."""
    if os.geteuid() != 0:
        return "only root may make them"
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            return f"there is no program `{program}`"
    probe = subprocess.run(
        ["unshare", *_UNSHARE, "ip", "link", "add", "probe", "type", "bridge"],
        check=False,
        capture_output=True,
        text=True,
    )
    return None if probe.returncode == 0 else probe.stderr.strip() or "they can't be made"


def enter(module: str, arguments: Sequence[str]) -> None:
    """Becomes `python -m module …` in namespaces of its own; returns if this is in them already."""
    if inside():
        # The first process of its namespace gets no signal that it has no handler for.
        signal.signal(signal.SIGTERM, _end)
        return
    command = ["unshare", *_UNSHARE, sys.executable, "-m", module, *arguments]
    os.execvpe("unshare", command, {**os.environ, _INSIDE: "1"})


def inside() -> bool:
    return _INSIDE in os.environ


def _end(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(*words: str) -> None:
    """Runs a program. Raises CalledProcessError."""
    subprocess.run(words, check=True, capture_output=True, text=True)


class Spaces:
    """The machines on one bridge. Each has a name and a last number of its address."""

    @classmethod
    def make(cls) -> Self:
        """The bridge, with no machine but this one. The process must be in namespaces of its own,
        and may do this once."""
        assert inside()
        _PLACE.mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "tmpfs", str(_PLACE))
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "hub", "type", "bridge")
        run("ip", "address", "add", f"{TESTS}/24", "dev", "hub")
        run("ip", "link", "set", "hub", "up")
        return cls()

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def add(self, name: str, number: int) -> str:
        """Another machine, or the one of that name as it is; its address."""
        if name not in self._numbers:
            self._numbers[name] = number
            run("ip", "netns", "add", name)
            ends = ("type", "veth", "peer", "name", _WIRE, "netns", name)
            run("ip", "link", "add", f"to-{name}", *ends)
            run("ip", "link", "set", f"to-{name}", "master", "hub", "up")
            run("ip", "-n", name, "address", "add", f"{self.address(name)}/24", "dev", _WIRE)
            run("ip", "-n", name, "link", "set", _WIRE, "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
        return self.address(name)

    def address(self, name: str) -> str:
        return f"{NET}.{self._numbers[name]}"

    def cut(self, one: str, other: str) -> None:
        """What `one` sends to `other` arrives nowhere."""
        where = (self.address(other), "dev", _WIRE)
        run("ip", "-n", one, "neigh", "replace", *where, "lladdr", _NOBODY, "nud", "permanent")

    def heal(self, one: str, other: str) -> None:
        run("ip", "-n", one, "neigh", "flush", "to", self.address(other), "nud", "permanent")


class OneWay:
    """One direction of a cable."""

    def __init__(self, spaces: Spaces, one: str, other: str) -> None:
        self._spaces, self._one, self._other = spaces, one, other

    def cut(self) -> None:
        self._spaces.cut(self._one, self._other)

    def heal(self) -> None:
        self._spaces.heal(self._one, self._other)


class Cable:
    """Between two machines; cut as a `Gate` is."""

    def __init__(self, spaces: Spaces, client: str, server: str) -> None:
        self.forth = OneWay(spaces, client, server)
        self.back = OneWay(spaces, server, client)

    def cut(self) -> None:
        """Both ways."""
        self.forth.cut()
        self.back.cut()

    def heal(self) -> None:
        self.forth.heal()
        self.back.heal()


@contextmanager
def within(name: str | None) -> Iterator[None]:
    """This thread, and each process that it starts, is on that machine for the block."""
    if name is None:
        yield
        return
    with open("/proc/thread-self/ns/net") as here:
        move_to(_PLACE / name)
        try:
            yield
        finally:
            _set(here.fileno())


def move_to(network: Path) -> None:
    """Moves this thread to the network namespace of that file. Raises OSError."""
    with open(network) as there:
        _set(there.fileno())


def _set(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _NETWORK) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def network_of(name: str) -> Path:
    """The file of a machine's network namespace."""
    return _PLACE / name


def selftest() -> int:
    """Whether cuts do what they say, both ways and each single way; run by `test_spaces.py`."""
    import socket

    spaces = Spaces.make()
    spaces.add("a", 11), spaces.add("s", 1)
    with within("a"):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind((spaces.address("a"), 9))
    with within("s"):
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other.bind((spaces.address("s"), 9))
    numbers = iter(range(100))

    def passes(source: socket.socket, target: socket.socket) -> bool:
        number = b"%d" % next(numbers)
        target.settimeout(0.1)
        source.sendto(number, target.getsockname())
        try:
            return target.recv(100) == number
        except TimeoutError:
            return False

    def state() -> tuple[bool, bool]:
        return passes(one, other), passes(other, one)

    cable = Cable(spaces, "a", "s")
    seen = [state()]
    for what in (cable.forth, cable.back, cable):
        what.cut()
        seen.append(state())
        what.heal()
        seen.append(state())
    print(seen)
    whole = (True, True)
    expected = [whole, (False, True), whole, (True, False), whole, (False, False), whole]
    return int(seen != expected)


if __name__ == "__main__":
    why = unavailable()
    if why is not None:
        sys.exit(f"no network namespaces: {why}")
    enter("tests.cluster.spaces", [])
    sys.exit(selftest())
