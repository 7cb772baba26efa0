"""What a session has of its own: its state and its resource, between its sockets and the database.

The rules are `reileta/rules/session/session.py`'s. They are loaded when first needed, so that a
session that only plays asks the database nothing. Everything that waits for the database is piped:
changes of the state, of which one write is under way at a time, and errands of the resource, one
after the other. Overflow policy: over `ERRANDS` of them are refused, and so are patches over the
rules' own bound.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, assert_never

import outcome

from actors.delivery.sink import SessionSink, Sink
from actors.runtime.actor import Context
from actors.runtime.timers import Timer
from actors.session.config import SessionDeps
from actors.session.messages import (
    DeadlineReached,
    Errand,
    JobDone,
    OpenSocket,
    PatchState,
    SessionMessage,
)
from actors.session.resource_jobs import ExpireLease, Job, RenewLease, ResourceJobs
from reileta import records
from reileta.errors import CredentialInvalid, Overloaded, ReiletaError, SessionNotFound
from reileta.protocol import session_frames
from reileta.protocol.session_frames import event_frame, new_event_id
from reileta.protocol.views.session import session_view
from reileta.rules.instance.access import FOR_EVER
from reileta.rules.session.session import (
    AbsenceTimedOut,
    AllTokensExpired,
    Ended,
    Happening,
    ResourceChanged,
    Session,
    SocketClosed,
)
from reileta.rules.session.shared_state import PatchRefused, StateChange, StateChanged

LONGEST_S: Final = 3600.0
"""A timer is set for no longer: times can lie further ahead than a clock can count."""
WAITING: Final = 64
"""What may wait for the rules to be loaded."""


@dataclass(frozen=True, slots=True)
class SessionCallbacks:
    """The session's actor, as its estate sees it."""

    id: str
    user: Callable[[], records.User]
    others: Callable[[], dict[Sink, bytes]]
    """Its sockets of the other face, with their tokens."""
    hang_up: Callable[[bytes], None]
    """Closes the sockets that came with a token."""
    over: Callable[[], None]
    """The session has ended in the database."""


