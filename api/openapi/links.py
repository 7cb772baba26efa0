"""Links of the OpenAPI document, from a new object to the operations on it.

Readers follow them by hand; tools that test a server by its document follow them by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from api.http.endpoint import Operation

Json = dict[str, Any]

PARAMETER: Final = re.compile(r"<(?:[a-z]+:)?([a-z_]+)>")
"""A variable part of a path, in Werkzeug's notation."""
_MADE: Final = {
    "/api/auth/register": ("/api/users", "/user/id"),
    "/api/worlds": ("/api/worlds", "/id"),
    "/api/worlds/<ref>/assets": ("/api/worlds/<ref>/assets", "/id"),
    "/api/services": ("/api/services", "/id"),
    "/api/nodes": ("/api/nodes", "/id"),
    "/api/instances": ("/api/instances", "/id"),
}
"""For each path that makes an object: the path below which it is, and its id in the answer."""


def link(operations: Sequence[Operation], paths: Mapping[str, Json]) -> None:
    """Adds to each answer with a new object the operations that take its id."""
    for made in operations:
        whose = _MADE.get(made.path) if made.method in ("PUT", "POST") else None
        if whose is None:
            continue
        base, id_ = whose
        links = {}
        for other in operations:
            names = PARAMETER.findall(other.path)
            if other.path.startswith(f"{base}/<") and len(names) <= base.count("<") + 1:
                parameters = {name: f"$request.path.{name}" for name in names[:-1]}
                parameters[names[-1]] = f"$response.body#/data{id_}"
                links[other.name] = {"operationId": other.name, "parameters": parameters}
        responses = paths[PARAMETER.sub(r"{\1}", made.path)][made.method.lower()]["responses"]
        responses["200"]["links"] = links
