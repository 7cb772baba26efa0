"""Who is owed what after a change of a resource."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reileta.errors import PermissionDenied, QuotaReached
from reileta.records import Lease, ResourceRecord
from reileta.rules.identity import Claimant
from reileta.rules.resource import watchers as module
from reileta.rules.resource.resource import Resource
from reileta.rules.resource.types import Document
from reileta.rules.resource.watchers import EndReason, Owed, Watchers

OWNER = Claimant("s_owner", "u_owner")
FRIEND = Claimant("s_friend", "u_friend")
ADMIN = Claimant("s_admin", "u_admin", admin=True)
ANYONE = Claimant("s_anyone", "u_anyone")


class Board(Document):
    name = "board"
    public = True


def never_slow(_: str) -> bool:
    return False


def resource(*, public: bool = False, version: int = 1, holder: str | None = None) -> Resource:
    record = ResourceRecord(
        17, "document", "u_owner", "Door", {}, version, 0, version, frozenset({"u_friend"})
    )
    return Resource(record, Lease(1, holder), Board() if public else Document())


def unshared(before: Resource) -> Resource:
    return replace(before, record=replace(before.record, shares=frozenset()))


def test_whoever_may_acquire_it_is_owed_patches_and_others_the_preview() -> None:
    watchers: Watchers[str] = Watchers()
    before, after = resource(public=True), resource(public=True, version=2)
    assert watchers.add("friend", FRIEND, before) is Owed.VIEW
    assert watchers.add("anyone", ANYONE, before) is Owed.PREVIEW
    changes = watchers.change(before, after, never_slow)
    assert changes.owed == {Owed.PATCH: ["friend"], Owed.PREVIEW: ["anyone"]}


def test_whoever_may_not_see_it_can_not_watch() -> None:
    watchers: Watchers[str] = Watchers()
    with pytest.raises(PermissionDenied):
        watchers.add("anyone", ANYONE, resource())
    assert len(watchers) == 0


def test_a_change_that_nobody_sees_is_told_nobody() -> None:
    watchers: Watchers[str] = Watchers()
    watchers.add("owner", OWNER, resource())
    longer = replace(resource(), lease=Lease(1, None, until=99))
    assert not watchers.change(resource(), longer, never_slow)


def test_a_new_holder_is_told() -> None:
    watchers: Watchers[str] = Watchers()
    watchers.add("owner", OWNER, resource())
    assert watchers.change(resource(), resource(holder="s_friend"), never_slow).owed


def test_a_user_who_may_no_longer_see_it_watches_no_longer() -> None:
    watchers: Watchers[str] = Watchers()
    watchers.add("friend", FRIEND, resource())
    watchers.add("owner", OWNER, resource())
    changes = watchers.change(resource(), unshared(resource()), never_slow)
    assert changes.ended == {EndReason.UNSHARED: ["friend"]}
    assert list(watchers) == ["owner"]


def test_a_user_who_may_only_see_the_preview_now_gets_no_patch() -> None:
    watchers: Watchers[str] = Watchers()
    before = resource(public=True)
    watchers.add("friend", FRIEND, before)
    after = unshared(replace(before, record=replace(before.record, version=2)))
    assert watchers.change(before, after, never_slow).owed == {Owed.PREVIEW: ["friend"]}
    again = watchers.change(after, before, never_slow)
    assert again.owed == {Owed.VIEW: ["friend"]}


def test_a_former_admin_watches_no_longer() -> None:
    watchers: Watchers[str] = Watchers()
    watchers.add("admin", ADMIN, resource())
    assert watchers.set_admin("u_admin", admin=False)
    assert not watchers.set_admin("u_other", admin=False)
    changes = watchers.change(resource(), resource(), never_slow)
    assert changes.ended == {EndReason.HIDDEN: ["admin"]}


def test_a_deletion_ends_all_watches() -> None:
    watchers: Watchers[str] = Watchers()
    watchers.add("owner", OWNER, resource())
    assert watchers.change(resource(), None, never_slow).ended == {EndReason.DELETED: ["owner"]}
    assert len(watchers) == 0


def test_a_slow_watcher_gets_the_newest_view_when_it_has_caught_up() -> None:
    watchers: Watchers[str] = Watchers()
    slow = {"owner"}
    watchers.add("owner", OWNER, resource())
    assert not watchers.change(resource(), resource(version=2), slow.__contains__)
    assert watchers.lagging()
    assert not watchers.catch_up(slow.__contains__)
    slow.clear()
    assert watchers.catch_up(slow.__contains__).owed == {Owed.VIEW: ["owner"]}
    assert not watchers.lagging()
    changes = watchers.change(resource(version=2), resource(version=3), slow.__contains__)
    assert changes.owed == {Owed.PATCH: ["owner"]}


def test_a_watcher_that_missed_a_change_gets_a_view_and_not_the_next_patch() -> None:
    watchers: Watchers[str] = Watchers()
    slow = {"owner"}
    watchers.add("owner", OWNER, resource())
    watchers.change(resource(), resource(version=2), slow.__contains__)
    slow.clear()
    changes = watchers.change(resource(version=2), resource(version=3), slow.__contains__)
    assert changes.owed == {Owed.VIEW: ["owner"]}
    assert not watchers.lagging()
    changes = watchers.change(resource(version=3), resource(version=4), slow.__contains__)
    assert changes.owed == {Owed.PATCH: ["owner"]}


def test_watchers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCHERS_LIMIT", 1)
    watchers: Watchers[str] = Watchers()
    watchers.add("a", OWNER, resource())
    watchers.add("a", OWNER, resource())
    with pytest.raises(QuotaReached):
        watchers.add("b", OWNER, resource())
    assert not watchers.end(["b"], EndReason.FAILED)
    assert watchers.end(["a"], EndReason.FAILED).ended == {EndReason.FAILED: ["a"]}


@pytest.mark.parametrize("again", [True, False])
def test_a_slow_watcher_that_watches_again_or_ends_is_not_behind(again: bool) -> None:
    watchers: Watchers[str] = Watchers()
    watchers.add("owner", OWNER, resource())
    watchers.change(resource(), resource(version=2), lambda _: True)
    assert watchers.lagging()
    if again:
        assert watchers.add("owner", OWNER, resource(version=2)) is Owed.VIEW
    else:
        watchers.remove("owner")
    assert not watchers.lagging()
    assert not watchers.catch_up(never_slow)
    changes = watchers.change(resource(version=2), resource(version=3), never_slow)
    assert changes.owed == ({Owed.PATCH: ["owner"]} if again else {})


def test_a_watcher_that_came_while_it_was_shared_is_decided_again() -> None:
    """It was added to others who were told of another state."""
    watchers: Watchers[str] = Watchers()
    shared, before = resource(), unshared(resource())
    watchers.add("owner", OWNER, before)
    watchers.add("friend", FRIEND, shared)
    changes = watchers.change(shared, before, never_slow)
    assert changes.ended == {EndReason.UNSHARED: ["friend"]}


def test_a_resource_that_the_type_hides_now_is_watched_no_longer() -> None:
    watchers: Watchers[str] = Watchers()
    before = resource(public=True)
    watchers.add("anyone", ANYONE, before)
    watchers.add("friend", FRIEND, before)
    changes = watchers.change(before, resource(), never_slow)
    assert changes.ended == {EndReason.HIDDEN: ["anyone"]}
    assert list(watchers) == ["friend"]


def test_a_new_owner_sees_the_view_and_the_former_one_watches_no_longer() -> None:
    watchers: Watchers[str] = Watchers()
    before = resource()
    watchers.add("owner", OWNER, before)
    watchers.add("friend", FRIEND, before)
    after = replace(before, record=replace(before.record, owner="u_new"))
    changes = watchers.change(before, after, never_slow)
    assert changes.ended == {EndReason.HIDDEN: ["owner"]}
    assert changes.owed == {Owed.PATCH: ["friend"]}


def test_a_first_change_is_a_view() -> None:
    """Nothing is known that a patch could apply to."""
    watchers: Watchers[str] = Watchers()
    watchers.add("owner", OWNER, resource())
    assert watchers.change(None, resource(), never_slow).owed == {Owed.VIEW: ["owner"]}


def test_a_user_it_is_shared_with_is_sent_the_view_although_nothing_else_changed() -> None:
    watchers: Watchers[str] = Watchers()
    shared = resource(public=True)
    before = unshared(shared)
    assert watchers.add("friend", FRIEND, before) is Owed.PREVIEW
    watchers.add("anyone", ANYONE, before)
    slow = {"friend"}
    assert not watchers.change(before, shared, slow.__contains__)
    assert watchers.catch_up(never_slow).owed == {Owed.VIEW: ["friend"]}
    watchers.change(shared, before, never_slow)
    assert watchers.change(before, shared, never_slow).owed == {Owed.VIEW: ["friend"]}


def test_after_a_failure_nobody_gets_a_patch() -> None:
    watchers: Watchers[str] = Watchers()
    watchers.add("owner", OWNER, resource())
    watchers.restart()
    changes = watchers.change(resource(), resource(version=2), never_slow)
    assert changes.owed == {Owed.VIEW: ["owner"]}
