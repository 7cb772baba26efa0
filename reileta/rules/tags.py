"""Tags of users, worlds and instances, and who may set them.

A vocabulary is closed: any other tag is `TagUnknown`. Tags of one group exclude each other: of
several, the strictest is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from reileta.errors import (
    Detail,
    PermissionDenied,
    TagUnknown,
)
from reileta.records import ADMIN_TAG, DISABLED_TAG
from reileta.rules.instance.access import ACCESS_TAGS, PUBLIC

PERMANENT: Final = "avr:permanent"
"""An instance that does not close when it is empty."""
OFFICIAL: Final = "avr:official"
NO_GUESTS: Final = "avr:no_guests"
"""An instance that users of other servers can't enter."""


@dataclass(frozen=True, slots=True)
class TagVocabulary:
    """The tags that one kind of object can have.

    Attributes:
        groups: tags of which an object has at most one each, from the loosest to the strictest.
        others: tags that can be combined freely.
        defaults: added when the object has no tag of the default's group.
        admin_only: tags that only admins can add and remove.
        aliases: other spellings that clients send.
    """

    groups: tuple[tuple[str, ...], ...]
    others: frozenset[str]
    defaults: tuple[str, ...]
    admin_only: frozenset[str]
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def known(self) -> frozenset[str]:
        return self.others.union(*self.groups)

    def schema(self) -> dict[str, Any]:
        """The part of this that JSON Schema can express: known tags, in their own spelling."""
        return {"items": {"type": "string", "enum": sorted(self.known)}}

    def spelled(self, tag: str) -> str:
        """The tag in its own spelling."""
        return self.aliases.get(tag, tag)

    def resolve(
        self, asked: Iterable[str], *, admin: bool, before: Iterable[str] = ()
    ) -> frozenset[str]:
        """The tags of an object after a request for `asked`; `before` are its current tags.

        Raises:
            TagUnknown: the vocabulary does not have one of them.
            PermissionDenied: a user who is not an admin would add or remove an admins' tag.
        """
        tags = frozenset(map(self.spelled, asked))
        unknown = sorted(tags - self.known)
        if unknown:
            raise TagUnknown(*(Detail("tags", f"{tag[:64]!r} is unknown") for tag in unknown[:8]))
        for group in self.groups:
            chosen = [tag for tag in group if tag in tags]
            tags = tags.difference(chosen[:-1])
            if not chosen:
                tags = tags.union(tag for tag in self.defaults if tag in group)
        reserved = sorted((tags ^ frozenset(before)) & self.admin_only)
        if reserved and not admin:
            raise PermissionDenied.field("tags", f"only admins can set {reserved[0]}")
        return tags


USER_TAGS: Final = TagVocabulary(
    groups=(),
    others=frozenset({ADMIN_TAG, DISABLED_TAG}),
    defaults=(),
    admin_only=frozenset({ADMIN_TAG, DISABLED_TAG}),
)
WORLD_TAGS: Final = TagVocabulary(
    groups=(("avr:public", "avr:private"), ("avr:development", "avr:release")),
    others=frozenset({OFFICIAL}),
    defaults=("avr:public",),
    admin_only=frozenset({OFFICIAL}),
    aliases={"avr:develepement": "avr:development"},
)
INSTANCE_TAGS: Final = TagVocabulary(
    groups=(ACCESS_TAGS,),
    others=frozenset({PERMANENT, OFFICIAL, NO_GUESTS}),
    defaults=(PUBLIC,),
    admin_only=frozenset({PERMANENT, OFFICIAL}),
)
SERVICE_TAGS: Final = TagVocabulary(
    groups=(),
    others=frozenset({OFFICIAL}),
    defaults=(),
    admin_only=frozenset({OFFICIAL}),
)
