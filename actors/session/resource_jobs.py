"""Jobs on a session's resource: the query of each, and the effect of its outcome.

The actor runs one job at a time (`SerialJobs`). `do` runs beside the actor; `finish` runs in it,
and returns what the rules make of the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

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
    DatabaseUnavailable,
    PermissionDenied,
    ReiletaError,
    ResourceNotAcquired,
    ResourceNotFound,
    ResourceTaken,
)
from reileta.protocol.views.session import ResourceMetadata, held_view
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.session.session import SessionEvent


@dataclass(frozen=True, slots=True)
class RenewLease:
    """The session got its first socket or lost its last one: sets its lease's end."""

    present: bool


@dataclass(frozen=True, slots=True)
class ExpireLease:
    """The session has been without a socket for too long: takes its resource."""


Job: TypeAlias = ResourceRequest | RenewLease | ExpireLease


@dataclass(frozen=True, slots=True)
class JobResult:
    """The outcome of a job that reached the database.

    `answer` or `error`: the store's. `checked`: `held` is the resource that the session has now.
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

    # Beside the actor --------------------------------------------------------------------------

    async def do(self, job: Job) -> JobResult:
        """Does a job in the database.

        Raises:
            DatabaseUnavailable: the database is down; it may have done the job anyway.
        """
        rules, store = self._parts.loaded, self._parts.deps.store
        held, checked = rules.held, self._unsure
        if checked:
            held = await store.leases.of_session(rules.id)
        answer: object = None
        error: ReiletaError | None = None
        try:
            answer = await self._ask_store(job, held)
        except DatabaseUnavailable:
            raise
        except ReiletaError as refusal:
            error = refusal
            if isinstance(refusal, (PermissionDenied, ResourceNotFound)) and rules.held is not None:
                # The session may have lost its resource at another server.
                lease = await store.leases.of_session(rules.id)
                if lease is None or not _same_acquisition(lease, rules.held):
                    held, checked = lease, True
        owner_id = None
        if isinstance(answer, records.HeldResource):
            owner_id = answer.resource.owner
        elif isinstance(answer, records.ResourceRecord) and not isinstance(job, DeleteResource):
            owner_id = answer.owner
        elif checked and held is not None:
            owner_id = held.resource.owner
        owner = None if owner_id is None else await store.users.by_id(owner_id)
        return JobResult(answer, owner, checked, held, error)

    async def _ask_store(self, job: Job, held: records.HeldResource | None) -> object:
        rules, deps = self._parts.loaded, self._parts.deps
        store = deps.store
        match job:
            case AcquireResource(name=key, who=who):
                until = deps.lease_until(present=rules.present)
                return await store.leases.acquire(key, who, until=until)
            case ReleaseResource(name=key, who=who):
                return await store.leases.release(key, who)
            case WriteResource(name=key, who=who):
                return await store.resources.write(
                    key,
                    who,
                    fence=_fence(held, key),
                    patch=job.patch,
                    if_version=job.if_version,
                )
            case DeleteResource(name=key, who=who):
                return await store.resources.delete(
                    key, who, fence=_fence(held, key), if_version=job.if_version
                )
            case RenewLease(present=present):
                until = deps.lease_until(present=present)
                return await store.leases.renew(rules.id, until=until)
            case ExpireLease():
                return await store.leases.expire_one(rules.id)
            case _:
                assert_never(job)

    # In the actor ------------------------------------------------------------------------------

    def finish(self, job: Job, result: outcome.Outcome[JobResult]) -> list[SessionEvent]:
        """Answers the job's request, if it is one; returns what happened to the session."""
        try:
            done = result.unwrap()
        except ReiletaError as error:
            self._unsure = True  # the database may have done the job anyway
            if not isinstance(job, (RenewLease, ExpireLease)):
                job.fail(error)
            return []
        self._unsure = False
        if done.owner is not None:
            self.set_owner(done.owner)
        events = self._check(done.held) if done.checked else []
        if done.error is None:
            events += self._succeed(job, done.answer)
        else:
            events += self._refuse(job, done.error)
        return events

    def _check(self, held: records.HeldResource | None) -> list[SessionEvent]:
        """The database says which resource the session has."""
        rules = self._parts.loaded
        if held is not None:
            return rules.took(held, self._parts.now())
        if rules.held is not None:
            return self._drop(ResourceKey("", rules.held.resource.number))
        return []

    def _succeed(self, job: Job, answer: Any) -> list[SessionEvent]:
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
            case WriteResource():
                if rules.held is not None and rules.held.resource.number == answer.number:
                    held = records.HeldResource(answer, rules.held.fence, rules.held.until)
                    events = rules.took(held, now)
                job.reply(answer)
            case DeleteResource():
                events = self._drop(job.name)
                job.reply(answer)
            case RenewLease():
                pass
            case ExpireLease():
                if isinstance(answer, int):
                    rules.kept_until(answer)
                elif rules.held is not None:
                    events = self._drop(ResourceKey("", rules.held.resource.number))
            case _:
                assert_never(job)
        return events

    def _refuse(self, job: Job, error: ReiletaError) -> list[SessionEvent]:
        if isinstance(job, (RenewLease, ExpireLease)):
            return []
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
