"""A resource as it was read, and how its watchers see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from reileta import records
from reileta.protocol.frames import encode
from reileta.protocol.views.session import account_view, preview_view, resource_view
from reileta.rules.resource.json_values import Json, same
from reileta.rules.resource.merge_patch import apply_object, diff
from reileta.rules.resource.resource import Resource
from reileta.rules.resource.watchers import Owed
from reileta.store import Store

Fields: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A resource as it was read, with the users that its views show."""

    resource: Resource
    owner: records.User | None
    holder: records.User | None

    def view(self) -> dict[str, Json]:
        """The whole view, as `GET …/view` answers it."""
        view = resource_view(self.resource.record, self.resource.type, self.owner)
        return {**view, "owner": msgspec.to_builtins(view["owner"])}

    def _preview(self, *, whole: bool) -> Fields:
        resource = self.resource
        session, user = resource.lease.session, self.holder
        holder = None
        if session is not None:
            holder = {
                "user": None if user is None else account_view(user, private=False),
                "session": session if whole else None,
            }
        return {
            **preview_view(resource.record, resource.type, self.owner),
            "holder": holder,
            "access": "view" if whole else "preview",
        }

    def update(self, owed: Owed, before: Snapshot | None, view: dict[str, Json]) -> Fields:
        """The data of `resource-updated`; `before` is what the receivers were told last.

        A merge patch can't make a member null. If none turns the last view into the new one, or if
        it is longer, the new view is sent in place of it.
        """
        fields = self._preview(whole=owed is not Owed.PREVIEW)
        if owed is Owed.PREVIEW:
            return fields
        if owed is Owed.PATCH and before is not None:
            last = before.view()
            patch = diff(last, view)
            if same(apply_object(last, patch), view) and len(encode(patch)) < len(encode(view)):
                return {**fields, "from": before.resource.record.version, "patch": patch}
        return {**fields, "view": view}


async def snapshot_of(resource: Resource, store: Store) -> Snapshot:
    """The resource with the users that its views show. Raises DatabaseUnavailable."""
    owner, holder = resource.record.owner, resource.lease.user
    users = await store.users.many({owner} if holder is None else {owner, holder})
    return Snapshot(resource, users.get(owner), users.get(holder or ""))
