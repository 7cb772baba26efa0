"""Suspends accounts, and lifts suspensions, for HTTP endpoints."""

from __future__ import annotations

from api.http.endpoint import ApiDeps, RequestContext
from reileta.errors import UserCannotUpdate, UserInvalid
from reileta.observability import log_events
from reileta.records import User


class Suspensions:
    """Makes a suspension take effect: in the database, in caches, on sockets, in the logs."""

    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps
        self._node = deps.node
        self._users = deps.node.store.users

    def ensure_allowed(self, call: RequestContext, user: User) -> None:
        """Raises UserCannotUpdate for the caller's own account, so that no admin locks itself
        out."""
        if user.id == call.by.user.id:
            raise UserCannotUpdate.field("tags", "an admin can't suspend itself")

    async def suspend(
        self, call: RequestContext, user: User, *, until: int | None, reason: str | None
    ) -> User:
        """Suspends a user until that time in ms (None: until it is lifted).

        Raises:
            UserCannotUpdate: it is the caller, or one of the server's own accounts.
            UserInvalid: the time is over.
            UserNotFound: the user was deleted meanwhile.
        """
        self.ensure_allowed(call, user)
        if until is not None and until <= self._node.clock.now_ms():
            raise UserInvalid.field("until", "must be in the future")
        call.audit.about(user)
        call.audit.add(until=until, reason=reason)
        user, revoked = await self._users.suspend(user.id, until=until, reason=reason)
        self._deps.auth.forget_user(user.id)
        for session_id in revoked.sessions:
            await self._deps.session_ended(session_id)
        hosts = self._node.store.host_nodes
        for node_id in await hosts.owned_by(user.id):
            host = await hosts.get(node_id)
            if host is not None:
                self._node.changed("node", host)  # closes its link, at another process, too
                self._node.host_links.refresh(node_id)
        self._node.changed("user", user)
        self._note(log_events.ACCOUNT_SUSPENDED, call, user, until=until)
        return user

    async def lift(self, call: RequestContext, user: User) -> User:
        """Lifts a suspension, if there is one. Raises UserNotFound."""
        call.audit.about(user)
        before, user = user, await self._users.unsuspend(user.id)
        if before.tags != user.tags:
            self._node.changed("user", user)
            self._note(log_events.ACCOUNT_UNSUSPENDED, call, user)
        return user

    def _note(self, event: str, call: RequestContext, user: User, until: int | None = None) -> None:
        self._node.activity.note(
            event,
            None,
            user=user.id,
            username=user.username,
            by=call.by.user.id,
            by_username=call.by.user.username,
            until=until,
        )
