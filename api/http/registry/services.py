"""Service endpoints: `/api/services`, the directory of additional services."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.etags import Cached
from api.http.lookups import ensure_own_server, ensure_owner, find_owner, local
from api.http.pagination import Search, list_view
from reileta.errors import (
    AccountSuspended,
    PermissionDenied,
    QuotaReached,
    ServerNotFound,
    ServiceExists,
    ServiceInvalid,
    ServiceNotFound,
    TagUnknown,
    UserNotFound,
)
from reileta.ids import is_service_id
from reileta.observability import log_events
from reileta.protocol.input_types import (
    CreateInput,
    Description,
    HttpsUrl,
    Input,
    Reference,
    ServiceId,
    TagList,
    Title,
)
from reileta.protocol.views.registry import (
    ListView,
    NothingView,
    ServiceTokenView,
    ServiceView,
    service_token_view,
    service_view,
)
from reileta.records import Service
from reileta.rules.tags import SERVICE_TAGS
from reileta.security.credentials import digest, new_token

_CACHED: Final = Cached(("services", "users"))


class ServiceCreate(CreateInput):
    """A new service. The caller becomes its owner."""

    id: ServiceId = Field(description="Reverse DNS name. Unique; it can't be changed.")
    title: Title | None = Field(default=None, description="Default: the id.", examples=["Voice"])
    description: Description | None = None
    url: HttpsUrl | None = Field(default=None, description="Address of the service.")
    tags: TagList = Field(
        default=(),
        description="Properties.",
        examples=[[]],
        json_schema_extra=SERVICE_TAGS.schema(),
    )


class ServiceUpdate(Input):
    """The fields to change. Fields that are left out keep their values."""

    title: Title = Field(default_factory=str, examples=["Voice"])
    description: Description | None = Field(default=None, description="null removes it.")
    url: HttpsUrl | None = Field(default=None, description="null removes it.")
    tags: TagList = Field(
        default=(),
        description="The complete new list of tags.",
        json_schema_extra=SERVICE_TAGS.schema(),
    )


class ServiceSearch(Search):
    """Which services to list."""

    owner: Reference | None = Field(default=None, description="`UserIDAt`, username or `@me`.")
    tag: Reference | None = Field(
        default=None, description="A tag that they must have.", examples=["avr:official"]
    )


def service_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoints that create, read, change and delete services."""
    node = deps.node
    services = node.store.services
    routes = Routes("services", deps, invalid=ServiceInvalid)

    def view(service: Service) -> ServiceView:
        return service_view(service, node.address)

    async def find_service(call: RequestContext) -> Service:
        id_ = local(node, call, call.args["ref"])
        service = await services.get(id_) if is_service_id(id_) else None
        if service is None:
            raise ServiceNotFound
        return service

    async def own_service(call: RequestContext) -> Service:
        """The service of the path. Raises PermissionDenied unless the caller may change it."""
        service = await find_service(call)
        ensure_owner(call, service.owner)
        return service

    @routes.add(
        "GET",
        "/api/services",
        summary="Search services",
        takes=ServiceSearch,
        gives=ListView[ServiceView],
        errors=(ServerNotFound,),
        cached=_CACHED,
        remote=ListView[ServiceView],
    )
    async def get_services(call: RequestContext, params: ServiceSearch) -> ListView[ServiceView]:
        """Lists services whose id, title or description contains `query`, newest first."""
        ensure_own_server(node, call)
        page = await services.search(
            query=params.query,
            owner=await find_owner(node, call, params.owner),
            tag=params.tag,
            limit=params.limit,
            offset=params.offset,
            after=params.after,
        )
        return list_view(page, view)

    @routes.add(
        "PUT",
        "/api/services",
        summary="Create a service",
        takes=ServiceCreate,
        gives=ServiceView,
        need="required",
        errors=(
            ServerNotFound,
            ServiceExists,
            TagUnknown,
            PermissionDenied,
            UserNotFound,
            QuotaReached,
        ),
    )
    async def create_service(call: RequestContext, params: ServiceCreate) -> ServiceView:
        """Creates a service. The caller becomes its owner; it can't be the account of a
        service."""
        ensure_own_server(node, call)
        service = await services.create(
            id=params.id,
            title=params.title or params.id,
            description=params.description or None,
            url=params.url,
            owner=call.by.user.id,
            tags=SERVICE_TAGS.resolve(params.tags, admin=call.admin),
        )
        node.changed("service", service)
        return view(service)

    @routes.add(
        "GET",
        "/api/services/<ref>",
        summary="Get a service",
        gives=ServiceView,
        errors=(ServiceNotFound, ServerNotFound),
        cached=_CACHED,
        remote=ServiceView,
    )
    async def get_service(call: RequestContext) -> ServiceView:
        """Returns a service by its id."""
        return view(await find_service(call))

    @routes.add(
        "POST",
        "/api/services/<ref>",
        summary="Update a service",
        takes=ServiceUpdate,
        gives=ServiceView,
        need="required",
        errors=(ServiceNotFound, ServerNotFound, PermissionDenied, TagUnknown),
    )
    async def update_service(call: RequestContext, params: ServiceUpdate) -> ServiceView:
        """Changes the given fields. The owner and admins may do this."""
        service = await own_service(call)
        changes: dict[str, Any] = params.given()
        if "description" in changes:
            changes["description"] = params.description or None
        if "tags" in changes:
            changes["tags"] = SERVICE_TAGS.resolve(
                params.tags, admin=call.admin, before=service.tags
            )
        if changes:
            service = await services.update(service.id, **changes)
            node.changed("service", service)
        return view(service)

    @routes.add(
        "DELETE",
        "/api/services/<ref>",
        summary="Delete a service",
        gives=NothingView,
        need="required",
        errors=(ServiceNotFound, ServerNotFound, PermissionDenied),
    )
    async def delete_service(call: RequestContext) -> NothingView:
        """Deletes a service, its token and its account, whose WebSockets are closed (4000). The
        owner and admins may do this. The server's own account becomes the owner of the service's
        worlds and instances; nodes are deleted with their instances."""
        service = await own_service(call)
        async with node.store.blobs.releasing() as loose:
            gone = await services.delete(service.id)
            if gone is None:
                raise ServiceNotFound
            if gone.account is not None:
                loose.update(gone.account.files)
                deps.auth.forget_user(gone.account.user.id)
                await node.user_deleted(gone.account)
        return NothingView()

    def note(event: str, call: RequestContext, service: Service) -> None:
        user = call.by.user.id
        node.activity.note(event, user, service=service.id, user=user)

    @routes.add(
        "POST",
        "/api/services/<ref>/token",
        summary="Give a service a token",
        gives=ServiceTokenView,
        need="required",
        errors=(ServiceNotFound, ServerNotFound, PermissionDenied, AccountSuspended),
    )
    async def issue_service_token(call: RequestContext) -> ServiceTokenView:
        """Gives the service a token, with which it acts as a user of its own. The answer has the
        token; it is not shown again. It replaces the token of before, whose WebSockets are closed
        (4000). The owner and admins may do this."""
        service = await own_service(call)
        token = new_token("ua")
        issued = await services.issue_token(service.id, digest(token))
        for session_id in issued.ended:
            await deps.session_ended(session_id)
        note(log_events.SERVICE_TOKEN_ISSUED, call, service)
        return service_token_view(
            service, node.address, user=issued.account, token=token, expires_at=issued.expires_at
        )

    @routes.add(
        "DELETE",
        "/api/services/<ref>/token",
        summary="Revoke a service's token",
        gives=NothingView,
        need="required",
        errors=(ServiceNotFound, ServerNotFound, PermissionDenied),
    )
    async def revoke_service_token(call: RequestContext) -> NothingView:
        """Ends the service's token, if it has one, and closes its WebSockets (4000). The account
        stays, with what it owns. The owner and admins may do this."""
        service = await own_service(call)
        for session_id in await services.revoke_token(service.id):
            await deps.session_ended(session_id)
        note(log_events.SERVICE_TOKEN_REVOKED, call, service)
        return NothingView()

    return routes
