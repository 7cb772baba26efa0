"""The rules of one resource: its lease, permissions and writes.

A session must acquire a resource before it can modify it. A session can hold at most one resource,
and a resource is held by at most one session. Holding is a lease with a fencing number that
increases with every acquisition: a write with an outdated number is rejected.

`Resource` is a value. Each rule raises, or returns the changed resource;
`reileta/store/resources.py` applies a rule in one transaction, with the row of the lease locked, so
that the rules also hold between servers. A lease is lost only by a rule, never by time alone: after
its `until`, it is still valid until someone calls `expire`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from reileta.errors import (
    Detail,
    PermissionDenied,
    ResourceHeld,
    ResourceNotAcquired,
    ResourceNotFound,
    ResourceTaken,
    VersionConflict,
)
from reileta.records import Lease, ResourceRecord
from reileta.rules import visibility
from reileta.rules.identity import Claimant
from reileta.rules.resource.json_values import Json
from reileta.rules.resource.merge_patch import apply_object
from reileta.rules.resource.types import Content, ResourceType


@dataclass(frozen=True, slots=True)
class ResourceKey:
    """The name of a resource in a path: `document/17`."""

    type: str
    number: int

    def __str__(self) -> str:
        return f"{self.type}/{self.number}"


@dataclass(frozen=True, slots=True)
class Write:
    """A session's change of a resource: the arguments of `Resource.write`.

    `fence`: of the session's acquisition; None: it has not acquired the resource. `if_version`:
    only if the resource has that version.
    """

    who: Claimant
    fence: int | None
    patch: dict[str, Json]
    if_version: int | None = None


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource: its record and its lease."""

    record: ResourceRecord
    lease: Lease
    type: ResourceType

    # Permissions

    def may(self, who: Claimant) -> bool:
        """Whether the user may acquire it: its owner, admins, and users it is shared with."""
        users = visibility.of_owned(self.record.owner, self.record.shares)
        return users.admits(who.user, admin=who.admin)

    def visible_to(self, who: Claimant) -> bool:
        """Whether the user may see a preview."""
        return self.may(who) or (self.type.shows(self.record) and not self.type.hides(self.record))

    def ensure_visible(self, who: Claimant) -> None:
        """Must be called before any other check.

        Raises:
            ResourceNotFound: the user may not see it, and the type hides it.
            PermissionDenied: the user may not see it.
        """
        if not self.visible_to(who):
            raise ResourceNotFound if self.type.hides(self.record) else PermissionDenied

    def ensure_may(self, who: Claimant) -> None:
        """Checks that the session may acquire it.

        Raises:
            ResourceNotFound: the user may not, and the type hides it.
            PermissionDenied: the user may not; autopilots may not acquire resources.
        """
        self.ensure_visible(who)
        if not self.may(who):
            raise PermissionDenied
        if who.autopilot:
            raise PermissionDenied.field(
                "session", "belongs to an autopilot, which can't acquire resources"
            )

    def _governs(self, who: Claimant) -> bool:
        return who.admin or who.user == self.record.owner

    # The lease

    def held_by(self, who: Claimant, fence: int) -> bool:
        """Whether the session holds it, by that acquisition."""
        return self.lease.session == who.session and self.lease.fence == fence

    def ensure_held(self, who: Claimant, fence: int | None) -> None:
        """Checks what viewing and writing need.

        Raises:
            ResourceTaken: another session holds it.
            ResourceNotAcquired: the session does not hold it, or by another acquisition.
        """
        if self.lease.session not in (None, who.session):
            raise self._taken()
        if fence is None or not self.held_by(who, fence):
            raise ResourceNotAcquired

    def ensure_unheld(self, session: str | None) -> None:
        """Checks that no other session holds it, for a change by another API, such as the registry
        API.

        Raises:
            ResourceTaken: another session holds it.
        """
        if self.lease.session not in (None, session):
            raise self._taken()

    def acquire(self, who: Claimant, has: ResourceKey | None, until: int) -> Resource:
        """The session acquires it; `has` is the resource that it holds already.

        Raises:
            ResourceNotFound, PermissionDenied: from `ensure_may`.
            ResourceHeld: the session holds a resource, possibly this one.
            ResourceTaken: another session holds it.
        """
        self.ensure_may(who)
        if has is not None:
            raise ResourceHeld.field("resource", str(has))
        if self.lease.session is not None:
            raise self._taken()
        return self._leased(
            Lease(self.lease.fence + 1, session=who.session, user=who.user, until=until)
        )

    def release(self, who: Claimant) -> Resource:
        """The session releases it. If nobody holds it, nothing changes.

        The holder can always release it, even if its user may no longer acquire it.

        Raises:
            ResourceNotFound, PermissionDenied: from `ensure_may`.
            ResourceTaken: another session holds it.
        """
        if self.lease.session != who.session:
            self.ensure_may(who)
        self.ensure_unheld(who.session)
        return self._free()

    def renew(self, session: str, until: int) -> Resource:
        """The session, if it holds the resource, keeps it until then without a WebSocket."""
        if self.lease.session != session:
            return self
        return self._leased(replace(self.lease, until=until))

    def expire(self, now: int) -> Resource:
        """The holder loses it if its time without a WebSocket is over."""
        return self._free() if self.lease.until <= now else self

    def _free(self) -> Resource:
        return self if self.lease.session is None else self._leased(Lease(self.lease.fence))

    def _leased(self, lease: Lease) -> Resource:
        return replace(self, lease=lease)

    def _taken(self) -> ResourceTaken:
        session, user = self.lease.session or "", self.lease.user or ""
        return ResourceTaken(Detail("session", session), Detail("user", user))

    # Content

    def write(
        self,
        who: Claimant,
        fence: int | None,
        patch: dict[str, Json],
        if_version: int | None,
        now: int,
    ) -> Resource:
        """The session changes title and data by a merge patch; other members are ignored.

        Raises:
            ResourceNotFound, PermissionDenied: from `ensure_may`.
            ResourceTaken, ResourceNotAcquired: from `ensure_held`.
            VersionConflict: its version is not `if_version`.
            InvalidInput, PayloadTooLarge: from the type's `check`.
        """
        self.ensure_may(who)
        self.ensure_held(who, fence)
        self._ensure_version(if_version)
        before = Content(self.record.title, self.record.data)
        whole: dict[str, Json] = {"title": before.title, "data": before.data}
        given = {name: value for name, value in patch.items() if name in whole}
        after = apply_object(whole, given)
        title = after.get("title")
        if not isinstance(title, str):
            raise self.type.invalid.field("title", "must be a string")
        written = Content(title, after.get("data"))
        content = self.type.check(written, admin=who.admin, before=before)
        record = replace(
            self.record,
            title=content.title,
            data=content.data,
            version=self.record.version + 1,
            updated_at=now,
        )
        return replace(self, record=record)

    def ensure_deletable(self, who: Claimant, fence: int | None, if_version: int | None) -> None:
        """Checks a deletion: the session must hold it, and the user be its owner or an admin.

        Raises:
            ResourceNotFound: from `ensure_may`.
            PermissionDenied: from `ensure_may`, or it is only shared with the user.
            ResourceTaken, ResourceNotAcquired: from `ensure_held`.
            VersionConflict: its version is not `if_version`.
        """
        self.ensure_may(who)
        if not self._governs(who):
            raise PermissionDenied
        self.ensure_held(who, fence)
        self._ensure_version(if_version)

    def _ensure_version(self, if_version: int | None) -> None:
        if if_version not in (None, self.record.version):
            raise VersionConflict.field("version", f"is {self.record.version}")

    def share(self, who: Claimant, user: str) -> Resource:
        """The owner or an admin lets another user use it.

        Raises:
            ResourceNotFound, PermissionDenied: the user is neither.
        """
        self._ensure_governs(who)
        return replace(self, record=replace(self.record, shares=self.record.shares | {user}))

    def unshare(self, who: Claimant, user: str, *, admin: bool) -> Resource:
        """The owner, an admin, or the other user itself revokes the share.

        If that user's session holds the resource, it loses it, unless the user is an admin.

        Raises:
            ResourceNotFound, PermissionDenied: the caller is none of these, or may not see it.
        """
        self.ensure_visible(who)
        if who.user != user:
            self._ensure_governs(who)
        left = replace(self, record=replace(self.record, shares=self.record.shares - {user}))
        loses = self.lease.user == user and not admin and user != self.record.owner
        return left._free() if loses else left

    def _ensure_governs(self, who: Claimant) -> None:
        self.ensure_visible(who)
        if not self._governs(who):
            raise PermissionDenied
