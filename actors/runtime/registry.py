"""Registries: one actor for each key, started on first use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Generic, TypeVar

import structlog
import trio

from actors.runtime.actor import Spec
from actors.runtime.errors import ActorStopped
from actors.runtime.failures import capture_failure
from actors.runtime.mailbox import Ref
from actors.runtime.message import Message
from actors.runtime.supervisor import Supervisor
from actors.runtime.trace import NO_TRACE, current

K = TypeVar("K", bound=Hashable)
M = TypeVar("M", bound=Message)


class _Start(Generic[M]):
    """A start under way, for all who wait for it."""

    __slots__ = ("done", "failure", "ref")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.ref: Ref[M] | None = None
        self.failure: Exception | None = None


class Registry(Generic[K, M]):
    """Actors of one kind by key. Each is started once, however many ask for it at a time."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._refs: dict[K, Ref[M]] = {}
        self._starts: dict[K, _Start[M]] = {}
        self._vacant: dict[K, trio.Event] = {}
        """Keys that are kept vacant, each with the end of that."""

    def __len__(self) -> int:
        return len(self._refs)

    def running(self) -> dict[K, Ref[M]]:
        """The actors that take messages now, by key."""
        return {key: ref for key, ref in self._refs.items() if not ref.stopped}

    def find(self, key: K) -> Ref[M] | None:
        """The actor, if it runs and takes messages."""
        ref = self._refs.get(key)
        return None if ref is None or ref.stopped else ref

    async def get(self, key: K, spec: Callable[[], Spec[M]]) -> Ref[M]:
        """The actor for the key; starts it from `spec()` if it does not run.

        If one is stopping, this waits until it has, and starts a fresh one. A start goes on if one
        of its callers is cancelled.

        Raises:
            Exception: the exception of its `on_start`; the next caller tries again.
            ActorStopped: the supervisor is stopping.
        """
        while True:
            ref = self._refs.get(key)
            if ref is not None:
                if not ref.stopped:
                    return ref
                await ref.wait_stopped()
            elif key in self._vacant:
                await self._vacant[key].wait()
            else:
                break
        start = self._starts.get(key)
        if start is None:
            if self._supervisor.stopping:
                raise ActorStopped
            start = self._starts[key] = _Start()
            self._supervisor.nursery.start_soon(self._start, key, spec, start)
        await start.done.wait()
        if start.ref is None:
            raise start.failure or ActorStopped()
        return start.ref

    def abandon(self, key: K) -> None:
        """Ends the actor at once, if it runs or starts; `gone` is called if it had started."""
        ref = self._refs.get(key)
        if ref is not None:
            self._supervisor.abandon(ref.name)

    @asynccontextmanager
    async def vacant(self, key: K) -> AsyncIterator[bool]:
        """Yields whether no actor runs, starts or stops for the key; then none starts in the block.

        A start that is requested meanwhile waits for the end of the block.
        """
        if key in self._refs or key in self._starts or key in self._vacant:
            yield False
            return
        self._vacant[key] = trio.Event()
        try:
            yield True
        finally:
            self._vacant.pop(key).set()

    async def _start(self, key: K, spec: Callable[[], Spec[M]], start: _Start[M]) -> None:
        async def work() -> None:
            wanted = spec()
            ended = False

            def gone(error: Exception | None) -> None:
                nonlocal ended
                ended = True
                self._refs.pop(key, None)
                if wanted.gone is not None:
                    wanted.gone(error)

            ref = await self._supervisor.start(replace(wanted, gone=gone))
            # It may have ended between its start and now.
            if not ended:
                self._refs[key] = ref
            start.ref = ref

        try:
            start.failure = await capture_failure(work)
        finally:
            # Trio refers to this task while the actor runs; its context must not keep the message
            # that caused the start, with the client's socket in it.
            current.set(NO_TRACE)
            structlog.contextvars.clear_contextvars()
            del self._starts[key]
            start.done.set()
