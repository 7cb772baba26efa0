"""Who watches a resource, and what each is owed after a change.

A watcher who may only see the preview is owed that. A watcher who may acquire the resource sees its
whole view, and is owed the merge patch between the view that it was sent last and the new one. A
watcher whose socket is too slow is sent nothing meanwhile, and the newest view later; so no watcher
ever gets a patch that it can't apply.

Overflow policy: `WATCHERS_LIMIT` sockets watch a resource, and a session watches at most
`WATCHES_PER_SESSION` resources with all its sockets; one more is refused with QuotaReached.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Generic, TypeVar

from reileta.errors import QuotaReached
from reileta.rules.identity import Claimant
from reileta.rules.resource.resource import Resource

WATCHERS_LIMIT: Final = 10_000
"""How many sockets may watch one resource."""
WATCHES_PER_SESSION: Final = 256
"""How many resources one session may watch; a resource counts once for each socket."""

K = TypeVar("K")


class Owed(enum.Enum):
    """What a watcher is to be sent."""

    PREVIEW = enum.auto()
    VIEW = enum.auto()
    """The whole view: it has none, or an older one than the last."""
    PATCH = enum.auto()
    """The difference between the last view and the new one."""


class EndReason(enum.StrEnum):
    """Why a watch ended."""

    DELETED = "deleted"
    """The resource was deleted."""
    UNSHARED = "unshared"
    """It is no longer shared with the user."""
    HIDDEN = "hidden"
    """The user may no longer see it: it became private, or the user is no longer an admin."""
    FAILED = "failed"
    """The server failed."""


@dataclass(slots=True)
class Watcher:
    """One watcher; `whole`: it may see the whole view, and not only the preview.

    `behind`: it has not got the last change.
    """

    who: Claimant
    whole: bool
    behind: bool = False


@dataclass(slots=True)
class WatchChanges(Generic[K]):
    """What follows from a change for the watchers."""

    owed: dict[Owed, list[K]] = field(default_factory=dict)
    ended: dict[EndReason, list[K]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.owed or self.ended)


class Watchers(Generic[K]):
    """The watchers of one resource, by a hashable key of the caller's."""

    def __init__(self) -> None:
        self._watchers: dict[K, Watcher] = {}

    def __len__(self) -> int:
        return len(self._watchers)

    def __contains__(self, key: K) -> bool:
        return key in self._watchers

    def __iter__(self) -> Iterator[K]:
        return iter(self._watchers)

    def lagging(self) -> bool:
        """Whether some watcher has not got the last change."""
        return any(watcher.behind for watcher in self._watchers.values())

    @property
    def whole(self) -> bool:
        """Whether some watcher may see the whole view."""
        return any(watcher.whole for watcher in self._watchers.values())

    def add(self, key: K, who: Claimant, resource: Resource) -> Owed:
        """Adds a watcher, which is sent the resource as it is now; one that watches already, too.

        Raises:
            ResourceNotFound, PermissionDenied: from `Resource.ensure_visible`.
            QuotaReached: it has as many watchers as it may have.
        """
        resource.ensure_visible(who)
        if key not in self._watchers and len(self._watchers) >= WATCHERS_LIMIT:
            raise QuotaReached.field("watchers", f"at most {WATCHERS_LIMIT} sockets")
        whole = resource.may(who)
        self._watchers[key] = Watcher(who, whole)
        return Owed.VIEW if whole else Owed.PREVIEW

    def remove(self, key: K) -> bool:
        """Removes a watcher; whether it was one."""
        return self._watchers.pop(key, None) is not None

    def set_admin(self, user: str, *, admin: bool) -> bool:
        """The user may have become an admin, or may have ceased to be one; whether it watches."""
        watches = False
        for watcher in self._watchers.values():
            if watcher.who.user == user:
                watcher.who = replace(watcher.who, admin=admin)
                watches = True
        return watches

    def change(
        self, before: Resource | None, after: Resource | None, is_slow: Callable[[K], bool]
    ) -> WatchChanges[K]:
        """What the watchers are owed, who were last told of `before`. `after` None: it is deleted.

        `is_slow`: whether a watcher can't take more now; it is owed the newest state later.
        """
        changes: WatchChanges[K] = WatchChanges()
        if after is None:
            return self.end(list(self._watchers), EndReason.DELETED)
        differs = before is None or _shown(before) != _shown(after)
        for key, watcher in list(self._watchers.items()):
            if not after.visible_to(watcher.who):
                unshared = before is not None and watcher.who.user in before.record.shares
                reason = EndReason.UNSHARED if unshared else EndReason.HIDDEN
                changes.ended.setdefault(reason, []).append(key)
                del self._watchers[key]
                continue
            whole = after.may(watcher.who)
            if not differs and whole == watcher.whole:
                continue
            patches = watcher.whole and whole and before is not None and not watcher.behind
            watcher.whole = whole
            if is_slow(key):
                watcher.behind = True
                continue
            watcher.behind = False
            owed = Owed.PATCH if patches else Owed.VIEW if whole else Owed.PREVIEW
            changes.owed.setdefault(owed, []).append(key)
        return changes

    def catch_up(self, is_slow: Callable[[K], bool]) -> WatchChanges[K]:
        """What the watchers are owed that were too slow, and can take more now."""
        changes: WatchChanges[K] = WatchChanges()
        for key, watcher in self._watchers.items():
            if watcher.behind and not is_slow(key):
                watcher.behind = False
                owed = Owed.VIEW if watcher.whole else Owed.PREVIEW
                changes.owed.setdefault(owed, []).append(key)
        return changes

    def restart(self) -> None:
        """The server failed while it told the watchers: it is not known what they have got."""
        for watcher in self._watchers.values():
            watcher.behind = True

    def end(self, keys: Iterable[K], reason: EndReason) -> WatchChanges[K]:
        """Ends these watches."""
        ended = [key for key in keys if self.remove(key)]
        return WatchChanges(ended={reason: ended} if ended else {})


def _shown(resource: Resource) -> tuple[object, ...]:
    """Everything in a resource that a watcher is told; a new version is needed for new data."""
    record, lease = resource.record, resource.lease
    return (record.version, record.title, record.owner, record.updated_at, lease.session)
