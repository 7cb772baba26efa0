"""How a request reached this process: by a gateway, or directly."""

from __future__ import annotations

from typing import Any

from quart.wrappers.base import BaseRequestWebsocket


def gateway_of(carrier: BaseRequestWebsocket) -> str:
    """The address of the gateway that passed the request on; empty for none."""
    return _said(carrier, "gateway")


def trace_of(carrier: BaseRequestWebsocket) -> str:
    """The id of the trace that the gateway began; empty for none."""
    return _said(carrier, "trace")


def _said(carrier: BaseRequestWebsocket, name: str) -> str:
    state: Any = carrier.scope.get("state")
    return state[name] if state else ""
