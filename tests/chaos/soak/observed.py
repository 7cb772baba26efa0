"""`reileta serve` that also tells, on a Unix socket, what it holds in memory.

    REILETA_OBSERVE=/path/socket python -m tests.chaos.soak.observed serve …

The server is the usual one, but for `SHORTENED`. One more task answers: a line with `counts`,
`tables`, `classes`, `memory` or `waits` gets one JSON object. `tables` and `classes` look at every
object, which takes a moment: ask in quiet moments.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import trio

from actors import node
from actors.session import actor as session_actor
from actors.session import recent_changes, revocations
from reileta import cli, main

OBSERVE: Final = "REILETA_OBSERVE"
SHORTENED: Final[tuple[tuple[ModuleType, str, float], ...]] = (
    (revocations, "REMEMBERED_MS", 2_000),
    (recent_changes, "REMEMBERED_MS", 2_000),
    (node, "FORGET_S", 1.0),
    (session_actor, "IDLE_S", 3.0),
    (main, "MEMORY_S", 2.0),
)
"""How long the server remembers what is over, or keeps free memory, where no setting says so: up to
a minute, which would only cost time here."""
_OURS: Final = ("reileta.", "actors.", "api.")
_TABLES: Final = (dict, set, frozenset, list, tuple, bytearray)


def _counts(server: main.Server) -> dict[str, int]:
    """The tasks of the process, and the tables that the server itself names."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    http = server.http_server
    return {
        "tasks": tasks,
        "http connections": http.http_connections,
        "places": len(http.admission),
        "sockets of both APIs": server.node.metrics.connections,
        "backlog bytes": server.node.metrics.backlog_bytes,
        **server.node.debug_counts(),
    }


def _fields(thing: object) -> list[tuple[str, Any]]:
    fields = dict(getattr(thing, "__dict__", {}))
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(thing, name):
                fields[name] = getattr(thing, name)
    return list(fields.items())


def _is_ours(thing: object) -> bool:
    module = type(thing).__module__
    return isinstance(module, str) and module.startswith(_OURS)


def _tables(_: main.Server) -> dict[str, int]:
    """The sizes of all containers that objects of our classes hold, by class and field."""
    gc.collect()
    sizes: Counter[str] = Counter()
    for thing in gc.get_objects():
        if _is_ours(thing):
            name = type(thing).__qualname__
            for field, value in _fields(thing):
                if isinstance(value, _TABLES) or hasattr(type(value), "maxlen"):
                    sizes[f"{name}.{field}"] += len(value)
    return dict(sizes)


def _classes(_: main.Server) -> dict[str, int]:
    """How many objects of each class there are."""
    gc.collect()
    kinds = Counter(type(thing) for thing in gc.get_objects())
    counted: Counter[str] = Counter()
    for kind, count in kinds.items():
        counted[f"{kind.__module__}.{kind.__qualname__}"] += count
    return dict(counted)


class _Mallinfo(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def _memory(_: main.Server) -> dict[str, int]:
    """What the allocators hold, in bytes: of glibc's heaps what is used and what is free, and its
    large blocks; and the number of blocks of Python's own allocator. Empty without glibc."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return {}
    mallinfo.restype = _Mallinfo
    info = mallinfo()
    return {
        "heap used": info.uordblks,
        "heap free": info.fordblks,
        "large blocks": info.hblkhd,
        "python blocks": sys.getallocatedblocks(),
    }


def _waits(_: main.Server) -> dict[str, int]:
    """What the tasks wait for: the innermost three lines of each of our own code's."""
    root = trio.lowlevel.current_root_task()
    found: Counter[str] = Counter()
    rest = [] if root is None else [root]
    while rest:
        task = rest.pop()
        rest += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        lines = [
            f"{frame.f_code.co_filename.rpartition('/')[2]}:{line} {frame.f_code.co_name}"
            for frame, line in task.iter_await_frames()
            if "site-packages" not in frame.f_code.co_filename
        ]
        found[" > ".join([task.name, *lines[-3:]])] += 1
    return dict(found)


_ANSWERS: Final[dict[str, Callable[[main.Server], dict[str, int]]]] = {
    "counts": _counts,
    "tables": _tables,
    "classes": _classes,
    "memory": _memory,
    "waits": _waits,
}


async def answer_one(server: main.Server, stream: trio.abc.Stream) -> None:
    """Answers on one connection. Whoever asked may have gone meanwhile, for this process can be
    paused: that must not end it."""
    async with stream:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            asked = (await stream.receive_some(64)).decode().strip()
            if asked in _ANSWERS:
                await stream.send_all(json.dumps(_ANSWERS[asked](server)).encode())


_plain: Final[Callable[..., Awaitable[None]]] = main.serve


async def _observed(*args: Any, task_status: trio.TaskStatus[main.Server], **options: Any) -> None:
    """`main.serve`, and the task that answers."""

    async def serve(*, task_status: trio.TaskStatus[main.Server]) -> None:
        await _plain(*args, task_status=task_status, **options)

    async with trio.open_nursery() as observing:
        async with trio.open_nursery() as serving:
            server = await serving.start(serve)

            answer = partial(answer_one, server)
            listener = trio.socket.socket(trio.socket.AF_UNIX)
            await listener.bind(os.environ[OBSERVE])
            listener.listen()
            observing.start_soon(trio.serve_listeners, answer, [trio.SocketListener(listener)])
            task_status.started(server)
        observing.cancel_scope.cancel()


LISTENS_S: Final = 30.0
"""How long a server that starts may take until it can be observed."""


async def _connected(path: Path) -> trio.SocketStream:
    """A connection to an observed server, which may be about to listen."""
    with trio.move_on_after(LISTENS_S):
        while True:
            with suppress(ConnectionRefusedError, FileNotFoundError):
                return await trio.open_unix_socket(path)
            await trio.sleep(0.1)
    raise TimeoutError(f"nothing listens at {path}")


async def ask(path: Path, what: str) -> dict[str, int]:
    """Asks an observed server."""
    async with await _connected(path) as stream:
        await stream.send_all(what.encode() + b"\n")
        text = b""
        async for chunk in stream:
            text += chunk
    answer: dict[str, int] = json.loads(text)
    return answer


def be_observed(path: str) -> None:
    """Lets a server of this process answer at that path; it forgets no sooner than usual."""
    os.environ[OBSERVE] = path
    setattr(main, "serve", _observed)  # noqa: B010


if __name__ == "__main__":
    be_observed(os.environ[OBSERVE])
    for module, name, value in SHORTENED:
        setattr(module, name, value)
    sys.exit(cli.main())
