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
    """One watcher; `whole`: it may see the whole view, and not only the preview."""

    who: Claimant
    whole: bool


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
        self._behind: dict[K, None] = {}
        """Those who have not got the last change."""
        self._access: _Access | None = None
        """By what it was decided who sees what; None: it must be decided again."""

    def __len__(self) -> int:
        return len(self._watchers)

    def __contains__(self, key: K) -> bool:
        return key in self._watchers

    def __iter__(self) -> Iterator[K]:
        return iter(self._watchers)

    def lagging(self) -> bool:
        """Whether some watcher has not got the last change."""
        return bool(self._behind)

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
        access = _access(resource)
        if not self._watchers:
            self._access = access
        elif access != self._access:
            self._access = None
        self._watchers[key] = Watcher(who, whole)
        self._behind.pop(key, None)
        return Owed.VIEW if whole else Owed.PREVIEW

    def remove(self, key: K) -> bool:
        """Removes a watcher; whether it was one."""
        self._behind.pop(key, None)
        return self._watchers.pop(key, None) is not None

    def set_admin(self, user: str, *, admin: bool) -> bool:
        """The user may have become an admin, or may have ceased to be one; whether it watches."""
        watches = False
        for watcher in self._watchers.values():
            if watcher.who.user == user:
                watcher.who = replace(watcher.who, admin=admin)
                self._access = None
                watches = True
        return watches

    def change(
        self, before: Resource | None, after: Resource | None, is_slow: Callable[[K], bool]
    ) -> WatchChanges[K]:
        """What the watchers are owed, who were last told of `before`. `after` None: it is deleted.

        `is_slow`: whether a watcher can't take more now; it is owed the newest state later.
        """
        if after is None:
            return self.end(list(self._watchers), EndReason.DELETED)
        changes: WatchChanges[K] = WatchChanges()
        turned = False
        access = _access(after)
        if access != self._access:  # only then: it is asked for each watcher
            turned = self._decide_access(before, after, changes)
            self._access = access
        differs = before is None or _shown(before) != _shown(after)
        if not differs:
            return self._catch_up(changes, is_slow) if turned else changes
        previews: list[K] = []
        views: list[K] = []
        patches: list[K] = []
        behind = self._behind
        for key, watcher in self._watchers.items():
            if is_slow(key):
                behind[key] = None
            elif not watcher.whole:
                previews.append(key)
            elif before is None or key in behind:
                views.append(key)
            else:
                patches.append(key)
        for keys in (previews, views):
            for key in keys:
                behind.pop(key, None)
        owed = ((Owed.PREVIEW, previews), (Owed.VIEW, views), (Owed.PATCH, patches))
        changes.owed = {kind: keys for kind, keys in owed if keys}
        return changes

    def _decide_access(
        self, before: Resource | None, after: Resource, changes: WatchChanges[K]
    ) -> bool:
        """Decides anew who sees what. Returns whether somebody who stays sees something else: it is
        behind then, since it has no view that a patch could apply to."""
        turned = False
        for key, watcher in list(self._watchers.items()):
            if not after.visible_to(watcher.who):
                unshared = before is not None and watcher.who.user in before.record.shares
                reason = EndReason.UNSHARED if unshared else EndReason.HIDDEN
                changes.ended.setdefault(reason, []).append(key)
                self.remove(key)
                continue
            whole = after.may(watcher.who)
            if whole != watcher.whole:
                watcher.whole = whole
                self._behind[key] = None
                turned = True
        return turned

    def catch_up(self, is_slow: Callable[[K], bool]) -> WatchChanges[K]:
        """What the watchers are owed that were too slow, and can take more now."""
        return self._catch_up(WatchChanges(), is_slow)

    def _catch_up(self, changes: WatchChanges[K], is_slow: Callable[[K], bool]) -> WatchChanges[K]:
        for key in [one for one in self._behind if not is_slow(one)]:
            del self._behind[key]
            owed = Owed.VIEW if self._watchers[key].whole else Owed.PREVIEW
            changes.owed.setdefault(owed, []).append(key)
        return changes

    def restart(self) -> None:
        """The server failed while it told the watchers: it is not known what they have got."""
        self._behind = dict.fromkeys(self._watchers)

    def end(self, keys: Iterable[K], reason: EndReason) -> WatchChanges[K]:
        """Ends these watches."""
        ended = [key for key in keys if self.remove(key)]
        return WatchChanges(ended={reason: ended} if ended else {})


def _shown(resource: Resource) -> tuple[object, ...]:
    """Everything in a resource that a watcher is told; a new version is needed for new data."""
    record, lease = resource.record, resource.lease
    return (record.version, record.title, record.owner, record.updated_at, lease.session)


_Access = tuple[str, frozenset[str], bool, bool]


def _access(resource: Resource) -> _Access:
    """Everything in a resource that decides who sees what."""
    record, type_ = resource.record, resource.type
    return (record.owner, record.shares, type_.shows(record), type_.hides(record))
