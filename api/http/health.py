"""For those who run the server: `/metrics`, `/healthz`, `/readyz`."""

from __future__ import annotations

from quart import Blueprint, Response

from api.http.endpoint import ApiDeps, RequestContext, Routes
from reileta.errors import DatabaseUnavailable, Detail, Overloaded, ServerInvalid
from reileta.observability.metrics import CONTENT_TYPE, Exposition
from reileta.protocol.views.server import HealthView


def ops_routes(edge: ApiDeps) -> Routes:
    """Whether the server lives, and whether it takes work."""
    node = edge.node
    routes = Routes("operations", edge, invalid=ServerInvalid)

    @routes.add("GET", "/healthz", summary="Is it alive?", gives=HealthView, need="none")
    async def healthz(call: RequestContext) -> HealthView:
        """Answers as long as the process serves; asks nothing of the database."""
        return HealthView(status="alive")

    @routes.add("GET", "/readyz", summary="Is it ready?", gives=HealthView, need="none")
    async def readyz(call: RequestContext) -> HealthView:
        """Ready to take work: the database answers, and the server is not draining (else 503)."""
        if node.draining:
            raise Overloaded(Detail("server", "is draining"), retry_after_s=5)
        if not await node.store.database.ping():
            raise DatabaseUnavailable(retry_after_s=1)
        return HealthView(status="ready")

    return routes


def metrics_blueprint(edge: ApiDeps) -> Blueprint:
    """`/metrics` in Prometheus' text format: the one answer for machines that is no JSON."""
    blueprint = Blueprint("metrics", __name__)
    exposition = Exposition(edge.node.metrics, edge.node.store.database)

    @blueprint.get("/metrics")
    async def metrics() -> Response:
        return Response(exposition.render(), 200, content_type=CONTENT_TYPE)

    return blueprint
