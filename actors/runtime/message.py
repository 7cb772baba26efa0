"""Messages, requests with their one-shot reply, and results of work.

A message is a frozen dataclass, named in the imperative (`Join`), in a closed union per actor. A
`Request[R]` carries the slot for its answer; `Ref.ask` waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import outcome
import trio

R = TypeVar("R")


class Message:
    """A message to an actor. Subclasses are frozen dataclasses with slots."""

    __slots__ = ()


class Reply(Generic[R]):
    """The slot for one answer. The first answer counts; a later one is dropped.

    At most one task waits, once. If it is cancelled, the answer is dropped.
    """

    __slots__ = ("_outcome", "_task", "deferred", "passed_on")

    def __init__(self) -> None:
        self._outcome: outcome.Outcome[R] | None = None
        self._task: trio.lowlevel.Task | None = None
        self.deferred = self.passed_on = False

    @property
    def answered(self) -> bool:
        return self._outcome is not None

    def put(self, answer: outcome.Outcome[R]) -> bool:
        """Stores the answer; returns False if there is one already."""
        if self._outcome is not None:
            return False
        self._outcome = answer
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None
        return True

    def again(self) -> R:
        """The answer, which must be there; it may have been taken before. Raises it if it is an
        error."""
        match self._outcome:
            case outcome.Value(answer):
                value: R = answer
                return value
            case outcome.Error(error):
                raise error
            case _:
                raise RuntimeError("there is no answer yet")

    async def wait(self) -> R:
        """Waits for the answer; returns it, or raises it if it is an error.

        This is a checkpoint, even if the answer is there.
        """
        if self._outcome is not None:
            await trio.lowlevel.checkpoint()
        else:
            self._task = trio.lowlevel.current_task()

            def abandon(_: object) -> trio.lowlevel.Abort:
                self._task = None
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abandon)
        assert self._outcome is not None
        return self._outcome.unwrap()


@dataclass(frozen=True, slots=True)
class Request(Message, Generic[R]):
    """A message with an answer of type `R`.

    The handler answers it with `reply` or `fail` by the end of the drain that it came in, or calls
    `defer` and answers it later.
    """

    slot: Reply[R] = field(default_factory=Reply, init=False, repr=False, compare=False)

    def reply(self, answer: R) -> bool:
        """Answers the request; returns False if it was answered before."""
        return self.slot.put(outcome.Value(answer))

    def fail(self, error: Exception) -> bool:
        """Answers with an error, which `ask` raises; returns False if it was answered before."""
        return self.slot.put(outcome.Error(error))

    def pass_on(self) -> None:
        """Another one answers it, also if this actor ends before."""
        self.slot.deferred = self.slot.passed_on = True

    def defer(self) -> None:
        """Allows the answer to come after this drain."""
        self.slot.deferred = True


@dataclass(frozen=True, slots=True)
class WorkDone(Message, Generic[R]):
    """The outcome of work that an actor began with `Context.run`. The runtime sends it."""

    result: outcome.Outcome[R]
    then: Callable[[outcome.Outcome[R]], None]

    def finish(self) -> None:
        """Calls `then` with the outcome."""
        self.then(self.result)