class StateSync:
    """One session's, for one incarnation of its actor."""

    def __init__(
        self, owner: SessionCallbacks, deps: SessionDeps, context: Context[SessionMessage]
    ) -> None:
        self._owner = owner
        self._deps = deps
        self._context = context
        self._rules: Session | None = None
        self._waiting: list[tuple[Callable[[], None], Callable[[ReiletaError], object]]] | None
        self._waiting = None
        self._names: dict[Sink, str] = {}
        self._lines: dict[str, SessionSink] = {}
        self._next_name = 0
        self._resource_jobs: ResourceJobs | None = None
        self._due: Timer | None = None
        self._due_at: int | None = None

    # Sockets and tokens ------------------------------------------------------------------------

    def open(
        self, message: OpenSocket, ensure_wanted: Callable[[], None], opened: Callable[[], None]
    ) -> None:
        """A socket of the session API is there; answers the message.

        `ensure_wanted` raises if it is not to be opened after all, when the rules are there;
        `opened` is called once it counts, before it is greeted.
        """
        message.defer()
        self._when_loaded(partial(self._open, message, ensure_wanted, opened), message.fail)

    def _open(
        self, message: OpenSocket, ensure_wanted: Callable[[], None], opened: Callable[[], None]
    ) -> None:
        rules, line = self._loaded, message.line
        try:
            ensure_wanted()
            rules.admit(message.token_hash, message.expires)
            self._connect(line, message.token_hash, exclusive=True)
        except ReiletaError as error:
            message.fail(error)
            return
        self._lines[self._names[line]] = line
        opened()
        hello = {
            "kind": session_frames.HELLO,
            "session": session_view(
                rules.id, self._owner.user(), rules.state, self._shown(rules.held)
            ),
            "version": rules.version,
            "ack_timeout_ms": self._deps.limits.ack_timeout_ms,
        }
        self._tell([line], hello)
        message.reply(None)

    def came(self, sink: Sink, token: bytes) -> None:
        """A socket of the other face is there."""
        if self._rules is not None and not self._rules.ended:
            if token not in self._rules.tokens:
                self._rules.admit(token, FOR_EVER)  # whoever opened it sees to its end
            with suppress(CredentialInvalid):  # whoever judges that face's credentials says so
                self._connect(sink, token, exclusive=False)

    def _connect(self, sink: Sink, token: bytes, *, exclusive: bool) -> None:
        rules = self._loaded
        first = not rules.present
        self._next_name += 1
        name = str(self._next_name)
        rules.connect(name, token, self._now(), exclusive=exclusive)
        self._names[sink] = name
        if first and rules.held is not None:
            self._enqueue(RenewLease(present=True))

    def gone(self, sink: Sink) -> None:
        """A socket of either face is gone."""
        name = self._names.pop(sink, None)
        if name is None or self._rules is None:
            return
        self._lines.pop(name, None)
        self._rules.disconnect(name, self._now())
        if not self._rules.present and self._rules.held is not None:
            self._enqueue(RenewLease(present=False))

    def admit(self, token: bytes, expires: int) -> None:
        """A token of the session has new keys."""
        if self._rules is not None:
            self._rules.admit(token, expires)

    def kill(self, token: bytes) -> None:
        """A token is good no longer."""
        if self._rules is not None:
            self._happened(self._rules.kill(token, self._now()))

    def end(self) -> None:
        """The session is over: what waits is refused."""
        if self._rules is not None:
            self._happened(self._rules.end())
        if self._resource_jobs is not None:
            self._resource_jobs.end()

    # State -------------------------------------------------------------------------------------

    def patch(self, message: PatchState) -> None:
        """A socket changes the state."""
        name = self._names.get(message.line)
        if name is None or self._rules is None:
            return  # it went meanwhile
        try:
            self._rules.change(message.patch, name, message.event_id)
        except ReiletaError as error:
            message.line.refuse(message.event_id, error)

    def flush(self) -> None:
        """Writes what has changed, and sets the timer."""
        rules = self._rules
        if rules is None:
            return
        save = None if rules.ended else rules.save()
        if save is not None:
            work = partial(
                self._deps.store.states.apply,
                rules.id,
                base=save.base,
                version=save.version,
                text=save.text,
            )
            self._pipe(work, self._applied)
        for line in self._lines.values():
            line.flush()
        self._set_timer(rules)

    def _applied(self, result: outcome.Outcome[object]) -> None:
        rules = self._loaded
        if rules.ended:
            return
        try:
            written = result.unwrap()
        except ReiletaError as error:
            self._changed(rules.abandon(error))
            return
        if written:
            self._changed(rules.saved())
        else:
            self._pipe(partial(self._deps.store.states.load, rules.id), self._reloaded)

    def _reloaded(self, result: outcome.Outcome[Any]) -> None:
        rules = self._loaded
        if rules.ended:
            return
        try:
            state, version = result.unwrap()
        except SessionNotFound:
            self._owner.over()
        except ReiletaError as error:
            self._changed(rules.abandon(error))
        else:
            self._changed(rules.stale(state, version))

    def _changed(self, changes: list[StateChange]) -> None:
        for one in changes:
            match one:
                case StateChanged(version=version, patch=patch, change=change):
                    by = None if change is None else change.by
                    payload = {
                        "kind": session_frames.STATE,
                        "version": version,
                        "patch": patch,
                    }
                    self._tell([line for name, line in self._lines.items() if name != by], payload)
                    if change is not None and by in self._lines:
                        self._lines[by].ack(str(change.ref))
                case PatchRefused(change=change, error=error):
                    if change.by in self._lines:
                        self._lines[change.by].refuse(str(change.ref), error)
                case _:
                    assert_never(one)

    # The resource ------------------------------------------------------------------------------

    def run(self, errand: Errand) -> None:
        """Something is asked of the session's resource; answers the errand."""
        errand.defer()
        self._when_loaded(partial(self._run, errand), errand.fail)

    def _run(self, errand: Errand) -> None:
        assert self._resource_jobs is not None
        try:
            self._resource_jobs.run(errand)
        except Overloaded as error:
            errand.fail(error)

    def taken(self, number: int, fence: int) -> None:
        """The store has taken a resource from the session."""
        if self._rules is not None:
            self._happened(self._rules.dropped(number, fence))

    def _enqueue(self, job: Job) -> None:
        assert self._resource_jobs is not None
        self._resource_jobs.enqueue(job)

    def _shown(self, held: records.Held | None) -> dict[str, Any] | None:
        assert self._resource_jobs is not None
        return self._resource_jobs.shown(held, self._owner.user())

    # What happened, and time -------------------------------------------------------------------

    def due(self) -> None:
        """The time has come that the timer was set to."""
        self._due_at = None
        if self._rules is not None:
            self._happened(self._rules.tick(self._now()))

    def _happened(self, happenings: list[Happening]) -> None:
        for one in happenings:
            match one:
                case StateChanged() | PatchRefused():
                    self._changed([one])
                case ResourceChanged(held=held):
                    payload = {"kind": session_frames.RESOURCE, "resource": self._shown(held)}
                    self._tell(list(self._lines.values()), payload)
                case SocketClosed(token=token):
                    for line in self._lines.values():
                        line.flush()  # what was refused, before the farewell
                    self._owner.hang_up(token)
                case AbsenceTimedOut():
                    self._enqueue(ExpireLease())
                case AllTokensExpired():
                    work = partial(self._deps.store.sessions.expire, self._loaded.id)
                    self._pipe(work, self._expired)
                case Ended():
                    pass
                case _:
                    assert_never(one)

    def _expired(self, result: outcome.Outcome[object]) -> None:
        """Whether the store has ended the session; if not, the rules ask again in a while."""
        if isinstance(result, outcome.Value) and result.value:
            self._owner.over()

    def _tell(self, lines: list[SessionSink], payload: dict[str, Any]) -> None:
        if lines:
            id_ = new_event_id()
            frame = event_frame(id_, self._now(), payload)
            for line in lines:
                line.tell(id_, frame)

    def _set_timer(self, rules: Session) -> None:
        due = rules.next_deadline()
        if due == self._due_at:
            return
        if self._due is not None:
            self._due.cancel()
            self._due = None
        self._due_at = due
        if due is not None:
            delay_s = min(LONGEST_S, max(0.0, (due - self._now()) / 1000))
            self._due = self._context.after(delay_s, DeadlineReached())

    # Loading -----------------------------------------------------------------------------------

    @property
    def _loaded(self) -> Session:
        assert self._rules is not None
        return self._rules

    def _when_loaded(
        self, act: Callable[[], None], refuse: Callable[[ReiletaError], object]
    ) -> None:
        if self._rules is not None:
            act()
        elif self._waiting is not None:
            if len(self._waiting) >= WAITING:
                raise Overloaded
            self._waiting.append((act, refuse))
        else:
            self._waiting = [(act, refuse)]
            self._pipe(self._load, self._load_done)

    async def _load(self) -> tuple[Session, records.User | None]:
        store, id_ = self._deps.store, self._owner.id
        state, version = await store.states.load(id_)
        held = await store.leases.of_session(id_)
        tokens = await store.tokens.of_session(id_)
        owner = None if held is None else await store.users.by_id(held.resource.owner)
        rules = Session(
            id_,
            autopilot=self._owner.user().autopilot,
            state=state,
            version=version,
            held=held,
            tokens={token.id: max(token.access_expires, token.refresh_expires) for token in tokens},
            limits=self._deps.limits,
            now=self._now(),
        )
        return rules, owner

    def _load_done(self, result: outcome.Outcome[Any]) -> None:
        waiting, self._waiting = self._waiting or [], None
        try:
            rules, owner = result.unwrap()
        except ReiletaError as error:
            for _, refuse in waiting:
                refuse(error)
            return
        self._rules = rules
        self._resource_jobs = ResourceJobs(rules, self._deps, self._pipe, self._happened, owner)
        for sink, token in self._owner.others().items():
            self.came(sink, token)
        for act, _ in waiting:
            act()

    def _pipe(
        self,
        work: Callable[[], Awaitable[Any]],
        then: Callable[[outcome.Outcome[Any]], None],
    ) -> None:
        self._context.pipe(work, lambda result: JobDone(result, then))

    def _now(self) -> int:
        return self._deps.clock.now_ms()
