"""`/api/instances/:id/queue`, `/candidate`, `/players`: coming in when it is full (PROTOCOL §6)."""

from __future__ import annotations

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.lookups import find_instance
from api.http.pagination import Paging, listed, part
from reileta.errors import (
    AlreadyCandidate,
    AlreadyConnected,
    Banned,
    InstanceInvalid,
    InstanceNotFound,
    NotAllowed,
    NotQueued,
    Overloaded,
    ServerNotFound,
    UserNotFound,
)
from reileta.protocol.input_types import Input, Reference
from reileta.protocol.views.instance import (
    EntryView,
    PlayerInsideView,
    QueueView,
    entry_view,
    player_view,
)
from reileta.protocol.views.registry import ListView, NothingView, known

_USER = "Another user, by id, `id@server` or username; without it, the asker."


class CandidateInput(Input):
    """Who wants to come in."""

    user: Reference | None = Field(default=None, description=_USER, examples=["ada"])


class CandidateQuery(Input):
    """Whose candidacy."""

    user: Reference | None = Field(default=None, description=_USER)
    server: Reference | None = Field(default=None, description="The instance's server.")


def queue_routes(edge: ApiDeps) -> Routes:
    """The endpoints of those who want to come in."""
    node = edge.node
    routes = Routes("queue", edge, invalid=InstanceInvalid)

    @routes.add(
        "GET",
        "/api/instances/<ref>/queue",
        summary="Get an instance's queue",
        takes=Paging,
        gives=QueueView,
        errors=(InstanceNotFound, ServerNotFound),
    )
    async def get_queue(call: RequestContext, given: Paging) -> QueueView:
        """How many wait, and the asker's own entry; for the owner, the master, moderators and
        admins all entries as well."""
        instance = await find_instance(node, call, call.args["ref"])
        queue = await node.instance_service.queue(instance.id, call.principal)
        view = QueueView(
            queued=queue.waiting,
            entry=known(None if queue.own is None else entry_view(queue.own)),
        )
        if queue.entries is not None:
            page = part(given, queue.entries)
            view.items = tuple(entry_view(one) for one in page.items)
            view.total, view.limit, view.offset = page.total, page.limit, page.offset
        return view

    @routes.add(
        "POST",
        "/api/instances/<ref>/candidate",
        summary="Become a candidate, or admit another",
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
        ),
    )
    async def become_candidate(call: RequestContext, given: CandidateInput) -> EntryView:
        """Asks for a seat: the entry is `admitted` (one is held for a while; `instance-join` takes
        it), `waiting` (in line), or `pending` (it needs an invitation). With `user`, invites that
        one, whether it asked or not; who may depends on the instance's access."""
        instance = await find_instance(node, call, call.args["ref"])
        if given.user is None:
            return entry_view(await node.instance_service.candidate(instance.id, call.by))
        return entry_view(await node.instance_service.admit(instance.id, call.by, given.user))

    @routes.add(
        "DELETE",
        "/api/instances/<ref>/candidate",
        summary="Withdraw, or refuse another",
        takes=CandidateQuery,
        gives=NothingView,
        need="required",
        errors=(InstanceNotFound, ServerNotFound, UserNotFound, NotQueued, NotAllowed),
    )
    async def withdraw_candidate(call: RequestContext, given: CandidateQuery) -> NothingView:
        """Takes the asker's entry back; with `user`, that one's entry and invitation."""
        instance = await find_instance(node, call, call.args["ref"])
        if given.user is None:
            await node.instance_service.withdraw(instance.id, call.by)
        else:
            await node.instance_service.refuse(instance.id, call.by, given.user)
        return NothingView()

    @routes.add(
        "GET",
        "/api/instances/<ref>/players",
        summary="List who is inside",
        takes=Paging,
        gives=ListView[PlayerInsideView],
        errors=(InstanceNotFound, ServerNotFound),
    )
    async def get_players(call: RequestContext, given: Paging) -> ListView[PlayerInsideView]:
        """Players with their roles, longest inside first, for all who may see the instance."""
        instance = await find_instance(node, call, call.args["ref"])
        players = await node.instance_service.players(instance.id, call.principal)
        return listed(part(given, players), lambda inside: player_view(*inside))

    return routes
