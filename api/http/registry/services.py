"""`/api/services`: additions to the server, for clients and other servers (PROTOCOL §5)."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.etags import Cached
from api.http.lookups import find_owner, local, own_server
from api.http.pagination import Search, listed
from reileta.errors import (
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
from reileta.protocol.input_types import (
    Description,
    HttpsUrl,
    Input,
    Reference,
    ServiceId,
    TagList,
    Title,
)
from reileta.protocol.views.registry import ListView, NothingView, ServiceView, service_view
from reileta.records import Service
from reileta.rules.tags import SERVICE_TAGS

_SHOWN: Final = Cached(("services", "users"))


class ServiceCreate(Input):
    """A new service, the asker's own."""

    id: ServiceId = Field(description="Reverse DNS; unique, and chosen for good.")
    title: Title = Field(examples=["Voice"])
    description: Description | None = None
    url: HttpsUrl | None = Field(default=None, description="Where it is reached.")
    tags: TagList = Field(default=(), examples=[[]], json_schema_extra=SERVICE_TAGS.schema())


class ServiceUpdate(Input):
    """What to change; a field that is left out stays as it is."""

    title: Title = Field(default_factory=str, examples=["Voice"])
    description: Description | None = Field(default=None, description="null empties it.")
    url: HttpsUrl | None = Field(default=None, description="null empties it.")
    tags: TagList = Field(
        default=(),
        description="All tags: they replace the old ones.",
        json_schema_extra=SERVICE_TAGS.schema(),
    )


class ServiceSearch(Search):
    """Which services."""

    owner: Reference | None = Field(default=None, description="`UserIDAt`, username or `@me`.")
    tag: Reference | None = Field(default=None, examples=["avr:official"])


def service_routes(edge: ApiDeps) -> Routes:
    """The endpoints that make, read, change and delete services."""
    node = edge.node
    services = node.store.services
    routes = Routes("services", edge, invalid=ServiceInvalid)

    def view(service: Service) -> ServiceView:
        return service_view(service, node.address)

    async def find_service(call: RequestContext) -> Service:
        ref = local(node, call, call.args["ref"])
        service = await services.get(ref) if is_service_id(ref) else None
        if service is None:
            raise ServiceNotFound
        return service

    async def own_service(call: RequestContext) -> Service:
        """The service of the path, if the asker may change it."""
        service = await find_service(call)
        if not call.admin and service.owner != call.by.user.id:
            raise PermissionDenied
        return service

    @routes.add(
        "GET",
        "/api/services",
        summary="Search services",
        takes=ServiceSearch,
        gives=ListView[ServiceView],
        errors=(ServerNotFound,),
        shows=_SHOWN,
    )
    async def get_services(call: RequestContext, given: ServiceSearch) -> ListView[ServiceView]:
        """Services whose id, title or description holds `query`, newest first."""
        own_server(node, call)
        page = await services.search(
            query=given.query,
            owner=await find_owner(node, call, given.owner),
            tag=given.tag,
            limit=given.limit,
            offset=given.offset,
        )
        return listed(page, view)

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
    async def create_service(call: RequestContext, given: ServiceCreate) -> ServiceView:
        """Makes a service that belongs to the asker."""
        own_server(node, call)
        service = await services.create(
            id=given.id,
            title=given.title,
            description=given.description or None,
            url=given.url,
            owner=call.by.user.id,
            tags=SERVICE_TAGS.settle(given.tags, admin=call.admin),
        )
        node.changed("service", service)
        return view(service)

    @routes.add(
        "GET",
        "/api/services/<ref>",
        summary="Get a service",
        gives=ServiceView,
        errors=(ServiceNotFound, ServerNotFound),
        shows=_SHOWN,
    )
    async def get_service(call: RequestContext) -> ServiceView:
        """A service, by its id."""
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
    async def update_service(call: RequestContext, given: ServiceUpdate) -> ServiceView:
        """Changes what is given; its owner and admins may."""
        service = await own_service(call)
        changes: dict[str, Any] = given.given()
        if "description" in changes:
            changes["description"] = given.description or None
        if "tags" in changes:
            changes["tags"] = SERVICE_TAGS.settle(given.tags, admin=call.admin, before=service.tags)
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
        """Deletes a service; its owner and admins may."""
        service = await own_service(call)
        if not await services.delete(service.id):
            raise ServiceNotFound
        return NothingView()

    return routes
