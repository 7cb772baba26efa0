from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest

from reileta.errors import (
    PayloadTooLarge,
    PermissionDenied,
    ResourceInvalid,
    ResourceTypeUnknown,
    TagUnknown,
    WorldInvalid,
)
from reileta.records import ResourceRecord
from reileta.rules.resource.json_values import Json
from reileta.rules.resource.types import (
    BUILT_IN,
    DATA_LIMIT_BYTES,
    Content,
    ResourceType,
    ResourceTypes,
    tags_of,
)

WORLD = ResourceRecord(3, "world", "u_1", "Sea", {"tags": ["avr:public"]}, 7, 0, 0)


class Playlist(ResourceType):
    """A host's own type."""

    name = "playlist"
    public: ClassVar[bool] = True

    def check(self, content: Content, *, admin: bool, before: Content | None) -> Content:
        if not isinstance(content.data, list):
            raise self.invalid.field("data", "must be a list of strings")
        return super().check(content, admin=admin, before=before)


def checked(type_: str, title: str, data: Json, *, admin: bool = False) -> Content:
    return BUILT_IN.of(type_).check(Content(title, data), admin=admin, before=None)


def test_there_are_documents_and_worlds() -> None:
    assert set(BUILT_IN) == {"document", "world"}
    assert len(BUILT_IN) == 2
    with pytest.raises(ResourceTypeUnknown):
        BUILT_IN.of("playlist")


def test_a_host_adds_a_type_of_its_own() -> None:
    types = BUILT_IN.extended(Playlist())
    own = types.of("playlist")
    assert own.check(Content("Mine", ["a"]), admin=False, before=None) == Content("Mine", ["a"])
    with pytest.raises(ResourceInvalid):
        own.check(Content("Mine", {}), admin=False, before=None)
    assert own.shows(WORLD)
    assert not own.hides(WORLD)
    assert set(BUILT_IN) == {"document", "world"}


@pytest.mark.parametrize("name", ["", "Song", "a/b", "1st", "x" * 33, "document"])
def test_a_type_needs_a_name_of_its_own(name: str) -> None:
    class Named(ResourceType):
        pass

    Named.name = name
    with pytest.raises(ValueError, match="resource type"):
        BUILT_IN.extended(Named())


def test_a_documents_data_is_any_json_within_its_limit() -> None:
    fits = "x" * (DATA_LIMIT_BYTES - 2)
    assert checked("document", " A ", fits) == Content("A", fits)
    with pytest.raises(PayloadTooLarge):
        checked("document", "A", fits + "x")
    with pytest.raises(ResourceInvalid):
        checked("document", "A", "\ud800")


def test_a_worlds_data_is_under_the_rules_of_worlds() -> None:
    assert checked("world", "Sea", None).data == {
        "description": None,
        "capacity": 32,
        "tags": ["avr:public"],
    }
    bad: list[Json] = [
        [],
        {"capacity": 0},
        {"capacity": "4"},
    ]
    for data in bad:
        with pytest.raises(WorldInvalid):
            checked("world", "Sea", data)
    with pytest.raises(WorldInvalid):
        checked("world", "", None)
    private = checked("world", "Sea", {"tags": ["avr:public", "avr:private"]})
    assert tags_of(private.data) == ("avr:private",)
    with pytest.raises(TagUnknown):
        checked("world", "Sea", {"tags": ["x"]})
    with pytest.raises(PermissionDenied):
        checked("world", "Sea", {"tags": ["avr:official"]})
    official = checked("world", "Sea", {"tags": ["avr:official"]}, admin=True)
    assert tags_of(official.data) == ("avr:official", "avr:public")
    kept = BUILT_IN.of("world").check(official, admin=False, before=official)
    assert kept == official, "who is no admin may leave an admin's tag where it is"


def test_a_preview_shows_what_there_is_and_a_view_what_is_in_it() -> None:
    world = BUILT_IN.of("world")
    assert world.preview(WORLD) == {"id": 3, "type": "world", "title": "Sea", "version": 7}
    assert world.view(WORLD) == {**world.preview(WORLD), "data": {"tags": ["avr:public"]}}


def test_private_worlds_are_hidden() -> None:
    world = BUILT_IN.of("world")
    assert world.shows(WORLD)
    private = replace(WORLD, data={"tags": ["avr:private"]})
    assert world.hides(private)
    assert not world.shows(private)
    assert tags_of(None) == tags_of({"tags": 1}) == ()


def test_types_are_a_mapping() -> None:
    types = ResourceTypes(Playlist())
    assert dict(types) == {"playlist": types["playlist"]}


@pytest.mark.parametrize("type_", ["document", "world"])
def test_a_title_of_an_older_version_stays_until_it_is_changed(type_: str) -> None:
    kind = BUILT_IN.of(type_)
    before = Content("Sea\u200b", {"tags": ["avr:public"]})
    after = kind.check(replace(before, data={"capacity": 5}), admin=False, before=before)
    assert after.title == before.title
    for title in ("\u200bSea", "Sea\u200b\u200b"):
        with pytest.raises((ResourceInvalid, WorldInvalid)):
            kind.check(Content(title, {}), admin=False, before=before)
    with pytest.raises((ResourceInvalid, WorldInvalid)):
        kind.check(before, admin=False, before=None)
