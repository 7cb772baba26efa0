"""Resource types: the content of each, and who may see it.

A host adds its own type by subclassing `ResourceType` and passing `BUILT_IN.extended(MyType())` to
`reileta.main.run`. Its rows are stored like documents, with leases, fencing, versions and shares:

    class Playlist(ResourceType):
        name = "playlist"

        def check(self, content, *, admin, before):
            songs = content.data
            if not isinstance(songs, list) or not all(isinstance(song, str) for song in songs):
                raise self.invalid.field("data", "must be an array of strings")
            return super().check(content, admin=admin, before=before)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from pydantic import Field

from reileta.errors import InvalidInput, ResourceInvalid, ResourceTypeUnknown, WorldInvalid
from reileta.protocol.input_types import Capacity, Description, Input, TagList, Title, check
from reileta.records import ResourceRecord
from reileta.rules import visibility
from reileta.rules.resource.json_values import Json, refuse_if_unstorable
from reileta.rules.tags import WORLD_TAGS

DATA_LIMIT_BYTES: Final = 256 * 1024
"""Largest `data` of a resource, as canonical JSON."""
DEFAULT_CAPACITY: Final = 32
DOCUMENT: Final = "document"
WORLD: Final = "world"

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, slots=True)
class Content:
    """The part of a resource that users write."""

    title: str
    data: Json = None


class _Titled(Input):
    title: Title


class ResourceType:
    """A resource type; subclasses override where they differ from a document."""

    name: ClassVar[str]
    """1 to 32 of a-z, 0-9 and _, starting with a letter; used in paths and in the database."""
    invalid: ClassVar[type[InvalidInput]] = ResourceInvalid
    """The error for invalid content."""
    public: ClassVar[bool] = False
    """Whether users who may not acquire a resource see it in lists and previews."""
    limit_bytes: ClassVar[int] = DATA_LIMIT_BYTES

    def check(self, content: Content, *, admin: bool, before: Content | None) -> Content:
        """Checks the content and returns it as it will be stored; `before` is None for a new
        resource.

        Called with unchecked input. Raises `invalid`, or PayloadTooLarge for data over
        `limit_bytes`.
        """
        title = self._title(content, before)
        data = refuse_if_unstorable(
            content.data, limit_bytes=self.limit_bytes, field="data", error=self.invalid
        )
        return Content(title, data)

    def _title(self, content: Content, before: Content | None) -> str:
        """The checked title. One that an older version stored stays until it is changed."""
        if before is not None and content.title == before.title:
            return before.title
        return check(_Titled, {"title": content.title}, self.invalid).title

    def shows(self, resource: ResourceRecord) -> bool:
        """Whether users who may not acquire this resource can see it."""
        return self.public

    def hides(self, resource: ResourceRecord) -> bool:
        """Whether users who may not acquire this resource get "not found"."""
        return False

    def preview(self, resource: ResourceRecord) -> dict[str, Json]:
        """The content for readers who don't hold it; `owner` is added."""
        return {
            "id": resource.number,
            "type": resource.type,
            "title": resource.title,
            "version": resource.version,
        }

    def view(self, resource: ResourceRecord) -> dict[str, Json]:
        """The content for the session that holds it."""
        return {**self.preview(resource), "data": resource.data}


class Document(ResourceType):
    """Any JSON with a title."""

    name = DOCUMENT


class _WorldData(Input):
    description: Description | None = None
    capacity: Capacity = Field(default=DEFAULT_CAPACITY)
    tags: TagList = ()


class World(ResourceType):
    """A world of the registry by its number; `data` is `{description, capacity, tags}`.

    It is the same world as in the registry API: in its own table, with the registry's rules.
    """

    name = WORLD
    invalid = WorldInvalid

    def check(self, content: Content, *, admin: bool, before: Content | None) -> Content:
        given = {} if content.data is None else content.data
        if not isinstance(given, dict):
            raise self.invalid.field("data", "must be an object")
        title = self._title(content, before)
        data = check(_WorldData, given, self.invalid, within="data")
        had = () if before is None else tags_of(before.data)
        kept = WORLD_TAGS.resolve(data.tags, admin=admin, before=had)
        return Content(
            title,
            {
                "description": data.description or None,
                "capacity": data.capacity,
                "tags": [*sorted(kept)],
            },
        )

    def shows(self, resource: ResourceRecord) -> bool:
        return not self.hides(resource)

    def hides(self, resource: ResourceRecord) -> bool:
        return visibility.is_private(tags_of(resource.data))


def tags_of(data: Json) -> tuple[str, ...]:
    """The tags in a world's data."""
    tags = data.get("tags") if isinstance(data, dict) else None
    return tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()


class ResourceTypes(Mapping[str, ResourceType]):
    """The types that a server knows, by name."""

    def __init__(self, *types: ResourceType) -> None:
        """Raises ValueError for an invalid or repeated name."""
        self._types: dict[str, ResourceType] = {}
        for one in types:
            if _NAME.fullmatch(one.name) is None or one.name in self._types:
                raise ValueError(f"invalid or repeated name of a resource type: {one.name!r}")
            self._types[one.name] = one

    def extended(self, *types: ResourceType) -> ResourceTypes:
        """These types and more. Raises ValueError."""
        return ResourceTypes(*self._types.values(), *types)

    def of(self, name: str) -> ResourceType:
        """The type of that name. Raises ResourceTypeUnknown."""
        found = self._types.get(name)
        if found is None:
            raise ResourceTypeUnknown
        return found

    def __getitem__(self, name: str) -> ResourceType:
        return self._types[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)


BUILT_IN: Final = ResourceTypes(Document(), World())
