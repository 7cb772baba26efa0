"""The rules of a resource, by sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from reileta.errors import (
    PayloadTooLarge,
    PermissionDenied,
    ReiletaError,
    ResourceHeld,
    ResourceInvalid,
    ResourceNotAcquired,
    ResourceNotFound,
    ResourceTaken,
    VersionConflict,
)
from reileta.records import Lease, ResourceRecord
from reileta.rules.identity import Claimant
from reileta.rules.resource.json_values import Json
from reileta.rules.resource.resource import Resource, ResourceKey
from reileta.rules.resource.types import BUILT_IN

OWNER = Claimant("s_owner", "u_owner")
ADMIN = Claimant("s_admin", "u_admin", admin=True)
FRIEND = Claimant("s_friend", "u_friend")
STRANGER = Claimant("s_stranger", "u_stranger")
AGAIN = replace(OWNER, session="s_again")


def document(data: Json = None) -> Resource:
    record = ResourceRecord(
        17, "document", "u_owner", "Notes", data, 4, 0, 0, frozenset({"u_friend"})
    )
    return Resource(record, Lease(), BUILT_IN["document"])


def world(*tags: str) -> Resource:
    data: Json = {"description": None, "capacity": 4, "tags": [*tags]}
    return Resource(
        ResourceRecord(3, "world", "u_owner", "Sea", data, 1, 0, 0), Lease(), BUILT_IN["world"]
    )


def held(by: Claimant = OWNER, data: Json = None) -> Resource:
    return document(data).acquire(by, None, 60)


@pytest.mark.parametrize("who", [OWNER, ADMIN, FRIEND])
def test_the_owner_admins_and_those_it_is_shared_with_may(who: Claimant) -> None:
    got = document().acquire(who, None, 60)
    assert got.lease == Lease(1, who.session, who.user, 60)
    assert got.held_by(who, 1)
    assert not got.held_by(who, 2)


def test_nobody_else_may() -> None:
    with pytest.raises(PermissionDenied):
        document().acquire(STRANGER, None, 60)
    with pytest.raises(PermissionDenied):
        document().ensure_visible(STRANGER)


def test_autopilots_acquire_nothing() -> None:
    with pytest.raises(PermissionDenied):
        document().acquire(replace(ADMIN, autopilot=True), None, 60)


def test_a_world_shows_to_all_and_a_private_one_is_not_there() -> None:
    world("avr:public").ensure_visible(STRANGER)
    with pytest.raises(PermissionDenied):
        world("avr:public").acquire(STRANGER, None, 60)
    for ask in (world("avr:private").ensure_visible, world("avr:private").ensure_may):
        with pytest.raises(ResourceNotFound):
            ask(STRANGER)


def test_each_session_can_acquire_up_to_one_resource_at_a_time() -> None:
    with pytest.raises(ResourceHeld, match="document/9"):
        document().acquire(OWNER, ResourceKey("document", 9), 60)
    with pytest.raises(ResourceHeld):
        held().acquire(OWNER, ResourceKey("document", 17), 60)


def test_each_resource_can_be_acquired_by_up_to_one_session_at_a_time() -> None:
    with pytest.raises(ResourceTaken) as taken:
        held().acquire(AGAIN, None, 60)
    assert [(one.field, one.message) for one in taken.value.details] == [
        ("session", "s_owner"),
        ("user", "u_owner"),
    ]


def test_the_fencing_number_grows_with_each_acquisition() -> None:
    one = held().release(OWNER).acquire(FRIEND, None, 60)
    assert one.lease.fence == 2


def test_release_of_what_nobody_holds_is_no_op_and_of_anothers_is_refused() -> None:
    free = document()
    assert free.release(FRIEND) is free
    with pytest.raises(ResourceTaken):
        held().release(AGAIN)
    assert held().release(OWNER).lease == Lease(1)


def test_a_lease_is_lost_when_its_time_is_over_and_not_before() -> None:
    one = held()
    assert one.expire(59) is one
    assert one.expire(60).lease == Lease(1)
    assert one.renew("s_owner", 90).expire(60).lease.session == "s_owner"
    assert one.renew("s_again", 90) is one


WRITES: dict[str, Callable[[Resource, Claimant, int | None], object]] = {
    "view": lambda one, who, fence: one.ensure_held(who, fence),
    "write": lambda one, who, fence: one.write(who, fence, {"data": 1}, None, 5),
}


@pytest.mark.parametrize("do", WRITES.values(), ids=WRITES)
def test_view_and_write_need_the_acquisition(
    do: Callable[[Resource, Claimant, int | None], object],
) -> None:
    do(held(), OWNER, 1)
    cases: list[tuple[Resource, Claimant, int | None, type[ReiletaError]]] = [
        (document(), OWNER, None, ResourceNotAcquired),
        (document(), OWNER, 0, ResourceNotAcquired),
        (held(), OWNER, None, ResourceNotAcquired),
        (held(), OWNER, 2, ResourceNotAcquired),
        (held(), AGAIN, 1, ResourceTaken),
        (held().release(OWNER), OWNER, 1, ResourceNotAcquired),
        (held().release(OWNER).acquire(OWNER, None, 60), OWNER, 1, ResourceNotAcquired),
        (held().release(OWNER).acquire(FRIEND, None, 60), OWNER, 1, ResourceTaken),
    ]
    for one, who, fence, error in cases:
        with pytest.raises(error):
            do(one, who, fence)


def test_a_write_is_a_merge_patch_and_makes_a_version() -> None:
    one = held(data={"a": 1, "b": {"c": 2}})
    after = one.write(OWNER, 1, {"title": " Songs ", "data": {"a": None, "b": {"d": 3}}}, 4, 9)
    assert (after.record.title, after.record.data) == ("Songs", {"b": {"c": 2, "d": 3}})
    assert (after.record.version, after.record.updated_at, after.lease) == (5, 9, one.lease)


def test_a_write_changes_title_and_data_alone() -> None:
    after = held().write(OWNER, 1, {"owner": "u_me", "id": 1, "version": 9}, None, 9)
    assert after.record == replace(held().record, version=5, updated_at=9)
    assert held(data={"a": 1}).write(OWNER, 1, {"data": None}, None, 9).record.data is None


def test_a_write_of_another_version_is_a_conflict() -> None:
    with pytest.raises(VersionConflict, match="is 4"):
        held().write(OWNER, 1, {}, 3, 9)
    with pytest.raises(VersionConflict):
        held().ensure_deletable(OWNER, 1, 5)


@pytest.mark.parametrize("title", [None, "", 5, "x" * 129, "a\0"])
def test_a_title_is_checked(title: Json) -> None:
    with pytest.raises(ResourceInvalid, match="title"):
        held().write(OWNER, 1, {"title": title}, None, 9)


def test_data_has_a_limit_after_the_patch_too() -> None:
    half = "x" * (130 * 1024)
    with pytest.raises(PayloadTooLarge):
        held(data={"a": half}).write(OWNER, 1, {"data": {"b": half}}, None, 9)


def test_deleting_needs_the_acquisition_and_to_be_the_owner_or_an_admin() -> None:
    held().ensure_deletable(OWNER, 1, 4)
    held(ADMIN).ensure_deletable(ADMIN, 1, None)
    with pytest.raises(ResourceNotAcquired):
        document().ensure_deletable(OWNER, None, None)
    with pytest.raises(PermissionDenied):
        held(FRIEND).ensure_deletable(FRIEND, 1, None)


@pytest.mark.parametrize("who", [FRIEND, STRANGER])
def test_the_owner_and_admins_share(who: Claimant) -> None:
    for one in (OWNER, ADMIN):
        document().share(one, "u_stranger").ensure_may(STRANGER)
    with pytest.raises(PermissionDenied):
        document().share(who, "u_stranger")
    with pytest.raises(ResourceNotFound):
        world("avr:private").share(who, "u_stranger")


def test_who_is_shared_with_no_longer_loses_it() -> None:
    after = held(FRIEND).unshare(OWNER, "u_friend", admin=False)
    assert after.lease == Lease(1)
    assert after.record.shares == frozenset()
    assert held(FRIEND).unshare(FRIEND, "u_friend", admin=False).lease.session is None
    assert held(FRIEND).unshare(OWNER, "u_friend", admin=True).lease.session == "s_friend"
    assert held(OWNER).unshare(OWNER, "u_friend", admin=False).lease.session == "s_owner"
    assert held(OWNER).unshare(OWNER, "u_owner", admin=False).lease.session == "s_owner"
    with pytest.raises(PermissionDenied):
        held(FRIEND).unshare(STRANGER, "u_friend", admin=False)


ASKS: dict[str, Callable[[Resource, Claimant], object]] = {
    "acquire": lambda one, who: one.acquire(who, ResourceKey("document", 9), 60),
    "release": lambda one, who: one.release(who),
    "write": lambda one, who: one.write(who, None, {"title": ""}, 9, 5),
    "delete": lambda one, who: one.ensure_deletable(who, None, 9),
    "share": lambda one, who: one.share(who, "u_stranger"),
    "unshare": lambda one, who: one.unshare(who, "u_friend", admin=False),
    "unshare itself": lambda one, who: one.unshare(who, who.user, admin=False),
    "preview": lambda one, who: one.ensure_visible(who),
    "view": lambda one, who: one.ensure_may(who),
}


@pytest.mark.parametrize("pilot", [False, True])
@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_who_may_not_see_it_learns_nothing_of_it(
    ask: Callable[[Resource, Claimant], object], pilot: bool
) -> None:
    """Whatever is asked, and whoever has it: neither its holder nor its version, nor that it is
    there at all if it is hidden."""
    stranger = replace(STRANGER, autopilot=pilot)
    hidden = world("avr:private")
    for one in (document(), held()):
        with pytest.raises(PermissionDenied) as denied:
            ask(one, stranger)
        assert denied.value.details == ()
    for one in (hidden, hidden.acquire(OWNER, None, 60)):
        with pytest.raises(ResourceNotFound) as missing:
            ask(one, stranger)
        assert missing.value.details == ()


def test_who_takes_its_own_share_back_may_not_see_it_afterwards() -> None:
    for one in (document(), world("avr:private").share(OWNER, "u_friend")):
        assert one.visible_to(FRIEND)
        assert not one.unshare(FRIEND, "u_friend", admin=False).visible_to(FRIEND)
    seen = world("avr:public").unshare(FRIEND, "u_friend", admin=False)
    assert seen.visible_to(FRIEND)


def test_a_session_can_always_give_back_what_it_has() -> None:
    one = held(ADMIN)
    demoted = replace(ADMIN, admin=False)
    assert one.release(demoted).lease == Lease(1)
    with pytest.raises(PermissionDenied):
        one.write(demoted, 1, {}, None, 5)


def test_others_changes_of_what_is_held_are_refused() -> None:
    held().ensure_unheld("s_owner")
    document().ensure_unheld(None)
    for session in (None, "s_again"):
        with pytest.raises(ResourceTaken):
            held().ensure_unheld(session)
