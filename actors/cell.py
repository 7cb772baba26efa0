"""One actor's place in the runtime: its mailbox, its incarnations, its last messages.

The contract stands in `actors/actor.py`; who decides about restarts, in `actors/supervisor.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

import outcome
import structlog
import trio

from actors.actor import Actor, Spec
from actors.errors import ActorCrashed, ActorStopped, NoReply
from actors.instruments import Instruments
from actors.mailbox import Envelope, Mailbox
from actors.message import Message, Request
from actors.ref import Ref
from actors.timer import Timer, Timers
from actors.trace import NO_TRACE, bind, current
from reileta.errors import ReiletaError

M = TypeVar("M", bound=Message)
T = TypeVar("T")

RECORDED: Final = 64
"""Messages that the flight recorder keeps."""
STOP_GRACE_S: Final = 2.0
"""What `on_stop` is given, also when the actor is being cancelled."""

_log = structlog.get_logger()


class Cell(Generic[M]):
    """The runtime's side of one actor, and its `Context`."""

    def __init__(
        self, spec: Spec[M], nursery: trio.Nursery, timers: Timers, instruments: Instruments
    ) -> None:
        self.spec = spec
        self.mailbox: Mailbox[M] = Mailbox(spec.mailbox_limit)
        self.ref: Ref[M] = Ref(self)
        self.stopped = trio.Event()
        self.task: trio.lowlevel.Task | None = None
        """The task that runs it: one that asks its own actor would wait for ever."""
        self.log = _log.bind(actor=spec.name)
        self._nursery = nursery
        self._timers = timers
        self._instruments = instruments
        self._kind = spec.kind
        self._recorder: deque[tuple[type[M], int, int, int, float]] = deque(maxlen=RECORDED)
        self._pipes: set[trio.CancelScope] = set()
        self._deferred: list[Request[Any]] = []
        self._batch: list[Envelope[M]] = []
        self._at_fault = 0
        self._retired = False
        self._failure: Exception | None = None
        self._debug = bool(self.log.is_enabled_for(10))

    # The context of the actor ------------------------------------------------------------------

    def after(self, delay_s: float, message: M) -> Timer:
        return self._timers.after(delay_s, self.ref, message)

    def pipe(
        self,
        work: Callable[[], Awaitable[T]],
        then: Callable[[outcome.Outcome[T]], M],
    ) -> None:
        self.mailbox.awaited += 1
        scope = trio.CancelScope()
        self._pipes.add(scope)
        self._nursery.start_soon(self._run_pipe, work, then, scope, name=f"{self.spec.name} pipe")

    def retire(self) -> bool:
        if len(self.mailbox) or self.mailbox.awaited:
            return False
        self._retired = True
        self.mailbox.draining = True
        return True

    async def _run_pipe(
        self,
        work: Callable[[], Awaitable[T]],
        then: Callable[[outcome.Outcome[T]], M],
        scope: trio.CancelScope,
    ) -> None:
        result: outcome.Outcome[T] | None = None

        async def capture() -> None:
            nonlocal result
            try:
                result = outcome.Value(await work())
            except ReiletaError as error:
                result = outcome.Error(error)

        try:
            with scope:
                self._failure = await contain(capture) or self._failure
                if result is not None:
                    self.mailbox.put_signal(then(result))
        finally:
            if scope in self._pipes:
                self._pipes.discard(scope)
                self.mailbox.awaited -= 1
            self.mailbox.poke()

    # An incarnation ----------------------------------------------------------------------------

    async def live(self, actor: Actor[M], started: Callable[[], None]) -> None:
        """One incarnation, from `on_start` until it ends in order, or raises what crashed it."""
        actor.context = self
        self.task = trio.lowlevel.current_task()
        self._batch = []
        self._failure = None
        with bind(NO_TRACE):
            await actor.on_start()
            started()
            try:
                while True:
                    batch = await self.mailbox.take()
                    if self._failure is not None:
                        self._batch, self._at_fault = batch, -1
                        raise self._failure
                    if batch:
                        await self._drain(actor, batch)
                    elif self.mailbox.draining and not self.mailbox.awaited:
                        break
            except trio.Cancelled:
                await self._goodbye(actor)
                raise
            await self._goodbye(actor)

    async def _goodbye(self, actor: Actor[M]) -> None:
        current.set(NO_TRACE)
        with trio.move_on_after(STOP_GRACE_S, shield=True):
            await actor.on_stop()

    async def _drain(self, actor: Actor[M], batch: list[Envelope[M]]) -> None:
        self._batch = batch
        record = self._recorder.append
        receive = actor.receive
        requests: list[Request[Any]] = []
        begun = trio.current_time()
        debug = self._debug
        for index, envelope in enumerate(batch):
            message = envelope.message
            self._at_fault = index
            current.set(envelope)
            record((type(message), envelope.id, envelope.cause, envelope.trace, envelope.at))
            observed = debug or envelope.sampled
            handed_at = trio.current_time() if observed else begun
            if isinstance(message, Request):
                requests.append(message)
                try:
                    await receive(message)
                except ReiletaError as error:
                    if not message.fail(error):
                        raise
            else:
                await receive(message)
            if observed:
                self._log_received(envelope, handed_at)
        self._at_fault = -1
        await actor.flush()
        for request in requests:
            if request.slot.answered:
                continue
            if not request.slot.deferred:
                raise NoReply(type(request).__name__)
            self._deferred.append(request)
        if self._deferred:
            self._deferred = [one for one in self._deferred if not one.slot.answered]
        self._instruments.drained(self._kind, len(batch), begun - batch[0].at)
        self._batch = []

    def _log_received(self, envelope: Envelope[M], handed_at: float) -> None:
        now = trio.current_time()
        self.log.info(
            "actor.received",
            type=type(envelope.message).__name__,
            cause=envelope.cause,
            waited_us=int((handed_at - envelope.at) * 1e6),
            handled_us=int((now - handed_at) * 1e6),
            depth=len(self.mailbox),
        )

    # The end of an incarnation -----------------------------------------------------------------

    def crashed(self, actor: Actor[M], error: Exception) -> None:
        """Answers everyone who waits for the failed incarnation, and writes down what it did."""
        batch, fault = self._batch, self._at_fault
        self._batch = []
        dropped = 0
        kept: list[Envelope[M]] = []
        for index, envelope in enumerate(batch):
            message = envelope.message
            if isinstance(message, Request):
                handled = fault == -1 or index <= fault
                message.fail(ActorCrashed() if handled else ActorStopped())
            elif index == fault:
                actor.on_crash(message)
            elif fault != -1 and index > fault:
                if envelope.signal:
                    kept.append(envelope)
                else:
                    dropped += 1
        dropped += self._fail_waiting(self.mailbox.keep_signals())
        self.mailbox.requeue(kept)
        self._abandon()
        now = trio.current_time()
        self.log.error(
            "actor.crashed",
            exc_info=error,
            dropped=dropped,
            last_messages=[
                f"{kind.__name__} id={id_} cause={cause} trace={trace:016x} age={now - at:.3f}s"
                for kind, id_, cause, trace, at in self._recorder
            ],
        )

    def end(self, error: Exception | None) -> None:
        """Ends the cell for good; nobody is left waiting."""
        self._fail_waiting(self.mailbox.close())
        self._abandon()
        self.stopped.set()
        if self.spec.gone is not None:
            self.spec.gone(error)

    def _abandon(self) -> None:
        for request in self._deferred:
            request.fail(ActorStopped())
        self._deferred = []
        for scope in self._pipes:
            scope.cancel()
        self.mailbox.awaited -= len(self._pipes)
        self._pipes.clear()

    def _fail_waiting(self, envelopes: list[Envelope[M]]) -> int:
        """Fails the requests; returns how many other messages (no signals) are lost."""
        lost = 0
        for envelope in envelopes:
            if isinstance(envelope.message, Request):
                envelope.message.fail(ActorStopped())
            elif not envelope.signal:
                lost += 1
        return lost


async def contain(work: Callable[[], Awaitable[None]]) -> Exception | None:
    """Runs the work, and returns what it raised: the one place where an actor's failure stops.

    Cancellation passes through.
    """
    try:
        await work()
    except Exception as error:  # noqa: BLE001  # see above
        return error
    return None
