"""The cell of an actor: its mailbox, its incarnations and its last messages.

The contract is in `actors/runtime/actor.py`; `actors/runtime/supervisor.py` decides about restarts.
"""

from __future__ import annotations

import logging
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Generic, TypeVar, cast

import outcome
import structlog
import trio

from actors.runtime.actor import Actor, Spec
from actors.runtime.deadline import Deadline
from actors.runtime.errors import ActorCrashed, ActorStopped, NoReply
from actors.runtime.failures import CapturedFailure, capture_failure
from actors.runtime.instruments import Instruments
from actors.runtime.mailbox import Envelope, Mailbox, Ref
from actors.runtime.message import Message, Request, WorkDone
from actors.runtime.meter import ActorFigures, Crash, Meter
from actors.runtime.timers import Timer, Timers
from actors.runtime.trace import NO_TRACE, current, next_message_id
from reileta.clock import Clock
from reileta.errors import ReiletaError
from reileta.observability import log_events, redact

M = TypeVar("M", bound=Message)
T = TypeVar("T")

RECORDED: Final = 64
"""How many of its last messages an actor keeps, for the log of a crash."""
TEXT_LIMIT: Final = 16 * 1024
"""Characters of a crash's traceback that are kept; its end says most."""
STOP_GRACE_S: Final = 2.0
"""The time that `on_stop` has, also when the actor is being cancelled."""


