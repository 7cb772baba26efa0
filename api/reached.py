"""How a request reached this process: by a gateway, or directly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from quart.wrappers.base import BaseRequestWebsocket


def _state(carrier: BaseRequestWebsocket) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], carrier.scope.get("state") or {})


def gateway_of(carrier: BaseRequestWebsocket) -> str:
    """The address of the gateway that passed the request on; empty for none."""
    return str(_state(carrier).get("gateway", ""))


def trace_of(carrier: BaseRequestWebsocket) -> str:
    """The id of the trace that the gateway began; empty for none."""
    return str(_state(carrier).get("trace", ""))
