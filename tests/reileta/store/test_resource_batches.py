"""Several writes of a resource in one transaction, and what tells that a resource has changed."""

from __future__ import annotations

import pytest

from reileta.errors import (
    QuotaReached,
    ReiletaError,
    ResourceNotAcquired,
    ResourceNotFound,
    VersionConflict,
)
from reileta.records import ResourceRecord
from reileta.rules.identity import Claimant
from reileta.rules.resource.json_values import Json
from reileta.rules.resource.resource import ResourceKey, Write
from reileta.rules.resource.types import DOCUMENT, WORLD, Content
from reileta.store import Store
from reileta.store.quotas import Quotas
from reileta.store.resources import Resources
from tests.conftest import ManualClock
from tests.reileta.store.sessions import FOR_EVER, make_document, make_session


def of(who: Claimant, fence: int | None, data: Json, if_version: int | None = None) -> Write:
    return Write(who, fence, {"data": data}, if_version)


def versions(outcomes: tuple[ResourceRecord | ReiletaError, ...]) -> list[int | type]:
    return [
        outcome.version if isinstance(outcome, ResourceRecord) else type(outcome)
        for outcome in outcomes
    ]


async def test_a_refused_write_spoils_no_other(store: Store) -> None:
    _, who = await make_session(store)
    _, name = await make_document(store, who, {"a": 1})
    fence = (await store.leases.acquire(name, who, until=FOR_EVER)).fence
    written = await store.resources.write_all(
        name,
        [
            of(who, fence, {"b": 2}),
            of(who, fence - 1, {"old": 1}),
            of(who, fence, {"c": 3}, if_version=1),
            of(who, fence, {"a": None, "c": 4}, if_version=2),
        ],
    )
    assert versions(written.outcomes) == [2, ResourceNotAcquired, VersionConflict, 3]
    stored = await store.resources.get(name)
    assert stored == written.after
    assert stored.record.data == {"b": 2, "c": 4}
    assert stored.record.version == 3


async def test_a_world_has_a_version_for_each_write(store: Store) -> None:
    _, who = await make_session(store)
    made = await store.resources.create(WORLD, who, Content("Sea", {"capacity": 4}))
    name = ResourceKey(WORLD, made.number)
    fence = (await store.leases.acquire(name, who, until=FOR_EVER)).fence
    written = await store.resources.write_all(
        name, [of(who, fence, {"capacity": 5}), of(who, fence, {"capacity": 6})]
    )
    assert versions(written.outcomes) == [2, 3]
    stored = await store.resources.get(name)
    assert (stored.record.version, written.after) == (3, stored)
    assert stored.record.data == {"description": None, "capacity": 6, "tags": ["avr:public"]}


async def test_a_write_over_the_quota_is_refused_alone(store: Store, clock: ManualClock) -> None:
    _, who = await make_session(store)
    _, name = await make_document(store, who, {})
    fence = (await store.leases.acquire(name, who, until=FOR_EVER)).fence
    small = Resources(store.database, clock, store.resources.types, Quotas(documents_bytes=1000))
    written = await small.write_all(
        name,
        [
            of(who, fence, {"a": 1}),
            of(who, fence, {"large": "x" * 2000}),
            of(who, fence, {"b": 2}),
        ],
    )
    assert versions(written.outcomes) == [2, QuotaReached, 3]
    stored = (await store.resources.get(name)).record
    assert (stored.version, stored.data) == (3, {"a": 1, "b": 2})


async def test_a_resource_that_is_gone_has_no_writes(store: Store) -> None:
    _, who = await make_session(store)
    with pytest.raises(ResourceNotFound):
        await store.resources.write_all(ResourceKey(DOCUMENT, 1 << 40), [of(who, 1, {})])


async def test_a_stamp_changes_with_everything_that_watchers_see(store: Store) -> None:
    _, who = await make_session(store)
    _, friend = await make_session(store)
    _, name = await make_document(store, who, {})
    gone = ResourceKey(DOCUMENT, 1 << 40)

    async def stamp() -> object:
        stamps = await store.resources.stamps([name, gone])
        assert list(stamps) == [name.number]
        return stamps[name.number]

    seen = [await stamp()]
    fence = (await store.leases.acquire(name, who, until=FOR_EVER)).fence
    seen.append(await stamp())
    await store.resources.write_all(name, [of(who, fence, {"a": 1})])
    seen.append(await stamp())
    await store.resources.share(name, who, friend.user)
    seen.append(await stamp())
    await store.leases.renew(who.session, until=FOR_EVER + 1)
    assert await stamp() == seen[-1]
    await store.leases.release(name, who)
    seen.append(await stamp())
    assert len(set(map(repr, seen))) == len(seen)


async def test_a_claim_tells_what_a_session_holds(store: Store) -> None:
    _, who = await make_session(store)
    _, name = await make_document(store, who, {})
    claim = await store.leases.claim_of(who.session)
    assert claim is not None
    assert (claim.who, claim.holds) == (who, None)
    await store.leases.acquire(name, who, until=FOR_EVER)
    claim = await store.leases.claim_of(who.session)
    assert claim is not None
    assert claim.holds == name
    await store.sessions.end(who.session)
    assert await store.leases.claim_of(who.session) is None
