"""What is read of a request's head."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.app import ReiletaApp
from api.http.headers import QUERY_FIELDS, cookie_name, one_range, parameter_of
from tests.api.clients import Client


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        ("bytes=0-", (0, None)),
        ("bytes=0-0", (0, 0)),
        ("Bytes=5-9", (5, 9)),
        ("bytes=-7", (None, 7)),
        ("bytes=-0", (None, 0)),
        (" bytes=1-2 ", (1, 2)),
        ("bytes= 1-2", (1, 2)),
        ("bytes=,1-2 ,,", (1, 2)),
        ("bytes=" + "9" * 200 + "-", (int("9" * 200), None)),
    ],
)
def test_one_range_is_read(header: str, asked: tuple[int | None, int | None]) -> None:
    assert one_range(header) == asked


@pytest.mark.parametrize(
    "header",
    ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=1", "bytes=1-2-3", "bytes=--5",
     "bytes=9-5", "lines=0-1", "bytes=0-1,5-6", "bytes=+1-2", "bytes=1 - 2", "bytes=\u0661-2",
     "bytes=" + "0-1," * 4000, "bytes=" + "9" * 5000 + "-", "bytes :0-1", "bytes=0x1-2"],
)  # fmt: skip
def test_what_is_not_one_range_is_none(header: str) -> None:
    assert one_range(header) is None


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (b'form-data; name="file"', b"file"),
        (b"form-data;name=file", b"file"),
        (b'form-data; filename="a; name=x"; name="file"', b"file"),
        (b'form-data; filename="\\"; name=x"; NAME="fi\\le"', b"file"),
        (b'form-data; filename="a', None),
        (b"form-data", None),
        (b"", None),
        (b";" * 4000, None),
        (b"form-data" + b"; x=y" * 100 + b"; name=file", None),
    ],
)
def test_a_parameter_is_found_outside_of_others(header: bytes, name: bytes | None) -> None:
    assert parameter_of(header, b"name") == name


@given(st.binary())
def test_any_header_has_parameters_or_none(header: bytes) -> None:
    parameter_of(header, b"name")


async def test_a_content_type_that_is_too_long_is_refused(anyone: Client) -> None:
    for kind in (
        "a/b" + ";" * 8000,
        "application/json;" + " " * 8000 + "x",
        'a/b; x="' + "\\" * 8000,
    ):
        answer = await anyone.ask(
            "POST", "/api/auth/login", raw=b"{}", headers={"Content-Type": kind}
        )
        assert (answer.status, answer.code, answer.fields) == (415, 104, {"Content-Type"})


async def test_a_query_that_is_too_long_is_refused_and_not_repeated(ada: Client) -> None:
    for query in ("a&" * 4000, "%" * 9000, "&" * QUERY_FIELDS, "authuser=ua_secret&" * 100):
        answer = await ada.get(f"/api/users?{query}")
        assert (answer.status, answer.code, answer.fields) == (400, 119, {"query"})
        assert answer.body["request"] == "/api/users"
    fields = "&".join(["limit=5"] + ["x=1"] * (QUERY_FIELDS - 1))
    assert (await ada.get(f"/api/users?{fields}")).status == 200


@pytest.mark.parametrize(
    "cookie",
    ["_suid={}", "a=b; _suid={}; c=d", 'x="y"; _suid="{}"', "a;;b; _suid = {} ;",
     "; " * 8000 + "_suid={}", "_suid={}; _suid=other"],
)  # fmt: skip
async def test_the_session_cookie_is_found_among_any(
    ada: Client, anyone: Client, cookie: str
) -> None:
    said = {"Cookie": cookie.format(ada.token)}
    assert (await anyone.get("/api/users/@me", headers=said)).status == 200


@pytest.mark.parametrize("cookie", ["x_suid={}", "a=_suid={}", "_SUID={}", "_suid={}x", "_suid"])
async def test_other_cookies_are_none(ada: Client, anyone: Client, cookie: str) -> None:
    said = {"Cookie": cookie.format(ada.token)}
    assert (await anyone.get("/api/users/@me", headers=said)).status == 401


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("127.0.0.1:3032", "_suid_3032"),
        ("play.example.org", "_suid_4000"),
        ("play.example.org:8443", "_suid_8443"),
        ("[2001:db8::1]", "_suid_4000"),
        ("[2001:db8::1]:80", "_suid_80"),
    ],
)
def test_the_cookies_name_carries_the_port(address: str, name: str) -> None:
    assert cookie_name(address, 4000) == name


async def test_the_servers_own_cookie_comes_first(
    app: ReiletaApp, ada: Client, bob: Client, anyone: Client
) -> None:
    """Then that of an earlier version; those of other servers on the host never count."""
    own, other, old = f"{app.auth.cookie}={ada.token}", f"_suid_1={bob.token}", f"_suid={bob.token}"
    for cookies, name in (
        ((other, old, own), "ada"),
        ((own, other, old), "ada"),
        ((other, old), "bob"),
    ):
        answer = await anyone.get("/api/users/@me", headers={"Cookie": "; ".join(cookies)})
        assert answer.data["username"] == name
    for cookie in (other, f"x{own}", f"{own}x"):
        answer = await anyone.get("/api/users/@me", headers={"Cookie": cookie})
        assert answer.status == 401