class Cell(Generic[M]):
    """The runtime's side of one actor, and its `Context`."""

    def __init__(
        self, spec: Spec[M], nursery: trio.Nursery, timers: Timers, instruments: Instruments
    ) -> None:
        self.spec = spec
        self.mailbox: Mailbox[M] = Mailbox(spec.mailbox_limit, spec.kind, instruments)
        self.stopped = trio.Event()
        self.ref: Ref[M] = Ref(spec.name, self.mailbox, self.stopped)
        self.scope = trio.CancelScope()
        """The scope of all its incarnations."""
        self.ending = False
        """Whether it is ending in order: it is not restarted, even if `on_stop` raises."""
        self.log = structlog.get_logger().bind(actor=spec.name)
        self._nursery = nursery
        self._timers = timers
        self._instruments = instruments
        self._meter: Meter | None = None
        self._kind = spec.kind
        self._recorder: deque[tuple[type[M], int, int, int, float]] = deque(maxlen=RECORDED)
        self._working: set[trio.CancelScope] = set()
        self._deadlines: list[Deadline] = []
        self._rest_s = 0.0
        self._again = False
        """Whether it flushes after the rest, even if nothing has come."""
        self._deferred: list[Request[Any]] = []
        self._batch: list[Envelope[M]] = []
        self._observed: list[Envelope[M]] = []
        """The messages of the drain so far whose traces are logged."""
        self._at_fault = -1
        """The index of the message that is being handled: -1 before the first, the length of the
        drain in `flush`."""
        self._failure: Exception | None = None
        self._actor: Actor[M] | None = None
        self._own = _Own(self.mailbox)
        self._debug = bool(self.log.is_enabled_for(logging.DEBUG))
        self._rounds = spec.rounds
        self._record = self._recorder.append
        self._captured = CapturedFailure()
        self._in_round = False
        self._handled = 0
        """Messages that were handled at once and are not flushed yet."""
        self._handled_at = 0.0
        """When the first of them came."""
        self._rest_until = 0.0
        """Before that, rounds do not flush."""
        self._rest_ends = False
        """Whether a round is ordered for then."""
        self._fault: M | None = None
        """The message that failed when it was handled at once."""
        self.restarts = 0
        self.last_messages: tuple[str, ...] = ()
        """Those before the last crash."""

    # What admins see ---------------------------------------------------------------------------

    def measure(self, instruments: Instruments, *, on: bool) -> None:
        """Begins or ends to count for this actor alone, besides the instruments."""
        if on:
            if self._meter is None:
                self._instruments = self._meter = Meter(instruments)
        else:
            self._instruments, self._meter = instruments, None

    @property
    def figures(self) -> ActorFigures:
        """The actor as it is now."""
        box = self.mailbox
        return ActorFigures(self.spec.name, len(box), box.limit, self.restarts, self._meter)

    def crash(self, error: Exception, *, restarted: bool) -> Crash:
        """The crash that `crashed` has cleaned up after."""
        lines = traceback.format_exception(error, limit=-30)
        return Crash(
            self.spec.name,
            trio.current_time(),
            type(error).__name__,
            redact.text(str(error))[:500],
            redact.text("".join(lines)[-TEXT_LIMIT:]),
            self.last_messages,
            restarted,
        )

    # The context of the actor ------------------------------------------------------------------

    def after(self, delay_s: float, message: M) -> Timer:
        return self._timers.after(delay_s, self._own, message)

    def deadline(self, message: M, clock: Clock) -> Deadline:
        deadline = Deadline(self._timers, self._own, message, clock)
        self._deadlines.append(deadline)
        return deadline

    def run(
        self,
        work: Callable[[], Awaitable[T]],
        then: Callable[[outcome.Outcome[T]], None],
    ) -> None:
        scope = trio.CancelScope()
        self._nursery.start_soon(
            self._run_work, work, then, scope, self._own, name=f"{self.spec.name} work"
        )
        self._working.add(scope)
        self.mailbox.awaited += 1

    @property
    def oldest_at(self) -> float:
        if self._handled:
            return self._handled_at
        return self._batch[0].at if self._batch else trio.current_time()

    def rest(self, seconds: float, *, again: bool = False) -> None:
        self._rest_s, self._again = seconds, again

    def retire(self) -> bool:
        behind = self._at_fault + 1 < len(self._batch)
        if behind or len(self.mailbox) or self.mailbox.awaited:
            return False
        self.mailbox.drain()
        return True

    def sent(self, frames: int, sockets: int) -> None:
        if not self._observed or not frames:
            return
        batch, fault = self._batch, self._at_fault
        flushing = fault == len(batch)
        for envelope in self._observed if flushing else self._observed[-1:]:
            if flushing or envelope is batch[fault]:
                self.log.log(
                    logging.INFO if envelope.sampled else logging.DEBUG,
                    log_events.FRAMES_SENT,
                    trace=envelope.trace_id,
                    message=envelope.id,
                    frames=frames,
                    sockets=sockets,
                    drain=len(batch) if flushing else 1,
                )

    async def _run_work(
        self,
        work: Callable[[], Awaitable[T]],
        then: Callable[[outcome.Outcome[T]], None],
        scope: trio.CancelScope,
        own: _Own[M],
    ) -> None:
        async def run() -> None:
            # The scope is inside of `capture_failure`: what fails while the work is being cancelled
            # is a failure of the work, and not of the supervisor.
            with scope:
                result: outcome.Outcome[T]
                try:
                    result = outcome.Value(await work())
                except ReiletaError as error:
                    result = outcome.Error(error)
                if not own.ended:
                    own.signal(WorkDone(result, then))

        failure: Exception | None = None
        try:
            failure = await capture_failure(run)
        finally:
            if scope in self._working:
                self._working.discard(scope)
                self.mailbox.awaited -= 1
        if failure is not None:
            if own.ended or self._failure is not None:
                self.log.error(log_events.HOOK_FAILED, hook="work", exc_info=failure)
            else:
                self._failure = failure
        self.mailbox.poke()

    # Messages that are handled at once ---------------------------------------------------------

    def _now(self, message: M) -> bool:
        """Handles a message at once; False: it did nothing, and the message must wait."""
        rounds, actor = self._rounds, self._actor
        if rounds is None or actor is None or not rounds.open or not self.mailbox.idle:
            return False
        span = current.get()
        if span.sampled or self._debug:
            return False
        captured = self._captured
        with captured:
            if not actor.receive_now(message):
                return False
        self._record((type(message), next_message_id(), span.id, span.trace, rounds.now))
        if not self._handled:
            self._handled_at = rounds.now
        self._handled += 1
        if captured.error is not None:
            error, captured.error = captured.error, None
            self._fault = message
            self._fail_now(error)
        elif not self._in_round:
            self._in_round = True
            rounds.join(self._end_round)
        return True

    def _end_round(self) -> None:
        """Flushes what was handled at once, unless the actor rests or a drain will flush it."""
        self._in_round = False
        rounds, actor = self._rounds, self._actor
        if rounds is None or actor is None or not self.mailbox.idle:
            return
        if not self._handled and not self._again:
            return
        if rounds.now < self._rest_until:
            if not self._rest_ends:
                self._rest_ends = True
                rounds.later(self._rest_until, self._end_rest)
            return
        self._again = False
        with CapturedFailure() as captured:
            actor.flush_now()
        if captured.error is not None:
            self._fail_now(captured.error)
            return
        if self._handled:
            self._count(self._handled, rounds.now - self._handled_at)
        if self._rest_s or self._again:
            self._rest_until, self._rest_s = trio.current_time() + self._rest_s, 0.0
            if self._again and not self._rest_ends:
                self._rest_ends = True
                rounds.later(self._rest_until, self._end_rest)

    def _end_rest(self) -> None:
        self._rest_ends = False
        self._end_round()

    def _fail_now(self, error: Exception) -> None:
        """Crashes the incarnation: its task raises the error."""
        self._failure = error
        self.mailbox.poke()

    def _count(self, messages: int, waited_s: float) -> None:
        self._handled = 0
        self._instruments.drained(self._kind, messages, waited_s)

    # An incarnation ----------------------------------------------------------------------------

    async def live(self, started: Callable[[], None]) -> None:
        """Runs one incarnation until it ends in order; raises the exception that crashes it."""
        self.mailbox.task = trio.lowlevel.current_task()
        self._own = _Own(self.mailbox)
        self._batch = []
        self._observed = []
        self._failure = self._fault = None
        self._handled = 0
        self._again = False
        actor = self._actor = self.spec.factory()
        actor.context = self
        current.set(NO_TRACE)
        await actor.on_start()
        started()
        if self._rounds is not None:
            self.mailbox.now = self._now
        try:
            while True:
                # Work can fail during a drain as well as during the wait for the next one.
                self._raise_failure()
                batch = await self.mailbox.take()
                self._batch, self._at_fault = batch, -1
                self._raise_failure()
                if batch:
                    await self._drain(actor, batch)
                    # So that an idle actor keeps no message alive.
                    del batch
                    if self._rest_s:
                        rest_s, self._rest_s = self._rest_s, 0.0
                        await trio.sleep(rest_s)
                    continue
                draining = self.mailbox.draining
                unsent = self._handled or self._again
                if unsent and (draining or trio.current_time() >= self._rest_until):
                    self._again = False
                    await actor.flush()
                    if self._handled:
                        self._count(self._handled, trio.current_time() - self._handled_at)
                if draining and not self.mailbox.awaited:
                    break
        except (trio.Cancelled, BaseExceptionGroup) as ending:
            # A handler's own nursery wraps the cancellation in a group.
            if not isinstance(ending, ExceptionGroup):
                await self._goodbye(actor)
            raise
        await self._goodbye(actor)

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def _goodbye(self, actor: Actor[M]) -> None:
        self.ending = True
        current.set(NO_TRACE)
        self._close()
        with trio.move_on_after(STOP_GRACE_S, shield=True):
            await actor.on_stop()

    async def _drain(self, actor: Actor[M], batch: list[Envelope[M]]) -> None:
        record = self._recorder.append
        receive = actor.receive
        requests: list[Request[Any]] = []
        begun = trio.current_time()
        debug = self._debug
        for index, envelope in enumerate(batch):
            message = envelope.message
            kind = type(message)
            self._at_fault = index
            current.set(envelope)
            record((kind, envelope.id, envelope.cause, envelope.trace, envelope.at))
            observed = debug or envelope.sampled
            handed_at = begun
            error_code: int | None = None
            if observed:
                handed_at = trio.current_time()
                self._observed.append(envelope)
            if isinstance(message, Request):
                requests.append(message)
                try:
                    await receive(message)
                except ReiletaError as error:
                    if not message.fail(error):
                        raise
                    error_code = error.code
            elif kind is WorkDone:
                actor.work_done(cast("WorkDone[Any]", message))
            else:
                await receive(message)
            if observed:
                self._log_received(envelope, handed_at, error_code)
        self._at_fault = len(batch)
        self._again = False
        await actor.flush()
        for request in requests:
            if request.slot.answered:
                continue
            if not request.slot.deferred:
                raise NoReply(type(request).__name__)
            self._deferred.append(request)
        if self._deferred:
            self._deferred = [one for one in self._deferred if not one.slot.answered]
        self._count(len(batch) + self._handled, begun - batch[0].at)
        self._batch = []
        if self._observed:
            self._observed = []
        current.set(NO_TRACE)

    def _log_received(
        self, envelope: Envelope[M], handed_at: float, error_code: int | None
    ) -> None:
        now = trio.current_time()
        refused = {} if error_code is None else {"error": error_code}
        self.log.log(
            logging.INFO if envelope.sampled else logging.DEBUG,
            log_events.ACTOR_RECEIVED,
            trace=envelope.trace_id,
            message=envelope.id,
            type=type(envelope.message).__name__,
            cause=envelope.cause,
            waited_us=int((handed_at - envelope.at) * 1e6),
            handled_us=int((now - handed_at) * 1e6),
            depth=len(self.mailbox),
            **refused,
        )

    # The end of an incarnation -----------------------------------------------------------------

    def crashed(self, error: Exception) -> None:
        """Answers all requests of the failed incarnation, and logs its last messages."""
        batch, fault = self._batch, self._at_fault
        self._batch = []
        dropped = 0
        kept: list[Envelope[M]] = []
        for index, envelope in enumerate(batch):
            message = envelope.message
            if isinstance(message, Request):
                message.fail(ActorCrashed() if index <= fault else ActorStopped())
            elif index == fault:
                self._on_crash(message)
            elif index > fault and not envelope.signal:
                self._on_drop(message)
                dropped += 1
            elif index > fault and not envelope.own:
                kept.append(envelope)
        if self._fault is not None:
            self._on_crash(self._fault)
        dropped += self._fail(self.mailbox.keep_signals())
        self.mailbox.requeue(kept)
        self._abandon()
        besides = self._post_mortem(error)
        now = trio.current_time()
        self.last_messages = tuple(
            f"{kind.__name__} id={id_} cause={cause} trace={trace:016x} age={now - at:.3f}s"
            for kind, id_, cause, trace, at in self._recorder
        )
        self.log.error(
            log_events.ACTOR_CRASHED,
            exc_info=error,
            **besides,
            dropped=dropped,
            last_messages=list(self.last_messages),
        )

    def _on_crash(self, message: M) -> None:
        if isinstance(message, WorkDone):
            return
        assert self._actor is not None
        with CapturedFailure() as hook:
            self._actor.on_crash(message)
        if hook.error is not None:
            self.log.error(log_events.HOOK_FAILED, hook="on_crash", exc_info=hook.error)

    def _on_drop(self, message: M) -> None:
        if self._actor is None or isinstance(message, WorkDone):
            return
        with CapturedFailure() as hook:
            self._actor.on_drop(message)
        if hook.error is not None:
            self.log.error(log_events.HOOK_FAILED, hook="on_drop", exc_info=hook.error)

    def _post_mortem(self, error: Exception) -> Mapping[str, object]:
        besides: Mapping[str, object] = {}
        if self._actor is not None:
            with CapturedFailure() as hook:
                besides = self._actor.post_mortem(error)
            if hook.error is not None:
                self.log.error(log_events.HOOK_FAILED, hook="post_mortem", exc_info=hook.error)
        return besides

    def end(self, error: Exception | None, *, started: bool) -> None:
        """Ends the cell for good; no request is left waiting."""
        self._close()
        self._abandon()
        self._actor = self.mailbox.now = None
        self.stopped.set()
        if started and self.spec.gone is not None:
            with CapturedFailure() as hook:
                self.spec.gone(error)
            if hook.error is not None:
                self.log.error(log_events.HOOK_FAILED, hook="gone", exc_info=hook.error)

    def _close(self) -> None:
        """Closes the mailbox; fails all requests that wait, in an interrupted drain too."""
        self._fail(self._batch)
        self._batch = []
        self._fail(self.mailbox.close())

    def _abandon(self) -> None:
        self._own.ended = True
        for deadline in self._deadlines:
            deadline.set(None)  # its timer may run for an hour, and would keep the mailbox
        self._deadlines.clear()
        for request in self._deferred:
            if not request.slot.passed_on:
                request.fail(ActorStopped())
        self._deferred = []
        for scope in self._working:
            scope.cancel()
        self.mailbox.awaited -= len(self._working)
        self._working.clear()

    def _fail(self, envelopes: list[Envelope[M]]) -> int:
        """Fails the requests; returns how many other messages, except signals, are lost."""
        lost = 0
        for envelope in envelopes:
            if isinstance(envelope.message, Request):
                envelope.message.fail(ActorStopped())
            elif not envelope.signal:
                self._on_drop(envelope.message)
                lost += 1
        return lost


class _Own(Generic[M]):
    """Where the timers and the work of one incarnation send to; later ones never get it."""

    __slots__ = ("_mailbox", "ended")

    def __init__(self, mailbox: Mailbox[M]) -> None:
        self._mailbox = mailbox
        self.ended = False

    def signal(self, message: Any) -> bool:
        return not self.ended and self._mailbox.put_signal(message, own=True)
