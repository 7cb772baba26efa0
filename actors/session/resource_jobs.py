"""Jobs on a session's resource: the query of each, and the effect of its outcome.

The actor runs one job at a time (`SerialJobs`); writes that wait together are one job. `do` runs
beside the actor, and asks the resource's actor; `finish` runs in it, and returns what the rules
make of the outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, assert_never

import outcome

from actors.session.messages import (
    AcquireResource,
    DeleteResource,
    ReleaseResource,
    ResourceRequest,
    WriteResource,
)
from actors.session.parts import SessionParts
from reileta import records
from reileta.errors import (
    Overloaded,
    PermissionDenied,
    ReiletaError,
    ResourceNotAcquired,
    ResourceNotFound,
    ResourceTaken,
)
from reileta.protocol.views.session import ResourceMetadata, held_view
from reileta.rules.resource.resource import ResourceKey, Write
from reileta.rules.session.session import SessionEvent
from reileta.store.leases import LostLease


@dataclass(frozen=True, slots=True)
class RenewLease:
    """The session got its first socket or lost its last one: sets its lease's end."""

    present: bool


@dataclass(frozen=True, slots=True)
class ExpireLease:
    """The session has been without a socket for too long: takes its resource."""


@dataclass(frozen=True, slots=True)
class CheckLease:
    """Another node may have changed which resource the session has, or that resource."""


@dataclass(slots=True)
class WriteBatch:
    """Requests to write to one resource. It takes further ones until its job `has_begun`."""

    name: ResourceKey
    requests: list[WriteResource]
    has_begun: bool = False


Job: TypeAlias = (
    AcquireResource
    | ReleaseResource
    | DeleteResource
    | WriteBatch
    | RenewLease
    | ExpireLease
    | CheckLease
)


_Other: TypeAlias = (
    AcquireResource | ReleaseResource | DeleteResource | RenewLease | ExpireLease | CheckLease
)
"""Jobs that are not writes."""

RESOURCE_REQUESTS: Final = 64
"""Requests about the resource that may wait for the one under way; over it, `Overloaded`."""


@dataclass(frozen=True, slots=True)
class JobResult:
    """The outcome of a job that reached the database.

    `answer` or `error`: the resource's; the answer of writes has an outcome for each.
    `checked`: `held` is the resource that the session has now.
    `owner`: the user who owns the resource concerned; None: there is none, or it is not needed.
    """

    answer: object
    owner: records.User | None
    checked: bool
    held: records.HeldResource | None
    error: ReiletaError | None = None


