"""Queue endpoints of an instance: `/queue`, `/candidate` and `/players`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.lookups import find_instance
from api.http.pagination import AFTER, Paging, TimePaging, list_view, next_of, page_of
from reileta.errors import (
    AlreadyCandidate,
    AlreadyConnected,
    Banned,
    InstanceInvalid,
    InstanceNotFound,
    NotAllowed,
    NotQueued,
    OutcomeUnknown,
    Overloaded,
    ServerNotFound,
    UserNotFound,
)
from reileta.protocol.input_types import Input, QueueCursor, Reference
from reileta.protocol.views.instance import (
    EntryView,
    PlayerInsideView,
    QueueView,
    entry_view,
    player_view,
)
from reileta.protocol.views.registry import ListView, NothingView, known
from reileta.records import Cursor
from reileta.rules.instance.candidates import Entry, State

_RANKS: Final[Mapping[State, int]] = {"admitted": 0, "waiting": 1, "pending": 2}
_USER = "Another user, by id, `id@server` or username. Default: the caller."


class QueuePaging(Paging):
    """Which page of the entries to return."""

    after: QueueCursor | None = Field(default=None, description=AFTER)


class CandidateInput(Input):
    """The user who wants a seat."""

    user: Reference | None = Field(default=None, description=_USER, examples=["ada"])


class CandidateQuery(Input):
    """The user whose entry is removed."""

    user: Reference | None = Field(default=None, description=_USER)
    server: Reference | None = Field(default=None, description="The instance's server.")


def _place(entry: Entry) -> Cursor:
    """The entry's place in the list: by state, and within it by time."""
    return (_RANKS[entry.state], entry.since, entry.user)


def queue_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoints of the queue."""
    node = deps.node
    routes = Routes("queue", deps, invalid=InstanceInvalid)

    @routes.add(
        "GET",
        "/api/instances/<ref>/queue",
        summary="Get an instance's queue",
        takes=QueuePaging,
        gives=QueueView,
        errors=(InstanceNotFound, ServerNotFound),
        remote=QueueView,
    )
    async def get_queue(call: RequestContext, params: QueuePaging) -> QueueView:
        """Returns how many users wait, and the caller's own entry. The owner, the master,
        moderators and admins also get all entries."""
        instance = await find_instance(node, call, call.args["ref"])
        queue = await node.instance_service.queue(instance.id, call.principal)
        view = QueueView(
            queued=queue.waiting,
            entry=known(None if queue.own is None else entry_view(queue.own)),
        )
        if queue.entries is not None:
            page = page_of(params, queue.entries, _place)
            view.items = tuple(entry_view(entry) for entry in page.items)
            view.total, view.limit, view.offset = page.total, page.limit, page.offset
            view.next = next_of(page)
        return view

    @routes.add(
        "POST",
        "/api/instances/<ref>/candidate",
        summary="Become a candidate, or admit a user",
        guests="yes",
        takes=CandidateInput,
        gives=EntryView,
        need="required",
        errors=(
            InstanceNotFound,
            ServerNotFound,
            UserNotFound,
            AlreadyCandidate,
            AlreadyConnected,
            Banned,
            NotAllowed,
            Overloaded,
            OutcomeUnknown,
        ),
        audited=False,
    )
    async def become_candidate(call: RequestContext, params: CandidateInput) -> EntryView:
        """Requests a seat. The entry is `admitted` (a seat is reserved for a short time and
        `instance-join` takes it), `waiting` (in the queue) or `pending` (it needs an invitation).
        With `user`, invites that user, whether it requested a seat or not. The instance's access
        tag decides who may invite. The owner, admins and moderators wait before all others."""
        instance = await find_instance(node, call, call.args["ref"])
        if params.user is None:
            return entry_view(await node.instance_service.candidate(instance.id, call.by))
        return entry_view(await node.instance_service.admit(instance.id, call.by, params.user))

    @routes.add(
        "DELETE",
        "/api/instances/<ref>/candidate",
        summary="Withdraw, or refuse a user",
        guests="yes",
        takes=CandidateQuery,
        gives=NothingView,
        need="required",
        errors=(
            InstanceNotFound,
            ServerNotFound,
            UserNotFound,
            NotQueued,
            NotAllowed,
            OutcomeUnknown,
        ),
        audited=False,
    )
    async def withdraw_candidate(call: RequestContext, params: CandidateQuery) -> NothingView:
        """Removes the caller's entry. With `user`, removes that user's entry and invitation."""
        instance = await find_instance(node, call, call.args["ref"])
        if params.user is None:
            await node.instance_service.withdraw(instance.id, call.by)
        else:
            await node.instance_service.refuse(instance.id, call.by, params.user)
        return NothingView()

    @routes.add(
        "GET",
        "/api/instances/<ref>/players",
        summary="List the players of an instance",
        takes=TimePaging,
        gives=ListView[PlayerInsideView],
        errors=(InstanceNotFound, ServerNotFound),
        remote=ListView[PlayerInsideView],
    )
    async def get_players(call: RequestContext, params: TimePaging) -> ListView[PlayerInsideView]:
        """Lists players with their roles, in the order in which they joined. For everyone who may
        see the instance."""
        instance = await find_instance(node, call, call.args["ref"])
        players = await node.instance_service.players(instance.id, call.principal)
        return list_view(
            page_of(params, players, lambda inside: (inside[0].joined_at, inside[0].id)),
            lambda inside: player_view(*inside),
        )

    return routes
