"""Tags of users, worlds and instances, and who may set them.

A vocabulary is closed: any other tag is `TagUnknown`. Tags of one group exclude each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

from reileta.errors import (
    Detail,
    InstanceInvalid,
    InvalidInput,
    PermissionDenied,
    ServiceInvalid,
    TagUnknown,
    UserInvalid,
    WorldInvalid,
)
from reileta.records import ADMIN_TAG
from reileta.rules.instance.access import ACCESS_TAGS, PUBLIC

PERMANENT: Final = "avr:permanent"
"""An instance that does not close when it is empty."""
OFFICIAL: Final = "avr:official"


@dataclass(frozen=True, slots=True)
class TagVocabulary:
    """The tags that one kind of object can have.

    Attributes:
        groups: tags of which an object has at most one each.
        others: tags that can be combined freely.
        defaults: added when the object has no tag of the default's group.
        admin_only: tags that only admins can add and remove.
        invalid: the error for two tags of one group.
    """

    groups: tuple[tuple[str, ...], ...]
    others: frozenset[str]
    defaults: tuple[str, ...]
    admin_only: frozenset[str]
    invalid: type[InvalidInput]

    @property
    def known(self) -> frozenset[str]:
        return self.others.union(*self.groups)

    def schema(self) -> dict[str, Any]:
        """The part of this that JSON Schema can express: known tags, and tags that exclude each
        other."""
        clashes = [
            {"allOf": [{"contains": {"const": tag}} for tag in pair]}
            for group in self.groups
            for pair in combinations(group, 2)
        ]
        schema: dict[str, Any] = {"items": {"type": "string", "enum": sorted(self.known)}}
        return {**schema, "not": {"anyOf": clashes}} if clashes else schema

    def resolve(
        self, asked: Iterable[str], *, admin: bool, before: Iterable[str] = ()
    ) -> frozenset[str]:
        """The tags of an object after a request for `asked`; `before` are its current tags.

        Raises:
            TagUnknown: the vocabulary does not have one of them.
            PermissionDenied: a user who is not an admin would add or remove an admins' tag.
            InvalidInput: (the kind's own) two tags exclude each other.
        """
        tags = frozenset(asked)
        unknown = sorted(tags - self.known)
        if unknown:
            raise TagUnknown(*(Detail("tags", f"{tag[:64]!r} is unknown") for tag in unknown[:8]))
        for group in self.groups:
            chosen = [tag for tag in group if tag in tags]
            if len(chosen) > 1:
                raise self.invalid.field("tags", f"must not hold both {' and '.join(chosen)}")
            if not chosen:
                tags = tags.union(tag for tag in self.defaults if tag in group)
        reserved = sorted((tags ^ frozenset(before)) & self.admin_only)
        if reserved and not admin:
            raise PermissionDenied.field("tags", f"only admins can set {reserved[0]}")
        return tags


USER_TAGS: Final = TagVocabulary(
    groups=(),
    others=frozenset({ADMIN_TAG}),
    defaults=(),
    admin_only=frozenset({ADMIN_TAG}),
    invalid=UserInvalid,
)
WORLD_TAGS: Final = TagVocabulary(
    groups=(("avr:public", "avr:private"), ("avr:development", "avr:release")),
    others=frozenset({OFFICIAL}),
    defaults=("avr:public",),
    admin_only=frozenset({OFFICIAL}),
    invalid=WorldInvalid,
)
INSTANCE_TAGS: Final = TagVocabulary(
    groups=(ACCESS_TAGS,),
    others=frozenset({PERMANENT, OFFICIAL}),
    defaults=(PUBLIC,),
    admin_only=frozenset({PERMANENT, OFFICIAL}),
    invalid=InstanceInvalid,
)
SERVICE_TAGS: Final = TagVocabulary(
    groups=(),
    others=frozenset({OFFICIAL}),
    defaults=(),
    admin_only=frozenset({OFFICIAL}),
    invalid=ServiceInvalid,
)
