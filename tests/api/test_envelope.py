"""The envelope, to the letter."""

from __future__ import annotations

import json

import pytest

from api.envelope import failure, request_line, success
from reileta.errors import Detail, InstanceInvalid, NotFound, Redirected


def test_a_success_has_data_and_nothing_else() -> None:
    assert success("/api/time", 5, 7) == (
        b'{"request":"/api/time","time":5,"message":"OK","data":7}'
    )
    assert json.loads(success("/", 5, None))["data"] is None


def test_a_failure_has_an_error_and_no_data() -> None:
    assert json.loads(failure("/x", 5, NotFound())) == {
        "request": "/x",
        "time": 5,
        "message": "Request not found",
        "error": {"code": 2, "message": "Request not found"},
    }


def test_details_name_the_fields() -> None:
    error = InstanceInvalid(Detail("capacity", "must be 1 to 1024"), Detail("a\ud800", "b\udfff"))
    assert json.loads(failure("/x", 5, error))["error"] == {
        "code": 33,
        "message": "Instance invalid input",
        "details": [
            {"field": "capacity", "message": "must be 1 to 1024"},
            {"field": "a?", "message": "b?"},
        ],
    }


def test_a_redirect_stands_beside_the_error() -> None:
    body = json.loads(failure("/x", 5, Redirected("other.example.org", secure=False)))
    assert body["redirect"] == {"secure": False, "address": "other.example.org"}
    assert body["error"]["code"] == 10


@pytest.mark.parametrize(
    ("path", "query", "line"),
    [
        ("/api/time", "", "/api/time"),
        ("/a%20b", "x=1&y", "/a%20b?x=1&y"),
        ("/a", "authuser=ua_1", "/a?authuser="),
        ("/a", "authuser", "/a?authuser"),
        (
            "/a",
            "x=1&authserver=sa_1&integrityuser=ia_1=2&z=2",
            "/a?x=1&authserver=&integrityuser=&z=2",
        ),
        ("/a", "%61uthuser=ua_1", "/a?%61uthuser="),
        ("/a", "auth%75ser=ua_1&authuser=ua_2", "/a?auth%75ser=&authuser="),
        ("/a", "author=x&xauthuser=1", "/a?author=x&xauthuser=1"),
    ],
)
def test_credentials_are_taken_out_of_the_request(path: str, query: str, line: str) -> None:
    assert request_line(path, query) == line