class ResourceJobs:
    """The jobs of one session."""

    def __init__(self, parts: SessionParts) -> None:
        self._parts = parts
        self._owner: records.User | None = None
        """The owner of the resource that the session has, or had last."""
        self._unsure = False
        """Whether the session may have another resource than the rules know."""
        self._requests = 0
        """Requests that wait or are under way."""
        self._batch: WriteBatch | None = None
        """The last job, if it is one of writes."""

    def set_owner(self, owner: records.User | None) -> None:
        """Sets the owner of the resource that the session has."""
        self._owner = owner
        self._parts.recovery.resource_owner = None if owner is None else owner.id

    def owner_changed(self, owner: records.User) -> None:
        """A user has changed, who may be that owner."""
        if self._owner is not None and self._owner.id == owner.id:
            self._owner = owner

    def view(self, held: records.HeldResource | None) -> ResourceMetadata | None:
        """The resource that the session has, as its user may see it."""
        if held is None:
            return None
        type_ = self._parts.deps.store.resources.types.of(held.resource.type)
        return held_view(held, type_, self._owner, self._parts.user)

    # Waiting -----------------------------------------------------------------------------------

    def ensure_room(self) -> None:
        """Counts another request, which must become a job. Raises Overloaded."""
        if self._requests > RESOURCE_REQUESTS:
            raise Overloaded
        self._requests += 1

    def batch(self, request: WriteResource) -> WriteBatch | None:
        """A new job for the request; None if the last job takes it, too."""
        batch = self._batch
        if batch is not None and not batch.has_begun and batch.name == request.name:
            batch.requests.append(request)
            return None
        return WriteBatch(request.name, [request])

    def added(self, job: Job) -> None:
        """The job is the last one now."""
        self._batch = job if isinstance(job, WriteBatch) else None

    # Beside the actor --------------------------------------------------------------------------

    async def do(self, job: Job) -> JobResult:
        """Does a job in the database.

        Raises:
            Overloaded: the database is down, or the resource's actor failed or has too much to
                do; the job may have been done anyway.
        """
        rules, store = self._parts.loaded, self._parts.deps.store
        held, checked = rules.held, self._unsure or isinstance(job, CheckLease)
        if checked:
            held = await store.leases.of_session(rules.id)
        answer: Any = None
        error: ReiletaError | None = None
        try:
            answer = await self._ask_store(job, held)
        except Overloaded:
            raise
        except ReiletaError as refusal:
            error = refusal
        refused = [error, *answer] if isinstance(job, WriteBatch) and answer else [error]
        unknown = any(isinstance(one, (PermissionDenied, ResourceNotFound)) for one in refused)
        if unknown and rules.held is not None:
            # The session may have lost its resource at another server.
            lease = await store.leases.of_session(rules.id)
            if lease is None or not _same_acquisition(lease, rules.held):
                held, checked = lease, True
        owner_id = None
        if isinstance(answer, records.HeldResource):
            owner_id = answer.resource.owner
        elif isinstance(job, WriteBatch) and answer:
            written = [one for one in answer if isinstance(one, records.ResourceRecord)]
            owner_id = written[-1].owner if written else None
        elif checked and held is not None:
            owner_id = held.resource.owner
        owner = None if owner_id is None else await store.users.by_id(owner_id)
        return JobResult(answer, owner, checked, held, error)

    async def _ask_store(self, job: Job, held: records.HeldResource | None) -> object:
        rules, deps = self._parts.loaded, self._parts.deps
        store, resources = deps.store, deps.resources
        match job:
            case AcquireResource(name=key, who=who):
                until = deps.lease_until(present=rules.present)
                return await resources.acquire(key, who, until=until)
            case ReleaseResource(name=key, who=who):
                return await resources.release(key, who)
            case WriteBatch(name=key, requests=requests):
                job.has_begun = True
                fence = _fence(held, key)
                return await resources.write(
                    key, [Write(one.who, fence, one.patch, one.if_version) for one in requests]
                )
            case DeleteResource(name=key, who=who):
                return await resources.delete(
                    key, who, fence=_fence(held, key), if_version=job.if_version
                )
            case RenewLease(present=present):
                until = deps.lease_until(present=present)
                return await store.leases.renew(rules.id, until=until)
            case ExpireLease():
                expired = await store.leases.expire_one(rules.id)
                if isinstance(expired, LostLease):
                    resources.changed(expired.name.number)
                return expired
            case CheckLease():
                return None
            case _:
                assert_never(job)

    # In the actor ------------------------------------------------------------------------------

    def finish(self, job: Job, result: outcome.Outcome[JobResult]) -> list[SessionEvent]:
        """Answers the job's request, if it is one; returns what happened to the session."""
        try:
            done = result.unwrap()
        except ReiletaError as error:
            self._unsure = True  # the database may have done the job anyway
            for request in self._requests_of(job):
                request.fail(error)
            return []
        self._unsure = False
        if done.owner is not None:
            self.set_owner(done.owner)
        events = self._check(done.held) if done.checked else []
        if isinstance(job, WriteBatch):
            refusal = done.error
            answers: Any = done.answer if refusal is None else [refusal] * len(job.requests)
            self._requests_of(job)
            for request, answer in zip(job.requests, answers, strict=True):
                if isinstance(answer, Overloaded):
                    self._unsure = True
                if isinstance(answer, ReiletaError):
                    events += self._refuse(request, answer)
                else:
                    events += self._wrote(request, answer)
            return events
        self._requests_of(job)
        if done.error is None:
            events += self._succeed(job, done.answer)
        elif not isinstance(job, (RenewLease, ExpireLease, CheckLease)):
            events += self._refuse(job, done.error)
        return events

    def _requests_of(self, job: Job) -> Sequence[ResourceRequest]:
        """The requests that the job has finished."""
        if isinstance(job, (RenewLease, ExpireLease, CheckLease)):
            return ()
        if not isinstance(job, WriteBatch):
            self._requests -= 1
            return (job,)
        job.has_begun = True  # also if it never did
        self._requests -= len(job.requests)
        return job.requests

    def _check(self, held: records.HeldResource | None) -> list[SessionEvent]:
        """The database says which resource the session has."""
        rules = self._parts.loaded
        if held is not None:
            mine = rules.held
            known = mine is not None and _same_acquisition(held, mine)
            if mine is not None and known and held.resource.version == mine.resource.version:
                return []
            return rules.took(held, self._parts.now())
        if rules.held is not None:
            return self._drop(ResourceKey("", rules.held.resource.number))
        return []

    def _wrote(self, request: WriteResource, answer: records.ResourceRecord) -> list[SessionEvent]:
        rules = self._parts.loaded
        events: list[SessionEvent] = []
        if rules.held is not None and rules.held.resource.number == answer.number:
            held = records.HeldResource(answer, rules.held.fence, rules.held.until)
            events = rules.took(held, self._parts.now())
        request.reply(answer)
        return events

    def _succeed(self, job: _Other, answer: Any) -> list[SessionEvent]:
        rules, now = self._parts.loaded, self._parts.now()
        events: list[SessionEvent] = []
        match job:
            case AcquireResource():
                events = rules.took(answer, now)
                job.reply(answer)
            case ReleaseResource():
                if answer is not None:
                    events = rules.dropped(answer.name.number, answer.fence)
                job.reply(None)
            case DeleteResource():
                events = self._drop(job.name)
                job.reply(answer)
            case RenewLease() | CheckLease():
                pass
            case ExpireLease():
                if isinstance(answer, int):
                    rules.kept_until(answer)
                elif rules.held is not None:
                    events = self._drop(ResourceKey("", rules.held.resource.number))
            case _:
                assert_never(job)
        return events

    def _refuse(self, job: ResourceRequest, error: ReiletaError) -> list[SessionEvent]:
        events: list[SessionEvent] = []
        if isinstance(error, (ResourceNotAcquired, ResourceTaken)):
            events = self._drop(job.name)  # the rules were out of date
        job.fail(error)
        return events

    def _drop(self, key: ResourceKey) -> list[SessionEvent]:
        rules = self._parts.loaded
        held = rules.held
        if held is None or held.resource.number != key.number:
            return []
        return rules.dropped(key.number, held.fence)


def _same_acquisition(one: records.HeldResource, other: records.HeldResource) -> bool:
    return (one.resource.number, one.fence) == (other.resource.number, other.fence)


def _fence(held: records.HeldResource | None, key: ResourceKey) -> int | None:
    """The fencing token with which the session has that resource; None: it does not have it."""
    if held is None or held.resource.number != key.number:
        return None
    return held.fence
