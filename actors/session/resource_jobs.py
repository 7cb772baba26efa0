"""What is asked of a session's resource: one errand at a time, between its rules and the store.

Overflow policy: over `ERRANDS` that wait are refused to whoever asks; the session's own (that it
came, went, or has been away) are at most a few, and never refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, assert_never

import outcome

from actors.session.config import SessionDeps
from actors.session.messages import (
    AcquireResource,
    DeleteResource,
    Errand,
    ReleaseResource,
    WriteResource,
)
from reileta import records
from reileta.errors import (
    DatabaseUnavailable,
    Overloaded,
    PermissionDenied,
    ReiletaError,
    ResourceNotAcquired,
    ResourceNotFound,
    ResourceTaken,
    SessionNotFound,
)
from reileta.protocol.views.session import held_view
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.session.session import Happening, Session

ERRANDS: Final = 64


@dataclass(frozen=True, slots=True)
class RenewLease:
    """The session came, or went: until when it keeps its resource."""

    present: bool


@dataclass(frozen=True, slots=True)
class ExpireLease:
    """The session has been away for too long."""


Job: TypeAlias = Errand | RenewLease | ExpireLease


class Pipe(Protocol):
    """Has the database asked something beside the actor."""

    def __call__(
        self, work: Callable[[], Awaitable[Any]], then: Callable[[outcome.Outcome[Any]], None], /
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class _Done:
    """What became of a job. `looked`: whether `held` says what the session has now."""

    answer: object
    owner: records.User | None
    looked: bool
    held: records.Held | None
    error: ReiletaError | None = None


class ResourceJobs:
    """Those of one session. `happened` hears what the rules say to what came of them."""

    def __init__(
        self,
        rules: Session,
        deps: SessionDeps,
        pipe: Pipe,
        happened: Callable[[list[Happening]], None],
        owner: records.User | None,
    ) -> None:
        self._loaded = rules
        self._deps = deps
        self._pipe = pipe
        self._happened = happened
        self._owner = owner
        """Of the resource that the session has, or had last."""
        self._jobs: deque[Job] = deque()
        self._working = False
        self._unsure = False
        """Whether what the session has may be another than the rules know."""

    def run(self, errand: Errand) -> None:
        """Takes an errand, which is answered when it is done. Raises Overloaded."""
        if len(self._jobs) >= ERRANDS:
            raise Overloaded
        errand.defer()
        self.enqueue(errand)

    def end(self) -> None:
        """The session is over: errands that wait are refused."""
        for one in self._jobs:
            if not isinstance(one, (RenewLease, ExpireLease)):
                one.fail(SessionNotFound())
        self._jobs.clear()

    def shown(self, held: records.Held | None, user: records.User) -> dict[str, Any] | None:
        """The resource that the session has, as its user may see it."""
        if held is None:
            return None
        kind = self._deps.store.resources.types.of(held.resource.type)
        return held_view(held, kind, self._owner, user)

    def enqueue(self, job: Job) -> None:
        """Does it, after those that wait."""
        self._jobs.append(job)
        self._work()

    def _work(self) -> None:
        if self._working or not self._jobs:
            return
        self._working = True
        job = self._jobs.popleft()
        self._pipe(partial(self._carry_out, job), partial(self._carried_out, job))

    async def _carry_out(self, job: Job) -> _Done:
        """Does a job in the database; beside the actor, which does none other meanwhile."""
        rules, store = self._loaded, self._deps.store
        held, looked = rules.held, self._unsure
        if looked:
            held = await store.leases.of_session(rules.id)
        answer: object = None
        error: ReiletaError | None = None
        try:
            answer = await self._ask_store(job, held)
        except DatabaseUnavailable:
            raise
        except ReiletaError as refused:
            error = refused
            if isinstance(refused, (PermissionDenied, ResourceNotFound)) and rules.held is not None:
                # It may have lost what it had, at another server.
                found = await store.leases.of_session(rules.id)
                if found is None or not _same(found, rules.held):
                    held, looked = found, True
        number = None
        if isinstance(answer, records.Held):
            number = answer.resource.owner
        elif isinstance(answer, records.Resource) and not isinstance(job, DeleteResource):
            number = answer.owner
        elif looked and held is not None:
            number = held.resource.owner
        owner = None if number is None else await store.users.by_id(number)
        return _Done(answer, owner, looked, held, error)

    async def _ask_store(self, job: Job, held: records.Held | None) -> object:
        rules, store = self._loaded, self._deps.store
        match job:
            case AcquireResource(name=name, who=who):
                until = self._deps.lease_until(present=rules.present)
                return await store.leases.acquire(name, who, until=until)
            case ReleaseResource(name=name, who=who):
                return await store.leases.release(name, who)
            case WriteResource(name=name, who=who):
                return await store.resources.write(
                    name,
                    who,
                    fence=_fence(held, name),
                    patch=job.patch,
                    if_version=job.if_version,
                )
            case DeleteResource(name=name, who=who):
                return await store.resources.delete(
                    name, who, fence=_fence(held, name), if_version=job.if_version
                )
            case RenewLease(present=present):
                return await store.leases.keep(
                    rules.id, until=self._deps.lease_until(present=present)
                )
            case ExpireLease():
                return await store.leases.lose(rules.id)
            case _:
                assert_never(job)

    def _carried_out(self, job: Job, result: outcome.Outcome[Any]) -> None:
        self._working = False
        rules = self._loaded
        try:
            done: _Done = result.unwrap()
        except ReiletaError as error:  # it may have been done all the same
            self._unsure = True
            if not isinstance(job, (RenewLease, ExpireLease)):
                job.fail(error)
        else:
            self._unsure = False
            if done.owner is not None:
                self._owner = done.owner
            if done.looked:
                self._looked(rules, done.held)
            if done.error is None:
                self._done(rules, job, done.answer)
            else:
                self._refused(rules, job, done.error)
        self._work()

    def _done(self, rules: Session, job: Job, answer: Any) -> None:
        match job:
            case AcquireResource():
                self._happened(rules.took(answer, self._now()))
                job.reply(answer)
            case ReleaseResource():
                if answer is not None:
                    self._happened(rules.dropped(answer.name.number, answer.fence))
                job.reply(None)
            case WriteResource():
                if rules.held is not None and rules.held.resource.number == answer.number:
                    held = records.Held(answer, rules.held.fence, rules.held.until)
                    self._happened(rules.took(held, self._now()))
                job.reply(answer)
            case DeleteResource():
                self._drop(rules, job.name)
                job.reply(answer)
            case RenewLease():
                pass
            case ExpireLease():
                if isinstance(answer, int):
                    rules.kept_until(answer)
                elif rules.held is not None:
                    self._drop(rules, ResourceKey("", rules.held.resource.number))
            case _:
                assert_never(job)

    def _refused(self, rules: Session, job: Job, error: ReiletaError) -> None:
        if isinstance(job, (RenewLease, ExpireLease)):
            return
        if isinstance(error, (ResourceNotAcquired, ResourceTaken)):
            self._drop(rules, job.name)  # what it thought that it had
        job.fail(error)

    def _drop(self, rules: Session, name: ResourceKey) -> None:
        held = rules.held
        if held is not None and held.resource.number == name.number:
            self._happened(rules.dropped(name.number, held.fence))

    def _looked(self, rules: Session, held: records.Held | None) -> None:
        if held is not None:
            self._happened(rules.took(held, self._now()))
        elif rules.held is not None:
            self._drop(rules, ResourceKey("", rules.held.resource.number))

    def _now(self) -> int:
        return self._deps.clock.now_ms()


def _same(one: records.Held, other: records.Held) -> bool:
    """Whether both are of one acquisition."""
    return (one.resource.number, one.fence) == (other.resource.number, other.fence)


def _fence(held: records.Held | None, name: ResourceKey) -> int | None:
    """The fencing number by which the session has that resource."""
    if held is None or held.resource.number != name.number:
        return None
    return held.fence
