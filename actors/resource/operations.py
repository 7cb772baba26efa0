"""Operations on a resource in the database: what its actor's requests do there.

`carry_out` runs beside the actor, one call at a time. The store and its locked lease stay the
authority: nothing here decides by what the actor remembers, except the waiting line, which decides
who may acquire a resource that is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias, assert_never

from actors.resource.messages import (
    Acquire,
    Delete,
    Operation,
    Queue,
    Read,
    Release,
    Share,
    Unqueue,
    Unshare,
    Watch,
    WriteAll,
)
from actors.resource.snapshot import Snapshot, snapshot_of
from reileta.errors import (
    DatabaseUnavailable,
    Detail,
    NotQueued,
    ReiletaError,
    ResourceHeld,
    ResourceNotFound,
    ResourceTaken,
    SessionNotFound,
)
from reileta.rules.identity import Claimant
from reileta.rules.resource.resource import Resource, ResourceKey
from reileta.store import Store
from reileta.store.leases import Claim

WRITES_AT_ONCE: Final = 64
"""How many requests to write share a transaction."""
READS_AT_ONCE: Final = 1024
"""How many requests to read or to watch share a query."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The resource does not exist any more."""


@dataclass(frozen=True, slots=True)
class Unsure:
    """The database may have changed the resource or not: it must be read again."""


Seen: TypeAlias = Snapshot | Gone | Unsure | None
"""What an operation learned about the resource; None: nothing new, or nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Result:
    """The answer of each operation, or its error; and what was seen of the resource after them."""

    answers: tuple[Any, ...]
    seen: Seen


@dataclass(frozen=True, slots=True)
class Turn:
    """Who has the turn to acquire a free resource; None: the session whose operation it is."""

    of: Claimant


@dataclass(frozen=True, slots=True)
class NextInLine:
    """The first session of the line, as it is now, and the resource; None: it is gone."""

    claim: Claim | None
    seen: Snapshot | Gone


def first_run(operations: Sequence[Operation]) -> int:
    """How many of the operations, from the first on, are carried out together."""
    first = operations[0]
    count = 1
    if isinstance(first, (WriteAll, Read, Watch)):
        limit = WRITES_AT_ONCE if isinstance(first, WriteAll) else READS_AT_ONCE
        for other in islice(operations, 1, limit):
            if type(other) is not type(first) or other.name != first.name:
                break
            count += 1
    return count


async def carry_out(
    run: Sequence[Operation], store: Store, *, turn: Turn | None, wanted: bool
) -> Result:
    """Carries out operations of one kind (see `first_run`).

    `turn`: set if somebody else has the turn to acquire it. `wanted`: whether the resource is to be
    read after a change, for those who watch or wait.

    Raises DatabaseUnavailable: it may have carried them out anyway.
    """
    try:
        answers, resource = await _do(run, store, turn)
    except DatabaseUnavailable:
        raise
    except ReiletaError as error:
        return Result((error,) * len(run), Unsure() if wanted else None)
    if isinstance(run[0], Delete):
        return Result(answers, Gone())
    if not wanted and not isinstance(run[0], (Queue, Watch)):
        return Result(answers, None)
    try:
        return Result(answers, await _see(run[0].name, store, resource))
    except DatabaseUnavailable:
        if isinstance(run[0], Watch):
            raise
        return Result(answers, Unsure())  # it is done all the same


async def look(name: ResourceKey, store: Store) -> Snapshot | Gone:
    """The resource as it is now. Raises DatabaseUnavailable."""
    return await _see(name, store, None)


async def next_in_line(name: ResourceKey, first: str, store: Store) -> NextInLine:
    """Whether the first session of the line can get the resource. Raises DatabaseUnavailable."""
    return NextInLine(await store.leases.claim_of(first), await look(name, store))


async def _see(name: ResourceKey, store: Store, resource: Resource | None) -> Snapshot | Gone:
    if resource is None:
        try:
            resource = await store.resources.get(name)
        except ResourceNotFound:
            return Gone()
    return await snapshot_of(resource, store)


async def _do(
    run: Sequence[Operation], store: Store, turn: Turn | None
) -> tuple[tuple[Any, ...], Resource | None]:
    """The answers, and the resource after it if it is known."""
    first = run[0]
    name = first.name
    match first:
        case Acquire(who=who, until=until):
            if turn is not None:
                raise await not_your_turn(name, who, store, turn)
            return (await store.leases.acquire(name, who, until=until),), None
        case Release(who=who):
            return (await store.leases.release(name, who),), None
        case WriteAll():
            requests = [one for one in run if isinstance(one, WriteAll)]
            writes = [write for one in requests for write in one.writes]
            written = await store.resources.write_all(name, writes)
            outcomes = iter(written.outcomes)
            answers = tuple(tuple(next(outcomes) for _ in one.writes) for one in requests)
            return answers, written.after
        case Delete(who=who):
            deleted = await store.resources.delete(
                name, who, fence=first.fence, if_version=first.if_version
            )
            return (deleted,), None
        case Share(who=who, user=user):
            return (await store.resources.share(name, who, user),), None
        case Unshare(who=who, user=user):
            return (await store.resources.unshare(name, who, user),), None
        case Read():
            found = await store.resources.get(name)
            return (found,) * len(run), found
        case Queue(who=who):
            found = await store.resources.get(name)
            found.ensure_may(who)
            claim = await store.leases.claim_of(who.session)
            if claim is None:
                raise SessionNotFound
            if claim.holds is not None:
                raise ResourceHeld.field("resource", str(claim.holds))
            return (None,), found
        case Unqueue(who=who):  # of a session that does not wait
            found = await store.resources.get(name)
            found.ensure_visible(who)
            return (NotQueued(),), found
        case Watch():  # `Watchers.add` checks who may
            found = await store.resources.get(name)
            return (None,) * len(run), found
        case _:
            assert_never(first)


async def not_your_turn(name: ResourceKey, who: Claimant, store: Store, turn: Turn) -> ReiletaError:
    """The error of an acquisition while somebody else has the turn.

    Raises the error that it would get without a waiting line, if there is one.
    """
    found = await store.resources.get(name)
    claim = await store.leases.claim_of(who.session)
    if claim is None:
        raise SessionNotFound
    found.acquire(who, claim.holds, 0)
    return ResourceTaken(Detail("session", turn.of.session), Detail("user", turn.of.user))
