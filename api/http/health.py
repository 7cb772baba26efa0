"""Operations endpoints: `/metrics`, `/healthz` and `/readyz`."""

from __future__ import annotations

from quart import Blueprint, Response

from api.http.endpoint import ApiDeps, RequestContext, Routes
from reileta.errors import DatabaseUnavailable, Detail, Overloaded, ServerInvalid
from reileta.observability.metrics import CONTENT_TYPE, Exposition
from reileta.protocol.views.server import HealthView


def ops_routes(deps: ApiDeps) -> Routes:
    """Declares the liveness and readiness endpoints."""
    node = deps.node
    routes = Routes("operations", deps, invalid=ServerInvalid)

    @routes.add("GET", "/healthz", summary="Check liveness", gives=HealthView, need="none")
    async def healthz(call: RequestContext) -> HealthView:
        """Liveness: answers as long as the process serves requests. Does not use the database."""
        return HealthView(status="alive")

    @routes.add("GET", "/readyz", summary="Check readiness", gives=HealthView, need="none")
    async def readyz(call: RequestContext) -> HealthView:
        """Readiness: the database takes writes, no other server uses it, all background tasks
        work, and the server is not shutting down. A node of a cluster is also not ready while it
        is drained, isolated or suspended, and a gateway while it reaches no registry. If not,
        503."""
        if node.draining:
            raise Overloaded(Detail("server", "is draining"), retry_after_s=5)
        if not await node.store.database.takes_writes():
            raise DatabaseUnavailable(retry_after_s=1)
        if node.store.lock.superseded:
            raise Overloaded(Detail("server", "shares its database with another"), retry_after_s=5)
        for why in node.unready:
            unready = why()
            if unready is not None:
                raise Overloaded(Detail("server", unready), retry_after_s=1)
        failing = node.background.failing
        if failing:
            text = f"has background tasks that fail, and that it starts again: {', '.join(failing)}"
            raise Overloaded(Detail("server", text), retry_after_s=5)
        return HealthView(status="ready")

    return routes


def metrics_blueprint(deps: ApiDeps) -> Blueprint:
    """`/metrics` in the text format of Prometheus, without an envelope."""
    blueprint = Blueprint("metrics", __name__)
    exposition = Exposition(deps.node.metrics, deps.node.store.database)

    @blueprint.get("/metrics")
    async def metrics() -> Response:
        return Response(exposition.render(), 200, content_type=CONTENT_TYPE)

    return blueprint
