"""The server's own objects."""

from __future__ import annotations

from reileta.protocol.views.server import server_view
from reileta.site import Site
from tests.reileta.protocol.views.test_registry import ADDRESS, shown


def test_a_server() -> None:
    view = server_view(
        id_="x", title="t", description=None, icon=None, created_at=1, updated_at=2,
        site=Site(ADDRESS, secure=True, base_path="/vr"), public_key="k", ready_at=None,
    )  # fmt: skip
    server = shown(view)
    assert server["gateways"] == {
        "http": f"https://{ADDRESS}/vr",
        "ws": f"wss://{ADDRESS}/vr/api/ws",
    }
    assert not {"description", "icon", "ready_at"} & set(server)
