"""Moderation endpoints of an instance: bans, mutes, moderators, master, moderation log."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.lookups import find_instance, local
from api.http.pagination import Paging, TimePaging, list_view, page_of
from api.moderation_input import ModerateInput
from reileta.errors import (
    GuestNotAllowed,
    InstanceNotFound,
    ModerationInvalid,
    NotAllowed,
    NotInInstance,
    OutcomeUnknown,
    Overloaded,
    PermissionDenied,
    PlayerNotFound,
    ServerNotFound,
    UserNotFound,
)
from reileta.ids import is_id
from reileta.protocol.input_types import Input, Reference
from reileta.protocol.views.instance import (
    BanView,
    ModerationView,
    MuteView,
    ban_view,
    moderation_view,
    mute_view,
)
from reileta.protocol.views.registry import ListView, NothingView

_WHERE: Final = (InstanceNotFound, ServerNotFound)
_WHOM: Final = (UserNotFound, PlayerNotFound, NotAllowed, Overloaded, OutcomeUnknown)


class MasterInput(Input):
    """The new master."""

    user: Reference = Field(description="A user or a player inside.", examples=["ada"])


def moderation_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoints that moderate an instance."""
    node = deps.node
    routes = Routes("hosting", deps, invalid=ModerationInvalid)

    @routes.add(
        "POST",
        "/api/instances/<ref>/moderate",
        summary="Moderate a user",
        guests="own",
        takes=ModerateInput,
        gives=NothingView,
        need="required",
        errors=(*_WHERE, *_WHOM, NotInInstance),
    )
    async def moderate(call: RequestContext, params: ModerateInput) -> NothingView:
        """Kicks, bans, unbans, mutes, unmutes or warns a user, or bans or unbans all users of a
        server. The action takes effect at once; the
        answer comes after the commit. The owner, admins, the master and moderators may do this to
        users of lower rank."""
        instance = await find_instance(node, call, call.args["ref"])
        call.audit.target = instance.id
        call.audit.add(
            type=params.type, user=params.user, player=params.player, server=params.server
        )
        await node.instance_service.moderate(instance.id, call.by, params.request())
        return NothingView()

    @routes.add(
        "GET",
        "/api/instances/<ref>/bans",
        summary="List bans",
        guests="own",
        takes=TimePaging,
        gives=ListView[BanView],
        need="required",
        errors=(*_WHERE, NotAllowed),
    )
    async def get_bans(call: RequestContext, params: TimePaging) -> ListView[BanView]:
        """Lists the bans in force, oldest first. For the owner, the master, moderators and
        admins."""
        instance = await find_instance(node, call, call.args["ref"])
        bans = await node.instance_service.bans(instance.id, call.by)
        return list_view(
            page_of(params, bans, lambda ban: (ban.created_at, ban.user)),
            lambda ban: ban_view(ban, node.address),
        )

    @routes.add(
        "GET",
        "/api/instances/<ref>/mutes",
        summary="List mutes",
        takes=TimePaging,
        gives=ListView[MuteView],
        need="required",
        errors=(*_WHERE, NotAllowed),
    )
    async def get_mutes(call: RequestContext, params: TimePaging) -> ListView[MuteView]:
        """Lists the mutes in force, oldest first. For the owner, the master, moderators and
        admins."""
        instance = await find_instance(node, call, call.args["ref"])
        mutes = await node.instance_service.mutes(instance.id, call.by)
        page = page_of(params, mutes, lambda mute: (mute.created_at, mute.user))
        return list_view(page, mute_view)

    @routes.add(
        "GET",
        "/api/instances/<ref>/moderations",
        summary="List moderation actions",
        guests="own",
        takes=Paging,
        gives=ListView[ModerationView],
        need="required",
        errors=(*_WHERE, PermissionDenied),
    )
    async def get_moderations(call: RequestContext, params: Paging) -> ListView[ModerationView]:
        """Lists the moderation log, newest first. For the owner and admins. The log of a closed
        instance is available by the instance's id."""
        id_ = local(node, call, call.args["ref"])
        owner: str | None = None
        try:
            instance = await find_instance(node, call, id_)
        except InstanceNotFound:
            if not is_id(id_, "i"):
                raise
            # Only its former owner and admins may know that the instance existed.
            owner = None if call.admin else call.by.user.id
        else:
            id_ = instance.id
            if instance.owner != call.by.user.id and not call.admin:
                raise GuestNotAllowed if call.by.guest else PermissionDenied
        page = await node.store.moderations.of(
            id_, owner=owner, limit=params.limit, offset=params.offset, after=params.after
        )
        if owner is not None and not page.total:
            raise InstanceNotFound
        return list_view(page, lambda moderation: moderation_view(moderation, node.address))

    @routes.add(
        "POST",
        "/api/instances/<ref>/master",
        summary="Transfer mastership",
        guests="own",
        takes=MasterInput,
        gives=NothingView,
        need="required",
        errors=(*_WHERE, *_WHOM),
        name="hand_over",
    )
    async def transfer_master(call: RequestContext, params: MasterInput) -> NothingView:
        """Makes a user inside the master until it leaves. The owner may do this."""
        instance = await find_instance(node, call, call.args["ref"])
        await node.instance_service.transfer_master(instance.id, call.by, params.user)
        return NothingView()

    @routes.add(
        "PUT",
        "/api/instances/<ref>/moderators/<user>",
        summary="Add a moderator",
        guests="own",
        gives=NothingView,
        need="required",
        errors=(*_WHERE, *_WHOM),
        name="name_moderator",
    )
    async def add_moderator(call: RequestContext) -> NothingView:
        """Makes a user a moderator, whether it is inside or not, until it is removed. The owner may
        do this."""
        instance = await find_instance(node, call, call.args["ref"])
        await node.instance_service.add_moderator(instance.id, call.by, call.args["user"])
        return NothingView()

    @routes.add(
        "DELETE",
        "/api/instances/<ref>/moderators/<user>",
        summary="Remove a moderator",
        guests="own",
        gives=NothingView,
        need="required",
        errors=(*_WHERE, UserNotFound, NotAllowed, OutcomeUnknown),
        name="dismiss_moderator",
    )
    async def remove_moderator(call: RequestContext) -> NothingView:
        """Removes a moderator. It is not an error if the user is not a moderator. The owner may do
        this."""
        instance = await find_instance(node, call, call.args["ref"])
        await node.instance_service.remove_moderator(instance.id, call.by, call.args["user"])
        return NothingView()

    return routes
