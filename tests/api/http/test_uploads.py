"""Files out of bodies: forms cut at every byte, and slots for so many. See also test_assets."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, suppress
from itertools import product

import pytest
from quart.wrappers import Request
from werkzeug.datastructures import Headers

from api.http.bodies import ReceivedRequest
from api.http.endpoint import RequestContext
from api.http.uploads import (
    AT_ONCE,
    AT_ONCE_EACH,
    AT_ONCE_EACH_ADDRESS,
    FORM_BYTES,
    FREE_FOR_USER,
    UploadSlots,
    receive,
    receive_whole,
)
from reileta.errors import AssetFileInvalid, Overloaded, PayloadTooLarge

CONTENT = b"a\r\n--b\r\n--boundar\r\n\r\n--boundaryX--\n"
FORM = (
    b"--boundary\r\nContent-Disposition: form-data; name=note\r\n\r\nhello\r\n"
    b'--boundary\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n'
    b"Content-Type: text/html\r\n\r\n" + CONTENT + b"\r\n--boundary--\r\nepilogue"
)
KIND = "multipart/form-data; boundary=boundary"


def call_of(made: Request) -> RequestContext:
    """A request of nobody, as handlers see it."""
    return RequestContext(made, None, {}, "192.0.2.1")


def request(*parts: bytes, kind: str = KIND) -> Request:
    """A request whose body has come, in these parts, but was not looked at."""
    made: Request = ReceivedRequest(
        "POST",
        "http",
        "/",
        b"",
        Headers({"Content-Type": kind}),
        "",
        "1.1",
        {},  # type: ignore[typeddict-item]
        send_push_promise=None,  # type: ignore[arg-type]
    )
    for part in parts:
        made.body.append(part)
    made.body.set_complete()
    return made


async def received(made: Request, limit: int = 10_000) -> bytes:
    got = bytearray()

    async def sink(chunk: bytes | bytearray | memoryview) -> None:
        got.extend(chunk)

    await receive(call_of(made), sink, limit, AssetFileInvalid)
    return bytes(got)


async def whole(limit: int) -> bytes:
    return await receive_whole(call_of(request(FORM)), limit, AssetFileInvalid, kind="image/png")


@pytest.mark.parametrize("at", range(1, len(FORM)))
async def test_a_form_wherever_it_is_cut(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    made = request()
    parts = [bytearray(FORM[:at]), bytearray(FORM[at:])]
    monkeypatch.setattr(made.body, "take", lambda: parts.pop(0) if parts else bytearray())
    assert await received(made) == CONTENT


async def test_a_form_that_ends_early_wherever_it_does() -> None:
    end = FORM.index(b"--\r\nepilogue")
    for at in range(0, end, 5):
        with pytest.raises(AssetFileInvalid):
            await received(request(FORM[:at]))


async def test_raw_bodies_pass_as_they_are() -> None:
    for kind in ("", "application/octet-stream", "application/x-www-form-urlencoded", "a/b"):
        assert await received(request(FORM, kind=kind)) == FORM


async def test_a_form_has_room_beside_its_file_and_no_more() -> None:
    with pytest.raises(PayloadTooLarge):
        await received(request(b"x" * (FORM_BYTES + 11)), 10)
    with pytest.raises(PayloadTooLarge):
        await whole(len(CONTENT) - 1)
    assert await whole(len(CONTENT)) == CONTENT


def taken(
    slots: UploadSlots, stack: ExitStack, users: Iterable[str], ips: Iterable[str] = ("::1",)
) -> int:
    """All the slots that these users get at these addresses, asking by turns; how many."""
    askers = list(product(users, ips))
    before = 0
    got = -1
    while before != got:
        before, got = max(got, 0), max(got, 0)
        for user, ip in askers:
            with suppress(Overloaded):
                stack.enter_context(slots.slot(user, ip))
                got += 1
    return got


def names(number: int) -> list[str]:
    return [f"user {one}" for one in range(number)]


def addresses(number: int) -> list[str]:
    return [f"192.0.2.{one}" for one in range(number)]


def test_places_are_taken_and_given_back() -> None:
    slots = UploadSlots()
    for _ in range(2):
        with ExitStack() as stack:
            assert taken(slots, stack, ["ada"]) == AT_ONCE // (FREE_FOR_USER + 1) + 1
            with pytest.raises(Overloaded):
                stack.enter_context(slots.slot("ada", "::2"))
        with pytest.raises(KeyError), slots.slot("eve", "::1"):
            raise KeyError


def test_no_user_and_no_address_has_more_than_its_share() -> None:
    with ExitStack() as stack:
        assert taken(UploadSlots(at_once=10_000), stack, ["ada"]) == AT_ONCE_EACH
    with ExitStack() as stack:
        got = taken(UploadSlots(at_once=10_000), stack, names(100))
        assert got == AT_ONCE_EACH_ADDRESS


@pytest.mark.parametrize(("users", "ips"), [(8, 1), (8, 8), (100, 1), (20, 20), (40, 5), (5, 40)])
def test_those_who_take_all_they_can_leave_places_for_others(users: int, ips: int) -> None:
    slots = UploadSlots()
    with ExitStack() as stack:
        taken(slots, stack, names(users), addresses(ips))
        for one in range(8):
            stack.enter_context(slots.slot(f"newcomer {one}", f"203.0.113.{one}"))


def test_all_places_are_never_more_than_there_are() -> None:
    with ExitStack() as stack:
        everyone = zip(names(250), addresses(250), strict=True)
        slots = UploadSlots(at_once=16)
        got = 0
        for user, ip in everyone:
            with suppress(Overloaded):
                stack.enter_context(slots.slot(user, ip))
                got += 1
        assert got == 16
