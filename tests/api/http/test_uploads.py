"""Files out of bodies: forms cut at every byte, and places for so many. See also test_assets."""

from __future__ import annotations

import pytest
from quart.wrappers import Request
from werkzeug.datastructures import Headers

from api.http.bodies import ReceivedRequest
from api.http.uploads import FORM_BYTES, UploadSlots, receive, receive_whole
from reileta.errors import AssetFileInvalid, Overloaded, PayloadTooLarge

CONTENT = b"a\r\n--b\r\n--boundar\r\n\r\n--boundaryX--\n"
FORM = (
    b"--boundary\r\nContent-Disposition: form-data; name=note\r\n\r\nhello\r\n"
    b'--boundary\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n'
    b"Content-Type: text/html\r\n\r\n" + CONTENT + b"\r\n--boundary--\r\nepilogue"
)
KIND = "multipart/form-data; boundary=boundary"


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

    await receive(made, sink, limit, AssetFileInvalid)
    return bytes(got)


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
        await receive_whole(request(FORM), len(CONTENT) - 1, AssetFileInvalid, kind="image/png")
    whole = await receive_whole(request(FORM), len(CONTENT), AssetFileInvalid, kind="image/png")
    assert whole == CONTENT


def test_places_are_taken_and_given_back() -> None:
    places = UploadSlots(at_once=3, each=2)
    with places.place("ada"), places.place("ada"):
        with pytest.raises(Overloaded), places.place("ada"):
            pass
        with places.place("bob"), pytest.raises(Overloaded), places.place("eve"):
            pass
        with pytest.raises(KeyError), places.place("eve"):
            raise KeyError
        with places.place("eve"):
            pass
    with places.place("ada"), places.place("ada"):
        pass
