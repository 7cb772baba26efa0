from __future__ import annotations

from dataclasses import replace

import msgspec

from reileta.protocol.views.session import (
    account_view,
    preview_view,
    resource_view,
    session_view,
    token_view,
)
from reileta.records import ResourceRecord, Token, User
from reileta.rules.resource.types import BUILT_IN

ADA = User("u_1", 7, "ada", "Ada", None, "a@example.org", "online", frozenset(), False, None, 0, 0)
DOCUMENT = ResourceRecord(17, "document", "u_1", "Door", {"width": 9}, 3, 1000, 2000)


def test_a_user_is_the_model_of_s() -> None:
    assert msgspec.to_builtins(account_view(ADA)) == {
        "id": 7,
        "username": "ada",
        "display_name": "Ada",
        "email": "a@example.org",
        "autopilot": False,
        "admin": False,
    }
    admin = replace(ADA, tags=frozenset({"avr:admin"}))
    assert account_view(admin).admin


def test_nobody_learns_an_owners_address() -> None:
    shown = resource_view(DOCUMENT, BUILT_IN.of("document"), ADA)
    assert shown["owner"] is not None
    assert shown["owner"].email is None


def test_a_resource_has_an_id_and_an_owner_as_a_bare_minimum() -> None:
    seen = resource_view(DOCUMENT, BUILT_IN.of("document"), ADA)
    assert seen["owner"] is not None
    assert (seen["id"], seen["owner"].id, seen["data"]) == (17, 7, {"width": 9})
    glimpsed = preview_view(DOCUMENT, BUILT_IN.of("document"), None)
    assert "data" not in glimpsed
    assert glimpsed["owner"] is None
    assert glimpsed["created_at"] == "1970-01-01T00:00:01.000000+0000"


def test_a_token_is_the_model_of_s() -> None:
    session = session_view("s_1", ADA, {"x": 1}, None)
    token = Token(b"a", b"r", "s_1", "u_1", 0, 1000, 2000, None)
    shown = msgspec.to_builtins(token_view(token, session, "ua_1", "ur_1"))
    assert set(shown) == {
        "access", "refresh", "access_expires", "refresh_expires", "killed_at", "session",
    }  # fmt: skip
    assert shown["killed_at"] is None
    assert shown["session"]["state"] == {"x": 1}
    killed = msgspec.to_builtins(token_view(replace(token, killed_at=3000), session, "ua_1"))
    assert killed["killed_at"] == "1970-01-01T00:00:03.000000+0000"
    assert "refresh" not in killed
